"""The sentence with which a report begins."""

import pytest

from voxlate.scoring.verdict import Verdict
from voxlate.system.messages import Message
from voxlate.trust.usability import usability

TURNED = "t1: the scan is likely turned upside down."
DARK = "t1: 2 ml are dark."
NOTE = Message("brightness", "note", "t1: bright.")


def refused(reason: str = TURNED) -> Message:
    return Message("mirrored", "do not trust", reason)


def careful(reason: str = DARK) -> Message:
    return Message("dark-fluid", "caution", reason)


def on(outcome, modality="ct"):
    return Verdict(modality, outcome, "", baseline="copy of t1")


@pytest.mark.parametrize(
    ("warnings", "verdicts", "said"),
    [
        (
            {"a": [NOTE, refused(), careful()]},
            [on("better")],
            ("worse", f"Not usable because the model does not take such scans. {TURNED}"),
        ),
        (
            {"a": [refused()], "b": [refused("b.")]},
            [],
            (
                "worse",
                f"Not usable because the model does not take such scans. {TURNED} 1 other reason below.",
            ),
        ),
        (
            {"a": [refused()], "b": [NOTE], "c": []},
            [on("better")],
            ("unclear", f"Usable with care: 1 case of 3 cannot be used (a). {TURNED}"),
        ),
        (
            {"a": [careful()]},
            [on("better")],
            ("unclear", f"Usable with care: {DARK}"),
        ),
        (
            {"a": [careful()], "b": []},
            [on("worse")],
            (
                "worse",
                "Not usable because the error of ct is higher than that of a naive baseline (copy of t1).",
            ),
        ),
        (
            {"a": [NOTE]},
            [on("better"), on("unclear", "t2")],
            (
                "unclear",
                "Usable with care: the images are not shown to be more accurate than a naive baseline.",
            ),
        ),
        (
            {"a": []},
            [],
            (
                "unclear",
                "Usable with care: the error was not measured, because no true image was compared.",
            ),
        ),
        (
            {"a": []},
            [on("unknown")],
            (
                "unclear",
                "Usable with care: it is unknown whether a naive baseline is as accurate, because none was scored.",
            ),
        ),
        (
            {"a": []},
            [on("better")],
            ("better", "Usable in research: more accurate than each naive baseline."),
        ),
    ],
)
def test_the_gravest_reason_comes_first(warnings, verdicts, said):
    assert usability(warnings, verdicts) == said
