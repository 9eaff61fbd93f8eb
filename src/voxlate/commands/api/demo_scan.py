"""The pictures of the demo: of phantoms, and of a starter's synthesis on a scan of the user's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxlate.base.array_types import AnyArray, Float32
from voxlate.base.errors import BadInput
from voxlate.base.files import HIGH, LOW, SYNTHETIC, whole_file
from voxlate.base.option import FLAG
from voxlate.commands.api.images import synthesise, volumes_in
from voxlate.commands.api.progress import Reporter
from voxlate.scans.formats.io import location_of, read_volume, without_ending
from voxlate.scans.images.grid import Volume, canonical
from voxlate.scans.images.mask import box_around, foreground
from voxlate.scans.images.pictures import (
    Picture,
    Plane,
    montage,
    palette,
    pixel_mm,
    plane_of,
    shades,
    sheet_with_labels,
    square_pixels,
)
from voxlate.scans.images.units import unit_of
from voxlate.synthesis.provenance import provenance_of, source_paths
from voxlate.training.starters.card import read_card
from voxlate.training.starters.names import PREFIX, folder_of, starter_names

SHOWN_HU = (-200, 1200)
ZOOM = 3  # the last row enlarges a piece of skull so much
LARGEST_HU = 300  # upper end of the colour scale of spread and error
TILE = 320  # pixels of a slice in the picture
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")


@dataclass(frozen=True)
class RealDemo:
    """The results of a starter on a scan, as `voxlate.demo` returns them with `real`.

    Args:
        starter: the starter that was used.
        folder: of its images.
        picture: the PNG file.

    Example:
        >>> import voxlate
        >>> demo = voxlate.demo("mine", real="scan.nii.gz")  # doctest: +SKIP
        >>> demo.starter  # doctest: +SKIP
        'starter:head-mr-to-ct'
    """

    starter: str
    folder: Path
    picture: Path


def demo_on_scan(scan: Path, out: Path, starter: str | None, reporter: Reporter) -> RealDemo:
    """Synthesise what a starter makes of one scan, and write a picture of both in three planes.

    starter: starter:NAME; None takes the one for the scan's name, or else the first that takes a single scan.
    """
    run = starter or starter_for(scan)
    try:
        (folder,) = synthesise(run, scan, out, progress=reporter).folders
    except BadInput as error:
        if not FLAG.search(str(error)):
            raise
        raise type(error)(
            f"{error} The option is one of: voxlate synth {run} {scan} --out {out}"
        ) from error
    source = canonical(read_volume(next(iter(source_paths(provenance_of(folder)).values()))))
    targets = {
        name.removeprefix(SYNTHETIC): canonical(volume)
        for name, volume in volumes_in(folder).items()
    }
    picture = out / "picture.png"
    _write_picture(source, targets, picture)
    return RealDemo(run, folder, picture)


def starter_for(scan: Path) -> str:
    """The starter for a scan by its file's name, or else the first installed one that takes a single scan.

    Raises BadInput if none is installed.
    """
    known = starter_names()
    if not known:
        raise BadInput(
            "--real: expected an installed starter, found none with this copy of voxlate. Train a run (voxlate train auto)."
        )
    cards = {name: read_card(folder_of(name)) for name in known}
    single = [name for name, card in cards.items() if len(card.source) == 1]
    stem = without_ending(location_of(scan).name).lower()
    if not single:
        raise BadInput(
            f"--real: expected a starter that takes one scan, found {', '.join(known)}. Name one and its scans: voxlate synth {PREFIX}{known[0]} t1=scan.nii.gz --out OUT"
        )
    fitting = [name for name in single if stem in cards[name].names_of(cards[name].source[0])]
    return f"{PREFIX}{[*fitting, *single][0]}"


def _write_picture(source: Volume, targets: dict[str, Volume], path: Path) -> None:
    """A row for each plane through the middle of the body: the scan, and each synthesised image."""
    box = box_around(foreground(source))
    middle = [(first + last) // 2 for first, last in box]
    images = {"scan": source, **targets}
    ranges = {name: _range(name, volume) for name, volume in images.items()}
    rows = []
    for index, plane in enumerate(PLANES):
        tiles = []
        for name, volume in images.items():
            shown = shades(plane_of(volume.data[0], plane, middle[index]), *ranges[name])
            tiles.append(square_pixels(shown, pixel_mm(volume.grid.spacing_mm, plane)))
        rows.append((plane, tiles))
    titles = ["scan", *(f"{name}, synthesised" for name in targets)]
    sheet = sheet_with_labels(rows, titles, TILE)
    with whole_file(path) as temporary:
        sheet.save(temporary, "png")


def _range(name: str, volume: Volume) -> tuple[float, float]:
    """The values that are shown black and white."""
    if name != "scan" and unit_of(name) == "HU":
        return SHOWN_HU
    values = volume.data[np.isfinite(volume.data)]
    low, high = np.percentile(values, [0.5, 99.7])
    return float(low), float(high) if high > low else float(low) + 1


def picture_of(
    cohort: Path, folders: Sequence[Path], cases: Sequence[str], between: float, path: Path
) -> Path:
    """A row a head, at the slice with most tumour, and a last row with the back of the last head's skull, enlarged."""
    rows = [_row(cohort, folders, case) for case in cases]
    height, width = rows[-1][0].shape[:2]
    side, left = height // ZOOM, width // 6
    rows.append([image[:side, left : left + side] for image in rows[-1]])
    maps = ["90 % interval's half", "regression's error", "truth outside"]
    titles = [
        "T1",
        "regression",
        f"sharpness {between:g}",
        "one sample",
        "true CT",
        *(f"{title}, 0-{LARGEST_HU} HU" for title in maps),
    ]
    montage(rows, titles, path)
    return path


def _row(cohort: Path, synthesised: Sequence[Path], case: str) -> list[Picture]:
    """Source, predictions by sharpness, truth, how far it may lie from the regression, and does; cut to the head."""
    truth, folders = cohort / case, [folder / case for folder in synthesised]
    tumour = canonical(read_volume(truth / "lesion.nii.gz")).data[0] > 0
    level = int(np.argmax(tumour.sum((1, 2))))
    predictions = [_slice(folder / "ct.nii.gz", level) for folder in folders]
    true, given = (_slice(truth / f"{name}.nii.gz", level) for name in ("ct", "t1"))
    least, most = (_slice(folders[0] / f"ct{end}.nii.gz", level) for end in (LOW, HIGH))
    low, high = SHOWN_HU
    grey = [
        _colours(given, 0, float(given.max())),
        *(_colours(image, low, high) for image in (*predictions, true)),
    ]
    error = np.abs(predictions[0].clip(low, high) - true.clip(low, high))
    outside = np.maximum(least - true, 0) + np.maximum(true - most, 0)
    half = (most - least) / 2
    hot = [_colours(values, 0, LARGEST_HU, "inferno") for values in (half, error, outside)]
    box = tuple(slice(max(at.min() - 4, 0), at.max() + 5) for at in np.nonzero(true > low))
    return [image[box] for image in (*grey, *hot)]


def _slice(path: Path, level: int) -> Float32:
    return canonical(read_volume(path)).data[0, level]


def _colours(image: AnyArray, low: float, high: float, name: str = "gray") -> Picture:
    """Values [H, W] as an RGB picture [H, W, 3] through a window and a colour map."""
    return palette(name)[shades(image, low, high)]
