"""Values in groups."""

from collections.abc import Hashable, Iterable
from typing import TypeVar

Group = TypeVar("Group", bound=Hashable)
Value = TypeVar("Value")


def grouped(pairs: Iterable[tuple[Group, Value]]) -> dict[Group, list[Value]]:
    """The values of each group, from pairs of a group and a value; groups are in the order of their first values."""
    groups = dict[Group, list[Value]]()
    for group, value in pairs:
        groups.setdefault(group, []).append(value)
    return groups
