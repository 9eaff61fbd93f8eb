"""Root-mean-square normalisation with the scaling, shift and activation that follow it, in one walk over the map.

Maps here are [N, H, W, C] in memory (channels last), tokens [N, T, C]; norms are over the last axis.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.nets.norm import Norm

EPS = 1e-6
SLAB = 1 << 16  # numbers a thread works on at a time: they and what is made of them fit its second-level cache


class RMSNorm(nn.Module):
    """h / rms(h) · weight, then · (1 + scale) + shift and GELU where asked; Zhang and Sennrich 2019, eq. 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, h: Tensor, told: Tensor | None = None, gelu: bool = False) -> Tensor:
        """told: [N, 2 C], scale then shift of each item; with gelu, h may be overwritten where nothing needs it."""
        gain, shift = self.weight[None], None
        if told is not None:
            scale, shift = told.chunk(2, dim=-1)
            gain = gain * (1 + scale)
        return rms_norm(h, gain, shift, gelu)


class GroupNorm(Norm):
    """Group normalisation of [N, H, W, C] with as many groups as asked, then as `RMSNorm`."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, groups)
        self.num_groups, self.eps = groups, EPS  # Norm would take fewer groups for few channels

    def forward(self, h: Tensor, told: Tensor | None = None, gelu: bool = False) -> Tensor:
        h = super().forward(h.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        if told is not None:
            scale, shift = told.to(h.dtype)[:, None, None].chunk(2, dim=-1)
            h = torch.addcmul(shift, h, 1 + scale)
        return F.gelu(h, approximate="tanh") if gelu else h


def rms_norm(h: Tensor, gain: Tensor, shift: Tensor | None = None, gelu: bool = False) -> Tensor:
    """f(h / rms(h) · gain + shift) over the last axis, computed in float32, given in h's precision.

    f: GELU (tanh) or none; h: [N, ..., C]; gain: [N or 1, C]; shift: like gain.
    Where no gradient is asked for, gelu overwrites h.
    """
    if h.device.type != "cpu" or torch.compiler.is_compiling():  # a compiler fuses the plain form by itself
        return _plain(h, gain, shift, gelu)
    if torch.is_grad_enabled() and (h.requires_grad or gain.requires_grad):
        out: Tensor = _RMSNorm.apply(h, gain, shift, gelu)  # type: ignore[no-untyped-call]
        return out
    return _forward(h, gain, shift, gelu, h if gelu else torch.empty_like(h))


def _plain(h: Tensor, gain: Tensor, shift: Tensor | None, gelu: bool) -> Tensor:
    spread = (gain.shape[0], *(1 for _ in h.shape[1:-1]), gain.shape[1])
    x = h.float()
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * gain.view(spread)
    x = x if shift is None else x + shift.view(spread)
    return (F.gelu(x, approximate="tanh") if gelu else x).to(h.dtype)


class _RMSNorm(torch.autograd.Function):
    """Keeps the input only: what is made of it is made again, slab by slab, on the way back."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, gain: Tensor, shift: Tensor | None, gelu: bool) -> Tensor:
        ctx.save_for_backward(h, gain, shift)
        ctx.gelu = gelu
        return _forward(h, gain, shift, gelu, torch.empty_like(h))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, gain, shift = ctx.saved_tensors
        out, dgain = torch.empty_like(h), torch.zeros_like(gain)
        dshift = None if shift is None else torch.zeros_like(shift)
        for row, (x, dx, dy) in _slabs(gain, h, out, grad.contiguous()):
            x, dz = x.float(), dy.float()
            inverse = _inverse_rms(x)
            normed = x * inverse
            if ctx.gelu:
                z = normed * gain[row] if shift is None else torch.addcmul(shift[row], normed, gain[row])
                dz = torch.ops.aten.gelu_backward(dz, z, approximate="tanh")
            if dshift is not None:
                dshift[row] += dz.sum(0)
            product = dz * normed
            dgain[row] += product.sum(0)
            along = (product @ gain[row])[:, None].div_(-x.shape[-1])
            dx.copy_(torch.addcmul(dz.mul(gain[row]), normed, along).mul_(inverse))
        return out, dgain, dshift, None


def _forward(h: Tensor, gain: Tensor, shift: Tensor | None, gelu: bool, out: Tensor) -> Tensor:
    for row, (x, y) in _slabs(gain, h, out):
        x = x.float()
        x = torch.mul(x, _inverse_rms(x), out=y) if y.dtype == x.dtype else x.mul_(_inverse_rms(x))
        x = x.mul_(gain[row]) if shift is None else torch.addcmul(shift[row], x, gain[row], out=x)
        if gelu:
            torch.ops.aten.gelu_(x, approximate="tanh")
        if x is not y:
            y.copy_(x)
    return out


def _inverse_rms(x: Tensor) -> Tensor:
    """[P, C] -> [P, 1]."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(EPS).rsqrt_()


def _slabs(gain: Tensor, *maps: Tensor) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Pieces [P, C] of contiguous maps of one shape, each with the row of `gain` that belongs to it."""
    channels = gain.shape[-1]
    step = max(1, SLAB * torch.get_num_threads() // channels)
    rows = [each.view(gain.shape[0], -1, channels) for each in maps]
    for row in range(gain.shape[0]):
        for start in range(0, rows[0].shape[1], step):
            yield row, tuple(each[row, start : start + step] for each in rows)
