"""Blocks and the KL autoencoder, against plain formulas."""

import math

import torch
import torch.nn.functional as F
from calling import channels
from torch.testing import assert_close

from rows import every_row
from voxlate.science.nets.autoencoder import AutoencoderNet, KLAutoencoder
from voxlate.science.nets.blocks import (
    Attention,
    BlockOptions,
    Volumetric,
    sinusoids,
    to_slices,
    to_volumes,
)


def test_attention_is_the_softmax_average_of_the_values():
    torch.manual_seed(0)
    layer = Attention(12, 3, BlockOptions(groups=4, zero_init=False))
    h = torch.randn(2, 12, 3, 5).contiguous(memory_format=torch.channels_last)
    tokens = layer.norm(h).flatten(2).mT
    query, key, value = (part.unflatten(-1, (3, 4)) for part in layer.qkv(tokens).chunk(3, dim=-1))
    weights = (torch.einsum("nqhc,nkhc->nhqk", query, key) / math.sqrt(4)).softmax(-1)
    mixed = layer.out(torch.einsum("nhqk,nkhc->nqhc", weights, value).flatten(2))
    assert_close(layer(h), h + mixed.mT.reshape(h.shape), atol=1e-5, rtol=1e-5)


@every_row("depth", [1, 2, 4])
def test_a_volumetric_layer_is_a_convolution_along_the_depth_of_each_volume(depth):
    layer, volumes = Volumetric(6), torch.randn(2, 6, depth, 3, 5)
    torch.nn.init.normal_(layer.weight)
    found = to_volumes(layer(to_slices(volumes), depth), depth)
    expected = F.conv3d(volumes, layer.weight[..., None, None], padding=(1, 0, 0))
    assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_sinusoids_start_at_one_radian_a_unit_and_end_near_the_longest_period():
    value = torch.tensor([0.0, 0.5])
    phase = value[:, None] * torch.tensor([10_000 ** (-k / 4) for k in range(4)])
    sines, cosines = sinusoids(value, 8, 4)
    assert_close(sines, phase.sin())
    assert_close(cosines, phase.cos())


TINY = KLAutoencoder(width=8, multipliers=(1, 2, 2), blocks=1, groups=4)


def _tiny() -> AutoencoderNet:
    torch.manual_seed(0)
    return TINY.build(channels(0, 1, 1, noisy=False)).eval()


def test_slices_are_encoded_one_by_one_at_a_quarter_of_their_sides_and_decoded_one_by_one():
    net, x = _tiny(), torch.randn(2, 1, 3, 16, 24)
    mean, logvar = net.encode(x)
    assert mean.shape == logvar.shape == (2, 3, 3, 4, 6)
    assert torch.isfinite(logvar.exp()).all()
    assert TINY.factor == KLAutoencoder().factor == 4
    assert_close(net.encode(x[:, :, 1:2])[0], mean[:, :, 1:2], atol=1e-5, rtol=1e-4)
    assert_close(net.decode(mean[:, :, 1:2]), net.decode(mean)[:, :, 1:2], atol=1e-5, rtol=1e-4)


@every_row("size", [(7, 9), (8, 10)])
def test_other_sizes_are_mirrored_and_cropped(size):
    net, x = _tiny(), torch.randn(1, 1, 1, *size)
    mean, _ = net.encode(x)
    padded = torch.nn.functional.pad(x, (0, -size[1] % 4, 0, -size[0] % 4, 0, 0), mode="reflect")
    assert_close(net.encode(padded)[0], mean)
    assert net.decode(mean, size).shape == x.shape


def test_halving_pads_the_far_sides_only():
    """The last column of an even map meets padding, the first does not (unlike a padding of one all round)."""
    net = _tiny()
    halve = next(part for part in net.encoder if type(part).__name__ == "Halving")
    with torch.no_grad():
        halve.conv.weight.fill_(1.0)
        halve.conv.bias.zero_()
    out = halve(torch.ones(1, 8, 4, 4))[0, 0]
    assert torch.equal(out, 8 * torch.tensor([[9.0, 6.0], [6.0, 4.0]]))
