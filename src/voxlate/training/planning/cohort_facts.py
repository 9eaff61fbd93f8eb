"""What a prepared cohort is for a plan: its numbers, read from headers alone, and the roles of its modalities."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from voxlate.base.errors import BadInput, first_of, known_name
from voxlate.base.messages import worst_grade
from voxlate.checks.check_table import exact_messages, kind_messages
from voxlate.checks.fingerprint import stored_fingerprint
from voxlate.scans.cases.case import FOREGROUND_OF, CaseHeader
from voxlate.scans.cases.prepared import CaseEntry, Cohort
from voxlate.scans.cohorts.case_files import as_names
from voxlate.scans.images.intensity import PERCENTILES, Distribution, Statistics
from voxlate.scans.images.units import HOUNSFIELD, SHOW_ANATOMY
from voxlate.training.training_options import PlanOptions

GREY_LEVELS = 255  # largest value of pictures with 8 bits
NOT_HU = ("not-hu", "shifted-hu")  # codes of a CT that is not in Hounsfield units
EDGE = PERCENTILES.index(10)
NOTHING = 1e-4  # of the largest value: nibabel writes zeros of a scaled scan as 1e-5 of it
# Later modalities take longer to scan, or need contrast agent or radiation, so they are synthesised from earlier ones.
RISING = (
    "mr",
    "t1",
    "t1n",
    "t1w",
    "pd",
    "t2",
    "t2w",
    "t2f",
    "flair",
    "swi",
    "tof",
    "t1c",
    "t1ce",
    "mra",
    "ncct",
    "ct",
)
CONTRASTS = 3  # from this number of contrasts on, any of them may be missing
MOST_GUESSED = 8  # modalities; of more, sources and targets are asked for


@dataclass(frozen=True)
class Scan:
    """A modality over the training cases.

    inside: the median distribution of the foregrounds; least, most: the extremes of all voxels.
    reach: the largest 99.9th percentile of a foreground, because rare structures such as a stroke are in few cases; depth: the smallest 0.1st percentile.
    empty: whether at least a tenth of every scan is exactly 0, as air or a stripped skull is.
    """

    name: str
    unit: str
    inside: Distribution
    least: float
    most: float
    reach: float
    empty: bool
    depth: float = 0.0

    @property
    def pictures(self) -> bool:
        """Whether the modality holds grey values of 8 bits, whatever its name suggests."""
        return self.least >= 0 and GREY_LEVELS / 2 < self.most <= GREY_LEVELS

    @property
    def tail(self) -> float:
        """Distance of the brightest 0.05 % above the 99.5th percentile, relative to the range below it."""
        low, high, brightest = map(self.inside.at, (0.5, 99.5, 99.95))
        return (brightest - low) / (high - low) if high > low else 1.0


@dataclass(frozen=True)
class CohortFacts:
    """A prepared cohort in numbers; sizes are along D, H, W.

    training: the entries of training cases; box: size in voxels that holds the foreground of 95 % of them; shape: size
    of the largest; framed: whether each mask is the body that the scans show, as at synthesis; apart_mm: median distance
    between the scans of a case, without maps, over the cases where it could be estimated (0 if there are none); bodies:
    "head" or "brain" where most scans show no other, as `voxlate check` tells it.
    """

    cohort: Cohort
    training: tuple[CaseEntry, ...]
    scans: dict[str, Scan]
    spacing_mm: tuple[float, ...]
    shape: tuple[int, ...]
    box: tuple[int, ...]
    framed: bool = False
    apart_mm: float = 0.0
    bodies: str = ""

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
    def wide_mm(self) -> float:
        """The width of the bodies."""
        return self.box[2] * self.spacing_mm[2]

    @property
    def gaps(self) -> int:
        """The number of training cases that lack a modality."""
        return len(self.training) - len(self.with_all(self.scans))

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
    scans = {name: scan_of(name, headers) for name in cohort.modalities if name in named}
    return CohortFacts(
        cohort=cohort,
        training=training,
        scans=scans,
        spacing_mm=tuple(map(float, np.median(spacings, axis=0))),
        shape=tuple(map(int, shapes.max(axis=0))),
        box=tuple(map(int, np.ceil(np.percentile(boxes, 95, axis=0)))),
        bodies="brain" if cohort.provenance.get("mask") == "brain" else _bodies(headers),
        framed=all(header.mask_from.startswith(FOREGROUND_OF) for header in headers),
        apart_mm=_apart(training, scans),
    )


def _bodies(headers: Sequence[CaseHeader]) -> str:
    """Whether most scans show whole heads ("head") or brains without skull ("brain"); "" where neither is certain."""
    scans = [
        (stored_fingerprint(header, name), name) for header in headers for name in header.pictures
    ]
    for kind, other in (("head", "brain"), ("brain", "head")):
        grades = [worst_grade(kind_messages(scan, kind, name)) for scan, name in scans if scan]
        if 2 * grades.count("do not trust") > len(scans):
            return other
    return ""


def not_in_hu(facts: CohortFacts, name: str) -> tuple[list[str], int]:
    """The training cases in which a modality's values are certainly no Hounsfield units, and the number of those that have it."""
    headers = [facts.cohort.header(entry.case) for entry in facts.training]
    having = [header for header in headers if name in header.visible]
    wrong = []
    for header in having:
        scan = stored_fingerprint(header, name)
        said = [] if scan is None else exact_messages(scan, header.units[name], name)
        if any(one.code in NOT_HU and one.grade == "do not trust" for one in said):
            wrong.append(header.case)
    return wrong, len(having)


def _apart(training: Sequence[CaseEntry], scans: Mapping[str, Scan]) -> float:
    """How far (mm) these scans lie from the fixed one at most: the median over cases."""
    farthest = []
    for entry in training:
        known = [
            one.median_mm
            for name, one in entry.misaligned.items()
            if one.median_mm is not None and name in scans and scans[name].unit in SHOW_ANATOMY
        ]
        if known:
            farthest.append(max(known))
    return median(farthest or [0.0])


def scan_of(name: str, everyone: Sequence[CaseHeader]) -> Scan:
    """A modality over these cases; raises BadInput if it is blank in all."""
    headers = [header for header in everyone if name in header.visible]
    statistics = [header.statistics[name] for header in headers]
    if not statistics:
        raise BadInput(
            f"{name}: expected a training case where it is not blank, found none. Prepare other cases."
        )
    bodies = [case.foreground for case in statistics]
    points = np.median([body.percentiles for body in bodies], axis=0)
    inside = Distribution(
        mean=median(body.mean for body in bodies),
        sd=median(body.sd for body in bodies),
        percentiles=tuple(float(point) for point in points),
    )
    return Scan(
        name=name,
        unit=headers[0].units[name],
        inside=inside,
        least=min(case.all.at(PERCENTILES[0]) for case in statistics),
        most=max(case.all.at(PERCENTILES[-1]) for case in statistics),
        reach=max(body.at(99.9) for body in bodies),
        depth=min(body.at(0.1) for body in bodies),
        empty=all(map(_shows_nothing, statistics)),
    )


def _shows_nothing(case: Statistics) -> bool:
    """Whether a part of a scan is 0, but for what a program that cuts scans adds."""
    edges = np.abs(case.all.percentiles[EDGE:])
    return bool(edges.min() <= NOTHING * edges.max())


def check_scales(facts: CohortFacts, names: Sequence[str]) -> None:
    """Raise BadInput if one of these modalities in Hounsfield units is on several scales in the training cases."""
    for name in names:
        wrong, count = not_in_hu(facts, name)
        if 0 < len(wrong) < count:
            raise BadInput(
                f"{name}: expected Hounsfield units in every scan, found {first_of(wrong, 3)} of {count} on another scale, by the values of soft tissue. Convert all to one scale, leave those cases out, or give the modality another name."
            )


@dataclass(frozen=True)
class Roles:
    """Sources and targets, and the reason."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    why: str

    @property
    def completes(self) -> bool:
        """Whether any missing modality is synthesised from the others."""
        return self.source == self.target


def choose_roles(cohort: Cohort, asked: PlanOptions) -> tuple[CohortFacts, Roles]:
    """The facts of a cohort, and the roles of its modalities; raises BadInput where they do not fit."""
    facts = cohort_facts(cohort)
    roles = roles_of(facts, as_names(asked.source), as_names(asked.target))
    names = [*roles.source, *roles.target]
    if not roles.completes:  # cases without a pair are not used
        facts = facts.of_cases_with(names)
    check_scales(facts, names)
    return facts, roles


def roles_of(facts: CohortFacts, source: Sequence[str] = (), target: Sequence[str] = ()) -> Roles:
    """The roles as asked for, or a guess with its reason; raises BadInput for unknown names and impossible roles."""
    where, scans = facts.cohort.folder, facts.scans
    for name in (*source, *target):
        known_name("--source, --target", "modalities of training cases", name, scans)
    may_guess = 1 < len(scans) <= MOST_GUESSED and not source and not target
    if not (may_guess or (source and target)):
        raise BadInput(
            f"{where}: expected --source and --target together, or two to {MOST_GUESSED} modalities for a guess, found {', '.join(scans)} in the training cases. Name both, or prepare the cohort with both in the split train."
        )
    roles = Roles(tuple(source), tuple(target), "as asked for")
    if may_guess:
        roles = _guess(scans)
    if roles.completes:
        return roles
    pairs = len(facts.with_all([*roles.source, *roles.target]))
    if not pairs:
        raise BadInput(
            f"{where}: expected training cases with {' and '.join(roles.source)} and {' and '.join(roles.target)}, found none that has both. Name others with --source and --target, give the scans of a patient one case in the table of voxlate manifest and prepare again, or train a recipe that needs no pairs (method.kind = 'cycle', data.apart = true)."
        )
    why = f"{roles.why}; {pairs} of {len(facts.training)} training cases have all of them"
    return replace(roles, why=why)


def _guess(scans: Mapping[str, Scan]) -> Roles:
    """The roles of modalities: what is harder to scan is synthesised from what is easier."""
    maps = [name for name, scan in scans.items() if scan.unit not in SHOW_ANATOMY]
    tomograms = [name for name in scans if name.lower().startswith(HOUNSFIELD)]
    targets = maps or tomograms[:1]
    others = [name for name in scans if name not in (maps or tomograms)]
    if not targets or not others:
        names = tuple(sorted(scans, key=_rank))
        if len(names) >= CONTRASTS:
            why = f"{len(names)} contrasts: any missing contrast is synthesised from the others"
            return Roles(tuple(scans), tuple(scans), why)
        others, targets = [names[0]], [names[1]]
    why = f"{', '.join(targets)} of {', '.join(others)}, a guess (change it with --source and --target)"
    return Roles(tuple(others), tuple(targets), why)


def _rank(name: str) -> int:
    """Index in RISING; other modalities come last."""
    return RISING.index(name.lower()) if name.lower() in RISING else len(RISING)
