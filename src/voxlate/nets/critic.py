"""Critics: convolutional networks that tell true images from made ones, as one number or as a map of patches."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from voxlate.config import settings
from voxlate.nets.blocks import start_normal, to_slices, to_volumes

SLOPE = 0.2  # of LeakyReLU below 0: Radford et al. 2016, sec. 3


@settings
class Critic:
    """Strided 4x4 convolutions with LeakyReLU over the image and its condition (Isola et al. 2017, sec. 3.2).

    With widths = [64, 128, 256, 512] and patches it is the critic of 70 pixels of Pix2Pix (norm = batch) and CycleGAN.
    """

    kind: Literal["critic"] = "critic"
    widths: Annotated[
        tuple[int, ...],
        Field(
            min_length=1, description="channels of each layer; each halves the size, but not the last before patches"
        ),
    ] = (64, 128, 256, 512, 512)
    norm: Annotated[
        Literal["none", "instance", "batch"],
        Field(description="between layers, the first apart: of each slice, or of a batch; none suits a penalty"),
    ] = "none"
    answer: Annotated[
        Literal["image", "patches"], Field(description="one number a slice (global mean), or one a patch")
    ] = "image"

    maps: Annotated[int, Field(ge=1, description="answers at each place: 1, or one for each channel of the image")] = 1

    def build(self, *, channels: int) -> "CriticNet":
        """The network, with fresh weights; channels: of the image and its condition together."""
        return CriticNet(self, channels)


class CriticNet(nn.Module):
    """`critic(images) -> answers`: [B, C, D, H, W] -> [B, K, D] or [B, K, D, h, w], each slice by itself."""

    def __init__(self, critic: Critic, channels: int) -> None:
        super().__init__()
        self.critic = critic
        layers: list[nn.Module] = []
        for number, (ins, outs) in enumerate(zip((channels, *critic.widths), critic.widths)):
            halve = number < len(critic.widths) - 1 or critic.answer == "image"
            norm = critic.norm if number else "none"
            layers.append(nn.Conv2d(ins, outs, 4, stride=2 if halve else 1, padding=1, bias=norm != "batch"))
            if norm != "none":
                layers.append(nn.BatchNorm2d(outs) if norm == "batch" else nn.InstanceNorm2d(outs))
            layers.append(nn.LeakyReLU(SLOPE))
        self.layers = nn.Sequential(*layers)
        patches = critic.answer == "patches"
        self.head = nn.Conv2d(critic.widths[-1], critic.maps, 4 if patches else 1, padding=1 if patches else 0)
        if patches:
            start_normal(self)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        depth = images.shape[2]
        h = self.layers(to_slices(images).contiguous(memory_format=torch.channels_last))
        if self.critic.answer == "patches":
            return to_volumes(self.head(h), depth)
        return to_volumes(self.head(h.mean(dim=(2, 3), keepdim=True)), depth).flatten(2)
