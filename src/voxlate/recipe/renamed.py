"""Keys of recipes that have new names. The old names still load; no other module knows them."""

import warnings
from dataclasses import dataclass
from typing import Any

from voxlate.system.errors import BadInput


class RenamedKey(FutureWarning):
    """A recipe has a key by its old name."""


@dataclass(frozen=True)
class Renamed:
    """A key of the table `table` of a stage; method: the kind of the stage's method, None for every kind.

    new: "" of a key that has no effect any more.
    """

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
    Renamed("data", "most_misaligned_mm", ""),
)


_SAID = set[Renamed]()  # keys that this process has warned of


def with_new_names(recipe: Any) -> Any:
    """Plain tables of a recipe with the new names of its keys, also within its stages; others stay as they are.

    An old key replaces the new one, so that `--set OLD=VALUE` changes a recipe that has the new name.
    """
    found = list[Renamed]()
    recipe = _with_new_names(recipe, found)
    if new := [key for key in dict.fromkeys(found) if key not in _SAID]:
        _SAID.update(new)
        names = ", ".join(
            f"'{key.table}.{key.old}' is called '{key.table}.{key.new}'"
            if key.new
            else f"'{key.table}.{key.old}' has none and no effect"
            for key in new
        )
        warnings.warn(
            f"Recipe keys have new names: {names}. The old names still work.",
            RenamedKey,
            stacklevel=3,
        )
    return recipe


def refuse_both_names(tables: Any, where: str, table: str = "") -> None:
    """Raise BadInput where a text states a key by its old and by its new name, because one of them would be lost."""
    if isinstance(tables, list):
        for entry in tables:
            refuse_both_names(entry, where, table)
    if not isinstance(tables, dict):
        return
    for key in RENAMED:
        if key.table.rpartition(".")[2] == table and {key.old, key.new} <= tables.keys():
            raise BadInput(
                f"{where}: expected '{key.table}.{key.new}' once, found it also by its old name '{key.old}'. Remove one of the two."
            )
    for name, entry in tables.items():
        refuse_both_names(entry, where, name)


def _with_new_names(recipe: Any, found: list[Renamed]) -> Any:
    if not isinstance(recipe, dict):
        return recipe
    method = recipe.get("method")
    kind = (
        method.get("kind") if isinstance(method, dict) else None
    )  # None also where a base states it
    for key in RENAMED:
        if kind is None or key.method in (None, kind):
            recipe = _rename(recipe, key.table.split("."), key, found)
    stages = recipe.get("stages")
    if isinstance(stages, list):
        return {**recipe, "stages": [_with_new_names(stage, found) for stage in stages]}
    if isinstance(stages, dict):  # changes of a base's stages, by their names
        return {
            **recipe,
            "stages": {name: _with_new_names(stage, found) for name, stage in stages.items()},
        }
    return recipe


def _rename(table: Any, path: list[str], key: Renamed, found: list[Renamed]) -> Any:
    if not isinstance(table, dict) or ":" in str(
        table.get("kind", "")
    ):  # settings of somebody's own code
        return table
    if path:
        first, *rest = path
        return (
            {**table, first: _rename(table[first], rest, key, found)} if first in table else table
        )
    if key.old not in table:
        return table
    found.append(key)
    kept = {name: value for name, value in table.items() if name != key.new}
    if not key.new:
        return {name: value for name, value in kept.items() if name != key.old}
    return {key.new if name == key.old else name: value for name, value in kept.items()}
