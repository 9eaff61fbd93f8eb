"""Truths that cannot be those of their images are told from images of a bad model."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter

from rows import every_row
from voxlate.anatomy.cohort import write_cohort
from voxlate.base.errors import BadInput
from voxlate.checks.header_checks import refuse_synthetic
from voxlate.checks.prepare import prepare
from voxlate.checks.truths import SketchedTruth, judge, sketch_of
from voxlate.evaluation.scoring.captions import caption, truth_messages
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.evaluation.scoring.outliers import find_outliers
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats.io import content_hash, read_volume, write_volume
from voxlate.scans.formats.nifti import SYNTHETIC_SCAN
from voxlate.scans.images.grid import Volume, canonical
from voxlate.scans.images.mask import foreground

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
def sketched(heads, number, change=None, model=good, affine=None, unit="HU", seen=None):
    """The sketch of a case whose truth and source are changed, and whose image is what `model` makes of the true CT."""
    ct = scan(heads, number, "ct")
    data = ct.data[0] if change is None else np.asarray(change(ct.data[0]), np.float32)
    truth = Volume(data[None], ct.affine if affine is None else affine, unit, "ct")
    image = model(ct.data[0])
    source = scan(heads, number, "t1").data[0]
    source = source if seen is None else seen(source)
    if affine is not None:
        image = source = None
    sketch = sketch_of(truth, image, source, ct.grid)
    return SketchedTruth(f"p{number}", unit, "HU", sketch)


def kinds_of(truths):
    return {label: fault.kind for label, fault in judge(truths)[0].items()}


def found(heads, change=None, first=None, **kept):
    """The kind of fault of each case where the truth of the first is changed, or is the sketch `first`."""
    truths = {f"p{n}/ct": sketched(heads, n) for n in (1, 2)}
    return kinds_of(truths | {"p0/ct": first or sketched(heads, 0, change, **kept)})


def windowed(low, high):
    return lambda ct: np.round((ct.clip(low, high) - low) / (high - low) * 255)


def padded(ct):
    cut = ct.copy()
    cut[: len(cut) // 2] = -3024
    return cut


WRONG = {
    "1024 too high": (lambda ct: ct + 1024, "offset"),
    "inverted": (lambda ct: -ct, "offset"),
    "the brain alone": (lambda ct: np.where((ct > 0) & (ct < 80), ct, 0), "window"),
    "without bone": (lambda ct: ct.clip(-1000, 240), "window"),
    "half of it padded": (padded, "padding"),
    "one value": (np.zeros_like, "blank"),
    "upside down": (lambda ct: ct[::-1], "mirrored"),
}


@every_row("name", WRONG)
@pytest.mark.slow
def test_a_truth_with_wrong_values_is_at_fault_alone(heads, name):
    change, kind = WRONG[name]
    assert found(heads, change) == {"p0/ct": kind}


def test_ordinary_truths_have_no_fault(heads):
    assert found(heads) == {}


def test_a_truth_that_lies_elsewhere_than_its_image_counts_with_a_caution(heads):
    moved = sketched(heads, 0, lambda ct: np.roll(ct, 1, (0, 2)))  # by 5.5 mm
    for truth, codes in ((sketched(heads, 0), set()), (moved, {"truth-apart"})):
        faults, said = judge({"p0/ct": truth})
        assert (faults, {one.code for one in said}) == ({}, codes)


def test_truths_that_all_lie_a_little_away_in_one_direction_are_all_named(heads):
    truths = {f"p{n}": sketched(heads, n, lambda ct: np.roll(ct, 2, 2)) for n in range(CASES)}
    assert [one.code for one in judge(truths)[1]] == ["truth-apart"] * CASES


@every_row(("axis", "codes"), [(0, {"truth-apart"}), (None, set())])
def test_truths_that_are_all_a_slice_away_are_all_named(heads, axis, codes):
    moved = np.copy if axis is None else lambda ct: np.roll(ct, 1, axis)
    truths = {f"p{n}": foreign(heads, n, moved) for n in range(CASES)}
    faults, said = judge(truths)
    assert (faults, {one.code for one in said}) == ({}, codes)
    assert len(said) == CASES * len(codes)


def test_one_truth_that_lies_away_from_its_image_is_named_alone(heads):
    def moved(ct):
        return np.roll(ct, 1, 0)

    for change, places in ((None, []), (moved, ["p0"])):
        truths = {f"p{n}": foreign(heads, n, change if n == 0 else np.copy) for n in range(CASES)}
        faults, said = judge(truths)
        assert (faults, [one.case for one in said if one.code == "truth-apart"]) == ({}, places)


def test_how_far_truths_lie_away_is_the_same_in_cells_of_two_sizes(heads):
    truths = {f"p{n}": foreign(heads, n, lambda ct: np.roll(ct, 1, 0)) for n in range(CASES)}
    slice_mm = float(truths["p0"].sketch.spacing_mm[0])
    for label in ("p0", "p2", "p3"):
        sketch = truths[label].sketch
        parts = ("truth", "image", "source")
        halved = {part: getattr(sketch, part)[::2] for part in parts}
        large = replace(sketch, **halved, cell_mm=sketch.cell_mm * np.float32([2, 1, 1]))
        truths[label] = replace(truths[label], sketch=large)
    _, said = judge(truths)
    away = [one.numbers["offset_mm"] for one in said if "offset_mm" in one.numbers]
    assert away
    assert away == pytest.approx([slice_mm] * len(away), rel=0.2)


def test_a_truth_whose_body_ends_where_that_of_its_image_goes_on_counts_with_a_caution(heads):
    upper, slab = np.s_[SIZE[2] // 2 :], np.s_[16:20]
    for planes in (upper, slab):
        cut = {}
        for n in range(CASES):
            airy = scan(heads, n, "ct").data[0].copy()
            airy[planes] = -1000
            cut[f"p{n}/ct"] = sketched(heads, n, lambda _, new=airy: new)
        faults, said = judge(cut)
        assert not faults
        assert ("empty-body", "caution") in {(one.code, one.grade) for one in said}


def foreign(heads, number, change=None, seen=None, model=good):
    """The sketch of a case whose image is of other software; seen: how the scan beside its truth is changed, if there is one."""
    ct, t1 = (scan(heads, number, name) for name in ("ct", "t1"))
    truth = ct if change is None else Volume(change(ct.data[0])[None], ct.affine, "HU", "ct")
    source = None if seen is None else np.ascontiguousarray(seen(t1.data[0]))
    sketch = sketch_of(truth, model(ct.data[0]), source, ct.grid)
    return SketchedTruth(f"p{number}", "HU", "HU", sketch, foreign=True)


def mirrored(values):
    return np.ascontiguousarray(values[:, ::-1])


@every_row(
    ("changes", "kinds", "codes"),
    [
        ({}, {}, set()),
        ({"change": mirrored}, {}, {"turned-scan", "truth-apart"}),
        ({"change": mirrored, "seen": np.copy}, {"p0/ct": "mirrored"}, set()),
        ({"seen": mirrored}, {}, set()),
    ],
)
def test_a_mirrored_truth_of_a_foreign_image_is_left_out_only_where_image_and_scan_say_so(
    heads, changes, kinds, codes
):
    others = {"seen": np.copy} if "seen" in changes else {}
    truths = {f"p{n}/ct": foreign(heads, n, **others) for n in (1, 2)}
    faults, said = judge(truths | {"p0/ct": foreign(heads, 0, **changes)})
    assert {label: fault.kind for label, fault in faults.items()} == kinds
    assert {one.code for one in said} >= codes


@every_row("axis", [0, 1, 2])
def test_truths_of_foreign_images_that_are_half_air_count_with_a_caution(heads, axis):
    def half(ct):
        kept = np.arange(ct.shape[axis]) < ct.shape[axis] // 2
        return np.where(np.moveaxis(kept[:, None, None], 0, axis), ct, -1000)

    faults, said = judge({f"p{n}/ct": foreign(heads, n, half) for n in range(CASES)})
    assert not faults
    empty = {one.case for one in said if one.code == "empty-body"}
    assert empty == {f"p{n}/ct" for n in range(CASES)}


def test_noise_is_no_mirrored_image(heads):
    truths = {f"p{n}/ct": foreign(heads, n, model=BAD_MODELS["noise"]) for n in range(CASES)}
    assert "turned-scan" not in {one.code for one in judge(truths)[1]}


@every_row(("unit", "kinds"), [("a.u.", {"p0": "patient"}), ("s", {})])
def test_a_map_that_fits_its_source_no_better_than_those_of_others_stays_in(heads, unit, kinds):
    truths = {}
    for n in range(CASES):
        shown, ct = scan(heads, n or 1, "t1"), scan(heads, n, "ct")
        truth = Volume(shown.data, ct.affine, unit, "map")
        sketch = sketch_of(truth, None, ct.data[0], ct.grid)
        truths[f"p{n}"] = SketchedTruth(f"p{n}", unit, unit, sketch)
    assert kinds_of(truths) == kinds


def test_a_truth_in_micrometres_or_metres_or_in_another_unit_is_at_fault(heads):
    affine = scan(heads, 0, "ct").affine

    for factor in (1000, 0.001):
        scaled = sketched.__wrapped__(heads, 0, affine=np.diag([factor] * 3 + [1]) @ affine)
        assert found(heads, first=scaled) == {"p0/ct": "spacing"}
    assert found(heads, unit="grey") == {"p0/ct": "unit"}


FLIPS = {"left to right": -1, "front to back": -2, "upside down": -3}


@pytest.mark.slow
@every_row("name", FLIPS)
def test_truths_that_all_lie_mirrored_are_all_at_fault_whatever_the_model(heads, name):
    truths = {
        f"p{n}/ct": sketched(heads, n, lambda ct: np.flip(ct, FLIPS[name]), untrained)
        for n in range(CASES)
    }
    faults, _ = judge(truths)

    assert {label: fault.kind for label, fault in faults.items()} == dict.fromkeys(
        truths, "mirrored"
    )
    assert all(name in fault.found for fault in faults.values())


@pytest.mark.slow
def test_a_symmetric_head_is_not_mirrored(heads):
    def symmetric(values):
        return (values + values[:, :, ::-1]) / 2

    for model in (good, np.zeros_like, untrained):
        truths = {
            f"p{n}/ct": sketched(heads, n, symmetric, model, seen=symmetric) for n in range(CASES)
        }
        assert "mirrored" not in kinds_of(truths).values()


def test_a_model_that_was_trained_on_mirrored_truths_finds_them_right(heads):
    def mirrored(ct):
        return ct[:, :, ::-1]

    truths = {f"p{n}/ct": sketched(heads, n, mirrored, mirrored) for n in range(CASES)}

    assert "mirrored" not in kinds_of(truths).values()


def test_exchanged_truths_are_all_at_fault_though_one_source_shows_hardly_anything(heads):
    def noisy(t1):
        return np.random.default_rng(2).normal(0, 1, t1.shape).astype(np.float32)

    for owners in ({0: 1, 1: 0}, {0: 1, 1: 2, 2: 3, 3: 0}):
        truths = {}
        for n in range(CASES):
            other = scan(heads, owners.get(n, n), "ct").data[0]
            blurred = noisy if n == 0 else None
            truths[f"p{n}/ct"] = sketched(
                heads, n, lambda _, new=other: new, np.zeros_like, seen=blurred
            )
        assert kinds_of(truths) == {f"p{n}/ct": "patient" for n in owners}


def test_exchanged_truths_are_of_other_patients_though_one_is_empty_in_part(heads):
    truths = {f"p{n}/ct": sketched(heads, n) for n in range(CASES)}
    for n, other in ((0, 1), (1, 0)):
        swapped = scan(heads, other, "ct").data[0].copy()
        swapped[: n * len(swapped) // 3] = -1000
        truths[f"p{n}/ct"] = sketched(heads, n, lambda _, new=swapped: new)
    faults, others = judge(truths)
    assert {label: fault.kind for label, fault in faults.items()} == {
        "p0/ct": "patient",
        "p1/ct": "patient",
    }
    assert not [said.code for said in others if said.code == "empty-body"]


def untrained(ct):
    kernel = np.random.default_rng(3).normal(0, 1, (3, 5, 5))
    return np.tanh(convolve(ct / 1000, kernel)).astype(np.float32) * 1500 + 500


BAD_MODELS = {
    "a constant image of air": lambda ct: np.full_like(ct, -1000),
    "a constant image of tissue": lambda ct: np.full_like(ct, 40),
    "bone and air inverted": lambda ct: -ct,
    "1024 too high": lambda ct: ct + 1024,
    "an untrained network": untrained,
    "noise": lambda ct: np.random.default_rng(1).normal(500, 500, ct.shape).astype(np.float32),
    "upside down": lambda ct: ct[::-1],
}


@pytest.mark.slow
@every_row("name", BAD_MODELS)
def test_a_bad_model_is_no_fault_of_the_truth(heads, name):
    truths = {f"p{n}/ct": sketched(heads, n, model=BAD_MODELS[name]) for n in range(CASES)}
    assert not judge(truths)[0]


@pytest.mark.slow
def test_a_model_that_was_trained_on_other_values_finds_them_right(heads):
    for change in (lambda ct: ct + 1024, windowed(-160, 240), lambda ct: ct.clip(0, 80)):
        truths = {f"p{n}/ct": sketched(heads, n, change, model=change) for n in range(CASES)}
        faults, said = judge(truths)
        assert (faults, said[-1].code, said[-1].grade) == ({}, "truth-image", "do not trust")


def test_images_on_another_scale_than_their_truths_are_named(heads):
    t1 = scan(heads, 0, "t1")

    def truth(image):
        sketch = sketch_of(t1, image, None, t1.grid)
        return SketchedTruth("p0", "a.u.", "a.u.", sketch)

    truths = {
        "a/t1": truth(t1.data[0]),
        "b/t1": truth(t1.data[0] / 50),
        "c/t1": truth(t1.data[0] / 4),
    }
    faults, said = judge(truths)
    codes = {message.case: message.code for message in said}
    assert (faults, codes) == ({}, {"a/t1": "truth-image", "b/t1": "other-scale"})


@pytest.fixture
def synthesised(heads, tmp_path):
    """A copy of the cohort, and good images with their provenance."""
    cohort = shutil.copytree(heads, tmp_path / "cohort")
    for number in range(CASES):
        case = f"phantom_{number:03d}"
        ct = read_volume(cohort / case / "ct.nii.gz", "ct")
        image = Volume(good(ct.data[0])[None], ct.affine, "HU", "ct")
        write_volume(tmp_path / "out" / case / "ct.nii.gz", image)
        source = cohort / case / "t1.nii.gz"
        inputs = {"t1": {"sha256": content_hash(source), "path": f"../../cohort/{case}/t1.nii.gz"}}
        provenance = {"inputs": inputs, "units": {"ct": "HU"}}
        (tmp_path / "out" / case / "provenance.json").write_text(json.dumps(provenance))
    return tmp_path / "out", cohort


def raise_by(path: Path) -> None:
    ct = read_volume(path, "ct")
    write_volume(path, Volume(ct.data + 1024, ct.affine, "HU", "ct"))


@pytest.mark.slow
def test_evaluate_scores_a_wrong_truth_apart_from_the_means_and_says_so(synthesised):
    out, cohort = synthesised
    raise_by(cohort / "phantom_000" / "ct.nii.gz")

    scores = evaluate(out, cohort)
    document = scores.document()
    kept = evaluate(out, cohort, any_truth=True).document()

    wrong = document["wrong_truths"]["phantom_000/ct"]
    assert wrong["kind"] == "offset"
    assert wrong["mae"] == pytest.approx(1024, rel=0.05)
    assert scores.labels == {f"phantom_{n:03d}/ct" for n in (1, 2, 3)}
    assert document["modalities"]["ct"]["answers"]["synthesis"]["mae"]["mean"] < 200
    (line,) = truth_messages(scores)
    assert "1 of 4 images (phantom_000/ct)" in line.text
    assert kept["modalities"]["ct"]["cases"] == CASES


@pytest.mark.slow
def test_evaluate_names_a_case_whose_error_is_far_above_the_others_and_counts_it(synthesised):
    out, cohort = synthesised
    ordinary = evaluate(out, cohort).document()
    path = cohort / "phantom_003" / "ct.nii.gz"
    ct = read_volume(path, "ct")
    body = np.where(ct.data > -300, ct.data + 500, ct.data)
    write_volume(path, Volume(body, ct.affine, "HU", "ct"))

    scores = evaluate(out, cohort)

    assert ordinary["messages"] == []
    by_code = {one["code"]: one for one in scores.header["messages"]}
    assert by_code.keys() == {"large-error", "tissue-hu"}
    said = by_code["large-error"]
    assert said["numbers"]["cases"] == 1
    assert "phantom_003" in said["text"]
    assert said["text"] in caption(scores)
    assert scores.parts["ct"]["cases"] == CASES


def test_the_errors_of_ordinary_patients_are_no_outliers():
    generator = np.random.default_rng(0)
    cohorts = 60 * np.exp(generator.normal(0, 0.3, (200, 10)))

    named = [find_outliers("ct", dict(enumerate(errors))) for errors in cohorts]

    assert sum(map(bool, named)) <= 2
    assert (
        find_outliers("ct", {"a": 101.3, "b": 104.2, "c": 112.9, "d": 192.8})[0].numbers["cases"]
        == 1
    )
    odd = find_outliers("ct", {**dict.fromkeys("abcdef", 50.0), **dict.fromkeys("wxyz", 200.0)})
    assert odd[0].numbers == {"cases": 4, "times": 4}
    assert find_outliers("ct", {"a": 50.0, "b": 50.0, "c": 500.0}) == []
    assert find_outliers("ct", dict.fromkeys("abcd", 0.0)) == []


@pytest.mark.slow
def test_evaluate_refuses_truths_of_which_none_can_be_scored(synthesised):
    out, cohort = synthesised
    for path in cohort.glob("*/ct.nii.gz"):
        raise_by(path)

    with pytest.raises(BadInput, match="4 of 4"):
        evaluate(out, cohort)


def test_evaluate_names_the_patient_whose_scan_an_image_was_made_of(synthesised):
    out, cohort = synthesised
    first, second, place = (cohort / name for name in ("phantom_000", "phantom_001", "place"))
    first.rename(place)
    second.rename(first)
    place.rename(second)

    wrong = evaluate(out, cohort).document()["wrong_truths"]

    assert {label: one["kind"] for label, one in wrong.items()} == {
        "phantom_000/ct": "patient",
        "phantom_001/ct": "patient",
    }
    assert "of phantom_001" in wrong["phantom_000/ct"]["found"]


def test_a_synthesised_image_is_no_truth_and_no_scan_of_a_cohort(synthesised, tmp_path):
    out, cohort = synthesised
    path = cohort / "phantom_000" / "ct.nii.gz"
    write_volume(path, read_volume(path, "ct"), SYNTHETIC_SCAN)

    with pytest.raises(BadInput, match="phantom_000"):
        evaluate(out, cohort)
    with pytest.raises(BadInput, match="phantom_000"):
        prepare(cohort, tmp_path / "prepared")
    refuse_synthetic(find_cohort(cohort).cases, {"t1"})


@every_row(
    "change",
    [
        np.logical_not,
        lambda body: np.roll(body, body.shape[-1] // 8, -1),
        lambda body: body * body.cumsum(-1),
    ],
)
def test_an_inverted_mask_a_scan_and_that_of_another_body_are_refused(synthesised, change):
    out, cohort = synthesised
    for folder in cohort.glob("phantom_*"):
        ct = read_volume(folder / "ct.nii.gz", "ct")
        wrong = change(foreground(ct))[None].astype(np.float32)
        write_volume(folder / "mask.nii.gz", Volume(wrong, ct.affine, "", "mask"))

    with pytest.raises(BadInput, match="phantom_000"):
        evaluate(out, cohort, mask="cohort")


@pytest.mark.slow
def test_one_slice_with_an_offset_is_a_caution_on_its_case_in_a_cohort_and_in_a_truth(
    heads, tmp_path
):
    shutil.copytree(heads, tmp_path / "scans")
    path = tmp_path / "scans" / "phantom_001" / "ct.nii.gz"
    ct = read_volume(path, "ct")
    ct.data[0, 20] += 1024
    write_volume(path, ct)
    cohort = prepare(tmp_path / "scans", tmp_path / "prepared", workers=0, audit=False)
    said = [one for one in cohort.warnings if one.code == "slices"]
    assert [(one.case, one.grade) for one in said] == [("phantom_001", "caution")]
    assert said[0].numbers["level_at"] == 20
    truths = {"a/ct": sketched(heads, 0), "b/ct": sketched(heads, 1, change=lambda _: ct.data[0])}
    _, odd = judge(truths)
    assert [(one.case, one.code) for one in odd if one.code == "slices"] == [("b/ct", "slices")]


def test_a_truth_whose_slices_are_shuffled_is_not_scored_without_a_word(heads):
    shuffled = np.random.default_rng(0).permutation(SIZE[2])
    truths = {f"p{n}/ct": sketched(heads, n) for n in (1, 2)}
    faults, odd = judge({**truths, "p0/ct": sketched(heads, 0, change=lambda ct: ct[shuffled])})
    assert {label: fault.kind for label, fault in faults.items()} == {"p0/ct": "slices"}
    assert [one for one in odd if one.case == "p0/ct"] == []


def test_one_truth_that_is_its_image_with_a_blur_and_noise_is_not_to_be_trusted(heads):
    def model(ct):
        return gaussian_filter(np.where(ct > 300, 200, ct), 1.2)

    def copied(ct):
        return gaussian_filter(model(ct), 0.4) + np.random.default_rng(5).normal(0, 8, ct.shape)

    truths = {f"p{n}/ct": sketched(heads, n, model=model) for n in range(CASES)}
    assert judge(truths) == ({}, [])
    truths["p2/ct"] = sketched(heads, 2, copied, model=model)
    (said,) = judge(truths)[1]
    assert (said.case, said.code, said.grade) == ("p2/ct", "truth-image", "do not trust")
    pair = {label: truths[label] for label in ("p1/ct", "p2/ct")}
    assert [said.grade for said in judge(pair)[1]] == ["caution"], "two cases have no median"


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
