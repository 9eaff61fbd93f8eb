"""The table of exact checks (limits.toml), and its evaluation on the numbers of a scan.

A measure gives numbers by name; a row says something where all its conditions on them hold. A number that a measure
leaves out meets no condition, and no row silences another.
"""

import functools
import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlate.base.messages import Grade, Message, grade_of_distance, message
from voxlate.checks.fingerprint import BORDERS, LONGEST_TOUCH_MM, Fingerprint

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
    """A row of limits.toml: its code, conditions as "number > limit", and its sentence with the names of numbers.

    A condition may be several, joined by "or". worse: conditions under which it is "do not trust"; grade: else, by default the
    usual one of its code; times: a number that is a distance, which then decides the grade, together with `patients` among the
    numbers; measured: where its limits come from.
    """

    group: str
    code: str
    when: Sequence[str]
    text: str
    measured: str
    worse: Sequence[str] = ()
    grade: Grade | None = None
    times: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the numbers in its conditions and its sentence."""
        conditions = OR.join((*self.when, *self.worse)).split(OR)
        named = [condition.split()[0] for condition in conditions]
        return tuple(dict.fromkeys(named + FIELD.findall(self.text)))

    def message(self, numbers: Numbers, name: str) -> Message:
        """What the row says of a scan with this name."""
        grade = self.grade
        if self.times:
            patients = float(numbers.get("patients", math.inf))
            grade = grade_of_distance(float(numbers[self.times]), patients)
        if self.worse and _hold(self.worse, numbers):
            grade = "do not trust"
        measured: dict[str, Any] = {
            key: float(numbers[key])
            for key in self.names
            if not isinstance(numbers.get(key, ""), str)
        }
        text = self.text.format_map({**numbers, "scan": called(name)})
        return message(self.code, text[:1].upper() + text[1:], grade=grade, **measured)


def called(name: str) -> str:
    """A scan in a sentence."""
    return f"the {name.upper()} scan" if name else "the scan"


@functools.cache
def table() -> tuple[Row, ...]:
    """All rows."""
    import tomllib  # here, because --help needs none of it

    text = Path(__file__).with_name("limits.toml").read_text(encoding="utf-8")
    return tuple(Row(**row) for row in tomllib.loads(text)["row"])


def ask(group: str, numbers: Numbers, name: str = "") -> list[Message]:
    """The messages of all rows of a group that hold for the numbers of a scan."""
    rows = (row for row in table() if row.group == group)
    return [row.message(numbers, name) for row in rows if _hold(row.when, numbers)]


def exact_messages(
    scan: Fingerprint,
    unit: str,
    name: str = "",
    groups: Sequence[str] = ("scan",),
    **further: float,
) -> list[Message]:
    """What the numbers of one scan say alone.

    groups: "array", too, where it must show a head; further: numbers of its grid and frame.
    """
    numbers = {**scan.numbers, **further, "ct": float(unit == "HU")}
    return [said for group in groups for said in ask(group, numbers, name)]


def kind_messages(scan: Fingerprint, kind: str, name: str) -> list[Message]:
    """What says that a scan is not of the kind ("head" or "brain") that a network of synthetic heads takes, or is cut."""
    numbers = scan.numbers
    if "across" not in numbers:
        return []
    touches = {side: numbers[f"touch_{side}"] for side in BORDERS}
    sides = ", ".join(side for side, length in touches.items() if length >= LONGEST_TOUCH_MM)
    measured: Measured = {
        **numbers,
        "across_mm": math.exp(numbers["across"]),
        "sides": sides,
        "touch_mm": max(touches.values()),
        "least_touch_mm": min(touches.values()),
    }
    return ask(kind, measured, name)


def _hold(conditions: Sequence[str], numbers: Numbers) -> bool:
    """Whether all conditions hold."""
    return all(any(_is_met(one, numbers) for one in few.split(OR)) for few in conditions)


def _is_met(condition: str, numbers: Numbers) -> bool:
    number, sign, limit = condition.split()
    return number in numbers and COMPARE[sign](numbers[number], float(limit))
