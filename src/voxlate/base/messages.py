"""Messages to the user as values: a code, a grade, a text, a case and measured numbers.

Programs read code and grade, never the text. codes.toml has one entry for each code, from which the reference page is made.
"""

import functools
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from voxlate.base.errors import first_of, plural
from voxlate.base.groups import grouped

Grade = Literal["note", "caution", "do not trust"]
GRADES: tuple[Grade, ...] = get_args(Grade)


class Code(NamedTuple):
    """What a code means, what to do, and its grades, the usual one first; detail: printed with --verbose only."""

    meaning: str
    action: str = ""
    grades: tuple[Grade, ...] = ("note",)
    detail: bool = False


@functools.cache
def codes() -> dict[str, Code]:
    """Every code by its name."""
    import tomllib  # here, because --help needs none of it

    text = Path(__file__).with_name("codes.toml").read_text(encoding="utf-8")
    return {name: Code(**entry) for name, entry in tomllib.loads(text).items()}


NOTICE = "Research software, not a medical device; not for diagnosis or treatment."  # of files
UNOWNED = "unknown-patients"  # the code of slices of unknown patients
# Times the distance of the usual scan that is farthest from their median, from which a scan has a note, a caution, "do not trust".
NOTED, CAREFUL, REFUSED = 1.5, 2.2, 3.0
# Patients below which a distance from them is at most a note, and at most a caution: of ordinary heads, 26 % were beyond
# REFUSED with 2, 1 % with 8, none with 10.
FEWEST_PATIENTS, FEW_PATIENTS = 3, 10
ADVICE: dict[Grade, str] = {
    "note": "",
    "caution": "Caution: look at the scan and at the image.",
    "do not trust": "Do not trust the result.",
}


@dataclass(frozen=True)
class Message:
    """One message of a command, on a scan, an image or a whole cohort.

    Args:
        code: what it is about; the page of messages lists all codes.
        grade: "note", "caution" or "do not trust".
        text: a sentence for people, whose wording may change.
        case: name of the case, "" where it is on a whole cohort or run.
        numbers: what was measured, by name.

    Example:
        >>> import voxlate
        >>> (case,) = voxlate.check("RUN", "COHORT/case0", progress=False).cases
        >>> [message.text for message in case.messages if message.grade == "do not trust"]
        []
    """

    code: str
    grade: Grade
    text: str
    case: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict, hash=False)
    __pydantic_config__: ClassVar = {"extra": "forbid"}  # of one in a file

    def __str__(self) -> str:
        """The text with its case, and the advice of its grade."""
        case = f"{self.case}: " if self.case else ""
        return f"{case}{self.text} {ADVICE[self.grade]}".rstrip()

    @property
    def is_detail(self) -> bool:
        """Whether it is printed with --verbose only, as no caution is."""
        return self.grade == "note" and codes().get(self.code, Code("")).detail

    @property
    def table(self) -> dict[str, Any]:
        """The message as a table of plain values; empty entries are left out."""
        return {key: value for key, value in asdict(self).items() if value}

    def on(self, case: str) -> "Message":
        """The same message on a case."""
        return replace(self, case=case)


Say = Callable[[Message], None]
"""Is called with each message."""


def reworded(value: Any, change: Callable[[str], Any]) -> Any:
    """Plain values after a change of their texts; keys of tables stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return [reworded(entry, change) for entry in value]
    if isinstance(value, dict):
        return {key: reworded(entry, change) for key, entry in value.items()}
    return value


def message(
    code: str, text: str, *, grade: Grade | None = None, case: str = "", **numbers: float
) -> Message:
    """A message with the action of its code at the end of its text; grade: by default the usual one of the code."""
    entry = codes()[code]
    rounded = {name: float(f"{value:.4g}") for name, value in numbers.items()}
    return Message(code, grade or entry.grades[0], f"{text} {entry.action}".rstrip(), case, rounded)


def grade_of_distance(times: float, patients: float) -> Grade:
    """The grade of a scan by its distance from the median of some patients' scans, in units of their farthest one's."""
    if times <= CAREFUL or patients < FEWEST_PATIENTS:
        return "note"
    return "do not trust" if times > REFUSED and patients >= FEW_PATIENTS else "caution"


def worst_grade(messages: Iterable[Message]) -> Grade | None:
    """The highest grade among messages; None where there are none."""
    return max((said.grade for said in messages), key=GRADES.index, default=None)


def graded(text: str, grades: Collection[Grade]) -> str:
    """What a file, header or node says of an image, with the grade of the messages on it: DO NOT TRUST, or how many cautions."""
    if "do not trust" in grades:
        return f"{text}; DO NOT TRUST"
    count = [*grades].count("caution")
    return f"{text}; {plural(count, 'caution')}" if count else text


def verdict_of(messages: Iterable[Message]) -> str:
    """The worst grade of messages on scans; "fits" where none is more than a note."""
    grade = worst_grade(messages)
    return "fits" if grade in (None, "note") else str(grade)


def by_consequence(messages: Iterable[Message]) -> list[Message]:
    """Messages in the order in which all commands, pages and files state them: the gravest first, then as in codes.toml."""
    places = {code: place for place, code in enumerate(codes())}

    def rank(said: Message) -> tuple[int, int]:
        """The place of a message; that of a code from another version is the last of its grade."""
        return -GRADES.index(said.grade), places.get(said.code, len(places))

    return sorted(messages, key=rank)


def read_messages(table: Mapping[str, Any], key: str = "warnings") -> list[Message]:
    """Messages from the plain values in a file, by default those of a provenance, by their consequence."""
    return by_consequence(Message(**entry) for entry in table.get(key, ()))


def summarise(messages: Iterable[Message]) -> list[Message]:
    """One message for all of a code and grade, by their consequence; of several, the text counts and names the cases."""
    groups = grouped(((said.code, said.grade), said) for said in by_consequence(messages))
    return [_join(group) for group in groups.values()]


def _join(group: list[Message]) -> Message:
    first = group[0]
    cases = list(dict.fromkeys(said.case for said in group if said.case))
    others = len({said.text for said in group}) - 1
    if len(cases) < 2:
        more = f" ({plural(others, 'similar message')})" if others else ""
        return replace(first, text=f"{first.text}{more}")
    example = f", for example {first.case}" if others else ""
    text = f"{len(cases)} cases ({first_of(cases, 3)}){example}: {first.text}"
    return replace(first, case="", text=text)


def warn_unless_note(message: Message) -> None:
    """Warn as Python does, except of notes, which the images and their provenance contain."""
    if message.grade != "note":
        warnings.warn(str(message), stacklevel=3)


PATH = re.compile(r"(?<![\w.~])(?:/|[A-Za-z]:\\)[^\s:,;()'\"/\\]+[/\\][^\s:,;()'\"]*")


def without_names(text: str, names: Mapping[str, str]) -> str:
    """A text in which each of these names or paths has its replacement, and no absolute path remains."""
    for name in sorted(names, key=len, reverse=True):
        # not inside of words and numbers; '_' separates words
        whole = rf"(?<![^\W_])(?<!\d\.){re.escape(name)}(?![^\W_])(?!\.\d)"
        text = re.sub(whole, names[name].replace("\\", r"\\"), text)
    return PATH.sub("PATH", text)
