"""Grades of warnings: a note, a caution, or that the image must not be trusted."""

from typing import Literal, get_args

Grade = Literal["note", "caution", "do not trust"]
GRADES: tuple[Grade, ...] = get_args(Grade)

CAUTION = 1.5  # times the distance of the training scan that is farthest from their median
REFUSE = 3.0  # no held-out head of the phantoms reaches it (docs/guides/trust.md)
ADVICE: dict[Grade, str] = {
    "note": "Note: ordinary scans may lie so far out.",
    "caution": "Caution: look at the scan and at the image.",
    "do not trust": "Do not trust the image.",
}


def grade(times: float) -> Grade:
    """The grade of a scan by its distance from the training scans' median, in units of their farthest one's."""
    if times > REFUSE:
        return "do not trust"
    return "caution" if times > CAUTION else "note"


def advice(times: float) -> str:
    """The sentence that ends a warning, from which `grade_of` reads its grade."""
    return ADVICE[grade(times)]


def grade_of(sentence: str) -> Grade:
    """The grade that a warning states; a warning without a grade is a note."""
    if "o not trust the image" in sentence:
        return "do not trust"
    return "caution" if "Caution:" in sentence else "note"


def worst(sentences: list[str]) -> Grade | None:
    """The highest grade among warnings; None where there are none."""
    return max((grade_of(sentence) for sentence in sentences), key=GRADES.index, default=None)
