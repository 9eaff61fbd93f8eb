"""Every key of a recipe with its value, its default and its meaning, as TOML comments."""

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from voxlate.base.config import key_types, meaning_of, members


def explain(recipe: Any) -> str:
    """One line a key, in the order of the recipe's tables: `# train.steps = 500   (default 10000) optimiser steps`."""
    head = "# Every key of this recipe, with its default and meaning:"
    return "\n".join([head, *_lines(recipe, ""), ""])


def _lines(value: Any, name: str) -> Iterator[str]:
    hints = key_types(type(value))
    for field in fields(value):
        key = f"{name}.{field.name}" if name else field.name
        held = getattr(value, field.name)
        kinds = [getattr(member, "kind", None) for member in members(hints[field.name])]
        choice = f" [kind: {', '.join(str(kind) for kind in kinds)}]" if len(kinds) > 1 else ""
        text = f"{meaning_of(hints[field.name])}{choice}".strip()
        if is_dataclass(held):
            yield f"# [{key}] {text}"
            yield from _lines(held, key)
        elif field.name != "kind":
            yield f"# {key} = {_plain(held)}{_default(field, held)}  {text}"


def _default(field: Field, held: Any) -> str:
    if field.default is MISSING:
        return "  (no default)" if field.default_factory is MISSING else ""
    return "" if field.default == held else f"  (default {_plain(field.default)})"


def _plain(value: Any) -> str:
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_plain(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_plain(inner) for inner in value) + "]"
    if value is None:
        return "unset"
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
