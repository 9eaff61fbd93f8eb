"""Distances between the slices of all syntheses and of all truths, pooled over the cases, by the features given."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlate.images.ranges import Range
from voxlate.scoring.features import Features
from voxlate.scoring.frechet import ENOUGH, FOLDS, Estimate, frechet_with_errors, kernel_distance

KEYS = {
    "fd": ("fd", "fd_inf", "kd"),
    "texture": ("texture_distance", "texture_distance_inf", "texture_kd"),
}
FEWEST = 3  # cases or patients below which errors come from blocks of slices

Slices = NDArray[np.float32]
Found = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Pool:
    """Feature vectors of slices, gathered case by case: (modality, answer) -> [(case, patient, vectors)]."""

    features: Features
    seed: int = 0
    vectors: dict[tuple[str, str], dict[tuple[str, str], NDArray[np.float64]]] = field(default_factory=dict)

    def add(self, modality: str, answer: str, case: str, patient: str, pictures: Slices) -> None:
        """pictures: [N, H, W] in [0, 1], all slices of one case."""
        if len(pictures):
            self.vectors.setdefault((modality, answer), {})[case, patient] = self.features(pictures)

    def distances(self, modality: str, answer: str) -> Found:
        """Distances of an answer to the truth, by key, each with its standard error, numbers and units of error."""
        truth, ours = self.vectors.get((modality, "truth"), {}), self.vectors.get((modality, answer), {})
        shared = [key for key in ours if key in truth]
        if not shared:
            return {}
        a, b = (np.concatenate([part[key] for key in shared]) for part in (truth, ours))
        groups, over = _groups(shared, [len(truth[key]) for key in shared])
        if len(a) < 2:
            return {}
        plain, limit = frechet_with_errors(a, b, groups, self.seed)
        kernel = kernel_distance(a, b, groups, groups)
        return {key: _entry(one, len(a), over) for key, one in zip(KEYS[self.features.kind], (plain, limit, kernel))}

    def stated(self, modality: str) -> dict[str, Any]:
        """What the numbers rest on, for metrics.json and the caption."""
        truth = self.vectors.get((modality, "truth"), {})
        images = sum(map(len, truth.values()))
        return {
            "name": self.features.name,
            "kind": self.features.kind,
            "dimensions": self.features.dimensions,
            "resize": self.features.resize,
            "values": "grey in [0, 1] over the range, clipped; outside the mask 0, slices without mask left out",
            "images": images,
            "images_for_limit": ENOUGH * self.features.dimensions,
            "errors": f"jackknife over {_groups(list(truth), list(map(len, truth.values())))[1]}",
        }


def slices_of(values: NDArray[np.float32], scale: Range, inside: NDArray[np.bool_] | None) -> Slices:
    """Axial slices [N, H, W] in [0, 1] as radiologists look at them (front up, the patient's right at the left).

    values: [D, H, W], canonical, brought to the range. Slices without any of the mask are left out.
    """
    grey = np.clip((values - scale.low) / scale.width, 0, 1).astype(np.float32)
    if inside is not None:
        grey = np.where(inside, grey, np.float32(0))[inside.any((1, 2))]
    return np.ascontiguousarray(grey[:, ::-1, ::-1])


def _groups(cases: Sequence[tuple[str, str]], counts: Sequence[int]) -> tuple[NDArray[Any], str]:
    """Labels of what may be taken as independent, one a slice: patients, else cases, else blocks of neighbours."""
    for number, name in ((1, "patients"), (0, "cases")):
        names = [pair[number] for pair in cases]
        if len(set(names)) >= FEWEST:
            return np.repeat(names, counts), f"{len(set(names))} {name}"
    total = sum(counts)
    blocks = min(FOLDS, total)
    return np.arange(total) * blocks // max(total, 1), f"{blocks} blocks of neighbouring slices, so too small"


def _entry(estimate: Estimate, images: int, over: str) -> dict[str, Any]:
    """As a summary over cases looks, so that tables and reports show both; `n` counts images."""
    value, error = (number if math.isfinite(number) else None for number in (estimate.value, estimate.error))
    return {"mean": value, "sd": None, "ci95": None, "n": images, "not_finite": 0, "se": error, "errors": over}
