"""Networks of other installed packages, by name from a fixed table: a recipe cannot name other code here."""

import contextlib
import importlib
import inspect
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from voxlate.base.config import setting, settings
from voxlate.base.errors import BadInput
from voxlate.science.nets.blocks import cut_far, pad_far, to_slices, to_volumes
from voxlate.science.nets.interface import Channels, NetSettings, NetworkInput, Output

Arguments = dict[str, Any]
Range = tuple[float, float]
OWN: Range = (-1.0, 1.0)  # network units of voxlate
NONE = "none"  # stands for None among arguments, which TOML does not have
STATE = "state"  # the noisy image among the inputs
# The only classes that the arguments of nnU-Net's networks may name, by the last part of their names.
LAYERS: dict[str, type[nn.Module]] = {
    layer.__name__: layer
    for layer in (
        *(nn.Conv2d, nn.Conv3d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.BatchNorm2d),
        *(nn.BatchNorm3d, nn.Dropout2d, nn.Dropout3d, nn.LeakyReLU, nn.ReLU, nn.SiLU, nn.GELU),
    )
}


@dataclass(frozen=True)
class Architecture:
    """A class of another package, and how its arguments and its calls differ from those of other classes.

    place: "module:class"; ins, outs: the arguments for the channels; time: the argument of `forward` for the index of
    the noise level, "" where there is none; dims: of its convolutions; multiple: of its arguments, of what each side
    must be a multiple; prepare: the arguments of the constructor from those of a recipe; run: what evaluates it;
    allowed: the values of arguments whose others would need further inputs.
    """

    place: str
    multiple: Callable[[Arguments], Sequence[int]]
    dims: Callable[[Arguments], int] = lambda _: 2
    ins: str = "in_channels"
    outs: str = "out_channels"
    time: str = ""
    prepare: Callable[[Arguments], Arguments] = dict
    run: Callable[..., Any] = nn.Module.__call__
    allowed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The beginning of errors on arguments."""
        return f"net.arguments of {self.place.partition(':')[2]}"

    def load(self) -> type[nn.Module]:
        """The class; raises BadInput where the package is not installed."""
        module, _, name = self.place.partition(":")
        try:
            network: type[nn.Module] = getattr(importlib.import_module(module), name)
        except ImportError as error:
            raise BadInput(
                f"net.network: expected the package {module.partition('.')[0]}, which has {name}, found '{error.name}' not installed. Run pip install '.[import]'."
            ) from error
        return network

    def build(self, given: Mapping[str, Any], channels: dict[str, int]) -> nn.Module:
        """The module with fresh weights; channels: of inputs and outputs. Raises BadInput where arguments do not fit."""
        kind = self.load()
        known = inspect.signature(kind).parameters
        if unknown := [name for name in given if name not in known]:
            raise BadInput(
                f"{self.where}: expected arguments of the installed package, found '{unknown[0]}'. Install the version that wrote the model, or drop it."
            )
        for name, value in self.allowed.items():
            if name in given and given[name] not in (value, NONE):
                raise BadInput(
                    f"{self.where}: expected {name} = {value!r}, because voxlate gives images and their noise level alone, found {given[name]!r}. Choose another model."
                )
        values = {name: None if value == NONE else value for name, value in given.items()}
        # some constructors print their settings, which is no output of a command
        with _fitting(self.where), contextlib.redirect_stdout(io.StringIO()):
            return kind(**(self.prepare(values) | channels))

    def layout(self, given: Arguments) -> tuple[int, list[int]]:
        """Dimensions of the convolutions, and of what depth, height and width must be multiples."""
        with _fitting(self.where):
            dims = self.dims(given)
            multiples = [int(multiple) for multiple in self.multiple(given)]
            return dims, [1] * (3 - dims) + (multiples * dims if len(multiples) == 1 else multiples)


@contextlib.contextmanager
def _fitting(where: str) -> Iterator[None]:
    """Raise BadInput for what another package's code raises where arguments do not fit."""
    try:
        yield
    except BadInput:  # a ValueError, which says it already
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:  # fmt: skip
        what = str(error).partition("\n")[0] or type(error).__name__
        raise BadInput(
            f"{where}: expected arguments that fit together, found that they do not ({what}). Correct the model's configuration."
        ) from error


def _spatial(arguments: Arguments) -> int:
    return int(arguments.get("spatial_dims", 3))


def _layers(arguments: Arguments) -> Arguments:
    """Arguments of nnU-Net's networks, with layers for their names."""
    filled = dict(arguments)
    for name in ("conv_op", "norm_op", "dropout_op", "nonlin"):
        if filled.get(name) is not None:
            filled[name] = _layer(name, str(filled[name]))
    return filled | {"deep_supervision": False}


def _layer(name: str, text: str) -> type[nn.Module]:
    package, _, layer = text.rpartition(".")
    if layer not in LAYERS or not f"{package}.".startswith("torch.nn."):
        raise BadInput(
            f"net.arguments.{name}: expected one of torch.nn's {', '.join(LAYERS)}, found {text!r}. Choose another model."
        )
    return LAYERS[layer]


def _dims(arguments: Arguments) -> int:
    return 3 if str(arguments.get("conv_op")).endswith("3d") else 2


def _strides(arguments: Arguments) -> Sequence[int]:
    """Products of the strides of a network's stages, along each axis."""
    dims = _dims(arguments)
    each = [[s] * dims if isinstance(s, int) else s for s in arguments.get("strides", [])]
    return [math.prod(stride[axis] for stride in each) for axis in range(dims)]


def _last(net: Any, image: Tensor) -> Tensor:
    """The last result of a graph of KonfAI, whose own call takes batches of its training."""
    *_, (_, out) = net.named_forward(image)
    return out  # type: ignore[no-any-return]


def _halvings(key: str, default: int) -> Callable[[Arguments], Sequence[int]]:
    return lambda arguments: [2 ** (len(arguments.get(key, [0] * default)) - 1)]


_DYNAMIC = {
    "ins": "input_channels",
    "outs": "num_classes",
    "multiple": _strides,
    "dims": _dims,
    "prepare": _layers,
}
UNETS = "dynamic_network_architectures.architectures.unet"
NETWORKS: dict[str, Architecture] = {
    # it takes any size by conditions on it, which a graph of ONNX does not hold
    "monai.BasicUNet": Architecture(
        "monai.networks.nets.basic_unet:BasicUNet", lambda _: [16], _spatial
    ),
    "monai.DiffusionModelUNet": Architecture(
        "monai.networks.nets.diffusion_model_unet:DiffusionModelUNet",
        _halvings("channels", 4),
        _spatial,
        time="timesteps",
        allowed={"with_conditioning": False, "num_class_embeds": NONE},
    ),
    "diffusers.UNet2DModel": Architecture(
        "diffusers:UNet2DModel",
        _halvings("block_out_channels", 4),
        time="timestep",
        allowed={"class_embed_type": NONE, "num_class_embeds": NONE},
    ),
    "nnunet.PlainConvUNet": Architecture(f"{UNETS}:PlainConvUNet", **_DYNAMIC),  # type: ignore[arg-type]
    "nnunet.ResidualEncoderUNet": Architecture(f"{UNETS}:ResidualEncoderUNet", **_DYNAMIC),  # type: ignore[arg-type]
    "konfai.UNetPlusPlus": Architecture(
        "konfai.models.python.segmentation.unetplusplus:UNetPlusPlus",
        lambda _: [32],
        lambda arguments: int(arguments.get("dim", 2)),
        outs="classes",
        run=_last,
    ),
}
AUTOENCODERS: dict[str, Architecture] = {
    "monai.AutoencoderKL": Architecture(
        "monai.networks.nets.autoencoderkl:AutoencoderKL",
        _halvings("channels", 4),
        _spatial,
        allowed={"spatial_dims": 2},
    ),
    "diffusers.AutoencoderKL": Architecture(
        "diffusers:AutoencoderKL", _halvings("block_out_channels", 1)
    ),
}
Given = Annotated[
    Arguments,
    setting("Arguments of its constructor, but for the channels; 'none' stands for None."),
]


@settings
class ForeignNetwork(NetSettings):
    """A network of MONAI, diffusers, nnU-Net or KonfAI, slice by slice or, with convolutions of three dimensions, of volumes."""

    kind: Literal["foreign"] = "foreign"
    network: Annotated[
        Literal[
            "monai.BasicUNet",
            "monai.DiffusionModelUNet",
            "diffusers.UNet2DModel",
            "nnunet.PlainConvUNet",
            "nnunet.ResidualEncoderUNet",
            "konfai.UNetPlusPlus",
        ],
        setting("Package and class; voxlate's extra `import` installs the packages."),
    ]
    arguments: Given = field(default_factory=dict)
    inputs: Annotated[
        tuple[str, ...],
        setting(
            "Order of the network's input channels: source channels by name, t1[-1] being the slice below, and 'state', the noisy image; needed for more than one."
        ),
    ] = ()
    input_range: Annotated[
        dict[str, Range],
        setting("By source, the network's values for -1 and 1; unset: -1 and 1 themselves."),
    ] = field(default_factory=dict)
    output_range: Annotated[
        Range, setting("The network's values for -1 and 1 of the targets; of a diffusion -1 and 1.")
    ] = OWN

    def __post_init__(self) -> None:
        for name, ends in {**self.input_range, "output": self.output_range}.items():
            _check_range(f"the range of {name}", ends)

    @property
    def architecture(self) -> Architecture:
        """The class of the other package."""
        return NETWORKS[self.network]

    @property
    def multiple(self) -> int:
        """Of what height and width are multiples."""
        return max(self.architecture.layout(self.arguments)[1][1:])

    def build(self, channels: Channels) -> "ForeignNet":
        """Raises BadInput where the package is absent, or arguments, inputs or the task do not fit the network."""
        time = self.architecture.time
        self.takes_only_images(channels, noise=bool(time))
        if time and not channels.levels:
            raise BadInput(
                f"method: expected a diffusion with a schedule of betas (linear_betas, cosine_betas) for {self.network}, which takes the index of a noise level, found none. Set method.kind and method.schedule.kind."
            )
        modalities = {name.partition("[")[0] for name in channels.images}
        if unknown := sorted(self.input_range.keys() - modalities):
            raise BadInput(
                f"net.input_range: expected ranges of {', '.join(sorted(modalities))}, found '{unknown[0]}'. Change it."
            )
        if channels.noisy and self.output_range != OWN:
            raise BadInput(
                f"net.output_range: expected [-1, 1] for a diffusion, whose noise is added to the target's own values, found {list(self.output_range)}. Widen the target's window instead: for a network of [0, 1], low = 2·low - high."
            )
        order = self._order(channels)
        width = sum(channels.state if name == STATE else channels.images[name] for name in order)
        counts = {self.architecture.ins: width, self.architecture.outs: channels.out}
        return ForeignNet(self, self.architecture.build(self.arguments, counts), order, channels)

    def _order(self, channels: Channels) -> tuple[str, ...]:
        names = [*([STATE] if channels.state else []), *channels.images]
        if not self.inputs and len(names) == 1:
            return tuple(names)
        if sorted(self.inputs) != sorted(names):
            raise BadInput(
                f"net.inputs: expected the order of {', '.join(names)} in the network's input, found {list(self.inputs) or 'none'}. Name each once."
            )
        return self.inputs


class ForeignNet(nn.Module):
    """Lets a module of another package stand where networks take named inputs."""

    def __init__(
        self, net: ForeignNetwork, module: nn.Module, order: tuple[str, ...], channels: Channels
    ) -> None:
        super().__init__()
        self.net = module
        self.settings = net
        self.order = order
        # neighbouring slices, t1[-1], have the range of their modality
        known = {name: net.input_range.get(name.partition("[")[0], OWN) for name in order}
        self.ranges = {name: OWN if name == STATE else known[name] for name in order}
        dims, self.multiples = net.architecture.layout(net.arguments)
        self.volumes = dims == 3
        self.levels: Tensor
        self.register_buffer("levels", torch.tensor(channels.levels), persistent=False)

    def forward(self, inputs: NetworkInput) -> Output:
        """The module's image, in voxlate's units; padded far sides are cut off again."""
        parts = {STATE: inputs.state, **inputs.images}
        values = [_within(parts[name], *self.ranges[name]) for name in self.order]
        image = torch.cat(values, dim=1) if len(values) > 1 else values[0]
        depth = image.shape[2]
        padded = pad_far(image, self.multiples)
        log_snr = inputs.log_snr
        if self.volumes:
            out = self._run(padded, log_snr)
        else:
            each = None if log_snr is None else log_snr.repeat_interleave(depth)
            out = to_volumes(self._run(to_slices(padded), each), depth)
        return Output(_from_range(cut_far(out, image), *self.settings.output_range))

    def _run(self, image: Tensor, log_snr: Tensor | None) -> Tensor:
        time, run = self.settings.architecture.time, self.settings.architecture.run
        if not time or log_snr is None:
            return _tensor(run(self.net, image))
        # The nearest index: such networks were trained at these alone.
        index = (log_snr[:, None] - self.levels.to(log_snr)).abs().argmin(dim=1)
        return _tensor(run(self.net, image, **{time: index}))


def _check_range(where: str, ends: Range) -> None:
    low, high = ends
    if not low < high:
        raise BadInput(f"net: expected {where} as [low, high], found {list(ends)}. Change it.")


def _within(x: Tensor | None, low: float, high: float) -> Tensor:
    """Values of voxlate's network units in the range of another network."""
    assert x is not None
    return x if (low, high) == OWN else (x + 1) * ((high - low) / 2) + low


def _from_range(x: Tensor, low: float, high: float) -> Tensor:
    """The reverse of `_within`."""
    return x if (low, high) == OWN else (x - low) * (2 / (high - low)) - 1


def _tensor(found: Any) -> Tensor:
    """The image of a network's result: a tensor, or an object of diffusers that holds it."""
    return found if isinstance(found, Tensor) else found.sample


@settings
class ForeignAutoencoder(NetSettings):
    """A KL autoencoder of MONAI or diffusers, of slices."""

    autoencodes = True
    kind: Literal["foreign_autoencoder"] = "foreign_autoencoder"
    network: Annotated[
        Literal["monai.AutoencoderKL", "diffusers.AutoencoderKL"],
        setting("Package and class; voxlate's extra `import` installs the packages."),
    ]
    arguments: Given = field(default_factory=dict)
    range: Annotated[Range, setting("The network's values for -1 and 1 of an image.")] = OWN

    def __post_init__(self) -> None:
        _check_range("range", self.range)

    @property
    def latent(self) -> int:
        """Number of channels of the latent."""
        return int(self.arguments["latent_channels"])

    @property
    def factor(self) -> int:
        """Pixels of the image a pixel of the latent, along one side."""
        return AUTOENCODERS[self.network].layout(self.arguments)[1][-1]

    def build(self, channels: Channels) -> "ForeignAutoencoderNet":
        """Raises BadInput where the package is absent, or where arguments or the task do not fit."""
        self.takes_only_images(channels)
        if unstated := {"latent_channels", "in_channels", "out_channels"} - self.arguments.keys():
            raise BadInput(
                f"net.arguments: expected the argument '{min(unstated)}' of {self.network}, found none. Add it."
            )
        return ForeignAutoencoderNet(self, AUTOENCODERS[self.network].build(self.arguments, {}))


class ForeignAutoencoderNet(nn.Module):
    """`encode(x) -> (mean, logvar)` and `decode(z)` of images with one channel, as nets.autoencoder has them.

    A network of colour pictures gets the image once a colour, and the mean of its colours is the image.
    """

    def __init__(self, net: ForeignAutoencoder, module: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.module: Any = module
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Moments of the latent's Gaussian; sides are mirrored up to a multiple of `factor`."""
        padded = _within(pad_far(x, (1, self.net.factor, self.net.factor)), *self.net.range)
        colours = to_slices(padded).expand(-1, self.net.arguments["in_channels"], -1, -1)
        encoded = self.module.encode(colours)
        if isinstance(encoded, tuple):  # MONAI: mean and standard deviation
            mean, logvar = encoded[0], 2 * encoded[1].log()
        else:
            mean, logvar = encoded.latent_dist.mean, encoded.latent_dist.logvar
        depth = x.shape[2]
        return to_volumes(mean, depth), to_volumes(logvar, depth)

    def decode(self, z: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """The image of a latent, cropped to `size` (H, W)."""
        image = to_volumes(_tensor(self.module.decode(to_slices(z))), z.shape[2])
        image = image.mean(dim=1, keepdim=True)
        image = _from_range(image, *self.net.range)
        return image if size is None else image[..., : size[0], : size[1]]
