"""The norm of CPUs against torch's own, and convolutions over volumes where bfloat16 is unsafe."""

import torch
import torch.nn.functional as F

from rows import every_row
from voxlate.science.nets import cpu
from voxlate.science.nets.blocks import Norm, group_count


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


@every_row("channels, groups", [(512, 32), (64, 32), (48, 24), (16, 8), (20, 10), (2, 1), (1, 1)])
def test_groups_divide_the_channels_and_leave_two_in_each(channels, groups):
    assert group_count(channels, 32) == groups


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
