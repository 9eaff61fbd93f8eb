"""The residual network of Johnson et al. 2016 that CycleGAN's generators are: two halvings, blocks, two doublings."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from voxlate.config import settings
from voxlate.nets.blocks import pad_far, start_normal, to_slices, to_volumes
from voxlate.nets.interface import Channels, NetSettings, NetworkInput, Output

HALVINGS = 2


@settings
class ResNet(NetSettings):
    """c7s1-64, d128, d256, residual blocks, u128, u64, c7s1-out, tanh (Zhu et al. 2017, sec. 7.2)."""

    kind: Literal["resnet"] = "resnet"
    width: Annotated[int, Field(gt=0, description="channels at full size; each of two halvings doubles them")] = 64
    blocks: Annotated[int, Field(ge=1, description="residual blocks at a quarter of the size")] = 9

    def build(self, channels: Channels) -> "ResNetNet":
        """Raises BadInput where a task gives more than images."""
        self.takes_only_images(channels)
        return ResNetNet(self, channels.joined, channels.out)


class ResNetNet(nn.Module):
    """Works slice by slice, on images of any size from 8 pixels on."""

    def __init__(self, net: ResNet, ins: int, outs: int) -> None:
        super().__init__()
        widths = [net.width * 2**level for level in range(HALVINGS + 1)]
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(ins, widths[0], 7), *_normed(widths[0])]
        for below, above in pairwise(widths):
            layers += [nn.Conv2d(below, above, 3, stride=2, padding=1), *_normed(above)]
        layers += [Block(widths[-1]) for _ in range(net.blocks)]
        for above, below in pairwise(reversed(widths)):
            layers += [nn.ConvTranspose2d(above, below, 3, 2, padding=1, output_padding=1), *_normed(below)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(widths[0], outs, 7), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        start_normal(self)

    def forward(self, inputs: NetworkInput) -> Output:
        image = inputs.joined
        depth, (height, width) = image.shape[2], image.shape[3:]
        out = self.layers(to_slices(pad_far(image, (1, 2**HALVINGS, 2**HALVINGS))))
        return Output(to_volumes(out, depth)[..., :height, :width].to(image.dtype))


class Block(nn.Module):
    """Two convolutions and a skip; nothing after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), *_normed(channels)]
        second = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)]
        self.layers = nn.Sequential(*first, *second)

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.layers(h)
        return h


def _normed(channels: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(channels), nn.ReLU()]
