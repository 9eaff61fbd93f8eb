"""Reading of recipes: from text or plain tables to checked settings, and back."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from voxlate.base.config import fill, imports, kind_of, needs_code, to_tables
from voxlate.base.errors import BadInput
from voxlate.base.files import safe_name
from voxlate.science.nets.unet import UNet
from voxlate.training.batches.data_settings import intensity_key
from voxlate.training.recipe.settings import SHARED, FullStage, Recipe, Stage
from voxlate.training.recipe.text import Values, values_of
from voxlate.training.recipe.training_settings import Training
from voxlate.training.starters.names import is_starter


def read(name: str, changes: Mapping[str, Any] | None = None, allow_code: bool = False) -> Recipe:
    """Read a recipe by shipped name or path, with `changes` such as {'train.steps': '500'} (values as in TOML).

    `base = "NAME"` in a recipe takes all keys of another that it does not give itself. Raises BadInput that names an
    unknown key with the nearest known one, or a value out of range, or code that is not allowed.
    """
    return from_dict(values_of(name, changes), name, allow_code)


def from_dict(values: Values, where: str, allow_code: bool = False) -> Recipe:
    """Fill and check a recipe from plain tables; raises BadInput, also where it needs code that is not allowed.

    allow_code: import, and thereby run, the code outside voxlate that the recipe names.
    """
    return _fill(values, where, code_of(values) if allow_code else ())


def with_tables(recipe: Recipe, values: Values, where: str) -> Recipe:
    """A recipe of these tables, which may name the code that `recipe` uses already, and no other."""
    return _fill(values, where, code_of(to_dict(recipe)))


def _fill(values: Values, where: str, code: Collection[str]) -> Recipe:
    if refused := [name for name in code_of(values) if name not in code]:
        raise BadInput(f"{where}: {needs_code(refused)}")
    values = _with_implied(values)
    recipe = fill(Recipe, values, where, code=code)
    check(recipe, where)
    return recipe


def _with_implied(values: Values, data: Any = None) -> Values:
    """Tables with what they imply: a stage has the recipe's data but for the keys that it gives, epochs alone 0 steps.

    The steps of so many epochs are known once there is a cohort (see `with_steps`).
    """
    values = dict(values)
    if isinstance(data, dict) and isinstance(values.get("data"), dict):
        values["data"] = data | values["data"]
    if isinstance(train := values.get("train"), dict) and "epochs" in train:
        values["train"] = {"steps": 0} | train
    if isinstance(stages := values.get("stages"), list):
        values["stages"] = [
            _with_implied(stage, values.get("data")) if isinstance(stage, dict) else stage
            for stage in stages
        ]
    return values


def with_steps(recipe: Recipe, epoch_steps: Sequence[int]) -> Recipe:
    """The recipe with the steps of trainings whose length is in epochs; epoch_steps: steps an epoch, by stage.

    Raises BadInput where a recipe gives both and they differ.
    """
    trained = []
    for stage, steps in zip(recipe.all_stages, epoch_steps):
        options = stage.train
        if options.epochs is not None:
            wanted = options.epochs * steps
            if options.steps not in (0, wanted):
                raise BadInput(
                    f"train.epochs: expected train.epochs or train.steps, found both in the stage '{stage.name}', and {options.epochs} epochs of this cohort are {wanted} steps, not {options.steps}. Drop one."
                )
            options = replace(options, steps=wanted)
        trained.append(options)
    return with_trainings(recipe, trained)


def with_trainings(recipe: Recipe, trainings: Sequence[Training]) -> Recipe:
    """The recipe with other trainings of its stages, in the order of `all_stages`."""
    *earlier, last = trainings
    stages = [replace(stage, train=options) for stage, options in zip(recipe.stages, earlier)]
    return replace(recipe, train=last, stages=stages)


def code_of(values: Mapping[str, Any]) -> list[str]:
    """The "module:name"s outside the package that a recipe's plain tables import; starter:NAME names weights, no code."""
    return [name for name in imports({**values, "title": ""}) if not is_starter(name)]


def to_dict(recipe: Recipe) -> Values:
    """Plain tables that from_dict reads back to an equal recipe."""
    return to_tables(recipe)


def stated_keys(recipe: Recipe) -> Values:
    """The tables of a recipe with the keys that differ from their defaults, and its steps; from_dict reads them back."""
    return _differing(recipe, to_dict(recipe))


def _differing(one: Any, plain: Any) -> Any:
    """The plain tables of settings without keys that have their default; what is no table of settings stays."""
    if isinstance(one, Mapping):
        return {key: _differing(value, plain[key]) for key, value in one.items()}
    if isinstance(one, list):
        return [_differing(*pair) for pair in zip(one, plain)]
    if not is_dataclass(one):
        return plain
    kept: Values = {"kind": plain["kind"]} if "kind" in plain else {}
    for key in fields(one):
        if key.name not in plain:
            continue
        value = getattr(one, key.name)
        default = key.default_factory() if callable(key.default_factory) else key.default
        if isinstance(one, Stage) and key.name == "data":
            kept["data"] = plain["data"]  # what it does not state is the recipe's, not the default
        # A length in epochs would imply other steps.
        elif value != default or (isinstance(one, Training) and key.name == "steps"):
            kept[key.name] = _differing(value, plain[key.name])
    return kept


def ranges_of(recipe: Recipe) -> dict[str, list[float]]:
    """The ranges that the recipe fixes in physical units; other modalities have a range for each volume."""
    return {
        name: list(intensity.window)
        for name, intensity in recipe.intensity.items()
        if intensity.window is not None
    }


def stage_recipe(recipe: Recipe, name: str) -> Recipe:
    """The recipe whose last stage is `name`; the weights file of that stage holds it, and so is a model of its own."""
    stages = recipe.all_stages
    place = [stage.name for stage in stages].index(name)
    if name == "final":
        return recipe
    shared = {key: getattr(stages[place], key) for key in SHARED}
    earlier = [replace(stage, data=stage.data or recipe.data) for stage in recipe.stages[:place]]
    windows = recipe.synth.windows if stages[place].method.iterates else None
    mirror = recipe.synth.mirror or recipe.stages[place].mirror
    synth = replace(
        recipe.synth, windows=windows, mirror=mirror, sharpness=1.0, gradient_ratio=None
    )
    return replace(
        recipe, title=f"{recipe.title} ({name} alone)", stages=earlier, synth=synth, **shared
    )


HOW_TO_SAMPLE = "voxlate train auto --mode both makes a model with samples"


def check_synthesis(recipe: Recipe) -> None:
    """Raise BadInput where [synth] does not fit the rest: its slices, its noise or its sampler."""
    for key, expected in _unfit_synthesis(recipe):
        raise BadInput(
            f"synth.{key}: expected {expected}, found {getattr(recipe.synth, key)} in '{recipe.title}'. Drop it."
        )
    for stage in recipe.all_stages:
        stage.method.check_sampler(recipe.synth)


def _unfit_synthesis(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The keys of [synth] that do not fit the rest of a recipe, and what was expected."""
    synth, data = recipe.synth, recipe.data
    if data.patch[0] > 1 and synth.slices.kind != "whole":
        yield "slices", "kind 'whole' for patches of several slices"
    if data.patch[0] > 1 and not synth.noise.for_volumes:
        yield "noise", "kind 'independent' for patches of several slices"
    own_middle = any(stage.task.whole_slices for stage in recipe.all_stages)
    if own_middle and synth.slices.kind == "tiled":
        yield "slices", "whole slices for task.asymmetry, whose middle is the mid-plane"
    if data.planes and synth.slices.resize_to is not None:
        yield "slices", "slices as they are, for data.planes"
    at_once = data.planes or data.centred or not recipe.method.iterates
    if synth.windows is not None and at_once:
        yield "windows", "none for data.planes, data.centred or a method that makes images at once"
    for key in ("sharpness", "gradient_ratio"):
        if getattr(synth, key) not in (1, None) and recipe.task.mean_stage is None:
            yield key, f"a model with a mean prediction and samples ({HOW_TO_SAMPLE})"
    if synth.sharpness < 1 and synth.samples > 1:
        yield "sharpness", "one sample, because the mean of several is blurred"


def check(recipe: Recipe, where: str) -> None:
    """Raise BadInput where the stages and tables of a recipe do not fit one another; where: its name."""
    if missing := sorted(recipe.modalities - set(recipe.intensity)):
        keys = " ".join(map(intensity_key, missing))
        raise BadInput(
            f"{where}: expected an intensity map for every modality, found none for {', '.join(missing)} ({', '.join(recipe.intensity)} have one). Add {keys}, or [intensity] in a recipe of your own."
        )
    earlier: dict[str, FullStage] = {}
    for stage in recipe.all_stages:
        for name in (stage.name, *stage.data.source, *stage.data.target, *stage.data.labels):
            safe_name(name, where)  # files are called so
        for sentence in _contradictions(recipe, stage, earlier):
            raise BadInput(f"{where}: {sentence}")
        stage.task.check(stage, earlier, where)
        stage.method.check(stage, where)
        stage.method.check_sampler(stage.validation_sampling(recipe.synth))
        earlier[stage.name] = stage
    if recipe.data.physics is not None:
        recipe.data.physics.check(recipe.targets, recipe.intensity)
    check_synthesis(recipe)


def _contradictions(
    recipe: Recipe, stage: FullStage, earlier: Mapping[str, FullStage]
) -> Iterator[str]:
    """What does not fit in a stage: its name, start, critic, length, patches, planes and drawn contrasts."""
    train, data, method, start = stage.train, stage.data, stage.method, stage.start_from
    named = f"the stage '{stage.name}'"
    if stage.name in earlier:
        yield f"expected stages of different names, found '{stage.name}' twice. Rename one."
    if start is not None and not is_starter(start):
        if start not in earlier:
            yield f"expected start_from to name an earlier stage ({', '.join(earlier) or 'there is none'}), found '{start}'. Change it."
        first = earlier[start]
        yield from _other_order(stage, vars(first.data), f"'{start}'")
        if other := {*first.task.needs} - {*stage.task.needs}:
            yield f"expected {named} to build on '{min(other)}' as '{start}' does, whose weights it starts from, found {', '.join(stage.task.needs) or 'none'}. Make them equal."
    yield from _unfit_window(stage)
    if stage.opponent and not method.takes_opponent:
        yield f"expected no [opponent] for method.kind = '{kind_of(method)}', found one. Drop it."
    if train.steps == 0 and train.epochs is None and train.best is None:
        yield "expected train.steps from 1, or train.epochs, found 0. Change it."
    if stage.net.joins_slices and data.patch[0] == 1:
        yield f"expected patches of several slices in {named}, whose net.volumetric joins slices, found data.patch = {list(data.patch)}. Give it more, such as 16."
    slicewise = any(recipe.intensity[name].slicewise for name in data.modalities)
    translates = method.needs_pairs and method.makes_targets and not stage.task.encodes
    if data.planes and (slicewise or not translates):
        yield f"expected a stage that translates pairs slice by slice for data.planes, without an intensity map a slice, found another in {named}. Drop data.planes."
    physics = recipe.data.physics
    if data.physics != physics:
        yield f"expected the same data.physics in every stage, found another in {named}. Drop it from the stage."
    if physics is not None and (unused := sorted(set(physics.contrasts) - recipe.modalities)):
        yield f"expected the contrasts of data.physics to be in data.source or data.target, found {unused[0]} in neither. Add it there, or drop data.physics.contrasts.{unused[0]}."
    if physics is not None and data.slices is not None:
        yield "expected no data.slices with data.physics, whose images exist only when they are read, found a filter. Drop it."


def _unfit_window(stage: FullStage) -> Iterator[str]:
    """What is wrong with the windows to which a starter's output is rescaled."""
    by_net = isinstance(stage.net, UNet) and stage.method.predicts
    if stage.start_window and not (is_starter(stage.start_from) and by_net):
        yield f"expected start_window beside start_from = 'starter:NAME' in a regression by a U-Net, found it elsewhere in the stage '{stage.name}'. Drop it."
    for name, (low, high) in stage.start_window.items():
        if name not in stage.data.target or not low < high:
            yield f"expected start_window with low < high for a target ({', '.join(stage.data.target)}), found {[low, high]} for '{name}'. Change it."


def check_order(
    stage: FullStage, first: Mapping[str, Sequence[str]], whose: str, where: str
) -> None:
    """Raise BadInput where weights that know modalities by their places would see them in others.

    first: "source" and "target" of the training that the weights are from; whose: its name.
    """
    for sentence in _other_order(stage, first, whose):
        raise BadInput(f"{where}: {sentence}")


def _other_order(stage: FullStage, first: Mapping[str, Any], whose: str) -> Iterator[str]:
    """What is wrong with the order of a stage's modalities; see check_order."""
    for key in ("source", "target"):
        ours, theirs = getattr(stage.data, key), first[key]
        shared = [name for name in theirs if name in ours]
        if shared != [name for name in ours if name in theirs]:
            yield f"expected data.{key} of the stage '{stage.name}' in the order of {whose}, whose weights it starts from ({', '.join(theirs)}), found {', '.join(ours)}. Reorder it."
