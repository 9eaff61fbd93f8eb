"""Trainings that build on others: weights handed on, parts that stay as they are, and opponents that come late."""

import json

import pytest
import torch
from safetensors.torch import load_file

from voxlate import recipe
from voxlate.batch import Batch
from voxlate.diffusion.noise import Noise
from voxlate.errors import BadInput
from voxlate.methods.regression import Regression
from voxlate.training.learner import start_from, train_only
from voxlate.training.run import Run
from voxlate.training.train import train

NET = '{ kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false'
TRAIN = "batch = 2, precision = 'float32', workers = 0, validate_every = 0, log_every = 1, optimiser = { warm_up = 0 }"
VOLUMETRIC = f"""
title = "slices, then volumes"
data = {{ source = ["t1"], target = ["t2"], patch = [3, 24, 20] }}
intensity = {{ t1 = {{ kind = "percentile" }}, t2 = {{ kind = "percentile" }} }}
method = {{ kind = "regression" }}
net = {NET}, volumetric = true }}
train = {{ steps = 3, only = "volumetric", {TRAIN} }}
start_from = "slices"
[[stages]]
name = "slices"
method = {{ kind = "regression" }}
net = {NET} }}
data = {{ source = ["t1"], target = ["t2"], patch = [1, 24, 20] }}
train = {{ steps = 3, {TRAIN} }}
"""


@pytest.fixture
def volumetric(tmp_path):
    path = tmp_path / "volumetric.toml"
    path.write_text(VOLUMETRIC)
    return path


def test_volumetric_layers_are_put_into_a_slice_wise_network_and_move_alone(prepared, volumetric, tmp_path):
    run = train(recipe.read(str(volumetric)), prepared, tmp_path / "run", device="cpu")
    flat, deep = load_file(run.weights("slices")), load_file(run.weights())
    new = set(deep) - set(flat)
    assert new == {name for name in deep if ".volumetric." in name}
    assert all(torch.equal(deep[name], flat[name]) for name in flat)
    assert any(deep[name].any() for name in new)  # they started at 0
    (said,) = [line["started"] for line in map(json.loads, run.log.read_text().splitlines()) if "started" in line]
    assert said == f"started from the weights of stage 'slices': {len(flat)} tensors copied, {len(new)} fresh"


def test_weights_without_a_place_and_parts_that_are_not_there_are_refused_early(volumetric, prepared, tmp_path):
    for changes, sentence in (
        ({"net.width": "12"}, "expected a place for each of its weights"),
        ({"train.only": '"temporal"'}, "found 'temporal', which is in none that may move"),
        ({"start_from": '"nothing"'}, "expected start_from to name an earlier stage (slices)"),
    ):
        with pytest.raises(BadInput) as error:
            train(recipe.read(str(volumetric), changes), prepared, tmp_path / "run", device="cpu")
        assert sentence in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_opponent_is_no_part_of_the_weights_that_are_handed_on_and_always_moves(tmp_path, volumetric):
    opponent = {"opponent.critic.widths": "[4, 4]"}
    made = recipe.read(str(volumetric), opponent)
    first = made.all_stages[0].build({})
    final = made.all_stages[1].build({})
    start_from(final, first, "slices")
    assert isinstance(final.without_opponent, Regression)
    assert all(
        torch.equal(tensor, final.without_opponent.state_dict()[name]) for name, tensor in first.state_dict().items()
    )
    train_only(final, "volumetric")
    assert list(final.parameters_of("critic")) == list(final.critic.parameters())
    names = [name for name, one in final.generator.named_parameters() if one.requires_grad]
    assert names
    assert all(".volumetric." in name for name in names)


OPPONENTS = {
    "regression": ("translate", 'method = { kind = "regression" }', f"{NET} }}"),
    "diffusion": ("translate", 'method = { kind = "diffusion" }', f"{NET} }}"),
    "autoencoding": (
        "translate",
        'method = { kind = "autoencoding" }',
        '{ kind = "kl_autoencoder", width = 8, multipliers = [1, 2], blocks = 1, groups = 4 }',
    ),
    "completion": ("complete", 'method = { kind = "regression" }', f"{NET} }}"),
}


@pytest.mark.parametrize("name", OPPONENTS)
def test_an_opponent_plays_against_any_method_from_its_start_on(name, prepared, tmp_path):
    task, method, net = OPPONENTS[name]
    complete = task == "complete"
    modalities, target = ('["t1", "t2"]', '["t1", "t2"]') if complete else ('["t1"]', '["t2"]')
    path = tmp_path / "one.toml"
    path.write_text(f"""
title = "with an opponent"
data = {{ source = {modalities}, target = {target}, patch = [1, 24, 20] }}
intensity = {{ t1 = {{ kind = "percentile" }}, t2 = {{ kind = "percentile" }} }}
task = {{ kind = "{task}" }}
{method}
net = {net}
train = {{ steps = 4, {TRAIN} }}
synth = {{ steps = 2 }}
[opponent]
start = 0.5
critic_turns = 2
critic = {{ widths = [4, 4], answer = "patches", maps = {2 if complete else 1} }}
""")
    run = train(recipe.read(str(path)), prepared, tmp_path / "run", device="cpu")
    lines = [line for line in map(json.loads, run.log.read_text().splitlines()) if "loss" in line]
    assert [line["step"] for line in lines if line["turn"] == "critic"] == [3, 4]
    made = [line for line in lines if line["turn"] == "generator"]
    assert ["gan" in line["loss"] for line in made] == [False, False, True, True]
    assert any(key.startswith("critic.") for key in load_file(Run(tmp_path / "run").weights()))


def test_a_method_finds_the_label_maps_of_a_batch():
    """A regression whose loss counts lesions twice."""

    class Lesions(Regression):
        def loss(self, turn, batch, noise, progress=1.0):
            problem = self.task.pose(batch, noise, progress)
            error = (self.run(problem).image - batch.target).abs()
            lesion = (batch.labels == 1).any(1, keepdim=True)
            return {"total": (error * (1 + lesion.float())).mean()}

    made = recipe.read("phantom_t1_to_ct")
    stage = next(stage for stage in made.all_stages if stage.method.kind == "regression")
    plain = stage.build({})
    method = Lesions(plain.options, plain.net, plain.task).eval()
    source = torch.zeros(1, 1, 1, 32, 32)
    ones = torch.ones(1, 1, dtype=torch.bool)
    full = Batch(source, source + 1, ones, torch.tensor([[1]]), target=source + 0.5, labels=torch.ones_like(source))
    lesion, healthy = (
        method.loss("net", Batch(**{**vars(full), "labels": labels}), Noise(0, full.item))["total"]
        for labels in (full.labels, full.labels * 0)
    )
    torch.testing.assert_close(lesion, 2 * healthy)
