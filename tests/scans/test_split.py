from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from refusals import refuses
from rows import every_row
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.cohorts.split import (
    FOLDS,
    SMALL,
    USUAL,
    check_modalities,
    check_size,
    fold_splits,
    hold_out,
    split_patients,
)


def _cases(names, split=None, modalities=("ct", "t1")):
    """A case of each patient, with these scans; of so many patients, or of those with the names."""
    if isinstance(names, int):
        names = [f"p{k}" for k in range(names)]
    return [CaseFiles(name, name, split, {one: Path(one) for one in modalities}) for name in names]


patients = st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=1, max_size=40)


@given(patients, st.integers(0, 5))
def test_the_order_of_files_does_not_matter_and_training_is_never_empty(names, seed):
    splits = split_patients(_cases(names), seed)
    assert splits == split_patients(_cases(reversed(names)), seed)
    assert set(splits) == set(names)
    assert "train" in splits.values()
    assert ("val" in splits.values()) == (len(set(names)) >= 2)
    assert ("test" in splits.values()) == (len(set(names)) >= SMALL)


@every_row("count, val, test", [(1, 0, 0), (2, 1, 0), (6, 1, 0), (8, 2, 0), (9, 2, 0), (10, 2, 1)])
def test_small_cohorts_hold_out_no_patient_for_the_test(count, val, test):
    cases = _cases(f"p{k}" for k in range(count) for _ in range(k % 3 + 1))
    splits = split_patients(cases)
    placed = [*splits.values()]
    assert (placed.count("val"), placed.count("test"), len(placed)) == (val, test, count)
    said = [] if count >= SMALL else ["caution" if count == 1 else "note"]
    assert [one.grade for one in check_size(splits)] == said


def test_the_note_on_a_small_cohort_names_shares_that_prepare_accepts():
    (said,) = check_size(split_patients(_cases(4)))
    asked = tuple(map(float, said.text.split()[-3:]))
    assert sorted(split_patients(_cases(4), shares=asked).values()) == [
        "test",
        "train",
        "train",
        "val",
    ]


def test_stated_splits_win():
    cases = _cases("aa", "test") + _cases("b", "train")
    assert split_patients(cases) == {"a": "test", "b": "train"}
    with refuses():
        split_patients(cases, shares=(1, 1, 0))


def test_a_patient_who_lacks_a_modality_that_most_have_is_held_out_last():
    cases = _cases(4, "train")
    (first,) = (one.case for one in hold_out(cases, 1) if one.split == "val")
    drawn = [replace(case, split=None) for case in cases]
    assert split_patients(drawn)[first] == "val"
    for case in cases:
        if case.case == first:
            del case.files["ct"]
    splits = split_patients(drawn)
    assert splits[first] == "train"
    assert [one.split for one in hold_out(cases, 1) if one.case == first] == ["train"]


@every_row("pairs", [2, 3, 6])
def test_training_keeps_as_many_pairs_as_are_held_out(pairs):
    both = [f"both{k}" for k in range(pairs)]
    cases = _cases(both)
    for name in ("ct", "t1"):
        cases += _cases([f"{name}{k}" for k in range(5)], modalities=(name,))
    splits = split_patients(cases)
    placed = [splits[patient] for patient in both]
    assert 2 * placed.count("train") >= pairs > placed.count("train")
    assert "val" in placed


@every_row(
    "splits, count",
    [(["val", "train", "train"], 1), (["train", "val", "val"], 1), (["train"] * 3, 0)],
)
def test_a_split_without_pairs_that_another_split_has_is_named(splits, count):
    cases = _cases("a") + _cases("b", modalities=["t1"]) + _cases("c", modalities=["ct"])
    said = check_modalities(cases, dict(zip("abc", splits, strict=True)))
    assert [(one.code, one.grade) for one in said] == [("split-lacks-modality", "caution")] * count
    assert check_modalities(cases[1:], {"b": "train", "c": "train"}) == []


@every_row("count", range(SMALL, 60))
def test_training_gets_its_share_of_the_patients(count):
    for shares in (None, USUAL, (0.6, 0.2, 0.2), (0.7, 0.2, 0.1)):
        placed = [*split_patients(_cases(count), shares=shares).values()]
        assert placed.count("train") >= (shares or USUAL)[0] * count - 1e-6
        assert placed.count("val") >= placed.count("test") >= 1
    placed = [*split_patients(_cases(count), shares=(1.0, 0.0, 0.0)).values()]
    assert placed == ["train"] * count


@every_row("count, shares", [(3, (0.7, 0.15, 0.15)), (1, (0.5, 0.5, 0))])
def test_shares_that_get_no_patient_are_refused(count, shares):
    with refuses(f"{min(filter(None, shares)):g} of {count} patients"):
        split_patients(_cases(count), shares=shares)


@given(
    st.dictionaries(
        st.text("abcdefgh", min_size=1, max_size=4), st.sampled_from(["train", "val", "test"])
    )
)
def test_over_the_folds_each_patient_validates_once_and_the_test_patients_never(splits):
    learning = {name for name, split in splits.items() if split != "test"}
    if len(learning) < FOLDS:
        with refuses(f"found {len(learning)}"):
            fold_splits(splits, 0, "cohort")
        return
    folds = [fold_splits(splits, fold, "cohort") for fold in range(FOLDS)]
    parts = [{name for name, split in one.items() if split == "val"} for one in folds]
    assert sorted(name for part in parts for name in part) == sorted(learning)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for one, part in zip(folds, parts):
        kept = dict.fromkeys(learning - part, "train") | dict.fromkeys(part, "val")
        assert one == splits | kept
    assert folds[2] == fold_splits(dict(reversed(splits.items())), 2, "cohort")
