"""What a prepared cohort is for a plan: its numbers, read from headers alone, and the roles of its modalities."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import median
from typing import Literal

import numpy as np

from voxlate.base.errors import BadInput, first_of, known_name
from voxlate.base.messages import worst_grade
from voxlate.checks.check_table import exact_messages, kind_messages
from voxlate.checks.fingerprint import stored_fingerprint
from voxlate.scans.cases.case import FOREGROUND_OF, CaseHeader
from voxlate.scans.cases.prepared import CaseEntry, Cohort
from voxlate.scans.cohorts.case_files import as_names
from voxlate.scans.images.intensity import PERCENTILES, Distribution, Statistics
from voxlate.scans.images.units import HOUNSFIELD, SHOW_ANATOMY, TISSUE_MAPS
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
    of the largest; wide_mm: 95th percentile of the bodies' widths; framed: whether
    each mask is the body that the scans show, as at synthesis; apart_mm: median distance between the scans of a case, without maps, over the cases where it could be estimated (0
    if there are none); bodies: "head" or "brain" where most scans show no other, as `voxlate check` tells it; unfit: the modalities that prepare grades as not to be trusted in most cases, such as label maps.
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
    bodies: str = ""
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
    scans = {name: scan_of(name, headers) for name in cohort.modalities if name in named}
    stripped = cohort.provenance.get("mask") == "brain"
    return CohortFacts(
        cohort=cohort,
        training=training,
        scans=scans,
        spacing_mm=tuple(map(float, np.median(spacings, axis=0))),
        shape=tuple(map(int, shapes.max(axis=0))),
        wide_mm=float(np.percentile(boxes[:, 2] * spacings[:, 2], 95)),
        box=tuple(map(int, np.ceil(np.percentile(boxes, 95, axis=0)))),
        brain=stripped,
        bodies="brain" if stripped else _bodies(headers),
        framed=all(header.mask_from.startswith(FOREGROUND_OF) for header in headers),
        apart_mm=_apart(
            training, [name for name, scan in scans.items() if scan.unit in SHOW_ANATOMY]
        ),
        unfit=tuple(name for name in scans if is_doubted(name, headers, "slices")),
    )


def _bodies(headers: Sequence[CaseHeader]) -> str:
    """Whether most scans show whole heads ("head") or brains without skull ("brain"); "" where neither is certain."""
    scans = [(header, name) for header in headers for name in header.pictures]
    others = {"head": "brain", "brain": "head"}
    for kind, other in others.items():
        refused = 0
        for header, name in scans:
            scan = stored_fingerprint(header, name)
            if scan is not None and worst_grade(kind_messages(scan, kind, name)) == "do not trust":
                refused += 1
        if 2 * refused > len(scans):
            return other
    return ""


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


def scan_of(name: str, everyone: Sequence[CaseHeader]) -> Scan:
    """A modality over these cases; raises BadInput if it is blank in all."""
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


def check_scales(facts: CohortFacts, names: Sequence[str]) -> None:
    """Raise BadInput if one of these modalities in Hounsfield units is on several scales in the training cases."""
    headers = [facts.cohort.header(entry.case) for entry in facts.training]
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


@dataclass(frozen=True)
class Roles:
    """Sources and targets; pairing: "pairs", "complete" (any missing modality from the others) or "unpaired"."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    why: str
    pairing: Literal["pairs", "complete", "unpaired"] = "pairs"

    def side(self, name: str) -> Literal["source", "target"]:
        """The side of a modality; a target that is a source too is a target."""
        return "target" if name in self.target else "source"

    @property
    def task(self) -> str:
        """The targets of the sources, as "ct of t1 and t2"."""
        return f"{' and '.join(self.target)} of {' and '.join(self.source)}"


def choose_roles(cohort: Cohort, asked: PlanOptions) -> tuple[CohortFacts, Roles]:
    """The facts of a cohort, and the roles of its modalities; raises BadInput where they do not fit."""
    source, target = map(as_names, (asked.source, asked.target))
    facts = cohort_facts(cohort)
    where = facts.cohort.folder
    maps = [name for name in facts.scans if name in TISSUE_MAPS]
    if maps and not (source and target):
        raise BadInput(
            f"{where}: expected scans to plan a training for, found tissue-parameter maps ({', '.join(maps)}). Train a recipe that has a [data.physics] table on them, or name both --source and --target."
        )
    roles = roles_of(facts, source, target)
    names = [*roles.source, *roles.target]
    if roles.pairing == "unpaired" and not asked.unpaired:
        raise BadInput(
            f"{where}: expected training cases with {' and '.join(names)}, found none that has both. Give the scans of a patient one case in the table of voxlate manifest and prepare again, or pass --unpaired for a training without pairs."
        )
    for name in roles.target:
        inside = facts.scans[name].inside
        if inside.at(1) == inside.at(99):
            raise BadInput(
                f"{where}: expected {name} to vary inside the body, found {inside.at(1):g} from the 1st to the 99th percentile. Is it the right file?"
            )
    if roles.pairing == "pairs":  # cases without a pair are not used
        facts = facts.of_cases_with(names)
    check_scales(facts, names)
    return facts, roles


def roles_of(facts: CohortFacts, source: Sequence[str] = (), target: Sequence[str] = ()) -> Roles:
    """The roles as asked for, or a guess with its reason; raises BadInput for unknown names and impossible roles.

    Modalities that prepare does not trust in most cases, such as label maps, have a role where they are named alone.
    """
    where = facts.cohort.folder
    _check_known(facts, (*source, *target), "--source, --target")
    unfit = sorted({*facts.unfit} - {*source, *target})
    scans = {name: scan for name, scan in facts.scans.items() if name not in unfit}
    without = ""
    if unfit:
        without = f"; not taken: {', '.join(unfit)}, which prepare grades as not to be trusted in most cases (name both --source and --target to take it)"
    if len(scans) < 2:
        raise BadInput(
            f"{where}: expected two modalities, a source and a target, found {', '.join(scans)} alone in the training cases{without}. Prepare the cohort with both in the split train."
        )
    if both := set(source) & set(target):
        raise BadInput(
            f"--source, --target: expected each modality in one of them, found {min(both)} in both. Leave it out of one."
        )
    if len(set(source or target)) == len(scans):
        raise BadInput(
            f"--source, --target: expected a modality for each of them, found all ({', '.join(scans)}) in one{without}. Drop both options for a model of any missing modality."
        )
    if len(scans) > MOST_GUESSED and not (source and target):
        raise BadInput(
            f"--source, --target: expected names of both among {len(scans)} modalities, which are too many for a guess ({', '.join(scans)}), found {', '.join((*source, *target)) or 'none'}. Name both."
        )
    guess = _guess(scans, tuple(source), tuple(target))
    guess = replace(guess, why=f"{guess.why}{without}")
    if guess.pairing == "complete":
        return guess
    pairs = len(facts.with_all([*guess.source, *guess.target]))
    if pairs:
        every = f"{pairs} of {len(facts.training)} training cases have all of them"
        return replace(guess, why=f"{guess.why}; {every}")
    sides = (guess.source, guess.target)
    if all(any(facts.with_all([name]) for name in side) for side in sides):
        why = f"{guess.why}; no training case has both: unpaired"
        return replace(guess, pairing="unpaired", why=why)
    raise BadInput(
        f"{where}: expected training cases with {' and '.join(guess.source)} and with {' and '.join(guess.target)}, found none. Name others with --source and --target."
    )


def _guess(scans: Mapping[str, Scan], source: tuple[str, ...], target: tuple[str, ...]) -> Roles:
    """The roles of modalities where those that are asked for (none, one side or both) are kept."""
    if source and target:
        return Roles(source, target, "as asked for")
    cases = {name: scan.cases for name, scan in scans.items() if name not in (*source, *target)}
    most = [name for name, count in cases.items() if count >= max(cases.values()) / 2]
    if source:
        first = max(most, key=_rank)
        return Roles(source, (first,), f"{first} is the target, a guess (--target)")
    if target:
        why = f"{', '.join(most)} are the sources (--source for fewer)"
        return Roles(tuple(most), target, why)
    maps = [name for name, scan in scans.items() if scan.unit not in SHOW_ANATOMY]
    tomograms = [name for name in scans if name.lower().startswith(HOUNSFIELD)]
    others = [name for name in scans if name not in maps and name not in tomograms]
    targets = maps
    if maps:
        others = [*tomograms, *others]
    elif tomograms:
        are_named = set(tomograms) <= set(HOUNSFIELD)
        targets = [min(tomograms, key=HOUNSFIELD.index) if are_named else tomograms[0]]
    if targets and others:
        verb = "are" if targets[1:] else "is"
        why = f"{', '.join(targets)} {verb} synthesised from {', '.join(others)} (change it with --source and --target)"
        return Roles(tuple(others), tuple(targets), why)
    names = tuple(scans)
    if len(names) >= CONTRASTS:
        why = f"{len(names)} contrasts: any missing contrast is synthesised from the others"
        return Roles(names, names, why, "complete")
    given, made = sorted(names, key=_rank)
    why = f"{made} is synthesised from {given}, a guess (--source {made} --target {given} for the reverse)"
    return Roles((given,), (made,), why)


def _check_known(facts: CohortFacts, names: Sequence[str], options: str) -> None:
    """Raise BadInput for a name that no training case has; options: from which the names are."""
    for name in names:
        known_name(options, "modalities of training cases", name, facts.scans)


def _rank(name: str) -> int:
    """Index in RISING; other modalities come last."""
    return RISING.index(name.lower()) if name.lower() in RISING else len(RISING)
