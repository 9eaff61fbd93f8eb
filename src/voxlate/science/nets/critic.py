"""Critics of a GAN: convolutional networks with one output an image, or one for each patch."""

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import Counts, setting, settings
from voxlate.base.errors import BadInput
from voxlate.science.nets.blocks import start_normal, to_slices, to_volumes
from voxlate.science.nets.strided import FEWEST_SLICES, norm

SLOPE = 0.2  # of LeakyReLU below 0: Radford et al. 2016, sec. 3


@settings
class Critic:
    """Strided convolutions with LeakyReLU over the image and its condition (Isola et al. 2017, sec. 3.2).

    With widths = [64, 128, 256, 512] and patches it is the critic of 70 pixels of Pix2Pix (norm = batch) and CycleGAN;
    with norm = instance, all_halve and a map for each channel that of MM-GAN (Sharma and Hamarneh 2020).
    """

    kind: Literal["critic"] = "critic"
    widths: Annotated[
        Counts,
        setting(
            "Numbers of channels of the layers. Each layer halves the size, except the last one with output = 'patches'.",
            min_length=1,
        ),
    ] = (64, 128, 256, 512, 512)
    norm: Annotated[
        Literal["none", "instance", "batch"],
        setting(
            "Norms after all layers but the first: of each slice, of a batch, or none. A gradient penalty needs none."
        ),
    ] = "none"
    output: Annotated[
        Literal["image", "patches"],
        setting("One output for each slice (its mean), or one for each patch."),
    ] = "image"
    maps: Annotated[
        int,
        setting("Number of outputs at each place: 1, or one for each channel of the image.", ge=1),
    ] = 1
    separate: Annotated[
        bool,
        setting(
            "The critic sees each of the last `maps` channels separately, with planes that state which channel it is."
        ),
    ] = False
    kernel: Annotated[Literal[3, 4], setting("Side of the kernels.")] = 4
    all_halve: Annotated[
        bool,
        setting(
            "Whether, with output = 'patches', every layer halves the size and the last convolution keeps it."
        ),
    ] = False
    dimensions: Annotated[
        Literal[2, 3],
        setting(
            "Dimensions of convolutions: 2 for single slices, 3 for volumes with cubic kernels, whose output is one for a volume."
        ),
    ] = 2

    def build(self, *, channels: int) -> "CriticNet":
        """The critic with fresh weights."""
        return CriticNet(self, channels)

    def check_channels(self, image: int) -> None:
        """Raise BadInput where `maps` does not fit the number of the image's channels."""
        if self.maps not in ((image,) if self.separate else (1, image)):
            raise BadInput(
                f"opponent.critic.maps: expected 1 (without `separate`) or one for each of the image's {image} channels, found {self.maps}. Change it."
            )


class CriticNet(nn.Module):
    """`critic(images) -> outputs`: [B, C, D, H, W] -> [B, K, D] or [B, K, D, h, w], each slice by itself.

    In three dimensions [B, K, 1] or [B, K, d, h, w] of the whole volume: the first layer keeps its depth, every further
    one that halves the size also halves the depth while FEWEST_SLICES are left.
    """

    def __init__(self, critic: Critic, channels: int) -> None:
        super().__init__()
        self.critic = critic
        volumes = critic.dimensions == 3
        point = nn.Conv3d if volumes else nn.Conv2d
        patches = critic.output == "patches"
        kernel = critic.kernel
        if critic.separate:
            channels += (
                1  # the context, one channel of the image, and a plane for each that it may be
            )
        layers: list[nn.Module] = []
        for number, (ins, outs) in enumerate(zip((channels, *critic.widths), critic.widths)):
            keeps = number == len(critic.widths) - 1 and patches and not critic.all_halve
            stride = 1 if keeps else 2
            kind = critic.norm if number else "none"
            thin = stride if number else 1
            layers.append(self._conv(ins, outs, stride, thin, bias=kind != "batch"))
            if kind != "none":
                layers.append(norm(kind, outs, critic.dimensions))
            layers.append(nn.LeakyReLU(SLOPE))
        self.layers = nn.Sequential(*layers)
        maps = 1 if critic.separate else critic.maps
        self.pad = (1, 0, 1, 0) if patches and critic.all_halve and kernel == 4 else (0, 0, 0, 0)
        width = critic.widths[-1]
        self.head = self._conv(width, maps, 1) if patches else point(width, maps, 1)
        if patches:
            start_normal(self)
        self.memory_format = torch.channels_last_3d if volumes else torch.channels_last
        if critic.norm == "instance":  # which gives contiguous maps
            self.memory_format = torch.contiguous_format
        self.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def _conv(self, ins: int, outs: int, stride: int, thin: int = 1, **options: Any) -> nn.Module:
        kernel = self.critic.kernel
        if self.critic.dimensions == 3:
            return VolumeConv(ins, outs, kernel, stride, thin, **options)
        return nn.Conv2d(ins, outs, kernel, stride=stride, padding=1, **options)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs of images [B, C, D, H, W], shaped as the class states."""
        if not self.critic.separate:
            return self._outputs(images)
        maps = self._outputs(one_by_one(images, self.critic.maps))
        return maps.unflatten(0, (len(images), -1)).flatten(1, 2)

    def _outputs(self, images: Tensor) -> Tensor:
        depth = images.shape[2]
        volumes = self.critic.dimensions == 3
        h = images if volumes else to_slices(images)
        h = self.layers(h.contiguous(memory_format=self.memory_format))
        if self.critic.output == "image":
            h = h.mean(dim=tuple(range(2, h.ndim)), keepdim=True)
        outputs: Tensor = self.head(F.pad(h, self.pad) if any(self.pad) else h)
        outputs = outputs if volumes else to_volumes(outputs, depth)
        return outputs if self.critic.output == "patches" else outputs.flatten(2)


def one_by_one(images: Tensor, count: int) -> Tensor:
    """Each of the last `count` channels by itself: [B, C, D, H, W] -> [B * count, C + 1, D, H, W].

    Before it stand the channels that come before all of them, after it a one-hot plane for each of them.
    """
    context = images[:, :-count]
    each = images[:, -count:]
    kind = torch.eye(count, device=images.device, dtype=images.dtype).view(1, count, count, 1, 1, 1)
    shape = (len(images), count, -1, *images.shape[2:])
    parts = [context.unsqueeze(1).expand(shape), each.unsqueeze(2), kind.expand(shape)]
    return torch.cat(parts, dim=2).flatten(0, 1)


class VolumeConv(nn.Conv3d):
    """Halves height and width or, with 4x4x4 voxels, takes a voxel of them; divides the depth by `thin`, 1 or 2."""

    def __init__(
        self, ins: int, outs: int, kernel: int, stride: int, thin: int = 1, **options: Any
    ) -> None:
        super().__init__(ins, outs, kernel, stride=stride, **options)
        self.thin = thin

    def forward(self, h: Tensor) -> Tensor:
        """Volumes [B, C, D, H, W], convolved; a depth below FEWEST_SLICES is kept."""
        thin = self.thin if h.shape[2] >= FEWEST_SLICES else 1
        # slices that are filled in behind, to keep the depth
        after = 1 if thin == 2 else self.kernel_size[0] - 2
        h = F.pad(h, (1, 1, 1, 1, 1, after))
        return F.conv3d(h, self.weight, self.bias, (thin, *self.stride[1:]))
