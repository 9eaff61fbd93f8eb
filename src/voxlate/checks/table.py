"""The one table of checks, limits.toml, and the one loop over it: which numbers of a scan say what.

A measure gives numbers by name; a row says something where all its conditions on them hold. A number that a measure
leaves out, or that is not one, meets no condition.
"""

import functools
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlate.base.codes import Grade
from voxlate.base.messages import Message, grade_of_distance, message

Numbers = Mapping[str, float | str]  # texts fill sentences alone
Measured = dict[str, float | str]  # numbers to which others are added

# Of a sentence; {scan} is no number, but the scan with its name where it has one.
FIELD = re.compile(r"\{(?!scan\})(\w+)")
COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Row:
    """A row of a group: its code, conditions as "number > limit", and its sentence with the names of numbers.

    worse: conditions under which it is "do not trust"; grade: else, by default the usual one of its code; times: a number
    that is the distance from a training, which then decides the grade; unless: codes of the same group after which it is
    silent; measured: where its limits were.
    """

    code: str
    when: Sequence[str]
    text: str
    worse: Sequence[str] = ()
    grade: Grade | None = None
    times: str = ""
    unless: Sequence[str] = ()
    measured: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the numbers in its conditions and its sentence."""
        named = [condition.split()[0] for condition in (*self.when, *self.worse)]
        named += FIELD.findall(self.text)
        return tuple(dict.fromkeys(named))

    def message(self, numbers: Numbers, name: str) -> Message:
        """What the row says of a scan with this name."""
        grade = self.grade
        if self.times:
            grade = grade_of_distance(float(numbers[self.times]))
        if self.worse and _hold(self.worse, numbers):
            grade = "do not trust"
        measured: dict[str, Any] = {
            key: numbers[key] for key in self.names if not isinstance(numbers.get(key, ""), str)
        }
        of_name = f"the {name.upper()} scan" if name else "the scan"
        text = self.text.format_map({**numbers, "scan": of_name})
        return message(self.code, text[:1].upper() + text[1:], grade=grade, **measured)


@functools.cache
def rows(group: str) -> tuple[Row, ...]:
    """The rows of a group, in the order in which they are asked."""
    return tuple(Row(**row) for row in _table()[group])


def names_of(group: str) -> tuple[str, ...]:
    """The names of all numbers that the rows of a group read, in one order."""
    return tuple(dict.fromkeys(name for row in rows(group) for name in row.names))


@functools.cache
def _table() -> dict[str, list[dict[str, Any]]]:
    import tomllib  # here, because --help needs none of it

    return tomllib.loads(Path(__file__).with_name("limits.toml").read_text(encoding="utf-8"))


def ask(group: str, numbers: Numbers, name: str = "") -> list[Message]:
    """The messages of all rows of a group that hold for the numbers of a scan."""
    said = list[Message]()
    for row in rows(group):
        if _hold(row.when, numbers) and not {one.code for one in said} & {*row.unless}:
            said.append(row.message(numbers, name))
    return said


def first(group: str, numbers: Numbers) -> tuple[str, str] | None:
    """The code of the first row of a group that holds, and its text; None where none holds."""
    held = (row for row in rows(group) if _hold(row.when, numbers))
    return next(((row.code, row.text.format_map(numbers)) for row in held), None)


def _hold(conditions: Sequence[str], numbers: Numbers) -> bool:
    """Whether all conditions hold."""
    for condition in conditions:
        number, sign, limit = condition.split()
        if number not in numbers or not COMPARE[sign](numbers[number], float(limit)):
            return False
    return True
