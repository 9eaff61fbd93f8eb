"""Parts of one's own: the documented example, and a method and a network that this file alone knows."""

import copy
import re
import tomllib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from refusals import refuses
from rows import every_row
from voxlate.base import messages
from voxlate.checks import check_table
from voxlate.checks.fingerprint import fingerprint
from voxlate.evaluation.scoring.scores import read_scores
from voxlate.scans.images.grid import Volume
from voxlate.science.nets.interface import (
    Channels,
    NetworkInput,
    settings_of,
)
from voxlate.training import recipe
from voxlate.training.run import Run
from voxlate.training.train import train
from voxlate.training.weights import read_header

DOCUMENT = (Path(__file__).parents[1] / "docs" / "guides" / "extending.md").read_text()


PLAIN = recipe.to_dict(recipe.read("t1_to_t2_brain"))


def block(language: str, number: int = 0) -> str:
    texts: list[str] = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    return texts[number]


def test_the_documented_example_trains_synthesises_and_is_scored(
    typed, cohort, prepared, tmp_path, monkeypatch
):
    code = block("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 34
    (tmp_path / "my_parts.py").write_text(code)
    (tmp_path / "my_recipe.toml").write_text(block("toml"))
    monkeypatch.syspath_prepend(str(tmp_path))
    for line in block("sh").splitlines():
        typed(
            re.sub("[A-Z]{3,}", lambda word: word[0].lower(), line.removeprefix("voxlate "))
        ).done()
    needed = ["my_parts:Small", "my_parts:charbonnier"]
    assert read_header(Run(tmp_path / "run").weights())["imports"] == needed
    assert typed("info run --json").json["needs code"] == ", ".join(needed)
    found = read_scores(tmp_path / "out" / "metrics.json").means["t2"]["synthesis"]
    assert found["worst"]["mean"] > found["mae"]["mean"]


def test_the_documented_module_gets_slices_the_noisy_image_first_and_a_noise_level_of_each_slice():
    names: dict = {"nn": nn}
    exec(block("py"), names)
    two_layers = names["TwoLayers"]
    channels = Channels({"t1": 1, "flair": 1}, out=1, state=1, noisy=True)
    made = settings_of(two_layers)(width=8).build(channels)
    assert made.module.layers[0].in_channels == 3
    given: list = []
    made.module.register_forward_pre_hook(
        lambda _, images, levels: given.append((*images, levels["log_snr"])), with_kwargs=True
    )
    image = torch.randn(2, 2, 3, 8, 8)
    images = {"t1": image[:, :1], "flair": image[:, 1:]}
    noisy = torch.randn(2, 1, 3, 8, 8)
    made(NetworkInput(images, noisy, log_snr=torch.tensor([-20.0, 20.0])))
    ((slices, levels),) = given
    assert torch.equal(slices[:, 0], noisy.transpose(1, 2).flatten(0, 2))
    assert levels.tolist() == [-20.0] * 3 + [20.0] * 3


def test_the_documented_check_says_its_code_where_its_conditions_hold(monkeypatch):
    (row,) = tomllib.loads(block("toml", 1))["row"]
    code = tomllib.loads(block("toml", 2))
    monkeypatch.setattr(check_table, "table", lambda: (check_table.Row(**row),))
    monkeypatch.setattr(
        messages, "codes", lambda: {name: messages.Code(**entry) for name, entry in code.items()}
    )
    body = np.pad(np.ones((8, 30, 30), np.float32), 6)
    scan = Volume(body[None], np.eye(4), "a.u.", "t1")
    measured = fingerprint(scan).numbers
    for height_mm, codes in ((measured["height_mm"], ["few-slices"]), (20.0, [])):
        said = check_table.ask("scan", {**measured, "height_mm": height_mm, "ct": 0.0}, "t1")
        assert [one.code for one in said] == codes


def test_the_documented_sampler_and_schedule_train_and_synthesise(
    typed, cohort, prepared, tmp_path, monkeypatch
):
    (tmp_path / "my_sampler.py").write_text(block("python", 1))
    monkeypatch.syspath_prepend(str(tmp_path))
    tables = {
        **recipe.to_dict(recipe.read("t1_to_t2_brain")),
        "method": {"kind": "diffusion", "schedule": {"kind": "my_sampler:Geometric"}},
        "net": {"kind": "unet", "width": 8, "groups": 4},
        "train": {"steps": 1, "batch": 2, "precision": "float32", "workers": 0},
        "synth": {"sampler": "my_sampler:trapezoidal", "steps": 4},
    }
    made = recipe.from_dict(tables, "own", allow_code=True)
    train(made, prepared, tmp_path / "run", device="cpu")
    typed("synth run cohort --out out --allow-code").done()
    for name, wrong, words in (
        ("wrong_shape", "x[:, :, :, :1]", "expected a tensor"),
        ("wrong_code", "1 / 0", "wrong_code.py, line 2"),
        ("no_python", "x[", "no_python.py, line 2"),
    ):
        code = f"def sampler(denoise, schedule, x, times, noise):\n    return {wrong}\n"
        (tmp_path / f"{name}.py").write_text(code)
        command = f"synth run cohort --out {name} --set sampler={name}:sampler --allow-code"
        assert words in typed(command).refusal


@every_row(
    "where",
    [("net", "kind"), ("method", "loss"), ("synth", "sampler"), ("intensity", "t1", "kind")],
)
def test_no_name_in_the_header_of_a_foreign_model_is_imported(where, tmp_path, monkeypatch):
    (tmp_path / "harmful.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("harmful:Net", "harmful:net.inner", "harmful: net", "härmful:Net"):
        changed = table = copy.deepcopy(PLAIN)
        *tables, last = where
        for key in tables:
            table = table[key]
        table[last] = name
        with refuses():
            assert recipe.from_dict(changed, "weights (header)").synth.function


OWN = """
title = "all of it our own"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "percentile" }, t2 = { kind = "percentile" } }
method = { kind = "my_method:Quantile", share = 0.9 }
net = { kind = "unet", width = 8, groups = 4 }
train = { steps = 2, batch = 2, precision = "float32", workers = 0 }
"""


def test_the_documented_method_goes_all_the_way(typed, cohort, prepared, tmp_path, monkeypatch):
    (tmp_path / "my_method.py").write_text(block("python", 2))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own.toml").write_text(OWN)
    made = recipe.read(str(tmp_path / "own.toml"), allow_code=True)
    assert recipe.from_dict(recipe.to_dict(made), "again", allow_code=True) == made
    typed("train own.toml --data prepared --out run --allow-code").done()
    typed("synth run cohort --out out --allow-code").done()
    assert "t2" in typed("evaluate out --truth cohort --json").done().json["modalities"]
    unknown = {**recipe.to_dict(made), "method": {"kind": "my_method:Quantile", "shaer": 0.9}}
    with refuses("Did you mean 'share'"):
        recipe.from_dict(unknown, "own", allow_code=True)
