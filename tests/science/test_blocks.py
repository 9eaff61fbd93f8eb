"""Blocks, the norm of CPUs and the KL autoencoder, against plain formulas and torch's own."""

import math

import torch
import torch.nn.functional as F
from calling import channels
from torch.testing import assert_close

from rows import every_row
from voxlate.science.nets import cpu
from voxlate.science.nets.autoencoder import AutoencoderNet, KLAutoencoder
from voxlate.science.nets.blocks import (
    Attention,
    BlockOptions,
    Norm,
    Volumetric,
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


@every_row(
    "shape", [(3, 12, 7, 5), (2, 12, 33, 32), (2, 12, 3, 5, 4)]
)  # small maps, large ones, volumes
@every_row("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@every_row("silu", [True, False])
@every_row("last", [True, False])
def test_norm_and_its_gradients_are_those_of_the_reference(dtype, tolerance, shape, silu, last):
    """Whether or not its channels are last."""
    generator = torch.Generator().manual_seed(3)
    norm = Norm(shape[1], 4, silu=silu)
    torch.nn.init.normal_(norm.weight, 1, 0.3, generator=generator)
    torch.nn.init.normal_(norm.bias, 0, 0.3, generator=generator)
    x, grad = torch.randn(2, *shape, generator=generator).to(dtype)
    x = 1.5 * x + 0.7
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    out = norm(x.requires_grad_())
    assert out.dtype == dtype
    found = torch.autograd.grad(out, (x, norm.weight, norm.bias), grad)
    wide = x.detach().double().requires_grad_()
    weight, bias = (p.detach().double().requires_grad_() for p in (norm.weight, norm.bias))
    reference = F.group_norm(wide, 4, weight, bias, norm.eps)
    reference = F.silu(reference) if silu else reference
    expected = torch.autograd.grad(reference, (wide, weight, bias), grad.double())
    for mine, theirs in zip((out, *found), (reference, *expected)):
        assert (mine.double() - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_a_large_map_that_hardly_varies_keeps_its_digits():
    """As in a slice with little body; the other item of the batch is an ordinary one."""
    generator = torch.Generator().manual_seed(0)
    texture = torch.randn(2, 16, 64, 64, generator=generator)
    h = torch.stack([texture[0], 5 + 1e-3 * texture[1]])
    h = h.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = torch.ones(16), torch.zeros(16)
    found = cpu.group_norm(h, weight, bias, 4, 1e-12, silu=False)
    exact = F.group_norm(h.detach().double().requires_grad_(), 4, eps=1e-12)
    assert (found[0] - exact[0]).abs().max() < 1e-4
    assert (found[1] - exact[1]).abs().max() < 1e-3  # the difference of sums is wrong by far
    (found.square() * texture).sum().backward()
    assert torch.isfinite(h.grad).all()


def test_convolutions_over_volumes_are_exact_where_the_cpu_multiplies_tiles(monkeypatch):
    monkeypatch.setattr(cpu, "_multiplies_tiles", lambda: True)
    image, weight = torch.randn(1, 2, 3, 8, 8), torch.randn(4, 2, 3, 3, 3, requires_grad=True)

    def gradient():
        return torch.autograd.grad(F.conv3d(image, weight, padding=1).square().mean(), weight)[0]

    with torch.autocast("cpu", torch.bfloat16), cpu.volumes_in_float32(torch.device("cpu")):
        found = gradient()
    torch.testing.assert_close(found, gradient())


def test_a_limit_of_instructions_without_tiles_is_respected(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    for limit, expected in {
        "": True,
        "AVX2": False,
        "AVX512_CORE_BF16": False,
        "AVX512_CORE_AMX": True,
    }.items():
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
        cpu._multiplies_tiles.cache_clear()
        assert cpu._multiplies_tiles() is expected
    cpu._multiplies_tiles.cache_clear()
