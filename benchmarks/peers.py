"""Networks of other packages, as a recipe names them: `net = { kind = "peers:BasicUNet" }`.

See bench_small.py and time_to_error.py. ResEnc needs `pip install --no-deps dynamic-network-architectures`.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import settings
from voxlate.science.nets.interface import Channels, NetSettings, NetworkInput, Output


@settings
class BasicUNet(NetSettings):
    """MONAI's `BasicUNet`, slice by slice (volumetric: of whole patches); its own width is 32."""

    volumetric: bool = False
    width: int = 32

    def build(self, channels: Channels) -> nn.Module:
        from monai.networks.nets.basic_unet import BasicUNet as Net

        self.takes_only_images(channels)
        dims = 3 if self.volumetric else 2
        features = [self.width * factor for factor in (1, 1, 2, 4, 8, 1)]
        net = Net(
            spatial_dims=dims,
            in_channels=channels.joined,
            out_channels=channels.out,
            features=features,
        )
        return Peer(net, self.volumetric, 16)


@settings
class UNetPlusPlus(NetSettings):
    """MONAI's `BasicUNetPlusPlus`, slice by slice, without deep supervision."""

    def build(self, channels: Channels) -> nn.Module:
        from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus as Net

        self.takes_only_images(channels)
        net = Net(spatial_dims=2, in_channels=channels.joined, out_channels=channels.out)
        return Peer(First(net), False, 16)


@settings
class ResEnc(NetSettings):
    """nnU-Net's residual encoder, slice by slice, of the size M that its plans give slices of 256 x 256."""

    def build(self, channels: Channels) -> nn.Module:
        from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet as Net

        self.takes_only_images(channels)
        blocks = (1, 3, 4, 6, 6, 6, 6)
        net = Net(
            input_channels=channels.joined,
            n_stages=len(blocks),
            features_per_stage=[min(32 * 2**stage, 512) for stage in range(len(blocks))],
            conv_op=nn.Conv2d,
            kernel_sizes=3,
            strides=[1, *[2] * (len(blocks) - 1)],
            n_blocks_per_stage=blocks,
            num_classes=channels.out,
            n_conv_per_stage_decoder=1,
            conv_bias=True,
            norm_op=nn.InstanceNorm2d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
        )
        return Peer(net, False, 2 ** (len(blocks) - 1))


class First(nn.Module):
    """Gives the first of the images that a network of another package lists."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        made: Tensor = self.net(image)[0]
        return made


class Peer(nn.Module):
    """Gives a network of another package [B, C, D, H, W], or its slices, with sides that it can halve."""

    def __init__(self, net: nn.Module, volumetric: bool, multiple: int) -> None:
        super().__init__()
        self.net, self.volumetric, self.multiple = net, volumetric, multiple

    def forward(self, inputs: NetworkInput) -> Output:
        image = inputs.joined
        if self.volumetric:
            return Output(self._padded(image))
        batch, _, depth, *sides = image.shape
        slices = self._padded(image.transpose(1, 2).flatten(0, 1))
        return Output(slices.view(batch, depth, -1, *sides).transpose(1, 2))

    def _padded(self, image: Tensor) -> Tensor:
        sides = image.shape[2:]
        more = [-side % self.multiple for side in sides]
        padding = [width for extra in reversed(more) for width in (0, extra)]
        made: Tensor = self.net(F.pad(image, padding))
        for axis, side in enumerate(sides, start=2):
            made = made.narrow(axis, 0, side)
        return made
