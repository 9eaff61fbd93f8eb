"""The table of exact checks (limits.toml), its evaluation on the numbers of a scan, and what it is asked of cases and masks.

A measure gives numbers by name; a row says something where all its conditions on them hold. A number that a measure
leaves out meets no condition, and no row silences another.
"""

import functools
import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.array_types import Bool
from voxlate.base.errors import BadInput
from voxlate.base.messages import Grade, Message, message
from voxlate.checks.fingerprint import BORDERS, LONGEST_TOUCH_MM, Fingerprint
from voxlate.scans.cases.case import CaseHeader, PreparedCase, misalignments
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.misalignment import Misalignment, is_resolved

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
    usual one of its code; measured: where its limits come from.
    """

    group: str
    code: str
    when: Sequence[str]
    text: str
    measured: str
    worse: Sequence[str] = ()
    grade: Grade | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the numbers in its conditions and its sentence."""
        conditions = OR.join((*self.when, *self.worse)).split(OR)
        named = [condition.split()[0] for condition in conditions]
        return tuple(dict.fromkeys(named + FIELD.findall(self.text)))

    def message(self, numbers: Numbers, name: str) -> Message:
        """What the row says of a scan with this name."""
        is_worse = self.worse and _hold(self.worse, numbers)
        grade: Grade | None = "do not trust" if is_worse else self.grade
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


def check_together(case: PreparedCase) -> Iterator[Message]:
    """A message on scans of a case that are one, and on each that lies far from the first, moved or of another patient."""
    for one, other in combinations(case.header.statistics, 2):
        if np.array_equal(case.arrays[one], case.arrays[other]):
            yield one_scan([one, other])
    for name, found in misalignments(case).items():
        yield from check_apart(case.header, name, found, of_input=1.0)


def one_scan(names: Sequence[str]) -> Message:
    """The message on scans of a case that have the same voxels."""
    text = f"{' and '.join(names)} have the same voxels."
    return message("same-voxels", text, grade="do not trust")


def check_apart(
    header: CaseHeader, name: str, found: Misalignment, of_input: float = 0.0
) -> list[Message]:
    """A message where a scan is far from the scan that it was compared with, or how far is not known.

    of_input: 1 for scans that are given to a model.
    """
    apart_mm = found.median_mm or 0.0
    seen = np.array(header.spacing_mm)[is_resolved(header.shape, header.spacing_mm)]
    numbers = {
        "apart_mm": apart_mm,
        "voxels": apart_mm / seen.max() if apart_mm else 0.0,
        "unmeasured": found.median_mm is None,
        "reason": found.reason,
        "to": found.to,
        "of_input": of_input,
    }
    return ask("apart", numbers, name)


def check_guesses(name: str, guesses: Sequence[Message], case: str = "") -> Iterator[Message]:
    """The messages on guesses about a scan, with its name."""
    return (replace(guess, text=f"{name}: {guess.text}", case=case) for guess in guesses)


def mask_numbers(mask: Volume, inside: Bool, bodies: Sequence[Bool]) -> dict[str, float]:
    """Numbers of a mask as whole numbers, and of its voxels on the grid of a case with the bodies in its scans: see `mask` in limits.toml.

    A body that fills the image is none.
    """
    labels = np.rint(mask.data[0])
    steps = np.diff(labels)[np.minimum(labels[..., 1:], labels[..., :-1]) > 0]
    numbers = {"uneven": np.count_nonzero(steps) / max(1, steps.size)}
    shown = [body for body in bodies if body.any() and not body.all()]
    if not shown or not inside.any():
        return numbers
    body = max(shown, key=lambda body: inside[body].mean())
    of_body, of_rest = float(inside[body].mean()), float(inside[~body].mean())
    whole = np.logical_or.reduce(shown)
    planes, of_mask = (np.asarray(voxels.any((1, 2))) for voxels in (whole, inside))
    middles = [np.argwhere(voxels)[:, 0].mean() for voxels in (inside, whole)]
    return numbers | {
        "of_body": of_body,
        "of_rest": of_rest,
        "more_outside": of_rest - of_body,
        "in_air": 1 - float(whole[inside].mean()),
        "mask_slices": float(of_mask[planes].mean()),
        "mask_up": float(middles[0] - middles[1]) / int(planes.sum()),
    }


def refuse_misplaced(path: Path, numbers: Mapping[str, float], is_of_body: bool) -> None:
    """Raise BadInput where a mask is a scan, or holds the background; is_of_body: whether it is that of a whole body or brain."""
    for said in ask("mask", numbers):
        if is_of_body or said.code != "part-mask":
            raise BadInput(
                f"{path}: expected a mask on the body of this truth, found another one. {said.text} Take that of the same scan, or choose another --mask."
            )
