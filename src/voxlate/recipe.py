"""Recipes: one TOML per result with everything that a run depends on."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from voxlate.config import Importable, fill, imports, kind_of, settings, to_tables
from voxlate.data.batches import DataSettings
from voxlate.diffusion.noise import Independent, SliceNoise
from voxlate.diffusion.sample import SamplerSettings
from voxlate.errors import BadInput
from voxlate.files import safe_name
from voxlate.images.intensity import Intensity
from voxlate.images.tiling import AnySlices, Whole
from voxlate.learning.settings import BACKWARD, VALIDATION_SHARE, VALIDATION_STEPS, Precision, Training, evaluations
from voxlate.methods.autoencoding import AutoencodingSettings
from voxlate.methods.cycle import CycleSettings
from voxlate.methods.diffusion import DiffusionSettings
from voxlate.methods.method import Method
from voxlate.methods.opponent import OpponentSettings
from voxlate.methods.regression import RegressionSettings
from voxlate.methods.tasks import AnyTask, Translate
from voxlate.nets.autoencoder import KLAutoencoder
from voxlate.nets.bran import Bran
from voxlate.nets.completion.coca_gan import CocaGAN
from voxlate.nets.completion.hi_net import HiNet
from voxlate.nets.completion.mm_gan import MMGAN
from voxlate.nets.completion.mm_syn import MMSYN
from voxlate.nets.completion.ucd_gan import UcDGAN
from voxlate.nets.plain import settings_of_module
from voxlate.nets.resnet import ResNet
from voxlate.nets.unet import UNet
from voxlate.nets.xmodality.adm import ADM
from voxlate.nets.xmodality.dit import DiT
from voxlate.nets.xmodality.unet import PlainUNet
from voxlate.nets.xmodality.uvit import UViT
from voxlate.shipped_recipes.text import header, names, table, text_of, values_of

MOST_SAMPLES = 10_000  # a standard deviation is then known to 1 %; more is a slip of the keyboard
__all__ = ["header", "names", "table", "text_of", "values_of"]  # and all below: one place to ask about recipes

AnyMethod = Annotated[
    DiffusionSettings | RegressionSettings | CycleSettings | AutoencodingSettings,
    Field(discriminator="kind"),
    Importable(),
]
AnyNet = Annotated[
    UNet | Bran | ResNet | KLAutoencoder | PlainUNet | ADM | UViT | DiT | HiNet | MMGAN | MMSYN | CocaGAN | UcDGAN,
    Field(discriminator="kind"),
    Importable(settings_of_module),
]
AnyIntensity = Annotated[Intensity, Importable()]
StartFrom = Annotated[
    str | None, Field(description="earlier stage whose weights it begins with; what that lacks starts fresh")
]


@settings
class Synthesis(SamplerSettings):
    """How images are sampled from the trained model."""

    samples: Annotated[
        int,
        Field(ge=1, le=MOST_SAMPLES, description="images sampled of a case; over 1 gives mean and standard deviation"),
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
        Precision,
        Field(
            description="of convolutions and products while drawing; auto: bfloat16 where the training's was and it is "
            "measured faster on this machine, else float32"
        ),
    ] = "auto"
    mirror: Annotated[bool, Field(description="average with the left-right mirrored input (twice the time)")] = False
    peaks: Annotated[
        bool, Field(description="stretch above the median until `high` of a percentile map is almost where it belongs")
    ] = False


@settings
class Stage:
    """One training; earlier ones are listed in `stages`, the last one is the recipe itself, called 'final'."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="what later stages call it")]
    task: Annotated[AnyTask, Field(description="how batches become problems")] = Translate()
    method: Annotated[AnyMethod, Field(description="what is learned")]
    opponent: Annotated[OpponentSettings | None, Field(description="a critic of the images; unset: none")] = None
    net: Annotated[AnyNet, Field(description="the network")]
    train: Annotated[Training, Field(description="how it is trained")]
    data: Annotated[DataSettings | None, Field(description="what it sees, where that differs from the recipe's")] = None
    start_from: StartFrom = None
    mirror: Annotated[bool, Field(description="as synth.mirror, where this stage gives the answer (--answer mean)")] = (
        False
    )

    @property
    def turns(self) -> Mapping[str, int]:
        """The training's turns, in order, with the steps of each."""
        return self.method.turns if self.opponent is None else self.opponent.turns


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
    def modalities(self) -> set[str]:
        """All that some stage is given or makes."""
        return {name for stage in self.all_stages for name in (*stage.data.source, *stage.data.target)}

    @property
    def needs_mask(self) -> bool:
        """Whether a task or an earlier one works inside a mask, which must then be found in the sources."""
        return any(stage.task.needs_mask for stage in self.all_stages)

    def finds_mask_of(self, modality: str | None) -> bool:
        """Whether a mask that was found in this modality (None: in none, or in any) can be found in the sources."""
        return not self.needs_mask or modality is None or modality in self.data.source

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
        try:
            method = self.method.build(self.net, task, task.channels(sources, self.data.target))
        except (RuntimeError, ZeroDivisionError, TypeError) as error:
            raise BadInput(
                f"stage '{self.name}': expected a network that can be built, found settings that do not fit together "
                f"({str(error).splitlines()[0]}). Change its net table."
            ) from error
        return method if self.opponent is None else self.opponent.build(method)

    def evaluations(self, sampling: SamplerSettings) -> float:
        """Network evaluations for an item of a validation: its loss, and its image."""
        return 1 + (evaluations(sampling) if self.method.iterates else 1)

    def validation_share(self, sampling: SamplerSettings) -> float:
        """Cost of validations with a sampler as a share of the training's, in network evaluations."""
        train, passes = self.train, sum(self.turns.values())  # forward and backward, of a step
        known = (number for number in (train.validate_every, train.steps) if number)  # epochs are no steps yet
        cost = BACKWARD * passes * train.batch * min(known, default=1)
        return train.validation_items * self.evaluations(sampling) / cost

    def validation_sampling(self, synth: Synthesis) -> Synthesis:
        """How images are drawn during training: as the recipe says, else as synth does where that costs little."""
        chosen = self.train.validation
        if chosen is not None:
            return _drawn_by(synth, chosen.sampler, chosen.steps)
        if not self.method.iterates or self.validation_share(synth) <= VALIDATION_SHARE:
            return synth
        fewer = (_drawn_by(synth, "ddim", steps) for steps in range(VALIDATION_STEPS, 1, -1))
        cheap = (one for one in fewer if self.validation_share(one) <= VALIDATION_SHARE)
        return next(cheap, _drawn_by(synth, "ddim", 2 if synth.grid == "index" else 1))  # whose ends are two


def _drawn_by(synth: Synthesis, sampler: str, steps: int) -> Synthesis:
    """The same synthesis by another sampler, without what belongs to the one it had."""
    return dataclasses.replace(synth, sampler=sampler, steps=steps, eta=0.0, end=None, close=None)


_SHARED = ("task", "method", "opponent", "net", "train", "data", "start_from")  # keys of a stage that a recipe has too


def read(name: str, changes: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe by shipped name or path, with `changes` such as {'train.steps': '500'} (values as in TOML).

    `base = "NAME"` in a recipe takes all keys of another that it does not give itself. Raises BadInput that names an
    unknown key with the nearest known one, or a value out of range.
    """
    return from_dict(values_of(name, changes), name, allow_code=True)


def read_with_head(name: str, changes: Mapping[str, str] | None = None) -> tuple[Recipe, str]:
    """Read a recipe as `read` does, and the comment lines at its head."""
    return read(name, changes), header(text_of(name))


def from_dict(values: dict[str, Any], where: str, allow_code: bool = False) -> Recipe:
    """Fill and check a recipe from plain tables; raises BadInput, also where it needs code that is not allowed."""
    if (needed := needed_code(values)) and not allow_code:
        raise BadInput(
            f"{where}: expected a model of voxlate's own parts, found one that needs the code of {', '.join(needed)}. "
            "If you trust it, pass --allow-code (in Python: allow_code=True)."
        )
    values = _with_implied(values)
    recipe = fill(Recipe, values, where)
    if changed := _other_type(values, to_dict(recipe)):
        key, found, taken = changed
        raise BadInput(f"{where}: expected of '{key}' a value such as {taken!r}, found {found!r}. Write it so.")
    _check(recipe, where)
    return recipe


def _other_type(given: Any, held: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """The first key whose text or truth value was taken for something else ("12" for 12), what it was, and became."""
    if isinstance(given, dict) and isinstance(held, dict):
        inner = [(given[one], held.get(one, given[one]), f"{key}.{one}" if key else one) for one in given]
    elif isinstance(given, list | tuple) and isinstance(held, list):
        inner = [(one, other, f"{key}.{place}") for place, (one, other) in enumerate(zip(given, held))]
    else:
        kinds = [(isinstance(one, str), isinstance(one, bool)) for one in (given, held)]
        return (key, given, held) if kinds[0] != kinds[1] else None
    return next((found for one in inner if (found := _other_type(*one))), None)


def _with_implied(values: dict[str, Any], data: Any = None) -> dict[str, Any]:
    """Tables with what they imply: a stage has the recipe's data but for the keys that it gives, epochs alone 0 steps.

    The steps of so many epochs are known once there is a cohort (see `with_steps`).
    """
    values = dict(values)
    if isinstance(data, dict) and isinstance(values.get("data"), dict):
        values["data"] = data | values["data"]
    if isinstance(train := values.get("train"), dict) and "epochs" in train:
        values["train"] = {"steps": 0} | train
    if isinstance(stages := values.get("stages"), list):
        values["stages"] = [_with_implied(one, values.get("data")) if isinstance(one, dict) else one for one in stages]
    return values


def with_steps(recipe: Recipe, epoch_steps: Sequence[int], kept: Mapping[str, int] | None = None) -> Recipe:
    """The recipe with the steps of trainings whose length is in epochs; epoch_steps: steps an epoch, by stage.

    kept: the steps of stages whose run has begun, which stay. Raises BadInput where a recipe gives both and they
    differ.
    """
    trained = []
    for stage, steps in zip(recipe.all_stages, epoch_steps):
        options = stage.train
        if options.epochs is not None:
            wanted = (kept or {}).get(stage.name, options.epochs * steps)
            if options.steps not in (0, wanted):
                raise BadInput(
                    f"train.epochs: expected train.epochs or train.steps, found both in the stage '{stage.name}', and "
                    f"{options.epochs} epochs of this cohort are {wanted} steps, not {options.steps}. Drop one."
                )
            options = dataclasses.replace(options, steps=wanted)
        trained.append(options)
    return with_trainings(recipe, trained)


def with_trainings(recipe: Recipe, trainings: Sequence[Training]) -> Recipe:
    """The recipe with other trainings of its stages, in the order of `all_stages`."""
    *earlier, own = trainings
    stages = [dataclasses.replace(stage, train=options) for stage, options in zip(recipe.stages, earlier)]
    return dataclasses.replace(recipe, train=own, stages=stages)


def needed_code(values: Mapping[str, Any]) -> list[str]:
    """The "module:name"s outside the package that a recipe's plain tables import."""
    return imports({**values, "title": ""})


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Plain tables that from_dict reads back to an equal recipe."""
    return to_tables(recipe)


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
    earlier = [dataclasses.replace(one, data=one.data or recipe.data) for one in recipe.stages[:place]]
    windows = recipe.synth.windows if stages[place].method.iterates else None
    mirror = recipe.synth.mirror or recipe.stages[place].mirror
    synth = dataclasses.replace(recipe.synth, windows=windows, mirror=mirror)
    return dataclasses.replace(recipe, title=f"{recipe.title} ({name} alone)", stages=earlier, synth=synth, **own)


def check_synthesis(recipe: Recipe) -> None:
    """Raise BadInput where [synth] does not fit the rest: its slices, its noise or its sampler."""
    synth, depth = recipe.synth, recipe.data.patch[0]
    for key, plain, fits in (
        ("slices", "whole", synth.slices.for_volumes),
        ("noise", "independent", synth.noise.for_volumes),
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
    if synth.windows is not None and (recipe.data.centred or not recipe.method.iterates):
        centred = "data.centred, whose slices are padded to keep their middle"
        at_once = f"method.kind = '{kind_of(recipe.method)}', which makes images at once"
        why = centred if recipe.method.iterates else at_once
        raise BadInput(f"synth.windows: expected none for {why}, found {synth.windows}. Drop it.")
    if synth.slices.crop is not None and (depth > 1 or not recipe.ignores_outside):
        raise BadInput(
            "synth.slices.crop: expected a model of slices with task.inside and task.strip, in a predictor, too, found "
            f"{'one without' if depth == 1 else 'one of volumes'}. Drop it."
        )


def _check(recipe: Recipe, where: str) -> None:
    if missing := sorted(recipe.modalities - set(recipe.intensity)):
        known = {name.lower(): name for name in recipe.intensity}
        near = f"Did you mean {known[missing[0].lower()]}? Else add" if missing[0].lower() in known else "Add"
        raise BadInput(
            f"{where}: expected an intensity map for every modality, found none for {missing[0]}. {near} "
            f"--set 'intensity.{missing[0]}={{kind=\"percentile\"}}', or [intensity] in a recipe of your own."
        )
    for stage in recipe.all_stages:
        for name in (stage.name, *stage.data.source, *stage.data.target, *stage.data.labels):
            safe_name(name, where)  # files are called so
    earlier: dict[str, FullStage] = {}
    for stage in recipe.all_stages:
        if stage.name in earlier:
            raise BadInput(f"{where}: expected stages of different names, found '{stage.name}' twice. Rename one.")
        if stage.start_from is not None:
            _check_start(stage, stage.start_from, earlier, where)
        if stage.opponent and not stage.method.takes_opponent:
            raise BadInput(
                f"{where}: expected no [opponent] for method.kind = '{kind_of(stage.method)}', found one. Drop it."
            )
        if stage.train.steps == 0 and stage.train.epochs is None:
            raise BadInput(f"{where}: expected train.steps from 1, or train.epochs, found 0. Change it.")
        if stage.train.more and stage.train.stop is not None:
            raise BadInput(
                f"{where}: expected train.more or train.stop, which ends a training before its last step, found both "
                f"in the stage '{stage.name}'. Drop one; a run with train.stop is not trained further."
            )
        if stage.net.joins_slices and stage.data.patch[0] == 1:
            raise BadInput(
                f"{where}: expected patches of several slices in the stage '{stage.name}', whose net.volumetric joins "
                f"slices, found data.patch = {list(stage.data.patch)}. Give it more, such as 16."
            )
        stage.task.check(stage, earlier, where)
        stage.method.check(stage, where)
        stage.method.check_sampler(stage.validation_sampling(recipe.synth))
        earlier[stage.name] = stage
    check_synthesis(recipe)


def _check_start(stage: FullStage, start: str, earlier: Mapping[str, FullStage], where: str) -> None:
    if start not in earlier:
        raise BadInput(
            f"{where}: expected start_from to name an earlier stage ({', '.join(earlier) or 'there is none'}), "
            f"found '{start}'. Change it."
        )
    first = earlier[start]
    check_order(stage, {"source": first.data.source, "target": first.data.target}, f"'{start}'", where)
    if other := set(first.task.needs) - set(stage.task.needs):
        raise BadInput(
            f"{where}: expected the stage '{stage.name}' to build on '{min(other)}' as '{start}' does, whose weights "
            f"it starts from, found {', '.join(stage.task.needs) or 'none'}. Make them equal."
        )


def check_order(stage: FullStage, first: Mapping[str, Sequence[str]], whose: str, where: object) -> None:
    """Raise BadInput where weights that know modalities by their places would see them in others.

    first: "source" and "target" of the training that the weights are from; whose: its name.
    """
    for key in ("source", "target"):
        ours, theirs = getattr(stage.data, key), first[key]
        shared = [name for name in theirs if name in ours]
        if shared != [name for name in ours if name in theirs]:
            raise BadInput(
                f"{where}: expected data.{key} of the stage '{stage.name}' in the order of {whose}, whose weights it "
                f"starts from ({', '.join(theirs)}), found {', '.join(ours)}. Reorder it."
            )
