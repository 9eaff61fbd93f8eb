"""Scans that are out of the distribution of a calibration: by their patches and by their farthest patches.

Patches are compared with the nearest ones of the calibration's scans, as in PatchCore (Roth et al. 2022), by hand-made
features of intensity in place of a network's; a case is flagged by its distance above that of each patient of the calibration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxlate.base.array_types import Bool, Float32
from voxlate.base.messages import Message
from voxlate.checks.check_table import ask
from voxlate.scans.images.mask import Spacing, box_around
from voxlate.scans.images.slice_filters import blur, gradient

Array = Float32

APART_MM = 6.0  # distance between the centres of patches
FINE_MM, COARSE_MM = 2.0, 6.0  # blurs
AROUND_MM = 18.0  # distance at which the surroundings of a patch are measured
MOST_PATCHES = 8000
FARTHEST = 0.004  # share of a scan's patches over which the second statistic is averaged
NEAR = 0.99  # share of the calibration's patches whose distance is below 1 in a map
PATCHES_AT_ONCE = 1024
# Of features and of statistics that do not vary in the calibration.
LEAST_SPREAD, LEAST_WIDTH = 1e-3, 1e-6
# Factor of a distance of the farthest patient; UNPROVED where there are fewer than ENOUGH, who can prove 5 % of false alarms.
MARGIN, UNPROVED, ENOUGH = 1.2, 1.5, 19

STATISTICS = {
    "patches": "it looks different in most places",
    "farthest": "parts of it look different from all of theirs, as with metal, motion or another contrast",
}


# Patients that can prove the rate of false alarms: a new patient exceeds the largest of n with probability 1 / (n + 1).
PROVING = 59


@dataclass(frozen=True)
class Patches:
    """Features [N, F] of patches of a case, and their places (z, y, x)."""

    features: Array
    places: NDArray[np.int32]


@dataclass(frozen=True)
class ReferencePatches:
    """Scaled patches of the calibration's cases, and the distribution of the distances between these cases.

    The fields are arrays in files of calibrations, too. centre, spread: of features; usual, width: for each of
    STATISTICS, the median over cases and the distance above it that a case in distribution rarely reaches; numbers: the
    distance below which a share of NEAR of the patches is, and the number of patients.
    """

    points: Array
    centre: Array
    spread: Array
    usual: Array
    width: Array
    numbers: Array

    @classmethod
    def read(cls, arrays: Mapping[str, Array]) -> "ReferencePatches":
        """Those of a file; version 0.7 compared the sizes of bodies, too."""
        own = {one.name: arrays[one.name] for one in fields(cls)}
        for name in "usual", "width":
            own[name] = own[name][: len(STATISTICS)]
        return cls(**own)

    @property
    def patients(self) -> int:
        """The number of patients of the calibration."""
        return round(float(self.numbers[1]))


@dataclass(frozen=True)
class DistributionTest:
    """How far a case is out of distribution: its statistics (1: rarely reached in distribution), distances of patches.

    patients: of the calibration.
    """

    statistics: dict[str, float]
    distances: Array
    places: NDArray[np.int32]
    patients: int

    @property
    def score(self) -> float:
        """The largest statistic."""
        return max(self.statistics.values())

    @property
    def is_flagged(self) -> bool:
        """Whether the case is out of distribution."""
        return self.score > 1

    @property
    def messages(self) -> list[Message]:
        """The largest deviation, and how reliable that is with few patients; none for a case in distribution."""
        worst = max(self.statistics, key=self.statistics.__getitem__)
        return ask(
            "calibration",
            {
                "score": self.score,
                "patients": self.patients,
                "proving": PROVING,
                "how": STATISTICS[worst],
            },
        )

    @property
    def entry(self) -> dict[str, object]:
        """The entry of a provenance."""
        statistics = {name: round(value, 3) for name, value in self.statistics.items()}
        return {"unfamiliar": self.is_flagged, "statistics": statistics, "patients": self.patients}

    def map(self, shape: tuple[int, ...]) -> Array:
        """The distance of the patch in whose cell each voxel [D, H, W] is, or of the nearest cell with one; 1 is the limit of patches in distribution."""
        axes = [np.unique(along) for along in self.places.T]
        at = tuple(map(np.searchsorted, axes, self.places.T))
        coarse = np.full([len(axis) for axis in axes], np.nan, np.float32)
        coarse[at] = self.distances
        nearest = ndimage.distance_transform_edt(
            np.isnan(coarse), return_distances=False, return_indices=True
        )
        middles = [(axis[1:] + axis[:-1]) / 2 for axis in axes]
        cells = [np.searchsorted(middle, np.arange(n)) for middle, n in zip(middles, shape)]
        return coarse[tuple(nearest)][np.ix_(*cells)]


def patches_of(
    sources: Sequence[Array],
    body: Bool,
    spacing_mm: Spacing,
) -> Patches:
    """Patches of the sources [D, H, W] in network units, on a grid over the body."""
    steps = [max(1, round(APART_MM / side)) for side in spacing_mm]
    places = np.argwhere(body[:: steps[0], :: steps[1], :: steps[2]]) * steps
    if not len(places):
        places = np.array([[0, *(length // 2 for length in body.shape[1:])]])
    low, high = np.transpose(box_around(body))
    features = []
    shown = places // (steps[0], 1, 1)
    for source in sources:
        features += _features(source[:: steps[0]], shown, spacing_mm[1:])
    features += list(((places - low) / np.maximum(high - low, 1)).T)
    return Patches(np.stack(features, 1).astype(np.float32), places.astype(np.int32))


def _features(
    image: Array,
    places: NDArray[np.int64],
    pixel_mm: tuple[float, ...],
) -> list[Array]:
    """Features of patches at some places: values and gradient, variation at two scales, and the surroundings."""
    fine = blur(image, FINE_MM, pixel_mm)
    coarse = blur(image, COARSE_MM, pixel_mm)
    sd = np.sqrt(np.maximum(blur(image**2, COARSE_MM, pixel_mm) - coarse**2, 0))
    texture = blur(np.abs(image - fine), COARSE_MM, pixel_mm)
    at = tuple(places.T)
    features = [values[at] for values in (fine, coarse, gradient(fine, pixel_mm), sd, texture)]
    for axis in 1, 2:
        last = image.shape[axis] - 1
        for sign in -1, 1:
            moved = places.copy()
            along = moved[:, axis]
            along += sign * round(AROUND_MM / pixel_mm[axis - 1])
            beyond = (along < 0) | (along > last)
            along[:] = along.clip(0, last)
            features.append(np.where(beyond, np.float32(-1), coarse[tuple(moved.T)]))
    return features


def fit_references(
    cases: Sequence[Patches],
    patients: Sequence[str],
    seed: int = 0,
) -> ReferencePatches:
    """The reference patches of cases, and the distances of each case from those of the other patients."""
    generator = np.random.default_rng(seed)
    most = max(1, MOST_PATCHES // len(cases))
    kept = []
    for case in cases:
        count = len(case.features)
        kept.append(case.features[generator.choice(count, min(most, count), replace=False)])
    whole = np.concatenate(kept)
    names = np.array(patients)
    owners = np.repeat(names, [len(features) for features in kept])
    centre = whole.mean(0)
    spread = np.maximum(whole.std(0), LEAST_SPREAD)
    points = (whole - centre) / spread
    statistics = []
    distances = []
    for case, patient in zip(cases, patients):
        distances.append(_distances((case.features - centre) / spread, points[owners != patient]))
        statistics.append(_statistics(distances[-1]))
    usual = np.median(statistics, 0)
    largest = np.max(statistics, 0) - usual
    count = len({*patients})
    margin = MARGIN if count >= ENOUGH else UNPROVED
    width = np.maximum(margin * largest, 0.02 * usual + LEAST_WIDTH)
    near = np.quantile(np.concatenate(distances), NEAR)
    return ReferencePatches(
        points,
        centre,
        spread,
        usual.astype(np.float32),
        width.astype(np.float32),
        np.array([near, count], np.float32),
    )


def verdict_on(references: ReferencePatches, case: Patches) -> DistributionTest:
    """How far a case is out of the distribution of the reference patches."""
    distances = _distances(
        (case.features - references.centre) / references.spread, references.points
    )
    statistics = np.array(_statistics(distances))
    relative = (statistics - references.usual) / references.width
    return DistributionTest(
        dict(zip(STATISTICS, relative.tolist())),
        distances / references.numbers[0],
        case.places,
        references.patients,
    )


def _statistics(distances: Array) -> list[float]:
    """The values of STATISTICS for a case."""
    count = max(1, round(FARTHEST * len(distances)))
    farthest = np.sort(distances)[-count:]
    return [float(distances.mean()), float(farthest.mean())]


def _distances(features: Array, points: Array) -> Array:
    """The distance from each patch to its nearest reference, divided by the root of the number of features."""
    lengths = np.square(points).sum(1)
    nearest = []
    for first in range(0, len(features), PATCHES_AT_ONCE):
        part = features[first : first + PATCHES_AT_ONCE]
        squares = lengths - 2 * (
            part @ points.T
        )  # and the square of the patch, which is the same in each row
        nearest.append(squares.min(1) + np.square(part).sum(1))
    squares = np.maximum(np.concatenate(nearest), 0)
    return np.sqrt(squares / features.shape[1])
