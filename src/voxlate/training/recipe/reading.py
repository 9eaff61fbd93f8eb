"""Reading of recipes: from text or plain tables to checked settings, and back."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from voxlate.base.config import fill, imports, kind_of, needs_code, to_tables
from voxlate.base.errors import BadInput
from voxlate.base.files import safe_name
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
    """The "module:name"s outside the package that a recipe's plain tables import; start_from names weights, no code."""
    plain = {**values, "title": "", "start_from": ""}
    stages = values.get("stages")
    if isinstance(stages, list):
        plain["stages"] = [
            {**stage, "start_from": ""} if isinstance(stage, dict) else stage for stage in stages
        ]
    return imports(plain)


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
    synth, data = recipe.synth, recipe.data
    of_volumes = data.patch[0] > 1
    has_mean = recipe.task.mean_stage is not None
    own_middle = any(stage.task.whole_slices for stage in recipe.all_stages)
    for key, wrong, expected in (
        (
            "slices",
            of_volumes and synth.slices.kind != "whole",
            "kind 'whole' for patches of several slices",
        ),
        (
            "noise",
            of_volumes and not synth.noise.for_volumes,
            "kind 'independent' for patches of several slices",
        ),
        (
            "slices",
            own_middle and synth.slices.kind == "tiled",
            "whole slices for task.asymmetry, whose middle is the mid-plane",
        ),
        (
            "slices",
            data.planes and synth.slices.resize_to is not None,
            "slices as they are, for data.planes",
        ),
        ("windows", data.planes and synth.windows is not None, "none for data.planes"),
        (
            "peak_shares",
            {*synth.peak_shares} - {*data.target},
            f"targets ({', '.join(data.target)})",
        ),
        (
            "sharpness",
            synth.sharpness < 1 and not has_mean,
            f"a model with a mean prediction and samples ({HOW_TO_SAMPLE})",
        ),
        (
            "gradient_ratio",
            synth.gradient_ratio is not None and not has_mean,
            f"a model with a mean prediction and samples ({HOW_TO_SAMPLE})",
        ),
        (
            "sharpness",
            synth.sharpness < 1 and synth.samples > 1,
            "one sample, because the mean of several is blurred",
        ),
        (
            "windows",
            synth.windows is not None and data.centred,
            "none for data.centred, whose slices are padded to keep their middle",
        ),
        (
            "windows",
            synth.windows is not None and not recipe.method.iterates,
            "none for a method that makes images at once",
        ),
    ):
        if wrong:
            raise BadInput(
                f"synth.{key}: expected {expected}, found {getattr(synth, key)} in '{recipe.title}'. Drop it."
            )
    for stage in recipe.all_stages:
        stage.method.check_sampler(synth)


def check(recipe: Recipe, where: str) -> None:
    """Raise BadInput where the stages and tables of a recipe do not fit one another; where: its name."""
    if missing := sorted(recipe.modalities - set(recipe.intensity)):
        keys = " ".join(map(intensity_key, missing))
        raise BadInput(
            f"{where}: expected an intensity map for every modality, found none for {', '.join(missing)} ({', '.join(recipe.intensity)} have one). Add {keys}, or [intensity] in a recipe of your own."
        )
    for stage in recipe.all_stages:
        for name in (stage.name, *stage.data.source, *stage.data.target, *stage.data.labels):
            safe_name(name, where)  # files are called so
    _check_physics(recipe, where)
    earlier: dict[str, FullStage] = {}
    for stage in recipe.all_stages:
        if stage.name in earlier:
            raise BadInput(
                f"{where}: expected stages of different names, found '{stage.name}' twice. Rename one."
            )
        if stage.start_from is not None and not is_starter(stage.start_from):
            _check_start(stage, stage.start_from, earlier, where)
        for sentence in _contradictions(recipe, stage):
            raise BadInput(f"{where}: {sentence}")
        stage.task.check(stage, earlier, where)
        stage.method.check(stage, where)
        stage.method.check_sampler(stage.validation_sampling(recipe.synth))
        earlier[stage.name] = stage
    check_synthesis(recipe)


def _contradictions(recipe: Recipe, stage: FullStage) -> Iterator[str]:
    """What does not fit in a stage: its critic, length, patches and planes beside its method and network."""
    train, data, method = stage.train, stage.data, stage.method
    named = f"the stage '{stage.name}'"
    if stage.opponent and not method.takes_opponent:
        yield f"expected no [opponent] for method.kind = '{kind_of(method)}', found one. Drop it."
    if train.steps == 0 and train.epochs is None and train.best is None:
        yield "expected train.steps from 1, or train.epochs, found 0. Change it."
    if stage.net.joins_slices and data.patch[0] == 1:
        yield f"expected patches of several slices in {named}, whose net.volumetric joins slices, found data.patch = {list(data.patch)}. Give it more, such as 16."
    slicewise = any(recipe.intensity[name].slicewise for name in data.modalities)
    translates = method.needs_pairs and method.makes_targets and not stage.task.encodes
    if data.planes and (slicewise or not translates):
        found = "an intensity map a slice" if slicewise else f"method.kind = '{kind_of(method)}'"
        yield f"expected a stage that translates pairs slice by slice for data.planes, found {found} in {named}. Drop data.planes."


def _check_physics(recipe: Recipe, where: str) -> None:
    """Raise BadInput where data.physics draws what no stage uses, what it cannot scale, or other things in a stage."""
    physics = recipe.data.physics
    if any(stage.data.physics != physics for stage in recipe.all_stages):
        raise BadInput(
            f"{where}: expected the same data.physics in every stage, found another in one. Drop it from the stage."
        )
    if physics is None:
        return
    unused = sorted(set(physics.contrasts) - recipe.modalities)
    if unused:
        raise BadInput(
            f"{where}: expected the contrasts of data.physics to be in data.source or data.target, found {unused[0]} in neither. Add it there, or drop data.physics.contrasts.{unused[0]}."
        )
    if recipe.data.slices is not None:
        raise BadInput(
            f"{where}: expected no data.slices with data.physics, whose images exist only when they are read, found a filter. Drop it."
        )
    physics.check(recipe.targets, recipe.intensity)


def _check_start(
    stage: FullStage, start: str, earlier: Mapping[str, FullStage], where: str
) -> None:
    if start not in earlier:
        raise BadInput(
            f"{where}: expected start_from to name an earlier stage ({', '.join(earlier) or 'there is none'}), found '{start}'. Change it."
        )
    first = earlier[start]
    check_order(
        stage, {"source": first.data.source, "target": first.data.target}, f"'{start}'", where
    )
    if other := set(first.task.needs) - set(stage.task.needs):
        raise BadInput(
            f"{where}: expected the stage '{stage.name}' to build on '{min(other)}' as '{start}' does, whose weights it starts from, found {', '.join(stage.task.needs) or 'none'}. Make them equal."
        )


def check_order(
    stage: FullStage, first: Mapping[str, Sequence[str]], whose: str, where: object
) -> None:
    """Raise BadInput where weights that know modalities by their places would see them in others.

    first: "source" and "target" of the training that the weights are from; whose: its name.
    """
    for key in ("source", "target"):
        ours = getattr(stage.data, key)
        theirs = first[key]
        shared = [name for name in theirs if name in ours]
        if shared != [name for name in ours if name in theirs]:
            raise BadInput(
                f"{where}: expected data.{key} of the stage '{stage.name}' in the order of {whose}, whose weights it starts from ({', '.join(theirs)}), found {', '.join(ours)}. Reorder it."
            )
