"""Paper 001's networks and their parts: reference numbers, plain formulas, what may reach the output, and how they start."""

import dataclasses

import pytest
import torch
from calling import channels, shaken
from safetensors.torch import load_file
from small_nets import XMODALITY, asked, built
from torch import Tensor
from torch.testing import assert_close

from rows import every_row
from voxlate.science.nets import wavelet
from voxlate.science.nets.xmodality_layers import (
    Attention,
    Conv,
    Dense,
)


def _near(ours: Tensor, theirs: Tensor, most: float = 2e-6) -> None:
    assert ours.shape == theirs.shape
    assert (ours.detach() - theirs).abs().max() < most


def test_wavelet_bands_and_their_inverse(shared):
    waves = load_file(shared / "reference" / "xmodality" / "dev" / "wavelet_io.safetensors")
    _near(wavelet.analyse(waves["x"]), waves["coeffs"])
    _near(wavelet.synthesise(waves["coeffs"]), waves["reconstructed"])
    _near(wavelet.synthesise(waves["coeffs2"]), waves["decoded2"])


@every_row("name", XMODALITY)
def test_every_weight_gets_a_gradient(name):
    net = built(name).requires_grad_()
    net(asked(name, (1, 16, 16))).image.square().mean().backward()
    assert [key for key, one in net.named_parameters() if not one.grad.any()] == []


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
    dit = dataclasses.replace(XMODALITY["dit"], width=256).build(channels(1, 1, 1))
    lecun = dit.blocks[0].attention.qkv.weight  # after the cut
    assert lecun.std().item() == pytest.approx(256**-0.5, rel=0.02)
    assert dit.time.first.weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.02)
    assert not dit.blocks[0].modulation.weight.any()
    assert not dit.final.out.weight.any()


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
