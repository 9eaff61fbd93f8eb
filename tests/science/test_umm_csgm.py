"""The full recipe of paper 003: its layer list, its loss over 14 configurations, and what its sampler sees."""

from itertools import product

import pytest
import torch

from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.prediction import coefficients
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


def conv(ins, outs, kernel=3):
    return kernel**2 * ins * outs + outs


def block(ins, outs, embedding=0):
    skip = conv(ins, outs, 1) if ins != outs else 0
    return (
        2 * ins
        + conv(ins, outs)
        + (embedding + 1) * outs * bool(embedding)
        + 2 * outs
        + conv(outs, outs)
        + skip
    )


def attention(width):
    return 2 * width + (width + 1) * 3 * width + (width + 1) * width


def test_the_network_has_the_parameters_of_the_layer_list(method):
    """Stem; two blocks a level and their halving; a middle; three blocks a level and their doubling; norm and head."""
    widths, t = [64, 128, 192, 256], 256
    embedding = (64 * t + t + t * t + t) + (4 * t + t + t * t + t)  # of the time, of the code
    encoder = [block(a, b) + block(b, b) for a, b in zip([64, *widths], widths)]
    resizings = [conv(width, width) for width in (*widths[:-1], *widths[1:])]  # down, then up
    middle = 2 * block(256, 256, t) + attention(256)
    decoder = [  # each block also takes one output of the encoder, the last one of a level that of its halving
        block(256 + 256, 256, t) * 2 + block(256 + 192, 256, t) + 3 * attention(256),
        block(256 + 192, 192, t) + block(192 + 192, 192, t) + block(192 + 128, 192, t),
        block(192 + 128, 128, t) + block(128 + 128, 128, t) + block(128 + 64, 128, t),
        block(128 + 64, 64, t) + 2 * block(64 + 64, 64, t),
    ]
    ends = conv(4, 64) + 2 * 64 + conv(64, 4)
    blocks = sum(encoder) + 2 * attention(256) + middle + sum(decoder)
    listed = embedding + blocks + sum(resizings) + ends
    assert sum(one.numel() for one in method.net.parameters()) == listed == 21_076_548


def test_time_and_code_reach_the_middle_and_the_decoder_and_no_block_of_the_encoder(method):
    embedded = [name for name, _ in method.net.named_parameters() if ".embed." in name]
    assert not [name for name in embedded if name.startswith("encoder")]
    assert {name.split(".")[0] for name in embedded} == {"middle", "decoder"}


def test_the_loss_weighs_all_fourteen_configurations_alike_and_known_channels_not_at_all(method):
    """What the network gives is eps; at its start that is 0, so that the loss of any set is the mean of eps²."""
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(len(CODES), 4, 1, 16, 16, generator=draw) * 2 - 1
    mask, present = torch.ones(14, 1, 1, 16, 16), torch.ones(14, 4, dtype=torch.bool)
    batch = Batch(images, mask, present, torch.arange(14), images)
    noise = Noise(0, batch.item)
    problem = method.task.pose(batch, noise)
    sizes = problem.mask.flatten(1).sum(1)
    counted = problem.loss_mask.flatten(1).sum(1)
    assert torch.equal(counted, sizes), "nothing but what is missing counts"
    total = method.attempt(batch, Noise(0, batch.item)).losses()["total"]
    assert float(total.detach()) == pytest.approx(1.0, abs=0.1)
    total.backward()
    gradients = [one.grad for one in method.net.parameters() if one.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_x_plus_score_and_eps_say_the_same_of_an_image():
    """Paper 003, eq. 5: the network gives x_t + score, where ours gives eps = −sigma·score."""
    alpha, sigma = (
        torch.tensor([0.2811829]).double(),
        torch.tensor([0.9596542]).double(),
    )  # at t = 0.5
    x0, eps = torch.tensor(0.3).double(), torch.tensor(-1.2).double()
    a, b, c = coefficients(alpha, sigma, "x_plus_score")
    assert ((a * x0 + b * eps) / c).item() == pytest.approx(
        (alpha * x0 + sigma * eps - eps / sigma).item(), abs=1e-12
    )
