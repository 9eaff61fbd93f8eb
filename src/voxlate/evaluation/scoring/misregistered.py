"""Misregistered pairs: the part of an error that is due to them, and the scores of an image moved onto its truth."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.ndimage

from voxlate.base.array_types import Bool, Float32, Float64
from voxlate.checks.case_checks import is_misaligned
from voxlate.evaluation.scoring.metrics import SCOPED, ImagePair, Score, mae
from voxlate.scans.cases.case import read_header
from voxlate.scans.cases.prepared import case_path
from voxlate.scans.images.misalignment import Misalignment, Motion, find_motion, points_in

NAME = "aligned"  # the beginning of the keys of scores after the image was moved
KEYS = (*SCOPED, "gradient_strength")
MOST_MM = 10.0  # 95 % of displacements are below; a longer one would hide an error of anatomy
RULE = f"the image, and each naive baseline, moved onto the truth by the rigid motion with the most mutual information, as it is where none is found or 5 % of its lengths are over {MOST_MM:g} mm; interpolated linearly, which softens edges"
# The standard deviation in voxels removes noise and keeps the mean error of a shifted edge.
SMOOTHED = 1.0

Spacing = tuple[float, float, float]


def estimate_for(
    cohort: Path | None, case: str, modality: str, sources: Collection[str]
) -> Misalignment | None:
    """The largest misalignment of a truth with one of its sources (`to`), or None.

    Only pairs count that prepare registered, or that are above its threshold.
    """
    path = None if cohort is None else case_path(cohort, case)
    if path is None or not path.is_file():
        return None
    header = read_header(path)
    pairs = []
    for name, estimate in header.misaligned.items():
        if name == modality and estimate.to in sources:
            pairs.append(estimate)
        elif name in sources and estimate.to == modality:
            pairs.append(replace(estimate, to=name))
    counted = [
        estimate
        for estimate in pairs
        if estimate.median_mm is not None
        and ({modality, estimate.to} & header.registered.keys() or is_misaligned(header, estimate))
    ]
    return max(counted, key=lambda estimate: estimate.median_mm or 0.0, default=None)


def floor_of(
    truth: Float32, inside: Bool | None, spacing_mm: Spacing, estimate: Misalignment
) -> dict[str, float]:
    """The error of the truth [D, H, W] on its scored range after a shift by the median length in the mean direction, and this length."""
    assert estimate.median_mm is not None
    assert estimate.translation_mm is not None
    direction = np.array(estimate.translation_mm)
    length = float(np.linalg.norm(direction))
    # A pure rotation has no direction, so any direction serves.
    direction = direction / length if length > 0 else np.array([0.0, 1.0, 0.0])
    voxels = estimate.median_mm * direction / np.array(spacing_mm)
    smooth = scipy.ndimage.gaussian_filter(truth, [SMOOTHED if n > 1 else 0.0 for n in truth.shape])
    moved = scipy.ndimage.shift(smooth, voxels, order=1, mode="nearest")
    return {"floor": mae(smooth, moved, inside), "floor_mm": estimate.median_mm}


def score_aligned(
    pair: ImagePair, body: Bool, spacing_mm: Spacing, functions: Mapping[str, Score]
) -> dict[str, float]:
    """The scores `aligned.KEY` of the image moved onto the truth, and `aligned.mm`, the median displacement.

    body: the truth's foreground, in which the two are compared. `aligned.mm` is absent where nothing was moved.
    """
    motion = motion_onto(pair.truth, pair.synthesis, body, spacing_mm, pair.scale.unit)
    scores = {}
    if motion is not None:
        spacing = np.array(spacing_mm)
        moved = scipy.ndimage.affine_transform(
            pair.synthesis,
            motion.matrix * spacing / spacing[:, None],
            motion.offset / spacing,
            order=1,
            mode="nearest",
        )
        pair = replace(pair, synthesis=moved.astype(np.float32))
        scores[f"{NAME}.mm"] = float(np.median(_lengths(motion, body, spacing_mm)))
    return {f"{NAME}.{key}": functions[key](pair) for key in KEYS if key in functions} | scores


def motion_onto(
    truth: Float32, image: Float32, body: Bool, spacing_mm: Spacing, unit: str
) -> Motion | None:
    """The rigid motion from the truth's points to those of an image; None if it is not moved."""
    motion = find_motion(truth, image, spacing_mm, body, (unit, unit))
    if motion is None or np.percentile(_lengths(motion, body, spacing_mm), 95) > MOST_MM:
        return None
    return motion


def _lengths(motion: Motion, body: Bool, spacing_mm: Spacing) -> Float64:
    """The lengths in mm by which a motion displaces points of a body."""
    return np.linalg.norm(motion.displacements(points_in(body, spacing_mm)), axis=1)
