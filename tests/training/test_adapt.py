"""Adaptation of a run to another site: early stop, kept weights, replay, stale calibration."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

import voxlate
from starter_pack import pack
from voxlate.anatomy.cohort import write_cohort
from voxlate.anatomy.maps import MAPS
from voxlate.base.errors import BadInput
from voxlate.base.messages import Message
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training import recipe
from voxlate.training.batches.batches import Batches
from voxlate.training.batches.replay import Mixed
from voxlate.training.log_file import lines_of
from voxlate.training.planning.adapt import adapt, lower_rate
from voxlate.training.planning.site import check_names, check_units
from voxlate.training.run import Run
from voxlate.training.starters import names
from voxlate.training.train import train
from voxlate.training.weights import read_header, read_weights


def test_no_step_is_refused_and_writes_nothing(run, prepared, voxlate, tmp_path):
    answer = voxlate("adapt", run, "--data", prepared, "--steps", 0, "--out", tmp_path / "adapted")
    assert answer.code == 2
    assert not (tmp_path / "adapted").exists()


def test_lengths_to_which_a_plan_was_corrected_are_not_those_of_its_adaptation():
    train = {"steps": 271, "paced": [[20, 197], [67, 232]], "optimiser": {"lr": 1.0}}
    assert "paced" not in lower_rate(train, 50)


def test_steps_that_worsen_the_error_leave_the_weights_of_the_run(
    prepared, tiny, tmp_path, monkeypatch
):
    run = train(
        recipe.read(str(tiny), {"train.steps": "80"}), prepared, tmp_path / "run", device="cpu"
    )
    # a rate at which every step worsens the images
    monkeypatch.setattr("voxlate.training.planning.adapt.RATE", 1e4)
    done = adapt(run.folder, prepared, tmp_path / "adapted", steps=2, share=0, device="cpu")
    own = read_weights(run.weights())
    for name, tensor in read_weights(done.weights()).items():
        assert torch.equal(tensor, own[name]), name
    header = read_header(done.weights())
    assert header["kept_step"] == 0
    assert "replay" not in header["recipe"]["train"]


@pytest.mark.slow
def test_the_kept_weights_are_those_of_the_least_validation_error(prepared, tiny, tmp_path):
    rate = {"train.optimiser.lr": "0.3", "train.optimiser.warm_up": "0"}
    changes = {**rate, "train.validate_every": "1", "train.best": "{ patience = 0 }"}
    made = recipe.read(str(tiny), changes)
    run = train(made, prepared, tmp_path / "best", device="cpu")
    kept = read_header(run.weights())["kept_step"]
    lines = [line["validation"]["mae"] for _, line in lines_of(run.log) if "validation" in line]
    *during, again = lines
    assert len(during) == made.train.steps + 1
    assert kept == during.index(min(during))
    assert again == min(during)


@pytest.mark.slow
def test_training_ends_when_validations_do_not_improve_and_a_restart_ends_alike(
    prepared, tiny, tmp_path
):
    changes = {
        "train.steps": "40",
        "train.optimiser.lr": "1",
        "train.optimiser.warm_up": "0",
        "train.validate_every": "1",
        "train.best": "{ patience = 2 }",
    }
    made = recipe.read(str(tiny), changes)
    run = train(made, prepared, tmp_path / "early", device="cpu")
    header = read_header(run.weights())
    assert header["steps"] == header["kept_step"] + 2 < 40
    first = read_weights(run.weights())
    run.weights().unlink()  # its tensors stay mapped, as they were
    run = train(made, prepared, tmp_path / "early", device="cpu")
    again = read_weights(run.weights())
    assert read_header(run.weights())["steps"] == header["steps"]
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def _mixed(prepared, tiny, share, batch, **place):
    made = recipe.read(str(tiny))
    cohort = open_cohort(prepared)
    new = Batches(cohort, made.data, made.intensity, seed=1, steps=240)
    old = Batches(cohort, made.data, made.intensity, seed=2, steps=240)
    return Mixed(new, old, share=share, batch=batch, **place), new, old


@pytest.mark.parametrize("share", [0.25, 0.5, 0.1])
def test_the_share_of_replayed_items_is_as_stated(prepared, tiny, share):
    mixed, new, old = _mixed(prepared, tiny, share, 4)
    is_old = [int((number + 1) * share) > int(number * share) for number in range(60)]
    assert sum(is_old) == int(60 * share)
    for number, replays in enumerate(is_old):
        before = int(number * share)
        own = old[before] if replays else new[number - before]
        assert torch.equal(mixed._item(number).source, own.source)


def test_two_processes_see_the_items_of_one(prepared, tiny):
    alone, _, _ = _mixed(prepared, tiny, 0.25, 4)
    parts = [_mixed(prepared, tiny, 0.25, 2, rank=rank, world=2)[0] for rank in range(2)]
    for step in range(3):
        both = torch.cat([part[step].source for part in parts])
        assert torch.equal(both, alone[step].source)


@pytest.mark.slow
def test_adaptation_replays_the_cohort_of_the_run_at_a_quarter_of_its_rate_and_records_it(
    run, prepared, tmp_path
):
    said = []
    options = {"steps": 4, "share": 0.5, "device": "cpu"}
    done = adapt(run, prepared, tmp_path / "a", say=lambda one: said.append(str(one)), **options)
    stated = json.loads(done.provenance.read_text())
    assert stated["recipe"]["train"]["replay"] == 0.5
    assert stated["data"]["replay"] == open_cohort(prepared).digest
    assert any(one.startswith("replay: 50% of the items") for one in said)
    rates = [
        read_header(one.weights())["recipe"]["train"]["optimiser"]["lr"] for one in (done, Run(run))
    ]
    assert rates[0] == rates[1] / 4
    again = adapt(run, prepared, tmp_path / "a", **options)
    assert again.folder == done.folder


@pytest.mark.slow
def test_a_calibrated_run_is_stale_after_adaptation_until_it_is_calibrated_again(
    run, prepared, cohort, voxlate, tmp_path
):
    (run / "calibration.mean.safetensors").write_bytes(b"")  # what matters is that there was one
    out = tmp_path / "adapted"
    answer = voxlate("adapt", run, "--data", prepared, "--steps", 1, "--out", out).done()
    assert "does not hold" in answer.err
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


@pytest.mark.slow
def test_both_stages_of_a_run_are_adapted_and_the_last_holds_the_new_predictor(
    trained, prepared, tmp_path
):
    run = Run(trained("two", TWO))
    changes = {"steps": 2, "share": 0, "device": "cpu"}
    done = adapt(run.folder, prepared, tmp_path / "adapted", **changes)
    mean = read_weights(done.weights("mean"))
    inside = read_weights(done.weights())
    prefix = next(name for name in inside if ".predictor." in name).partition(".predictor.")[0]
    moved = False
    before = read_weights(run.weights("mean"))
    for name, tensor in mean.items():
        assert torch.equal(inside[f"{prefix}.predictor.{name}"], tensor), name
        moved = moved or not torch.equal(tensor, before[name])
    kept = read_header(done.weights("mean"))["kept_step"]
    assert moved == (kept > 0)
    assert read_header(done.weights())["adapted"]["calibrated"] is False


def test_adaptation_without_a_held_out_case_is_refused(run, cohort, tmp_path):
    everything = voxlate.prepare(
        cohort, tmp_path / "all", workers=0, audit=False, shares=(1, 0, 0), progress=False
    )
    with pytest.raises(BadInput, match=r"found none among 6 cases of 6 patients.*--shares 5 1 0"):
        adapt(run, everything.folder, tmp_path / "adapted", steps=1, device="cpu")
    assert not (tmp_path / "adapted" / "provenance.json").exists()


PHYSICS = """
title = "MR of any contrast to CT"
data = { source = ["mr"], target = ["ct"], patch = [1, 32, 24], physics = { contrasts = { mr = { sequence = "any" } } } }
intensity = { mr = { kind = "percentile" }, ct = { kind = "window", low = -1000, high = 2000 } }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 2, batch = 2, precision = "float32", workers = 0, validate_every = 0 }
"""


@pytest.mark.slow
def test_a_starter_of_drawn_contrasts_is_adapted_to_images_while_phantoms_are_replayed(
    tmp_path, monkeypatch
):
    phantoms, site = tmp_path / "phantoms", tmp_path / "site"
    write_cohort(phantoms, cases=3, size=(24, 32, 8), modalities=("ct", *MAPS))
    write_cohort(site, cases=3, size=(24, 32, 8), seed=1, modalities=("t1", "ct"))
    options = {"workers": 0, "audit": False, "shares": (2, 1, 0), "progress": False}
    old = voxlate.prepare(phantoms, tmp_path / "old", **options)
    new = voxlate.prepare(site, tmp_path / "new", **options)
    recipe_file = tmp_path / "physics.toml"
    recipe_file.write_text(PHYSICS)
    run = train(recipe.read(str(recipe_file)), old.folder, tmp_path / "run", device="cpu")
    monkeypatch.setattr(names, "FOLDER", tmp_path / "installed")
    stated = {"trained_on": "synthetic heads only", "stripped": False, "spacing_mm": (4.0, 6.0)}
    accepts = {"mr": ["t1", "t2"]}
    pack(run.folder, tmp_path / "installed" / "mr-to-ct", accepts=accepts, **stated)
    options = {"steps": 2, "replay": old.folder, "share": 0.5, "device": "cpu"}
    said = list[Message]()
    done = adapt("starter:mr-to-ct", new.folder, tmp_path / "adapted", **options, say=said.append)
    assert "other-preparation" not in {one.code for one in said}
    header = read_header(done.weights())
    assert header["recipe"]["data"]["source"] == ["t1"]
    assert list(header["recipe"]["data"]["physics"]["contrasts"]) == ["t1"]
    assert header["recipe"]["train"]["replay"] == 0.5
    assert "starter" not in header
    alone = adapt("starter:mr-to-ct", new.folder, tmp_path / "b", steps=1, device="cpu")
    assert "physics" not in read_header(alone.weights())["recipe"]["data"]


TO_CT = """
title = "T1 to CT"
data = { source = ["t1"], target = ["ct"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "percentile" }, ct = { kind = "window", low = -1000, high = 2000 } }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 30, batch = 4, precision = "float32", workers = 0, validate_every = 0, optimiser = { lr = 1e-2, warm_up = 0 } }
"""


@pytest.fixture(scope="module")
def site(small_head, tmp_path_factory):
    """site(name, change): a prepared cohort of three cases, of which one validates; change(t1, ct) gives other images."""

    def write(name, change=lambda t1, ct: (t1, ct)):
        folder = tmp_path_factory.mktemp(name)
        for number in range(3):
            case = folder / "scans" / f"case{number}"
            small_head(case, number, modalities=("t1",))
            image = nib.load(case / "t1.nii.gz")
            t1 = image.get_fdata()
            ct = np.where(t1 > 0, 1.5 * (t1 - 600), -1000)
            for modality, values in zip(("t1", "ct"), change(t1, ct)):
                changed = nib.Nifti1Image(values.astype(np.float32), image.affine)
                nib.save(changed, case / f"{modality}.nii.gz")
        options = {"workers": 0, "audit": False, "shares": (2, 1, 0), "progress": False}
        return voxlate.prepare(folder / "scans", folder / "ready", **options).folder

    return write


@pytest.fixture(scope="module")
def own_site(site):
    """The cohort on which the run `to_ct` was trained."""
    return site("own")


@pytest.fixture(scope="module")
def to_ct(own_site, tmp_path_factory):
    """A run from T1 to CT, trained for thirty steps."""
    folder = tmp_path_factory.mktemp("to_ct")
    (folder / "to_ct.toml").write_text(TO_CT)
    made = recipe.read(str(folder / "to_ct.toml"))
    return train(made, own_site, folder / "run", device="cpu")


def _final_errors(run):
    return [line["validation"]["mae"] for _, line in lines_of(run.log) if "validation" in line]


@pytest.mark.slow
def test_a_ct_with_another_offset_is_cautioned_about_with_both_errors(to_ct, site, tmp_path):
    shifted = site("shifted", lambda t1, ct: (t1, ct + 1000))
    said = []
    options = {"steps": 2, "share": 0, "device": "cpu", "say": said.append}
    done = adapt(to_ct.folder, shifted, tmp_path / "adapted", **options)
    cautions = [one.text for one in said if one.code == "other-site"]
    assert len(cautions) == 1
    own = _final_errors(to_ct)[-1]
    before = _final_errors(done)[0]
    assert before > 3 * own
    assert f"is {before:.3g}, which is {before / own:.2g} times" in cautions[0]
    assert f"({own:.3g}, network units)" in cautions[0]
    assert "ct 0 to" in cautions[0]
    assert "offset" in cautions[0]
    at_fault = [one.text for one in said if one.code == "truth-offset"]
    assert "3 of 3 images" in at_fault[0]
    assert "not in Hounsfield units" in at_fault[0]


@pytest.mark.slow
def test_scans_like_those_of_the_run_give_no_caution(to_ct, own_site, tmp_path):
    said = []
    options = {"steps": 2, "share": 0, "device": "cpu", "say": said.append}
    adapt(to_ct.folder, own_site, tmp_path / "adapted", **options)
    assert said
    assert not [one for one in said if one.code == "other-site" or "truth" in one.code]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (
            "swapped",
            lambda t1, ct: (ct, t1),
            r"as of a CT in t1: ct and t1 seem to be swapped\.",
        ),
        (
            "pictures",
            lambda t1, ct: (t1, (ct + 1000) / 8),
            r"found 0 to .*looks like an MR scan or pictures",
        ),
    ],
)
def test_scans_that_are_no_ct_or_swapped_are_refused_with_their_values(
    to_ct, site, tmp_path, name, change, words
):
    with pytest.raises(BadInput, match=words):
        adapt(to_ct.folder, site(name, change), tmp_path / "adapted", steps=1, device="cpu")
    assert not (tmp_path / "adapted").exists()


def test_scans_by_other_names_than_those_of_the_run_are_refused(prepared, tiny):
    cohort = open_cohort(prepared)
    check_names(recipe.read(str(tiny)), cohort)
    other = {"data.source": '["mr"]', "intensity.mr": '{ kind = "percentile" }'}
    with pytest.raises(BadInput):
        check_names(recipe.read(str(tiny), other), cohort)


def test_another_unit_in_the_header_is_refused(prepared, tiny):
    made = recipe.read(str(tiny))
    check_units(made, {"t1": "a.u.", "t2": "a.u."}, open_cohort(prepared))
    with pytest.raises(
        BadInput, match=r"expected t2 in the unit of the run 'tiny' \(HU\), found a\.u\."
    ):
        check_units(made, {"t1": "a.u.", "t2": "HU"}, open_cohort(prepared))
