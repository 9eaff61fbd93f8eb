"""What a plan is decided by: numbers of a prepared cohort, read from its headers alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from voxlate.data.audit import SHOW_ANATOMY, distances
from voxlate.data.case_header import CaseHeader
from voxlate.data.prepared import Cohort, Entry
from voxlate.errors import BadInput
from voxlate.images.statistics import PERCENTILES, Distribution

GREY_LEVELS = 255  # of pictures with 8 bits
OFFSET_HU = 600  # between percentiles: beyond, one lacks the offset of 1024
AIR_HU = (-800, -200)  # the least voxel of a scan lies below the first; above the second there is no air
NARROWEST_HU = 50  # a body has fat, water and bone
EDGE = PERCENTILES.index(10)


@dataclass(frozen=True)
class Scan:
    """A modality over the training cases: inside, the median distribution of the foregrounds; of all voxels the ends.

    reach: the largest 99.9th percentile of a foreground, that of the case `farthest`: what is rare, such as a stroke,
    is in few cases; depth: the smallest 0.1st percentile.
    empty: whether a tenth of every scan or more is exactly 0, as air or what was stripped is.
    contrast: how differently its cases look on one scale: the largest standard deviation over them of where the 5th,
    25th, 50th and 75th percentile of a foreground lie between its dark end and its 99.5th.
    """

    name: str
    unit: str
    cases: int
    inside: Distribution
    least: float
    most: float
    reach: float
    empty: bool
    contrast: float = 0.0
    depth: float = 0.0
    farthest: str = ""

    @property
    def pictures(self) -> bool:
        """Whether it holds grey values of 8 bits, whatever its name promises."""
        return self.least >= 0 and GREY_LEVELS / 2 < self.most <= GREY_LEVELS

    @property
    def tail(self) -> float:
        """How far the brightest 0.05 % lie above the 99.5th percentile, in units of what lies below it."""
        reach = self.inside.at(99.5) - self.inside.at(0.5)
        return (self.inside.at(99.95) - self.inside.at(0.5)) / reach if reach > 0 else 1.0


@dataclass(frozen=True)
class Facts:
    """A prepared cohort in numbers; sizes along D, H, W.

    training: the entries of training cases; box: what holds the foreground of 95 % of them, in voxels; shape: of the
    largest; wide_mm: of 95 % of bodies, at most; unlike: how many times larger pixels are in one case than in another;
    apart_mm: how far a case's scans, maps left out, lie from each
    other, the median of the cases where that could be estimated (0: in none).
    """

    cohort: Cohort
    training: tuple[Entry, ...]
    scans: dict[str, Scan]
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    box: tuple[int, int, int]
    brain: bool
    apart_mm: float = 0.0
    wide_mm: float = 0.0
    unlike: float = 1.0

    @property
    def slices(self) -> int:
        """How many there are in training."""
        return sum(one.shape[0] for one in self.training)

    @property
    def patients(self) -> int:
        return len({one.patient for one in self.training})

    @property
    def pixel_mm(self) -> float:
        """The side of a pixel in the plane."""
        return float(np.mean(self.spacing_mm[1:]))

    @property
    def thickness(self) -> float:
        """Distance of slices over the pixel's side."""
        return self.spacing_mm[0] / self.pixel_mm

    @property
    def gaps(self) -> dict[str, int]:
        """How many training cases lack each modality, where some do."""
        have = Counter(name for one in self.training for name in one.present)
        return {name: len(self.training) - have[name] for name in self.scans if have[name] < len(self.training)}

    def having(self, names: Sequence[str]) -> "Facts":
        """Those of the training cases alone that have all of these modalities: what is left out decides nothing."""
        chosen = tuple(self.with_all(names))
        return self if chosen == self.training else _facts(self.cohort, chosen)

    def with_all(self, names: Sequence[str]) -> list[Entry]:
        """The training cases that have all of these modalities."""
        return [one for one in self.training if set(names) <= set(one.present)]


def facts_of(cohort: Cohort) -> Facts:
    """Read the headers, and no voxel: a thousand cases take seconds. Raises BadInput for fewer than two patients."""
    training = tuple(one for one in cohort.cases if one.split == "train")
    if (patients := len({one.patient for one in cohort.cases})) < 2 or not training:
        raise BadInput(
            f"{cohort.folder}: expected two patients or more, one to learn from and one to test on, found {patients} "
            f"({len(training)} cases to learn from). Prepare more cases."
        )
    return _facts(cohort, training)


def _facts(cohort: Cohort, training: tuple[Entry, ...]) -> Facts:
    headers = [cohort.header(one.case) for one in training]
    boxes = np.array([[end - first for first, end in header.mask_box] for header in headers])
    shapes = np.array([header.shape for header in headers])
    spacings = np.array([header.spacing_mm for header in headers])
    spacing = np.median(spacings, axis=0)
    names = [name for name in cohort.modalities if any(name in header.statistics for header in headers)]
    scans = {name: _scan(name, [one for one in headers if name in one.shown]) for name in names}
    return Facts(
        cohort=cohort,
        training=training,
        scans=scans,
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        shape=_triple(shapes.max(axis=0)),
        wide_mm=float(np.percentile(boxes[:, 2] * spacings[:, 2], 95)),
        unlike=float((spacings[:, 1:].max(axis=0) / spacings[:, 1:].min(axis=0)).max()),
        box=_triple(np.ceil(np.percentile(boxes, 95, axis=0))),
        brain=cohort.provenance.get("mask") == "brain",
        apart_mm=_apart(cohort, training, [name for name, one in scans.items() if one.unit in SHOW_ANATOMY]),
    )


def _apart(cohort: Cohort, training: Sequence[Entry], names: Sequence[str]) -> float:
    found = distances(cohort, names)
    return median([found[one.case] for one in training if one.case in found] or [0.0])


def _scan(name: str, headers: Sequence[CaseHeader]) -> Scan:
    found = [header.statistics[name] for header in headers]
    if not found:
        raise BadInput(f"{name}: expected a training case where it is not blank, found none. Prepare other cases.")
    points = np.median([one.foreground.percentiles for one in found], axis=0)
    inside = Distribution(
        mean=median(one.foreground.mean for one in found),
        sd=median(one.foreground.sd for one in found),
        percentiles=tuple(float(point) for point in points),
    )
    return Scan(
        name=name,
        unit=headers[0].units[name],
        cases=len(found),
        inside=inside,
        least=min(one.all.at(PERCENTILES[0]) for one in found),
        most=max(one.all.at(PERCENTILES[-1]) for one in found),
        reach=max(one.foreground.at(99.9) for one in found),
        depth=min(one.foreground.at(0.1) for one in found),
        farthest=max(headers, key=lambda one: one.statistics[name].foreground.at(99.9)).case,
        empty=all(0 in one.all.percentiles[EDGE:] for one in found),
        contrast=float(np.std([_shape(one.foreground) for one in found], axis=0).max()),
    )


def _shape(inside: Distribution) -> list[float]:
    """Where percentiles lie between the dark end, which is 0 where air may be, and the bright one."""
    low, high = min(inside.at(0.5), 0.0), inside.at(99.5)
    return [(inside.at(percent) - low) / max(high - low, 1e-6) for percent in (5, 25, 50, 75)]


def check_scales(facts: Facts, names: Sequence[str]) -> None:
    """Raise BadInput where some of these modalities are on several scales; of the training cases, no other decides."""
    headers = [facts.cohort.header(one.case) for one in facts.training]
    for name in dict.fromkeys(names):
        _check_scale(name, [one for one in headers if name in one.shown])


def _check_scale(name: str, headers: Sequence[CaseHeader]) -> None:
    """Raise BadInput where scans in Hounsfield units are on several scales, or on none that bodies have."""
    if headers[0].units[name] != "HU":
        return
    inside = {header.case: header.statistics[name].foreground for header in headers}
    ends = {header.case: header.statistics[name].all for header in headers}
    grey = [case for case, one in ends.items() if one.at(0) >= 0 and one.at(100) <= GREY_LEVELS]
    usual = {percent: median(one.at(percent) for one in ends.values()) for percent in (10, 75, 90)}
    low, high = (choose(ends, key=lambda case: ends[case].at(0)) for choose in (min, max))
    if 0 < len(grey) < len(headers):
        other = next(case for case in ends if case not in grey)
        found = f"0 to {GREY_LEVELS} in {_some(grey)} and {ends[other].at(0):g} to {ends[other].at(100):g} in {other}"
    elif ends[low].at(0) < AIR_HU[0] and ends[high].at(0) > AIR_HU[1]:
        found = f"air of {ends[low].at(0):.0f} in {low} and nothing below {ends[high].at(0):.0f} in {high}"
    elif strange := [case for case, one in ends.items() if _shifted(one, usual)]:
        found = f"{ends[strange[0]].at(75):.0f} as the upper quartile of {_some(strange)} and {usual[75]:.0f} in others"
    elif (width := max(one.at(99.9) - one.at(0.1) for one in inside.values())) < NARROWEST_HU:
        found = f"bodies that vary by {width:.3g} at most"
    else:
        return
    raise BadInput(
        f"{name}: expected Hounsfield units in every scan, found {found}. Convert all to one scale, leave those cases "
        "out, or give the modality another name."
    )


def _shifted(one: Distribution, usual: Mapping[int, float]) -> bool:
    """Whether air and body both lie elsewhere than usual: padding may hide an offset from the least value."""
    return min(abs(one.at(percent) - value) for percent, value in usual.items()) > OFFSET_HU


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")


def _triple(values: np.ndarray) -> tuple[int, int, int]:
    depth, height, width = (int(value) for value in values)
    return depth, height, width
