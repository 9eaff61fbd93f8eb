"""Papers 000 and 003 as recipes: published numbers, layer lists, and rows that differ where their names say."""

import dataclasses
from itertools import product

import pytest
import torch
from calling import batch_of, count

from refusals import refuses
from rows import every_row
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.schedules import LinearBetas
from voxlate.training import recipe as recipes
from voxlate.training.recipe import Recipe


def test_the_schedule_ends_where_the_paper_s_betas_end():
    """Its last alpha², 0.00662264, and variance, 0.0099993, are those of this table (test_schedules, test_samplers)."""
    schedule = LinearBetas(first=1e-6, last=1e-2, count=1000)
    assert recipes.read("mrdpm").method.schedule == schedule


def test_the_learning_rate_is_held_for_half_of_the_steps_and_ends_at_a_hundredth():
    optimiser = recipes.read("mrdpm").train.optimiser
    rates = [optimiser.lr * optimiser.factor(step, 400) for step in (0, 200, 400)]
    assert rates == pytest.approx([5e-5, 5e-5, 5e-7])


def switches(made: Recipe) -> tuple[bool, bool, bool, bool]:
    """Mask, residual, BRAN, MAP: the columns of table 2."""
    regions = any(getattr(stage.net, "regions", 0) > 0 for stage in made.stages)
    asymmetry = getattr(made.task, "asymmetry", False)
    return made.task.inside, made.task.kind == "residual", regions, asymmetry


@every_row("size", ["", "_small"])
def test_the_rows_of_the_ablation_switch_on_one_thing_after_another(size):
    changed = (
        ("_masked", {"task.inside": "false"}),
        ("_masked", {}),
        ("_pix2pix", {}),
        ("", {"task.asymmetry": "false"}),
        ("", {}),
    )
    rows = [recipes.read(f"mrdpm{name}{size}", changes) for name, changes in changed]
    for number, row in enumerate(rows):
        assert switches(row) == tuple(column < number for column in range(4))
        assert row.task.strip
        assert row.method == (rows[-1] if row.stages else rows[0]).method
        differ = ("title", "task", "method", "stages", "train", "synth")
        said = {name: getattr(rows[0], name) for name in differ}
        assert dataclasses.replace(row, **said) == rows[0]


@every_row(
    "changes, sentence",
    [
        ({"net": {"kind": "xmodality_unet"}}, "'unet' of the network"),
        ({"synth": {"slices": {"kind": "tiled"}}}, "expected whole slices"),
        ({"stages": [{"net": {"kind": "unet"}}]}, "'bran' of the predictor"),
    ],
)
def test_an_asymmetry_that_cannot_be_is_refused_before_training(changes, sentence):
    text = recipes.to_dict(recipes.read("mrdpm_small"))
    if "stages" in changes:
        changes = {"stages": [text["stages"][0] | changes["stages"][0]]}
    with refuses(sentence):
        recipes.from_dict(text | changes, "changed")


CODES = [code for code in product([0, 1], repeat=4) if 0 < sum(code) < 4]


@pytest.fixture(scope="module")
def method():
    recipe = recipes.read("umm_csgm")
    task = recipe.task.build({})
    torch.manual_seed(0)
    return recipe.method.build(
        recipe.net, task, task.channels(recipe.data.source, recipe.data.target)
    )


def test_the_network_has_the_parameters_of_the_layer_list(method):
    """Stem; two blocks a level and their halving; a middle; three blocks a level and their doubling; norm and head.

    A block of the decoder also takes one output of the encoder, the last one of a level that of its halving.
    """
    assert count(method.net) == 21_076_548


def test_time_and_code_reach_the_middle_and_the_decoder_and_no_block_of_the_encoder(method):
    embedded = [name for name, _ in method.net.named_parameters() if ".embed." in name]
    assert not [name for name in embedded if name.startswith("encoder")]
    assert {name.split(".")[0] for name in embedded} == {"middle", "decoder"}


def test_the_loss_weighs_all_fourteen_configurations_alike_and_known_channels_not_at_all(method):
    """What the network gives is eps; at its start that is 0, so that the loss of any set is the mean of eps²."""
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(len(CODES), 4, 1, 16, 16, generator=draw) * 2 - 1
    batch = batch_of(images, images)
    problem = method.task.pose(batch, Noise(0, batch.item))
    missing, counted = (part.flatten(1).sum(1) for part in (problem.mask, problem.loss_mask))
    assert torch.equal(counted, missing)
    total = method.attempt(batch, Noise(0, batch.item)).losses()["total"]
    assert total.item() == pytest.approx(1.0, abs=0.1)
