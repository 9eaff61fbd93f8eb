"""Scans unlike those that a run is calibrated for: by the nearest of their patches, the size of the body, the widths.

Patches are compared with those of known scans, as in PatchCore (Roth et al. 2022), by stated features of intensity in
place of a network's; a case is flagged by conformal prediction over patients.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndimage
import torch
from numpy.typing import NDArray

from voxlate.data.grades import Grade, advice, grade
from voxlate.records import Shape
from voxlate.trust.conformal import by_patient, conformal_quantile, least_patients
from voxlate.trust.features import blur, gradient

Array = NDArray[np.float32]
Spacing = tuple[float, float, float]

APART_MM = 6.0  # distance of patches' centres
FINE_MM, COARSE_MM, AROUND_MM = 2.0, 6.0, 18.0  # blurs, and how far the surroundings are looked at
REMEMBERED = 8000  # patches
FARTHEST = 0.004  # share of a scan's patches that one statistic is the mean of
MOST = 0.05  # of familiar scans that are flagged: promised where each statistic can have its share of it (59 patients)
MARGIN, UNPROVED = 1.2, 1.5  # times the largest that was seen, from 19 patients on, and of fewer
FAR_SIZE = 3.5  # deviations of the body's size, below which few patients flag none
NEAR = 0.99  # of familiar patches that lie nearer than 1 in a map
USUAL_SPREAD, WORTH = 0.05, 3  # of heads' extents, as a logarithm; it counts as much as so many patients
FEWEST_MM = 1e-3
AT_ONCE = 1024
LEAST_SIZE = 1e-4  # deviation of an extent, below that of any calibration
LEAST_SPREAD, LEAST_WIDTH = 1e-3, 1e-6  # of features and of statistics: what never varied may yet do so
EXTENTS = 4  # logarithms of a body's three, and of its volume's root
LARGEST = 1e9  # of what a memory holds: features are some network units

DOUBTFUL: dict[Grade, str] = {
    "note": "",
    "caution": " The intervals may not hold.",
    "do not trust": " Do not trust its intervals.",
}
STATISTICS = {
    "patches": "its patches, on average, are unlike those known",
    "farthest": "parts of it are unlike anything known (metal, motion, another contrast)",
    "size": "its body has another size or field of view",
}


PROVING = least_patients(1 - MOST / len(STATISTICS))  # patients from which the rate of false alarms is promised


@dataclass(frozen=True)
class Patches:
    """Features [N, F] of patches of a case, where they lie (z, y, x), and the logarithms of its body's extents.

    grain: what a voxel more changes in these.
    """

    features: Array
    places: NDArray[np.int32]
    size: Array
    grain: Array


@dataclass(frozen=True)
class ReferencePatches:
    """Patches of known cases, scaled, and how far other known cases lie from them.

    centre, spread: of features; usual, width: by statistic, in STATISTICS' order, the median over known cases and how
    far beyond it a familiar case seldom lies; sizes: mean and deviation of the extents; near: distance below which NEAR
    of known patches lie; patients: how many are known.
    """

    points: Array
    centre: Array
    spread: Array
    usual: Array
    width: Array
    sizes: Array
    near: float
    patients: int

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """All of it by names with a prefix, for a file."""
        arrays = dict(vars(self))
        arrays["numbers"] = np.array([arrays.pop("near"), arrays.pop("patients")], np.float32)
        return {f"{prefix}.{name}": torch.from_numpy(np.ascontiguousarray(one)) for name, one in arrays.items()}


def reference_shapes(points: Sequence[int]) -> dict[str, Shape]:
    """What the tensors of a memory are; points: patches that are known, and features of each."""
    features, statistics = points[-1], len(STATISTICS)
    return {
        "points": Shape(points, low=-LARGEST, high=LARGEST),
        "centre": Shape((features,), low=-LARGEST, high=LARGEST),
        "spread": Shape((features,), low=LEAST_SPREAD / 2, high=LARGEST),
        "usual": Shape((statistics,), low=-LARGEST, high=LARGEST),
        "width": Shape((statistics,), low=LEAST_WIDTH / 2, high=LARGEST),
        "sizes": Shape((2, EXTENTS), low=-LARGEST, high=LARGEST),
        "numbers": Shape((2,), low=1e-30, high=LARGEST),
    }


def references_from(tensors: Mapping[str, torch.Tensor], prefix: str) -> ReferencePatches:
    """What `tensors` gave."""
    mine = f"{prefix}."
    own = {name.removeprefix(mine): one.numpy() for name, one in tensors.items() if name.startswith(mine)}
    near, patients = own.pop("numbers").tolist()
    own["sizes"][1] = np.maximum(own["sizes"][1], LEAST_SIZE)  # a stranger's file may state none
    return ReferencePatches(**own, near=near, patients=round(patients))


@dataclass(frozen=True)
class Verdict:
    """How unlike known cases one is: statistics (above 1: as a familiar one seldom is), distances of its patches."""

    statistics: dict[str, float]
    distances: Array
    places: NDArray[np.int32]
    patients: int

    @property
    def score(self) -> float:
        return max(self.statistics.values())

    @property
    def flagged(self) -> bool:
        return self.score > 1

    @property
    def sentence(self) -> str:
        """What stands out, in words, and what that is worth where few patients say so; empty where nothing does."""
        if not self.flagged:
            return ""
        worst = max(self.statistics, key=lambda name: self.statistics[name])
        few = f"Known are {self.patients} patients: of familiar scans more than {MOST:.0%} may be flagged; look at it."
        return (
            f"Unlike the scans that the run is calibrated for: {STATISTICS[worst]} ({self.score:.1f} times as far from "
            f"the usual as the farthest familiar ones). {advice(self.score)}{DOUBTFUL[grade(self.score)]}"
        ) + (f" ({few})" if self.patients < PROVING else "")

    @property
    def stated(self) -> dict[str, object]:
        """What a provenance says of it."""
        statistics = {name: round(value, 3) for name, value in self.statistics.items()}
        return {"unfamiliar": self.flagged, "statistics": statistics, "patients": self.patients}

    def map(self, shape: tuple[int, ...]) -> Array:
        """The distances [D, H, W], 1 where familiar patches end, between patches that of the nearest one."""
        found, seen = np.zeros(shape, np.float32), np.zeros(shape, bool)
        at = tuple(self.places.T)
        found[at], seen[at] = self.distances, True
        nearest = ndimage.distance_transform_edt(~seen, return_distances=False, return_indices=True)
        filled: Array = found[tuple(nearest)]
        return filled


def patches_of(sources: Sequence[Array], body: NDArray[np.bool_], spacing_mm: Spacing) -> Patches:
    """Patches of the sources [D, H, W] in network units, on a grid over the body."""
    steps = [max(1, round(APART_MM / one)) for one in spacing_mm]
    places = np.argwhere(body[:: steps[0], :: steps[1], :: steps[2]]) * steps
    if not len(places):
        places = np.array([[one // 2 for one in body.shape]])
    held = np.argwhere(body) if body.any() else np.array([[0, 0, 0], [one - 1 for one in body.shape]])
    low, high = held.min(axis=0), held.max(axis=0) + 1
    extents = np.maximum((high - low) * np.array(spacing_mm), FEWEST_MM)
    volume = max(len(held) * float(np.prod(spacing_mm)), FEWEST_MM)
    found = [one for source in sources for one in _features(source, places, spacing_mm[1:])]
    found += list(((places - low) / np.maximum(high - low, 1)).T)
    size = np.log([*extents, volume ** (1 / 3)]).astype(np.float32)
    grain = np.array([*np.log1p(np.array(spacing_mm) / extents), 0], np.float32)
    return Patches(np.stack(found, 1).astype(np.float32), places.astype(np.int32), size, grain)


def number_of_patch_features(sources: int) -> int:
    """How many `patches_of` gives of each patch."""
    image = np.zeros((1, 2, 2), np.float32)
    return patches_of([image] * sources, image == 0, (1.0, 1.0, 1.0)).features.shape[1]


def _features(image: Array, places: NDArray[np.int64], pixel_mm: tuple[float, ...]) -> list[Array]:
    """Of patches at some places: values and gradients at two scales, unrest, and what lies around."""
    fine, coarse = blur(image, FINE_MM, pixel_mm), blur(image, COARSE_MM, pixel_mm)
    spread = np.sqrt(np.maximum(blur(image**2, COARSE_MM, pixel_mm) - coarse**2, 0))
    unrest = blur(np.abs(image - fine), COARSE_MM, pixel_mm)
    at = tuple(places.T)
    found = [one[at] for one in (fine, coarse, gradient(fine, pixel_mm), spread, unrest)]
    for axis in (1, 2):
        for sign in (-1, 1):
            moved = places.copy()
            moved[:, axis] += sign * round(AROUND_MM / pixel_mm[axis - 1])
            beyond = (moved[:, axis] < 0) | (moved[:, axis] >= image.shape[axis])
            moved[:, axis] = moved[:, axis].clip(0, image.shape[axis] - 1)
            found.append(np.where(beyond, np.float32(-1), coarse[tuple(moved.T)]))
    return found


def remember(cases: Sequence[Patches], patients: Sequence[str], seed: int = 0) -> ReferencePatches:
    """A memory of cases, and how far each of them lies from the others: without its own patient's patches."""
    draw = np.random.default_rng(seed)
    each = max(1, REMEMBERED // len(cases))
    kept = [draw.choice(len(one.features), min(each, len(one.features)), replace=False) for one in cases]
    whole = np.concatenate([one.features[chosen] for one, chosen in zip(cases, kept)])
    own = np.array(patients)
    owner = np.repeat(own, [len(chosen) for chosen in kept])
    centre, spread = whole.mean(0), np.maximum(whole.std(0), LEAST_SPREAD)
    points = (whole - centre) / spread
    sizes = np.stack([one.size for one in cases])
    grain = np.mean([one.grain for one in cases], axis=0)
    rough, far = list[list[float]](), list[Array]()
    for one, patient in zip(cases, patients):
        far.append(_distances((one.features - centre) / spread, points[owner != patient]))
        rough.append(_statistics(far[-1], one.size, _usual_size(sizes[own != patient], grain)))
    usual = np.median(rough, axis=0)
    apart = [np.array(one) for one in by_patient(zip(patients, np.array(rough) - usual)).values()]
    level, proved = 1 - MOST / len(STATISTICS), len(apart) >= PROVING
    margin = 1.0 if proved else MARGIN if len(apart) >= least_patients(1 - MOST) else UNPROVED
    known = level if proved else len(apart) / (len(apart) + 1)  # what the largest of all is a bound for
    widths = [margin * conformal_quantile([one[:, k] for one in apart], known) for k in range(len(STATISTICS))]
    width = np.maximum(widths, 0.02 * usual + LEAST_WIDTH)
    if not proved:
        width[-1] = max(width[-1], FAR_SIZE - usual[-1])
    near = float(np.quantile(np.concatenate(far), NEAR))
    limits = usual.astype(np.float32), width.astype(np.float32)
    return ReferencePatches(points, centre, spread, *limits, _usual_size(sizes, grain), near, len(apart))


def _usual_size(sizes: Array, grain: Array) -> Array:
    """Mean and deviation of bodies' extents; of few bodies the deviation is drawn to what heads usually have."""
    squares = (len(sizes) * sizes.var(0) + WORTH * USUAL_SPREAD**2) / (len(sizes) + WORTH)
    return np.stack([sizes.mean(0), np.sqrt(squares) + grain])


def verdict_on(memory: ReferencePatches, case: Patches) -> Verdict:
    """How unlike the known cases this one is."""
    distances = _distances((case.features - memory.centre) / memory.spread, memory.points)
    values = (np.array(_statistics(distances, case.size, memory.sizes)) - memory.usual) / memory.width
    named = {name: float(value) for name, value in zip(STATISTICS, values)}
    return Verdict(named, distances / np.float32(memory.near), case.places, memory.patients)


def _statistics(distances: Array, size: Array, sizes: Array) -> list[float]:
    """In STATISTICS' order."""
    last = np.sort(distances)[-max(1, round(FARTHEST * len(distances))) :]
    return [float(distances.mean()), float(last.mean()), float(np.abs((size - sizes[0]) / sizes[1]).max())]


def _distances(features: Array, points: Array) -> Array:
    """From each patch to its nearest, per root of the number of features."""
    known = torch.from_numpy(np.ascontiguousarray(points, np.float32))
    asked = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    with torch.inference_mode():
        found = torch.cat([torch.cdist(part, known).min(dim=1).values for part in asked.split(AT_ONCE)])
    near: Array = (found / math.sqrt(features.shape[1])).numpy()
    return near
