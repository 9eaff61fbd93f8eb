"""The KL autoencoder of latent diffusion, slice by slice (Rombach et al. 2022, app. G; Zhu et al. 2023, sec. 2)."""

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from voxlate.config import Counts, settings
from voxlate.nets.blocks import Attention, BlockOptions, Norm, ResBlock, Up, conv3, pad_far, to_slices, to_volumes
from voxlate.nets.interface import Channels, NetSettings, NetworkInput, Output

LOGVAR_RANGE = (-30.0, 20.0)  # keeps exp() finite before training has settled


@settings
class KLAutoencoder(NetSettings):
    """Autoencoder to a latent with 2^(levels - 1) times fewer pixels a side."""

    autoencodes: ClassVar[bool] = True
    kind: Literal["kl_autoencoder"] = "kl_autoencoder"
    width: Annotated[int, Field(gt=0, description="channels at full resolution")] = 64
    multipliers: Annotated[
        Counts,
        Field(min_length=1, description="channels of each level over width; each level halves the size"),
    ] = (1, 2, 4)
    blocks: Annotated[
        int, Field(gt=0, description="residual blocks a level of the encoder; one more in the decoder")
    ] = 2
    latent: Annotated[int, Field(gt=0, description="channels of the latent")] = 3
    middle_attention: Annotated[bool, Field(description="self-attention, of one head, between the middle blocks")] = (
        True
    )
    groups: Annotated[
        int, Field(gt=0, description="groups of a norm; fewer where under two channels would share one")
    ] = 32

    @property
    def factor(self) -> int:
        """Pixels of the image a pixel of the latent, along one side."""
        return int(2 ** (len(self.multipliers) - 1))

    def build(self, channels: Channels) -> "AutoencoderNet":
        self.takes_only_images(channels)
        return AutoencoderNet(self, channels.joined)


class AutoencoderNet(nn.Module):
    """`encode(x) -> (mean, logvar)` and `decode(z)`, both of maps [B, C, D, H, W].

    As a network it gives the image that its mean latent decodes to. Latents are raw; `scale` (1 over their standard
    deviation, saved with the weights) is for the diffusion.
    """

    def __init__(self, net: KLAutoencoder, channels: int) -> None:
        super().__init__()
        self.net = net
        options = BlockOptions(groups=net.groups, zero_init=False)
        widths = [net.width * factor for factor in net.multipliers]
        self.encoder = _encoder(net, channels, widths, options)
        self.quant = nn.Conv2d(2 * net.latent, 2 * net.latent, 1)
        self.post_quant = nn.Conv2d(net.latent, net.latent, 1)
        self.decoder = _decoder(net, channels, widths, options)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: NetworkInput) -> Output:
        image = inputs.joined
        mean, log_variance = self.encode(image)
        height, width = image.shape[-2:]
        return Output(self.decode(mean, (height, width)), {"latents": (mean, log_variance)})

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Moments of the latent's Gaussian; sides not divisible by `factor` are mirrored up to the next multiple."""
        depth, factor = x.shape[2], self.net.factor
        h = to_slices(pad_far(x, (1, factor, factor))).contiguous(memory_format=torch.channels_last)
        moments = to_volumes(self.quant(_run(self.encoder, h, depth)), depth).to(x.dtype)
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def decode(self, z: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """The image of a latent, cropped to `size` (H, W) where the encoder had to pad."""
        depth = z.shape[2]
        h = self.post_quant(to_slices(z).contiguous(memory_format=torch.channels_last))
        image = to_volumes(_run(self.decoder, h, depth), depth).to(z.dtype)
        return image if size is None else image[..., : size[0], : size[1]]


class HalvingConv(nn.Conv2d):
    """Strided convolution that pads the far sides only, as the published weights expect."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(F.pad(h, (0, 1, 0, 1)))


def _run(parts: nn.ModuleList, h: Tensor, depth: int) -> Tensor:
    for part in parts:
        if isinstance(part, ResBlock | Up):
            h = part(h, None, depth)
        elif isinstance(part, Attention | Norm | HalvingConv):
            h = part(h)
        else:
            h = part(h, depth)
    return h


def _middle(net: KLAutoencoder, channels: int, options: BlockOptions) -> list[nn.Module]:
    attention = [Attention(channels, 1, options)] if net.middle_attention else []
    return [ResBlock(channels, channels, options), *attention, ResBlock(channels, channels, options)]


def _encoder(net: KLAutoencoder, channels: int, widths: list[int], options: BlockOptions) -> nn.ModuleList:
    parts, ins = [conv3(channels, widths[0], options)], widths[0]
    for level, outs in enumerate(widths):
        for _ in range(net.blocks):
            parts.append(ResBlock(ins, outs, options))
            ins = outs
        if level < len(widths) - 1:
            parts.append(HalvingConv(outs))
    parts += [*_middle(net, ins, options), Norm(ins, net.groups, silu=True), conv3(ins, 2 * net.latent, options)]
    return nn.ModuleList(parts)


def _decoder(net: KLAutoencoder, channels: int, widths: list[int], options: BlockOptions) -> nn.ModuleList:
    ins = widths[-1]
    parts = [conv3(net.latent, ins, options), *_middle(net, ins, options)]
    for level, outs in reversed(list(enumerate(widths))):
        for _ in range(net.blocks + 1):
            parts.append(ResBlock(ins, outs, options))
            ins = outs
        if level:
            parts.append(Up(outs, (1, 2, 2), options))
    parts += [Norm(ins, net.groups, silu=True), conv3(ins, channels, options)]
    return nn.ModuleList(parts)
