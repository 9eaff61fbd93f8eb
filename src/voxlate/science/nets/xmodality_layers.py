"""The layers of the four networks of paper 001. Maps are [N, H, W, C] in memory, so that 1x1 convolutions are plain products."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.errors import BadInput
from voxlate.science.nets import cpu
from voxlate.science.nets.blocks import (
    Norm,
    cut_far,
    exact,
    noise_level,
    pad_far,
    sinusoids,
    to_slices,
    to_volumes,
)
from voxlate.science.nets.interface import Channels, NetworkInput, Output

EPS = 1e-6
MOST_SCORES = (
    1 << 26
)  # products of queries and keys of a layer that are kept for their gradient, in 128 MiB
MLP_RATIO = 4  # width of gated layers over that of tokens, in both published transformers
Init = Callable[[Tensor], object]
MakeNorm = Callable[[int], nn.Module]


class Dense(nn.Linear):
    """A product with bias over the last axis, which starts Glorot-uniform with bias 0."""

    def __init__(self, ins: int, outs: int, init: Init = nn.init.xavier_uniform_) -> None:
        self.init = init
        super().__init__(ins, outs)

    def reset_parameters(self) -> None:
        """Draw the weights, and set the bias to 0."""
        self.init(self.weight)
        nn.init.zeros_(self.bias)


class ExactDense(Dense):
    """The same in float32 whatever autocast says: for the time and the output layer, where rounding shows."""

    def forward(self, h: Tensor) -> Tensor:
        """[..., ins] -> [..., outs] in float32."""
        with exact(h.device):
            return super().forward(h.float())


class Conv(nn.Conv2d):
    """A convolution of [N, H, W, C] that keeps the size, Glorot-uniform with bias 0."""

    def __init__(self, ins: int, outs: int, size: int) -> None:
        super().__init__(ins, outs, size, padding=size // 2)

    def reset_parameters(self) -> None:
        """Draw the weights, and set the bias to 0."""
        nn.init.xavier_uniform_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, h: Tensor) -> Tensor:
        """[N, H, W, ins] -> [N, H, W, outs]."""
        return super().forward(h.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


def lecun_normal_(weight: Tensor) -> None:
    """A normal cut at two standard deviations, and 1 / √ins wide after the cut (LeCun et al. 1998, sec. 4.6)."""
    std = 1 / math.sqrt(weight.shape[1]) / 0.87962566103423978
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def position_embedding(height: int, width: int, size: int, device: torch.device) -> Tensor:
    """[H·W, size]: sines and cosines of the column, then of the row (Vaswani et al. 2017, in two dimensions)."""
    quarter = size // 4
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    parts = [
        *sinusoids(columns, 2 * quarter, quarter - 1),
        *sinusoids(rows, 2 * quarter, quarter - 1),
    ]
    return torch.cat(parts, dim=-1).flatten(0, 1)


class RMSNorm(nn.Module):
    """h / rms(h) · weight, then · (1 + scale) + shift and GELU where asked; Zhang and Sennrich 2019, eq. 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, h: Tensor, modulation: Tensor | None = None, gelu: bool = False) -> Tensor:
        """modulation: [N, 2 C], scale then shift."""
        gain = self.weight[None]
        shift = None
        if modulation is not None:
            scale, shift = modulation.chunk(2, dim=-1)
            gain = gain * (1 + scale)
        return rms_norm(h, gain, shift, gelu)


class GroupNorm(Norm):
    """Group normalisation of [N, H, W, C] with as many groups as asked, then as `RMSNorm`."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, groups)
        # Norm would take fewer groups for few channels
        self.num_groups = groups
        self.eps = EPS

    def forward(self, h: Tensor, modulation: Tensor | None = None, gelu: bool = False) -> Tensor:
        """A map of the same shape; arguments as of `RMSNorm`."""
        h = super().forward(h.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        if modulation is not None:
            scale, shift = modulation.to(h.dtype)[:, None, None].chunk(2, dim=-1)
            h = torch.addcmul(shift, h, 1 + scale)
        return F.gelu(h, approximate="tanh") if gelu else h


def rms_norm(h: Tensor, gain: Tensor, shift: Tensor | None = None, gelu: bool = False) -> Tensor:
    """f(h / rms(h) · gain + shift) over the last axis, computed in float32, given in h's precision.

    f: GELU (tanh) or none; h: [N, ..., C]; gain: [N or 1, C]; shift: like gain.
    """
    spread = (gain.shape[0], *(1 for _ in h.shape[1:-1]), gain.shape[1])
    x = h.float()
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * gain.view(spread)
    x = x if shift is None else x + shift.view(spread)
    return (F.gelu(x, approximate="tanh") if gelu else x).to(h.dtype)


class Attention(nn.Module):
    """Self-attention among the tokens of [..., T, C]; on a map these are the pixels of one row."""

    def __init__(self, channels: int, heads: int, init: Init = nn.init.xavier_uniform_) -> None:
        super().__init__()
        if channels % heads:
            raise BadInput(
                f"net.heads: expected a divisor of {channels} channels, found {heads}. Change it."
            )
        self.heads = heads
        self.qkv = Dense(
            channels, 3 * channels, lambda weight: [init(part) for part in weight.detach().chunk(3)]
        )
        self.out = Dense(channels, channels, init)

    def forward(self, h: Tensor) -> Tensor:
        """Tokens of the same shape."""
        mixed = attend(self.qkv(h).view(-1, h.shape[-2], 3, self.heads, h.shape[-1] // self.heads))
        return self.out(mixed.reshape(h.shape))


class AttentionLayer(nn.Module):
    """h + attention(norm(h)); whole: among all pixels of a map [N, H, W, C] instead of those of a row."""

    def __init__(self, channels: int, heads: int, whole: bool = False) -> None:
        super().__init__()
        self.whole = whole
        self.norm = RMSNorm(channels)
        self.attention = Attention(channels, heads)

    def forward(self, h: Tensor) -> Tensor:
        """A map of the same shape."""
        tokens = self.norm(h)
        mixed = self.attention(tokens.flatten(1, -2) if self.whole else tokens)
        return h + mixed.view(h.shape)


def attend(qkv: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v: [B, T, 3, heads, d] -> [B, T, heads, d]."""
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    trains = cpu.usable(qkv) and qkv.requires_grad and qkv.dtype == torch.bfloat16
    if trains and query.shape[:3].numel() * query.shape[2] <= MOST_SCORES:
        # torch's kernel has a slow backward pass there: a step of a small ADM takes 1.4 times as long with it
        scores = (query * query.shape[-1] ** -0.5) @ key.mT
        mixed = scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
    else:
        mixed = F.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2)


class TimeEmbedding(nn.Module):
    """log-SNR [N] -> [N, 4 width], with the GELU that every user of it starts with."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.first = ExactDense(width, 4 * width)
        self.second = ExactDense(4 * width, 4 * width)

    def forward(self, log_snr: Tensor) -> Tensor:
        """The embedding of the log-SNR."""
        sines, cosines = sinusoids(log_snr, self.width, self.width // 2 - 1)
        h = F.gelu(self.first(torch.cat([sines, cosines], dim=-1)), approximate="tanh")
        return F.gelu(self.second(h), approximate="tanh")


class Block(nn.Module):
    """3x3 convolution, norm, scale and shift, GELU."""

    def __init__(self, ins: int, outs: int, norm: MakeNorm) -> None:
        super().__init__()
        self.conv = Conv(ins, outs, 3)
        self.norm = norm(outs)

    def forward(self, h: Tensor, modulation: Tensor | None = None) -> Tensor:
        """[N, H, W, ins] -> [N, H, W, outs]; modulation: as of `RMSNorm`."""
        return self.norm(self.conv(h), modulation, gelu=True)


class ResNetBlock(nn.Module):
    """Two blocks, the first of which is modulated by the time.

    `dim` is the declared width of the input, `ins` the real one. Only where the declared width differs from `outs` is
    there a skip, a 1x1 convolution: the published networks have no identity skips.
    """

    def __init__(
        self, dim: int, outs: int, norm: MakeNorm, embedding: int = 0, ins: int | None = None
    ) -> None:
        super().__init__()
        ins = dim if ins is None else ins
        self.time = ExactDense(embedding, 2 * outs) if embedding else None
        self.block1 = Block(ins, outs, norm)
        self.block2 = Block(outs, outs, norm)
        self.skip = Dense(ins, outs) if dim != outs else None

    def forward(self, h: Tensor, embedding: Tensor | None = None) -> Tensor:
        """[N, H, W, ins] -> [N, H, W, outs]; embedding: [N, C]."""
        out = self.block2(self.block1(h, None if self.time is None else self.time(embedding)))
        return out if self.skip is None else self.skip(h).add_(out)


class SwiGLU(nn.Module):
    """silu(gate) · value, scaled and shifted by the time where there is one, and back (Shazeer 2020, eq. 6)."""

    def __init__(self, channels: int, embedding: int = 0) -> None:
        super().__init__()
        hidden = MLP_RATIO * channels
        self.time = Dense(embedding, 2 * hidden) if embedding else None
        self.gate = Dense(channels, hidden)
        self.value = Dense(channels, hidden)
        self.out = Dense(hidden, channels)

    def forward(self, h: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Tokens [N, T, C] of the same shape; embedding: [N, C]."""
        h = F.silu(self.gate(h)) * self.value(h)
        if self.time is not None:
            scale, shift = self.time(embedding)[:, None].chunk(2, dim=-1)
            h = torch.addcmul(shift, h, 1 + scale)
        return self.out(h)


class Down(nn.Module):
    """Every 2x2 pixels to one: pixel-unshuffle and a product, which together are a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense = Dense(4 * channels, channels)

    def forward(self, h: Tensor) -> Tensor:
        """[N, H, W, C] -> [N, H/2, W/2, C]."""
        channels = h.shape[-1]
        kernel = self.dense.weight.view(channels, channels, 2, 2).contiguous(
            memory_format=torch.channels_last
        )
        out = F.conv2d(h.permute(0, 3, 1, 2), kernel, self.dense.bias, stride=2)
        return out.permute(0, 2, 3, 1).contiguous()


class Up(nn.Module):
    """A product, GELU and pixel-shuffle: every pixel to 2x2 (Shi et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense = Dense(channels, 4 * channels)

    def forward(self, h: Tensor) -> Tensor:
        """[N, H, W, C] -> [N, 2 H, 2 W, C]."""
        items, height, width, channels = h.shape
        # weights are sorted so that the channels of a new pixel are neighbours, and pixels move as a whole
        weight = (
            self.dense.weight.view(channels, 4, channels)
            .transpose(0, 1)
            .reshape(4 * channels, channels)
        )
        bias = self.dense.bias.view(channels, 4).t().reshape(-1)
        h = F.gelu(F.linear(h, weight, bias), approximate="tanh").view(
            items, height, width, 2, 2 * channels
        )
        return h.transpose(2, 3).reshape(items, 2 * height, 2 * width, channels)


class Backbone(nn.Module, ABC):
    """A network that works slice by slice, on images of any size; `time` makes the embedding of the noise level.

    Its first layer sees the images, then the state (with state_first the other way round). width: of the time's
    features, which become 4 times as many; 0 where the network has a `time` of its own.
    """

    state_first: ClassVar[bool] = False
    time: nn.Module | None

    def __init__(self, multiple: int, channels: Channels, width: int = 0) -> None:
        super().__init__()
        self.multiple = multiple
        self.noisy = channels.noisy
        self.embedding = 4 * width if channels.noisy else 0
        self.time = TimeEmbedding(width) if self.embedding else None

    @abstractmethod
    def slices(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        """[N, H, W, C] -> [N, H, W, C_out]; height and width are multiples of `multiple`."""

    def forward(self, inputs: NetworkInput) -> Output:
        """The image."""
        state = inputs.state
        image = inputs.joined
        if state is not None and not self.state_first:
            image = torch.cat([*inputs.images.values(), state], dim=1)
        depth = image.shape[2]
        padded = to_slices(pad_far(image, self.multiple))
        h = padded.permute(0, 2, 3, 1).contiguous()
        log_snr = (
            noise_level(inputs.log_snr).repeat_interleave(depth)
            if self.noisy
            else h.new_zeros(len(h))
        )
        out = self.slices(h, None if self.time is None else self.time(log_snr))
        return Output(cut_far(to_volumes(out.permute(0, 3, 1, 2), depth), image))
