"""The system of paper 004 by the command line: an autoencoder, a diffusion of slices' latents, volumetric layers."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from refusals import refuses
from rows import slow
from scans import change_scan
from voxlate.base.files import read_json
from voxlate.evaluation.scoring.scores import read_scores
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.formats.io import read_volume
from voxlate.science.diffusion.noise import Noise
from voxlate.science.nets.interface import Channels
from voxlate.training import recipe as recipes
from voxlate.training.batches.batches import Batches
from voxlate.training.batches.patches import Patches
from voxlate.training.load import load
from voxlate.training.weights import read_header

DATA = 'data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }'
NET = 'kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false'
STAGES = f"""
title = "tiny volume"
start_from = "slices"
{DATA.replace("[1,", "[4,")}
intensity = {{ t1 = {{ kind = "percentile" }}, t2 = {{ kind = "percentile" }} }}
task = {{ kind = "latent" }}
method = {{ kind = "diffusion", times = {{ kind = "early_heavy", count = 1000 }} }}
net = {{ {NET}, volumetric = true }}
train = {{ steps = 3, batch = 1, validate_every = 0, only = "volumetric", optimiser = {{ warm_up = 0 }} }}
synth = {{ sampler = "dpmpp_2m", steps = 2, windows = {{ size = 4, overlap = 1 }}, exact = true }}
[[stages]]
name = "autoencoder"
method = {{ kind = "autoencoding" }}
net = {{ kind = "kl_autoencoder", width = 8, multipliers = [1, 2], blocks = 1, groups = 4 }}
train = {{ steps = 3, batch = 2, validate_every = 0 }}
{DATA}
[[stages]]
name = "slices"
task = {{ kind = "latent" }}
method = {{ kind = "diffusion" }}
net = {{ {NET} }}
train = {{ steps = 3, batch = 2, validate_every = 0 }}
{DATA}
"""


@pytest.fixture
def volume(trained):
    return trained("volume", STAGES)


FEW = "--set=train.steps=1 --set=stages.slices.train.steps=1"


@pytest.fixture
def again(typed, volume, prepared):
    """again(words): trains the recipe of `volume` once more."""
    return lambda words, data="prepared": typed(f"train volume.toml --data {data} --out {words}")


def identity(tensor):
    """A layer's weights, or its biases, that change nothing."""
    one = torch.zeros_like(tensor)
    return torch.nn.init.dirac_(one) if one.ndim > 1 else one


@pytest.fixture
def made(typed, cohort, tmp_path):
    """made(model, out, options): the image that a model gives of a case."""

    def synthesise(model, out, options=""):
        typed(f"synth {model} cohort/case1 --out {out} {options}").done()
        return read_volume(tmp_path / out / "case1" / "t2.nii.gz", "t2").data

    return synthesise


@slow
def test_one_command_trains_three_stages_and_the_last_one_moves_volumetric_layers_alone(volume):
    slices, final = (load_file(volume / f"weights{name}.safetensors") for name in (".slices", ""))
    fresh = set(final) - set(slices)
    assert fresh == {name for name in final if ".volumetric." in name}
    assert all(torch.equal(final[name], tensor) for name, tensor in slices.items())
    moved = {name for name in fresh if not torch.equal(final[name], identity(final[name]))}
    assert {name.rpartition(".")[2] for name in moved} == {"weight", "bias"}


def test_an_item_of_a_volume_has_one_time_for_all_its_slices_and_latents_of_unit_spread(
    volume, prepared
):
    model, seen, cohort = load(volume), [], open_cohort(prepared)
    method, recipe = model.network.method, model.network.recipe
    method.net.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    items = Batches(cohort, recipe.data, recipe.intensity, batch=2)[0]
    method.loss("net", items, Noise(3, items.item))
    (given,) = seen
    assert given.log_snr.shape == (2,)
    assert given.state.shape == (2, 3, 4, 12, 10)
    # the scale of the autoencoder, whose latents of whole slices later stages see
    data = dataclasses.replace(recipe.data, patch=(1, 24, 20))
    spread = []
    patches = Patches(cohort, data, recipe.intensity)
    for batch in patches.in_batches(patches.even_places(), 8):
        mean, log_variance = method.task.autoencoder.encode(batch.target)
        spread.append(mean + torch.randn(50, *mean.shape) * (0.5 * log_variance).exp())
    whole = torch.cat(spread, dim=1) * method.task.autoencoder.scale
    assert whole.std().item() == pytest.approx(1, abs=0.02)
    eta = model.with_options(sampler="ddim", eta=1.0)
    assert eta.with_options(sampler="ddpm").network.recipe.synth.eta == 0
    assert eta.with_options(steps=3).network.recipe.synth.eta == 1


@slow
def test_the_autoencoder_alone_gives_the_bound_of_the_row(made, typed, volume, cohort, tmp_path):
    bound = made("volume/weights.autoencoder.safetensors", "bound")
    assert bound.shape == read_volume(cohort / "case1" / "t2.nii.gz", "t2").data.shape
    stated = read_json(tmp_path / "bound" / "case1" / "provenance.json")
    assert list(stated["inputs"]) == ["t2"]
    bounds = [read_header(path)["bound"]["t2"] for path in volume.glob("weights*.safetensors")]
    assert bounds == bounds[:1] * 3
    typed("evaluate bound --truth cohort").done()
    scored = read_scores(tmp_path / "bound" / "metrics.json").by_case("t2")
    assert scored["autoencoder"].tolist() == [bounds[0]]
    made("volume", "own")
    typed("evaluate own --truth cohort").done()
    table = " ".join(typed("compare own bound").out.split())
    assert "bound (given the truth)" in table
    assert "own (given" not in table


def test_the_published_schedule_and_networks_are_the_recipes():
    made = recipes.read("make_a_volume_swi_mra")
    slices, final = made.all_stages[1:]
    assert float(final.method.schedule(torch.tensor([1.0]))[0] ** 2) == pytest.approx(
        1.4230e-4, rel=1e-4
    )
    with torch.device("meta"):
        nets = [
            stage.net.build(Channels(images={"swi": 3}, state=3, out=3, noisy=True))
            for stage in (slices, final)
        ]
    counts = [sum(parameter.numel() for parameter in net.parameters()) for net in nets]
    assert counts == [89_539_075, 89_539_075 + 20_070_942]


@slow
def test_other_scans_of_the_same_names_are_another_cohort(typed, again, cohort):
    change_scan(cohort / "case0" / "t2.nii.gz", np.flipud)
    typed("prepare cohort --out changed --no-audit").done()
    assert "data.cohort" in again("volume", data="changed").refusal
    answer = again(f"other --reuse volume {FEW}", data="changed").done()
    assert "stage 'autoencoder' is not taken" in answer.said


@slow
def test_what_would_swap_the_autoencoder_of_a_model_is_refused(again, tmp_path):
    said = "--init: expected a model without an autoencoder of its own"
    assert said in again("o --init volume").refusal
    first = STAGES[STAGES.index("[[stages]]") : STAGES.index('[[stages]]\nname = "slices"')]
    two = STAGES.replace('kind = "latent"', 'kind = "latent", autoencoder = "second"', 1)
    for text, said in (
        (
            two + first.replace('"autoencoder"', '"second"', 1),
            "expected the stage 'final' to build on 'autoencoder' as 'slices' does",
        ),
        (
            STAGES.replace('target = ["t2"], patch = [4', 'target = ["ct"], patch = [4'),
            r"expected (data|the stage 'autoencoder' to learn all|an intensity map)",
        ),
    ):
        (tmp_path / "own.toml").write_text(text)
        with refuses(said):
            recipes.read(str(tmp_path / "own.toml"))


def test_a_stage_without_data_of_its_own_is_another_where_the_recipes_differ_and_windows_need_a_sampler(
    tmp_path, tiny
):
    (tmp_path / "plain.toml").write_text(STAGES.replace(DATA, ""))
    made = recipes.read(str(tmp_path / "plain.toml"))
    other = dataclasses.replace(made, data=dataclasses.replace(made.data, patch=(2, 24, 20)))
    for name in ("autoencoder", "slices"):
        assert recipes.stage_recipe(made, name) != recipes.stage_recipe(other, name)
        assert all(one.data is not None for one in recipes.stage_recipe(made, name).stages)
    with refuses(r"synth\.windows"):
        recipes.read(str(tiny), {"synth.windows": "{size=4,overlap=2}"})


@slow
def test_patches_of_one_slice_are_refused_where_slices_are_joined(again):
    said = (
        "expected patches of several slices in the stage 'final', whose net.volumetric joins slices"
    )
    assert said in again("flat --set=data.patch=[1,24,20]").refusal
