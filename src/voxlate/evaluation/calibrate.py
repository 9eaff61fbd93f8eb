"""Calibration: prediction intervals of a run's images, fitted on held-out patients whose truth is available."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import NamedProgress, no_report
from voxlate.base.executors.workers import choose_executor
from voxlate.base.files import lock
from voxlate.base.hub import address_of, is_on_hub
from voxlate.base.messages import UNOWNED, Say, message, warn_unless_note
from voxlate.base.option import merge
from voxlate.evaluation.evaluation_options import CalibrateOptions
from voxlate.evaluation.intervals.calibration_cases import (
    CalibrationJob,
    CaseData,
    Rules,
    calibration_regions,
    collect_cases,
    tissue_borders,
)
from voxlate.evaluation.intervals.fit import Guarantee, fit
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.cohorts.files_below import refuse_synthetic
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.cohorts.owners import require_patients
from voxlate.synthesis.calibration import Bound, Calibration, Header, Target, Widths
from voxlate.synthesis.inputs import by_accepted_names
from voxlate.synthesis.model import Model
from voxlate.synthesis.scans import in_split
from voxlate.training.calibration_file import (
    calibration_file,
    read_calibration,
    write_calibration,
)
from voxlate.training.run import software
from voxlate.training.starters.names import PREFIX, is_starter, name_of, run_folder
from voxlate.training.weights import copy_model

UNREACHED = 1e4  # network units: no value reaches it
CONFIDENCE = 0.9  # in the coverage
ENOUGH = 10  # patients for a margin by Student's t, which for fewer would be most of the range


def calibrate(
    model: Model,
    cases: Sequence[CaseFiles],
    options: CalibrateOptions | None = None,
    *,
    progress: NamedProgress = no_report,
    warn: Say = warn_unless_note,
    synthetic: bool = False,
    **changes: Any,
) -> Calibration:
    """Synthesise the images of cases with truth, fit intervals, and write them into the run.

    changes: fields of the options. coverage: share of a new patient's voxels that the intervals are to contain, on average over patients, with
    CONFIDENCE by Student's t from ENOUGH patients on. A completion is calibrated for one missing modality, each in turn
    left out of cases that have all. synthetic: whether they are synthetic heads, whose truths are not in doubt, and whose errors
    in soft tissue are too small: no tissue of images in HU has narrower intervals than all voxels together need, and bone and
    the air inside hold the coverage, too. Of an ensemble, the first model is
    calibrated; those of its cases that trained it are synthesised by another one. Raises
    BadInput where all models were trained on one of the cases, and where the cases are too few.
    """
    asked = merge(CalibrateOptions, options, changes)
    models = model.with_options(intervals=False).members
    model = model.members[0]
    if abs(asked.coverage - round(asked.coverage, 2)) > 1e-8:
        raise BadInput(
            f"--coverage: expected whole percents, found {asked.coverage:g}. Round it to {asked.coverage:.2f}."
        )
    if not model.facts.makes_targets:
        targets = " and ".join(model.facts.data.target)
        raise BadInput(
            f"{model.origin}: expected a model that makes {targets} of other scans, found '{model.facts.title}': autoencoders have no calibration. Choose the run that uses it."
        )
    labels = sorted(set[str]().union(*(case.labels for case in cases)))
    units = model.facts.units
    of_target = model.facts.data.target
    rules = {name: calibration_regions(name, units[name], labels) for name in of_target}
    path = _calibration_path(model)
    with lock(path.parent):
        job = CalibrationJob(models, rules, asked.seed, asked.anyway)
        executor = choose_executor(asked, asked.device)
        data = collect_cases(job, cases, executor, progress, warn, any_truth=synthetic)
        fitted = _fit(model, data, rules, asked, progress, synthetic)
        write_calibration(path, fitted)
    return read_calibration(path)


def _fit(
    model: Model,
    data: Mapping[str, CaseData],
    rules: Rules,
    asked: CalibrateOptions,
    progress: NamedProgress,
    synthetic: bool,
) -> Calibration:
    """The intervals of each target, by the data of all cases."""
    facts = model.facts
    of_cases = data.values()
    count = len({case.patient for case in of_cases})
    bound: Bound = "none" if synthetic or count < ENOUGH else "normal"
    guarantee = Guarantee(asked.coverage, CONFIDENCE, bound)
    targets = dict[str, Target]()
    widths = dict[str, Widths]()
    for name, regions in rules.items():
        progress("fits", len(targets) + 1, len(rules))
        voxels = [case.voxels[name] for case in of_cases]
        spec = facts.intensity[name]
        # any truth is between the ends of a window, which clips
        most = UNREACHED if spec.window is None else 1.0
        ends = (-most if spec.floor is None else -1.0, most)
        borders = tissue_borders(facts.units[name], facts.target_scales[name])
        targets[name], widths[name] = fit(
            voxels, regions, guarantee, asked.seed, ends, borders, synthetic
        )
    fitted = Header(
        weights=facts.weights_hash,
        synth=model.synthesis_options,
        **vars(guarantee),
        patients=count,
        cases={name: dict(case.content) for name, case in data.items()},
        split=asked.split,
        seed=asked.seed,
        targets=targets,
        units={name: facts.units[name] for name in rules},
        halves={name: (high - low) / 2 for name, (low, high) in facts.target_scales.items()},
        made_by=software(),
        planes=tuple(sorted({case.planes for case in of_cases} - {0})),
    )
    return Calibration(fitted, widths)


def _calibration_path(model: Model) -> Path:
    """The file of the calibration; raises BadInput for a starter and a model of a hub."""
    path = calibration_file(model)
    starter = name_of(path.parent)
    given = address_of(path.parent) if starter is None else f"{PREFIX}{starter}"
    if given is not None:
        raise BadInput(
            f"{given}: expected a folder of yours for the calibration, because what came with the package or from a hub stays as it is, found none. Add --out RUN, which becomes a copy of the model with its calibration."
        )
    return path


def own_copy(run: Path | str, out: Path | str | None) -> Path | str:
    """The run to calibrate: with `out`, a copy of a starter or a model of a hub in that folder, whose calibration the copy keeps.

    Raises BadInput if `out` is given with another run.
    """
    if out is None:
        return run
    if not is_starter(run) and not is_on_hub(run):
        raise BadInput(
            f"--out: expected starter:NAME or hf://NAME/REPO with it, found {run}, whose calibration is written into its own folder. Drop --out."
        )
    return copy_model(run_folder(run), Path(out), run)


def find_calibration_cases(
    model: Model, cohort: Path, asked: CalibrateOptions, warn: Say = warn_unless_note
) -> list[CaseFiles]:
    """The cases of a split of a cohort; the fold of the run's training has priority over the cohort's splits.

    Out of fold, those that are not for test. Warns of slices whose patients are unknown.
    """
    found = find_cohort(cohort, asked)
    require_patients(found)
    for text in found.unowned:
        warn(message(UNOWNED, f"Assumed: {text}."))
    recorded = model.facts.splits if asked.out_of_fold else {}
    data = model.facts.data
    cases = [
        replace(case, files=by_accepted_names(case.files, model.facts.accepts, data.target)[0])
        for case in in_split(model, found.cases, asked.split)
        if recorded.get(case.case) != "test"
    ]
    if not cases:
        of_split = f" of the split {asked.split}" if asked.split else ""
        raise BadInput(f"{cohort}: expected cases{of_split}, found none. Check --split.")
    refuse_synthetic(cases, {*data.source, *data.target})
    return cases
