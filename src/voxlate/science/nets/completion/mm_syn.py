"""MM-SYN: an encoder and a decoder for each modality, and the largest of the available latents between them."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import Counts, setting, settings
from voxlate.base.items import BACKGROUND
from voxlate.science.nets.completion.shared import Modalities, fuse_maps, modalities_of, slices_of
from voxlate.science.nets.interface import Channels, Extras, NetSettings, NetworkInput, Output

SLOPE = 0.3  # of LeakyReLU below 0 in encoders: Keras' default, which the published code takes


@settings
class MMSYN(NetSettings):
    """Full-size latents, fused by their maximum, that every decoder reads (Chartsias et al. 2018, TMI 37:803)."""

    extras: ClassVar[tuple[str, ...]] = (
        "reconstructions",
        "images_by_latent",
        "latent_variance",
    )
    kind: Literal["mm_syn"] = "mm_syn"
    widths: Annotated[
        Counts,
        setting(
            "Numbers of channels of an encoder's levels; each level halves the size.", min_length=2
        ),
    ] = (32, 64, 128)
    latent: Annotated[int, setting("Number of channels of a latent, at full size.", gt=0)] = 16
    decoder: Annotated[int, setting("Number of channels of a decoder.", gt=0)] = 32

    @property
    def multiple(self) -> int:
        """What height and width are padded to a multiple of."""
        return 2 ** (len(self.widths) - 1)

    def build(self, channels: Channels) -> "MMSYNNet":
        """Raises BadInput where a task is neither completion nor translation."""
        return MMSYNNet(self, modalities_of(channels, self))


class MMSYNNet(nn.Module):
    """Works slice by slice, on images of any size.

    Extras: reconstructions of the input modalities from the fused latent; images_by_latent, those of the targets from
    each modality's latent alone; latent_variance, [B, 1, D, H, W], across the available latents, mean over channels.
    """

    def __init__(self, net: MMSYN, modalities: Modalities) -> None:
        super().__init__()
        self.net = net
        self.modalities = modalities
        self.encoders = nn.ModuleList(Encoder(net) for _ in range(modalities.inputs))
        self.decoders = nn.ModuleList(Decoder(net) for _ in range(modalities.outputs))
        # a completion's outputs are its inputs; a translation needs additional decoders for its inputs
        repeated = 0 if modalities.completes else modalities.inputs
        self.repeaters = nn.ModuleList(Decoder(net) for _ in range(repeated))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: NetworkInput) -> Output:
        """The images of all targets, and the extras that are asked for."""
        slices = slices_of(inputs, self.net.multiple)
        # background is 0 here, as a rectifier gives it
        latents = [
            encoder(slices.of(number) - BACKGROUND) for number, encoder in enumerate(self.encoders)
        ]
        together = fuse_maps(latents, slices.available, "max")

        def _images(decoders: nn.ModuleList, latent: Tensor) -> Tensor:
            return slices.volumes(
                torch.cat([decoder(latent) for decoder in decoders], dim=1) + BACKGROUND
            )

        image = _images(self.decoders, together)
        extras: Extras = {}
        if "reconstructions" in inputs.extras:
            extras["reconstructions"] = (
                image if self.modalities.completes else _images(self.repeaters, together)
            )
        if "images_by_latent" in inputs.extras:
            extras["images_by_latent"] = tuple(_images(self.decoders, latent) for latent in latents)
        if "latent_variance" in inputs.extras:
            mean = fuse_maps(latents, slices.available, "mean")
            spread = fuse_maps(
                [(latent - mean) ** 2 for latent in latents], slices.available, "mean"
            )
            extras["latent_variance"] = slices.volumes(spread.mean(dim=1, keepdim=True))
        return Output(image, extras)


class Encoder(nn.Module):
    """U-Net from an image to its latent; pairs of 3x3 convolutions with LeakyReLU."""

    def __init__(self, net: MMSYN) -> None:
        super().__init__()
        widths = net.widths
        self.down = nn.ModuleList(_pair(ins, outs) for ins, outs in pairwise((1, *widths)))
        rising = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(nn.Conv2d(ins, outs, 3, padding=1) for ins, outs in rising)
        self.join = nn.ModuleList(_pair(2 * outs, outs) for _, outs in rising)
        self.latent = nn.Sequential(
            nn.Conv2d(widths[0], net.latent, 3, padding=1), nn.LeakyReLU(SLOPE)
        )

    def forward(self, image: Tensor) -> Tensor:
        """The latent [N, C, H, W] of an image [N, 1, H, W]."""
        h = image
        skips = []
        for level, pair in enumerate(self.down):
            h = pair(F.max_pool2d(h, 2) if level else h)
            skips.append(h)
        skips.pop()
        for up, join in zip(self.up, self.join):
            h = join(torch.cat([skips.pop(), up(F.interpolate(h, scale_factor=2.0))], dim=1))
        return self.latent(h)


class Decoder(nn.Module):
    """From a latent to an image of numbers from 0 on: convolutions with ReLU that read the latent twice again."""

    def __init__(self, net: MMSYN) -> None:
        super().__init__()
        width = net.decoder
        self.first = _pair(net.latent, width, slope=0.0)
        self.second = _pair(net.latent + width, width, slope=0.0)
        self.head = nn.Conv2d(net.latent + 2 * width, 1, 1)
        nn.init.constant_(self.head.bias, 0.5)  # type: ignore[arg-type]  # a rectifier that begins below 0 everywhere never learns

    def forward(self, latent: Tensor) -> Tensor:
        """The image [N, 1, H, W] of a latent [N, C, H, W]."""
        h = torch.cat([latent, self.first(latent)], dim=1)
        h = torch.cat([h, self.second(h)], dim=1)
        return F.relu(self.head(h))


def _pair(ins: int, outs: int, slope: float = SLOPE) -> nn.Sequential:
    """Two 3x3 convolutions, each with LeakyReLU of this slope below 0."""
    first = nn.Conv2d(ins, outs, 3, padding=1)
    second = nn.Conv2d(outs, outs, 3, padding=1)
    return nn.Sequential(first, nn.LeakyReLU(slope), second, nn.LeakyReLU(slope))
