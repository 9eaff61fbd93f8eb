"""What torch does badly on a CPU: group norms in bfloat16 are slow, and some gradients in bfloat16 are wrong.

A kernel is kept where it gains 10 % of a planned training step (docs/reference/measured.md).
"""

import functools
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

CANCELS = 2.0  # square of a mean over the variance from which the difference of sums loses digits


def usable(h: Tensor) -> bool:
    """Whether a map is on a CPU, and not compiled or exported: compilers and ONNX have kernels of their own."""
    made_elsewhere = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return h.device.type == "cpu" and not made_elsewhere


def group_norm(
    h: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> Tensor:
    """`silu(group_norm(h))`, or without the SiLU, in the precision of h with float32 statistics."""
    if h.movedim(1, -1).is_contiguous():
        return _GroupNorm.apply(h, weight, bias, groups, eps, silu)
    out = torch.native_group_norm(
        h, weight, bias, len(h), h.shape[1], h.shape[2:].numel(), groups, eps
    )[0]
    return F.silu(out) if silu else out


class _GroupNorm(torch.autograd.Function):
    """Of channels-last maps, as rows (see `_rows`); what belongs to groups is kept for each channel, [B, C].

    torch's backward is 5 to 20 times slower on such maps. The normalised map is not kept but made again, so that
    training holds one map less per norm.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
    ) -> Tensor:
        """The normalised map, after a SiLU where asked."""
        out, mean, rstd = _normalise(x, weight, bias, groups, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.groups = groups
        ctx.silu = silu
        return F.silu(out, inplace=True) if silu else out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias."""
        x, weight, bias, mean, rstd = ctx.saved_tensors
        mean, rstd = (
            each.float().repeat_interleave(len(weight) // ctx.groups, 1) for each in (mean, rstd)
        )
        # slopes: of the loss with respect to the normalised map
        rows = _rows(x)
        slopes = _rows(grad)
        scale = rstd * weight
        wide_scale = _spread(scale, rows)
        if ctx.silu:
            shift = torch.addcmul(bias, mean, scale, value=-1)
            normed = torch.addcmul(_spread(shift, rows), rows, wide_scale)
            slopes = torch.ops.aten.silu_backward.grad_input(slopes, normed, grad_input=normed)
        total = _pixel_sum(slopes, len(weight))
        product = _pixel_sum(slopes * rows, len(weight))
        # the sums of dy and of dy · x give every gradient (Wu and He 2018, eq. 1)
        over_group = _over_group(len(weight), ctx.groups)
        count = x.shape[2:].numel()
        away = torch.addcmul(product, total, mean, value=-1).mul_(rstd)  # sums of dy · normalised x
        per_pixel = rstd / -count
        slope = torch.mm(away * weight, over_group).mul_(rstd).mul_(per_pixel)
        offset = (
            torch.mm(total * weight, over_group).mul_(per_pixel).addcmul_(slope, mean, value=-1)
        )
        dx = torch.addcmul(_spread(offset, rows), rows, _spread(slope, rows)).addcmul_(
            slopes, wide_scale
        )
        return (
            _image(dx, x),
            away.sum(0).to(weight.dtype),
            total.sum(0).to(bias.dtype),
            None,
            None,
            None,
        )


def _normalise(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`group_norm(x)`, means and reciprocal standard deviations, [B, groups].

    torch takes a variance as the difference of two sums, which cancel where a map hardly varies, as that of a slice
    with little body: such items are centred first.
    """
    sizes = (x.shape[1], x.shape[2:].numel(), groups, eps)
    out, mean, rstd = torch.native_group_norm(x, weight, bias, len(x), *sizes)
    flat = ((mean * rstd).square() > CANCELS).any(1).nonzero()[:, 0]
    if len(flat):
        part = x[flat].float()
        centre = mean[flat].float().repeat_interleave(x.shape[1] // groups, 1)
        part = part - centre.view(*centre.shape, *(1 for _ in x.shape[2:]))
        centred, off, inverse = torch.native_group_norm(part, weight, bias, len(flat), *sizes)
        out[flat] = centred.to(out.dtype)
        mean[flat] += off.to(mean.dtype)
        rstd[flat] = inverse.to(rstd.dtype)
    return out, mean, rstd


@functools.lru_cache(maxsize=64)
def _over_group(channels: int, groups: int) -> Tensor:
    """[C, C]: what values of channels are multiplied by to become the mean of their group, in each of its channels."""
    size = channels // groups
    return torch.block_diag(*[torch.full((size, size), 1 / size)] * groups)


def _rows(h: Tensor) -> Tensor:
    """[B, C, (D,) H, W] -> [B, P, C] of its pixels, [B, (D *) H, W * C] in bfloat16; a view of channels-last memory.

    What is spread over pixels is then repeated in rows: in bfloat16, with 16 channels, long ones are 10 times faster.
    """
    line = 1 if h.dtype == torch.float32 else h.shape[-1]
    return h.movedim(1, -1).reshape(len(h), -1, line * h.shape[1])


def _image(rows: Tensor, like: Tensor) -> Tensor:
    """The reverse of `_rows`."""
    return rows.view(len(like), *like.shape[2:], -1).movedim(-1, 1)


def _spread(values: Tensor, rows: Tensor) -> Tensor:
    """[B, C] -> what can be multiplied with rows, in their precision."""
    line = rows.shape[2] // values.shape[1]
    values = values.to(rows.dtype).unsqueeze(1)
    return values if line == 1 else values.expand(-1, line, -1).reshape(len(values), 1, -1)


def _pixel_sum(rows: Tensor, channels: int) -> Tensor:
    """[B, C] in float32; rows first, as bfloat16 sums straight to float32 are not vectorised."""
    return rows.sum(1).view(len(rows), -1, channels).sum(1, dtype=torch.float32)


def volumes_in_float32(device: torch.device) -> AbstractContextManager[Any]:
    """Within it, training steps in bfloat16 compute convolutions over volumes in float32 where bfloat16 is unsafe.

    On a CPU with AMX, torch 2.13 (oneDNN) computes their weights' gradients in bfloat16 wrongly from widths of about 96
    voxels on: it gives NaN or writes beyond its memory. ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 avoids it, too.
    """
    return _VolumesInFloat32() if device.type == "cpu" and _multiplies_tiles() else nullcontext()


@functools.cache
def _multiplies_tiles() -> bool:
    """Whether oneDNN uses the CPU's AMX instructions."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return torch.cpu._is_amx_tile_supported() and (
        not limit or limit == "DEFAULT" or "AMX" in limit
    )


class _VolumesInFloat32(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        if function not in (torch.conv3d, torch.conv_transpose3d) or not torch.is_autocast_enabled(
            "cpu"
        ):
            return function(*args, **named)
        with torch.autocast("cpu", enabled=False):
            return function(
                *map(_exact, args), **{name: _exact(value) for name, value in named.items()}
            )


def _exact(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value
