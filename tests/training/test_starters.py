"""Starters: weights of the package that are used in place of a run, and refused where they are not its own."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from starter_pack import with_measured
from voxlate.base.errors import BadInput
from voxlate.synthesis.inputs import by_accepted_names
from voxlate.training.model import load
from voxlate.training.run import Run
from voxlate.training.starter import check_starter, run_folder
from voxlate.training.starters import names
from voxlate.training.starters.card import Measured, read_card
from voxlate.training.weights import read_header, read_weights, write_weights


def test_without_any_starter_the_list_a_name_and_the_demo_say_so(voxlate, tmp_path, monkeypatch):
    monkeypatch.setattr(names, "FOLDER", tmp_path)
    assert "No starter is installed" in voxlate("starters").out
    assert json.loads(voxlate("starters", "--json").out) == []
    assert voxlate("starters", "--check").refusal
    answer = voxlate("synth", "starter:head-mr-to-ct", "x.nii", "--out", tmp_path / "out")
    assert "no starter is installed" in answer.refusal
    assert not (tmp_path / "out").exists()
    answer = voxlate("demo", "--real", "x.nii", "--out", tmp_path / "out")
    assert answer.refusal


def test_a_starter_holds_the_weights_of_its_run_rounded_to_float16(starter, run):
    packed = read_weights(Run(starter).weights())
    own = read_weights(Run(run).weights())
    assert packed.keys() == own.keys()
    for name, tensor in own.items():
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(packed[name], expected), name
    assert Run(starter).weights().stat().st_size < 0.7 * Run(run).weights().stat().st_size


def test_a_starter_synthesises_what_its_run_does_up_to_float16(starter, run, cohort):
    scan = cohort / "case0" / "t1.nii.gz"
    ours = load("starter:tiny", "cpu").synthesise({"t1": scan})
    theirs = load(run, "cpu").synthesise({"t1": scan})
    a, b = ours.volumes["t2"].data, theirs.volumes["t2"].data
    assert np.abs(a - b).max() < 0.01 * np.ptp(b)
    assert not np.array_equal(a, b)
    said = " ".join(map(str, ours.warnings))
    assert "starter:tiny" in said
    assert said.count("research") == said.count("voxlate calibrate") == 1


def test_one_changed_byte_is_refused(starter, voxlate, cohort, tmp_path):
    weights = Run(starter).weights()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BadInput, match="starter:tiny: expected the weights of its card"):
        check_starter(starter)
    out = tmp_path / "out"
    answer = voxlate("synth", "starter:tiny", next(cohort.glob("*/t1.nii.gz")), "--out", out)
    assert answer.code == 2
    assert len(answer.err.strip().splitlines()) == 1
    assert not out.exists()
    assert voxlate("starters", "--check").code == 2


def test_sound_weights_that_are_not_of_the_card_are_refused(starter):
    weights = Run(starter).weights()
    header = {key: value for key, value in read_header(weights).items() if key != "sha256"}
    tensors = {name: 1.01 * tensor for name, tensor in read_weights(weights).items()}
    write_weights(weights, tensors, header)
    with pytest.raises(BadInput, match="checksum of its card"):
        check_starter(starter)


def test_another_output_of_the_self_test_is_refused(starter, monkeypatch):
    import voxlate.training.starter as starters

    output = starters.self_test_output
    monkeypatch.setattr(starters, "self_test_output", lambda *args: output(*args) + 0.01)
    with pytest.raises(BadInput, match=r"difference of 0\.01"):
        check_starter(starter)


def test_the_check_passes_and_the_card_is_shown(starter, voxlate):
    with_measured(starter, [Measured("134 slices", "MAE", 0.08, 0.146)])
    answer = voxlate("starters", "--check").done()
    assert "starter:tiny" in answer.out
    assert "Measured on" not in answer.out
    answer = voxlate("starters", "starter:tiny", "--check").done()
    assert "Measured on 134 slices: MAE 0.08 (best naive baseline 0.146)." in answer.out
    assert read_card(starter).bytes == Run(starter).weights().stat().st_size
    described = voxlate("info", "starter:tiny").out
    assert "A scan called t1, t1w, pd is taken as t1." in described


def test_a_scan_of_an_accepted_name_is_taken_and_said(starter, voxlate, cohort, tmp_path):
    scan = next(cohort.glob("*/t1.nii.gz"))
    case = tmp_path / "new" / "case"
    case.mkdir(parents=True)
    shutil.copy(scan, case / "pd.nii.gz")
    answer = voxlate("synth", "starter:tiny", tmp_path / "new", "--out", tmp_path / "out").done()
    assert "pd is taken as t1." in answer.err
    assert (tmp_path / "out" / "case" / "t2.nii.gz").is_file()


def test_a_choice_among_several_accepted_scans_is_a_caution(tmp_path):
    files = {"pd": tmp_path / "pd.nii.gz", "t1w": tmp_path / "t1w.nii.gz"}
    own, [said] = by_accepted_names(files, {"t1": ["t1", "t1w", "pd"]})
    assert own["t1"].name == "t1w.nii.gz"
    assert said.grade == "caution"
    assert said.text == "t1w is taken as t1; pd could be taken, too, by t1=FILE."
    files = {"t1": tmp_path / "t1.nii.gz", "pd": tmp_path / "pd.nii.gz"}
    own, [said] = by_accepted_names(files, {"t1": ["t1", "t1w", "pd"]})
    assert (own["t1"].name, said.grade) == ("t1.nii.gz", "caution")
    assert said.text == "t1 is read, and pd is not, which could stand for it."


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ("t1_gewichtet ct_schädel", "t1_gewichtet"),
        ("t1 t1_gewichtet", "t1"),
        ("t1_minus_t2 t1_seg synth_t1 pd_t1", None),
        ("t1_target_contrast", None),
        ("t1_sharp", None),  # the target
    ],
)
def test_a_scan_is_taken_by_a_name_with_other_words_where_none_is_plain(tmp_path, names, taken):
    files = {name: tmp_path / name for name in names.split()}
    own, said = by_accepted_names(files, {"t1": ["t1", "t1w"]}, ["t1_sharp"])
    assert own.get("t1") == (None if taken is None else tmp_path / taken)
    assert [one.grade for one in said] == ["note"] * (taken not in (None, "t1"))


@pytest.mark.slow
def test_a_calibration_goes_into_a_copy_and_nothing_into_the_package(
    starter, voxlate, cohort, tmp_path, quick_widths
):
    before = sorted((path.name, path.read_bytes()) for path in starter.iterdir())
    answer = voxlate("calibrate", "starter:tiny", cohort)
    assert "Add --out RUN" in answer.refusal
    copied = tmp_path / "copied"
    voxlate("calibrate", "starter:tiny", cohort, "--out", copied).done()
    assert list(copied.glob("calibration.*.safetensors"))
    scan = next(cohort.glob("*/t1.nii.gz"))
    answer = voxlate("synth", copied, scan, "--out", tmp_path / "out").done()
    assert "for research only" in answer.err
    assert list((tmp_path / "out").rglob("t2_low.nii.gz"))
    assert sorted((path.name, path.read_bytes()) for path in starter.iterdir()) == before


def test_a_training_initialised_from_a_starter_begins_with_its_weights_and_hash(
    starter, prepared, tiny, tmp_path
):
    from voxlate.training import recipe
    from voxlate.training.train import train

    changes = {"start_from": "starter:tiny", "train.steps": "0", "train.best": "{ patience = 1 }"}
    made = recipe.read(str(tiny), changes)
    run = train(made, prepared, tmp_path / "from", device="cpu")
    begun = read_weights(run.weights())
    for name, tensor in read_weights(Run(run_folder("starter:tiny")).weights()).items():
        assert torch.equal(begun[name], tensor), name
    stated = json.loads(run.provenance.read_text())
    assert stated["starters"] == {"starter:tiny": read_card(starter).sha256}
    # It is a model of its own: another machine needs no starter to load it.
    names_before = names.starter_names()
    shutil.rmtree(starter)
    assert names_before == ["tiny"]
    assert load(run.folder, "cpu").network.recipe.start_from == "starter:tiny"


def test_the_demo_shows_a_starter_on_a_scan_by_its_name(starter, voxlate, cohort, tmp_path):
    scan = next(cohort.glob("*/t1.nii.gz"))
    out = tmp_path / "mine"
    answer = voxlate("demo", "--real", scan, "--out", out).done()
    assert "Synthesised by starter:tiny" in answer.out
    with Image.open(out / "picture.png") as picture:
        pixels = np.asarray(picture.convert("L"), np.float32)
    left, right = pixels[:, : pixels.shape[1] // 2], pixels[:, pixels.shape[1] // 2 :]
    assert left.std() > 10
    assert right.std() > 10
    assert "expected --real SCAN" in voxlate("demo", "--starter", "starter:tiny").err
    noise = np.random.default_rng(0).uniform(1, 100, (32, 32, 8)).astype(np.float32)
    nib.save(nib.Nifti1Image(noise, np.diag([2.0, 2, 3, 1])), tmp_path / "t1.nii.gz")
    refused = voxlate("demo", "--real", tmp_path / "t1.nii.gz", "--out", tmp_path / "noise")
    assert refused.code == 3
    assert "voxlate synth starter:tiny" in refused.err, "which has the option that it names"
