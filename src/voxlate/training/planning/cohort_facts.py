"""The numbers of a prepared cohort that decide about a plan, read from its headers alone."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median

import numpy as np

from voxlate.base.errors import BadInput, first_of
from voxlate.base.messages import worst_grade
from voxlate.checks.check_table import exact_messages
from voxlate.checks.fingerprint import stored_fingerprint
from voxlate.scans.cases.case_header import FOREGROUND_OF, CaseHeader
from voxlate.scans.cases.prepared import CaseEntry, Cohort
from voxlate.scans.images.units import SHOW_ANATOMY
from voxlate.scans.images.volume_statistics import PERCENTILES, Distribution, Statistics
from voxlate.synthesis.intensity_checks import check_one_scale

GREY_LEVELS = 255  # largest value of pictures with 8 bits
# The minimum of a scan with air is below the first value; above the second there is no air.
AIR_RANGE_HU = (-800, -200)
NOT_HU = ("not-hu", "shifted-hu")  # codes of a CT that is not in Hounsfield units
EDGE = PERCENTILES.index(10)
NOTHING = 1e-4  # of the largest value: nibabel writes zeros of a scaled scan as 1e-5 of it


@dataclass(frozen=True)
class Scan:
    """A modality over the training cases.

    inside: the median distribution of the foregrounds; least, most: the extremes of all voxels.
    reach: the largest 99.9th percentile of a foreground, in the case `farthest`, because rare structures such as a
    stroke are in few cases; depth: the smallest 0.1st percentile.
    empty: whether at least a tenth of every scan is exactly 0, as air or a stripped skull is.
    contrast: how much the cases differ on one scale. It is the largest standard deviation over cases of the positions
    of the 5th, 25th, 50th and 75th percentile between the dark end of a foreground and its 99.5th percentile.
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
        """Whether the modality holds grey values of 8 bits, whatever its name suggests."""
        return self.least >= 0 and GREY_LEVELS / 2 < self.most <= GREY_LEVELS

    @property
    def tail(self) -> float:
        """Distance of the brightest 0.05 % above the 99.5th percentile, relative to the range below it."""
        at = self.inside.at
        low = at(0.5)
        reach = at(99.5) - low
        return (at(99.95) - low) / reach if reach > 0 else 1.0


@dataclass(frozen=True)
class CohortFacts:
    """A prepared cohort in numbers; sizes are along D, H, W.

    training: the entries of training cases; box: size in voxels that holds the foreground of 95 % of them; shape: size
    of the largest; wide_mm: 95th percentile of the bodies' widths; pixel_ratio: largest over smallest pixel of cases;
    framed: whether
    each mask is the body that the scans show, as at synthesis; apart_mm: median distance between the scans of a case, without maps, over the cases where it could be estimated (0
    if there are none); unfit: the modalities that prepare grades as not to be trusted in most cases, such as label maps.
    """

    cohort: Cohort
    training: tuple[CaseEntry, ...]
    scans: dict[str, Scan]
    spacing_mm: tuple[float, ...]
    shape: tuple[int, ...]
    box: tuple[int, ...]
    brain: bool
    framed: bool = False
    apart_mm: float = 0.0
    wide_mm: float = 0.0
    pixel_ratio: float = 1.0
    unfit: tuple[str, ...] = ()

    @property
    def slices(self) -> int:
        """The number of training slices."""
        return sum(entry.shape[0] for entry in self.training)

    @property
    def patients(self) -> int:
        """The number of training patients."""
        return len({entry.patient for entry in self.training})

    @property
    def pixel_mm(self) -> float:
        """The side of a pixel in the plane."""
        return float(np.mean(self.spacing_mm[1:]))

    @property
    def thickness(self) -> float:
        """Distance between slices over the pixel's side."""
        return self.spacing_mm[0] / self.pixel_mm

    @property
    def gaps(self) -> dict[str, int]:
        """The number of training cases that lack a modality, for each modality that some lack."""
        have = Counter(chain.from_iterable(entry.present for entry in self.training))
        every = len(self.training)
        return {name: every - have[name] for name in self.scans if have[name] < every}

    def of_cases_with(self, names: Sequence[str]) -> "CohortFacts":
        """The facts of the training cases alone that have all of these modalities."""
        chosen = tuple(self.with_all(names))
        return self if chosen == self.training else _facts(self.cohort, chosen)

    def with_all(self, names: Iterable[str]) -> list[CaseEntry]:
        """The training cases that have all of these modalities."""
        return [entry for entry in self.training if set(names) <= set(entry.present)]


def cohort_facts(cohort: Cohort) -> CohortFacts:
    """Read the headers and no voxel, so a thousand cases take seconds; raises BadInput for fewer than two patients."""
    training = tuple(entry for entry in cohort.cases if entry.split == "train")
    patients = len({entry.patient for entry in cohort.cases})
    if patients < 2 or not training:
        raise BadInput(
            f"{cohort.folder}: expected two patients or more, one to train on and one to test on, found {patients} ({len(training)} training cases). Prepare more cases."
        )
    return _facts(cohort, training)


def _facts(cohort: Cohort, training: tuple[CaseEntry, ...]) -> CohortFacts:
    headers = [cohort.header(entry.case) for entry in training]
    boxes = np.diff([header.mask_box for header in headers])[..., 0]
    shapes = np.array([header.shape for header in headers])
    spacings = np.array([header.spacing_mm for header in headers])
    named = set[str]().union(*(header.statistics for header in headers))
    scans = {name: _scan(name, headers) for name in cohort.modalities if name in named}
    return CohortFacts(
        cohort=cohort,
        training=training,
        scans=scans,
        spacing_mm=tuple(map(float, np.median(spacings, axis=0))),
        shape=tuple(map(int, shapes.max(axis=0))),
        wide_mm=float(np.percentile(boxes[:, 2] * spacings[:, 2], 95)),
        pixel_ratio=float((spacings[:, 1:].max(axis=0) / spacings[:, 1:].min(axis=0)).max()),
        box=tuple(map(int, np.ceil(np.percentile(boxes, 95, axis=0)))),
        brain=cohort.provenance.get("mask") == "brain",
        framed=all(header.mask_from.startswith(FOREGROUND_OF) for header in headers),
        apart_mm=_apart(
            training, [name for name, scan in scans.items() if scan.unit in SHOW_ANATOMY]
        ),
        unfit=tuple(name for name in scans if is_doubted(name, headers, "slices")),
    )


def is_doubted(name: str, headers: Sequence[CaseHeader], *codes: str) -> bool:
    """Whether messages of these codes say in most of the cases of a modality that it is not to be trusted."""
    grades = []
    for header in headers:
        if name in header.visible and (scan := stored_fingerprint(header, name)) is not None:
            said = exact_messages(scan, header.units[name], name)
            grades.append(worst_grade(one for one in said if one.code in codes))
    return 2 * grades.count("do not trust") > len(grades)


def _apart(training: Sequence[CaseEntry], names: Sequence[str]) -> float:
    """How far (mm) these scans lie from the fixed one at most: the median over cases."""
    known = (
        [
            one.median_mm
            for name, one in entry.misaligned.items()
            if name in names and one.median_mm is not None
        ]
        for entry in training
    )
    return median([*map(max, filter(None, known))] or [0.0])


def _scan(name: str, everyone: Sequence[CaseHeader]) -> Scan:
    headers = [header for header in everyone if name in header.visible]
    statistics = [header.statistics[name] for header in headers]
    if not statistics:
        raise BadInput(
            f"{name}: expected a training case where it is not blank, found none. Prepare other cases."
        )
    points = np.median([case.foreground.percentiles for case in statistics], axis=0)
    inside = Distribution(
        mean=median(case.foreground.mean for case in statistics),
        sd=median(case.foreground.sd for case in statistics),
        percentiles=tuple(float(point) for point in points),
    )
    return Scan(
        name=name,
        unit=headers[0].units[name],
        cases=len(statistics),
        inside=inside,
        least=min(case.all.at(PERCENTILES[0]) for case in statistics),
        most=max(case.all.at(PERCENTILES[-1]) for case in statistics),
        reach=max(case.foreground.at(99.9) for case in statistics),
        depth=min(case.foreground.at(0.1) for case in statistics),
        farthest=max(headers, key=lambda header: header.statistics[name].foreground.at(99.9)).case,
        empty=all(map(_shows_nothing, statistics)),
        contrast=float(np.std([_shape(case.foreground) for case in statistics], axis=0).max()),
    )


def _shows_nothing(case: Statistics) -> bool:
    """Whether a part of a scan is 0, but for what a program that cuts scans adds."""
    edges = np.abs(case.all.percentiles[EDGE:])
    return bool(edges.min() <= NOTHING * edges.max())


def _shape(inside: Distribution) -> list[float]:
    """Positions of percentiles between the dark end, which is at most 0, and the bright end."""
    low = min(inside.at(0.5), 0.0)
    high = inside.at(99.5)
    return [(inside.at(percent) - low) / max(high - low, 1e-6) for percent in (5, 25, 50, 75)]


def check_scales(facts: CohortFacts, names: Sequence[str], targets: Sequence[str] = ()) -> None:
    """Raise BadInput if one of these modalities is on several scales in the training cases; MR only as a target."""
    headers = [facts.cohort.header(entry.case) for entry in facts.training]
    check_one_scale(headers, targets, facts.cohort.folder)
    for name in names:
        having = [header for header in headers if name in header.visible]
        if having[0].units[name] != "HU":
            continue
        wrong = [one.case for one in having if is_doubted(name, [one], *NOT_HU)]
        # pictures, and scans that all lack their offset, are on one scale
        on_one = len(wrong) == len(having) and facts.scans[name].most > GREY_LEVELS / 2
        if wrong and not on_one:
            raise BadInput(
                f"{name}: expected Hounsfield units in every scan, found {first_of(wrong, 3)} of {len(having)} on another scale, by the values of soft tissue. Convert all to one scale, leave those cases out, or give the modality another name."
            )
