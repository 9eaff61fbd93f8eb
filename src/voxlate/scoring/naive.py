"""The naive baselines' images of one scored case, on the grid of its truth."""

from collections.abc import Callable, Mapping
from pathlib import Path

from voxlate.data.naive import Baselines
from voxlate.errors import BadInput
from voxlate.images.grid import Grid
from voxlate.images.midline import midline_grid
from voxlate.images.ranges import Range
from voxlate.images.volume import Volume, is_there
from voxlate.scoring.alignment import Move
from voxlate.scoring.network_units import NetworkUnits
from voxlate.scoring.regions import read_canonical


def naive_images(
    baselines: Baselines,
    truth: Volume,
    move_from: Callable[[Grid, str], Move],
    files: Mapping[str, Path],
    inputs: Mapping[str, Path],
) -> tuple[dict[str, Volume], list[str]]:
    """The images by name on the truth's grid, and a sentence for each that could not be made.

    move_from: how what lies on a grid, in the frame of a scan, comes to the truth's; files: the case's other scans;
    inputs: those that the synthesis was made from.
    """
    target, sources, left_out, images = truth.modality, dict[str, Volume](), list[str](), dict[str, Volume]()
    if target in baselines.means:
        try:
            images["mean image"] = _mean_image(baselines, truth, move_from, {**files, **inputs})
        except BadInput as error:
            left_out.append(f"No mean image: {error}")
    for name, path in inputs.items():
        if (name, target) in baselines.tables and is_there(path):
            try:
                scan = read_canonical(path, name)
                sources[name] = move_from(scan.grid, name).move(scan)
            except BadInput as error:
                left_out.append(f"No copy and no table of {name}: {error}")
    for name, values in baselines.images(target, sources, truth.grid).items():
        images[name] = Volume(values[None], truth.affine, truth.unit, target)
    return images, left_out


def scored_as(volume: Volume, baselines: Baselines, scale: Range, units: NetworkUnits | None) -> Volume | None:
    """A baseline in the unit that is scored; None where it is in shares of a peak and an older run does not state one.

    Images in arbitrary units are scored in shares of their own peak, unless a range or network units are asked for.
    """
    known = baselines.in_own_unit(volume)
    if units is not None:
        return units.naive(volume, baselines.ranges[volume.modality]) if known is None else units.synthesis(known)
    return volume if scale.own else known


def _mean_image(
    baselines: Baselines, truth: Volume, move_from: Callable[[Grid, str], Move], files: Mapping[str, Path]
) -> Volume:
    """The mean fills the grid of the scan whose grid prepared cases take."""
    if baselines.fixed is None:
        raise BadInput("expected a run that says which scan it fills, found one of an earlier version. Train again.")
    fixed = baselines.fixed or truth.modality
    if fixed == truth.modality:
        scan, move = truth, Move(truth.grid)
    elif fixed in files and is_there(files[fixed]):
        scan = read_canonical(files[fixed], fixed)
        move = move_from(scan.grid, fixed)
    else:
        raise BadInput(f"expected {fixed}, whose grid it fills, found no such scan. Add it to the cohort.")
    box = midline_grid(scan) if baselines.align else scan.grid
    return move.move(baselines.mean_image(truth.modality, box))
