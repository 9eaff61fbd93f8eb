"""Keys of recipes that have new names. The old names still load; no other module knows them."""

import warnings
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.messages import OwnWarning

# The new name of each key in the tables of a stage; "" of a key that has no effect any more.
RENAMED = {
    "opponent.game": "gan_loss",
    "opponent.critic.answer": "output",
    "opponent.critic.each": "separate",
    "method.game": "gan_loss",
    "method.data": "distance",
    "method.critic.answer": "output",
    "method.critic.each": "separate",
    "data.most_misaligned_mm": "",
}
_SAID = set[str]()  # keys of which this process has warned


class RenamedKey(OwnWarning):
    """A recipe has a key by its old name."""


def with_new_names(recipe: Any, where: str = "") -> Any:
    """Plain tables of a recipe with the new names of its keys, also within its stages; others stay as they are.

    An old key replaces the new one, so that `--set OLD=VALUE` changes a recipe that has the new name. where: the name of
    a text; raises BadInput if it states a key by both names, because one of them would be lost.
    """
    found = list[str]()
    recipe = _rename(recipe, "", where, found)
    if new := [key for key in dict.fromkeys(found) if key not in _SAID]:
        _SAID.update(new)
        names = ", ".join(
            f"'{key}' is called '{_new_name(key)}'"
            if RENAMED[key]
            else f"'{key}' has none and no effect"
            for key in new
        )
        warnings.warn(
            f"Recipe keys have new names: {names}. The old names still work.",
            RenamedKey,
            stacklevel=3,
        )
    return recipe


def _new_name(key: str) -> str:
    return f"{key.rpartition('.')[0]}.{RENAMED[key]}"


def _rename(table: Any, path: str, where: str, found: list[str]) -> Any:
    """A table with the new names of its keys; path: its place in a stage, such as "opponent."."""
    # Settings of other code have keys of their own.
    if not isinstance(table, dict) or ":" in str(table.get("kind", "")):
        return table
    old = {key: RENAMED[path + key] for key in table if path + key in RENAMED}
    found += [path + key for key in old]
    renamed = {}
    for key, entry in table.items():
        if key in old.values() and where:
            raise BadInput(
                f"{where}: expected '{path}{key}' once, found it also by an old name ({', '.join(old)}). Remove one of the two."
            )
        if key in old.values() or old.get(key) == "":
            continue
        if path or key != "stages":
            entry = _rename(entry, f"{path}{key}.", where, found)
        elif isinstance(entry, list):
            entry = [_rename(stage, "", where, found) for stage in entry]
        elif isinstance(entry, dict):  # changes of a base's stages, by their names
            entry = {name: _rename(stage, "", where, found) for name, stage in entry.items()}
        renamed[old.get(key, key)] = entry
    return renamed
