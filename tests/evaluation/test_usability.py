"""The sentence with which a report begins."""

from rows import every_row
from voxlate.base.messages import Message
from voxlate.evaluation.reports.page import usability
from voxlate.training.verdict import Verdict

TURNED = "The T1 scan is likely turned upside down."
DARK = "t1: 2 ml are dark."
NOTE = Message("brightness", "note", "t1: bright.")


def refused(reason: str = TURNED) -> Message:
    return Message("mirrored", "do not trust", reason)


def careful(reason: str = DARK) -> Message:
    return Message("dark-fluid", "caution", reason)


def on(outcome, modality="ct"):
    return Verdict(modality, outcome, "", baseline="copy of t1")


def few(patients):
    return Verdict("ct", "unclear", "", baseline="copy of t1", lower_on=2, patients=patients)


@every_row(
    ("warnings", "verdicts", "outcome", "reason"),
    [
        ({"a": [NOTE, refused(), careful()]}, [on("better")], "worse", TURNED),
        ({"a": [refused()], "b": [refused("b.")]}, [], "worse", f"{TURNED} 1 other"),
        ({"a": [refused()], "b": [NOTE], "c": []}, [on("better")], "unclear", f"(a). {TURNED}"),
        ({"a": [careful()]}, [on("better")], "unclear", DARK),
        ({"a": [careful()], "b": []}, [on("worse")], "worse", "copy of t1"),
        ({"a": [NOTE]}, [on("better"), on("unclear", "t2")], "unclear", "naive baseline"),
        ({"a": []}, [few(2)], "unclear", "2 patients (at least 6 are needed)"),
        ({"a": []}, [few(9)], "unclear", "lower for 2 of 9 patients"),
        ({"a": []}, [], "unclear", "not measured"),
        ({"a": []}, [on("unknown")], "unclear", "none was scored"),
        ({"a": []}, [on("better")], "better", "research"),
    ],
)
def test_the_gravest_reason_comes_first(warnings, verdicts, outcome, reason):
    found, said = usability(warnings, verdicts)
    assert found == outcome
    assert reason in said
