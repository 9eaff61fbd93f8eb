"""Recipes: one TOML per result with everything that a run depends on."""

import dataclasses
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, TypeAdapter
from torch import nn

from voxlate.config import Importable, fill, imports, kind_of, settings
from voxlate.data.batches import DataSettings
from voxlate.diffusion.noise import Independent, SliceNoise
from voxlate.diffusion.sample import SamplerSettings
from voxlate.errors import BadInput
from voxlate.images.intensity import Intensity
from voxlate.images.tiling import AnySlices, Whole
from voxlate.methods.autoencoding import AutoencodingSettings
from voxlate.methods.cycle import CycleSettings
from voxlate.methods.diffusion import DiffusionSettings
from voxlate.methods.method import Method
from voxlate.methods.opponent import OpponentSettings
from voxlate.methods.regression import RegressionSettings
from voxlate.methods.tasks import AnyTask, Translate
from voxlate.nets.autoencoder import KLAutoencoder
from voxlate.nets.bran import Bran
from voxlate.nets.resnet import ResNet
from voxlate.nets.unet import UNet
from voxlate.nets.xmodality.adm import ADM
from voxlate.nets.xmodality.dit import DiT
from voxlate.nets.xmodality.unet import PlainUNet
from voxlate.nets.xmodality.uvit import UViT

AnyMethod = Annotated[
    DiffusionSettings | RegressionSettings | CycleSettings | AutoencodingSettings,
    Field(discriminator="kind"),
    Importable(),
]
AnyNet = Annotated[
    UNet | Bran | ResNet | KLAutoencoder | PlainUNet | ADM | UViT | DiT, Field(discriminator="kind"), Importable()
]
AnyIntensity = Annotated[Intensity, Importable()]
StartFrom = Annotated[
    str | None, Field(description="earlier stage whose weights it begins with; what that lacks starts fresh")
]
SHIPPED = resources.files("voxlate") / "recipes"


@settings
class Optimiser:
    """How weights move."""

    kind: Annotated[Literal["adam", "adamw"], Field(description="Adam, or Adam with decoupled weight decay")] = "adamw"
    lr: Annotated[float, Field(gt=0, description="highest learning rate")] = 1e-3
    betas: Annotated[tuple[float, float], Field(description="decay of the gradient's first and second moments")] = (
        0.9,
        0.999,
    )
    weight_decay: Annotated[float, Field(ge=0, description="weight decay of matrices and kernels")] = 0.01
    warm_up: Annotated[int, Field(ge=0, description="steps over which the learning rate rises from 0")] = 100
    decay: Annotated[Literal["none", "cosine", "linear"], Field(description="how it falls after `hold`")] = "cosine"
    hold: Annotated[float, Field(ge=0, le=1, description="share of the steps before it starts to fall")] = 0.0
    last: Annotated[float, Field(ge=0, le=1, description="share of the learning rate left at the end")] = 0.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Norms, biases and embeddings' vectors are not decayed: pulling them to 0 has no reason."""
        kernels: list[nn.Parameter] = []
        vectors: list[nn.Parameter] = []
        for parameter in parameters:
            (kernels if parameter.ndim > 1 else vectors).append(parameter)
        groups = [{"params": kernels, "weight_decay": self.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        cls = torch.optim.AdamW if self.kind == "adamw" else torch.optim.Adam
        return cls(groups, lr=self.lr, betas=self.betas, fused=True)

    def factor(self, step: int, steps: int) -> float:
        """Share of the highest learning rate at a step, 0-based, of `steps`."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        begin = max(self.warm_up, round(self.hold * steps))
        progress = min(max((step - begin) / max(steps - begin, 1), 0.0), 1.0)
        falling = {"none": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
        return self.last + (1 - self.last) * falling[self.decay]


@settings
class Stop:
    """Ends a training early, once an epoch's loss is not below the mean of earlier epochs by the share `gain`.

    Source: Lyu & Wang 2022 (arXiv 2209.12104), sec. III: 100 epochs, window of 20, 1 %.
    """

    after_epochs: Annotated[int, Field(ge=1, description="epochs that are trained in any case")] = 100
    window: Annotated[
        int, Field(ge=1, description="epochs before the last one, with whose mean loss it is compared")
    ] = 20
    gain: Annotated[float, Field(ge=0, lt=1, description="share by which the loss must lie below that mean")] = 0.01

    def reached(self, losses: Sequence[float]) -> bool:
        """Whether training ends after these epochs; a loss that is NaN never ends it."""
        if len(losses) < max(self.after_epochs, self.window + 1):
            return False
        return losses[-1] > (1 - self.gain) * self._before(losses)

    def sentence(self, losses: Sequence[float], step: int) -> str:
        """Why it ended, for the log."""
        before = "loss of the epoch" if self.window == 1 else f"mean loss of the {self.window} epochs"
        return (
            f"ended at step {step} by train.stop: the loss of epoch {len(losses)}, {losses[-1]:.4g}, is not "
            f"{100 * self.gain:.3g} % below the {before} before, {self._before(losses):.4g}."
        )

    def _before(self, losses: Sequence[float]) -> float:
        return sum(losses[-1 - self.window : -1]) / self.window


@settings
class Training:
    """The training of a stage: steps, batches, optimiser, precision, validation."""

    steps: Annotated[int, Field(ge=1, description="optimiser steps")] = 10_000
    stop: Annotated[Stop | None, Field(description="end before `steps` once epochs gain too little; unset: never")] = (
        None
    )
    batch: Annotated[int, Field(ge=1, description="items a step, over all processes together")] = 8
    optimiser: Annotated[Optimiser, Field(description="how weights move")] = Optimiser()
    ema: Annotated[float, Field(ge=0, lt=1, description="decay of the running average of weights; 0: none")] = 0.999
    only: Annotated[str | None, Field(description="only weights whose dotted name has this part move; unset: all")] = (
        None
    )
    clip_norm: Annotated[float, Field(ge=0, description="largest norm of a step's gradient; 0: any")] = 1.0
    accumulate: Annotated[int, Field(ge=1, description="parts that a batch is split into, one after the other")] = 1
    precision: Annotated[Literal["bfloat16", "float32"], Field(description="of convolutions and products")] = "bfloat16"
    compile: Annotated[
        bool | None, Field(description="torch.compile the network; unset: on a GPU, and on a CPU over 20,000 steps")
    ] = None
    seed: Annotated[int, Field(ge=0, description="of weights, batches, augmentation and noise")] = 0
    workers: Annotated[
        int | None, Field(ge=0, description="processes that read data; unset: 4 with a GPU, none without")
    ] = None
    save_every: Annotated[int, Field(ge=1, description="steps between saved states")] = 500
    validate_every: Annotated[int, Field(ge=0, description="steps between validations; 0: only at the end")] = 1000
    validation_items: Annotated[int, Field(ge=1, description="items of each validation")] = 8
    log_every: Annotated[int, Field(ge=1, description="steps between lines of log.jsonl")] = 20


@settings
class Synthesis(SamplerSettings):
    """How images are sampled from the trained model."""

    samples: Annotated[
        int, Field(ge=1, description="images sampled of a case; over 1 gives mean and standard deviation")
    ] = 1
    batch: Annotated[
        int, Field(ge=1, description="slices or patches at a time: memory, and rounding unless `exact`")
    ] = 4
    exact: Annotated[
        bool, Field(description="float32 and one slice or patch at a time: bit-identical whatever the batch (slower)")
    ] = False
    overlap: Annotated[float, Field(ge=0, lt=1, description="share that neighbouring patches or tiles overlap")] = 0.5
    slices: Annotated[AnySlices, Field(description="how a model sees the slices of a volume")] = Whole()
    noise: Annotated[SliceNoise, Field(description="how alike the noise of a volume's slices is")] = Independent()
    precision: Annotated[
        Literal["bfloat16", "float32"] | None,
        Field(description="of convolutions and products while drawing; unset: as in training"),
    ] = None
    mirror: Annotated[bool, Field(description="average with the left-right mirrored input (twice the time)")] = False


@settings
class Stage:
    """One training; earlier ones are listed in `stages`, the last one is the recipe itself, called 'final'."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="what later stages call it")]
    task: Annotated[AnyTask, Field(description="how batches become problems")] = Translate()
    method: Annotated[AnyMethod, Field(description="what is learned")]
    opponent: Annotated[OpponentSettings | None, Field(description="a critic of the images; unset: none")] = None
    net: Annotated[AnyNet, Field(description="the network")]
    train: Annotated[Training, Field(description="how it is trained")]
    data: Annotated[DataSettings | None, Field(description="what it sees; unset: as the recipe")] = None
    start_from: StartFrom = None

    @property
    def turns(self) -> Mapping[str, int]:
        """The training's turns, in order, with the steps of each."""
        return self.method.turns if self.opponent is None else self.opponent.turns(self.method.turns)


@settings
class Recipe:
    """Everything that a result depends on, in addition to the data."""

    title: Annotated[str, Field(description="one line for people")]
    data: Annotated[DataSettings, Field(description="what the method sees")]
    intensity: Annotated[dict[str, AnyIntensity], Field(description="a map to network units for each modality")]
    task: Annotated[AnyTask, Field(description="how batches become problems")] = Translate()
    method: Annotated[AnyMethod, Field(description="what is learned")]
    opponent: Annotated[OpponentSettings | None, Field(description="a critic of the images; unset: none")] = None
    net: Annotated[AnyNet, Field(description="the network")] = UNet()
    train: Annotated[Training, Field(description="how it is trained")] = Training()
    synth: Annotated[Synthesis, Field(description="how images are drawn")] = Synthesis()
    start_from: StartFrom = None
    stages: Annotated[list[Stage], Field(description="earlier trainings, in order")] = dataclasses.field(
        default_factory=list
    )

    @property
    def all_stages(self) -> tuple["FullStage", ...]:
        """The earlier stages and the recipe's own training, which is called 'final'; each with its data."""
        own = {name: getattr(self, name) for name in _SHARED}
        earlier = [{**vars(stage), "data": stage.data or self.data} for stage in self.stages]
        return tuple(FullStage(**values) for values in (*earlier, {**own, "name": "final"}))

    @property
    def needs_mask(self) -> bool:
        """Whether a task or an earlier one works inside a mask, which must then be found in the sources."""
        return any(stage.task.needs_mask for stage in self.all_stages)

    @property
    def ignores_outside(self) -> bool:
        """Whether voxels outside the mask are neither read nor made: images are background there."""
        tasks = [self.task, *(stage.task for stage in self.stages if stage.name in self.task.needs)]
        return all(task.inside and task.strip for task in tasks)

    def build(self) -> Method:
        """The method of the last stage, with every earlier one inside it where its task needs it; fresh weights."""
        earlier: dict[str, Method] = {}
        for stage in self.all_stages:
            earlier[stage.name] = stage.build(earlier)
        return earlier["final"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullStage(Stage):
    """A stage of a recipe, with the data of the recipe where it has none of its own."""

    data: DataSettings

    def build(self, earlier: Mapping[str, Method]) -> Method:
        """The method with fresh weights; earlier: the finished methods of the stages before it."""
        task = self.task.build(earlier)
        sources = [f"{name}[{step:+d}]" if step else name for name, step in self.data.channels]
        method = self.method.build(self.net, task, task.channels(sources, self.data.target))
        return method if self.opponent is None else self.opponent.build(method)


_SHARED = ("task", "method", "opponent", "net", "train", "data", "start_from")  # keys of a stage that a recipe has too


def read(name: str, changes: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe by shipped name or path, with `changes` such as {'train.steps': '500'} (values as in TOML).

    `base = "NAME"` in a recipe takes all keys of another that it does not give itself. Raises BadInput that names an
    unknown key with the nearest known one, or a value out of range.
    """
    return from_dict(values_of(name, changes), name, allow_code=True)


def from_dict(values: dict[str, Any], where: str, allow_code: bool = False) -> Recipe:
    """Fill and check a recipe from plain tables; raises BadInput, also where it needs code that is not allowed."""
    if (needed := needed_code(values)) and not allow_code:
        raise BadInput(
            f"{where}: expected a model of voxlate's own parts, found one that needs the code of {', '.join(needed)}. "
            "If you trust it, pass --allow-code (in Python: allow_code=True)."
        )
    recipe = fill(Recipe, values, where)
    _check(recipe, where)
    return recipe


def needed_code(values: Mapping[str, Any]) -> list[str]:
    """The "module:name"s outside the package that a recipe's plain tables import."""
    return imports({**values, "title": ""})


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Plain tables that from_dict reads back to an equal recipe."""
    plain: dict[str, Any] = json.loads(TypeAdapter(Recipe).dump_json(recipe, exclude_none=True))
    return plain


def fixed_ranges(recipe: Recipe) -> dict[str, list[float]]:
    """The ranges that the recipe fixes in physical units; other modalities have a range for each volume."""
    return {name: list(one.window) for name, one in recipe.intensity.items() if one.window is not None}


def stage_recipe(recipe: Recipe, name: str) -> Recipe:
    """The recipe whose last stage is `name`; the weights file of that stage holds it, and so is a model of its own."""
    stages = recipe.all_stages
    place = [stage.name for stage in stages].index(name)
    if name == "final":
        return recipe
    own = {key: getattr(stages[place], key) for key in _SHARED}
    return dataclasses.replace(recipe, title=f"{recipe.title} ({name} alone)", stages=recipe.stages[:place], **own)


def check_synthesis(recipe: Recipe) -> None:
    """Raise BadInput where [synth] does not fit the rest: its slices, its noise or its sampler."""
    synth, depth = recipe.synth, recipe.data.patch[0]
    for key, plain, fits in (
        ("slices", "whole", synth.slices.for_volumes),
        ("noise", "independent", isinstance(synth.noise, Independent)),
    ):
        if depth > 1 and not fits:
            raise BadInput(
                f"synth.{key}: expected kind '{plain}' for a model of volumes (patches of {depth} slices), found "
                f"'{getattr(synth, key).kind}'. Drop synth.{key}."
            )
    for stage in recipe.all_stages:
        stage.method.check_sampler(synth)
        if stage.task.whole_slices and not synth.slices.keeps_middle:
            raise BadInput(
                f"synth.slices: expected whole slices for task.asymmetry, found kind '{synth.slices.kind}', whose "
                "middle is not the mid-plane. Drop synth.slices."
            )
    if synth.windows is not None and recipe.data.centred:
        raise BadInput(
            "synth.windows: expected none for data.centred, whose slices are padded to keep their middle, found "
            f"{synth.windows}. Drop it."
        )
    if synth.slices.crop is not None and (depth > 1 or not recipe.ignores_outside):
        raise BadInput(
            "synth.slices.crop: expected a model of slices with task.inside and task.strip, in a predictor, too, found "
            f"{'one without' if depth == 1 else 'one of volumes'}. Drop it."
        )


def _check(recipe: Recipe, where: str) -> None:
    needed = {name for stage in recipe.all_stages for name in (*stage.data.source, *stage.data.target)}
    if missing := sorted(needed - set(recipe.intensity)):
        raise BadInput(
            f"{where}: expected an intensity map for every modality, found none for {missing[0]}. Add [intensity]."
        )
    earlier: dict[str, FullStage] = {}
    for stage in recipe.all_stages:
        if stage.name in earlier:
            raise BadInput(f"{where}: expected stages of different names, found '{stage.name}' twice. Rename one.")
        if stage.start_from is not None and stage.start_from not in earlier:
            raise BadInput(
                f"{where}: expected start_from to name an earlier stage ({', '.join(earlier) or 'there is none'}), "
                f"found '{stage.start_from}'. Change it."
            )
        if stage.opponent and not stage.method.takes_opponent:
            raise BadInput(
                f"{where}: expected no [opponent] for method.kind = '{kind_of(stage.method)}', found one. Drop it."
            )
        stage.task.check(stage, earlier, where)
        stage.method.check(stage, where)
        earlier[stage.name] = stage
    check_synthesis(recipe)


def names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(file.name.removesuffix(".toml") for file in SHIPPED.iterdir() if file.name.endswith(".toml"))


def text_of(name: str) -> str:
    """The TOML text of a shipped recipe (by name) or of a file; raises BadInput where there is neither."""
    if name in names():
        return (SHIPPED / f"{name}.toml").read_text(encoding="utf-8")
    path = Path(name)
    if not path.is_file():
        raise BadInput(f"{name}: expected a recipe file or one of {', '.join(names())}, found neither. Check the name.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{name}: expected a TOML text, found bytes that are no text. Check the path.") from error


def header(text: str) -> str:
    """The comment lines at the head of a recipe: what it reproduces, the command, the number to expect."""
    lines = re.match(r"(#[^\n]*\n)*", text)
    return lines.group(0) if lines else ""


def values_of(name: str, changes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The tables of a recipe by shipped name or path, over those of its base, with `changes` as in `table`."""
    values = _values(name)
    for key, value in (changes or {}).items():
        _change(values, key, value)
    return values


def table(changes: Mapping[str, str]) -> dict[str, Any]:
    """`changes` such as {'slices.kind': 'tiled'} as a table of tables, values as in TOML."""
    values: dict[str, Any] = {}
    for key, value in changes.items():
        _change(values, key, value)
    return values


def _values(name: str, before: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tables of a recipe, over those of its base."""
    if name in before:
        raise BadInput(f"{name}: expected bases that end, found {' → '.join((*before, name))}. Change base.")
    try:
        values = tomllib.loads(text_of(name))
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{name}: expected TOML, found an error: {error}. Fix that line.") from error
    base = values.pop("base", None)
    return values if base is None else _updated(_values(str(base), (*before, name)), values)


def _updated(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The tables below, updated with those above; a table of another `kind` replaces the one below as a whole."""
    if above.get("kind", below.get("kind")) != below.get("kind"):
        return above
    both = {
        key: _updated(below[key], value)
        for key, value in above.items()
        if isinstance(value, dict) and isinstance(below.get(key), dict)
    }
    return {**below, **above, **both}


def _change(values: dict[str, Any], key: str, value: str) -> None:
    *tables, last = key.split(".")
    for part in tables:
        values = _entry(values, part, key) if isinstance(values, list) else values.setdefault(part, {})
        if not isinstance(values, (dict, list)):
            raise BadInput(f"--set {key}: expected '{part}' to be a table, found a value. Check the key.")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value  # a bare word is text: --set train.precision=float32
    if isinstance(values, list):
        _entry(values, last, key)
        values[int(last)] = parsed
    else:
        values[last] = parsed


def _entry(values: list[Any], number: str, key: str) -> Any:
    if not number.isdigit() or int(number) >= len(values):
        raise BadInput(
            f"--set {key}: expected a number from 0 to {len(values) - 1}, of a list's entry, found '{number}'. "
            "Change it."
        )
    return values[int(number)]
