"""Scoring folders: known errors, naive baselines, ranges, masks, intervals, and what is refused."""

import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from made_scores import STORED_RECIPE
from made_volumes import head, made_volume, save
from refusals import refuses
from rows import every_row, slow
from voxlate.base.files import read_json, write_json
from voxlate.evaluation.scoring import evaluate as evaluation
from voxlate.evaluation.scoring import scored_truth
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.evaluation.scoring.scores import COLUMNS, read_scores
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import canonical
from voxlate.scans.images.intensity import Percentile, intensity_statistics
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.ranges import range_for
from voxlate.scans.images.register import write_transform
from voxlate.synthesis.provenance import state_units
from voxlate.training.naive import Baselines, fit

CASES = ("p0", "p1", "p2")


def truth_of(cohort, case="p0", name="ct"):
    return read_volume(cohort / case / f"{name}.nii.gz", name).data[0]


@pytest.fixture
def cohort(tmp_path):
    """Three cases of CT and T1, whose T1 is a monotonic function of the CT."""
    for number, case in enumerate(CASES):
        ct = head(number)
        save(tmp_path / "cohort" / case / "ct.nii.gz", ct)
        save(tmp_path / "cohort" / case / "t1.nii.gz", np.sqrt(ct + 1100), "t1", "a.u.")
    return tmp_path / "cohort"


@pytest.fixture
def shifted(cohort, out):
    """Syntheses that are 50, 100 and 150 HU too bright."""
    for number, case in enumerate(CASES):
        save(out / case / "ct.nii.gz", truth_of(cohort, case) + 50 * (number + 1))
    return out


def test_a_constant_shift_is_the_mean_error_and_its_mean_stands_with_the_choices_that_made_it(
    cohort, shifted
):
    scores = evaluate(shifted, cohort)
    first = scores.rows[0].scores
    assert [row.scores["mae"] for row in scores.rows] == pytest.approx([50, 100, 150], abs=1e-3)
    assert [row.scores["rmse"] for row in scores.rows] == pytest.approx([50, 100, 150], abs=1e-3)
    assert first["mae_rel"] == pytest.approx(50 / 4095, rel=1e-5)
    assert first["psnr"] == pytest.approx(20 * math.log10(4095 / 50), abs=1e-3)
    assert first["gradient_strength"] == pytest.approx(1.0, abs=1e-4)
    part = read_json(shifted / "metrics.json")["modalities"]["ct"]
    assert {"range": [-1024, 3071], "mask": "body", "cases": 3}.items() <= part.items()
    mean = part["answers"]["synthesis"]["mae"]
    assert mean["unit"] == "HU"
    assert (mean["mean"], mean["sd"]) == pytest.approx((100, 50), abs=1e-3)
    # an interval from resamples of three patients would be far too narrow
    assert mean["ci95"] is None
    read = read_scores(shifted / "metrics.json")
    assert read.frame.equals(scores.frame)
    assert read.document() == scores.document() | {"tables": read.header["tables"]}
    assert [*scores.frame.columns] == COLUMNS
    assert {*scores.frame["unit"][scores.frame["region"] == "soft_tissue"]} == {"HU", "ml", ""}
    assert scores.table().lines["ct"][0].cells[0].text == "100.0 ± 50.0"


def test_a_perfect_synthesis_scores_perfectly_and_its_infinite_psnr_is_left_out(cohort, out):
    save(out / "p0/ct.nii.gz", truth_of(cohort))
    (row,) = evaluate(out, cohort).rows
    assert row.scores["mae"] == 0
    assert row.scores["ssim_2d"] == pytest.approx(1, abs=1e-6)
    assert row.scores["ssim_3d"] == pytest.approx(1, abs=1e-6)
    psnr = read_scores(out / "metrics.json").means["ct"]["synthesis"]["psnr"]
    assert (psnr["mean"], psnr["n"], psnr["not_finite"]) == (None, 0, 1)


def test_the_recipes_window_is_the_range_and_clips_both_images_unless_the_user_gives_one(
    cohort, shifted
):
    write_json(shifted / "provenance.json", {"range": {"ct": [-1000, -990]}})
    rows = evaluate(shifted, cohort, mask="whole").rows
    assert all(row.scores["mae"] < 10 for row in rows)
    air = truth_of(cohort) == -1000
    assert rows[0].scores["mae"] == pytest.approx(10 * air.mean(), abs=1e-3)
    row = evaluate(shifted, cohort, value_range=(-1024, 976)).rows[0]
    assert row.scores["mae_rel"] == pytest.approx(50 / 2000, rel=1e-4)


def test_arbitrary_units_are_scored_up_to_each_images_own_peak(cohort, out):
    save(out / "p0/t1.nii.gz", truth_of(cohort, name="t1") * 37, "t1", "a.u.")
    scores = evaluate(out, cohort)
    assert scores.rows[0].scores["mae"] == pytest.approx(0, abs=1e-5)
    assert "own 99.5 percentile" in scores.parts["t1"]["range_rule"]


def test_a_mask_file_decides_what_counts(cohort, shifted, tmp_path):
    inside = np.zeros(head(0).shape)
    inside[5:8, 10:14, 8:12] = 1
    for case in CASES:
        save(shifted / case / "ct.nii.gz", truth_of(cohort, case) + np.where(inside, 10, 500))
        save(tmp_path / f"masks/{case}.nii.gz", inside, "mask", "")
    rows = evaluate(shifted, cohort, mask=tmp_path / "masks/{case}.nii.gz").rows
    assert [row.scores["mae"] for row in rows] == pytest.approx([10, 10, 10], abs=1e-3)
    save(tmp_path / "empty.nii.gz", np.zeros(inside.shape), "mask", "")
    for mask in (tmp_path / "empty.nii.gz", "skul"):
        with refuses(r"empty|skul"):
            evaluate(shifted, cohort, mask=mask)


def test_a_synthesis_stored_in_another_orientation_scores_the_same(cohort, shifted):
    before = evaluate(shifted, cohort).rows[0].scores
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = head(0).shape[2] - 1
    save(shifted / "p0/ct.nii.gz", truth_of(shifted)[..., ::-1], affine=flipped)
    assert evaluate(shifted, cohort).rows[0].scores == before


def ramp(shape, affine):
    """Values that grow along x and z in millimetres: linear interpolation of it is exact on any grid."""
    z, _, x = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    return 10 * (affine[0, 0] * x + affine[0, 3]) + 4 * (affine[2, 2] * z + affine[2, 3])


def test_an_image_on_another_grid_is_scored_on_the_truths_own_where_it_covers_it(tmp_path):
    coarse = np.diag([2.0, 2, 2, 1])
    coarse[:3, 3] = 0.5
    save(tmp_path / "cohort/p0/ct.nii.gz", ramp((8, 24, 20), np.eye(4)))
    image = ramp((4, 12, 8), coarse) + 50  # 16 of the 20 columns
    save(tmp_path / "out/p0/ct.nii.gz", image, affine=coarse)
    scores = evaluate(tmp_path / "out", tmp_path / "cohort")
    assert scores.rows[0].scores["mae"] == pytest.approx(
        50, abs=2
    )  # half a voxel at the edge is continued, not linear
    (note,) = scores.document()["moved"].values()
    assert "20.0%" in note


AWAY = np.eye(4)
AWAY[0, 3] = 300


def store_transforms(folder, shifts):
    """Store the transforms of scans that registration moved along x, in the LPS of ITK."""
    itk = pytest.importorskip("SimpleITK")
    transforms = folder / "prepared/transforms/p0"
    transforms.mkdir(parents=True)
    for scan, shift in shifts.items():
        transform = itk.TranslationTransform(3, (shift, 0.0, 0.0))
        write_transform(transforms / f"{scan}.tfm", transform)
    return folder / "prepared"


TOF = {"fixed": "tof", "on_grid_of": "tof"}


@every_row(
    "name, stated, shifts",
    [
        ("ct", {}, {"ct": -300.0}),
        # prepare moved the TOF to the CTA, synth sees the TOF alone, in its own frame, 300 mm from the CTA
        ("cta", TOF, {"tof": 300.0}),
        ("cta", TOF, {"tof": 100.0, "cta": -200.0}),
    ],
)
def test_an_image_in_another_frame_is_moved_to_its_registered_truth_by_the_stored_transforms(
    tmp_path, monkeypatch, name, stated, shifts
):
    """The truth's header lies 300 mm away, so that by headers nothing overlaps."""
    folder = tmp_path
    data = head(1)
    save(folder / f"cohort/p0/{name}.nii.gz", data, affine=AWAY)
    save(folder / f"out/p0/{name}.nii.gz", data)
    write_json(folder / "out/p0/provenance.json", {"prepared": {"register": "rigid", **stated}})
    none = fit([({name: made_volume(data)}, None)], [], [name], {name: range_for("HU")})
    prepared = store_transforms(folder, shifts)
    case = SimpleNamespace(case="p0", registered={"tof": None})
    left = SimpleNamespace(cases=[case], warnings=())
    write_json(prepared / "cohort.json", {})
    for module in (scored_truth, evaluation):
        monkeypatch.setattr(module, "open_cohort", lambda _: left)
    scores = evaluate(folder / "out", folder / "cohort", prepared=prepared, naive=none)
    assert scores.rows[0].scores["mae"] == pytest.approx(0, abs=1e-3)
    assert list(scores.document()["moved"]) == [f"p0/{name}"]
    with refuses("rigid"):
        evaluate(folder / "out", folder / "cohort")


@pytest.mark.parametrize(
    ("folder", "options", "named"),
    [
        ("nowhere", {}, "nowhere"),
        ("out", {"prepared": Path()}, "a prepared cohort"),
    ],
)
def test_folders_that_are_not_what_they_should_be_are_refused(
    cohort, shifted, tmp_path, folder, options, named
):
    with refuses(named):
        evaluate(tmp_path / folder, cohort, **options)


def test_cases_without_an_image_of_this_run_are_listed_with_the_reason(voxlate, cohort, shifted):
    failed = {"cases": ["p0", "p1", "p2"], "failed": {"p1": "p1: no T1"}}
    write_json(shifted / "provenance.json", failed)
    assert list(evaluate(shifted, cohort).header["not_synthesised"]) == ["p1"]
    shutil.rmtree(shifted / "p1")
    assert "p1: no T1" in voxlate("evaluate", shifted, "--truth", cohort).refusal
    scores = read_scores(shifted / "metrics.json")
    assert scores.header["not_synthesised"] == {"p1": "p1: no T1"}
    assert scores.labels == {"p0/ct", "p2/ct"}
    write_json(shifted / "provenance.json", {"cases": ["p0", "p2"]})  # p1 was never asked for
    assert not evaluate(shifted, cohort).header["not_synthesised"]


def test_images_made_in_several_ways_are_not_scored_together(cohort, shifted):
    for case, samples in zip(CASES, (8, 1, 1)):
        made = {"case": case, "synth": {"samples": samples}}
        write_json(shifted / case / "provenance.json", made)
    with refuses(r"1 as p0, 2 as p1.*synth.samples: 8 and 1"):
        evaluate(shifted, cohort)


def test_a_case_that_cannot_be_scored_is_listed_and_the_others_are_scored(voxlate, cohort, shifted):
    (shifted / "p0/ct.nii.gz").write_bytes(b"no image")
    (cohort / "p2/ct.nii.gz").write_bytes(b"no image")
    assert voxlate("evaluate", shifted, "--truth", cohort).code == 3
    scores = read_scores(shifted / "metrics.json")
    assert scores.header["not_synthesised"].keys() == {"p0/ct", "p2/ct"}
    assert scores.labels == {"p1/ct"}


@slow
def test_scores_of_images_that_changed_since_are_neither_compared_nor_reported(
    voxlate, cohort, shifted, tmp_path
):
    shutil.copytree(shifted, tmp_path / "other")
    for out in (shifted, tmp_path / "other"):
        evaluate(out, cohort)
    voxlate("compare", shifted, tmp_path / "other").done()
    save(shifted / "p1/ct.nii.gz", head(7))
    for command in (["compare", shifted, tmp_path / "other"], ["report", shifted]):
        assert "p1/ct" in voxlate(*command).refusal


# naive baselines


RANGES = {"ct": range_for("HU"), "t1": range_for("a.u.")}


GREY = dict.fromkeys(("mr", "a", "b", "ct"), range_for("grey"))


def grey(**scans):
    return {name: made_volume(data, name, "grey") for name, data in scans.items()}


def test_the_table_is_the_least_squares_fit_among_functions_of_the_bin():
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 8, (1, 32, 32)) * 30.0
    target = np.clip(levels + rng.normal(0, 20, levels.shape), 0, 255)
    case = grey(mr=levels, ct=target)
    images = fit([(case, None)], ["mr"], ["ct"], GREY).images("ct", case, case["mr"].grid)
    for level in np.unique(levels):
        there = levels == level
        mean = target[there].mean()
        assert images["intensity table"][there] == pytest.approx(mean, abs=1e-3)


def test_of_several_sources_the_linear_map_and_the_mean_are_baselines_too(tmp_path):
    """ct = 0.5 a − 0.25 b + 0.3 in shares of the range, in a third of the slice; outside all is background."""
    inside = np.zeros((1, 48, 48))
    inside[:, 10:40, 8:30] = 1
    a, b = np.random.default_rng(3).uniform(20, 250, (2, *inside.shape)) * inside
    ct = (0.5 * a - 0.25 * b + 0.3 * 255) * inside
    case = grey(a=a, b=b, ct=ct)
    fit([(case, None)], ["a", "b"], ["ct"], GREY).save(tmp_path / "n")
    baselines, place = Baselines.load(tmp_path / "n"), case.pop("ct").grid
    images = baselines.images("ct", case, place)
    np.testing.assert_allclose(images["least squares"], ct, atol=1e-3)
    np.testing.assert_allclose(images["mean of the sources"], (a + b) / 2, atol=1e-3)
    alone = baselines.images("ct", {"a": case["a"]}, place)
    # one source has a table, which is no worse
    assert set(alone) == {"copy of a", "intensity table of a"}


# intervals


def test_in_network_units_truth_and_image_are_what_the_network_was_given_and_gave(cohort, out):
    """Scans of other gains than the training's median: the network's own answer is right, only its unit is a guess."""
    spec, typical = Percentile(floor=0, high=99.5), 40.0
    for name in CASES:
        truth = read_volume(cohort / name / "t1.nii.gz", "t1")
        peak = spec.scale(intensity_statistics(truth.data[0], foreground(truth))).high
        # a tenth of the range too dark
        answer = truth.data[0].clip(0, peak) / peak * typical - typical * 0.1
        save(out / name / "t1.nii.gz", answer, "t1", "a.u.")
        save(out / name / "t1_std.nii.gz", np.full_like(answer, 4.0), "t1", "a.u.")
        stated = {"case": name, "network_units": state_units({"t1": spec}, {"t1": (0.0, typical)})}
        write_json(out / name / "provenance.json", stated)
    scores = evaluate(out, cohort, units="network")
    assert scores.parts["t1"]["range"] == [0, 255]
    for row in scores.rows:
        assert row.scores["mae"] == pytest.approx(25.5, abs=1e-3)
        assert row.scores["std"] == pytest.approx(25.5, abs=1e-3)
    write_json(out / "p1/provenance.json", {"case": "p1"})
    scores = evaluate(out, cohort, units="network")
    assert list(scores.header["not_synthesised"]) == ["p1/t1"]


@slow
def test_naive_baselines_in_shares_of_a_peak_come_to_the_unit_of_a_range_and_of_a_network(
    cohort, out, tmp_path
):
    scans = [
        {name: canonical(read_volume(cohort / case / f"{name}.nii.gz", name)) for name in RANGES}
        for case in CASES
    ]
    baselines = fit([(case, None) for case in scans], ["ct"], ["t1"], RANGES)
    baselines.save(tmp_path / "naive.safetensors")
    assert baselines.typical == Baselines.load(tmp_path / "naive.safetensors").typical
    units = state_units({"t1": Percentile(floor=0, high=90)}, {"t1": (0.0, 34.0)})
    for name in CASES:
        save(out / name / "t1.nii.gz", truth_of(cohort, name, "t1"), "t1", "a.u.")
        write_json(out / name / "provenance.json", {"case": name, "network_units": units})
    own, ranged, network = (
        {row.method: row.scores for row in evaluate(out, cohort, naive=tmp_path, **more).rows}
        for more in ({}, {"value_range": (0, 50)}, {"units": "network"})
    )
    # T1 is a function of the CT
    assert own["intensity table"]["mae"] < 0.02
    assert ranged["intensity table"]["mae"] < 0.02 * 50
    # p90 and 34 stand for one another up to the cases' spread
    assert network["intensity table"]["mae"] < 0.04 * 255


def test_a_case_of_a_split_without_an_image_is_listed_by_the_splits_of_the_training(
    shifted, cohort, tmp_path
):
    with refuses("--split"):
        evaluate(shifted, cohort, split="val")
    splits = {"train": ["p0"], "val": ["p1", "p2"]}
    write_json(
        tmp_path / "run/provenance.json", {"recipe": STORED_RECIPE, "data": {"splits": splits}}
    )
    write_json(shifted / "provenance.json", {"run": "../run", "cases": CASES})
    shutil.rmtree(shifted / "p2")
    scores = evaluate(shifted, cohort, split="val")
    assert {row.case for row in scores.rows} == {"p1"}
    assert list(scores.header["not_synthesised"]) == ["p2"]
