"""Kernels for training on a CPU, where torch's own are slow; elsewhere, and compiled, the plain forms run.

Gains are of whole training steps: how much longer a step takes without the kernel, medians of turns on one thread of an
AMD EPYC, torch 2. Kernels that gain less than 5 % on every network are not kept.
"""

import functools
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Numbers that a thread works on at a time, so that they and what is made of them stay in its second-level cache:
SLAB = 1 << 16  # of a map
SCORES = 1 << 18  # of products of queries and keys, in bfloat16
FAST = 1024  # pixels of a map from which torch's group norm is fast
CANCELS = 2.0  # square of a mean over the variance from which the difference of sums loses digits
LONGEST = 1024  # tokens; of more, the scores of one item would be too many to hold

RMS_EPS = 1e-6
LINEAR = (
    2 * (2 / math.pi) ** 0.5
)  # tanh GELU is x · sigmoid(LINEAR · x + CUBIC · x³): Hendrycks and Gimpel 2016
CUBIC = 0.044715 * LINEAR


def usable(h: Tensor) -> bool:
    """Whether a map is one for these kernels; compilers and ONNX make kernels of their own from the plain forms."""
    made_elsewhere = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return h.device.type == "cpu" and not made_elsewhere


def enlarge_conv(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv2d(enlarge(h, 2)[..., 1:-1, 1:-1], weight, bias)` with 4 instead of 9 products a pixel (Shi et al. 2016).

    h: with a border of one pixel, of which the enlarged map keeps half. Two neighbours of an enlarged pixel are copies
    of one, so the output at each of the four positions inside a pixel of h is a 2x2 convolution of h, whose weights are
    sums of those of the 3x3 one.
    Gain: 7 % (width 32, 128², bfloat16), 5 % (the same in float32), none at width 64 and 256².
    """
    columns = _pair_sums(weight, 3)
    height = h.shape[2] - 2
    width = h.shape[3] - 2
    out = []
    for row in range(2):
        line = []
        for column in range(2):
            kernel = _pair_sums(columns[column], 2)[row]
            position = F.conv2d(h, kernel.contiguous(memory_format=torch.channels_last), bias)
            line.append(
                position[..., row : row + height, column : column + width].permute(0, 2, 3, 1)
            )
        out.append(torch.stack(line, dim=3))
    return (
        torch.stack(out, dim=2).reshape(h.shape[0], 2 * height, 2 * width, -1).permute(0, 3, 1, 2)
    )


def _pair_sums(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Three taps as two, for the first and for the second of two equal pixels."""
    first, middle, last = weight.unbind(dim)
    return torch.stack([first, middle + last], dim), torch.stack([first + middle, last], dim)


def group_norm(
    h: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> Tensor:
    """`silu(group_norm(h))`, or without the SiLU, in the precision of h with float32 statistics.

    Gain: 42 % (default network, 256², bfloat16), 64 % (width 32, 128²), 34 % (paper 001's U-Net).
    """
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
        if mean.shape != (len(x), len(weight)):
            mean, rstd = (
                each.float().repeat_interleave(len(weight) // ctx.groups, 1)
                for each in (mean, rstd)
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
    """`group_norm(x)`, means and reciprocal standard deviations, [B, C], or [B, groups] of a large map.

    torch's kernel is up to 10 times slower on channels-last maps of fewer than 1,024 pixels than on those of more. It
    takes a variance as the difference of two sums, which cancel where a map hardly varies, as that of a slice with
    little body: such items are centred first.
    """
    count = x.shape[2:].numel()
    if count < FAST:
        return _centred(x, weight, bias, groups, eps)
    channels = x.shape[1]
    out, mean, rstd = torch.native_group_norm(x, weight, bias, len(x), channels, count, groups, eps)
    sound = (mean * rstd).square() <= CANCELS  # false for NaN, too
    if not sound.all():
        flat = (~sound).any(1).nonzero()[:, 0]
        centred = _centred(x[flat], weight, bias, groups, eps)
        for whole, part in zip((out, mean, rstd), centred):
            kept = part if part.ndim > 2 else part[:, :: channels // groups]
            whole[flat] = kept.to(whole.dtype)
    return out, mean, rstd


def _centred(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`group_norm(x)`, means and reciprocal standard deviations, [B, C], of a map from which its mean is taken first."""
    channels = x.shape[1]
    count = x.shape[2:].numel()
    rows = _rows(x.float())
    over_group = _over_group(channels, groups)
    mean = torch.mm(_pixel_sum(rows, channels), over_group).div_(count)
    centred = rows - _spread(mean, rows)
    rstd = (
        torch.mm(_pixel_sum(centred.square(), channels), over_group).div_(count).add_(eps).rsqrt_()
    )
    out = torch.addcmul(bias, centred, _spread(rstd * weight, rows))
    return _image(out.to(x.dtype), x), mean, rstd


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


def rms_norm(h: Tensor, gain: Tensor, shift: Tensor | None, gelu: bool) -> Tensor:
    """`gelu(h / rms(h) · gain + shift)` or without the GELU (tanh), over the last axis of [N, ..., C], slab by slab.

    gain: [N or 1, C]; shift: like gain. Computed in float32, given in h's precision; where no gradient is asked for,
    gelu overwrites h. Gain: 7 % (paper 001's ADM at 128² and its DiT at 256², bfloat16; ADM at 256², float32).
    """
    if torch.is_grad_enabled() and (h.requires_grad or gain.requires_grad):
        return _RMSNorm.apply(h, gain, shift, gelu)
    return _rms_forward(h, gain, shift, gelu, h if gelu else torch.empty_like(h))


class _RMSNorm(torch.autograd.Function):
    """Keeps the input only: what is made of it is made again, slab by slab, in the backward pass."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, gain: Tensor, shift: Tensor | None, gelu: bool) -> Tensor:
        """The normalised map, after a GELU where asked."""
        ctx.save_for_backward(h, gain, shift)
        ctx.gelu = gelu
        return _rms_forward(h, gain, shift, gelu, torch.empty_like(h))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of h, gain and shift."""
        h, gain, shift = ctx.saved_tensors
        out = torch.empty_like(h)
        dgain = torch.zeros_like(gain)
        dshift = None if shift is None else torch.zeros_like(shift)
        for row, (x, dx, dy) in _slabs(len(gain), h, out, grad.contiguous()):
            x = x.float()
            dz = dy.float()
            inverse = _inverse_rms(x)
            normed = x * inverse
            if ctx.gelu:
                z = (
                    normed * gain[row]
                    if shift is None
                    else torch.addcmul(shift[row], normed, gain[row])
                )
                dz = _gelu_backward(dz, z)
            if dshift is not None:
                dshift[row] += dz.sum(0)
            product = dz * normed
            dgain[row] += product.sum(0)
            along = (product @ gain[row])[:, None].div_(-x.shape[-1])
            dx.copy_(torch.addcmul(dz.mul(gain[row]), normed, along).mul_(inverse))
        return out, dgain, dshift, None


def _rms_forward(h: Tensor, gain: Tensor, shift: Tensor | None, gelu: bool, out: Tensor) -> Tensor:
    for row, (x, y) in _slabs(len(gain), h, out):
        x = x.float()
        x = torch.mul(x, _inverse_rms(x), out=y) if y.dtype == x.dtype else x.mul_(_inverse_rms(x))
        x = x.mul_(gain[row]) if shift is None else torch.addcmul(shift[row], x, gain[row], out=x)
        x = gelu_(x) if gelu else x
        if x is not y:
            y.copy_(x)
    return out


def _inverse_rms(x: Tensor) -> Tensor:
    """[P, C] -> [P, 1]."""
    return (
        torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        .square_()
        .div_(x.shape[-1])
        .add_(RMS_EPS)
        .rsqrt_()
    )


def gelu_(x: Tensor) -> Tensor:
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


class Attend(torch.autograd.Function):
    """softmax(q kᵀ / √d) v of [B, T, 3, heads, d]: the CPU's own forward kernel with another backward.

    Gain: 59 % (paper 001's ADM, 128², bfloat16), 32 % (U-ViT), 7 % (DiT); in float32 torch's own is as fast.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor) -> Tensor:
        """Mixed values [B, T, heads, d]."""
        ctx.save_for_backward(qkv)
        return F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """The gradient of qkv, a few items at a time."""
        (qkv,) = ctx.saved_tensors
        items, tokens, _, heads, width = qkv.shape
        out = torch.empty_like(qkv)
        scale = width**-0.5
        step = max(1, SCORES * torch.get_num_threads() // (heads * tokens**2))
        for start in range(0, items, step):
            part = slice(start, min(start + step, items))
            query, key, value = qkv[part].permute(2, 0, 3, 1, 4).reshape(3, -1, tokens, width)
            dmixed = grad[part].transpose(1, 2).reshape(-1, tokens, width)
            share = torch.bmm(query, key.transpose(1, 2)).mul_(scale).softmax(-1)
            dshare = torch.bmm(dmixed, value.transpose(1, 2))
            dscore = torch._softmax_backward_data(dshare, share, -1, share.dtype).mul_(scale)
            parts = (
                torch.bmm(dscore, key),
                torch.bmm(dscore.transpose(1, 2), query),
                torch.bmm(share.transpose(1, 2), dmixed),
            )
            out[part] = torch.stack(parts).view(3, -1, heads, tokens, width).permute(1, 3, 0, 2, 4)
        return out


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
