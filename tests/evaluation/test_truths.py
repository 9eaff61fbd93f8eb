"""Truths that cannot be those of their images are told from images of a bad model."""

import shutil
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter

from made_volumes import made_volume, save
from preparing import prepare
from refusals import refuses
from rows import every_row, slow
from scans import change_scan
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.base.files import write_json
from voxlate.base.messages import read_messages
from voxlate.checks.truths import judge, sketch_of
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.scans.cohorts.files_below import refuse_synthetic
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats.io import content_hash, read_volume, write_volume
from voxlate.scans.formats.nifti import SYNTHETIC_SCAN
from voxlate.scans.images.grid import canonical

SIZE = (56, 60, 40)
CASES = 4


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """A cohort of phantoms with T1 and CT."""
    folder = tmp_path_factory.mktemp("heads")
    options = {"cases": CASES, "size": SIZE, "lesion": "none", "seed": 0}
    write_cohort(folder, modalities=["t1", "ct"], **options)
    return folder


@cache
def scan(heads, number, name):
    return canonical(read_volume(heads / f"phantom_{number:03d}" / f"{name}.nii.gz", name))


def good(ct):
    noise = np.random.default_rng(0).normal(0, 30, ct.shape)
    return (gaussian_filter(ct, 0.7) + noise).clip(-1000, 2000).astype(np.float32)


@cache
def sketched(heads, number, change=np.copy, model=good, affine=None, unit="HU", seen=np.copy):
    """The sketch of a case whose truth and source are changed, and whose image is what `model` makes of the true CT."""
    ct = scan(heads, number, "ct")
    truth = made_volume(change(ct.data[0]), "ct", unit, ct.affine if affine is None else affine)
    image = source = None
    if affine is None:
        image = made_volume(model(ct.data[0]), "ct", unit, ct.affine)
        shown = seen(scan(heads, number, "t1").data[0])
        source = made_volume(np.ascontiguousarray(shown), "t1", "a.u.", ct.affine)
    return sketch_of(truth, image, source, ct.grid, f"p{number}", "HU")


def of_all(heads, *changes, **more):
    return {f"p{n}/ct": sketched(heads, n, *changes, **more) for n in range(CASES)}


def kinds_of(truths):
    return {label: fault.kind for label, fault in judge(truths)[0].items()}


def found(heads, change=np.copy, first=None, **kept):
    """The kind of fault of each case where the truth of the first is changed, or is the sketch `first`."""
    truths = {f"p{n}/ct": sketched(heads, n) for n in (1, 2)}
    return kinds_of(truths | {"p0/ct": first or sketched(heads, 0, change, **kept)})


def raised(ct):
    return ct + 1024


WRONG = {
    "1024 too high": (raised, "offset"),
    "the brain alone": (lambda ct: np.where((ct > 0) & (ct < 80), ct, 0), "window"),
    "one value": (np.zeros_like, "blank"),
    "upside down": (lambda ct: ct[::-1], "mirrored"),
}


@every_row("name", WRONG)
@slow
def test_a_truth_with_wrong_values_is_at_fault_alone(heads, name):
    change, kind = WRONG[name]
    assert found(heads, change) == {"p0/ct": kind}


def test_a_truth_in_micrometres_or_metres_or_in_another_unit_is_at_fault(heads):
    affine = scan(heads, 0, "ct").affine
    for factor in (1000, 0.001):
        scaled = sketched.__wrapped__(heads, 0, affine=np.diag([factor] * 3 + [1]) @ affine)
        assert found(heads, first=scaled) == {"p0/ct": "spacing"}
    assert found(heads, unit="grey") == {"p0/ct": "unit"}


def of_another(heads, owner, empty=0):
    """A change that gives the CT of another case, whose first slices are empty."""

    def change(_):
        ct = scan(heads, owner, "ct").data[0].copy()
        ct[:empty] = -1000
        return ct

    return change


def test_exchanged_truths_are_of_other_patients_though_one_is_empty_in_part(heads):
    truths = of_all(heads)
    for n in (0, 1):
        truths[f"p{n}/ct"] = sketched(heads, n, of_another(heads, 1 - n, n * SIZE[2] // 3))
    faults, said = judge(truths)
    assert {fault.kind for fault in faults.values()} == {"patient"}
    assert faults.keys() == {"p0/ct", "p1/ct"}
    assert "empty-body" not in {one.code for one in said}


def untrained(ct):
    kernel = np.random.default_rng(3).normal(0, 1, (3, 5, 5))
    return np.tanh(convolve(ct / 1000, kernel)).astype(np.float32) * 1500 + 500


BAD_MODELS = {
    "a constant image of air": lambda ct: np.full_like(ct, -1000),
    "1024 too high": raised,
    "an untrained network": untrained,
    "noise": lambda ct: np.random.default_rng(1).normal(500, 500, ct.shape).astype(np.float32),
    "upside down": lambda ct: ct[::-1],
}


@slow
@every_row("name", BAD_MODELS)
def test_a_bad_model_is_no_fault_of_the_truth(heads, name):
    assert not judge(of_all(heads, model=BAD_MODELS[name]))[0]


@pytest.fixture
def synthesised(heads, tmp_path):
    """A copy of the cohort, and good images with their provenance."""
    cohort = shutil.copytree(heads, tmp_path / "cohort")
    for number in range(CASES):
        case = f"phantom_{number:03d}"
        ct = read_volume(cohort / case / "ct.nii.gz", "ct")
        save(tmp_path / "out" / case / "ct.nii.gz", good(ct.data[0]), affine=ct.affine)
        source = cohort / case / "t1.nii.gz"
        inputs = {"t1": {"sha256": content_hash(source), "path": f"../../cohort/{case}/t1.nii.gz"}}
        provenance = {"inputs": inputs, "units": {"ct": "HU"}}
        write_json(tmp_path / "out" / case / "provenance.json", provenance)
    return tmp_path / "out", cohort


@slow
def test_evaluate_scores_a_wrong_truth_apart_from_the_means_and_says_so(synthesised):
    out, cohort = synthesised
    change_scan(cohort / "phantom_000/ct.nii.gz", raised)
    scores = evaluate(out, cohort)
    assert scores.header["wrong_truths"]["phantom_000/ct"].startswith("offset: ")
    assert scores.labels == {f"phantom_{n:03d}/ct" for n in (1, 2, 3)}
    assert scores.means["ct"]["synthesis"]["mae"]["mean"] < 200
    (line,) = read_messages(scores.header, "truth_messages")
    assert "1 of 4 images (phantom_000/ct)" in line.text
    assert evaluate(out, cohort, any_truth=True).parts["ct"]["cases"] == CASES
    for number in (1, 2, 3):
        change_scan(cohort / f"phantom_00{number}/ct.nii.gz", raised)
    with refuses("4 of 4"):
        evaluate(out, cohort)


def test_evaluate_doubts_an_image_that_was_made_of_another_scan_than_that_of_its_case(synthesised):
    out, cohort = synthesised
    for old, new in (
        ("phantom_000", "place"),
        ("phantom_001", "phantom_000"),
        ("place", "phantom_001"),
    ):
        (cohort / old).rename(cohort / new)
    said = read_messages(evaluate(out, cohort).header, "messages")
    (doubt,) = (one for one in said if one.code == "other-sources")
    assert doubt.grade == "caution"
    assert "phantom_000/ct" in doubt.text


def test_a_synthesised_image_is_no_truth_and_no_scan_of_a_cohort(synthesised, tmp_path):
    out, cohort = synthesised
    path = cohort / "phantom_000/ct.nii.gz"
    write_volume(path, read_volume(path, "ct"), SYNTHETIC_SCAN)

    with refuses("phantom_000"):
        evaluate(out, cohort)
    with refuses("phantom_000"):
        prepare(cohort, tmp_path / "prepared")
    refuse_synthetic(find_cohort(cohort).cases, {"t1"})


def test_an_evaluation_with_a_truth_that_is_not_to_be_trusted_ends_with_code_3(
    voxlate, heads, tmp_path
):
    for number in range(CASES):
        case = f"phantom_{number:03d}"
        shutil.copytree(heads / case, tmp_path / "OUT" / case)
    options = ("evaluate", tmp_path / "OUT", "--truth", heads)
    said = voxlate(*options, "--json")
    assert said.code == 3
    assert "truth-image" in said.out
    assert voxlate(*options, "--any-truth").code == 0
