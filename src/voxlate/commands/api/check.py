"""The command check: the verdict on cases, before anything is computed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.messages import Message, worst_grade
from voxlate.base.options.check import check_options
from voxlate.commands.api.entry import command
from voxlate.commands.api.images import ScanOrArray, open_model
from voxlate.commands.api.progress import Feedback, report_to
from voxlate.synthesis.model import Model
from voxlate.synthesis.options import CheckOptions, SynthOptions
from voxlate.synthesis.scans import Scans
from voxlate.synthesis.selection import Selection, select


@dataclass(frozen=True)
class CheckedCase:
    """A case as a model would take it: its verdict ("fits", "caution" or "do not trust"), and why.

    scans: file, grid and unit by modality; targets: the modalities to synthesise.
    """

    case: str
    verdict: str
    scans: Mapping[str, Mapping[str, str]]
    targets: Sequence[str]
    messages: Sequence[Message]

    def __repr__(self) -> str:
        lines = [f"{self.case}: {self.verdict}; to synthesise: {', '.join(self.targets)}"]
        lines += [
            f"  {name}: {', '.join(filter(None, scan.values()))}"
            for name, scan in self.scans.items()
        ]
        return "\n".join([*lines, *(f"  {said.grade}: {said.text}" for said in self.messages)])


@dataclass(frozen=True)
class Checks:
    """The cases of a command; left_out: a sentence for each case that cannot be used."""

    cases: Sequence[CheckedCase]
    left_out: Mapping[str, str]

    @property
    def document(self) -> dict[str, Any]:
        """The cases as plain values, and their number by verdict."""
        return {"verdicts": Counter(case.verdict for case in self.cases), **asdict(self)}

    def __repr__(self) -> str:
        counts = [f"{count} {verdict}" for verdict, count in self.document["verdicts"].items()]
        lines = [", ".join([*counts, f"{len(self.left_out)} left out"]), *map(repr, self.cases)]
        return "\n".join(lines if len(self.cases) > 1 else lines[1:])


@command
def check(
    run: Model | Path | str | Sequence[Path | str],
    inputs: Path | str | Sequence[Path | str] | Mapping[str, ScanOrArray],
    options: CheckOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> Checks:
    """State whether a model fits scans, before anything is computed.

    run: as of synthesise.
    inputs: as of synthesise.
    """
    asked = check_options(CheckOptions, options, changes)
    model, left_out = open_model(run, asked), dict[str, str]()
    cases = list[CheckedCase]()
    if isinstance(inputs, Mapping):
        selected = Selection(model, [Scans("case", {**inputs})])
    else:
        texts = [inputs] if isinstance(inputs, Path | str) else inputs
        selected = select(model, [*map(str, texts)], SynthOptions(**vars(asked)))
    with report_to(progress) as report:
        for number, scans in enumerate(selected.scans):
            report.step("cases", number, len(selected.scans))
            try:
                cases.append(_check_case(selected.model, scans))
            except BadInput as error:
                if len(selected.scans) == 1:
                    raise
                left_out[scans.case] = str(error)
    return Checks(cases, {**selected.lacking, **left_out})


def _check_case(model: Model, scans: Scans) -> CheckedCase:
    checked = model.check(scans.files, scans.case)
    messages = [*scans.notes, *checked.messages, *model.missing_checks]
    grade = worst_grade(messages)
    verdict = "fits" if grade in (None, "note") else str(grade)
    inputs, found = checked.inputs, dict[str, dict[str, str]]()
    for name, grid in inputs.grids.items():
        unit = inputs.prepared.header.units.get(name, "")
        found[name] = {"file": str(inputs.files[name]), "grid": f"{grid}", "unit": unit}
    return CheckedCase(scans.case, verdict, found, checked.targets, messages)
