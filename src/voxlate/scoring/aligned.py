"""Scores of an image after it was resampled onto its truth, which show the error that misregistered pairs cause."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage

from voxlate.images.misalignment import displacement_field
from voxlate.images.motion import on_every_voxel
from voxlate.scoring.metrics import SCOPED, ImagePair, Score
from voxlate.system.arrays import Bool, Float32
from voxlate.system.errors import BadInput

NAME = "aligned"  # the beginning of the scores' keys
KEYS = (*SCOPED, "gradient_strength")
MOST_MM = 10.0  # 95 % of displacements are below; a longer one would hide an error of anatomy
RULE = f"the image, and each naive baseline, moved onto the truth by the smooth displacement on which windows of both agree, as it is where none is found or 5 % of its lengths are over {MOST_MM:g} mm; interpolated linearly, which softens edges"

Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Moved:
    """An image [D, H, W] on its truth, and the median length of its displacement; None if it was not moved."""

    values: Float32
    median_mm: float | None


def score_aligned(
    pair: ImagePair, body: Bool, spacing_mm: Spacing, functions: Mapping[str, Score]
) -> dict[str, float]:
    """The scores `aligned.KEY` of the image moved onto the truth, and `aligned.mm`, the median displacement.

    body: the truth's foreground, in which windows are compared. `aligned.mm` is absent where nothing was moved.
    """
    moved = resample_onto(pair.truth, pair.synthesis, body, spacing_mm, pair.scale.unit)
    aligned = replace(pair, synthesis=moved.values)
    scores = {f"{NAME}.{key}": functions[key](aligned) for key in KEYS if key in functions}
    if moved.median_mm is not None:
        scores[f"{NAME}.mm"] = moved.median_mm
    return scores


def resample_onto(
    truth: Float32, image: Float32, body: Bool, spacing_mm: Spacing, unit: str = ""
) -> Moved:
    """Move an image onto the truth [D, H, W] by the displacement that their windows follow."""
    field, _, _ = displacement_field(truth, image, spacing_mm, body, (unit, unit))
    if field is None:
        return Moved(image, None)
    displacement = on_every_voxel(field, truth.shape, spacing_mm)
    lengths = np.sqrt((displacement[:, body] ** 2).sum(axis=0))
    if np.percentile(lengths, 95) > MOST_MM:
        return Moved(image, None)
    steps = displacement / np.array(spacing_mm, dtype=np.float32)[:, None, None, None]
    places = np.indices(truth.shape, dtype=np.float32) + steps
    values = scipy.ndimage.map_coordinates(image, places, order=1, mode="nearest")
    return Moved(values.astype(np.float32), float(np.median(lengths)))


def count_moved(scores: Iterable[Mapping[str, float]]) -> str:
    """How many images were moved, by the scores of each."""
    flags = [f"{NAME}.mm" in own for own in scores]
    return f"{sum(flags)} of {len(flags)} images were moved"


def check_name(regions: Mapping[str, str] | None) -> None:
    """Raise BadInput for a region whose scores would have the keys of the aligned ones."""
    if NAME in (regions or {}):
        raise BadInput(f"--align: expected no region named {NAME}, found one. Rename the region.")
