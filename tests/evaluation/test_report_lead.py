"""The sentences with which a report begins: the error of the images, and what speaks against them."""

from rows import every_row
from voxlate.base.messages import Message
from voxlate.evaluation.intervals.summary import NOT_MEASURED, error_lines
from voxlate.evaluation.reports.page import lead
from voxlate.training.verdict import Verdict

TURNED = "The T1 scan is likely turned upside down."
DARK = "t1: 2 ml are dark."
ERROR = "Expected error of ct: bone 200 HU."
DIM = Message("dim", "caution", "t1: dim.")
NOTE = Message("brightness", "note", "t1: bright.")


def refused(reason: str = TURNED) -> Message:
    return Message("mirrored", "do not trust", reason)


def careful(reason: str = DARK) -> Message:
    return Message("dark-fluid", "caution", reason)


def on(outcome, modality="ct"):
    return Verdict(modality, outcome, "", baseline="copy of t1")


@every_row(
    ("warnings", "verdicts", "outcome", "reason"),
    [
        ({"a": [NOTE, refused(), careful()]}, [on("better")], "worse", TURNED),
        ({"a": [refused()], "b": [refused("b.")]}, [], "worse", TURNED),
        ({"a": [refused()], "b": [NOTE], "c": []}, [on("better")], "unclear", f"a: {TURNED}"),
        ({"a": [careful()], "b": [DIM]}, [], "unclear", "1 other"),
        ({"a": [careful()]}, [on("better")], "unclear", DARK),
        ({"a": [careful()], "b": []}, [on("worse")], "worse", "naive baseline (ct)"),
        ({"a": [NOTE]}, [on("better"), on("unclear", "t2")], "unknown", ERROR),
        ({"a": [careful()]}, [], "unclear", ERROR),
        ({"a": []}, [], "unknown", ERROR),
        ({"a": []}, [on("better")], "better", ERROR),
    ],
)
def test_the_error_comes_first_unless_the_images_are_not_to_be_used(
    warnings, verdicts, outcome, reason
):
    found, said = lead(warnings, verdicts, [ERROR])
    assert found == outcome
    assert reason in said
    assert said.startswith(ERROR) == (outcome != "worse")


def test_the_error_of_several_cases_is_the_mean_of_what_their_intervals_let_expect():
    cases = [
        {"expected": {"ct": {"body": 50.0, "bone": error}}, "units": {"ct": "HU"}}
        for error in (100.0, 300.0)
    ]
    (line,) = error_lines(*cases)
    assert line.index("bone 200 HU") < line.index("body 50 HU")
    assert error_lines({"measured": {"t2": ["4 brains: MAE 0.1"]}}) != [NOT_MEASURED]
    assert error_lines({}) == error_lines() == [NOT_MEASURED]
