"""The mask of all scores, and the scores of named regions."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from voxlate.base.arrays import Bool
from voxlate.base.errors import BadInput
from voxlate.base.similarity import RADIUS, dice
from voxlate.checks.cohort_outliers import refuse_misplaced
from voxlate.checks.quality_checks import mask_numbers
from voxlate.evaluation.lesion_counts import count_lesions
from voxlate.evaluation.scoring.metrics import ImagePair, mae, mae_z, psnr, ssim
from voxlate.evaluation.scoring.standard import BONE, WHOLE_MASK, thirds
from voxlate.evaluation.surfaces import surface_distances
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.cohorts.leakage import sentences_on_shared_masks
from voxlate.scans.formats.io import is_there, read_volume
from voxlate.scans.images.grid import Volume, canonical, same_grid
from voxlate.scans.images.mask import box_around, brain, clearest, foreground
from voxlate.scans.images.ranges import Range, range_for
from voxlate.scans.images.regions import Region, scale_to_peak
from voxlate.scans.images.units import unit_of

NAMED = (None, WHOLE_MASK, "body", "brain", "cohort")  # masks that are no files


def find_region(
    region: Region,
    truth: Volume,
    scale: Range,
    body: Bool | None,
    case: CaseFiles,
    frame: Bool,
) -> Bool:
    """The voxels of the region in one case, [D, H, W] canonical, within `frame`; there may be none.

    scale: the scored range of the truth; body: the truth's foreground, if the range is that of the image's own peak.
    """
    if region.path is not None:
        path = _file_of(region.path, case.case)
        inside: Bool = on_grid_of(truth, path, "mask").data[0] > 0.5
        return inside & frame
    modality = region.modality
    assert modality is not None
    if modality == truth.modality:
        return region.select(scale_to_peak(truth, scale, body), frame)
    if modality in case.labels:
        return region.select(on_grid_of(truth, case.labels[modality], "seg").data[0], frame)
    if modality not in case.files:
        known = ", ".join(sorted({**case.files, **case.labels}))
        raise BadInput(
            f"region {region.name}: expected a modality or label map of {case.case} ({known}), found {modality}. Choose one of these."
        )
    other = on_grid_of(truth, case.files[modality], modality)
    other_scale = range_for(other.unit)
    other_body = foreground(other) if other_scale.own else None
    return region.select(scale_to_peak(other, other_scale, other_body), frame)


def region_scores(
    region: Region,
    inside: Bool,
    pair: ImagePair,
    overlap: Bool | None,
    spacing_mm: Sequence[float],
) -> dict[str, float]:
    """The scores of a region in one image; inside, overlap: [D, H, W], the region in the truth and in the synthesis.

    MAE, both means and the volume (ml). With `overlap` also the Dice, its volume, the error of the volume and, of a region
    with one threshold, the distance of both surfaces. Of all but tissues also PSNR, SSIM, MAE of slices' differences, and
    counts of lesions.
    """
    truth, other = pair.truth, pair.synthesis
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    count = float(inside.sum())
    scores = {"voxels": count, "truth_volume": voxel_ml * count}
    scores |= dict.fromkeys(("mean", "truth_mean", "mae"), math.nan)
    if count:
        scores["mean"] = float(np.mean(other[inside], dtype=np.float64))
        scores["truth_mean"] = float(np.mean(truth[inside], dtype=np.float64))
        scores["mae"] = mae(truth, other, inside)
    if overlap is not None:
        scores["dice"] = dice(inside, overlap)
        if region.name == BONE and region.tissue:
            for third, part in thirds(inside, spacing_mm).items():
                scores[f"dice_{third}"] = dice(inside[part], overlap[part])
        scores["volume"] = voxel_ml * float(overlap.sum())
        scores["volume_error"] = abs(scores["volume"] - scores["truth_volume"])
        # Between two thresholds lies a shell around other tissues, whose surfaces say little; air has no end.
        if math.isinf(region.high if region.tissue else region.high - region.low):
            distances = surface_distances(inside, overlap, spacing_mm)
            scores |= zip(("surface", "surface_95"), distances)
    if not region.tissue:
        scores |= _structure_scores(inside, pair) | count_lesions(inside, truth, other, overlap)
    return {f"{region.name}.{key}": value for key, value in scores.items()}


def _structure_scores(inside: Bool, pair: ImagePair) -> dict[str, float]:
    """PSNR, SSIM, and MAE of slices' differences in a region; NaN if it is empty."""
    if not inside.any():
        return dict.fromkeys(("psnr", "mae_z", "ssim_3d"), math.nan)
    width = pair.scale.width
    box = tuple(slice(max(0, first - RADIUS), end + RADIUS) for first, end in box_around(inside))
    a, b = (image[box] - np.float32(pair.scale.low) for image in (pair.truth, pair.synthesis))
    return {
        "psnr": psnr(pair.truth, pair.synthesis, width, inside),
        "mae_z": mae_z(a, b, inside[box]),
        "ssim_3d": ssim(a, b, width, dimensions=3, mask=inside[box]),
    }


def ratio_scores(name: str, over: tuple[str, str], scored: Mapping[str, float]) -> dict[str, float]:
    """The ratio of the volumes of two regions in image and truth, and the error; NaN if the second is empty.

    A region that is not defined by the image (another modality, a label map, a file) has the truth's volume.
    """
    of_truth = [scored[f"{part}.truth_volume"] for part in over]
    of_image = [scored.get(f"{part}.volume", volume) for part, volume in zip(over, of_truth)]
    ratio, truth = (top / bottom if bottom else math.nan for top, bottom in (of_image, of_truth))
    return {
        f"{name}.ratio": ratio,
        f"{name}.truth_ratio": truth,
        f"{name}.ratio_error": abs(ratio - truth),
    }


def mask_of(mask: str | Path, truth: Volume, case: CaseFiles) -> Bool | None:
    """The voxels that count, [D, H, W]; None stands for the whole image; truth: canonical."""
    if mask == WHOLE_MASK:
        return None
    if mask == "body":
        inside = foreground(truth)
    elif mask == "brain":
        inside = _brain_of(truth, case)
    else:
        if mask == "cohort" and case.mask is None:
            raise BadInput(
                f"{case.case}: expected a mask file in the cohort, found none. Pass --mask body, brain or a file."
            )
        check_mask(mask, case.case)
        path = case.mask if mask == "cohort" else _file_of(mask, case.case)
        assert path is not None
        given = on_grid_of(truth, path, "mask")
        inside = given.data[0] > 0.5
        refuse_misplaced(path, inside, foreground(truth), mask_numbers(given))
    if not inside.any():
        raise BadInput(
            f"{case.case}: expected a mask with voxels inside, found an empty one. Choose another --mask."
        )
    return inside


def check_mask(mask: str | Path | None, case: str) -> None:
    """Raise BadInput for a mask that is neither the name of one nor a file of this case."""
    if mask not in NAMED and not is_there(path := _file_of(mask, case)):
        raise BadInput(
            f"--mask: expected body, whole, brain, cohort (its mask files) or a file, found {mask!s}, and no such file for {case} ({path}). Choose one of these."
        )


def _file_of(place: object, case: str) -> Path:
    return Path(str(place).replace("{case}", case))


def masks_of_several(
    mask: str | Path | None, regions: Iterable[Region], cases: Iterable[CaseFiles]
) -> list[str]:
    """A sentence for each mask file of the evaluation or a region that is used for several patients."""
    places: list[object] = [region.path for region in regions if region.path is not None]
    if mask not in NAMED:
        places.append(mask)
    files = []
    for place, case in itertools.product(places, cases):
        files.append((case.patient, _file_of(place, case.case)))
    if mask == "cohort":
        files += [(case.patient, case.mask) for case in cases if case.mask is not None]
    return sentences_on_shared_masks(files)


def _brain_of(truth: Volume, case: CaseFiles) -> Bool:
    """The brain in the truth, or in the case's CT if the truth is a map of perfusion."""
    units = {truth.modality: truth.unit, **{name: unit_of(name) for name in case.files}}
    name = clearest(units)
    if truth.unit in ("HU", "a.u.", "grey") or units[name] != "HU":
        return brain(truth)
    return brain(on_grid_of(truth, case.files[name], name))


def on_grid_of(truth: Volume, path: Path, modality: str) -> Volume:
    """The image of `path`, canonical; raises BadInput if its grid is not that of the truth."""
    volume = read_canonical(path, modality)
    if same_grid(volume.grid, truth.grid):
        return volume
    raise BadInput(
        f"{path}: expected the grid of {truth.origin} ({truth.grid}), found {volume.grid}. Score images as `voxlate synth` wrote them, on the grid of the truth."
    )


def read_canonical(path: Path, modality: str) -> Volume:
    """A scan in canonical orientation, in which slices are axial and rows have the same direction in all files."""
    turned = canonical(read_volume(path, modality))
    return replace(turned, data=np.ascontiguousarray(turned.data))
