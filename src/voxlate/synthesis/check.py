"""The verdict on the scans of a case, before anything is computed."""

from dataclasses import dataclass

from voxlate.base.codes import Grade, codes
from voxlate.base.errors import DoNotTrust
from voxlate.base.messages import Message, Say, verdict_of, worst_grade
from voxlate.checks.out_of_distribution import DistributionTest
from voxlate.synthesis.calibration import Calibration
from voxlate.synthesis.inputs import CaseInputs


@dataclass(frozen=True)
class Checked:
    """The scans of a case as a model takes them, before its network computes.

    targets: the modalities to synthesise; notes: messages on names of scans; messages: all of them, also on the scans
    and their distance from the calibration; calibration: of the intervals, None without; verdict: of the calibration on
    the scans, None where it compares none.
    """

    inputs: CaseInputs
    targets: tuple[str, ...]
    notes: tuple[Message, ...]
    messages: tuple[Message, ...]
    calibration: Calibration | None
    verdict: DistributionTest | None

    @property
    def grade(self) -> Grade | None:
        """The worst grade of the messages; None where there are none."""
        return worst_grade(self.messages)

    def __repr__(self) -> str:
        first = f"{self.inputs.prepared.header.case}: {verdict_of(self.messages)}; to synthesise: {', '.join(self.targets)}"
        return "\n".join([first, *(f"  {said.grade}: {said.text}" for said in self.messages)])

    def refuse(self, say: Say) -> None:
        """Raise DoNotTrust where the grade says so; say: is called with each message before."""
        if self.grade == "do not trust":
            for said in self.messages:
                say(said)
            grave = dict.fromkeys(said.code for said in self.messages if said.grade == self.grade)
            found = "; ".join(codes()[code].meaning for code in grave)
            raise DoNotTrust(
                f"{self.inputs.prepared.header.case}: expected scans like those of the training, found that {found}. To synthesise an image all the same, choose --anyway (in Python: anyway=True)."
            )
