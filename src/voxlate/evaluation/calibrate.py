"""Calibration: prediction intervals of a run's images, fitted on held-out patients whose truth is available.

Held-out cases are synthesised by an executor, checked, and sampled. Regions of a body are calibrated as well: thresholds of
the image's values, and label maps.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxlate.base.errors import BadInput, plural
from voxlate.base.executors.case_work import (
    Context,
    Executor,
    NamedProgress,
    case_sentence,
    no_report,
    run_cases,
)
from voxlate.base.executors.workers import choose_executor
from voxlate.base.files import lock
from voxlate.base.hub import address_of, is_on_hub
from voxlate.base.messages import UNOWNED, Message, Say, message, summarise, warn_unless_note
from voxlate.base.option import merge
from voxlate.checks.truths import (
    KEPT,
    LEFT_OUT,
    Sketch,
    fault_messages,
    judge,
    other_size,
    sketch_of,
)
from voxlate.evaluation.evaluation_options import CalibrateOptions
from voxlate.evaluation.intervals.fit import CalibrationVoxels, Guarantee, fit
from voxlate.scans.cases.case import LABEL, MASK, lay_out, prepare_case
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.cohorts.files_below import refuse_synthetic
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.cohorts.owners import require_patients
from voxlate.scans.formats.io import content_hash, read_volume
from voxlate.scans.images.grid import Volume, orient, same_grid
from voxlate.scans.images.intensity import Scale
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.regions import BODY, BORDERS_HU, region_masks
from voxlate.synthesis.calibration import (
    Array,
    Bound,
    Calibration,
    Header,
    Prediction,
    Target,
    Widths,
    voxel_features,
    with_spread,
)
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.inputs import by_accepted_names, is_in_training, preparation_for
from voxlate.synthesis.intervals import OutputGrid, find_output_grid, sources_of
from voxlate.synthesis.model import Model
from voxlate.synthesis.sampling import planes_read, predict_case
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
BODY_VOXELS = 30_000  # of a case's body that are kept: they determine the share outside to 0.2 %
AIR_VOXELS = 500  # of the surroundings that are kept, so that intervals of air are learned, too
CT_REGIONS = {"soft_tissue": "-200<{0}<250", "bone": "{0}>250", "inner_air": "{0}<-300"}  # in HU
FEWEST_PATIENTS = 2  # patients of a calibration


@dataclass(frozen=True)
class CaseData:
    """What a held-out case contributes: the hashes of its files, and voxels and truths by target.

    truths: with what states whether each is that of its image; planes: in how many it was read, of a model of several;
    else 0.
    """

    patient: str
    content: Mapping[str, str]
    planes: int = 0
    voxels: dict[str, CalibrationVoxels] = field(default_factory=dict)
    truths: dict[str, Sketch] = field(default_factory=dict)


Labels = Mapping[str, NDArray[np.generic]]
Truths = Mapping[str, tuple[Volume, Array]]
"""The true image of each target on the voxels of its prediction, and its values [D, H, W] in network units, by its own scale."""


def calibration_regions(target: str, unit: str, labels: Iterable[str]) -> dict[str, str]:
    """Rules by name: soft tissue, bone and the air inside the body if the unit is HU, and the voxels of each label map."""
    of_unit = CT_REGIONS if unit == "HU" else {}
    rules = {name: rule.format(target) for name, rule in of_unit.items()}
    return rules | {name: f"{name}>0.5" for name in labels}


def tissue_borders(unit: str, scale: tuple[float, float]) -> list[float]:
    """The values between tissues in network units, of an image in HU whose ends in HU are the scale; none of other units."""
    low, high = scale
    borders = BORDERS_HU if unit == "HU" else ()
    return [2 * (value - low) / (high - low) - 1 for value in borders if low < value < high]


def choose_voxels(
    patient: str,
    prediction: Prediction,
    predicted_scale: Scale,
    truth: tuple[Volume, Array],
    labels: Labels,
    sources: Sequence[Array],
    rules: Mapping[str, str],
    generator: np.random.Generator,
) -> tuple[CalibrationVoxels, Sketch]:
    """Random voxels of the body that the image or the truth shows, and a few of its surroundings; and what shows whether the truth is the image's.

    sources: [D, H, W] in network units, on the voxels of the prediction; labels: maps there; rules: of regions, by name.
    """
    volume, values = truth
    physical = predicted_scale.inverse(prediction.values)[None]
    image = replace(volume, data=physical)
    parts = region_masks(rules, volume, labels)
    shown = foreground(image)
    body = (parts[BODY] | shown).ravel()
    inside = generator.permutation(np.flatnonzero(body))[:BODY_VOXELS]
    outside = generator.permutation(np.flatnonzero(~body))[:AIR_VOXELS]
    places = np.sort(np.concatenate([inside, outside]))

    def choose(array: np.ndarray) -> Any:
        """The values of [D, H, W, …] at these places."""
        return array.reshape(-1, *array.shape[3:])[places]

    # a missing modality is background, whose likeness to a truth says nothing
    scans = [source for source in sources if source.min() < source.max()]
    source = replace(volume, data=(scans or sources)[0][None], unit="a.u.", modality="source")
    sketch = sketch_of(volume, image, source, volume.grid, patient, volume.unit)
    voxels = CalibrationVoxels(
        patient,
        choose(voxel_features(prediction.values, sources, prediction.sd)),
        choose(prediction.values),
        choose(values),
        {region: choose(mask) for region, mask in parts.items()},
        choose(shown),
    )
    return voxels, sketch


Rules = Mapping[str, Mapping[str, str]]
"""The rules of regions, by target and name."""


class InTraining(BadInput):
    """A patient of the training is among the held-out patients."""


@dataclass(frozen=True)
class CalibrationJob:
    """Synthesises held-out cases, and gathers what a calibration needs of each.

    models: the one that is calibrated, and others that synthesise the cases on which it was trained; rules: of regions,
    by target and name.
    """

    models: Sequence[Model]
    rules: Rules
    seed: int
    anyway: bool
    uses_network: bool = True

    def open(self) -> Callable[[CaseFiles, Context], CaseData]:
        """The work on one case: by the first model that did not train on it; raises InTraining if all of them did."""

        def work(case: CaseFiles, context: Context) -> CaseData:
            for model in self.models[:-1]:
                with suppress(InTraining):
                    return self._synthesise(model, case, context)
            return self._synthesise(self.models[-1], case, context)

        return work

    def _synthesise(self, model: Model, case: CaseFiles, context: Context) -> CaseData:
        """The data of a case: of a completion, with each target left out in turn."""
        facts = model.facts
        wanted = list(dict.fromkeys([*facts.data.source, *facts.data.target]))
        if missing := [name for name in wanted if name not in case.files]:
            raise BadInput(
                f"{case.case}: expected {' and '.join(wanted)}, found no {' and no '.join(missing)}. Add it, or leave the case out."
            )
        files = {name: case.files[name] for name in wanted}
        if case.mask and MASK in model.scan_names:
            files[MASK] = case.mask
        labels_of = {f"label {name}": path for name, path in case.labels.items()}
        paths = sorted({**files, **labels_of}.items())
        content = {name: content_hash(path) for name, path in paths}
        scans = {name: read_volume(file, name) for name, file in files.items()}
        maps = {name: read_volume(file, name) for name, file in case.labels.items()}
        generator = np.random.default_rng([self.seed, *case.case.encode()])
        data = CaseData(case.patient or case.case, content)
        for left_out in facts.data.target if facts.completes else [None]:
            used = {name: scan for name, scan in scans.items() if name != left_out}
            checked = model.check(used, case.case)
            if not self.anyway:
                checked.refuse(context.warn)
            prepared = checked.prepared
            grid = find_output_grid(facts, prepared)
            framed = {name: checked.cut(scan) for name, scan in scans.items() if name != MASK}
            framed_maps = {name: checked.cut(label, 0) for name, label in maps.items()}
            truths, labels = _truths(facts, case.case, framed, framed_maps, grid, checked.digests)
            images, _ = predict_case(facts, model.network, checked, self.seed, context.progress)
            sources = [*map(grid.resample, sources_of(facts, prepared))]
            planes = planes_read(facts, prepared.header) if facts.data.planes else ()
            data = replace(data, planes=len(planes))
            for name, image in images.items():
                predicted = with_spread(image.prediction) if planes else image.prediction
                data.voxels[name], data.truths[name] = choose_voxels(
                    data.patient,
                    predicted.map(grid.resample),
                    facts.scales[name],
                    truths[name],
                    labels,
                    sources,
                    self.rules[name],
                    generator,
                )
        return data


def _truths(
    facts: ModelFacts,
    case: str,
    scans: Mapping[str, Volume],
    maps: Mapping[str, Volume],
    output_grid: OutputGrid,
    digests: Collection[str],
) -> tuple[Truths, Labels]:
    """The truths and label maps as they are in their files, as in evaluate; resampled only where their grid is another.

    Raises InTraining for a patient of the training, whatever it is called.
    """
    data = facts.data
    for name in data.target:
        _check_truth(case, scans[name], facts.units[name], output_grid)
    preparation = preparation_for(facts, {name: scans[name] for name in data.source})
    whole = prepare_case(case, scans, preparation, labels=maps, masked=False)
    if is_in_training(facts, whole, whole.arrays, digests):
        raise InTraining(
            f"calibrate: expected patients that training did not see, found {case}, which was in it (by the voxels of its scans): errors there are smaller than of a new patient. Give --split val, all folds of its cross-validation (--out-of-fold), or another cohort."
        )
    prepared = lay_out(whole, data.axes)
    if not np.allclose(prepared.header.affine, output_grid.affine):
        raise BadInput(
            f"{case}: expected the same grid whichever modality is missing, found another one. Calibrate on cases whose scans share a grid."
        )

    def place(scan: Volume, array: str, order: Literal[0, 1]) -> Volume:
        """The file itself where it has the image's voxels, and registration did not move it."""
        registration = prepared.header.registered.get(scan.modality)
        from_file = orient(scan, data.axes[::-1])
        from_prepared = output_grid.reorient(
            output_grid.write(prepared.arrays[array][:], scan.modality, order)
        )
        moved = registration is not None and registration.kept != "none"
        same = not moved and same_grid(from_file.grid, from_prepared.grid)
        return from_file if same else from_prepared

    truths = {}
    for name in data.target:
        volume = place(scans[name], name, 1)
        spec = facts.intensity[name]
        scale = spec.scale(prepared.header.statistics[name])
        physical = volume.data[0].astype(np.float32)
        values = scale.forward(physical) if spec.window else scale.of(physical)
        truths[name] = (volume, values)
    labels = {name: place(label, LABEL + name, 0).data[0] for name, label in maps.items()}
    return truths, labels


def _check_truth(case: str, truth: Volume, unit: str, output_grid: OutputGrid) -> None:
    """Raise BadInput where a truth has another unit than the model's images, or voxels of another size."""
    name = truth.modality
    if truth.unit != unit:
        raise BadInput(
            f"{case}: expected {name} in the unit of the model's images ({unit}), found {truth.unit} in {truth.origin}. Convert it, or take the original scan."
        )
    if other_size(truth.grid, output_grid.file):
        raise BadInput(
            f"{case}: expected {name} to show the region of its image ({output_grid.file}), found voxels of another size in {truth.origin} ({truth.grid}). Write its spacing in mm."
        )


def collect_cases(
    job: CalibrationJob,
    cases: Sequence[CaseFiles],
    executor: Executor,
    progress: NamedProgress,
    warn: Say,
    *,
    any_truth: bool,
) -> dict[str, CaseData]:
    """The data of cases by name; a case that cannot be synthesised, or whose truth is not its own, is left out.

    Raises InTraining for a patient of the training, and BadInput where the patients are too few.
    """
    _check_count(job, {case.patient or case.case for case in cases}, len(cases), len(cases), "")
    outcomes = run_cases(executor, job, cases, progress, warn, InTraining)
    failed = list[Message]()
    data = dict[str, CaseData]()
    for files, outcome in zip(cases, outcomes):
        case = files.case
        if outcome.error is None:
            data[case] = outcome.result
        else:
            reason = case_sentence(case, outcome.error).removeprefix(f"{case}: ")
            failed.append(message("case-left-out", f"left out: {reason}", case=case))
    for said in summarise(failed):
        warn(said)
    wrong = set[str]()
    for name in job.rules:
        faults, cautions = judge({case: of_case.truths[name] for case, of_case in data.items()})
        wrong |= faults.keys() | {said.case for said in cautions if said.grade == "do not trust"}
        then = KEPT if any_truth else LEFT_OUT
        for said in [*fault_messages(faults, len(data), then), *cautions]:
            warn(replace(said, text=f"{name}: {said.text}"))
    kept = {case: of_case for case, of_case in data.items() if any_truth or case not in wrong}
    why = f": {failed[0].case} {failed[0].text}" if failed else ""
    _check_count(job, {case.patient for case in kept.values()}, len(kept), len(cases), why)
    return kept


def _check_count(
    job: CalibrationJob, patients: Collection[str], kept: int, of: int, why: str
) -> None:
    """Raise BadInput for too few patients; kept: the number of cases that are left; why: a clause on others."""
    if len(patients) < FEWEST_PATIENTS:
        raise BadInput(
            f"calibrate: expected at least {FEWEST_PATIENTS} patients with {' and '.join(job.rules)} that training did not see, found {len(patients)} ({kept} of {plural(of, 'case')}{why}). Hold back more: prepare with other --shares; or correct the cases that are left out."
        )


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
