"""Paper 001's networks: their published sizes, what may reach their output, and how they start."""

import dataclasses

import pytest
import torch
from calling import ask, channels
from torch import nn
from torch.testing import assert_close

from rows import every_row
from voxlate.science.nets.xmodality import wavelet
from voxlate.science.nets.xmodality.adm import ADM
from voxlate.science.nets.xmodality.baseline_unet import PlainUNet
from voxlate.science.nets.xmodality.dit import DiT
from voxlate.science.nets.xmodality.parts import Attention, Conv, Dense
from voxlate.science.nets.xmodality.uvit import UViT

SMALL = {
    "unet": PlainUNet(width=16, groups=8),
    "adm": ADM(width=16),
    "uvit": UViT(width=16, depth=2),
    "dit": DiT(patch=8, width=32, depth=2, heads=4),
}


def _random(net: nn.Module) -> nn.Module:
    """With weights that are nowhere zero, so that everything can reach the output."""
    torch.manual_seed(3)
    for parameter in net.requires_grad_(False).parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    return net.eval()


def _small(name: str, **changes) -> nn.Module:
    return _random(SMALL[name].build(channels(**{"state": 1, "images": 2, "out": 1, **changes})))


def _inputs(*size: int):
    generator = torch.Generator().manual_seed(5)
    x, first, second = torch.randn(3, 2, 1, *size, generator=generator)
    return x, torch.cat([first, second], 1), torch.tensor([-2.0, 3.0])


@every_row("name", SMALL)
def test_every_weight_gets_a_gradient(name):
    net = _small(name).requires_grad_()
    ask(net, *_inputs(1, 16, 16)).square().mean().backward()
    assert [key for key, one in net.named_parameters() if not one.grad.any()] == []


@every_row("name", SMALL)
def test_the_condition_and_the_state_may_come_in_one_piece(name):
    net, (x, condition, log_snr) = _small(name), _inputs(1, 16, 16)
    joined = torch.cat((x, condition) if name == "dit" else (condition, x), 1)
    apart = ask(net, x, condition, log_snr)
    assert_close(ask(net, None, joined, log_snr), apart)


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
    settings = dataclasses.replace(SMALL["dit"], width=256)
    dit = settings.build(channels(1, 1, 1))
    block, first = dit.blocks[0], dit.time.first.weight
    # LeCun, after the cut
    assert block.attention.qkv.weight.std().item() == pytest.approx(256**-0.5, rel=0.02)
    assert first.abs().max() <= 0.04
    assert first.std().item() == pytest.approx(0.02 * 0.8796, rel=0.02)
    biases = [one for key, one in dit.named_parameters() if key.endswith("bias")]
    assert not any(one.any() for one in (block.modulation.weight, dit.final.out.weight, *biases))


def test_a_dit_of_wavelets_is_a_dit_of_their_bands():
    dit = dataclasses.replace(SMALL["dit"], patch=4)
    net = _random(dataclasses.replace(dit, wavelet=True).build(channels(1, 1, 1)))
    of_bands = dit.build(channels(4, 4, 4)).eval()
    of_bands.load_state_dict(net.state_dict())
    h, embedding = torch.randn(2, 16, 24, 2), torch.randn(2, 32)
    out = net.slices(h, embedding)
    assert out.shape == (2, 16, 24, 1)
    bands = of_bands.slices(wavelet.analyse(h), embedding)
    assert_close(out, wavelet.synthesise(bands))
