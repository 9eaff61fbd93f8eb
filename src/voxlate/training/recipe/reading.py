"""Reading of recipes: from text or plain tables to checked settings, and back."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from voxlate.base.config import fill, imports, needs_code, to_tables
from voxlate.base.errors import BadInput
from voxlate.training.recipe.checks import check
from voxlate.training.recipe.settings import SHARED, Recipe, Stage
from voxlate.training.recipe.text import Values, values_of
from voxlate.training.recipe.training_settings import Training


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
