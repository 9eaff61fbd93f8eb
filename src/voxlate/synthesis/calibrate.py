"""Calibration: prediction intervals of a run's images, fitted on held-out patients whose truth is available."""

import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.cohorts.case_files import CaseFiles
from voxlate.cohorts.find import find_cohort
from voxlate.executors.job import Context, Executor, InProcess, Outcome, busy_line, case_sentence
from voxlate.images.intensity import network_ends
from voxlate.scoring.outliers import outlier_line
from voxlate.scoring.truths import KEPT, LEFT_OUT, fault_lines, faults_of
from voxlate.starters.names import is_starter, name_of
from voxlate.synthesis.calibration_data import CaseData, Collector, InTraining
from voxlate.synthesis.ensemble import Ensemble
from voxlate.synthesis.model import Model
from voxlate.synthesis.model_transfer import SentModel
from voxlate.synthesis.progress import no_report
from voxlate.synthesis.scans import by_accepted_names, in_split
from voxlate.system.errors import BadInput, CannotWrite
from voxlate.system.files import locked
from voxlate.training.run import software
from voxlate.training.starter import copy_starter, run_folder
from voxlate.trust.calibration import Calibration, Header, Target
from voxlate.trust.calibration_file import write_calibration
from voxlate.trust.conformal import Bound
from voxlate.trust.fit import CalibrationVoxels, fit
from voxlate.trust.out_of_distribution import Patches, fit_references
from voxlate.trust.regions import check_regions, default_regions
from voxlate.trust.widths import Widths

Progress = Callable[[str, int, int], None]

FEWEST, ENOUGH = 2, 10  # patients: for a calibration, and for a margin by Student's t
HOLD_BACK = "Hold back more: prepare with other --shares."
CORRECT = "Correct the {} cases that are left out, or give others: the reason stands beside each."


def calibrate(
    model: Model | Ensemble,
    cases: Sequence[CaseFiles],
    *,
    split: str | None = None,
    coverage: float = 0.9,
    confidence: float = 0.9,
    bound: Bound | None = None,
    regions: Mapping[str, str] | None = None,
    seed: int = 0,
    progress: Progress = no_report,
    warn: Callable[[str], None] = warnings.warn,
    executor: Executor | None = None,
    device: str = "auto",
    any_truth: bool = False,
) -> tuple[Path, Calibration]:
    """Synthesise the images of cases with truth, compare methods of intervals, and write the best into the run.

    coverage: share of a new patient's voxels that the intervals are to contain, on average over patients, with this
    confidence, counted as in conformal.upper_bound (unset: "normal" from ENOUGH patients on, else "none", because a
    margin for fewer would be most of the range). regions: parts of the body by a rule ("vessels": "cta>150"), in
    addition to those of the unit and of label maps. A completion is calibrated for one missing modality, each in turn
    left out of cases that have all. A stopped calibration resumes. executor: works on the cases, by default this
    process; device: of its workers. any_truth: cases whose truth cannot be that of their image count, too. Raises BadInput where the model is an ensemble or was
    trained on one of the cases, and where the cases are too few.
    """
    model = _single_model(model)
    _check_levels(coverage, confidence)
    names = model.recipe.data.target
    labels = sorted({name for case in cases for name in case.labels})
    rules = {name: _regions(name, model, labels, regions or {}) for name in names}
    path = model.calibration_file
    starter = name_of(path.parent)
    if starter is not None:
        raise BadInput(
            f"starter:{starter}: expected a folder of yours for the calibration, because the package stays as it is, found none. Add --out RUN, which becomes a copy of the starter with its calibration."
        )
    if path.is_file():
        warn(
            f"{path.name} is there: it is replaced, and images of before name another calibration than the run has."
        )
    with locked(path.parent):
        collector = Collector(model, rules, 1 - coverage, seed, warn)
        data = _collect(collector, cases, executor or InProcess(), device, progress, any_truth)
        if bound is None:
            bound = "normal" if len(data.patients) >= ENOUGH else "none"
        targets = dict[str, Target]()
        networks = dict[str, Widths]()
        for number, (name, voxels) in enumerate(data.voxels.items()):
            progress("fits", number + 1, len(data.voxels))
            ends = network_ends(model.recipe.intensity[name])
            targets[name], network = fit(
                voxels, rules[name], coverage, confidence, bound, seed, ends
            )
            if network is not None:
                networks[name] = network
        header = Header(
            weights=model.header["weights_hash"],
            synth=model.synthesis_options,
            coverage=coverage,
            confidence=confidence,
            bound=bound,
            patients=len(data.patients),
            cases=data.contents,
            split=split,
            seed=seed,
            targets=targets,
            units={name: model.header["units"][name] for name in names},
            halves={
                name: (high - low) / 2
                for name, (low, high) in model.header["target_scales"].items()
            },
            made_by=software(),
        )
        references = fit_references(data.patches, data.patient_of_case, seed)
        write_calibration(path, Calibration(header, networks, references))
        shutil.rmtree(collector.folder, ignore_errors=True)
    calibration = model.calibration()
    assert calibration is not None
    return path, calibration


@dataclass
class _CalibrationData:
    """Voxels by target, the patches of cases with the patient of each, and the content of the cases' files.

    A completion has several patches for each case, with another modality missing in each.
    """

    voxels: dict[str, list[CalibrationVoxels]]
    patches: list[Patches] = field(default_factory=list)
    patient_of_case: list[str] = field(default_factory=list)
    contents: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def patients(self) -> set[str]:
        return set(self.patient_of_case)

    def add(self, case: str, own: CaseData) -> None:
        for name, voxels in own.voxels.items():
            self.voxels[name].append(voxels)
        self.patches += own.patches
        self.patient_of_case += [own.patient] * len(own.patches)
        self.contents[case] = dict(own.content)


@dataclass(frozen=True)
class _CollectJob:
    """The synthesis of cases, whose calibration data are kept in files; a case's result is the hashes of its files."""

    sent: SentModel
    rules: Mapping[str, Mapping[str, str]]
    alpha: float
    seed: int
    uses_network: bool = True

    def open(self) -> Callable[[CaseFiles, Context], dict[str, str]]:
        return self._collect

    def _collect(self, case: CaseFiles, context: Context) -> dict[str, str]:
        model = self.sent.model
        assert isinstance(model, Model)
        collector = Collector(model, self.rules, self.alpha, self.seed, context.warn, context.turn)
        content = collector.contents(case)
        collector.collect(case, content, context.progress)
        return content


def _collected(
    collector: Collector,
    cases: Sequence[CaseFiles],
    executor: Executor,
    device: str,
    progress: Progress,
) -> dict[str, Outcome]:
    """By case: the hashes of its files, after workers have kept its calibration data, or its error."""
    job = _CollectJob(
        SentModel(collector.model, device), collector.rules, collector.alpha, collector.seed
    )
    outcomes = dict[str, Outcome]()
    with closing(executor.run(job, cases, warn=collector.warn)) as running:
        for number, outcome in running:
            if isinstance(outcome.error, InTraining | CannotWrite):
                raise outcome.error
            progress("cases", len(outcomes), len(cases))
            case = cases[number].case
            if not isinstance(outcome.error, BadInput | None):
                outcome = Outcome(error=BadInput(case_sentence(case, outcome.error)))
            outcomes[case] = outcome
    if busy := busy_line([outcome.cost for outcome in outcomes.values()]):
        collector.warn(busy)
    return outcomes


def _collect(
    collector: Collector,
    cases: Sequence[CaseFiles],
    executor: Executor,
    device: str,
    progress: Progress,
    any_truth: bool,
) -> _CalibrationData:
    """The data of all cases; a case that cannot be synthesised, or whose truth is not its own, is left out with a warning.

    Raises BadInput where the patients are too few.
    """
    rules = collector.rules
    warn = collector.warn
    data = _CalibrationData({name: [] for name in rules})
    failed = list[str]()
    patients = len({case.patient or case.case for case in cases})
    if patients < FEWEST:
        raise _too_few(rules, f"{patients} ({len(cases)} cases)", HOLD_BACK)
    ahead = dict[str, Outcome]()
    if not isinstance(executor, InProcess):  # which has no workers that could keep data ahead
        ahead = _collected(collector, cases, executor, device, progress)
    collected = dict[str, CaseData]()
    for number, case in enumerate(cases):
        progress("cases", number, len(cases))
        try:
            known = ahead.get(case.case)
            content = collector.contents(case) if known is None else known.get()
            twins = [other for other, own in collected.items() if own.content == content]
            if twins:
                warn(
                    f"{case.case} has the same scans as {twins[0]}: it is left out, because it is not another patient."
                )
                continue
            collected[case.case] = collector.collect(case, content, partial(progress, "slices"))
        except InTraining:
            raise
        except BadInput as error:
            failed.append(f"{case.case} is left out: {error}")
            warn(failed[-1])
    progress("cases", len(cases), len(cases))
    wrong = _wrong_truths(collected, rules, any_truth, warn)
    for name, one in collected.items():
        if name not in wrong:
            data.add(name, one)
    if len(data.patients) < FEWEST:
        why = f": {failed[0]}" if failed else ""
        found = f"{len(data.patients)} ({len(data.contents)} of {len(cases)} cases{why})"
        left_out = len(failed) + len(wrong)
        raise _too_few(rules, found, CORRECT.format(left_out) if left_out else HOLD_BACK)
    for name, voxels_of_cases in data.voxels.items():
        _check_regions(name, voxels_of_cases, rules[name])
        errors = {one.case: float(np.abs(one.truth - one.image).mean()) for one in voxels_of_cases}
        if outliers := outlier_line(name, errors):
            warn(outliers)
    return data


def _wrong_truths(
    collected: Mapping[str, CaseData],
    targets: Iterable[str],
    any_truth: bool,
    warn: Callable[[str], None],
) -> set[str]:
    """The cases with a truth that cannot be that of its image, after a warning of each kind; none with any_truth."""
    wrong = set[str]()
    for name in targets:
        faults = faults_of({case: one.truths[name] for case, one in collected.items()})
        for sentence in fault_lines(faults, len(collected), KEPT if any_truth else LEFT_OUT):
            warn(f"{name}: {sentence}")
        wrong |= faults.keys()
    return set() if any_truth else wrong


def _too_few(targets: Iterable[str], found: str, advice: str) -> BadInput:
    return BadInput(
        f"calibrate: expected at least {FEWEST} patients with {' and '.join(targets)} that training did not see, found {found}. {advice}"
    )


def _check_regions(
    name: str,
    cases: Sequence[CalibrationVoxels],
    rules: Mapping[str, str],
) -> None:
    """Raise BadInput where no case has voxels of a region; a label map may be empty."""
    for region, rule in rules.items():
        is_label = rule == f"{region}>0.5"
        if not is_label and not any(case.truth_parts[region].any() for case in cases):
            raise BadInput(
                f"region {region}: expected voxels of {rule} in the {name} of at least one case, found none. Move the threshold."
            )


def _check_levels(coverage: float, confidence: float) -> None:
    whole_percent = abs(100 * coverage - round(100 * coverage)) <= 1e-6
    if not 0.5 <= coverage < 1 or not 0.5 <= confidence < 1 or not whole_percent:
        raise BadInput(
            f"calibrate: expected a coverage in whole percents and a confidence, from 0.5 to below 1, found {coverage:g} and {confidence:g}. Change them."
        )


def _single_model(model: Model | Ensemble) -> Model:
    """The model, if it is a single one that synthesises; raises BadInput for all others."""
    if isinstance(model, Ensemble):
        raise BadInput("calibrate: expected one run, found an ensemble. Calibrate a single run.")
    if not model.recipe.method.makes_targets:
        targets = " and ".join(model.recipe.data.target)
        raise BadInput(
            f"{model.origin}: expected a model that makes {targets} of other scans, found '{model.recipe.title}': autoencoders have no calibration."
        )
    return model


def own_copy(run: Path | str, out: Path | None) -> Path | str:
    """The run to calibrate: with `out`, a copy of a starter in that folder, whose calibration the copy keeps.

    Raises BadInput if `out` is given with a run that is no starter.
    """
    if out is None:
        return run
    if not is_starter(run):
        raise BadInput(
            f"--out: expected starter:NAME with it, found {run}, whose calibration is written into its own folder. Drop --out."
        )
    return copy_starter(run_folder(run), out)


def held_out_cases(
    model: Model | Ensemble,
    cohort: Path,
    split: str | None,
    **layout: Any,
) -> list[CaseFiles]:
    """The cases of a split of a cohort; the fold of the run's training has priority over the cohort's splits."""
    cases = [
        replace(case, files=by_accepted_names(case.files, model.aliases)[0])
        for case in in_split(model, find_cohort(cohort, **layout).cases, split)
    ]
    if not cases:
        of_split = f" of the split {split}" if split else ""
        raise BadInput(f"{cohort}: expected cases{of_split}, found none. Check --split.")
    return cases


def _regions(
    target: str,
    model: Model,
    labels: list[str],
    asked: Mapping[str, str],
) -> dict[str, str]:
    """The rules of all regions of a target by name; asked: those of the user."""
    check_regions(asked, target, labels)
    return {**default_regions(target, model.header["units"][target], labels), **asked}
