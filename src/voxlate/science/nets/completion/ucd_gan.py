"""UcDGAN: one encoder of anatomy for every modality, and one decoder that is given the modality to make."""

from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from voxlate.base.config import setting, settings
from voxlate.science.nets.blocks import start_normal
from voxlate.science.nets.completion.shared import (
    Modalities,
    Slices,
    fuse_maps,
    layers_down,
    layers_up,
    modalities_of,
    slices_of,
)
from voxlate.science.nets.interface import Channels, Extras, NetSettings, NetworkInput, Output


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
