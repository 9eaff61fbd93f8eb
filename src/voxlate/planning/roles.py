"""Which modalities a model is given, and which it makes, where nobody says."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from voxlate.errors import BadInput, did_you_mean
from voxlate.images.units import HOUNSFIELD
from voxlate.planning.facts import SHOW_ANATOMY, Facts, Scan

# Later ones take longer to scan, need contrast agent or radiation: they are what is made of earlier ones.
RISING = ("mr", "t1", "t1n", "t1w", "pd", "t2", "t2w", "t2f", "flair", "swi", "tof", "t1c", "t1ce", "mra", "ncct", "ct")
CONTRASTS = 3  # of one kind: then any of them may be missing


@dataclass(frozen=True)
class Roles:
    """What is given and what is made; way: "pairs", "complete" (any missing one of the rest) or "unpaired"."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    why: str
    way: Literal["pairs", "complete", "unpaired"] = "pairs"


def roles_of(facts: Facts, source: Sequence[str] = (), target: Sequence[str] = ()) -> Roles:
    """Take what is asked for, else guess it and say why; raises BadInput where a name is unknown or stands alone."""
    for name in (*source, *target):
        if name not in facts.scans:
            known = ", ".join(facts.scans)
            hint = did_you_mean(name, facts.scans) or "Name one of these."
            raise BadInput(f"--source, --target: expected modalities of the cohort ({known}), found '{name}'. {hint}")
    if len(facts.scans) < 2:
        raise BadInput(
            f"{facts.cohort.folder}: expected two modalities, one to make from the other, found "
            f"{', '.join(facts.scans)} alone. Prepare the cohort with both."
        )
    if both := set(source) & set(target):
        raise BadInput(f"--source, --target: expected each modality in one of them, found {min(both)} in both.")
    if len(set(source or target)) == len(facts.scans):
        known = ", ".join(facts.scans)
        raise BadInput(
            f"--source, --target: expected a modality for each of them, found all ({known}) in one. To complete "
            "whichever of them is missing, drop both options."
        )
    guess = _rest(facts, source, target) if source or target else _guess(facts)
    if guess.way == "complete":
        return guess
    if pairs := len(facts.with_all([*guess.source, *guess.target])):
        return replace(guess, why=f"{guess.why}; {pairs} of {len(facts.training)} training cases have all of them")
    if any(facts.with_all([one]) for one in guess.target) and any(facts.with_all([one]) for one in guess.source):
        return replace(guess, way="unpaired", why=f"{guess.why}; no training case has both: unpaired")
    raise BadInput(
        f"{facts.cohort.folder}: expected training cases with {' and '.join(guess.source)} and with "
        f"{' and '.join(guess.target)}, found none. Name others with --source and --target."
    )


def _rest(facts: Facts, source: Sequence[str], target: Sequence[str]) -> Roles:
    """Sources or targets as asked for; the other side is all that most of the cases have."""
    if source and target:
        return Roles(tuple(source), tuple(target), "as asked for")
    given = target or source
    others = [name for name, scan in facts.scans.items() if name not in given]
    most = max(facts.scans[name].cases for name in others)
    others = [name for name in others if facts.scans[name].cases >= most / 2]
    if source:
        first = max(others, key=_rank)
        return Roles(tuple(source), (first,), f"{first} is made, a guess (--target)")
    return Roles(tuple(others), tuple(target), f"{', '.join(others)} are given (--source for fewer)")


def _guess(facts: Facts) -> Roles:
    maps = [name for name, scan in facts.scans.items() if _is_map(scan)]
    tomograms = [name for name in facts.scans if _is_ct(name)]
    rest = [name for name in facts.scans if name not in maps and name not in tomograms]
    if maps and (others := [*tomograms, *rest]):
        return Roles(tuple(others), tuple(maps), "maps with a unit are made of the scans")
    if tomograms and rest:
        made = min(tomograms, key=HOUNSFIELD.index) if set(tomograms) <= set(HOUNSFIELD) else tomograms[0]
        why = f"{made} is made of {', '.join(rest)} (--source, --target for another way)"
        return Roles(tuple(rest), (made,), why)
    names = tuple(facts.scans)
    if len(names) >= CONTRASTS:
        why = f"{len(names)} contrasts: whichever of them is missing is made of the rest"
        return Roles(names, names, why, "complete")
    first, second = sorted(names, key=_rank)
    why = f"{second} is made of {first}, a guess (--source {second} --target {first} for the other way)"
    return Roles((first,), (second,), why)


def _is_map(scan: Scan) -> bool:
    return scan.unit not in SHOW_ANATOMY


def _is_ct(name: str) -> bool:
    return name.lower().startswith(HOUNSFIELD)


def _rank(name: str) -> int:
    """Place in RISING; what is not there comes last."""
    return RISING.index(name.lower()) if name.lower() in RISING else len(RISING)
