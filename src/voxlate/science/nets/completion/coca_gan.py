"""CocaGAN, compact and of slices: encoders to one feature space, and decoders and a segmentation of lesions from it."""

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from voxlate.base.config import Counts, setting, settings
from voxlate.science.nets.blocks import start_normal
from voxlate.science.nets.completion.shared import (
    Modalities,
    fuse_maps,
    layers_down,
    layers_up,
    modalities_of,
    slices_of,
)
from voxlate.science.nets.interface import Channels, Extras, NetSettings, NetworkInput, Output

SLOPE = 0.2  # of LeakyReLU below 0, of the critic of features


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
        self.decoders = nn.ModuleList(_decoder(net.widths, 1) for _ in range(modalities.outputs))
        self.segmenter = _decoder(net.widths, net.classes) if net.classes else None
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


def _decoder(widths: tuple[int, ...], outs: int) -> nn.Sequential:
    return nn.Sequential(*layers_up(widths), nn.Conv2d(widths[0], outs, 3, padding=1))


class FeatureCritic(nn.Module):
    """Which modality a map of features is of: [B, C, H, W] -> [B, N] logits."""

    def __init__(self, channels: int, modalities: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels // 2, channels // 4, 3, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
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
