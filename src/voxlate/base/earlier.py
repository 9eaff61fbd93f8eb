"""Tables in files of earlier versions: keys that this version lacks, and that change nothing, are left out."""

from collections.abc import Mapping
from typing import Any

ANY = object()  # stands for all values of a key


def without_retired(stored: Mapping[str, Any], retired: Mapping[str, Any]) -> dict[str, Any]:
    """A stored table without retired keys; one that has another value stays, and is refused as an unknown key is.

    retired: the value with which a key changes nothing, or ANY, by dotted key; "*" stands for all keys of a table.
    """
    kept = dict(stored)
    for key, value in retired.items():
        kept = _without(kept, key.split("."), value)
    return kept


def _without(table: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    kept = dict(table)
    first, *rest = path
    for name in list(kept) if first == "*" else [first]:
        if rest and isinstance(kept.get(name), dict):
            kept[name] = _without(kept[name], rest, value)
        elif not rest and name in kept and (value is ANY or kept[name] == value):
            del kept[name]
    return kept
