"""The verdict on the scans of a case, before anything is computed."""

from dataclasses import dataclass

from voxlate.base.codes import Grade
from voxlate.base.errors import DoNotTrust
from voxlate.base.messages import Message, Say, worst_grade
from voxlate.checks.out_of_distribution import Verdict, verdict_on
from voxlate.synthesis.calibration import Calibration
from voxlate.synthesis.facts import Facts
from voxlate.synthesis.inputs import CaseInputs
from voxlate.synthesis.intervals import patches_in, sources_of


@dataclass(frozen=True)
class Checked:
    """The scans of a case as a model takes them, before its network computes.

    targets: the modalities to synthesise; messages: on names, on the scans, and on their distance from those of the
    calibration; notes: those on names; calibration: of the intervals, None without; verdict: of the calibration on the
    scans, None where it compares none.
    """

    inputs: CaseInputs
    targets: tuple[str, ...]
    messages: tuple[Message, ...]
    notes: tuple[Message, ...]
    calibration: Calibration | None
    verdict: Verdict | None

    @property
    def grade(self) -> Grade | None:
        """The worst grade of the messages; None where there are none."""
        return worst_grade(self.messages)

    def refuse(self, say: Say) -> None:
        """Raise DoNotTrust where the grade says so; say: is called with each message before."""
        if self.grade == "do not trust":
            for said in self.messages:
                say(said)
            why = " ".join(said.text for said in self.messages if said.grade == self.grade)
            raise DoNotTrust(
                f"{self.inputs.prepared.header.case}: expected scans like those of the training, found others: {why} To synthesise an image all the same, choose --anyway."
            )


def check_inputs(
    facts: Facts,
    inputs: CaseInputs,
    targets: tuple[str, ...] = (),
    notes: tuple[Message, ...] = (),
    calibration: Calibration | None = None,
) -> Checked:
    """The verdict on prepared scans. notes: on their names; calibration: None disables its comparison."""
    verdict = None
    if calibration is not None and calibration.references is not None:
        sources = sources_of(facts, inputs.prepared)
        patches = patches_in(facts, inputs.prepared, sources)
        verdict = verdict_on(calibration.references, patches)
    of_calibration = () if verdict is None else verdict.messages
    messages = (*notes, *inputs.warnings, *of_calibration)
    return Checked(inputs, targets, messages, notes, calibration, verdict)
