"""Messages to the user as values: a code, a grade, a text, a case and measured numbers.

Programs read code and grade, never the text. CODES has one entry for each code, from which the reference page is made.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from voxlate.system.codes import CODES, GRADES, Grade
from voxlate.system.errors import first_of, plural
from voxlate.system.files import write_text

FILE = "messages.jsonl"
CAREFUL = 1.5  # times the distance of the training scan that is farthest from their median
REFUSED = 3.0  # no held-out head of the phantoms reaches it (docs/guides/trust.md)
ADVICE: dict[Grade, str] = {
    "note": "",
    "caution": "Caution: look at the scan and at the image.",
    "do not trust": "Do not trust the image.",
}
OLD = "version-0.6"  # the code of a sentence in a file of version 0.6


@dataclass(frozen=True)
class Message:
    """One message; case: "" where it is on a whole cohort or run; numbers: what was measured, by name."""

    code: str
    grade: Grade
    text: str
    case: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        """The text with its case, and the advice of its grade."""
        case = f"{self.case}: " if self.case else ""
        return f"{case}{self.text} {ADVICE[self.grade]}".rstrip()

    @property
    def stated(self) -> dict[str, Any]:
        """The message as a table of plain values; empty entries are left out."""
        return {key: value for key, value in asdict(self).items() if value}

    def on(self, case: str) -> "Message":
        """The same message on a case."""
        return replace(self, case=case)


Say = Callable[[Message], None]
"""Is called with each message."""


def message(
    code: str, text: str, *, grade: Grade | None = None, case: str = "", **numbers: float
) -> Message:
    """A message with the action of its code at the end of its text; grade: by default the usual one of the code."""
    entry = CODES[code]
    rounded = {name: float(f"{value:.4g}") for name, value in numbers.items()}
    return Message(code, grade or entry.grades[0], f"{text} {entry.action}".rstrip(), case, rounded)


def grade_of_distance(times: float) -> Grade:
    """The grade of a scan by its distance from the training scans' median, in units of their farthest one's."""
    if times > REFUSED:
        return "do not trust"
    return "caution" if times > CAREFUL else "note"


def worst_grade(messages: Iterable[Message]) -> Grade | None:
    """The highest grade among messages; None where there are none."""
    return max((one.grade for one in messages), key=GRADES.index, default=None)


def read_messages(stated: Iterable[Any]) -> list[Message]:
    """Messages from the plain values in a file; version 0.6 wrote sentences, whose grade is in their words."""
    return [_of_sentence(one) if isinstance(one, str) else Message(**one) for one in stated]


def _of_sentence(sentence: str) -> Message:
    grade: Grade = "caution" if "Caution:" in sentence else "note"
    if "o not trust the image" in sentence:
        grade = "do not trust"
    text = sentence.replace(ADVICE[grade], "").strip() if ADVICE[grade] else sentence
    return Message(OLD, grade, text)


def write_messages(folder: Path, command: str, messages: Iterable[Message]) -> None:
    """Write the messages of a command into FOLDER/messages.jsonl, in place of those of the same command and cases."""
    own = [{"command": command, **one.stated} for one in messages]
    cases = {line.get("case", "") for line in own}
    path = folder / FILE
    before = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    kept = [
        line
        for line in map(json.loads, before)
        if line["command"] != command or line.get("case", "") not in cases
    ]
    lines = [json.dumps(line, ensure_ascii=False) for line in [*kept, *own]]
    write_text(path, "".join(f"{line}\n" for line in dict.fromkeys(lines)))


def summarise(messages: Iterable[Message]) -> list[Message]:
    """One message for all of a code and grade, the gravest first; of several, the text counts and names the cases."""
    groups = dict[tuple[str, Grade], list[Message]]()
    for one in messages:
        groups.setdefault((one.code, one.grade), []).append(one)
    ordered = sorted(groups.values(), key=lambda group: -GRADES.index(group[0].grade))
    return [_joined(group) for group in ordered]


def _joined(group: list[Message]) -> Message:
    first = group[0]
    cases = list(dict.fromkeys(one.case for one in group if one.case))
    texts = list(dict.fromkeys(one.text for one in group))
    if len(texts) == 1 and len(cases) < 2:
        return first
    if len(cases) < 2:
        return replace(first, text=f"{first.text} ({plural(len(texts) - 1, 'similar message')})")
    such = "" if len(texts) == 1 else f", {cases[0]}"
    text = f"{len(cases)} cases ({first_of(cases, 3)}){such}: {first.text}"
    return replace(first, case="", text=text)
