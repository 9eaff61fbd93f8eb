"""The data of all held-out cases of a calibration: collected by an executor, and checked."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from voxlate.cohorts.case_files import CaseFiles
from voxlate.executors.job import Context, Executor, busy_line, case_sentence, no_report
from voxlate.scoring.outliers import find_outliers
from voxlate.scoring.truths import KEPT, LEFT_OUT, fault_messages, faults_of
from voxlate.system.errors import BadInput, CannotWrite
from voxlate.system.messages import Say, message
from voxlate.trust.calibration_cases import CaseData
from voxlate.trust.regions import LABEL_RULE

FEWEST = 2  # patients of a calibration
HOLD_BACK = "Hold back more: prepare with other --shares."
CORRECT = "Correct the {} cases that are left out, or give others: the reason stands beside each."

Progress = Callable[[str, int, int], None]
Rules = Mapping[str, Mapping[str, str]]
"""The rules of regions, by target and name."""


class InTraining(BadInput):
    """A patient of the training is among the held-out patients."""


class Collector(Protocol):
    """Synthesises held-out cases with a model, and keeps what a calibration needs of each in a file."""

    def hash_files(self, case: CaseFiles) -> dict[str, str]:
        """The hashes of a case's files that a calibration depends on."""

    def collect(
        self, case: CaseFiles, content: Mapping[str, str], progress: Callable[[int, int], None]
    ) -> CaseData:
        """The data of a case, from its file or by a synthesis; content: see hash_files."""


class MakeCollector(Protocol):
    """The collector of a worker; it can be sent between processes. turn: is entered while the network computes."""

    def __call__(self, warn: Say, turn: AbstractContextManager[None]) -> Collector:
        """The collector with these reports."""


@dataclass(frozen=True)
class _CollectJob:
    """The synthesis of cases, whose data are kept in files; a case's result is the hashes of its files."""

    make: MakeCollector
    uses_network: bool = True

    def open(self) -> Callable[[CaseFiles, Context], dict[str, str]]:
        """The work on one case."""
        return self._collect

    def _collect(self, case: CaseFiles, context: Context) -> dict[str, str]:
        collector = self.make(context.warn, context.turn)
        content = collector.hash_files(case)
        collector.collect(case, content, context.progress)
        return content


def collect_cases(
    make: MakeCollector,
    cases: Sequence[CaseFiles],
    rules: Rules,
    executor: Executor,
    progress: Progress,
    warn: Say,
    any_truth: bool,
) -> dict[str, CaseData]:
    """The data of cases by name; a case that cannot be synthesised, or whose truth is not its own, is left out.

    Raises InTraining for a patient of the training, and BadInput where the patients are too few.
    """
    patients = len({case.patient or case.case for case in cases})
    if patients < FEWEST:
        raise _too_few(rules, f"{patients} ({len(cases)} cases)", HOLD_BACK)
    contents = dict[str, Mapping[str, str]]()
    failed = list[str]()
    costs = []
    progress("cases", 0, len(cases))
    job = _CollectJob(make)
    slices = partial(progress, "slices")
    with closing(executor.run(job, cases, progress=slices, warn=warn)) as running:
        for number, outcome in running:
            case = cases[number].case
            costs.append(outcome.cost)
            if isinstance(outcome.error, InTraining | CannotWrite):
                raise outcome.error
            if outcome.error is None:
                contents[case] = outcome.result
            else:
                failed.append(f"{case} is left out: {case_sentence(case, outcome.error)}")
                warn(message("case-left-out", failed[-1]))
            progress("cases", len(costs), len(cases))
    if busy := busy_line(costs):
        warn(message("workers", busy))
    collector = make(warn, nullcontext())
    data = dict[str, CaseData]()
    for files in cases:
        content = contents.get(files.case)
        if content is None:
            continue
        twin = next((name for name, other in data.items() if other.content == content), None)
        if twin is None:
            data[files.case] = collector.collect(files, content, no_report)
            continue
        text = (
            f"It has the same scans as {twin}: it is left out, because it is not another patient."
        )
        warn(message("same-patient", text, case=files.case))
    wrong = set[str]()
    for name in rules:
        faults = faults_of({case: own.truths[name] for case, own in data.items()})
        for fault in fault_messages(faults, len(data), KEPT if any_truth else LEFT_OUT):
            warn(replace(fault, text=f"{name}: {fault.text}"))
        wrong |= set() if any_truth else faults.keys()
    kept = {case: own for case, own in data.items() if case not in wrong}
    patients = len({own.patient for own in kept.values()})
    if patients < FEWEST:
        why = f": {failed[0]}" if failed else ""
        left_out = len(failed) + len(wrong)
        found = f"{patients} ({len(kept)} of {len(cases)} cases{why})"
        raise _too_few(rules, found, CORRECT.format(left_out) if left_out else HOLD_BACK)
    for name, own_rules in rules.items():
        _check_voxels(name, kept, own_rules, warn)
    return kept


def _check_voxels(
    name: str, data: Mapping[str, CaseData], rules: Mapping[str, str], warn: Say
) -> None:
    """Warn of outliers; raise BadInput where no case has voxels of a region. A label map may be empty."""
    voxels = [case.voxels[name] for case in data.values()]
    for region, rule in rules.items():
        is_label = rule == LABEL_RULE.format(region)
        if not is_label and not any(case.truth_parts[region].any() for case in voxels):
            raise BadInput(
                f"region {region}: expected voxels of {rule} in the {name} of at least one case, found none. Move the threshold."
            )
    errors = {case.case: float(np.abs(case.truth - case.image).mean()) for case in voxels}
    for outlier in find_outliers(name, errors):
        warn(outlier)


def _too_few(targets: Rules, found: str, advice: str) -> BadInput:
    return BadInput(
        f"calibrate: expected at least {FEWEST} patients with {' and '.join(targets)} that training did not see, found {found}. {advice}"
    )
