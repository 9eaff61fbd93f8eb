"""The voxels that count, and the scores of named regions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from voxlate.base.array_types import Bool, Float32
from voxlate.base.errors import BadInput
from voxlate.base.similarity import dice
from voxlate.checks.check_table import mask_numbers, refuse_misplaced
from voxlate.evaluation.scoring.metrics import mae, mean_inside
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.formats.io import is_there, read_volume
from voxlate.scans.images.grid import Volume, canonical, same_grid
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.ranges import WHOLE_MASK, range_for
from voxlate.scans.images.regions import Region, scale_to_peak

BONE = "bone"
TISSUES = ("air", "fat", "soft_tissue", BONE)  # that are scored in every CT
SMALLEST_LESION = 4  # voxels; smaller pieces do not count
# Shares of a piece, or of its contrast: from KEPT on it is kept, below ERASED it is erased.
KEPT = 0.5
ERASED = 0.1
RING = 3  # width in voxels of the in-plane surroundings of a piece
# Contrast in standard deviations of the surroundings, below which the truth does not show a piece.
VISIBLE = 0.5
TOUCHING = np.ones((3, 3, 3), bool)
IN_PLANE = TOUCHING & (np.arange(3) == 1)[:, None, None]


def find_region(region: Region, truth: Volume, case: CaseFiles, frame: Bool) -> Bool:
    """The voxels in `frame` of a region by a mask file, a label map or another scan of the case, [D, H, W] canonical."""
    if region.path is not None:
        mask = on_grid_of(truth, _file_of(region.path, case.case), "mask")
        inside: Bool = mask.data[0] > 0.5
        return inside & frame
    modality = str(region.modality)
    if modality in case.labels:
        return region.select(on_grid_of(truth, case.labels[modality], "seg").data[0], frame)
    if modality not in case.files:
        known = ", ".join(sorted({**case.files, **case.labels}))
        raise BadInput(
            f"region {region.name}: expected a modality or label map of {case.case} ({known}), found {modality}. Choose one of these."
        )
    other = on_grid_of(truth, case.files[modality], modality)
    values = scale_to_peak(other, range_for(other.unit), foreground(other))
    return region.select(values, frame)


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
    named, _ = ndimage.label(inside, TOUCHING)
    for number, held in enumerate(ndimage.find_objects(named), start=1):
        box = tuple(slice(max(0, side.start - RING), side.stop + RING) for side in held)
        piece = named[box] == number
        if piece.sum() < SMALLEST_LESION:
            continue
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


def _share_of_contrast(piece: Bool, truth: Float32, image: Float32) -> float | None:
    """The contrast of a piece in the image over that in the truth; None if the truth shows no contrast."""
    ring = ndimage.binary_dilation(piece, IN_PLANE, iterations=RING) & ~piece
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
    inside = body = foreground(truth)
    if mask != "body":
        path = case.mask if mask == "cohort" else _file_of(mask, case.case)
        if path is None or not is_there(path):
            raise BadInput(
                f"--mask: expected body, whole, cohort (its mask files) or a file, found {mask!s}, and no such file for {case.case}. Choose one of these."
            )
        given = on_grid_of(truth, path, "mask")
        inside = given.data[0] > 0.5
        # a file of the user's may be of any part
        refuse_misplaced(path, mask_numbers(given, inside, [body]), mask == "cohort")
    if not inside.any():
        raise BadInput(
            f"{case.case}: expected a mask with voxels inside, found an empty one. Choose another --mask."
        )
    return inside


def _file_of(place: object, case: str) -> Path:
    return Path(str(place).replace("{case}", case))


def on_grid_of(truth: Volume, path: Path, modality: str) -> Volume:
    """The image of `path`, canonical; raises BadInput if its grid is not that of the truth."""
    volume = read_canonical(path, modality)
    if same_grid(volume.grid, truth.grid):
        return volume
    raise BadInput(
        f"{path}: expected the grid of {truth.origin} ({truth.grid}), found {volume.grid}. Bring it to this grid."
    )


def read_canonical(path: Path, modality: str) -> Volume:
    """A scan in canonical orientation, in which slices are axial and rows have the same direction in all files."""
    turned = canonical(read_volume(path, modality))
    return replace(turned, data=np.ascontiguousarray(turned.data))
