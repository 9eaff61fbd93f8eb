"""Calibration: prediction intervals of a run's images, fitted on held-out patients whose truth is available."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxlate.cases.case import LABEL, MASK, prepare_case
from voxlate.cases.layout import lay_out
from voxlate.cohorts.case_files import CaseFiles
from voxlate.cohorts.find import find_cohort
from voxlate.executors.choose import choose_executor
from voxlate.executors.job import no_report
from voxlate.formats.io import content_hash, read_volume
from voxlate.images.grid import Volume, orient, same_grid
from voxlate.images.intensity import Scale, network_ends
from voxlate.options.calibrate import CalibrateOptions
from voxlate.options.option import merge
from voxlate.scoring.provenance import splits_of_training
from voxlate.scoring.truths import has_other_size
from voxlate.starters.names import is_starter, name_of
from voxlate.synthesis.ensemble import Ensemble
from voxlate.synthesis.inputs import is_in_training, preparation_for
from voxlate.synthesis.intervals import OutputGrid, find_output_grid, patches_in, sources_of
from voxlate.synthesis.model import Model
from voxlate.synthesis.model_transfer import SentModel
from voxlate.synthesis.progress import PatchProgress, warn_unless_note
from voxlate.synthesis.scans import by_accepted_names, in_split
from voxlate.system.errors import BadInput, CannotWrite
from voxlate.system.files import lock
from voxlate.system.messages import Say, message
from voxlate.training.run import software
from voxlate.training.starter import copy_starter, run_folder
from voxlate.trust.calibration import Calibration, Header
from voxlate.trust.calibration_cases import (
    BODY_VOXELS,
    CaseData,
    TrueImage,
    choose_voxels,
    read_case,
    write_case,
)
from voxlate.trust.calibration_file import write_calibration
from voxlate.trust.collect import InTraining, Progress, Rules, collect_cases
from voxlate.trust.fit_targets import Goal, fit_targets
from voxlate.trust.out_of_distribution import Patches
from voxlate.trust.regions import calibration_regions

ENOUGH = 10  # patients for a margin by Student's t
PARTS = ".parts"  # of the folder that keeps the data of cases until the calibration ends


def calibrate(
    model: Model | Ensemble,
    cases: Sequence[CaseFiles],
    options: CalibrateOptions | None = None,
    *,
    progress: Progress = no_report,
    warn: Say = warn_unless_note,
    **changes: Any,
) -> tuple[Path, Calibration]:
    """Synthesise the images of cases with truth, compare methods of intervals, and write the best into the run.

    changes: fields of the options. coverage: share of a new patient's voxels that the intervals are to contain, on average over patients, with this
    confidence, counted as in conformal.upper_bound (unset: "normal" from ENOUGH patients on, else "none", because a
    margin for fewer would be most of the range). regions: parts of the body by a rule ("vessels": "cta>150"), in
    addition to those of the unit and of label maps. A completion is calibrated for one missing modality, each in turn
    left out of cases that have all. A stopped calibration resumes. any_truth: cases whose truth cannot be that of their image count, too. Raises
    BadInput where the model is an ensemble or was trained on one of the cases, and where the cases are too few.
    """
    asked = merge(CalibrateOptions, options, changes)
    model = _single_model(model)
    coverage, confidence, seed = asked.coverage, asked.confidence, asked.seed
    _check_levels(coverage, confidence)
    header = model.header
    labels = sorted(set[str]().union(*(case.labels for case in cases)))
    rules = {
        name: calibration_regions(name, header["units"][name], labels, asked.regions or {})
        for name in model.recipe.data.target
    }
    path = _calibration_path(model, warn)
    with lock(path.parent):
        make = _MakeCollector(SentModel(model, asked.device), rules, seed)
        executor = choose_executor(asked, asked.device, warn)
        data = collect_cases(make, cases, rules, executor, progress, warn, asked.any_truth)
        bound = asked.bound
        if bound is None:
            patients = len({case.patient for case in data.values()})
            bound = "normal" if patients >= ENOUGH else "none"
        ends = {name: network_ends(model.recipe.intensity[name]) for name in rules}
        fitted = fit_targets(data, rules, ends, Goal(coverage, confidence, bound, seed), progress)
        scales = header["target_scales"].items()
        stated = Header(
            weights=header["weights_hash"],
            synth=model.synthesis_options,
            coverage=coverage,
            confidence=confidence,
            bound=bound,
            patients=fitted.references.patients,
            cases={name: dict(case.content) for name, case in data.items()},
            split=asked.split,
            seed=seed,
            targets=fitted.targets,
            units={name: header["units"][name] for name in rules},
            halves={name: (high - low) / 2 for name, (low, high) in scales},
            made_by=software(),
        )
        write_calibration(path, Calibration(stated, fitted.widths, fitted.references))
        shutil.rmtree(path.with_suffix(PARTS), ignore_errors=True)
    calibration = model.calibration()
    assert calibration is not None
    return path, calibration


@dataclass(frozen=True)
class _MakeCollector:
    """The collector of a worker, with the model on the worker's device."""

    sent: SentModel
    rules: Rules
    seed: int

    def __call__(self, warn: Say, turn: AbstractContextManager[None]) -> "_Collector":
        """The collector with these reports."""
        assert isinstance(self.sent.model, Model)
        return _Collector(self.sent.model, self.rules, self.seed, warn, turn)


@dataclass(frozen=True)
class _Collector:
    """Synthesises held-out cases, and keeps what a calibration needs of each in a file.

    rules: of regions, by target and name. turn: is entered while the network computes.
    """

    model: Model
    rules: Rules
    seed: int
    warn: Say
    turn: AbstractContextManager[None]

    @property
    def folder(self) -> Path:
        """The folder of the cases' files, until the calibration ends."""
        return self.model.calibration_file.with_suffix(PARTS)

    def hash_files(self, case: CaseFiles) -> dict[str, str]:
        """The hashes of a case's files that a calibration depends on."""
        files = self._files(case)
        files |= {f"label {name}": path for name, path in case.labels.items()}
        return {name: content_hash(path) for name, path in sorted(files.items())}

    def collect(
        self, case: CaseFiles, content: Mapping[str, str], progress: PatchProgress
    ) -> CaseData:
        """The data of a case, from its file or by a synthesis; content: see hash_files."""
        model = self.model
        options = (
            model.header["weights_hash"],
            model.synthesis_options,
            self.seed,
            content,
            self.rules,
            BODY_VOXELS,
        )
        digest = hashlib.sha256(repr(options).encode()).hexdigest()[:16]
        path = self.folder / f"{case.case}.{digest}.safetensors"
        patient = case.patient or case.case
        read = partial(read_case, path, digest, case.case, patient, content, model.header["units"])
        data = read()
        if data is None:
            self._synthesise(case, path, digest, progress)
            data = read()
        if data is None:
            raise CannotWrite(
                f"{path}: expected the data of {case.case} that were written, found others. Check the disk."
            )
        return data

    def _files(self, case: CaseFiles) -> dict[str, Path]:
        """The sources and targets of a case, and its mask where the model uses one."""
        data = self.model.recipe.data
        wanted = list(dict.fromkeys([*data.source, *data.target]))
        missing = [name for name in wanted if name not in case.files]
        if missing:
            raise BadInput(
                f"{case.case}: expected {' and '.join(wanted)}, found no {' and no '.join(missing)}."
            )
        files = {name: case.files[name] for name in wanted}
        if case.mask and MASK in self.model.scan_names:
            files[MASK] = case.mask
        return files

    def _synthesise(
        self, case: CaseFiles, path: Path, digest: str, progress: PatchProgress
    ) -> None:
        """Write the data of a case: of a completion, with each target left out in turn."""
        model = self.model
        recipe = model.recipe
        scans = {name: read_volume(file, name) for name, file in self._files(case).items()}
        maps = {name: read_volume(file, name) for name, file in case.labels.items()}
        generator = np.random.default_rng([self.seed, *case.case.encode()])
        voxels = dict[str, Mapping[str, Any]]()
        patches = list[Patches]()
        for left_out in recipe.data.target if recipe.task.completes else [None]:
            used = {
                name: scan
                for name, scan in scans.items()
                if name in model.scan_names and name != left_out
            }
            inputs = model.prepare(used, case.case)
            prepared = inputs.prepared
            output_grid = find_output_grid(prepared, recipe.data.axes, model.header["units"])
            truths = self._truths(case.case, scans, maps, output_grid)
            with self.turn:
                images, _ = model.sample(inputs, self.seed, progress)
            sources = sources_of(recipe, prepared)
            resampled = [output_grid.resample(source) for source in sources]
            for name, image in images.items():
                voxels[name] = choose_voxels(
                    image.prediction.map(output_grid.resample),
                    Scale(*model.header["target_scales"][name]),
                    truths[name],
                    resampled,
                    self.rules[name],
                    generator,
                )
            patches.append(patches_in(recipe, prepared, sources))
        write_case(path, digest, voxels, patches)

    def _truths(
        self,
        case: str,
        scans: Mapping[str, Volume],
        maps: Mapping[str, Volume],
        output_grid: OutputGrid,
    ) -> dict[str, TrueImage]:
        """The truths as they are in their files, as in evaluate; resampled only where their grid is another."""
        model = self.model
        recipe = model.recipe
        data = recipe.data
        scans = {name: scan for name, scan in scans.items() if name != MASK}
        for name in data.target:
            _check_truth(case, scans[name], model.header["units"][name], output_grid)
        sources = {name: scans[name] for name in data.source}
        preparation = preparation_for(model.header, recipe, sources)
        whole = prepare_case(case, scans, preparation, labels=maps, masked=False)
        if is_in_training(model.header, whole, whole.arrays):
            raise InTraining(
                f"calibrate: expected patients that training did not see, found {case}, which was in it (by the voxels of its scans): errors there are smaller than of a new patient. Give --split val, or another cohort."
            )
        if case in splits_of_training([self.folder.parent]).get("train", []):
            text = (
                "It has the name of a training case and other voxels: it counts as another patient."
            )
            self.warn(message("name-of-training-case", text, case=case))
        prepared = lay_out(whole, data.axes)
        if not np.allclose(prepared.header.affine, output_grid.affine):
            raise BadInput(
                f"{case}: expected the same grid whichever modality is missing, found another one. Calibrate on cases whose scans share a grid."
            )
        registered = prepared.header.registered

        def write(own: Volume, values: NDArray[np.generic], order: Literal[0, 1]) -> Volume:
            """The file itself where it has the image's voxels, and registration did not move it."""
            moved = own.modality in registered and registered[own.modality].kept != "none"
            from_file = orient(own, data.axes[::-1])
            from_prepared = output_grid.reorient(
                output_grid.write(values, own.modality, own.unit, order)
            )
            same = not moved and same_grid(from_file.grid, from_prepared.grid)
            return from_file if same else from_prepared

        labels = {
            name: write(label, prepared.arrays[LABEL + name][:], 0).data[0]
            for name, label in maps.items()
        }
        truths = dict[str, TrueImage]()
        for name in data.target:
            statistics = prepared.header.statistics[name]
            if statistics.blank:
                raise BadInput(
                    f"{case}: expected {name} to show something, found the same value everywhere."
                )
            volume = write(scans[name], prepared.arrays[name][:], 1)
            spec = recipe.intensity[name]
            scale = spec.scale(statistics)
            physical = volume.data[0].astype(np.float32)
            values = scale.forward(physical) if spec.window else scale.of(physical)
            truths[name] = TrueImage(volume, values, labels)
        return truths


def _check_truth(case: str, truth: Volume, unit: str, output_grid: OutputGrid) -> None:
    """Raise BadInput where a truth has another unit than the model's images, or voxels of another size."""
    name = truth.modality
    if truth.unit != unit:
        raise BadInput(
            f"{case}: expected {name} in the unit of the model's images ({unit}), found {truth.unit} in {truth.origin}. Convert it, or take the original scan."
        )
    if has_other_size(truth.grid, output_grid.file):
        raise BadInput(
            f"{case}: expected {name} to show the region of its image ({output_grid.file}), found voxels of another size in {truth.origin} ({truth.grid}). Write its spacing in mm."
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


def _calibration_path(model: Model, warn: Say) -> Path:
    """The file of the calibration, with a warning where it exists; raises BadInput for a starter."""
    path = model.calibration_file
    starter = name_of(path.parent)
    if starter is not None:
        raise BadInput(
            f"starter:{starter}: expected a folder of yours for the calibration, because the package stays as it is, found none. Add --out RUN, which becomes a copy of the starter with its calibration."
        )
    if path.is_file():
        text = f"{path.name} is there: it is replaced, and images of before name another calibration than the run has."
        warn(message("calibration-replaced", text))
    return path


def own_copy(run: Path | str, out: Path | str | None) -> Path | str:
    """The run to calibrate: with `out`, a copy of a starter in that folder, whose calibration the copy keeps.

    Raises BadInput if `out` is given with a run that is no starter.
    """
    if out is None:
        return run
    if not is_starter(run):
        raise BadInput(
            f"--out: expected starter:NAME with it, found {run}, whose calibration is written into its own folder. Drop --out."
        )
    return copy_starter(run_folder(run), Path(out))


def find_calibration_cases(
    model: Model | Ensemble, cohort: Path, asked: CalibrateOptions
) -> list[CaseFiles]:
    """The cases of a split of a cohort; the fold of the run's training has priority over the cohort's splits."""
    cases = [
        replace(case, files=by_accepted_names(case.files, model.aliases)[0])
        for case in in_split(model, find_cohort(cohort, asked).cases, asked.split)
    ]
    if not cases:
        of_split = f" of the split {asked.split}" if asked.split else ""
        raise BadInput(f"{cohort}: expected cases{of_split}, found none. Check --split.")
    return cases
