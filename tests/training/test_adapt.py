"""Adaptation of a run to another site: early stop, kept weights, stale calibration."""

import torch

import voxlate
from refusals import refuses
from rows import every_row, slow
from scans import change_scan
from starter_pack import pack
from trainings import log_lines, recipe_of_text, same_tensors, same_weights
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.anatomy.signal import MAPS
from voxlate.base.messages import Message
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training.planning.cohort_facts import cohort_facts
from voxlate.training.planning.from_weights import adapt, check_scans
from voxlate.training.run import Run
from voxlate.training.starters import names
from voxlate.training.train import train
from voxlate.training.weights import read_header, read_weights


def test_no_step_is_refused_and_writes_nothing(run, prepared, voxlate, out):
    answer = voxlate("adapt", run, "--data", prepared, "--steps", 0, "--out", out)
    assert answer.code == 2
    assert not out.exists()


def errors_of(run):
    """The errors of all validations of a run."""
    return [line["validation"]["mae"] for line in log_lines(run, "validation")]


def test_steps_that_worsen_the_error_leave_the_weights_of_the_run(
    prepared, read_tiny, fit, out, monkeypatch
):
    run = fit(read_tiny(steps=80))
    # a rate at which every step worsens the images
    monkeypatch.setattr("voxlate.training.planning.from_weights.RATE", 1e4)
    done = adapt(run.folder, prepared, out, steps=2, device="cpu")
    assert same_weights(done, run)
    header = read_header(done.weights())
    assert header["kept_step"] == 0


@slow
def test_the_kept_weights_are_those_of_the_least_validation_error(read_tiny, fit):
    rate = "{ lr = 0.3, warm_up = 0 }"
    run = fit(read_tiny(optimiser=rate, validate_every=1, best="{ patience = 0 }"))
    kept = read_header(run.weights())["kept_step"]
    *during, again = errors_of(run)
    assert len(during) == 6 + 1
    assert kept == during.index(min(during))
    assert again == min(during)


@slow
def test_training_ends_when_validations_do_not_improve_and_a_restart_ends_alike(read_tiny, fit):
    ends = {"validate_every": 1, "best": "{ patience = 2 }"}
    made = read_tiny(steps=40, optimiser="{ lr = 1, warm_up = 0 }", **ends)
    run = fit(made)
    header = read_header(run.weights())
    assert header["steps"] == header["kept_step"] + 2 < 40
    first = read_weights(run.weights())
    run.weights().unlink()  # its tensors stay mapped, as they were
    run = fit(made)
    assert read_header(run.weights())["steps"] == header["steps"]
    assert same_tensors(first, read_weights(run.weights()))


@slow
def test_adaptation_has_a_quarter_of_the_rate_of_the_run(run, prepared, out):
    options = {"steps": 4, "device": "cpu"}
    done = adapt(run, prepared, out, **options)
    rates = [
        read_header(one.weights())["recipe"]["train"]["optimiser"]["lr"] for one in (done, Run(run))
    ]
    assert rates[0] == rates[1] / 4
    assert adapt(run, prepared, out, **options).folder == done.folder


@slow
def test_a_calibrated_run_is_stale_after_adaptation_until_it_is_calibrated_again(
    run, prepared, cohort, voxlate, tmp_path
):
    (run / "calibration.mean.safetensors").write_bytes(b"")  # what matters is that there was one
    out = tmp_path / "adapted"
    voxlate("adapt", run, "--data", prepared, "--steps", 1, "--out", out).done()
    scan = next(cohort.glob("*/t1.nii.gz"))
    answer = voxlate("synth", out, scan, "--out", tmp_path / "out")
    assert "the calibration from before does not hold any more" in answer.err


TWO = """
title = "two"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
task = { kind = "residual", predictor = "mean" }
method = { kind = "diffusion", prediction = "x0" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 4, batch = 2, precision = "float32", workers = 0, validate_every = 0 }
synth = { sampler = "ddim", steps = 2 }

[[stages]]
name = "mean"
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 4, batch = 2, precision = "float32", workers = 0, validate_every = 0 }
"""


@slow
def test_both_stages_of_a_run_are_adapted_and_the_last_holds_the_new_predictor(
    trained, prepared, tmp_path
):
    run = trained("two", TWO)
    done = adapt(run, prepared, tmp_path / "adapted", steps=2, device="cpu")
    inside = read_weights(done.weights())
    for name, tensor in read_weights(done.weights("mean")).items():
        assert torch.equal(inside[f"task.predictor.{name}"], tensor), name
    kept = read_header(done.weights("mean"))["kept_step"]
    assert same_weights(run, done, "mean") == (kept == 0)
    assert read_header(done.weights())["adapted"]["calibrated"] is False


PREPARING = {"workers": 0, "audit": False, "progress": False, "shares": (2, 1, 0)}


def test_adaptation_without_a_held_out_case_is_refused(run, cohort, tmp_path, out):
    everything = voxlate.prepare(cohort, tmp_path / "all", **PREPARING | {"shares": (1, 0, 0)})
    with refuses(r"expected validation cases for train\.best.*found none"):
        adapt(run, everything.folder, out, steps=1, device="cpu")
    assert not (out / "provenance.json").exists()


PHYSICS = """
title = "MR of any contrast to CT"
data = { source = ["mr"], target = ["ct"], patch = [1, 32, 24], labels = ["seg"], weigh = { "seg=2" = 2.0 }, physics = { contrasts = { mr = { sequence = "any" } } } }
intensity = { mr = { kind = "percentile" }, ct = { kind = "window", low = -1000, high = 2000 } }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 2, batch = 2, precision = "float32", workers = 0, validate_every = 0 }
"""


@slow
def test_a_starter_of_drawn_contrasts_is_adapted_to_images(tmp_path, monkeypatch):
    phantoms, site = tmp_path / "phantoms", tmp_path / "site"
    write_cohort(phantoms, cases=3, size=(24, 32, 8), modalities=("ct", *MAPS))
    write_cohort(site, cases=3, size=(24, 32, 8), seed=1, modalities=("t1", "ct"))
    for label_map in site.glob("*/seg.nii.gz"):  # which no clinic has
        label_map.unlink()
    old = voxlate.prepare(phantoms, tmp_path / "old", **PREPARING)
    new = voxlate.prepare(site, tmp_path / "new", **PREPARING)
    run = train(recipe_of_text(PHYSICS), old.folder, tmp_path / "run", device="cpu")
    monkeypatch.setattr(names, "FOLDER", tmp_path / "installed")
    stated = {"trained_on": "synthetic heads only", "stripped": False, "spacing_mm": (4.0, 6.0)}
    accepts = {"mr": ["t1", "t2"]}
    pack(run.folder, tmp_path / "installed/mr-to-ct", accepts=accepts, **stated)
    options = {"steps": 2, "device": "cpu"}
    said = list[Message]()
    done = adapt("starter:mr-to-ct", new.folder, tmp_path / "adapted", **options, say=said.append)
    assert "other-preparation" not in {one.code for one in said}
    header = read_header(done.weights())
    assert header["recipe"]["data"]["source"] == ["t1"]
    assert "physics" not in header["recipe"]["data"]
    assert "starter" not in header


def test_scans_in_other_units_than_those_of_the_run_are_refused(prepared, read_tiny):
    made, facts = read_tiny(), cohort_facts(open_cohort(prepared))
    units = {"t1": "a.u.", "t2": "a.u."}
    check_scans(made, units, facts)
    with refuses(r"expected t2 in the unit of the run 'tiny' \(HU\), found a\.u\."):
        check_scans(made, units | {"t2": "HU"}, facts)


@every_row("change", [lambda ct: (ct + 1000) / 8, lambda ct: ct + 1000])
def test_values_that_are_no_hounsfield_units_are_refused(small_head, read_tiny, tmp_path, change):
    for number in range(3):
        case = tmp_path / f"site/case{number}"
        small_head(case, number, modalities=("t1", "ct"))
        change_scan(case / "ct.nii.gz", change)
    ready = voxlate.prepare(tmp_path / "site", tmp_path / "ready", **PREPARING)
    window = '{ kind = "window", low = -1000, high = 2000 }'
    made = read_tiny({"data.target": '["ct"]', "intensity.ct": window})
    with refuses(r"\(HU\), found values of"):
        check_scans(made, {"t1": "a.u.", "ct": "HU"}, cohort_facts(open_cohort(ready.folder)))
