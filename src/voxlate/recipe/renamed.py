"""Keys of recipes that have new names. The old names still load; no other module knows them."""

import functools
import warnings
from dataclasses import dataclass
from typing import Any


class RenamedKey(FutureWarning):
    """A recipe has a key by its old name."""


@dataclass(frozen=True)
class Renamed:
    """A key of the table `table` of a stage; method: the kind of the stage's method, None for every kind."""

    table: str
    old: str
    new: str
    method: str | None = None


RENAMED = (
    Renamed("opponent", "game", "gan_loss"),
    Renamed("opponent.critic", "answer", "output"),
    Renamed("opponent.critic", "each", "separate"),
    Renamed("method", "game", "gan_loss", "cycle"),
    Renamed("method", "data", "distance", "cycle"),
    Renamed("method.critic", "answer", "output", "cycle"),
    Renamed("method.critic", "each", "separate", "cycle"),
)


def with_new_names(recipe: Any) -> Any:
    """Plain tables of a recipe with the new names of its keys, also within its stages; others stay as they are.

    An old key replaces the new one, so that `--set OLD=VALUE` changes a recipe that has the new name.
    """
    if not isinstance(recipe, dict):
        return recipe
    method = recipe.get("method")
    kind = method.get("kind") if isinstance(method, dict) else None  # None also where a base states it
    for one in RENAMED:
        if kind is None or one.method in (None, kind):
            recipe = _renamed(recipe, one.table.split("."), one)
    stages = recipe.get("stages")
    if isinstance(stages, list):
        return {**recipe, "stages": [with_new_names(stage) for stage in stages]}
    if isinstance(stages, dict):  # changes of a base's stages, by their names
        return {**recipe, "stages": {name: with_new_names(stage) for name, stage in stages.items()}}
    return recipe


def _renamed(table: Any, path: list[str], key: Renamed) -> Any:
    if not isinstance(table, dict) or ":" in str(table.get("kind", "")):  # settings of somebody's own code
        return table
    if path:
        first, *rest = path
        return {**table, first: _renamed(table[first], rest, key)} if first in table else table
    if key.old not in table:
        return table
    _say_once(key)
    kept = {name: value for name, value in table.items() if name != key.new}
    return {key.new if name == key.old else name: value for name, value in kept.items()}


@functools.cache
def _say_once(key: Renamed) -> None:
    warnings.warn(
        f"The recipe key '{key.table}.{key.old}' is called '{key.table}.{key.new}' now. The old name still works.",
        RenamedKey,
        stacklevel=2,
    )
