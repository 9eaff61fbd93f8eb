"""The tables on trainings with Harvard's slices: fine-tuning, few patients, and registered pairs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starter_measures import (
    HEAD_CT,
    Job,
    Setup,
    cases_of,
    pairs_of,
    planned,
    scored,
    trained,
)
from voxlate.cohorts.find import CaseFiles

SCRATCH, STARTER = "from scratch", "from the starter"
COHORT = "harvard"


@dataclass(frozen=True)
class Heads:
    """The slices of the heads that teach, with the heads in the order of a seed, and the slices that are scored."""

    cases: Sequence[CaseFiles]
    order: Sequence[str]
    scored: Sequence[CaseFiles]

    @property
    def held_out(self) -> list[str]:
        return [case.case for case in self.scored]


def heads_of(setup: Setup, seed: int) -> Heads:
    """Each seed begins with another head, so that no single head decides a table."""
    everything = cases_of(setup, COHORT)
    cases = [case for case in everything if case.split == "train"]
    others = [case for case in everything if case.split in ("val", "test")]
    if not cases or not others:
        raise SystemExit(f"{COHORT}_scans: expected cases that teach and others, by their split.")
    order = sorted({case.patient for case in cases})
    first = 2 * seed % len(order)
    return Heads(cases, order[first:] + order[:first], others)


def tune(setup: Setup) -> Iterator[Job]:
    """Trainings in the same minutes on all heads that teach, of which the last one of a seed's order validates."""
    if not setup.has(HEAD_CT, COHORT):
        return
    for seed in setup.seeds:
        for minutes in setup.minutes_of(3, 10, 20):
            for way in (STARTER, SCRATCH):
                starter = HEAD_CT if way == STARTER else ""
                key = setup.key("tune", starter, row=way, minutes=minutes, seed=seed)
                yield Job(key, partial(_tuned, setup, way, minutes, seed))


def _tuned(setup: Setup, way: str, minutes: float, seed: int) -> dict[str, Any]:
    heads = heads_of(setup, seed)
    prepared = pairs_of(setup, f"tune_{seed}", heads.cases, splits={heads.order[-1]: "val"})
    label = f"tune_{way}_{minutes:g}_{seed}".replace(" ", "_")
    return _trained_and_scored(setup, prepared, heads, way, minutes, seed, label)


def _trained_and_scored(
    setup: Setup,
    prepared: Path,
    heads: Heads,
    way: str,
    minutes: float,
    seed: int,
    label: str,
    align: bool = False,
) -> dict[str, Any]:
    """A training of `train auto`, from the starter or from random weights, and its scores on the held-out slices.

    taken: whether the planner begins from the starter by itself.
    """
    made, taken = planned(prepared, minutes, starter=way == STARTER)
    run, stated = trained(made, prepared, setup.folder("runs", label), seed)
    scores = scored(run.folder, setup, COHORT, heads.held_out, setup.folder("images", label), align)
    return {**stated, "taken": taken, "network": made.why["net.width"], **scores}


def patients(setup: Setup) -> Iterator[Job]:
    """Trainings on one, two, three and six heads, none of which validates, with the starter and without."""
    if not setup.has(HEAD_CT, COHORT):
        return
    (minutes,) = setup.minutes_of(5)
    for seed in setup.seeds:
        for number in (1, 2, 3, 6):
            for way in (STARTER, SCRATCH):
                starter = HEAD_CT if way == STARTER else ""
                key = setup.key(
                    "patients", starter, row=way, patients=number, minutes=minutes, seed=seed
                )
                yield Job(key, partial(_of_patients, setup, way, number, minutes, seed))


def _of_patients(setup: Setup, way: str, number: int, minutes: float, seed: int) -> dict[str, Any]:
    heads = heads_of(setup, seed)
    chosen = heads.order[:number]
    taught = [case for case in heads.cases if case.patient in chosen]
    # A plan asks for two patients; those that are tested are not read by a training.
    tested = dict.fromkeys((case.patient for case in heads.scored), "test")
    prepared = pairs_of(setup, f"patients_{number}_{seed}", [*taught, *heads.scored], tested)
    label = f"patients_{number}_{way}_{minutes:g}_{seed}".replace(" ", "_")
    return _trained_and_scored(setup, prepared, heads, way, minutes, seed, label)


PAIRS: dict[str, dict[str, Any]] = {
    "as they are": {},
    "registered to the MR": {"register": "smooth", "fixed": "mr"},
}


def through(setup: Setup) -> Iterator[Job]:
    """Regressions from random weights on pairs as they are and registered, scored as they are and aligned."""
    if not setup.has(HEAD_CT, COHORT):
        return
    (minutes,) = setup.minutes_of(10)
    for seed in setup.seeds:
        for pairs in PAIRS:
            key = setup.key("through", "", row=pairs, minutes=minutes, seed=seed)
            yield Job(key, partial(_of_pairs, setup, key))


def _of_pairs(setup: Setup, key: Mapping[str, Any]) -> dict[str, Any]:
    """A training on the pairs of one row."""
    pairs, seed, minutes = key["row"], key["seed"], key["minutes"]
    heads = heads_of(setup, seed)
    label = f"{pairs}_{key['weights']}".replace(" ", "_").rstrip("_")
    prepared = pairs_of(setup, label, heads.cases, **PAIRS[pairs])
    run = f"through_{label}_{minutes:g}_{seed}"
    return _trained_and_scored(setup, prepared, heads, SCRATCH, minutes, seed, run, align=True)
