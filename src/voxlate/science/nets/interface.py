"""Inputs and outputs of networks, and the settings that build them.

A plain torch.nn.Module class is a network, too: its settings are the arguments of its constructor.
"""

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from voxlate.base.config import STRICT, kind_of
from voxlate.base.errors import BadInput
from voxlate.base.items import BACKGROUND
from voxlate.science.nets.blocks import CONVOLUTIONS, to_slices, to_volumes


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


GIVEN = ("in_channels", "out_channels")  # arguments that the task decides
NOISE = "log_snr"
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def settings_of_module(found: Any) -> type[NetSettings] | None:
    """Settings for what a recipe names, if that is a class of modules."""
    return settings_of(found) if isinstance(found, type) and issubclass(found, nn.Module) else None  # type: ignore[arg-type]


@functools.cache
def settings_of(cls: type[nn.Module]) -> type[NetSettings]:
    """Settings that build a module class: a key for each argument but in_channels and out_channels, which are given.

    The module's forward takes an image [B, C, D, H, W] (of two-dimensional convolutions: [B * D, C, H, W]) and, where
    it has an argument log_snr, the noise level [B]; it returns the image. Raises BadInput where the constructor cannot
    be called in this way.
    """
    where = f"{cls.__module__}:{cls.__qualname__}"
    arguments = [
        argument
        for name, argument in inspect.signature(cls).parameters.items()
        if name not in GIVEN
    ]
    if unnamed := [argument.name for argument in arguments if argument.kind not in NAMED]:
        raise BadInput(
            f"{where}: expected a constructor whose arguments have names, found '{unnamed[0]}', which takes any. Write in_channels, out_channels and each option as an argument."
        )
    keys: list[Any] = [_key(argument) for argument in arguments]
    own = {
        "build": _build(cls),
        # settings are sent to other processes by the module class, which has the name of their own class
        "__reduce__": lambda self: (_restore, (cls, vars(self))),
        "__pydantic_config__": STRICT,
    }
    settings = make_dataclass(
        cls.__name__, keys, bases=(NetSettings,), namespace=own, frozen=True, kw_only=True
    )
    # recipes name the class by these
    settings.__module__ = cls.__module__
    settings.__qualname__ = cls.__qualname__
    return settings


def _key(argument: inspect.Parameter) -> tuple[Any, ...]:
    """A field of settings, of the type that the argument states, if it states one."""
    kind = Any if argument.annotation is inspect.Parameter.empty else argument.annotation
    if argument.default is inspect.Parameter.empty:
        return argument.name, kind
    return argument.name, kind, field(default=argument.default)


def _build(cls: type[nn.Module]) -> Any:
    def _build_module(self: NetSettings, channels: Channels) -> nn.Module:
        takes = inspect.signature(cls.forward).parameters
        self.takes_only_images(channels, noise=NOISE in takes)
        asked = inspect.signature(cls).parameters
        sizes = {"in_channels": channels.joined, "out_channels": channels.out}
        given = {name: size for name, size in sizes.items() if name in asked}
        module = cls(**given, **vars(self))
        return PlainNet(module, NOISE in takes, channels.out)

    return _build_module


def _restore(cls: type[nn.Module], values: dict[str, Any]) -> NetSettings:
    return settings_of(cls)(**values)  # type: ignore[arg-type]


class PlainNet(nn.Module):
    """Lets a module that takes and returns tensors stand where networks take named inputs."""

    def __init__(self, module: nn.Module, noisy: bool, out: int) -> None:
        super().__init__()
        self.module = module
        self.noisy = noisy
        self.out = out
        convolutions = [part for part in module.modules() if isinstance(part, CONVOLUTIONS)]
        self.slicewise = {conv.weight.ndim for conv in convolutions} == {4}

    def forward(self, inputs: NetworkInput) -> Output:
        """The module's image; raises BadInput where its shape is another."""
        image = inputs.joined
        batch, _, depth, height, width = image.shape
        noise = inputs.log_snr
        if self.slicewise:
            image = to_slices(image)
            noise = None if noise is None else noise.repeat_interleave(depth)
        output: Tensor = self.module(image, log_snr=noise) if self.noisy else self.module(image)
        if self.slicewise and output.dim() == 4:
            output = to_volumes(output, depth)
        if output.shape != (wanted := (batch, self.out, depth, height, width)):
            raise BadInput(
                f"{type(self.module).__name__}: expected an image of shape {wanted}, found {tuple(output.shape)}. Return as many channels as out_channels says, on the input's own grid."
            )
        return Output(output)
