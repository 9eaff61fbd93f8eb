"""The table of checks (limits.toml), and its evaluation on the numbers of a scan.

A measure gives numbers by name; a row says something where all its conditions on them hold. A number that a measure
leaves out, or that is not one, meets no condition.
"""

import functools
import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from voxlate.base.errors import as_list
from voxlate.base.messages import Grade, Message, grade_of_distance, message

# Of faults of truths.
Kind = Literal[
    "spacing", "unit", "blank", "padding", "offset", "window", "slices", "mirrored", "patient"
]
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
OR = " or "


@dataclass(frozen=True)
class Row:
    """A row of one or several groups: its code, conditions as "number > limit", and its sentence with the names of numbers.

    A condition may be several, joined by "or". brief: the text in brackets where the scans of a cohort are listed; worse:
    conditions under which it is "do not trust"; grade: else, by default the usual one of its code; times: a number that
    is the distance from a training, which then decides the grade, together with `patients` among the numbers; unless:
    codes of rows asked before, after which it is silent; excused: conditions on the image of a truth, under which it is
    silent; fault: for which a truth is left out; measured: where its limits were.
    """

    groups: Sequence[str]
    code: str
    when: Sequence[str]
    measured: str
    text: str = ""
    brief: str = ""
    worse: Sequence[str] = ()
    grade: Grade | None = None
    times: str = ""
    unless: Sequence[str] = ()
    excused: Sequence[str] = ()
    fault: Kind | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the numbers in its conditions and its sentence."""
        conditions = OR.join((*self.when, *self.worse)).split(OR)
        named = [condition.split()[0] for condition in conditions]
        return tuple(dict.fromkeys(named + FIELD.findall(self.text)))

    def holds(self, numbers: Numbers) -> bool:
        """Whether its conditions hold."""
        return _hold(self.when, numbers) and not (self.excused and _hold(self.excused, numbers))

    def message(self, numbers: Numbers, name: str) -> Message:
        """What the row says of a scan with this name."""
        grade = self.grade
        if self.times:
            patients = float(numbers.get("patients", math.inf))
            grade = grade_of_distance(float(numbers[self.times]), patients)
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
    return tuple(row for row in table() if group in row.groups)


@functools.cache
def table() -> tuple[Row, ...]:
    """All rows."""
    import tomllib  # here, because --help needs none of it

    text = Path(__file__).with_name("limits.toml").read_text(encoding="utf-8")
    return tuple(Row(**row) for row in tomllib.loads(text)["row"])


def ask(groups: str | Sequence[str], numbers: Numbers, name: str = "") -> list[Message]:
    """The messages of all rows of one group or several that hold for the numbers of a scan."""
    said = list[Message]()
    for row in chain.from_iterable(map(rows, as_list(groups))):
        if row.holds(numbers) and not {one.code for one in said} & {*row.unless}:
            said.append(row.message(numbers, name))
    return said


def first(group: str, numbers: Numbers) -> Row | None:
    """The first row of a group that holds."""
    return next((row for row in rows(group) if row.holds(numbers)), None)


def _hold(conditions: Sequence[str], numbers: Numbers) -> bool:
    """Whether all conditions hold."""
    return all(any(_is_met(one, numbers) for one in few.split(OR)) for few in conditions)


def _is_met(condition: str, numbers: Numbers) -> bool:
    number, sign, limit = condition.split()
    return number in numbers and COMPARE[sign](numbers[number], float(limit))
