"""Parts of one's own: the documented example, and a method and a network that this file alone knows."""

import copy
import re
from pathlib import Path

import torch
from torch import nn

import voxlate as package
from refusals import refuses
from rows import every_row
from trainings import weights_of
from voxlate.base.config import settings
from voxlate.science.methods.regression import RegressionSettings
from voxlate.science.nets.interface import Channels, NetSettings, NetworkInput, Output
from voxlate.training import recipe
from voxlate.training.planning.plan import Plan
from voxlate.training.planning.probe import Limits
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
    assert len([line for line in code.splitlines() if line.strip()]) <= 32
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


def test_code_is_imported_only_where_it_is_allowed_and_found_by_plans_too(
    typed, cohort, prepared, tmp_path, monkeypatch
):
    (tmp_path / "own_parts.py").write_text(block("python"))
    path = tmp_path / "own.toml"
    path.write_text(
        block("toml").replace("my_parts", "own_parts").replace("steps = 20", "steps = 1")
    )
    new = "train own.toml --data prepared --out run --allow-code"
    assert "module 'own_parts'" in typed(new).refusal
    monkeypatch.syspath_prepend(str(tmp_path))
    train(recipe.read(str(path), allow_code=True), prepared, tmp_path / "run", device="cpu")
    assert package.load(tmp_path / "run", allow_code=True).facts.title.startswith("T1 to T2")
    with refuses("expected 'Large' in the module"):
        recipe.read(str(path), {"net.kind": "own_parts:Large"}, allow_code=True)
    plan = Plan(PLAIN, {}, 1.0, 1.0, Limits(1, 1e9), "here")
    planned = plan.change({"net": '{kind = "own_parts:Small"}'}, allow_code=True)
    assert type(planned.recipe.net).__name__ == "Small"


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


@settings
class Blend(NetSettings):
    """A weight for each source, by name."""

    gain: float = 1.0

    def build(self, channels: Channels) -> nn.Module:
        return BlendNet(self.gain, channels)


class BlendNet(nn.Module):
    def __init__(self, gain: float, channels: Channels) -> None:
        super().__init__()
        self.gain = gain
        self.weights = nn.ParameterDict({name: torch.zeros(()) for name in channels.images})

    def forward(self, inputs: NetworkInput) -> Output:
        images = inputs.images
        return Output(self.gain * sum(self.weights[name] * images[name] for name in images))


OWN = """
title = "all of it our own"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "percentile" }, t2 = { kind = "percentile" } }
method = { kind = "my_method:Quantile", share = 0.9 }
net = { kind = "test_extending:Blend", gain = 2.0 }
train = { steps = 8, batch = 2, precision = "float32", workers = 0, optimiser = { lr = 0.1, warm_up = 0 } }
"""


def test_the_documented_method_and_a_network_of_this_file_go_all_the_way(
    typed, cohort, prepared, tmp_path, monkeypatch
):
    (tmp_path / "my_method.py").write_text(block("python", 2))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own.toml").write_text(OWN)
    made = recipe.read(str(tmp_path / "own.toml"), allow_code=True)
    assert recipe.from_dict(recipe.to_dict(made), "again", allow_code=True) == made
    typed("train own.toml --data prepared --out run --allow-code").done()
    ((name, weight),) = weights_of(tmp_path / "run").items()
    assert name == "net.weights.t1"
    assert weight != 0
    typed("synth run cohort --out out --allow-code").done()
    assert "t2" in typed("evaluate out --truth cohort --json").done().json["modalities"]
    unknown = {**recipe.to_dict(made), "net": {"kind": "test_extending:Blend", "gian": 2.0}}
    with refuses("Did you mean 'gain'"):
        recipe.from_dict(unknown, "own", allow_code=True)


def test_a_part_that_inherits_from_one_of_voxlates_is_written_under_its_own_name():
    method = {**PLAIN["method"], "kind": "test_extending:Mine", "strength": 2.0}
    own = recipe.from_dict({**PLAIN, "method": method}, "own", allow_code=True)
    assert recipe.to_dict(own)["method"] == method


@settings
class Mine(RegressionSettings):
    """A regression with one key more."""

    strength: float = 1.0
