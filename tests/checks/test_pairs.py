"""Scans that belong to another patient or lie turned are told by the pairs of other patients, and copies by their pictures."""

import numpy as np
import pytest

from rows import every_row
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.checks.fingerprint import fingerprint
from voxlate.checks.pairs import copies, doubtful_pairs, similarity
from voxlate.checks.reference import mirrored, turned
from voxlate.scans.formats.io import read_volume

CASES = 9
PATIENTS = {f"p{n}": f"p{n}" for n in range(CASES)}


@pytest.fixture(scope="module")
def prints(tmp_path_factory):
    """T1 and CT of heads, by case."""
    folder = tmp_path_factory.mktemp("heads")
    options = {"cases": CASES, "size": (56, 60, 40), "lesion": "none", "seed": 5}
    made = write_cohort(folder, modalities=["t1", "ct"], **options)
    return [
        {
            f"p{n}": fingerprint(read_volume(path / f"{name}.nii.gz", name))
            for n, path in enumerate(made)
        }
        for name in ("t1", "ct")
    ]


@pytest.fixture(scope="module")
def pictures(prints):
    return [{case: one.picture for case, one in of.items()} for of in prints]


def doubts(first, second):
    return {one.case: one.code for one in doubtful_pairs(first, second, PATIENTS, "ct")}


def test_a_pair_of_one_patient_is_more_similar_than_those_of_two(pictures):
    t1, ct = pictures
    for case in t1:
        others = [similarity(t1[case], ct[other]) for other in ct if other != case]
        assert similarity(t1[case], ct[case]) > 1.2 * max(others)
    assert doubts(t1, ct) == {}


def test_exchanged_scans_are_both_named_and_no_others(pictures):
    t1, ct = pictures
    assert doubts(t1, ct | {"p0": ct["p3"], "p3": ct["p0"]}) == dict.fromkeys(
        ("p0", "p3"), "exchanged-scan"
    )


@every_row("axis", [0, 1, 2])
def test_a_mirrored_scan_is_named(pictures, axis):
    t1, ct = pictures
    assert doubts(t1, ct | {"p1": turned(ct["p1"], mirrored(axis))}) == {"p1": "turned-scan"}


def test_the_scan_of_a_patient_who_is_not_there_is_named(pictures):
    t1, ct = pictures
    first = {case: t1[case] for case in t1 if case != "p4"}
    assert doubts(first, {**{case: ct[case] for case in first}, "p0": ct["p4"]}) == {
        "p0": "foreign-scan"
    }


def test_the_copy_of_a_scan_makes_no_pair_of_another_patient_doubtful(pictures):
    t1, ct = pictures
    owners = PATIENTS | {"p4": "p2"}
    found = {one.case for one in doubtful_pairs(t1 | {"p4": t1["p2"]}, ct, owners, "ct")}
    assert found <= {"p4"}


def test_scans_of_two_patients_that_are_almost_equal_are_copies(pictures):
    t1, _ = pictures
    assert [*copies(t1, PATIENTS)] == []
    changed = np.clip(
        t1["p2"].astype(int) + np.random.default_rng(0).integers(-3, 4, t1["p2"].shape), 0, 254
    )
    near = np.where(t1["p2"] == 255, 255, changed).astype(np.uint8)
    assert [*copies(t1 | {"p4": near}, PATIENTS)] == [("p2", "p4")]
    assert [*copies(t1 | {"p4": near}, PATIENTS | {"p4": "p2"})] == []
