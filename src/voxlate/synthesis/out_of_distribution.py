"""Scans that are out of the distribution of a calibration: by their patches, their farthest patches, their body's size.

Patches are compared with the nearest ones of the calibration's scans, as in PatchCore (Roth et al. 2022), by hand-made
features of intensity in place of a network's; a case is flagged by its distance above that of each patient of the calibration.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxlate.base.array_types import AnyArray, Bool, Float32, Float64
from voxlate.base.groups import grouped
from voxlate.base.messages import Message
from voxlate.base.records import Shape
from voxlate.checks.check_table import ask
from voxlate.scans.images.mask import Spacing, box_around
from voxlate.scans.images.slice_filters import blur, gradient

Array = Float32

APART_MM = 6.0  # distance between the centres of patches
FINE_MM, COARSE_MM = 2.0, 6.0  # blurs
AROUND_MM = 18.0  # distance at which the surroundings of a patch are measured
MOST_PATCHES = 8000
FARTHEST = 0.004  # share of a scan's patches over which the second statistic is averaged
FAR_SIZE = 3.5  # deviations of the body's size that are never flagged by few patients
NEAR = 0.99  # share of the calibration's patches whose distance is below 1 in a map
FEWEST_MM = 1e-3
PATCHES_AT_ONCE = 1024
LEAST_SIZE = 1e-4  # deviation of an extent, below that of any calibration
# Of features and of statistics that do not vary in the calibration.
LEAST_SPREAD, LEAST_WIDTH = 1e-3, 1e-6
EXTENTS = 4  # logarithms of a body's three extents, and of the cubic root of its volume
# Factor of a distance of the farthest patient; UNPROVED where there are fewer than ENOUGH, who can prove 5 % of false alarms.
MARGIN, UNPROVED, ENOUGH = 1.2, 1.5, 19
# Prior standard deviation of the logarithm of a head's extent, and the number of patients that it counts as.
USUAL_SPREAD, WORTH = 0.05, 3
LARGEST = 1e9  # of a stored value: features are some network units

STATISTICS = {
    "patches": "it looks different in most places",
    "farthest": "parts of it look different from all of theirs, as with metal, motion or another contrast",
    "size": "its body or field of view has another size",
}


# Patients that can prove the rate of false alarms: a new patient exceeds the largest of n with probability 1 / (n + 1).
PROVING = 59


def margin_of(patients: int) -> float:
    """The factor of the largest distance of so many patients, beyond which a scan is unusual."""
    return MARGIN if patients >= ENOUGH else UNPROVED


def variance_of_extents(sizes: AnyArray) -> AnyArray:
    """The variance of the logarithms of extents [N, K]; the fewer the bodies, the nearer it is to that of heads."""
    return (len(sizes) * sizes.var(0) + WORTH * USUAL_SPREAD**2) / (len(sizes) + WORTH)


@dataclass(frozen=True)
class Patches:
    """Features [N, F] of patches of a case, their places (z, y, x), and the logarithms of its body's extents (size).

    voxel_size: the change of these logarithms by one more voxel.
    """

    features: Array
    places: NDArray[np.int32]
    size: Array
    voxel_size: Array


@dataclass(frozen=True)
class ReferencePatches:
    """Scaled patches of the calibration's cases, and the distribution of the distances between these cases.

    The fields are arrays in files of calibrations, too. centre, spread: of features; usual, width: for each of
    STATISTICS, the median over cases and the distance above it that a case in distribution rarely reaches; sizes: mean
    and deviation of the extents; numbers: the distance below which a share of NEAR of the patches is, and the number of
    patients.
    """

    points: Array
    centre: Array
    spread: Array
    usual: Array
    width: Array
    sizes: Array
    numbers: Array

    @property
    def patients(self) -> int:
        """The number of patients of the calibration."""
        return round(float(self.numbers[1]))


def reference_shapes(points: Sequence[int]) -> dict[str, Shape]:
    """The shapes of the fields of reference patches; points: number of patches, and of features of each."""
    features = (points[-1],)
    statistics = (len(STATISTICS),)
    bounded = partial(Shape, low=-LARGEST, high=LARGEST)
    return {
        "points": bounded(points),
        "centre": bounded(features),
        "spread": bounded(features, low=LEAST_SPREAD / 2),
        "usual": bounded(statistics),
        "width": bounded(statistics, low=LEAST_WIDTH / 2),
        "sizes": bounded((2, EXTENTS)),
        "numbers": bounded((2,), low=1e-30),
    }


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
    extents = np.maximum((high - low) * np.array(spacing_mm), FEWEST_MM)
    voxels = int(body.sum()) or 2  # the first and the last one, where nothing is body
    volume = max(voxels * float(np.prod(spacing_mm)), FEWEST_MM)
    features = []
    shown = places // (steps[0], 1, 1)
    for source in sources:
        features += _features(source[:: steps[0]], shown, spacing_mm[1:])
    features += list(((places - low) / np.maximum(high - low, 1)).T)
    return Patches(
        np.stack(features, 1).astype(np.float32),
        places.astype(np.int32),
        np.log([*extents, volume ** (1 / 3)]).astype(np.float32),
        np.array([*np.log1p(np.array(spacing_mm) / extents), 0], np.float32),
    )


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
    sizes = np.stack([case.size for case in cases])
    voxel_size = np.mean([case.voxel_size for case in cases], 0)
    statistics = []
    distances = []
    for case, patient in zip(cases, patients):
        distances.append(_distances((case.features - centre) / spread, points[owners != patient]))
        others = _size_distribution(sizes[names != patient], voxel_size)
        statistics.append(_statistics(distances[-1], case.size, others))
    usual = np.median(statistics, 0)
    by_patients = grouped(zip(patients, np.array(statistics) - usual))
    width = _limits([np.array(rows) for rows in by_patients.values()], usual)
    near = np.quantile(np.concatenate(distances), NEAR)
    return ReferencePatches(
        points,
        centre,
        spread,
        usual.astype(np.float32),
        width.astype(np.float32),
        _size_distribution(sizes, voxel_size),
        np.array([near, len(by_patients)], np.float32),
    )


def _limits(deviations: Sequence[Float64], median: Float64) -> Float64:
    """For each of STATISTICS, the distance above the median beyond which a case is flagged.

    deviations: from the median, [cases, statistics] of each patient.
    """
    patients = len(deviations)
    largest = np.concatenate(deviations).max(0)
    width: Float64 = np.maximum(margin_of(patients) * largest, 0.02 * median + LEAST_WIDTH)
    if patients < PROVING:
        width[-1] = max(width[-1], FAR_SIZE - median[-1])
    return width


def _size_distribution(sizes: Array, voxel_size: Array) -> Array:
    """Mean and deviation of bodies' extents."""
    return np.stack([sizes.mean(0), np.sqrt(variance_of_extents(sizes)) + voxel_size])


def verdict_on(references: ReferencePatches, case: Patches) -> DistributionTest:
    """How far a case is out of the distribution of the reference patches."""
    distances = _distances(
        (case.features - references.centre) / references.spread, references.points
    )
    statistics = np.array(_statistics(distances, case.size, references.sizes))
    relative = (statistics - references.usual) / references.width
    return DistributionTest(
        dict(zip(STATISTICS, relative.tolist())),
        distances / references.numbers[0],
        case.places,
        references.patients,
    )


def _statistics(distances: Array, size: Array, sizes: Array) -> list[float]:
    """The values of STATISTICS for a case."""
    count = max(1, round(FARTHEST * len(distances)))
    farthest = np.sort(distances)[-count:]
    deviations = np.abs((size - sizes[0]) / np.maximum(sizes[1], LEAST_SIZE))
    return [float(distances.mean()), float(farthest.mean()), float(deviations.max())]


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
