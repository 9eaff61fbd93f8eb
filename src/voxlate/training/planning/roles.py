"""The roles of modalities: sources and targets of a model, as the user asks or as a guess."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from voxlate.base.errors import BadInput, first_of, known_name
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.cohorts.case_files import as_names
from voxlate.scans.images.units import HOUNSFIELD, TISSUE_MAPS
from voxlate.training.batches.any_source import with_any_source
from voxlate.training.planning.cohort_facts import (
    SHOW_ANATOMY,
    CohortFacts,
    check_scales,
    cohort_facts,
)
from voxlate.training.training_options import PlanOptions

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
ANY_SOURCE = "mr"  # the source for which any of several contrasts stands, as in starters
CONTRASTS = 3  # from this number of contrasts on, any of them may be missing


@dataclass(frozen=True)
class Roles:
    """Sources and targets; pairing: "pairs", "complete" (any missing modality from the others) or "unpaired".

    any_source: the scans that stand for the one source (see training/batches/any_source.py).
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    why: str
    pairing: Literal["pairs", "complete", "unpaired"] = "pairs"
    any_source: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """The targets of the sources, as "ct of t1 and t2"."""
        return f"{' and '.join(self.target)} of {' and '.join(self.source)}"


def choose_roles(cohort: Cohort, asked: PlanOptions) -> tuple[Cohort, CohortFacts, Roles]:
    """The cohort as it is trained on, its facts, and the roles of its modalities; raises BadInput where they do not fit."""
    source, target = as_names(asked.source), as_names(asked.target)
    facts = cohort_facts(cohort)
    if any_source := as_names(asked.any_source):
        if source:
            raise BadInput(
                f"--source: expected --any-source or --source, found both ({', '.join(source)}). Drop one."
            )
        roles = roles_of_any(facts, any_source, target)
        cohort = with_any_source(cohort, any_source, ANY_SOURCE)
        facts = cohort_facts(cohort)
    else:
        refuse_maps(facts, source, target)
        roles = roles_of(facts, source, target)
    if roles.pairing == "unpaired" and not asked.unpaired:
        raise BadInput(
            f"{facts.cohort.folder}: expected training cases with {' and '.join((*roles.source, *roles.target))}, found none that has both. Give the scans of a patient one case in the table of voxlate manifest and prepare again, or pass --unpaired for a training without pairs."
        )
    _check_variation(facts, roles)
    names = [*roles.source, *roles.target]
    if roles.pairing == "pairs":  # cases without a pair are not used
        facts = facts.of_cases_with(names)
    check_scales(facts, names, roles.target)
    return cohort, facts, roles


def _check_variation(facts: CohortFacts, roles: Roles) -> None:
    for name in roles.target:
        inside = facts.scans[name].inside
        if inside.at(1) == inside.at(99):
            raise BadInput(
                f"{facts.cohort.folder}: expected {name} to vary inside the body, found {inside.at(1):g} from the 1st to the 99th percentile. Is it the right file?"
            )


def roles_of(facts: CohortFacts, source: Sequence[str] = (), target: Sequence[str] = ()) -> Roles:
    """The roles as asked for, or a guess with its reason; raises BadInput for unknown names and impossible roles."""
    _check_known(facts, (*source, *target), "--source, --target")
    if len(facts.scans) < 2:
        raise BadInput(
            f"{facts.cohort.folder}: expected two modalities, a source and a target, found {', '.join(facts.scans)} alone in the training cases. Prepare the cohort with both in the split train."
        )
    if both := set(source) & set(target):
        raise BadInput(
            f"--source, --target: expected each modality in one of them, found {min(both)} in both. Leave it out of one."
        )
    if len(set(source or target)) == len(facts.scans):
        known = ", ".join(facts.scans)
        raise BadInput(
            f"--source, --target: expected a modality for each of them, found all ({known}) in one. Drop both options for a model of any missing modality."
        )
    shown, unfit = _without_unfit(facts, {*source, *target})
    guess = _rest(shown, source, target) if source or target else _guess(shown)
    guess = replace(guess, why=f"{guess.why}{unfit}")
    if guess.pairing == "complete":
        return guess
    pairs = len(facts.with_all([*guess.source, *guess.target]))
    if pairs:
        return replace(
            guess,
            why=f"{guess.why}; {pairs} of {len(facts.training)} training cases have all of them",
        )
    sides = (guess.source, guess.target)
    if all(any(facts.with_all([name]) for name in side) for side in sides):
        return replace(
            guess,
            pairing="unpaired",
            why=f"{guess.why}; no training case has both: unpaired",
        )
    raise BadInput(
        f"{facts.cohort.folder}: expected training cases with {' and '.join(guess.source)} and with {' and '.join(guess.target)}, found none. Name others with --source and --target."
    )


def roles_of_any(facts: CohortFacts, scans: Sequence[str], target: Sequence[str]) -> Roles:
    """The roles where any of these scans is the source; facts: of the cohort on disk.

    Raises BadInput for unknown names, without a target, and where no training case has a scan and the targets.
    """
    _check_known(facts, (*scans, *target), "--any-source, --target")
    if not target:
        raise BadInput(
            "--any-source: expected the modality to synthesise with it, found none. Add --target NAME."
        )
    if ANY_SOURCE in (*scans, *target):
        raise BadInput(
            f"--any-source: expected modalities of other names than {ANY_SOURCE}, as which they are taken, found it. Prepare the cohort with another name for it."
        )
    pairs = facts.with_all(target)
    having = {name: sum(name in entry.present for entry in pairs) for name in scans}
    if not any(having.values()):
        raise BadInput(
            f"{facts.cohort.folder}: expected training cases with {' and '.join(target)} and any of {', '.join(scans)}, found none. Name others."
        )
    counts = ", ".join(f"{name} in {count}" for name, count in having.items())
    lacking = [entry.case for entry in pairs if not {*scans} & {*entry.present}]
    without = f"; {first_of(lacking)} has none of them and is left out" if lacking else ""
    why = f"any one of {' or '.join(scans)}, which each item shows under the name {ANY_SOURCE} ({counts} of {len(pairs)} training cases with {' and '.join(target)}); each scan of a case is an item of its own, and its validation too{without}"
    return Roles((ANY_SOURCE,), tuple(target), why, any_source=tuple(scans))


def _check_known(facts: CohortFacts, names: Sequence[str], options: str) -> None:
    """Raise BadInput for a name that no training case has; options: from which the names are."""
    for name in names:
        known_name(options, "modalities of training cases", name, facts.scans)


def refuse_maps(facts: CohortFacts, source: Sequence[str] = (), target: Sequence[str] = ()) -> None:
    """Raise BadInput for a cohort of tissue-parameter maps where the user has not named sources and targets."""
    maps = [name for name in facts.scans if name in TISSUE_MAPS]
    if maps and not (source and target):
        raise BadInput(
            f"{facts.cohort.folder}: expected scans to plan a training for, found tissue-parameter maps ({', '.join(maps)}). Train a recipe that has a [data.physics] table on them, or name both --source and --target."
        )


def _without_unfit(facts: CohortFacts, asked: Collection[str]) -> tuple[CohortFacts, str]:
    """The facts without the modalities that are not to be trusted in most cases, such as label maps, and what is said of these.

    asked: those that the user names, which stay. Raises BadInput where too few are left.
    """
    unfit = {*facts.unfit} - {*asked}
    if not unfit:
        return facts, ""
    named = ", ".join(sorted(unfit))
    scans = {name: scan for name, scan in facts.scans.items() if name not in unfit}
    if len(scans) < 2 or not scans.keys() - {*asked}:
        raise BadInput(
            f"{facts.cohort.folder}: expected two modalities, a source and a target, that can be trusted, found {', '.join(scans) or 'none'} beside {named}, which prepare grades as not to be trusted in most cases. Correct the files and prepare again, or name both --source and --target."
        )
    said = f"; not taken: {named}, which prepare grades as not to be trusted in most cases (name both --source and --target to take it)"
    return replace(facts, scans=scans), said


def _rest(facts: CohortFacts, source: Sequence[str], target: Sequence[str]) -> Roles:
    """Sources or targets as asked for; the other side consists of the modalities that most cases have."""
    if source and target:
        return Roles(tuple(source), tuple(target), "as asked for")
    given = target or source
    cases = {name: scan.cases for name, scan in facts.scans.items() if name not in given}
    others = [name for name, count in cases.items() if count >= max(cases.values()) / 2]
    if source:
        first = max(others, key=_rank)
        return Roles(tuple(source), (first,), f"{first} is the target, a guess (--target)")
    return Roles(
        tuple(others),
        tuple(target),
        f"{', '.join(others)} are the sources (--source for fewer)",
    )


def _guess(facts: CohortFacts) -> Roles:
    maps = [name for name, scan in facts.scans.items() if scan.unit not in SHOW_ANATOMY]
    tomograms = [name for name in facts.scans if name.lower().startswith(HOUNSFIELD)]
    rest = [name for name in facts.scans if name not in maps and name not in tomograms]
    others = [*tomograms, *rest]
    targets = maps
    if tomograms and not maps:
        are_named = set(tomograms) <= set(HOUNSFIELD)
        targets = [min(tomograms, key=HOUNSFIELD.index) if are_named else tomograms[0]]
        others = rest
    if targets and others:
        verb = "are" if targets[1:] else "is"
        why = f"{', '.join(targets)} {verb} synthesised from {', '.join(others)} (change it with --source and --target)"
        return Roles(tuple(others), tuple(targets), why)
    names = tuple(facts.scans)
    if len(names) >= CONTRASTS:
        why = f"{len(names)} contrasts: any missing contrast is synthesised from the others"
        return Roles(names, names, why, "complete")
    first, second = sorted(names, key=_rank)
    why = f"{second} is synthesised from {first}, a guess (--source {second} --target {first} for the reverse)"
    return Roles((first,), (second,), why)


def _rank(name: str) -> int:
    """Index in RISING; other modalities come last."""
    return RISING.index(name.lower()) if name.lower() in RISING else len(RISING)
