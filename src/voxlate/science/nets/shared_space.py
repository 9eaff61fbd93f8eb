"""Networks that make missing modalities through one space of all of them: further baselines of paper 003 (see completion.py).

MM-SYN fuses latents of full size by their maximum. CocaGAN, compact and of slices, has encoders to one feature space, and decoders
and a segmentation of lesions from it. UcDGAN has one encoder of anatomy for every modality, and one decoder that is given the
modality to make.
"""

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import Counts, setting, settings
from voxlate.base.items import BACKGROUND
from voxlate.science.nets.blocks import start_normal
from voxlate.science.nets.completion import (
    Modalities,
    Slices,
    fuse_maps,
    layers_down,
    layers_up,
    modalities_of,
    slices_of,
)
from voxlate.science.nets.interface import Channels, Extras, NetSettings, NetworkInput, Output

ENCODER_SLOPE = (
    0.3  # of LeakyReLU below 0 in encoders: Keras' default, which the published code takes
)


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
        self.encoders = nn.ModuleList(LatentEncoder(net) for _ in range(modalities.inputs))
        self.decoders = nn.ModuleList(LatentDecoder(net) for _ in range(modalities.outputs))
        # a completion's outputs are its inputs; a translation needs additional decoders for its inputs
        repeated = 0 if modalities.completes else modalities.inputs
        self.repeaters = nn.ModuleList(LatentDecoder(net) for _ in range(repeated))
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


class LatentEncoder(nn.Module):
    """U-Net from an image to its latent; pairs of 3x3 convolutions with LeakyReLU."""

    def __init__(self, net: MMSYN) -> None:
        super().__init__()
        widths = net.widths
        self.down = nn.ModuleList(_pair(ins, outs) for ins, outs in pairwise((1, *widths)))
        rising = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(nn.Conv2d(ins, outs, 3, padding=1) for ins, outs in rising)
        self.join = nn.ModuleList(_pair(2 * outs, outs) for _, outs in rising)
        self.latent = nn.Sequential(
            nn.Conv2d(widths[0], net.latent, 3, padding=1), nn.LeakyReLU(ENCODER_SLOPE)
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


class LatentDecoder(nn.Module):
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


def _pair(ins: int, outs: int, slope: float = ENCODER_SLOPE) -> nn.Sequential:
    """Two 3x3 convolutions, each with LeakyReLU of this slope below 0."""
    first = nn.Conv2d(ins, outs, 3, padding=1)
    second = nn.Conv2d(outs, outs, 3, padding=1)
    return nn.Sequential(first, nn.LeakyReLU(slope), second, nn.LeakyReLU(slope))


CRITIC_SLOPE = 0.2  # of LeakyReLU below 0, of the critic of features


@settings
class CocaGAN(NetSettings):
    """A common feature space of all modalities, and their mean over those available (after Huang et al. 2019 and 2022).

    The papers' network is three-dimensional and not public; this is a compact one of slices.
    """

    kind: Literal["coca_gan"] = "coca_gan"
    widths: Annotated[
        Counts,
        setting("Numbers of channels at full size and after each halving.", min_length=2),
    ] = (
        32,
        64,
        128,
        256,
    )
    classes: Annotated[
        int,
        setting(
            "Number of classes of the label map that is segmented, background included; 0: no segmentation.",
            ge=0,
        ),
    ] = 0

    @property
    def multiple(self) -> int:
        """What height and width are padded to a multiple of."""
        return 2 ** (len(self.widths) - 1)

    @property
    def extras(self) -> tuple[str, ...]:
        """Outputs besides the image."""
        return ("modality_logits", "segmentation") if self.classes else ("modality_logits",)

    def build(self, channels: Channels) -> "CocaGANNet":
        """Raises BadInput where a task is neither completion nor translation."""
        return CocaGANNet(self, modalities_of(channels, self))


class CocaGANNet(nn.Module):
    """Works slice by slice, on images of any size.

    Extras: modality_logits, [B, N, N, D], of which modality each one's features are, with reversed gradients for the
    features; segmentation, logits [B, K, D, H, W], from the fused features.
    """

    def __init__(self, net: CocaGAN, modalities: Modalities) -> None:
        super().__init__()
        self.net = net
        self.encoders = nn.ModuleList(
            nn.Sequential(*layers_down(net.widths, 3)) for _ in range(modalities.inputs)
        )
        self.decoders = nn.ModuleList(
            _image_decoder(net.widths, 1) for _ in range(modalities.outputs)
        )
        self.segmenter = _image_decoder(net.widths, net.classes) if net.classes else None
        self.critic = FeatureCritic(net.widths[-1], modalities.inputs)
        start_normal(self)

    def forward(self, inputs: NetworkInput) -> Output:
        """The images of all targets, and the extras that are asked for."""
        slices = slices_of(inputs, self.net.multiple)
        features = [encoder(slices.of(number)) for number, encoder in enumerate(self.encoders)]
        common = fuse_maps(features, slices.available, "mean")
        image = torch.cat([decoder(common) for decoder in self.decoders], dim=1).tanh()
        extras: Extras = {}
        if "modality_logits" in inputs.extras:
            logits = torch.stack([self.critic(reverse_gradient(maps)) for maps in features], dim=1)
            extras["modality_logits"] = logits.unflatten(0, (-1, slices.size[0])).permute(
                0, 2, 3, 1
            )
        if "segmentation" in inputs.extras and self.segmenter is not None:
            extras["segmentation"] = slices.volumes(self.segmenter(common))
        return Output(slices.volumes(image), extras)


def _image_decoder(widths: tuple[int, ...], outs: int) -> nn.Sequential:
    return nn.Sequential(*layers_up(widths), nn.Conv2d(widths[0], outs, 3, padding=1))


class FeatureCritic(nn.Module):
    """Which modality a map of features is of: [B, C, H, W] -> [B, N] logits."""

    def __init__(self, channels: int, modalities: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, stride=2, padding=1),
            nn.LeakyReLU(CRITIC_SLOPE),
            nn.Conv2d(channels // 2, channels // 4, 3, stride=2, padding=1),
            nn.LeakyReLU(CRITIC_SLOPE),
            nn.Conv2d(channels // 4, modalities, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Logits [B, N] of maps [B, C, H, W]."""
        return self.layers(features).mean(dim=(2, 3))


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The same numbers."""
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """The negative gradient."""
        return -gradient


def reverse_gradient(x: Tensor) -> Tensor:
    """The same numbers, with the negative gradient (Ganin and Lempitsky 2015, eq. 11)."""
    return _Reversed.apply(x)


@settings
class UcDGAN(NetSettings):
    """Anatomy codes that no longer tell their modality, and a decoder with it as a code (Liu et al. 2021, ISBI).

    The paper has one modality in; of several their codes are averaged. Layers are ours, after CycleGAN and MUNIT.
    """

    extras: ClassVar[tuple[str, ...]] = ("reconstructions", "codes")
    kind: Literal["ucd_gan"] = "ucd_gan"
    width: Annotated[
        int, setting("Number of channels at full size; each halving doubles them.", gt=0)
    ] = 64
    halvings: Annotated[
        int, setting("Number of times the anatomy code is downsampled by two.", ge=1)
    ] = 2
    blocks: Annotated[
        int,
        setting("Number of residual blocks of the encoder, and of the decoder.", ge=1),
    ] = 4

    @property
    def multiple(self) -> int:
        """What height and width are padded to a multiple of."""
        return int(2**self.halvings)

    def build(self, channels: Channels) -> "UcDGANNet":
        """Raises BadInput where a task is neither completion nor translation."""
        return UcDGANNet(self, modalities_of(channels, self))


class UcDGANNet(nn.Module):
    """Works slice by slice, on images of any size; a completion makes what is missing alone (elsewhere 0).

    Extras: codes, of the input images and of the synthesised ones, each the mean over its modalities; reconstructions of the
    input modalities from the code of the synthesised images.
    """

    def __init__(self, net: UcDGAN, modalities: Modalities) -> None:
        super().__init__()
        self.net = net
        self.modalities = modalities
        widths = [net.width * 2**level for level in range(net.halvings + 1)]
        kinds = (
            modalities.outputs if modalities.completes else modalities.inputs + modalities.outputs
        )
        falling = layers_down(widths, 7)
        self.encoder = nn.Sequential(*falling, *(Block(widths[-1]) for _ in range(net.blocks)))
        self.blocks = nn.ModuleList(Block(widths[-1], kinds) for _ in range(net.blocks))
        rising = layers_up(widths)
        self.decoder = nn.Sequential(*rising, nn.Conv2d(widths[0], 1, 7, padding=3), nn.Tanh())
        start_normal(self)

    def forward(self, inputs: NetworkInput) -> Output:
        """The images of all targets, and the extras that are asked for."""
        slices = slices_of(inputs, self.net.multiple)
        wanted, first = self._to_make(inputs, slices)
        anatomy = self.encode(slices.images, slices.available)
        image = self.decode(anatomy, wanted, first)
        extras: Extras = {}
        if {"codes", "reconstructions"} & set(inputs.extras):
            again = self.encode(image, wanted)
            extras["codes"] = (anatomy, again)
            if "reconstructions" in inputs.extras:
                extras["reconstructions"] = slices.volumes(self.decode(again, slices.available, 0))
        return Output(slices.volumes(image), extras)

    def _to_make(self, inputs: NetworkInput, slices: Slices) -> tuple[Tensor, int]:
        """Which modalities are made, [B*D, M], 0 or 1, and the decoder's number of the first of them."""
        if self.modalities.completes:
            assert inputs.code is not None
            return inputs.code[:, : self.modalities.outputs].repeat_interleave(
                slices.size[0], dim=0
            ), 0
        return slices.available.new_ones(
            len(slices.available), self.modalities.outputs
        ), self.modalities.inputs

    def encode(self, images: Tensor, available: Tensor) -> Tensor:
        """The mean anatomy code of the available ones of [B, N, H, W]: [B, C, h, w]."""
        item, kind = available.nonzero(as_tuple=True)
        each = _place(self.encoder(images[item, kind].unsqueeze(1)), available)
        return fuse_maps(list(each.unbind(1)), available, "mean")

    def decode(self, anatomy: Tensor, wanted: Tensor, first: int) -> Tensor:
        """The wanted ones of M modalities of an anatomy, [B, M, H, W], the others 0."""
        item, kind = wanted.nonzero(as_tuple=True)
        h = anatomy[item]
        for block in self.blocks:
            h = block(h, kind + first)
        return _place(self.decoder(h), wanted).squeeze(2)


def _place(maps: Tensor, chosen: Tensor) -> Tensor:
    """Maps of the chosen items and modalities, [P, C, H, W], in their places: [B, N, C, H, W], elsewhere 0."""
    places = chosen.flatten().nonzero().squeeze(1)
    empty = maps.new_zeros(chosen.numel(), *maps.shape[1:])
    return empty.index_copy(0, places, maps).unflatten(0, chosen.shape)


class Block(nn.Module):
    """Two 3x3 convolutions with instance norms, and a skip; with `kinds`, each scales and shifts what is normed."""

    def __init__(self, channels: int, kinds: int = 0) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm = nn.InstanceNorm2d(channels)
        self.styles = nn.ModuleList(
            nn.Embedding(kinds, 2 * channels) for _ in range(2 if kinds else 0)
        )
        for style in self.styles:
            nn.init.normal_(style.weight, std=0.02)  # type: ignore[arg-type]

    def forward(self, h: Tensor, kind: Tensor | None = None) -> Tensor:
        """A map [N, C, H, W] of the same shape; kind: [N], the number of each item's modality."""
        inner = h
        for number, conv in enumerate(self.convs):
            inner = self.norm(conv(inner))
            if kind is not None:
                scale, shift = self.styles[number](kind)[:, :, None, None].chunk(2, dim=1)
                inner = inner * (1 + scale) + shift
            inner = inner.relu() if number == 0 else inner
        return h + inner
