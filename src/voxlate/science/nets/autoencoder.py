"""The KL autoencoder of latent diffusion (Rombach et al. 2022, app. G; Zhu et al. 2023, sec. 2)."""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import setting, settings
from voxlate.science.nets.blocks import (
    NORM_EPS,
    Attention,
    BlockOptions,
    Blocks,
    Groups,
    Multipliers,
    Norm,
    Repeat,
    ResBlock,
    SliceConv,
    Up,
    Width,
    pad_far,
    to_slices,
    to_volumes,
)
from voxlate.science.nets.interface import Channels, NetSettings

LOGVAR_RANGE = (-30.0, 20.0)  # keeps exp() finite before training has settled


@settings
class KLAutoencoder(NetSettings):
    """Autoencoder to a latent with 2^(levels - 1) times fewer pixels a side, and as many slices."""

    autoencodes: ClassVar[bool] = True
    kind: Literal["kl_autoencoder"] = "kl_autoencoder"
    width: Width = 64
    multipliers: Multipliers = (1, 2, 4)
    blocks: Blocks = 2
    latent: Annotated[int, setting("Number of channels of the latent.", gt=0)] = 3
    middle_attention: Annotated[
        bool,
        setting("Whether self-attention with one head is between the middle blocks."),
    ] = True
    groups: Groups = 32
    border: Annotated[
        Literal["zeros", "repeat"] | None,
        setting(
            "Padding of convolutions in training and synthesis; unset: zeros in training, and the repeated border in synthesis."
        ),
    ] = None
    norm_eps: Annotated[
        float | None,
        setting(
            "Number added to variances in norms; unset: 1e-5. Published autoencoders have 1e-6.",
            gt=0,
        ),
    ] = None
    slices: Annotated[
        int,
        setting(
            "Number of slices of a volume that are computed at a time outside of training.",
            ge=1,
        ),
    ] = 8

    @property
    def factor(self) -> int:
        """Pixels of the image a pixel of the latent, along one side."""
        return int(2 ** (len(self.multipliers) - 1))

    def build(self, channels: Channels) -> "AutoencoderNet":
        """The autoencoder with fresh weights; raises BadInput where a task gives more than images."""
        self.takes_only_images(channels)
        return AutoencoderNet(self, channels.joined)


class AutoencoderNet(nn.Module):
    """`encode(x) -> (mean, logvar)` and `decode(z)`, both of maps [B, C, D, H, W].

    Latents are raw; `scale` (1 over their standard deviation, saved with the weights) is for the diffusion.
    """

    def __init__(self, net: KLAutoencoder, channels: int) -> None:
        super().__init__()
        self.net = net
        repeat: Repeat = (
            "synthesis" if net.border is None else "always" if net.border == "repeat" else "never"
        )
        eps = NORM_EPS if net.norm_eps is None else net.norm_eps
        options = BlockOptions(net.groups, zero_init=False, repeat=repeat, norm_eps=eps)
        widths = [net.width * factor for factor in net.multipliers]
        self.encoder = _encoder(net, channels, widths, options)
        self.quant = nn.Conv2d(2 * net.latent, 2 * net.latent, 1)
        self.post_quant = nn.Conv2d(net.latent, net.latent, 1)
        self.decoder = _decoder(net, channels, widths, options)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Moments of the latent's Gaussian; sides not divisible by `factor` are mirrored up to the next multiple."""
        padded = pad_far(x, self.net.factor)
        moments = self._in_parts([*self.encoder, self.quant], padded)
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def decode(self, z: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """The image of a latent, cropped to `size` (H, W) where the encoder had to pad."""
        image = self._in_parts([self.post_quant, *self.decoder], z)
        return image if size is None else image[..., : size[0], : size[1]]

    def _in_parts(self, layers: Iterable[nn.Module], volume: Tensor) -> Tensor:
        """What layers make of a volume, a few slices at a time where no gradient is kept."""
        depth = volume.shape[2]
        most = self.net.slices
        if torch.is_grad_enabled() or depth <= most:
            return self._run(layers, volume)
        parts = [self._run(layers, part) for part in volume.split(most, dim=2)]
        return torch.cat(parts, dim=2)

    def _run(self, layers: Iterable[nn.Module], volume: Tensor) -> Tensor:
        depth = volume.shape[2]
        h = to_slices(volume).contiguous(memory_format=torch.channels_last)
        for layer in layers:
            if isinstance(layer, ResBlock | Up):
                h = layer(h, None, depth)
            else:
                h = layer(h, depth) if isinstance(layer, SliceConv) else layer(h)
        return to_volumes(h, depth).to(volume.dtype)


class Halving(nn.Module):
    """Strided convolution that pads the far sides of the plane only, as the published weights expect."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, h: Tensor) -> Tensor:
        """Half the height and width of a map [N, C, H, W]."""
        return self.conv(F.pad(h, (0, 1, 0, 1)))


def _middle(net: KLAutoencoder, channels: int, options: BlockOptions) -> list[nn.Module]:
    attention = [Attention(channels, 1, options)] if net.middle_attention else []
    return [
        ResBlock(channels, channels, options),
        *attention,
        ResBlock(channels, channels, options),
    ]


def _encoder(
    net: KLAutoencoder, channels: int, widths: list[int], options: BlockOptions
) -> nn.ModuleList:
    parts: list[nn.Module] = [SliceConv(channels, widths[0], options)]
    ins = widths[0]
    for level, outs in enumerate(widths):
        for _ in range(net.blocks):
            parts.append(ResBlock(ins, outs, options))
            ins = outs
        if level < len(widths) - 1:
            parts.append(Halving(outs))
    parts += [
        *_middle(net, ins, options),
        Norm(ins, net.groups, True, options.norm_eps),
        SliceConv(ins, 2 * net.latent, options),
    ]
    return nn.ModuleList(parts)


def _decoder(
    net: KLAutoencoder, channels: int, widths: list[int], options: BlockOptions
) -> nn.ModuleList:
    ins = widths[-1]
    parts = [SliceConv(net.latent, ins, options), *_middle(net, ins, options)]
    for level, outs in reversed(list(enumerate(widths))):
        for _ in range(net.blocks + 1):
            parts.append(ResBlock(ins, outs, options))
            ins = outs
        if level:
            parts.append(Up(outs, options))
    parts += [Norm(ins, net.groups, True, options.norm_eps), SliceConv(ins, channels, options)]
    return nn.ModuleList(parts)
