"""Training pairs out of register are left out where the recipe asks for it, and named."""

from dataclasses import replace
from pathlib import Path

import pytest

from voxlate.batches.patches import DataSettings, usable_cases
from voxlate.cases.prepared import Cohort, Entry
from voxlate.images.misalignment import Misalignment
from voxlate.system.errors import BadInput


def entry(case: str, split: str, mm: float | None) -> Entry:
    apart = Misalignment(mm, mm, None, None, 20, 3, "", "t1")
    return Entry(
        case, case, split, ["t1", "ct"], [], (4, 4, 4), (1.0, 1.0, 1.0), 1.0, {}, {"ct": apart}
    )


@pytest.fixture
def cohort() -> Cohort:
    """Training cases 1, 4 and an unknown number of mm out of register, and one of validation, 9 mm."""
    cases = (
        entry("a", "train", 1.0),
        entry("b", "train", 4.0),
        entry("c", "train", None),
        entry("d", "val", 9.0),
    )
    return Cohort(Path("cohort"), cases, ("ct", "t1"), {"t1": "a.u.", "ct": "HU"}, {}, (), {})


def data(most_mm: float | None) -> DataSettings:
    return DataSettings(source=["t1"], target=["ct"], most_misaligned_mm=most_mm)


def test_pairs_beyond_the_limit_are_left_out_of_training_alone(cohort):
    assert usable_cases(cohort, data(None), "train")[0] == ["a", "b", "c"]
    assert usable_cases(cohort, data(3.0), "train")[0] == ["a", "c"]
    assert usable_cases(cohort, data(3.0), "val")[0] == ["d"]


def test_modalities_that_are_not_learned_do_not_count(cohort):
    far = replace(
        cohort.cases[0],
        misaligned={"flair": replace(cohort.cases[1].misaligned["ct"], median_mm=9.0)},
    )
    one = replace(cohort, cases=(far, *cohort.cases[1:]))
    assert usable_cases(one, data(3.0), "train")[0] == ["a", "c"]


def test_a_limit_that_no_pair_keeps_is_refused_with_the_nearest(cohort):
    known = replace(cohort, cases=cohort.cases[:2])
    with pytest.raises(
        BadInput,
        match=r"within data.most_misaligned_mm = 0.5, found the nearest 1.0 mm apart. Raise",
    ):
        usable_cases(known, data(0.5), "train")


def test_a_limit_on_a_cohort_without_audit_is_refused(cohort):
    bare = replace(cohort, cases=tuple(replace(one, misaligned={}) for one in cohort.cases))
    with pytest.raises(BadInput, match="found a cohort that was prepared without audit"):
        usable_cases(bare, data(3.0), "train")
