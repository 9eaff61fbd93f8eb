"""The mask of all scores, the scores of named regions, and both where nobody asks.

Without being asked, the body of images in HU and of perfusion maps is scored, and the tissues of a CT.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from voxlate.base.array_types import Bool, Float32
from voxlate.base.errors import BadInput
from voxlate.base.similarity import dice
from voxlate.checks.case_checks import mask_numbers, refuse_misplaced
from voxlate.evaluation.scoring.metrics import mae, mean_inside
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.formats.io import is_there, read_volume
from voxlate.scans.images.grid import Volume, canonical, same_grid
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.ranges import WHOLE_MASK, Range, range_for
from voxlate.scans.images.regions import Region, scale_to_peak, tissue_regions

BONE = "bone"
TISSUES = ("air", "fat", "soft_tissue", BONE)
NAMED = (None, WHOLE_MASK, "body", "cohort")  # masks that are no files
SMALLEST_LESION = 4  # voxels; smaller pieces do not count
# Shares of a piece, or of its contrast: from KEPT on it is kept, below ERASED it is erased.
KEPT = 0.5
ERASED = 0.1
RING = 3  # width in voxels of the in-plane surroundings of a piece
# Contrast in standard deviations of the surroundings, below which the truth does not show a piece.
VISIBLE = 0.5
TOUCHING = np.ones((3, 3, 3), bool)

Box = tuple[slice, ...]


def tissues_for(modality: str, unit: str, taken: Collection[str]) -> list[Region]:
    """The tissues that are scored in a CT, but for names that are taken."""
    if unit != "HU":
        return []
    return [
        region
        for region in tissue_regions(modality)
        if region.name in TISSUES and region.name not in taken
    ]


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
        inside: Bool = on_grid_of(truth, _file_of(region.path, case.case), "mask").data[0] > 0.5
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
    truth: Float32,
    other: Float32,
    overlap: Bool | None,
    spacing_mm: Sequence[float],
) -> dict[str, float]:
    """The scores of a region in one image; inside, overlap: [D, H, W], the region in the truth and in the other image.

    MAE, both means and the volume (ml). With `overlap` also the Dice and its volume. Of all but tissues also counts of
    lesions.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    count = float(inside.sum())
    scores = {
        "voxels": count,
        "truth_volume": voxel_ml * count,
        "mean": mean_inside(other, inside),
        "truth_mean": mean_inside(truth, inside),
        "mae": mae(truth, other, inside),
    }
    if overlap is not None:
        scores["dice"] = dice(inside, overlap)
        scores["volume"] = voxel_ml * float(overlap.sum())
    if not region.tissue:
        scores |= count_lesions(inside, truth, other, overlap)
    return {f"{region.name}.{key}": value for key, value in scores.items()}


def count_lesions(
    inside: Bool, truth: Float32, image: Float32, predicted: Bool | None = None
) -> dict[str, float]:
    """Counts of connected pieces of a region that an image keeps, shrinks, erases or invents; arrays are [D, H, W]; inside: the region in the truth.

    predicted: the same region in the image, if the image's values define it. A piece is kept if at least half of it is
    predicted and erased below a tenth; predicted pieces that touch none of the truth are invented. Otherwise (label map,
    mask file) the contrast of a piece with its surroundings is compared with that in the truth; pieces that the truth
    does not show are `unseen`, and invented pieces are unknown.
    """
    shares = []
    for box, piece in _pieces(inside):
        if predicted is None:
            shares.append(_share_of_contrast(piece, truth[box], image[box]))
        else:
            shares.append(float(predicted[box][piece].mean()))
    visible = [share for share in shares if share is not None]
    counts = {
        "pieces": len(shares),
        "kept": sum(share >= KEPT for share in visible),
        "shrunk": sum(ERASED <= share < KEPT for share in visible),
        "erased": sum(share < ERASED for share in visible),
        "unseen": len(shares) - len(visible),
    }
    if predicted is not None:
        named, _ = ndimage.label(predicted, TOUCHING)
        sizes = np.bincount(named.ravel())
        sizes[np.unique(named[ndimage.binary_dilation(inside, TOUCHING)])] = 0
        counts["invented"] = int((sizes[1:] >= SMALLEST_LESION).sum())
    return {name: float(value) for name, value in counts.items()}


def _pieces(inside: Bool) -> Iterator[tuple[Box, Bool]]:
    """The connected pieces that count, each in a box with its surroundings."""
    named, _ = ndimage.label(inside, TOUCHING)
    for number, held in enumerate(ndimage.find_objects(named), start=1):
        box = tuple(slice(max(0, side.start - RING), side.stop + RING) for side in held)
        piece = named[box] == number
        if piece.sum() >= SMALLEST_LESION:
            yield box, piece


def _share_of_contrast(piece: Bool, truth: Float32, image: Float32) -> float | None:
    """The contrast of a piece in the image over that in the truth; None if the truth shows no contrast."""
    plane = np.zeros((3, 3, 3), bool)
    plane[1] = True
    ring = ndimage.binary_dilation(piece, plane, iterations=RING) & ~piece
    if not ring.any():
        return None
    contrast = float(truth[piece].mean() - truth[ring].mean())
    if abs(contrast) < VISIBLE * float(truth[ring].std()) or contrast == 0:
        return None
    return float(image[piece].mean() - image[ring].mean()) / contrast


def mask_of(mask: str | Path, truth: Volume, case: CaseFiles) -> Bool | None:
    """The voxels that count, [D, H, W]; None stands for the whole image; truth: canonical."""
    if mask == WHOLE_MASK:
        return None
    if mask == "body":
        inside = foreground(truth)
    else:
        if mask == "cohort" and case.mask is None:
            raise BadInput(
                f"{case.case}: expected a mask file in the cohort, found none. Pass --mask body or a file."
            )
        check_mask(mask, case.case)
        path = case.mask if mask == "cohort" else _file_of(mask, case.case)
        assert path is not None
        given = on_grid_of(truth, path, "mask")
        inside = given.data[0] > 0.5
        body = foreground(truth)
        # a file of the user's may be of any part
        refuse_misplaced(path, mask_numbers(given, inside, [body]), mask == "cohort")
    if not inside.any():
        raise BadInput(
            f"{case.case}: expected a mask with voxels inside, found an empty one. Choose another --mask."
        )
    return inside


def check_mask(mask: str | Path | None, case: str) -> None:
    """Raise BadInput for a mask that is neither the name of one nor a file of this case."""
    if mask not in NAMED and not is_there(path := _file_of(mask, case)):
        raise BadInput(
            f"--mask: expected body, whole, cohort (its mask files) or a file, found {mask!s}, and no such file for {case} ({path}). Choose one of these."
        )


def _file_of(place: object, case: str) -> Path:
    return Path(str(place).replace("{case}", case))


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
