"""Root-mean-square normalisation with the scaling, shift and activation that follow it, in one walk over the map.

Maps here are [N, H, W, C] in memory (channels last), tokens [N, T, C]; norms are over the last axis.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.nets.norm import Norm

EPS = 1e-6
LINEAR = 2 * (2 / math.pi) ** 0.5  # tanh GELU is x · sigmoid(LINEAR · x + CUBIC · x³): Hendrycks and Gimpel 2016
CUBIC = 0.044715 * LINEAR
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
        if h.device.type != "cpu" or torch.compiler.is_compiling():
            h = super().forward(h.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            if told is not None:
                scale, shift = told.to(h.dtype)[:, None, None].chunk(2, dim=-1)
                h = torch.addcmul(shift, h, 1 + scale)
            return F.gelu(h, approximate="tanh") if gelu else h
        gain, shift = self.weight.expand(len(h), -1), self.bias.expand(len(h), -1)
        if told is not None:
            scale, offset = told.chunk(2, dim=-1)
            gain, shift = gain * (1 + scale), torch.addcmul(offset, shift, 1 + scale)
        out: Tensor = _GroupNorm.apply(h, gain, shift, self.num_groups, gelu)  # type: ignore[no-untyped-call]
        return out


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
        for row, (x, dx, dy) in _slabs(len(gain), h, out, grad.contiguous()):
            x, dz = x.float(), dy.float()
            inverse = _inverse_rms(x)
            normed = x * inverse
            if ctx.gelu:
                z = normed * gain[row] if shift is None else torch.addcmul(shift[row], normed, gain[row])
                dz = _gelu_backward(dz, z)
            if dshift is not None:
                dshift[row] += dz.sum(0)
            product = dz * normed
            dgain[row] += product.sum(0)
            along = (product @ gain[row])[:, None].div_(-x.shape[-1])
            dx.copy_(torch.addcmul(dz.mul(gain[row]), normed, along).mul_(inverse))
        return out, dgain, dshift, None


class _GroupNorm(torch.autograd.Function):
    """gain and shift: [N, C]; two walks forward (moments, then the rest) and two back (sums, then the gradient)."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, gain: Tensor, shift: Tensor, groups: int, gelu: bool) -> Tensor:
        mean, inverse = _moments(h, groups)
        slope = inverse * gain
        offset = shift - mean * slope
        ctx.save_for_backward(h, gain, mean, inverse, offset)
        ctx.groups, ctx.gelu = groups, gelu
        out = torch.empty_like(h)
        for row, (x, y) in _slabs(len(h), h, out):
            z = torch.addcmul(offset[row], x.float(), slope[row])
            y.copy_(_gelu_(z) if gelu else z)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, gain, mean, inverse, offset = ctx.saved_tensors
        out, slope = torch.empty_like(h), inverse * gain
        total, product = torch.zeros_like(gain), torch.zeros_like(gain)
        for row, (x, dx, dy) in _slabs(len(h), h, out, grad.contiguous()):
            x, dz = x.float(), dy.float()
            if ctx.gelu:
                dz = _gelu_backward(dz, torch.addcmul(offset[row], x, slope[row]))
            total[row] += dz.sum(0)
            product[row] += (dz * x).sum(0)
            dx.copy_(dz)
        # sums over a group of dz · gain and of dz · gain · x give every gradient (Wu and He 2018, eq. 1)
        count = h.shape[1:].numel() // ctx.groups
        group_total, group_product = (_of_group(gain * values, ctx.groups) for values in (total, product))
        bend = (group_total * mean - group_product) * inverse**3 / count
        level = -bend * mean - group_total * inverse / count
        for row, (x, dx) in _slabs(len(h), h, out):
            dx.copy_(torch.addcmul(level[row], x.float(), bend[row]).addcmul_(dx.float(), slope[row]))
        return out, (product - mean * total) * inverse, total, None, None


def _forward(h: Tensor, gain: Tensor, shift: Tensor | None, gelu: bool, out: Tensor) -> Tensor:
    for row, (x, y) in _slabs(len(gain), h, out):
        x = x.float()
        x = torch.mul(x, _inverse_rms(x), out=y) if y.dtype == x.dtype else x.mul_(_inverse_rms(x))
        x = x.mul_(gain[row]) if shift is None else torch.addcmul(shift[row], x, gain[row], out=x)
        x = _gelu_(x) if gelu else x
        if x is not y:
            y.copy_(x)
    return out


def _inverse_rms(x: Tensor) -> Tensor:
    """[P, C] -> [P, 1]."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(EPS).rsqrt_()


def _moments(h: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation of each channel's group, both [N, C]."""
    total = torch.zeros(2, len(h), h.shape[-1], dtype=torch.float64)
    for row, (x,) in _slabs(len(h), h):
        x = x.float()
        total[0, row] += x.sum(0)
        total[1, row] += x.square().sum(0)
    mean, square = (_of_group(values, groups) * groups / h.shape[1:].numel() for values in total)
    return mean.float(), (square - mean.square()).clamp(min=0).add(EPS).rsqrt().float()


def _of_group(values: Tensor, groups: int) -> Tensor:
    """The sum over its group, for every channel: [N, C] -> [N, C]."""
    sums = values.unflatten(1, (groups, -1)).sum(-1)
    return sums.repeat_interleave(values.shape[1] // groups, 1)


def _gelu_(x: Tensor) -> Tensor:
    """GELU (tanh) in place, as x · sigmoid(x · (a + b · x²)): a sigmoid takes a third of a tanh's time."""
    return x.mul_(x.square().mul_(CUBIC).add_(LINEAR).mul_(x).sigmoid_())


def _gelu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """grad · s · (1 + x · (a + 3 b · x²) · (1 − s)), s = sigmoid(x · (a + b · x²))."""
    square = x.square()
    share = torch.mul(square, CUBIC).add_(LINEAR).mul_(x).sigmoid_()
    slope = square.mul_(3 * CUBIC).add_(LINEAR).mul_(x)
    return slope.addcmul_(slope, share, value=-1).add_(1).mul_(share).mul_(grad)


def _slabs(items: int, *maps: Tensor) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Pieces [P, C] of contiguous maps of one shape, each with the number of its item (1 item: all of them as one)."""
    channels = maps[0].shape[-1]
    step = max(1, SLAB * torch.get_num_threads() // channels)
    rows = [each.view(items, -1, channels) for each in maps]
    for row in range(items):
        for start in range(0, rows[0].shape[1], step):
            yield row, tuple(each[row, start : start + step] for each in rows)
