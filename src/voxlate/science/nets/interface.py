"""Inputs and outputs of networks, and the settings that build them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from voxlate.base.config import kind_of
from voxlate.base.errors import BadInput
from voxlate.base.items import BACKGROUND


@dataclass(frozen=True)
class NetworkInput:
    """The inputs of a network.

    Args:
        images: by modality, in the order of `Channels.images`, each [B, C, D, H, W].
        state: the noisy or incomplete image [B, C, D, H, W].
        features: one [B, C_l, D, H_l, W_l] a level.
        code: [B, K], a configuration (which modalities to synthesise, say).
        log_snr: [B], the noise level.
        extras: names of `Output.extras` that are asked for.

    Example:
        >>> import torch
        >>> from voxlate.science.nets.interface import NetworkInput
        >>> images = {name: torch.zeros(2, 1, 1, 24, 20) for name in ("t1", "t2")}
        >>> NetworkInput(images).joined.shape
        torch.Size([2, 2, 1, 24, 20])
    """

    images: Mapping[str, Tensor] = field(default_factory=dict)
    state: Tensor | None = None
    features: tuple[Tensor, ...] = ()
    code: Tensor | None = None
    log_snr: Tensor | None = None
    extras: tuple[str, ...] = ()

    @property
    def joined(self) -> Tensor:
        """The state, then the images in their order, concatenated: [B, C, D, H, W]."""
        parts = [*([] if self.state is None else [self.state]), *self.images.values()]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def modality_images(inputs: NetworkInput) -> tuple[Tensor, Tensor]:
    """The images of all modalities, [B, N, D, H, W], and which are available, [B, N], 0 or 1.

    Of a completion (with a code) those of the state, background where not available; else all images given.
    """
    if inputs.code is None:
        images = torch.cat(list(inputs.images.values()), dim=1)
        return images, images.new_ones(images.shape[:2])
    assert inputs.state is not None
    hidden = inputs.code.unflatten(1, (-1, inputs.state.shape[1])).amax(dim=1) > 0
    return inputs.state.masked_fill(hidden[:, :, None, None, None], BACKGROUND), (~hidden).to(
        inputs.state.dtype
    )


Extras = dict[str, Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class Output:
    """The outputs of a network.

    Args:
        image: [B, C, D, H, W].
        extras: further results by name: "features" (a tuple of maps), and those of methods.regression that the input
            asks for.

    Example:
        >>> import torch
        >>> from voxlate.science.nets.interface import Output
        >>> Output(torch.zeros(2, 1, 1, 24, 20)).image.shape
        torch.Size([2, 1, 1, 24, 20])
    """

    image: Tensor
    extras: Mapping[str, Tensor | tuple[Tensor, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Channels:
    """The channels of a network's inputs and outputs.

    Args:
        images: of each image, by name and in order.
        out: of the image that it returns.
        state: 0 where there is none.
        code: length of the configuration code.
        noisy: whether the noise level is an input.
        features: of each feature map.
        masked: whether all is background outside a mask, so that nothing is synthesised at an image's border.

    Example:
        >>> from voxlate.science.nets.interface import Channels
        >>> Channels({"t1": 1, "t2": 1}, out=1, state=1).joined
        3
    """

    images: Mapping[str, int]
    out: int
    state: int = 0
    code: int = 0
    noisy: bool = False
    features: tuple[int, ...] = ()
    masked: bool = False

    @property
    def joined(self) -> int:
        """Channels of the state and the images together."""
        return self.state + sum(self.images.values())


class NetSettings(ABC):
    """Settings of a network, whose `build` gives the network: the base of classes that a recipe names as net.kind.

    Example:
        >>> from torch import nn
        >>> from voxlate.base.config import settings
        >>> from voxlate.science.nets.interface import Channels, NetSettings, Output
        >>> class Net(nn.Module):
        ...     def __init__(self, channels):
        ...         super().__init__()
        ...         self.layer = nn.Conv3d(channels.joined, channels.out, 1)
        ...     def forward(self, inputs):
        ...         return Output(self.layer(inputs.joined))
        >>> @settings
        ... class Small(NetSettings):
        ...     def build(self, channels):
        ...         self.takes_only_images(channels)
        ...         return Net(channels)
        >>> Small().build(Channels({"t1": 1}, out=1)).layer.weight.shape
        torch.Size([1, 1, 1, 1, 1])
    """

    autoencodes: ClassVar[bool] = False
    """Whether the network has a latent: `encode`, `decode` and `scale` (see nets.autoencoder)."""
    compares_sides: ClassVar[bool] = False
    """Whether the network takes feature maps and compares them with their left-right mirror images."""

    @abstractmethod
    def build(self, channels: Channels) -> nn.Module:
        """The network, with fresh weights from torch's global generator; raises BadInput where channels do not fit."""

    @property
    def multiple(self) -> int:
        """Height and width are best a multiple of this; others are padded by the network."""
        return 1

    @property
    def joins_slices(self) -> bool:
        """Whether the network has layers along depth alone, which learn nothing from single slices."""
        return False

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of the maps in the output's extras["features"], none for most networks."""
        return ()

    @property
    def extras(self) -> tuple[str, ...]:
        """Names of what the network can give besides its image, for losses (see methods.regression)."""
        return ()

    def takes_only_images(self, channels: Channels, noise: bool = False) -> None:
        """Raise BadInput where a task gives more than images (and with `noise` their noise level)."""
        more = {"a configuration code": channels.code, "feature maps": channels.features}
        if not noise:
            more["the noise level"] = channels.noisy
        if found := next((name for name, there in more.items() if there), None):
            also = " and their noise level" if noise else ""
            raise BadInput(
                f"net.kind: expected a network that takes {found}, found '{kind_of(self)}', which takes images{also} alone. Set net.kind to 'unet'."
            )
