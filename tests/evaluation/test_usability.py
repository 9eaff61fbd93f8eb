"""The sentence with which a report begins."""

from rows import every_row
from voxlate.base.messages import Message
from voxlate.evaluation.usability import usability
from voxlate.training.verdict import Verdict

TURNED = "t1: the scan is likely turned upside down."
DARK = "t1: 2 ml are dark."
NOTE = Message("brightness", "note", "t1: bright.")


def refused(reason: str = TURNED) -> Message:
    return Message("mirrored", "do not trust", reason)


def careful(reason: str = DARK) -> Message:
    return Message("dark-fluid", "caution", reason)


def on(outcome, modality="ct"):
    return Verdict(modality, outcome, "", baseline="copy of t1")


NO_USE = f"Not usable because the model does not take such scans. {TURNED}"
CARE = "Usable with care: "
UNSURE = f"{CARE}the images are not shown to be more accurate than a naive baseline."
UNMEASURED = f"{CARE}the error was not measured, because no true image was compared."
UNKNOWN = f"{CARE}it is unknown whether a naive baseline is as accurate, because none was scored."
WORSE = "Not usable because the error of ct is higher than that of a naive baseline (copy of t1)."
GOOD = "Usable in research: more accurate than each naive baseline."


@every_row(
    ("warnings", "verdicts", "colour", "said"),
    [
        ({"a": [NOTE, refused(), careful()]}, [on("better")], "worse", NO_USE),
        ({"a": [refused()], "b": [refused("b.")]}, [], "worse", f"{NO_USE} 1 other reason below."),
        (
            {"a": [refused()], "b": [NOTE], "c": []},
            [on("better")],
            "unclear",
            f"{CARE}1 case of 3 cannot be used (a). {TURNED}",
        ),
        ({"a": [careful()]}, [on("better")], "unclear", f"{CARE}{DARK}"),
        ({"a": [careful()], "b": []}, [on("worse")], "worse", WORSE),
        ({"a": [NOTE]}, [on("better"), on("unclear", "t2")], "unclear", UNSURE),
        ({"a": []}, [], "unclear", UNMEASURED),
        ({"a": []}, [on("unknown")], "unclear", UNKNOWN),
        ({"a": []}, [on("better")], "better", GOOD),
    ],
)
def test_the_gravest_reason_comes_first(warnings, verdicts, colour, said):
    assert usability(warnings, verdicts) == (colour, said)
