"""A plain torch.nn.Module class as a network: its settings are the arguments of its constructor."""

import functools
import inspect
from dataclasses import field, make_dataclass
from typing import Any

from torch import Tensor, nn

from voxlate.base.config import STRICT
from voxlate.base.errors import BadInput
from voxlate.science.nets.blocks import CONVOLUTIONS, to_slices, to_volumes
from voxlate.science.nets.interface import Channels, NetSettings, NetworkInput, Output

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
