"""The full recipe of paper 003: its layer list, its loss over 14 configurations, and what its sampler sees."""

from itertools import product

import pytest
import torch
from calling import batch_of, count

from voxlate.science.diffusion.noise import Noise
from voxlate.training import recipe as recipes

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
