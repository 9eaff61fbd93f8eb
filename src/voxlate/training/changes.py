"""The first difference between two tables, for messages on recipes, headers and states."""

from typing import Any

LONGEST_VALUE = 80  # characters of a list or text in a message


def first_change(old: Any, new: Any, name: str = "") -> str:
    """The first differing key as a dotted path, with both values; "" if there is none."""
    if old == new:
        return ""
    first = _as_tables(old)
    second = _as_tables(new)
    if first is not None and second is not None:
        for place in sorted({*first, *second}):
            inner = f"{name}.{place}" if name else place
            if change := first_change(first.get(place), second.get(place), inner):
                return change
    return f"{name} is {_describe(old)} there and {_describe(new)} here"


def _as_tables(value: Any) -> dict[str, Any] | None:
    """A table, or a list of tables such as stages by their names; None for anything else."""
    if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        return {str(entry.get("name", place)): entry for place, entry in enumerate(value)}
    return {str(key): entry for key, entry in value.items()} if isinstance(value, dict) else None


def _describe(value: Any) -> str:
    if value is None or value == []:
        return "unset"
    if (table := _as_tables(value)) is not None:
        kind = "table" if isinstance(value, dict) else "list"
        return f"a {kind} of {', '.join(table)}"
    text = repr(value)
    if len(text) <= LONGEST_VALUE:
        return text
    length = len(value) if isinstance(value, list | str) else len(text)
    return f"{length} long ({text[:LONGEST_VALUE]}…)"
