"""Convolutions over volumes in training steps on CPUs whose bfloat16 kernels are unsafe."""

import torch
import torch.nn.functional as F

from voxlate.science.nets import cpu


def test_convolutions_over_volumes_are_exact_where_the_cpu_multiplies_tiles(monkeypatch):
    monkeypatch.setattr(cpu, "_multiplies_tiles", lambda: True)
    image, weight = torch.randn(1, 2, 3, 8, 8), torch.randn(4, 2, 3, 3, 3, requires_grad=True)

    def gradient():
        return torch.autograd.grad(F.conv3d(image, weight, padding=1).square().mean(), weight)[0]

    with torch.autocast("cpu", torch.bfloat16), cpu.volumes_in_float32(torch.device("cpu")):
        found = gradient()
    torch.testing.assert_close(found, gradient())


def test_slices_stay_in_bfloat16(monkeypatch):
    monkeypatch.setattr(cpu, "_multiplies_tiles", lambda: True)
    with torch.autocast("cpu", torch.bfloat16), cpu.volumes_in_float32(torch.device("cpu")):
        assert F.conv2d(torch.randn(1, 1, 8, 8), torch.randn(1, 1, 3, 3)).dtype == torch.bfloat16


def test_wide_volumes_have_finite_gradients_on_any_cpu():
    weight = torch.randn(8, 8, 3, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), cpu.volumes_in_float32(torch.device("cpu")):
        F.conv3d(torch.randn(1, 8, 3, 102, 102), weight, padding=1).mean().backward()
    assert weight.grad is not None
    assert torch.isfinite(weight.grad).all()


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
