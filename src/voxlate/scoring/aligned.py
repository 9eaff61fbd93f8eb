"""Scores of an image after it was moved onto its truth, beside its scores as it is: what misregistered pairs cost."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from voxlate.errors import BadInput
from voxlate.images.misalignment import displacement_field
from voxlate.images.motion import Field
from voxlate.scoring.metrics import SCOPED, ImagePair, Score

NAME = "aligned"  # the beginning of the scores' keys
KEYS = (*SCOPED, "gradient_strength")
LATTICE_MM = 6.0  # between points at which a smooth field is computed; in between it is linear
MOST_MM = 10.0  # 95 % of displacements are below; a longer one would hide an error of anatomy
RULE = f"the image, and each naive baseline, moved onto the truth by the smooth displacement on which windows of both agree, as it is where none is found or 5 % of its lengths are over {MOST_MM:g} mm; interpolated linearly, which softens edges"

Floats = NDArray[np.float32]
Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Moved:
    """An image [D, H, W] on its truth, and the median length of its displacement; None if it was not moved."""

    values: Floats
    median_mm: float | None


def aligned_scores(
    pair: ImagePair, body: NDArray[np.bool_], spacing_mm: Spacing, functions: Mapping[str, Score]
) -> dict[str, float]:
    """The scores `aligned.KEY` of the image moved onto the truth, and `aligned.mm`, the median displacement.

    body: the truth's foreground, in which windows are compared. `aligned.mm` is absent where nothing was moved.
    """
    moved = moved_onto(pair.truth, pair.synthesis, body, spacing_mm, pair.scale.unit)
    aligned = replace(pair, synthesis=moved.values)
    scores = {f"{NAME}.{key}": functions[key](aligned) for key in KEYS if key in functions}
    if moved.median_mm is not None:
        scores[f"{NAME}.mm"] = moved.median_mm
    return scores


def moved_onto(
    truth: Floats, image: Floats, body: NDArray[np.bool_], spacing_mm: Spacing, unit: str = ""
) -> Moved:
    """Move an image onto the truth [D, H, W] by the displacement that their windows follow."""
    field, _, _ = displacement_field(truth, image, spacing_mm, body, (unit, unit))
    if field is None:
        return Moved(image, None)
    displacement = _on_every_voxel(field, truth.shape, spacing_mm)
    lengths = np.sqrt((displacement[:, body] ** 2).sum(axis=0))
    if np.percentile(lengths, 95) > MOST_MM:
        return Moved(image, None)
    steps = displacement / np.array(spacing_mm, dtype=np.float32)[:, None, None, None]
    places = np.indices(truth.shape, dtype=np.float32) + steps
    values = scipy.ndimage.map_coordinates(image, places, order=1, mode="nearest")
    return Moved(values.astype(np.float32), float(np.median(lengths)))


def _on_every_voxel(field: Field, shape: tuple[int, ...], spacing_mm: Spacing) -> Floats:
    """The displacements in mm at every voxel, [3, D, H, W], linear between points of a lattice."""
    counts = [
        max(2, round(n * mm / LATTICE_MM)) if n > 1 else 1 for n, mm in zip(shape, spacing_mm)
    ]
    nodes = [np.linspace(0, n - 1, count) for n, count in zip(shape, counts)]
    points = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1) * np.array(spacing_mm)
    at_nodes = field(points.reshape(-1, 3)).reshape(*counts, 3)
    axes = [np.linspace(0, count - 1, n) for n, count in zip(shape, counts)]
    places = np.meshgrid(*axes, indexing="ij")
    parts = [
        scipy.ndimage.map_coordinates(at_nodes[..., axis], places, order=1) for axis in range(3)
    ]
    return np.stack(parts).astype(np.float32)


def check_name(regions: Mapping[str, str] | None) -> None:
    """Raise BadInput for a region whose scores would have the keys of the aligned ones."""
    if NAME in (regions or {}):
        raise BadInput(f"--align: expected no region named {NAME}, found one. Rename the region.")
