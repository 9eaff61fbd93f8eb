"""The command check: the verdict on cases, before anything is computed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, plural
from voxlate.base.messages import Message, worst_grade
from voxlate.base.options.check import check_options
from voxlate.commands.api.entry import command
from voxlate.commands.api.images import ScanOrArray, open_model
from voxlate.commands.api.progress import Feedback, report_to
from voxlate.synthesis.model import Model
from voxlate.synthesis.options import CheckOptions, SynthOptions
from voxlate.synthesis.scans import Scans
from voxlate.synthesis.selection import Selection, select

FITS = "fits"  # the verdict where no message is more than a note


@dataclass(frozen=True)
class CheckedCase:
    """A case as a model would take it: each scan's file, grid and unit, the modalities to synthesise, and all messages."""

    case: str
    scans: Mapping[str, Mapping[str, str]]
    targets: tuple[str, ...]
    messages: tuple[Message, ...]

    @property
    def verdict(self) -> str:
        """The worst grade of the messages: "fits", "caution" or "do not trust"."""
        grade = worst_grade(self.messages)
        return FITS if grade in (None, "note") else str(grade)

    @property
    def table(self) -> dict[str, Any]:
        """The case as plain values."""
        own = {"case": self.case, "verdict": self.verdict, "scans": {**self.scans}}
        return {**own, "targets": [*self.targets], "messages": [one.table for one in self.messages]}

    def __repr__(self) -> str:
        lines = [f"{self.case}: {self.verdict}; to synthesise: {', '.join(self.targets)}"]
        lines += [f"  {name}: {', '.join(scan.values())}" for name, scan in self.scans.items()]
        return "\n".join([*lines, *(f"  {said.grade}: {said.text}" for said in self.messages)])


@dataclass(frozen=True)
class Checks:
    """The verdicts on the cases of a command; left_out: a sentence for each case that cannot be used."""

    cases: tuple[CheckedCase, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdicts(self) -> dict[str, int]:
        """The number of cases with each verdict."""
        return dict(Counter(case.verdict for case in self.cases))

    @property
    def document(self) -> dict[str, Any]:
        """The verdicts as plain values."""
        cases = [case.table for case in self.cases]
        return {"verdicts": self.verdicts, "cases": cases, "left_out": {**self.left_out}}

    def __repr__(self) -> str:
        counts = [f"{count} {verdict}" for verdict, count in self.verdicts.items()]
        summary = (
            f"{plural(len(self.cases), 'case')}: {', '.join(counts)}; {len(self.left_out)} left out"
        )
        several = len(self.cases) + len(self.left_out) > 1
        return "\n".join([*([summary] if several else []), *map(repr, self.cases)])


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
    model = open_model(run, asked)
    if isinstance(inputs, Mapping):
        selected = Selection(model, [Scans("case", {**inputs})])
    else:
        texts = [inputs] if isinstance(inputs, Path | str) else inputs
        selected = select(model, [*map(str, texts)], SynthOptions(**vars(asked)))
    cases, left_out = list[CheckedCase](), dict(selected.lacking)
    with report_to(progress) as report:
        for number, scans in enumerate(selected.scans):
            report.step("cases", number, len(selected.scans))
            try:
                cases.append(_check_case(selected.model, scans))
            except BadInput as error:
                if len(selected.scans) == 1:
                    raise
                left_out[scans.case] = str(error)
    return Checks(tuple(cases), left_out)


def _check_case(model: Model, scans: Scans) -> CheckedCase:
    checked = model.check(scans.files, scans.case)
    header = checked.inputs.prepared.header
    found = dict[str, dict[str, str]]()
    for name, origin in header.origins.items():
        file = str(scans.files.get(name, origin.file))
        found[name] = {"file": file, "grid": f"{origin.grid}", "unit": header.units[name]}
    messages = (*scans.notes, *checked.messages, *model.missing_checks)
    return CheckedCase(scans.case, found, checked.targets, messages)
