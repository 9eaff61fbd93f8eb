"""The parts of paper 001's networks: each against the reference numbers, and against plain formulas."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from rows import every_row
from voxlate.science.nets.xmodality import wavelet
from voxlate.science.nets.xmodality.parts import (
    EPS,
    AttentionLayer,
    GroupNorm,
    attend,
    rms_norm,
)


@pytest.fixture(scope="module")
def waves(shared) -> dict[str, Tensor]:
    return load_file(shared / "reference" / "xmodality" / "dev" / "wavelet_io.safetensors")


def _near(ours: Tensor, theirs: Tensor, most: float = 2e-6) -> None:
    assert ours.shape == theirs.shape
    assert (ours.detach() - theirs).abs().max() < most


def test_wavelet_bands_and_their_inverse(waves):
    _near(wavelet.analyse(waves["x"]), waves["coeffs"])
    _near(wavelet.synthesise(waves["coeffs"]), waves["reconstructed"])
    _near(wavelet.synthesise(waves["coeffs2"]), waves["decoded2"])


@every_row(("height", "width"), [(1, 1), (1, 12), (7, 4)])
def test_wavelet_loses_nothing_of_any_even_size(height, width):
    image = torch.randn(1, 2 * height, 2 * width, 3, generator=torch.Generator().manual_seed(0))
    _near(wavelet.synthesise(wavelet.analyse(image)), image, 1e-5)


def test_wavelet_of_a_constant_is_all_in_the_low_band():
    bands = wavelet.analyse(torch.ones(1, 8, 12, 1))
    _near(
        bands[..., 0], torch.full((1, 4, 6), 2.0), 1e-5
    )  # each low filter sums to the square root of 2
    _near(bands[..., 1:], torch.zeros(1, 4, 6, 3), 1e-5)


def _plain_norm(h: Tensor, gain: Tensor, shift: Tensor | None, gelu: bool) -> Tensor:
    gain = gain[:, None, None]
    y = h / (h.square().mean(-1, keepdim=True) + EPS).sqrt() * gain
    y = y if shift is None else y + shift[:, None, None]
    return F.gelu(y, approximate="tanh") if gelu else y


@every_row("gelu", [False, True])
@every_row("rows", [1, 3])
@every_row("shifted", [False, True])
def test_the_fused_norm_and_its_gradients_are_those_of_the_formula(
    gelu, rows, shifted, monkeypatch
):
    monkeypatch.setattr(
        "voxlate.science.nets.cpu.SLAB", 64
    )  # several slabs an item, the last one shorter
    torch.manual_seed(rows)
    h = torch.randn(3, 5, 7, 8)
    leaves = [h, torch.randn(rows, 8), *([torch.randn(rows, 8)] if shifted else [])]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    shift = leaves[2] if shifted else None
    outs = [function(h, leaves[1], shift, gelu) for function in (rms_norm, _plain_norm)]
    _assert_alike(outs, leaves)
    with torch.no_grad():
        torch.testing.assert_close(
            rms_norm(h.detach().clone(), leaves[1], shift, gelu), outs[1], rtol=1e-4, atol=1e-5
        )


def _assert_alike(outs, leaves):
    """Two outputs are alike, and their gradients by the leaves."""
    weight = torch.randn(outs[0].shape)
    found = [[out, *torch.autograd.grad((out * weight).sum(), leaves)] for out in outs]
    for ours, plain in zip(*found):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@every_row("gelu", [False, True])
@every_row("modulated", [False, True])
def test_the_fused_group_norm_and_its_gradients_are_those_of_torch(gelu, modulated, monkeypatch):
    monkeypatch.setattr("voxlate.science.nets.cpu.SLAB", 64)
    torch.manual_seed(4)
    norm, h = GroupNorm(8, 4), torch.randn(3, 5, 7, 8, requires_grad=True)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    modulation = torch.randn(3, 16, requires_grad=True) if modulated else None
    leaves = [h, norm.weight, norm.bias, *([modulation] if modulated else [])]
    y = F.group_norm(h.permute(0, 3, 1, 2), 4, norm.weight, norm.bias, EPS).permute(0, 2, 3, 1)
    if modulated:
        scale, shift = modulation[:, None, None].chunk(2, -1)
        y = y * (1 + scale) + shift
    y = F.gelu(y, approximate="tanh") if gelu else y
    _assert_alike([norm(h, modulation, gelu), y], leaves)


def test_the_norm_of_bfloat16_is_rounded_once():
    torch.manual_seed(0)
    h, gain, shift = torch.randn(2, 9, 8, 16).bfloat16(), torch.randn(2, 16), torch.randn(2, 16)
    exact = _plain_norm(h.float(), gain, shift, True)
    assert (
        (rms_norm(h, gain, shift, True).float() - exact).abs() <= exact.abs() * 2**-8 + 1e-6
    ).all()


def test_gradients_of_attention_in_bfloat16_are_those_of_float32(monkeypatch):
    monkeypatch.setattr(
        "voxlate.science.nets.cpu.SCORES", 300
    )  # several parts, the last one shorter
    torch.manual_seed(2)
    exact = torch.randn(5, 9, 3, 2, 8).bfloat16().float().requires_grad_()
    rounded = exact.detach().bfloat16().requires_grad_()
    weight = torch.randn(5, 9, 2, 8).bfloat16()
    wanted, ours = attend(exact), attend(rounded)
    assert (ours.float() - wanted).norm() < 5e-3 * wanted.norm()
    (wanted * weight.float()).sum().backward()
    (ours * weight).sum().backward()
    for third in range(3):
        error = rounded.grad[:, :, third].float() - exact.grad[:, :, third]
        assert error.norm() < 1.5e-2 * exact.grad[:, :, third].norm()


def test_attention_is_along_rows_or_among_all_pixels_of_a_slice_with_the_same_weights():
    rows, whole = AttentionLayer(8, 2), AttentionLayer(8, 2, whole=True)
    whole.load_state_dict(rows.state_dict())
    h = torch.randn(1, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    changed = h.clone()
    changed[0, 2] += 1  # one row
    assert torch.equal(rows(h)[0, :2], rows(changed)[0, :2])
    assert (whole(h)[0, :2] - whole(changed)[0, :2]).abs().max() > 1e-3
    tokens = h.view(1, 1, 15, 8)
    torch.testing.assert_close(whole(h).view(1, 1, 15, 8), rows(tokens))
