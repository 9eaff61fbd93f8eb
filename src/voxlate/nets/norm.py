"""Group normalisation, with its SiLU, that keeps up with the convolutions around it on a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def group_count(channels: int, most: int) -> int:
    """The largest number of groups up to `most` that divides the channels and leaves two in each."""
    limit = max(1, min(most, channels // 2))
    return next(groups for groups in range(limit, 0, -1) if channels % groups == 0)


class Norm(nn.GroupNorm):
    """Group normalisation (and SiLU, where asked) in the precision of its input, with float32 statistics."""

    def __init__(self, channels: int, groups: int, silu: bool = False) -> None:
        super().__init__(group_count(channels, groups), channels)
        self.silu = silu

    def forward(self, h: Tensor) -> Tensor:
        if h.device.type == "cpu" and not torch.compiler.is_compiling():  # a compiler fuses the plain form by itself
            out: Tensor = _GroupNorm.apply(  # type: ignore[no-untyped-call]
                h, self.weight, self.bias, self.num_groups, self.eps, self.silu
            )
            return out
        if not h.is_cuda:
            h = F.group_norm(h, self.num_groups, self.weight, self.bias, self.eps)
            return F.silu(h) if self.silu else h
        with torch.autocast("cuda", enabled=False):  # it would cast the whole map to float32 and back
            h = F.group_norm(h, self.num_groups, self.weight.to(h.dtype), self.bias.to(h.dtype), self.eps)
            return F.silu(h) if self.silu else h


class _GroupNorm(torch.autograd.Function):
    """The CPU's own forward kernel with another backward: torch's is 5 to 20 times slower on channels-last bfloat16.

    The normalised map is not kept but made again, so that training holds one map less per norm.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
        sizes = x.shape[0], x.shape[1], x.shape[2:].numel(), groups
        out, mean, rstd = torch.native_group_norm(x, weight, bias, *sizes, eps)
        ctx.save_for_backward(x, weight, bias, mean.float(), rstd.float())
        ctx.sizes, ctx.eps, ctx.silu = sizes, eps, silu
        return F.silu(out, inplace=True) if silu else out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        items, channels, pixels, groups = ctx.sizes
        if ctx.silu:
            normed, _, _ = torch.native_group_norm(x, weight, bias, items, channels, pixels, groups, ctx.eps)
            grad = torch.ops.aten.silu_backward(grad, normed)
        total = _pixel_sum(grad)  # [B, C]: sums of dy and of dy * x give every gradient (Wu and He 2018, eq. 1)
        product = _pixel_sum(grad * x)
        count = pixels * channels // groups
        per_group = (items, groups, channels // groups)
        group_total = (total * weight).view(per_group).sum(2)
        group_product = (product * weight).view(per_group).sum(2)
        slope = (group_total * mean - group_product) * rstd**3 / count
        offset = -slope * mean - group_total * rstd / count
        spread = [(items, channels, *(1 for _ in x.shape[2:]))]

        def each(values: Tensor) -> Tensor:  # [B, groups] -> one number a channel, beside the map
            return values.repeat_interleave(channels // groups, 1).view(*spread).to(x.dtype)

        scale = (rstd.repeat_interleave(channels // groups, 1) * weight).view(*spread).to(x.dtype)
        dx = torch.addcmul(torch.addcmul(each(offset), x, each(slope)), grad, scale)
        wide_mean, wide_rstd = (values.repeat_interleave(channels // groups, 1) for values in (mean, rstd))
        dweight = ((product - wide_mean * total) * wide_rstd).sum(0)
        return dx, dweight.to(weight.dtype), total.sum(0).to(bias.dtype), None, None, None


def _pixel_sum(h: Tensor) -> Tensor:
    """[B, C, ...] -> [B, C] in float32; rows first, because bfloat16 sums straight to float32 are not vectorised."""
    rows = h.movedim(1, -1).sum(-2)
    return rows.flatten(1, -2).sum(1, dtype=torch.float32)
