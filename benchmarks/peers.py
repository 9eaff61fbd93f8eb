"""Networks of other packages, as a recipe names them: `net = { kind = "peers:BasicUNet" }`; see bench_small.py."""

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
