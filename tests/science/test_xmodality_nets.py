"""Paper 001's networks: their published sizes, what may reach their output, and how they start."""

import dataclasses

import pytest
import torch
from calling import ask, channels, shaken
from small_nets import XMODALITY, asked, built
from torch.testing import assert_close

from rows import every_row
from voxlate.science.nets.xmodality import wavelet
from voxlate.science.nets.xmodality.parts import Attention, Conv, Dense


@every_row("name", XMODALITY)
def test_every_weight_gets_a_gradient(name):
    net = built(name).requires_grad_()
    net(asked(name, (1, 16, 16))).image.square().mean().backward()
    assert [key for key, one in net.named_parameters() if not one.grad.any()] == []


@every_row("name", XMODALITY)
def test_the_condition_and_the_state_may_come_in_one_piece(name):
    net, given = built(name), asked(name, (1, 16, 16))
    (condition,) = given.images.values()
    parts = (given.state, condition) if name == "dit" else (condition, given.state)
    joined = ask(net, None, torch.cat(parts, 1), given.log_snr)
    assert_close(joined, net(given).image)


def test_fresh_weights_have_the_published_spreads():
    torch.manual_seed(0)
    conv, dense, attention = Conv(32, 64, 3), Dense(256, 128), Attention(128, 4)
    for weight, fans in (
        (conv.weight, 9 * (32 + 64)),
        (dense.weight, 256 + 128),
        (attention.qkv.weight, 128 + 128),
        (attention.out.weight, 128 + 128),
    ):
        bound = (6 / fans) ** 0.5  # Glorot and Bengio 2010, eq. 16
        assert bound * 0.99 < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    settings = dataclasses.replace(XMODALITY["dit"], width=256)
    dit = settings.build(channels(1, 1, 1))
    block, first = dit.blocks[0], dit.time.first.weight
    # LeCun, after the cut
    assert block.attention.qkv.weight.std().item() == pytest.approx(256**-0.5, rel=0.02)
    assert first.abs().max() <= 0.04
    assert first.std().item() == pytest.approx(0.02 * 0.8796, rel=0.02)
    biases = [one for key, one in dit.named_parameters() if key.endswith("bias")]
    assert not any(one.any() for one in (block.modulation.weight, dit.final.out.weight, *biases))


def test_a_dit_of_wavelets_is_a_dit_of_their_bands():
    dit = dataclasses.replace(XMODALITY["dit"], patch=4)
    net = shaken(dataclasses.replace(dit, wavelet=True).build(channels(1, 1, 1)))
    of_bands = dit.build(channels(4, 4, 4)).eval()
    of_bands.load_state_dict(net.state_dict())
    h, embedding = torch.randn(2, 16, 24, 2), torch.randn(2, 32)
    out = net.slices(h, embedding)
    assert out.shape == (2, 16, 24, 1)
    bands = of_bands.slices(wavelet.analyse(h), embedding)
    assert_close(out, wavelet.synthesise(bands))
