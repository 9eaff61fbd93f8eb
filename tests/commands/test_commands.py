"""The command line: what its options reach."""

import nibabel as nib
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save_file

from voxlate.base.executors.case_work import report_part
from voxlate.base.files import read_json
from voxlate.commands.api.progress import Bars, progress_on
from voxlate.exchange.published import layout
from voxlate.science.nets.interface import Channels
from voxlate.science.nets.xmodality.adm import ADM


def test_published_weights_become_a_run_that_draws(typed, tmp_path):
    net = ADM(width=32, heads=2).build(Channels({"tof": 1}, out=1, state=1, noisy=True))
    torch.manual_seed(0)
    arrays = {key: 0.02 * torch.randn(slot.shape) for key, slot in layout(net).items()}
    save_file(arrays, tmp_path / "adm.safetensors")
    values = np.random.default_rng(0).random((12, 16, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([0.5, 0.5, 1.0, 1.0])), tmp_path / "tof.nii.gz")
    assert typed("import xmodality adm.safetensors --out run").code == 0
    options = "--steps 1 --slices whole --schedule shifted_cosine --sampler ddim --noise shared"
    typed(f"synth run tof=tof.nii.gz --out out {options}").done()
    # "tof" says nothing of the patient, so its folder's name is taken
    folder = tmp_path / "out" / tmp_path.name.lstrip(".")
    made = read_json(folder / "provenance.json")
    assert made["synth"]["schedule"]["kind"] == "shifted_cosine"
    assert made["synth"]["slices"] == {"kind": "whole", "crop": None}
    assert made["synth"]["noise"] == {"kind": "shared"}
    image = nib.load(folder / "cta.nii.gz")
    assert image.shape == (12, 16, 4)
    assert -50 <= image.get_fdata().min() <= image.get_fdata().max() <= 350


def test_an_option_of_synthesis_may_be_named_as_in_a_recipe(typed, run, cohort, tmp_path):
    stated = []
    for name in ("mirror", "synth.mirror"):
        typed(f"synth run cohort/case0 --out {name} --set batch=2 --set {name}=true").done()
        stated.append(read_json(tmp_path / name / "case0" / "provenance.json")["synth"])
    assert stated[0] == stated[1]
    assert stated[0]["mirror"] is True


def test_the_time_left_of_a_second_case_begins_anew(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("voxlate.commands.api.progress.SECONDS", 0.0)
    monkeypatch.setattr("voxlate.commands.api.progress.time.monotonic", lambda: now[0])
    with progress_on(Console(stderr=True, force_terminal=False)) as report:
        for done in (0, 5, 10, 0, 5):  # ten seconds a slice
            report("slices", done, 10)
            now[0] += 50
    assert capsys.readouterr().err.splitlines()[-1] == "slices 5/10, 0:00:50 left"
    with Progress() as progress:
        bars = Bars(progress)
        for done in (0, 10, 2):
            bars("slices", done, 10)
        bars("cases", 1, 4)
        assert [task.completed for task in progress.tasks] == [2, 1]


def test_slices_of_three_planes_count_as_those_of_the_image():
    seen = []
    for plane, own in enumerate((4, 9, 7)):
        report_part(lambda *found: seen.append(found), plane, 3, 6, own, own)
    assert seen == [(2, 6), (4, 6), (6, 6)]


def test_a_recipe_that_is_its_own_base_is_refused(typed, tmp_path):
    (tmp_path / "loop.toml").write_text('base = "loop.toml"\n')
    assert "base" in typed("recipes loop.toml").refusal
