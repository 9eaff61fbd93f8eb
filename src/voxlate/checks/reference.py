"""The fingerprints of usual scans, and the distance of another scan from them: the one judgement of whether a scan is unusual.

Usual are the scans of a training, which its model carries, the other cases of a cohort, or other truths.
"""

import functools
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np

from voxlate.base.array_types import AnyArray, Float32, Float64, UInt8
from voxlate.base.messages import (
    FEW_PATIENTS,
    NOTED,
    REFUSED,
    Message,
    by_consequence,
    grade_of_distance,
    message,
)
from voxlate.checks.fingerprint import BRIGHTEST, SIDE, UNKNOWN, Fingerprint

SHIFTS = (*range(-5, 6),), (-1, 0, 1)  # cells, along z and y, by which two pictures are compared
LEAST_SHARED = 0.25  # of the cells that the smaller of two pictures shows


def mirrored(*along: int) -> Float64:
    """The matrix that mirrors a picture along some axes."""
    return np.diag([-1.0 if axis in along else 1.0 for axis in range(3)])


def _exchanged(*order: int) -> Float64:
    """The matrix that takes the axes of a picture in this order."""
    return np.eye(3)[:, order]


def _rotation(first: int, second: int, degrees: float) -> Float64:
    """The matrix of a rotation in the plane of two axes."""
    matrix = np.eye(3)
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    matrix[first, [first, second]] = cosine, -sine
    matrix[second, [first, second]] = sine, cosine
    return matrix


def _stretch(times: float) -> Float64:
    """The matrix of a picture whose slices are so many times as far apart."""
    return np.diag([1 / times, 1.0, 1.0])


# By name, the ways in which a picture may be more usual than as it was read.
POSES: Mapping[str, Sequence[Float64]] = {
    "upside": [mirrored(0), mirrored(0, 1)],
    "backwards": [mirrored(1)],
    "sideways": [mirrored(2)],
    "exchanged": [
        _exchanged(0, 2, 1),
        _exchanged(0, 2, 1) @ mirrored(1),
        _exchanged(1, 0, 2),
        _exchanged(1, 0, 2) @ mirrored(0),
        _exchanged(2, 1, 0),
        _exchanged(2, 1, 0) @ mirrored(0),
    ],
    "pitched": [_rotation(0, 1, 25), _rotation(0, 1, -25)],
    "tilted": [_rotation(0, 2, 18), _rotation(0, 2, -18)],
    "stretched": [_stretch(0.65)],
    "flattened": [_stretch(1.6)],
}
TAPERED = 0.35  # area near the lower end over the largest, below which a crown may be there
MISSING = -1e9
FEWEST_COMPARED = 6  # patients of a cohort, from which on their scans are compared
TRIMMED = 0.1  # share of a cohort's scans that does not count as usual
TRIMMED_MARGIN = 1.6  # times the farthest of the others
MANY, FARTHEST = 50, 0.03  # usual scans, of which this share may have a fault of its own
HEIGHT, ACROSS = "height_mm", "across"
PART = 0.6  # of the least usual height, below which a scan shows a part
MOST_SAID = 3  # numbers of a scan
LOST_MM = 6.0  # of the crown: see crown-missing in limits.toml
FROM_TOP = ("area_", "forward_", "skull_")  # numbers that are measured from the top of the body


@dataclass(frozen=True)
class Number:
    """A number of fingerprints, as numbers.toml states it."""

    code: str
    tolerance: float
    high: str = ""
    low: str = ""
    measure: str = ""
    format: str = ""
    scale: str = "linear"
    whole: bool = False
    pose: Literal["", "cause", "effect"] = ""

    def text(self, value: float) -> str:
        """A value as a sentence states it."""
        shown = math.exp(min(value, 700)) if self.scale == "log" else value
        return self.format.format(shown)


@functools.cache
def numbers() -> Mapping[str, Number]:
    """All numbers by name."""
    text = Path(__file__).with_name("numbers.toml").read_text(encoding="utf-8")
    return {name: Number(**entry) for name, entry in tomllib.loads(text).items()}


@dataclass(frozen=True)
class Deviation:
    """How far a number of a scan is from usual ones, in units of the farthest of these; usual: the nearest of them."""

    name: str
    times: float
    value: float
    usual: float

    def text(self, scan: str, of: str, places: Mapping[str, float]) -> str:
        """What it means, and the number here and in usual scans."""
        number = numbers()[self.name]
        is_high = self.value > self.usual
        meaning = (number.high if is_high else number.low).format_map(
            {**places, "scan": scan, "of": of}
        )
        found = f"{meaning[:1].upper()}{meaning[1:]}."
        if not number.measure:
            return found
        own, usual = number.text(self.value), number.text(self.usual)
        limit = "at most" if is_high else "at least"
        return f"{found} {number.measure.capitalize()}: {own}; in {of} {limit} {usual}."


@dataclass(frozen=True, eq=False)
class Reference:
    """The fingerprints of usual scans of one modality.

    names: of the numbers; values: [scans, numbers], MISSING where a scan has none; mean: of their pictures, as these; patients: of
    the scans.
    """

    names: tuple[str, ...]
    values: Float32
    mean: UInt8
    patients: int

    def shows_a_part(self, scan: Fingerprint) -> bool:
        """Whether a scan shows so much less of the body than usual ones that its shape and pose cannot be judged, or no depth."""
        known = self.values[:, self.names.index(HEIGHT)] if HEIGHT in self.names else np.zeros(0)
        heights = known[known > MISSING]
        return len(heights) > 0 and scan.numbers.get(HEIGHT, 0.0) < PART * heights.min()

    def deviations(self, scan: Fingerprint) -> list[Deviation]:
        """The deviations of a scan, the largest first."""
        own = {**scan.numbers, **pose_numbers(self.mean, scan.picture)}
        found = _deviations(own, self.names, self.values)
        if self.shows_a_part(scan):
            found = [one for one in found if not numbers()[one.name].whole or _is_too_wide(one)]
        return _with_poses(own, found)

    def messages(
        self, scan: Fingerprint, called: str, of: str = "the training's scans"
    ) -> list[Message]:
        """A message for each code of the numbers that lie farthest."""
        said = _messages(self.deviations(scan), scan, called, of, self.patients)
        if HEIGHT in scan.numbers and self.shows_a_part(scan):
            text = f"{called[:1].upper()}{called[1:]} shows only {scan.numbers[HEIGHT]:.0f} mm of the body. Its shape and orientation were not checked."
            said.append(message("slab", text))
        return said


def among(
    scans: Mapping[str, Fingerprint], patients: Mapping[str, str], called: str
) -> list[Message]:
    """Messages on each scan of several cases, by case, that is far from those of the other patients; none of few patients.

    The farthest tenth of the others does not count, because it may have the same fault. In any cohort some case lies far: what
    is said is at most a caution, and only from the distance on at which a training would refuse a scan.
    """
    names = [name for name, scan in scans.items() if scan.numbers]
    owners = np.array([patients[name] for name in names])
    if len({*owners}) < FEWEST_COMPARED:
        return []
    known = fit_reference([scans[name] for name in names], [*owners])
    said = []
    for name, row in zip(names, known.values):
        others = known.values[owners != patients[name]]
        own = {key: float(value) for key, value in zip(known.names, row) if value > MISSING}
        found = _deviations(own, known.names, others, trimmed=TRIMMED)
        found = [one for one in _explained(found, scans[name]) if one.times > REFUSED]
        of = "the other cases"
        said += [
            one.on(name) for one in _messages(found, scans[name], called, of, FEW_PATIENTS - 1)
        ]
    return said


def _messages(
    found: Sequence[Deviation], scan: Fingerprint, called: str, of: str, patients: int
) -> list[Message]:
    """A message for each code of numbers that lie far, on the farthest of them."""
    farthest = dict[str, Deviation]()
    for one in _explained(found, scan):
        if one.times > NOTED:
            farthest.setdefault(numbers()[one.name].code, one)
    said = []
    for code, deviation in farthest.items():
        text = deviation.text(called, of, scan.numbers)
        grade = grade_of_distance(deviation.times, patients)
        # a body lies turned or does not: of 310 usual scans of 21 heads none was noted
        if (
            grade == "note"
            and numbers()[deviation.name].pose == "cause"
            and patients >= FEW_PATIENTS
        ):
            grade = "caution"
        said.append(
            message(
                code,
                text,
                grade=grade,
                times=deviation.times,
                value=deviation.value,
                usual=deviation.usual,
            )
        )
    return by_consequence(said)[:MOST_SAID]


def _with_poses(own: Mapping[str, float], found: Sequence[Deviation]) -> list[Deviation]:
    """Deviations without those of poses where the turned body would be unusual, too, or has no crown at its other end."""
    alike = next((one.usual for one in found if one.name == "alike"), 0.0)
    after = own.get("alike", 0.0) + max((own.get(name, 0.0) for name in POSES), default=0.0)
    unfit = set[str]()
    if after < alike - numbers()["alike"].tolerance:
        unfit |= POSES.keys()
    if own.get("foot", 0.0) > TAPERED:
        unfit.add("upside")
    return [one for one in found if one.name not in unfit]


def _explained(found: Sequence[Deviation], scan: Fingerprint) -> list[Deviation]:
    """Deviations, the largest first, without those that others explain.

    A body that lies turned explains what its outline shows, and is as far as that; a crown that is missing explains what is
    measured from the top.
    """
    poses = {one.name: numbers()[one.name].pose for one in found}
    cause = next((one for one in found if poses[one.name] == "cause"), None)
    if cause is None or cause.times <= NOTED:
        has_crown = scan.numbers.get("lost_mm", 0.0) <= LOST_MM
        kept = [one for one in found if poses[one.name] != "cause"]
        return [one for one in kept if has_crown or not one.name.startswith(FROM_TOP)]
    effects = [one.times for one in found if poses[one.name] == "effect"]
    largest = replace(cause, times=max([cause.times, *effects]))
    rest = [one for one in found if not poses[one.name]]
    return sorted([largest, *rest], key=lambda one: -one.times)


def _deviations(
    own: Mapping[str, float],
    names: Sequence[str],
    values: Float32,
    trimmed: float = 0.0,
) -> list[Deviation]:
    """The deviations of numbers from known ones [scans, numbers], the largest first."""
    found = []
    for column, name in zip(values.T, names):
        known = column[column > MISSING]
        # a file of another version may hold other numbers; what few usual scans have says nothing
        if name in own and name in numbers() and 2 * len(known) > len(column):
            found.append(_deviation(name, own[name], known, trimmed))
    return sorted(found, key=lambda one: -one.times)


def _is_too_wide(one: Deviation) -> bool:
    """Whether a body is too wide, as no part of one can be."""
    return one.name == ACROSS and one.value > one.usual


def _deviation(name: str, value: float, known: Float32, trimmed: float) -> Deviation:
    """The deviation of a value from known ones: from their middle, in units of the farthest on its side or the tolerance."""
    number = numbers()[name]
    middle = float(np.median(known))
    is_high = value > middle
    if len(known) >= MANY:
        trimmed = max(trimmed, FARTHEST)
    end = float(np.quantile(known, 1 - trimmed if is_high else trimmed))
    margin = _margin(len(known)) * (TRIMMED_MARGIN if trimmed > FARTHEST else 1)
    width = max(abs(end - middle) * margin, number.tolerance)
    judged = number.high if is_high else number.low
    times = abs(value - middle) / width if judged else 0.0
    return Deviation(name, times, value, middle + width if is_high else middle - width)


def _margin(count: int) -> float:
    """By how much the farthest of so few scans is too near."""
    return 1 + 2 / count


def fit_reference(scans: Sequence[Fingerprint], patients: Sequence[str]) -> Reference:
    """The reference of usual scans; each scan's picture is compared with the mean of the other patients' pictures."""
    owners = np.array(patients)
    pictures = np.stack([scan.picture for scan in scans])
    whole = _sums(pictures)
    rows = []
    for scan, patient in zip(scans, patients):
        others = whole - _sums(pictures[owners == patient])
        posed = pose_numbers(_mean(others), scan.picture) if others.any() else {}
        rows.append({**scan.numbers, **posed})
    names = tuple(name for name in numbers() if any(name in row for row in rows))
    values = np.array([[row.get(name, MISSING) for name in names] for row in rows], np.float32)
    return Reference(names, values, _mean(whole), len(set(patients)))


def _sums(pictures: UInt8) -> AnyArray:
    """Of pictures [N, SIDE, SIDE, SIDE] for each cell the sum, how many show it, and N."""
    known = pictures != UNKNOWN
    parts = np.where(known, pictures, 0), known, np.ones_like(known)
    return np.stack([part.sum(0, dtype=np.int64) for part in parts])


def _mean(sums: AnyArray) -> UInt8:
    """The mean over the pictures that show a cell; UNKNOWN where less than a half do."""
    total, count, scans = sums
    mean = np.rint(total / np.maximum(count, 1)).clip(0, BRIGHTEST)
    return np.where(2 * count > scans, mean, UNKNOWN).astype(np.uint8)


def pose_numbers(mean: UInt8, picture: UInt8) -> dict[str, float]:
    """The correlation of a picture with a mean one (alike), and by how much each other pose is more like it."""
    as_read = likeness(mean, picture)
    if as_read is None:
        return {}
    gains = {}
    for name, ways in POSES.items():
        likenesses = (likeness(mean, turned(picture, way)) for way in ways)
        gains[name] = max((one for one in likenesses if one is not None), default=-1.0) - as_read
    best = max(gains.values())
    # a head that is upside down is also more usual turned round, but less so
    return {"alike": as_read} | {
        name: gain if gain == best else min(gain, 0.0) for name, gain in gains.items()
    }


def turned(picture: UInt8, matrix: Float64) -> UInt8:
    """A picture after a turn, a reflection or a stretch about its middle, again below the top of its body."""
    middle = (SIDE - 1) / 2
    away = np.indices((SIDE,) * 3).reshape(3, -1) - middle
    where = np.rint(matrix @ away + middle).astype(int)
    known = ((where >= 0) & (where < SIDE)).all(0)
    places = np.ravel_multi_index(tuple(where.clip(0, SIDE - 1)), picture.shape)
    cells = np.where(known, picture.ravel()[places], UNKNOWN).astype(np.uint8)
    cells = cells.reshape(picture.shape)
    shown = np.flatnonzero(((cells > 0) & (cells != UNKNOWN)).any((1, 2)))
    below = SIDE - 1 - int(shown[-1]) if len(shown) else 0
    out = np.full_like(cells, UNKNOWN)
    out[below:] = cells[: SIDE - below]
    return out


def likeness(mean: UInt8, picture: UInt8) -> float | None:
    """The largest correlation of two pictures over small shifts and the cells that both show; None where these are too few."""
    least = LEAST_SHARED * min(
        np.count_nonzero(mean != UNKNOWN), np.count_nonzero(picture != UNKNOWN)
    )
    found = []
    for away in product(*SHIFTS):
        a, b = (cells.ravel() for cells in _overlap(mean, picture, away))
        both = (a != UNKNOWN) & (b != UNKNOWN)
        if both.sum() <= max(least, 2):
            continue
        x, y = (cells[both].astype(np.float32) for cells in (a, b))
        x -= x.mean()
        y -= y.mean()
        lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
        found.append(float(x @ y) / lengths if lengths else 0.0)
    return max(found, default=None)


def _overlap(a: UInt8, b: UInt8, away: tuple[int, int]) -> Iterator[UInt8]:
    """The cells of two pictures that lie on each other where the second one is moved along z and y."""
    for cells, sign in ((a, 1), (b, -1)):
        starts = [max(0, sign * shift) for shift in away]
        ends = [SIDE + min(0, sign * shift) for shift in away]
        yield cells[starts[0] : ends[0], starts[1] : ends[1]]
