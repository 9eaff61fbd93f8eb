"""BRAN, the brain region-aware network of paper 000; without regions it is the generator of Pix2Pix, in 2-D or 3-D."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import setting, settings
from voxlate.base.errors import BadInput
from voxlate.science.nets.blocks import CONVOLUTIONS, to_slices, to_volumes
from voxlate.science.nets.interface import Channels, NetSettings, NetworkInput, Output
from voxlate.science.nets.strided import DoublingConv, down_conv, norm, up_conv

SLOPE = 0.2  # of LeakyReLU below 0: Radford et al. 2016, sec. 3
WIDEST = 8  # times the width: Isola et al. 2017, sec. 6.1.1
NOT_DROPPED = 4  # halvings nearest to the image whose decoder stages drop nothing (Isola et al. 2017, sec. 6.1.1)


@settings
class Bran(NetSettings):
    """U-Net of strided 4x4 convolutions; before each, every region of the map has filters of its own (Cai et al. 2024).

    With regions = 0, width = 64 and drop_block = 1 it is the generator of Pix2Pix (Isola et al. 2017, sec. 6.1.1); in
    three dimensions kernels are 4x4x4, and stages halve the depth, too, where 4 slices are left.
    """

    kind: Literal["bran"] = "bran"
    width: Annotated[
        int,
        setting(
            "Number of channels after the first stage; they double up to 8 times this number.", gt=0
        ),
    ] = 32
    stages: Annotated[
        int,
        setting(
            "Number of halvings; sizes are padded to a multiple of 2 to the power of this number.",
            ge=2,
        ),
    ] = 8
    regions: Annotated[
        int,
        setting(
            "Number of regions with filters of their own before each stage; 0: plain convolutions.",
            ge=0,
        ),
    ] = 4
    hidden: Annotated[int, setting("Length of the code from which filters are computed.", gt=0)] = (
        16
    )
    dropout: Annotated[
        float,
        setting(
            "Share of features dropped in the decoder, at 1/16 of the size and below.", ge=0, lt=1
        ),
    ] = 0.5
    drop_block: Annotated[
        int,
        setting("Side of the squares that are dropped, an odd number; 1: single features.", ge=1),
    ] = 3
    tanh: Annotated[bool, setting("Whether outputs are limited to -1 to 1 by tanh.")] = True
    norm: Annotated[
        Literal["batch", "instance"],
        setting("Statistics of norms: those of a batch, or of each slice or volume."),
    ] = "batch"
    dimensions: Annotated[
        Literal[2, 3],
        setting(
            "Dimensions of convolutions: 2 for single slices, 3 for volumes, without regions and features."
        ),
    ] = 2

    def __post_init__(self) -> None:
        if self.dimensions == 3 and self.regions:
            raise BadInput(
                f"net.regions: expected 0 with net.dimensions = 3, found {self.regions}. Set it to 0."
            )
        if self.regions and self.hidden % self.regions:
            raise BadInput(
                f"net.hidden: expected a multiple of {self.regions} regions, found {self.hidden}. Change one of them."
            )
        if self.drop_block % 2 == 0:
            raise BadInput(
                f"net.drop_block: expected an odd side, found {self.drop_block}. Change it."
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after each encoder stage."""
        return tuple(self.width * min(2**stage, WIDEST) for stage in range(self.stages))

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of the decoder's maps at 1/2, 1/4 and 1/8 of the size, in the output's extras["features"]."""
        return (
            tuple(2 * width for width in self.widths[: min(3, self.stages - 1)])
            if self.dimensions == 2
            else ()
        )

    @property
    def multiple(self) -> int:
        """Of what the width must be, for the features to be padded by as many columns on the left as on the right."""
        return 2 * 2 ** len(self.feature_channels)

    def build(self, channels: Channels) -> "BranNet":
        """Raises BadInput where a task gives more than images."""
        self.takes_only_images(channels)
        return BranNet(self, channels.joined, channels.out)


class BranNet(nn.Module):
    """Works slice by slice; its extras["features"] are the decoder's maps at 1/2, 1/4 and 1/8 of the size.

    Maps, [B, C, D, H_l, W_l], begin with the image; at their far sides they may reach beyond it. With three dimensions
    it works on volumes and gives no maps.
    """

    def __init__(self, net: Bran, ins: int, outs: int) -> None:
        super().__init__()
        self.net = net
        widths = net.widths
        last = net.stages - 1
        self.encoder = nn.ModuleList(
            Down(below, above, net, stage)
            for stage, (below, above) in enumerate(zip((ins, *widths), widths))
        )
        self.decoder = nn.ModuleList(
            Up(widths[stage] * (1 if stage == last else 2), widths[stage - 1], net, stage)
            for stage in range(last, 0, -1)
        )
        self.head = up_conv(2 * widths[0], outs, 4, net.dimensions, bias=False)
        for module in self.modules():
            if isinstance(module, CONVOLUTIONS) and set(module.kernel_size) == {4}:
                nn.init.normal_(module.weight, std=0.02)  # Isola et al. 2017, sec. 6.2
        if net.norm == "batch":  # instance norms give contiguous maps
            last_channels = torch.channels_last if net.dimensions == 2 else torch.channels_last_3d
            self.to(memory_format=last_channels)  # type: ignore[call-overload]

    def forward(self, inputs: NetworkInput) -> Output:
        """The image, and feature maps where the network has them."""
        image = inputs.joined
        flat = self.net.dimensions == 2
        depth, height, width = image.shape[2:]
        padded, left = self._pad(image)
        h = to_slices(padded).contiguous(memory_format=torch.channels_last) if flat else padded
        skips = []
        for down in self.encoder:
            h = down(h)
            skips.append(h)
        skips.pop()
        maps = []
        for up in self.decoder:
            skip = skips.pop()
            h = torch.cat([up(h, skip.shape[2]), skip], dim=1)
            maps.append(h)
        out = _double(self.head, h, depth)
        out = out.tanh() if self.net.tanh else out
        out = (to_volumes(out, depth) if flat else out)[..., :height, left : left + width]
        near = maps[::-1][: len(self.net.feature_channels)]
        features = (
            to_volumes(near_map, depth)[..., left >> halvings :]
            for halvings, near_map in enumerate(near, start=1)
        )
        return Output(out.to(image.dtype), {"features": tuple(features)})

    def _pad(self, image: Tensor) -> tuple[Tensor, int]:
        """The image in a size that can be halved, its borders repeated, and how many columns lie to the left of it.

        Left and right get as many if the width is a multiple of `Bran.multiple`, else nearly, in whole features.
        """
        side = 2**self.net.stages
        feature = self.net.multiple // 2
        rows, columns = (-size % side for size in image.shape[3:])
        if not rows and not columns:
            return image, 0
        left = columns // 2 // feature * feature
        # not mirrored: a head next to a head would count in the filters, which are computed from the mean of all
        return F.pad(image, (left, columns - left, 0, rows, 0, 0), mode="replicate"), left


class Down(nn.Module):
    """A map, and what its regions' own filters make of it, to half the size."""

    def __init__(self, ins: int, outs: int, net: Bran, stage: int) -> None:
        super().__init__()
        self.regional = RegionalFilters(ins, net.regions, net.hidden) if net.regions else None
        ins *= 2 if net.regions else 1
        self.conv = down_conv(ins, outs, 4, net.dimensions, bias=False)
        is_last = stage == net.stages - 1
        plain = stage == 0 or is_last
        self.norm = nn.Identity() if plain else norm(net.norm, outs, net.dimensions)
        self.slope = 0.0 if is_last else SLOPE

    def forward(self, h: Tensor) -> Tensor:
        """A map [N, ins, ...] at half the size, [N, outs, ...]."""
        if self.regional is not None:
            h = torch.cat([h, self.regional(h)], dim=1)
        return F.leaky_relu(self.norm(self.conv(h)), self.slope)


class Up(nn.Module):
    """To twice the size, of volumes to a given depth; some stages drop squares of features."""

    def __init__(self, ins: int, outs: int, net: Bran, stage: int) -> None:
        super().__init__()
        self.conv = up_conv(ins, outs, 4, net.dimensions, bias=False)
        self.norm = norm(net.norm, outs, net.dimensions)
        drops = NOT_DROPPED <= stage < net.stages - 1
        self.drop = DropBlock(net.dropout, net.drop_block) if drops else nn.Identity()

    def forward(self, h: Tensor, depth: int) -> Tensor:
        """A map at twice the size; depth: of the output, in three dimensions."""
        return F.relu(self.drop(self.norm(_double(self.conv, h, depth))))


def _double(conv: nn.Module, h: Tensor, depth: int) -> Tensor:
    return conv(h, depth) if isinstance(conv, DoublingConv) else conv(h)


class RegionalFilters(nn.Module):
    """1x1 filters that the map itself makes, others in each region: Q_p = W_d(p) P_p (Cai et al. 2024, eq. 10 to 13).

    A guide gives every pixel to one of D regions; the filters of a region are the sum of what two generators, a deep
    and a shallow one, make of the map's mean. Source: Chen et al. 2021 (dynamic region-aware convolution).
    """

    def __init__(self, channels: int, regions: int, hidden: int) -> None:
        super().__init__()
        self.channels = channels
        self.regions = regions
        self.guide = nn.Conv2d(channels, regions, 1)
        deep = [nn.Conv2d(channels, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, hidden, 1), nn.SiLU()]
        self.deep = nn.Sequential(*deep, self._maker(hidden))
        self.shallow = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.Sigmoid(), self._maker(hidden)
        )

    def _maker(self, hidden: int) -> nn.Conv2d:
        """From code to filters, each region from its own part of the code."""
        maker = nn.Conv2d(hidden, self.regions * self.channels**2, 1, groups=self.regions)
        std = (
            2 * self.channels
        ) ** -0.5  # two summed filters of C inputs then keep the size of what they filter
        nn.init.normal_(maker.weight, std=std * (self.regions / hidden) ** 0.5)
        assert maker.bias is not None
        nn.init.normal_(maker.bias, std=std)
        return maker

    def filters(self, h: Tensor) -> Tensor:
        """W: [N, D, C, C], outputs before inputs."""
        mean = h.mean(dim=(2, 3), keepdim=True)
        weights: Tensor = self.deep(mean) + self.shallow(mean)
        return weights.view(-1, self.regions, self.channels, self.channels)

    def forward(self, h: Tensor) -> Tensor:
        """Q: what the filters make of a map [N, C, H, W]; same shape."""
        shares = one_hot(self.guide(h)).to(h.dtype)
        parted = (
            (shares[:, :, None] * h[:, None]).flatten(1, 2).flatten(2)
        )  # [N, D*C, pixels], 0 beyond each region
        filters = (
            self.filters(h).transpose(1, 2).flatten(2)
        )  # [N, C, D*C]: one product sums over the regions
        return torch.bmm(filters, parted.to(filters.dtype)).unflatten(2, h.shape[2:]).to(h.dtype)


def one_hot(guide: Tensor) -> Tensor:
    """1 for the largest of [N, D, H, W] at each pixel, else 0, with the gradient of a softmax over D."""
    numbers = torch.arange(guide.shape[1], device=guide.device)[:, None, None]
    hard = (guide.argmax(dim=1, keepdim=True) == numbers).long()
    if not guide.requires_grad:
        return hard
    soft = guide.float().softmax(dim=1)
    return (soft - soft.detach()) + hard  # the difference is exactly 0


class DropBlock(nn.Module):
    """In training, sets squares of features to 0 so that a share of them all is gone (Ghiasi et al. 2018).

    A feature stays if no square around it was drawn, so squares are drawn with probability 1 - (1 - share)^(1/side^2);
    the paper's formula is its first order.
    """

    def __init__(self, share: float, side: int) -> None:
        super().__init__()
        self.share = share
        self.side = side

    def forward(self, h: Tensor) -> Tensor:
        """The map with squares set to 0 in training, and as it is elsewhere."""
        if not self.training or self.share == 0:
            return h
        centres = torch.rand(h.shape, device=h.device) < 1 - (1 - self.share) ** (1 / self.side**2)
        planes = centres.float().flatten(1, -3)  # squares lie in slices, of volumes, too
        dropped = F.max_pool2d(planes, self.side, stride=1, padding=self.side // 2)
        kept = (1 - dropped).view_as(h)
        left = kept.flatten(1).mean(1).clamp(min=1 / kept[0].numel())  # of each item
        return h * (kept / left.reshape(-1, *[1] * (h.ndim - 1))).to(h.dtype)
