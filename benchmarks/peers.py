"""Networks of other packages, as a recipe names them: `net = { kind = "peers:BasicUNet" }`; see reach.py."""

import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.nets.interface import Channels, NetSettings, NetworkInput, Output
from voxlate.system.config import settings


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
class ResEncUNet(NetSettings):
    """The residual encoder U-Net of nnU-Net (`dynamic-network-architectures`), with the blocks of its plans."""

    features: tuple[int, ...] = (32, 64, 128, 256, 320)
    blocks: tuple[int, ...] = (1, 3, 4, 6, 6)

    def build(self, channels: Channels) -> nn.Module:
        from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

        self.takes_only_images(channels)
        levels = len(self.features)
        net = ResidualEncoderUNet(
            channels.joined,
            levels,
            self.features,
            nn.Conv2d,
            3,
            (1, *[2] * (levels - 1)),
            self.blocks[:levels],
            channels.out,
            (1,) * (levels - 1),
            conv_bias=True,
            norm_op=nn.InstanceNorm2d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
        )
        del (
            net.decoder.encoder
        )  # the same weights by other names, which a weights file cannot hold twice
        for module in [one for one in net.modules() if hasattr(one, "all_modules")]:
            for name in ("conv", "norm"):
                if hasattr(module, name):
                    delattr(module, name)
        return Peer(net, False, 2 ** (levels - 1))


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
        padding = [one for extra in reversed(more) for one in (0, extra)]
        made: Tensor = self.net(F.pad(image, padding))
        for axis, side in enumerate(sides, start=2):
            made = made.narrow(axis, 0, side)
        return made
