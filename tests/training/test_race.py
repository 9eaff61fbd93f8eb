"""A race of a plan: candidates train side by side, and held-out patients decide."""

import pytest

from rows import slow
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training.planning import starters as races
from voxlate.training.planning.cohort_facts import cohort_facts, roles_of
from voxlate.training.planning.probe import Candidate
from voxlate.training.planning.rules import Size, first_stage
from voxlate.training.planning.starters import Entrant, run_race

SMALL = Size(8, 1, 2)
FEWEST = 4


@pytest.fixture(scope="module", autouse=True)
def _short_race():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(races, "FEWEST_STEPS", FEWEST)
        yield


@pytest.fixture(scope="module")
def entrant(prepared_once):
    """entrant(name, rate): random weights that learn at a rate."""
    facts = cohort_facts(open_cohort(prepared_once))

    def make(name, rate):
        draft = first_stage(facts, roles_of(facts), SMALL, 2 * FEWEST)
        draft.tables["net"] |= {"groups": 4, "head_width": 8}
        draft.tables["train"]["optimiser"] |= {"lr": rate, "warm_up": 1}
        return Entrant(name, Candidate(SMALL, 0.01, 2 * FEWEST, 2 * FEWEST, 1e9), draft)

    return make


@pytest.fixture(scope="module")
def race(prepared_once):
    """race(entrants): the race of these on the CPU."""
    cohort = open_cohort(prepared_once)
    return lambda *entrants: run_race(list(entrants), cohort, 0.0, "cpu")


@slow
def test_the_entrant_that_learns_wins(entrant, race):
    first, second = race(entrant("still", 1e-12), entrant("learns", 5e-3))
    assert (first.name, second.name) == ("learns", "still")
    assert first.steps == second.steps == FEWEST
    assert first.error < second.error


def test_an_error_is_a_share_of_the_truths_deviation_whatever_the_scale_of_the_target(
    entrant, race
):
    """Weights that do not move give zeros. Twice the range of the target halves both the error and the deviation."""
    plain, wide = entrant("plain", 1e-12), entrant("wide", 1e-12)
    for one, high in ((plain, 2000.0), (wide, 4000.0)):
        table = {"kind": "window", "low": -high, "high": high}
        one.draft.tables["intensity"]["t2"] = table
    first, second = race(plain, wide)
    assert first.error == pytest.approx(second.error, rel=1e-4)


def test_a_diverged_entrant_never_wins(entrant, race):
    best, _ = race(entrant("diverges", 1e14), entrant("learns", 1e-3))
    assert best.name == "learns"
