"""The layers of networks: norms, one residual block, its resampling, attention, and embeddings of numbers.

Networks hand their blocks channels-last maps of slices `[B*D, C, H, W]`, so that norms are per slice. `depth` (D) is
passed with the map, because a folded batch no longer says where one volume ends.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import Counts, setting, settings
from voxlate.science.nets import cpu

AUTOCAST = ("cpu", "cuda", "xpu", "mps")  # torch is not asked: before 2.13 it cannot compile that
NORM_EPS = 1e-5  # added to a variance; as torch has it
MAX_PERIOD = 10_000.0  # of the sinusoids: Vaswani et al. 2017, sec. 3.5
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.ConvTranspose3d)
LOG_SNR_LIMIT = 40.0  # float32 cannot tell sigma from 0 beyond it, and infinity (flow matching's limits) has no sine

# keys of the networks that are made of these layers
Width = Annotated[int, setting("Number of channels at full resolution.", gt=0)]
Blocks = Annotated[
    int,
    setting(
        "Number of residual blocks at each level of the encoder; the decoder has one more.", gt=0
    ),
]
Multipliers = Annotated[
    Counts,
    setting("Channels of each level over width; each level halves the size.", min_length=1),
]
Groups = Annotated[
    int,
    setting(
        "Number of groups of a norm; fewer where a group would have less than two channels.", gt=0
    ),
]
Repeat = Literal["never", "synthesis", "always"]


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of one network share.

    embedding: its length, 0 for none; volumetric: a (3, 1, 1) convolution after every spatial one; repeat: when
    convolutions see the border repeated beyond it, not zeros.
    """

    groups: int = 32
    embedding: int = 0
    modulation: Literal["add", "scale_shift"] = "add"
    dropout: float = 0.0
    volumetric: bool = False
    zero_init: bool = True
    repeat: Repeat = "synthesis"
    norm_eps: float = NORM_EPS


def to_slices(volume: Tensor) -> Tensor:
    """[B, C, D, H, W] -> [B*D, C, H, W]."""
    return volume.transpose(1, 2).flatten(0, 1)


def to_volumes(slices: Tensor, depth: int) -> Tensor:
    """[B*D, C, H, W] -> [B, C, D, H, W]."""
    return slices.reshape(-1, depth, *slices.shape[1:]).transpose(1, 2)


def pad_far(image: Tensor, multiple: int) -> Tensor:
    """Mirror the far sides of slices [B, C, D, H, W] up to the next multiple (repeat the border of a very small image)."""
    height, width = image.shape[-2:]
    rows, columns = -height % multiple, -width % multiple
    if not (rows or columns):
        return image
    mode = "reflect" if rows < height and columns < width else "replicate"
    return F.pad(image, (0, columns, 0, rows, 0, 0), mode=mode)


def cut_far(padded: Tensor, image: Tensor) -> Tensor:
    """A map [B, C, D, H, W] without the far sides that an image was padded by, in the precision of the image."""
    depth, height, width = image.shape[2:]
    return padded[:, :, :depth, :height, :width].to(image.dtype)


def repeat_border(h: Tensor) -> Tensor:
    """Repeat the outermost pixels of a map once along both axes, as convolutions pad in synthesis.

    Zeros beyond the border are grey to a network whose background is not 0: it draws that into corners of air. In
    training zeros are better, and in synthesis, too, where corners are not synthesised or the training's patches were
    whole slices (docs/design/decisions.md).
    """
    return F.pad(h, (1, 1, 1, 1), mode="replicate")


def start_normal(module: nn.Module) -> None:
    """Draw all kernels from N(0, 0.02²), batch norms' factors about 1, and set biases to 0 (Isola et al. 2017, 6.2)."""
    for part in module.modules():
        if isinstance(part, CONVOLUTIONS):
            nn.init.normal_(part.weight, std=0.02)
        elif isinstance(part, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.normal_(part.weight, mean=1.0, std=0.02)
        if isinstance(bias := getattr(part, "bias", None), nn.Parameter):
            nn.init.zeros_(bias)


def zero_weights(module: nn.Module) -> None:
    """Set the weights of a layer, not those of its parts, to zero."""
    for parameter in module.parameters(recurse=False):
        nn.init.zeros_(parameter)


def group_count(channels: int, most: int) -> int:
    """The largest number of groups up to `most` that divides the channels and leaves two in each."""
    limit = max(1, min(most, channels // 2))
    return next(groups for groups in range(limit, 0, -1) if channels % groups == 0)


class Norm(nn.GroupNorm):
    """Group normalisation (and SiLU, where asked) in the precision of its input, with float32 statistics."""

    def __init__(
        self, channels: int, groups: int, silu: bool = False, eps: float = NORM_EPS
    ) -> None:
        super().__init__(group_count(channels, groups), channels, eps)
        self.silu = silu

    def forward(self, h: Tensor) -> Tensor:
        """The normalised map; any shape [N, C, ...]."""
        if cpu.usable(h):
            return cpu.group_norm(h, self.weight, self.bias, self.num_groups, self.eps, self.silu)
        with exact(h.device):  # autocast would cast the whole map to float32 and back
            affine = self.weight.to(h.dtype), self.bias.to(h.dtype)
            h = F.group_norm(h, self.num_groups, *affine, self.eps)
            return F.silu(h) if self.silu else h


def exact(device: torch.device) -> AbstractContextManager[object]:
    """Outside autocast, on devices that have it."""
    return torch.autocast(device.type, enabled=False) if device.type in AUTOCAST else nullcontext()


class Volumetric(nn.Module):
    """A convolution along depth that starts as the identity (Zhu et al. 2023, eq. 5-7)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.dirac_(torch.empty(channels, channels, 3)))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, h: Tensor, depth: int) -> Tensor:
        """Slices [B*D, C, H, W], convolved along their depth D; same shape."""
        slices, channels, height, width = h.shape
        # channels-last memory [B, D, H*W, C] is a picture D high and H*W wide, so that no line along D is ever copied
        volume = (
            h.permute(0, 2, 3, 1).reshape(-1, depth, height * width, channels).permute(0, 3, 1, 2)
        )
        volume = F.conv2d(volume, self.weight[..., None], self.bias, padding=(1, 0))
        return (
            volume.permute(0, 2, 3, 1).reshape(slices, height, width, channels).permute(0, 3, 1, 2)
        )


class SliceConv(nn.Conv2d):
    """A 3x3 convolution within slices, followed by one along depth where `volumetric` asks for it."""

    def __init__(self, ins: int, outs: int, options: BlockOptions, stride: int = 1) -> None:
        super().__init__(ins, outs, 3, stride=stride, padding=1)
        self.repeat = options.repeat
        self.volumetric = Volumetric(outs) if options.volumetric else None

    def forward(self, h: Tensor, depth: int) -> Tensor:  # type: ignore[override]
        """Slices [B*D, C, H, W] of volumes of this depth, convolved."""
        if self.repeat == "always" or (self.repeat == "synthesis" and not self.training):
            h = F.conv2d(repeat_border(h), self.weight, self.bias, self.stride)
        else:
            h = super().forward(h)
        return h if self.volumetric is None else self.volumetric(h, depth)


def halve(h: Tensor) -> Tensor:
    """The average over blocks of 2 x 2 pixels."""
    return F.avg_pool2d(h, 2)


def enlarge(h: Tensor) -> Tensor:
    """Every pixel of slices twice along both axes."""
    return F.interpolate(h, scale_factor=2.0, mode="nearest")


class Down(nn.Module):
    """Strided convolution."""

    def __init__(self, channels: int, options: BlockOptions) -> None:
        super().__init__()
        self.conv = SliceConv(channels, channels, options, stride=2)

    def forward(self, h: Tensor, embedding: Tensor | None, depth: int) -> Tensor:
        """A map of half the size; embedding is not used."""
        return self.conv(h, depth)


class Up(nn.Module):
    """Nearest enlargement, then a convolution."""

    def __init__(self, channels: int, options: BlockOptions) -> None:
        super().__init__()
        self.conv = SliceConv(channels, channels, options)

    def forward(self, h: Tensor, embedding: Tensor | None, depth: int) -> Tensor:
        """A map of twice the size; embedding is not used."""
        return self.conv(enlarge(h), depth)


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, and a skip; the embedding enters between them.

    modulation "add": added before the second norm (Ho et al. 2020); "scale_shift": scales and shifts after it
    (Dhariwal and Nichol 2021, sec. 3.1). resample: "down" (average) or "up" (nearest) on both branches, after the
    first norm and SiLU and before the convolution.
    """

    def __init__(
        self,
        ins: int,
        outs: int,
        options: BlockOptions,
        resample: Literal["down", "up"] | None = None,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.scale_shift = options.modulation == "scale_shift"
        self.norm1 = Norm(ins, options.groups, True, options.norm_eps)
        self.conv1 = SliceConv(ins, outs, options)
        self.embed = (
            nn.Linear(options.embedding, outs * (1 + self.scale_shift))
            if options.embedding
            else None
        )
        self.norm2 = Norm(outs, options.groups, not self.scale_shift, options.norm_eps)
        self.dropout = nn.Dropout(options.dropout)
        self.conv2 = SliceConv(outs, outs, options)
        if options.zero_init:
            zero_weights(self.conv2)
        self.skip = nn.Conv2d(ins, outs, 1) if ins != outs else nn.Identity()

    def forward(self, h: Tensor, embedding: Tensor | None, depth: int) -> Tensor:
        """A map [N, ins, ...] to [N, outs, ...]; embedding: [N, size]."""
        inner = self.norm1(h)
        if self.resample is not None:
            resample = halve if self.resample == "down" else enlarge
            inner = resample(inner)
            h = resample(h)
        inner = self.conv1(inner, depth)
        inner = self.modulate(inner, embedding)
        return self.skip(h) + self.conv2(self.dropout(inner), depth)

    def modulate(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        """The second norm and SiLU, with what the block makes of the embedding."""
        embedded = None
        if self.embed is not None and embedding is not None:
            embedded = self.embed(embedding).to(h.dtype)
            embedded = embedded.reshape(*embedded.shape, *(1 for _ in h.shape[2:]))
        if not self.scale_shift:
            return self.norm2(h if embedded is None else h + embedded)
        h = self.norm2(h)
        if embedded is not None:
            scale, shift = embedded.chunk(2, dim=1)
            h = torch.addcmul(shift, h, 1 + scale)
        return F.silu(h, inplace=not h.requires_grad)


class Attention(nn.Module):
    """Self-attention over all pixels of a slice, with a zero-initialised output layer."""

    def __init__(self, channels: int, heads: int, options: BlockOptions) -> None:
        super().__init__()
        self.heads = heads
        self.norm = Norm(channels, options.groups, eps=options.norm_eps)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        if options.zero_init:
            zero_weights(self.out)

    def forward(self, h: Tensor) -> Tensor:
        """The map [N, C, ...] plus its attention; same shape."""
        tokens = (
            self.norm(h).flatten(2).transpose(1, 2)
        )  # [N, pixels, C], a view of channels-last memory
        query, key, value = (
            self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        mixed = self.out(mixed.transpose(1, 2).flatten(2)).to(h.dtype)
        return h + mixed.transpose(1, 2).reshape(h.shape)


Of = Annotated[
    Literal["log_snr", "gamma"],
    setting(
        "Noise level that is embedded: log_snr, or gamma = alpha^2 = sigmoid(log_snr) of a VP schedule."
    ),
]
Size = Annotated[
    int | None,
    setting("Number of features; absent: the network's width.", gt=0, multiple_of=2),
]
Mlp = Annotated[
    int | None,
    setting(
        "Width of the two layers after the features; 0: no such layers; absent: 4 times the network's width.",
        ge=0,
    ),
]


@settings
class Sinusoidal:
    """Sinusoids with periods up to 10000 (Ho et al. 2020)."""

    kind: Literal["sinusoidal"] = "sinusoidal"
    of: Of = "log_snr"
    scale: Annotated[
        float,
        setting(
            "Factor on the noise level before the sinusoids; 25 spreads log_snr from -20 to 20 over 1000 steps.",
            gt=0,
        ),
    ] = 25.0
    size: Size = None
    mlp: Mlp = None


@settings
class Fourier:
    """Sines and cosines of fixed random frequencies (Song et al. 2021), with the numbers of paper 002's code."""

    of: ClassVar[str] = "log_snr"
    scale: ClassVar[float] = 0.05  # log_snr from -20 to 20 becomes -1 to 1, the times of the paper
    size: ClassVar[int] = 256  # of the features
    std: ClassVar[float] = 30.0  # of the frequencies
    mlp: ClassVar[int] = 0  # no layers after the features
    kind: Literal["fourier"] = "fourier"


def sinusoids(value: Tensor, size: int, divisor: int) -> tuple[Tensor, Tensor]:
    """Sines and cosines of value · 10000^(−k / divisor), k = 0 … size/2 − 1: [...] -> two of [..., size/2]."""
    numbers = torch.arange(size // 2, device=value.device, dtype=torch.float32)
    phase = value.float()[..., None] * torch.exp(numbers * (-math.log(MAX_PERIOD) / divisor))
    return phase.sin(), phase.cos()


class FourierFeatures(nn.Module):
    """Sines, then cosines, of 2 pi W value with fixed W ~ N(0, std^2) (Tancik et al. 2020, eq. 5): [B] -> [B, size]."""

    def __init__(self, size: int, std: float) -> None:
        super().__init__()
        self.frequency: Tensor
        self.register_buffer(
            "frequency", torch.randn(size // 2) * std
        )  # fixed, but saved with the weights

    def forward(self, value: Tensor) -> Tensor:
        """Features [B, size] of values [B]."""
        phase = 2 * math.pi * value.float()[:, None] * self.frequency.float()
        return torch.cat([phase.sin(), phase.cos()], dim=1)


def noise_level(log_snr: Tensor | None) -> Tensor:
    """The log-SNR as networks take it, float32 and finite; raises ValueError where there is none."""
    if log_snr is None:
        raise ValueError("this network needs the noise level: give it log_snr")
    return log_snr.float().clamp(-LOG_SNR_LIMIT, LOG_SNR_LIMIT)


class Embedding(nn.Module):
    """The embedding that conditions every block: of noise level and configuration code, [B] and [B, K] -> [B, size]."""

    def __init__(self, time: Sinusoidal | Fourier, width: int, noisy: bool, code: int) -> None:
        super().__init__()
        self.time = time
        self.features = width if time.size is None else time.size
        hidden = 4 * width if time.mlp is None else time.mlp
        self.size = (hidden or self.features) if noisy or code else 0
        self.fourier = (
            FourierFeatures(self.features, time.std)
            if noisy and isinstance(time, Fourier)
            else None
        )
        self.level = _mlp(self.features, self.size) if noisy and hidden else None
        self.code = _mlp(code, self.size) if code else None
        self.noisy = noisy

    def forward(self, log_snr: Tensor | None, code: Tensor | None) -> Tensor | None:
        """The embedding [B, size]; None where there is nothing to embed."""
        parts: list[Tensor] = []
        if self.noisy:
            value = noise_level(log_snr)
            value = (value if self.time.of == "log_snr" else value.sigmoid()) * self.time.scale
            if self.fourier is None:
                sines, cosines = sinusoids(value, self.features, self.features // 2)
                features = torch.cat([cosines, sines], dim=1)
            else:
                features = self.fourier(value)
            parts.append(features if self.level is None else self.level(features))
        if self.code is not None:
            if code is None:
                raise ValueError("this network needs a configuration: give it a code")
            parts.append(self.code(code.float()))
        return (
            F.silu(sum(parts[1:], parts[0])) if parts else None
        )  # every block would start with this SiLU


def _mlp(ins: int, outs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(ins, outs), nn.SiLU(), nn.Linear(outs, outs))
