"""Synthesis of one case by a trained model: from its scans to images on the scans' own grid, in physical units.

The path of a scan, in the order in which Model.synthesise calls these functions:

1. Read: inputs.prepare_inputs reads files and arrays as volumes.
2. Prepare: cases.case.prepare_case resamples, registers, aligns and masks as in training; inputs.prepare_inputs
   compares the scans with the training data.
3. Network units: batches.reading.Patch scales slices or patches to [-1, 1], called by sampling.sample_targets for each plane.
4. Sample: sampling.sample_targets runs the network, and joins patches and samples to predictions; planes.sample_planes
   averages those of several planes.
5. Physical units: Model.sample applies the scale of each target and moves its levels of tissue (contrast.find_contrast) or its bright end (brightness.find_peak).
6. Trust: intervals.case_intervals adds intervals, error bounds and an out-of-distribution check, if calibrated.
7. Empty slices: empty.empty_slices finds the slices that show no body, which become background.
8. Output grid: intervals.OutputGrid.images resamples the images to the grid of the scan's file.
9. Result: result.Synthesised holds images and provenance, and writes them.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from voxlate.base.arrays import Bool
from voxlate.base.config import adapter, fill
from voxlate.base.devices import find_device, name_of
from voxlate.base.errors import BadInput, plural, system_refusal
from voxlate.base.files import SYNTHETIC
from voxlate.base.hub import address_of
from voxlate.base.messages import Message, Say, message
from voxlate.base.slabs import in_slabs
from voxlate.checks.anatomy import FEWEST, Anatomy, read_anatomy
from voxlate.evaluation.intervals.calibration import Calibration, Prediction
from voxlate.evaluation.intervals.calibration_file import Answer, CalibrationPlace, find_calibration
from voxlate.evaluation.scoring.units import state_units
from voxlate.scans.cases.case import MASK, PreparedCase
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import Scale
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.methods.method import Method
from voxlate.synthesis.brightness import SynthesisedImage, in_physical_units, with_peak
from voxlate.synthesis.contrast import check_stripped, find_contrast, read_contrasts
from voxlate.synthesis.empty import (
    Empty,
    empty_slices,
    find_empty_slices,
    measures_all_slices,
    unused_slices,
)
from voxlate.synthesis.inputs import (
    CaseInputs,
    Scan,
    by_accepted_names,
    by_name,
    check_names,
    contents_of,
    is_in_training,
    prepare_inputs,
    targets_for,
    visible_sources,
)
from voxlate.synthesis.intervals import (
    CaseIntervals,
    OutputGrid,
    case_intervals,
    find_output_grid,
    may_have_intervals,
    notes_on_starter,
)
from voxlate.synthesis.planes import sample_planes
from voxlate.synthesis.progress import (
    PatchProgress,
    no_report,
    progress_function,
    warn_unless_note,
)
from voxlate.synthesis.result import Synthesised
from voxlate.training.network import networks_of
from voxlate.training.precision import of_synthesis
from voxlate.training.recipe import (
    Recipe,
    Synthesis,
    check_synthesis,
    from_dict,
    ranges_of,
    stage_recipe,
)
from voxlate.training.recipe.checks import HOW_TO_SAMPLE
from voxlate.training.recipe.provenance import TAUGHT
from voxlate.training.recipe.text import table
from voxlate.training.recipe.training import Precision
from voxlate.training.run import Run, software, weights_of
from voxlate.training.starter import run_folder
from voxlate.training.weights import file_hash, load_method, read_header

TABLES = ("noise", "slices", "schedule")  # keys that hold a table, whose kind may be named alone
OF_NOISE = frozenset((*(field.name for field in fields(SamplerSettings)), "noise"))
COST = (
    "network_calls",
    "seconds_per_slice",
    "device",
    "batch",
)  # measured, or of the machine, and therefore not part of the plan


@dataclass(frozen=True)
class Model:
    """A trained method with its recipe, scales and units, which synthesises images in physical units from scans.

    header: of the weights file; origin: the run folder or weights file; calibrations: the folder of calibrations, None disables intervals; anatomy: of the training patients, None where scans are not compared with it; only: of a completion, the modalities that are synthesised where they are missing, () for all; models: of an ensemble, its members.
    """

    method: Method
    recipe: Recipe
    header: Mapping[str, Any]
    device: torch.device
    origin: Path
    calibrations: Path | None = None
    anatomy: Anatomy | None = None
    only: tuple[str, ...] = ()
    models: tuple["Model", ...] = ()

    def __repr__(self) -> str:
        target = " + ".join(self.recipe.data.target)
        source = " + ".join(self.recipe.data.source)
        return f"Model('{self.recipe.title}', {source} → {target}, {self.header['steps']} steps, {self.device})"

    @property
    def members(self) -> tuple["Model", ...]:
        """The models of which the images are a mean: this model alone, unless it is an ensemble."""
        return self.models or (self,)

    @property
    def origins(self) -> tuple[Path, ...]:
        """The run folder or weights file of each member."""
        return tuple(member.origin for member in self.members)

    def with_options(self, allow_code: bool = False, **changes: Any) -> "Model":
        """The same model with other synthesis options (sampler, steps, samples, ...); None keeps the recipe's value.

        allow_code: import a sampler outside voxlate. Raises BadInput for an unknown option, a value out of range, a type of slices that the model does not have, a
        sampler that does not fit the schedule, and several samples of a method that is not stochastic.
        """
        stated = table({name: value for name, value in changes.items() if value is not None})
        chosen = {name: _as_table(name, value) for name, value in stated.items()}
        own = vars(self.recipe.synth)
        if chosen.get("samples", 1) > 1:
            own = {**own, "sharpness": 1.0}  # the mean of several is blurred without it
        if chosen.get("sampler", own["sampler"]) != own["sampler"]:
            own = {**own, "eta": 0.0}  # eta belongs to the recipe's sampler
        code = [own["sampler"], *([chosen.get("sampler")] if allow_code else [])]
        synth = fill(Synthesis, {**own, **chosen}, "synthesis options", code=code)
        recipe = replace(self.recipe, synth=synth)
        check_synthesis(recipe)
        if not recipe.method.is_stochastic:
            self._refuse_noise(chosen, f"'{self.recipe.title}'")
        elif synth.sharpness == 0:
            chosen.pop("sharpness", None)
            self._refuse_noise(chosen, "sharpness 0")
        return replace(self, recipe=recipe)

    def _refuse_noise(self, chosen: Mapping[str, Any], what: str) -> None:
        """Raise BadInput for options of the sampling, which change nothing where no noise is drawn; what: draws none."""
        if chosen.get("samples", 1) != 1:
            raise BadInput(
                f"synth.samples: expected 1 for {what}, which draws no noise, so that all samples of a case are equal, found {chosen['samples']}. Ask for 1; {HOW_TO_SAMPLE}."
            )
        without_effect = [name for name in chosen if name in OF_NOISE]
        if without_effect:
            raise BadInput(
                f"synth.{without_effect[0]}: expected no option of the sampling for {what}, which draws no noise, found {', '.join(without_effect)}. Leave it out; {HOW_TO_SAMPLE}."
            )

    def without_intervals(self) -> "Model":
        """The same model, which ignores the run's calibrations."""
        return replace(self, calibrations=None)

    def with_only(self, names: Collection[str]) -> "Model":
        """The same model, which synthesises no other missing modalities than these of a case."""
        wanted = {name.lower() for name in names}
        only = [name for name in self.recipe.data.target if name.lower() in wanted]
        return replace(self, only=tuple(only))

    def with_contrast_of(self, scans: Sequence[str | Path]) -> "Model":
        """The same model, whose images get the levels of fluid, grey and white matter in some scans of the same site.

        scans: of stripped brains, as a path or TARGET=PATH; the target may be left out where the model synthesises one.
        Raises BadInput for a scan of another contrast or without such levels, and for targets in HU and the like.
        """
        targets = self.only or tuple(self.recipe.data.target)
        names = {name.lower(): name for name in (*self.recipe.data.source, *targets)}
        for name, others in self.aliases.items():
            names |= dict.fromkeys(others, name)
        levels = read_contrasts(scans, targets, names, self.header["units"])
        return self.with_options(contrast=levels)

    def with_synthesis_of(self, other: Recipe) -> "Model":
        """The same model with the [synth] of another recipe, which may differ from the model's own in that part only.

        Raises BadInput where the other recipe trains another method.
        """
        if other.method != self.recipe.method:
            raise BadInput(
                f"{self.origin}: expected a recipe that trains the same method ('{self.recipe.title}'), found '{other.title}'. Choose another one, or train it."
            )
        return replace(self, recipe=replace(self.recipe, synth=other.synth)).with_options()

    def synthesise(
        self,
        scans: Mapping[str, Scan] | Scan,
        *,
        case: str = "case",
        seed: int = 0,
        progress: PatchProgress | bool = no_report,
        warn: Say = warn_unless_note,
        turn: AbstractContextManager[None] | None = None,
        **options: Any,
    ) -> Synthesised:
        """Synthesise the target modalities from scans {modality: scan}, or from one scan if the model has one source.

        A scan is a path, a Volume, a nibabel image, or a pair of an array (NumPy, torch) [x, y, z] and its affine (to RAS
        mm). A scan with another name that the model accepts is taken, with a message. A scan named "mask" replaces the
        mask that would be computed. The scans are resampled, registered, aligned and masked as in training; the images are
        on the grid of the first source's own file. case: name in messages and
        provenance; the noise depends on the seed and the scans' voxels. progress: is called with the number of finished
        slices or patches and their total; True and False report nothing. warn: is called with each warning; by default
        Python warns of all that are more than notes. turn: is entered while the network computes. options: as in the
        recipe's [synth] (samples, steps, ...). Raises BadInput where a scan is missing, or scans do not fit together.
        """
        model = self.with_options(**options)
        own, notes = by_accepted_names(by_name(scans, self.recipe.data.source), self.aliases)
        for note in notes:
            warn(note)
        inputs = model.prepare(own, case)
        plan = model.plan(inputs.files, seed)  # refuses a calibration of other images
        if model.recipe.synth.contrast:
            first = visible_sources(model.recipe, inputs.prepared)[0]
            check_stripped(inputs.prepared.volume(first), case)
        axes, units = model.recipe.data.axes, model.header["units"]
        output_grid = find_output_grid(inputs.prepared, axes, units)
        calibrates = may_have_intervals(model.recipe, inputs.files)
        calibration = model.calibration() if calibrates else None
        found = find_empty_slices(model.recipe, inputs.prepared)
        unused = model._unused_slices(found.which, output_grid, calibration)
        with turn or nullcontext():
            begun = time.monotonic()
            images, calls = model.sample(inputs, seed, progress_function(progress), unused)
        shape = inputs.prepared.header.shape
        seconds = (time.monotonic() - begun) / shape[0]
        batch = 1 if model.recipe.synth.exact else model.recipe.synth.batch
        cost = dict(zip(COST, (calls, seconds, name_of(self.device), batch)))
        intervals = case_intervals(
            calibration, model.recipe, inputs.prepared, images, output_grid, unused
        )
        empty = empty_slices(
            model.recipe, model.header, inputs.prepared, model.anatomy, images, found
        )
        own = model._provenance(inputs, images, intervals, calibration, empty)
        images = empty.fill(images)
        volumes = output_grid.images({name: image.values for name, image in images.items()})
        intervals = empty.close_intervals(intervals, volumes, output_grid)
        result = Synthesised(
            volumes,
            output_grid.images({name: image.physical_sd for name, image in images.items()}),
            {**software(), "case": case, **plan, **cost, **own},
            model.mark,
            intervals.low,
            intervals.high,
            output_grid.images(dict.fromkeys(images, intervals.distance_map(shape))),
        )
        for note in result.warnings:
            warn(note)
        return result

    def prepare(self, scans: Mapping[str, Scan], case: str) -> CaseInputs:
        """The scans of a case as inputs of the network, with warnings of what differs from the training data."""
        self.check_names(scans, case)
        known = {name: scans[name] for name in self.scan_names if name in scans}
        targets = self._targets(known)
        try:
            return prepare_inputs(self.recipe, self.header, known, case, self.anatomy, targets)
        except OSError as error:
            raise system_refusal(error) from error

    def sample(
        self,
        inputs: CaseInputs,
        seed: int,
        progress: PatchProgress,
        unused: Bool | None = None,
    ) -> tuple[dict[str, SynthesisedImage], float]:
        """The images of a case on the network's grid, and the mean number of network evaluations per sample of a slice or patch.

        unused: slices [D] that stay background, if they are network inputs of their own.
        """
        predictions, calls = self._predict(inputs, seed, progress, unused)
        by_target = dict(zip(self.recipe.data.target, predictions))
        wanted = self._targets(inputs.files)
        return {
            name: self._in_physical_units(name, by_target[name], inputs.prepared) for name in wanted
        }, calls

    def _unused_slices(
        self, empty: Bool, output_grid: OutputGrid, calibration: Calibration | None
    ) -> Bool:
        """The slices [D] that the network may leave out, because none of their voxels decides anything."""
        targets = self.recipe.data.target
        scales = {name: self._target_scale(name) for name in targets}
        if self.recipe.synth.contrast or measures_all_slices(self.recipe, scales, calibration):
            return np.zeros_like(empty)
        return unused_slices(empty, output_grid.slices_per_step)

    def _predict(
        self, inputs: CaseInputs, seed: int, progress: PatchProgress, unused: Bool | None
    ) -> tuple[list[Prediction], float]:
        """Predictions in network units: mean + sharpness (sample - mean) (Freirich et al. 2021)."""
        recipe, networks = self.recipe, networks_of(self.method, self.device)
        stage, sharpness = recipe.task.mean_stage, np.float32(recipe.synth.sharpness)
        if stage is None or sharpness == 1:
            return sample_planes(networks, recipe, inputs, seed, progress, unused)
        mean_progress = no_report if sharpness else progress
        of_mean = stage_recipe(recipe, stage)
        means, calls = sample_planes(
            networks_of(self.method.predictor, self.device),
            of_mean,
            inputs,
            seed,
            mean_progress,
            unused,
        )
        if sharpness == 0:
            return means, calls
        samples, further = sample_planes(networks, recipe, inputs, seed, progress, unused)

        def _between(mean: np.ndarray, sample: np.ndarray) -> np.ndarray:
            return mean + sharpness * (sample - mean)

        for mean, sample in zip(means, samples):
            in_slabs(_between, mean.values, sample.values, out=sample.values)
        return samples, calls + further

    def _in_physical_units(
        self, name: str, prediction: Prediction, prepared: PreparedCase
    ) -> SynthesisedImage:
        """A prediction in physical units; its levels or its bright end are moved where synth.contrast or synth.peaks asks for it."""
        image = in_physical_units(prediction, self._target_scale(name))
        synth = self.recipe.synth
        goal = synth.contrast.get(name)
        if not synth.peaks and goal is None:
            return image
        affine = np.array(prepared.header.affine)
        volume = Volume(image.values[None], affine, self.header["units"][name], name)
        if goal is not None:
            brain = prepared.outline(visible_sources(self.recipe, prepared)[0])
            return image.moved(find_contrast(volume, brain, goal, prepared.header.case))
        return with_peak(image, volume, self.recipe, self.header)

    def _target_scale(self, name: str) -> Scale:
        """From network units to physical units of a target."""
        return Scale(*self.header["target_scales"][name])

    def _provenance(
        self,
        inputs: CaseInputs,
        images: Mapping[str, SynthesisedImage],
        intervals: CaseIntervals,
        calibration: Calibration | None,
        empty: Empty,
    ) -> dict[str, Any]:
        """The entries of the provenance that describe a case's inputs, images and error bounds; entries without content are left out."""
        moves = {name: image.move for name, image in images.items() if image.move is not None}
        warnings = [*inputs.warnings, *self._notes(inputs.files)]
        moved = dict[str, dict[str, Any]]()
        for name, move in moves.items():
            moved.setdefault(move.key, {})[name] = move.entry
            warnings += move.check(name)
        bounds, messages = intervals.stated(warnings)
        warnings += [*messages, *empty.messages]
        scales = {name: (image.scale.low, image.scale.high) for name, image in images.items()}
        maps = {name: self.recipe.intensity[name] for name in self.recipe.data.target}
        entries: dict[str, Any] = {
            "prepared": inputs.preparation,
            "network_units": state_units(maps, self.header["target_scales"] | scales),
            **moved,
        }
        optional = {
            "bounds": bounds,
            "familiar": intervals.verdict and intervals.verdict.entry,
            TAUGHT: calibration is not None and calibration.has_case(inputs.files),
            "warnings": [note.table for note in warnings],
            "bound": self.header.get("bound"),
            "empty": empty.entry,
        }
        entries |= {key: value for key, value in optional.items() if value}
        sources = visible_sources(self.recipe, inputs.prepared)
        in_training = is_in_training(self.header, inputs.prepared, sources)
        if in_training is not None:
            entries["in_training"] = in_training
        return entries

    def _notes(self, files: Collection[str]) -> list[Message]:
        """Messages on why a case has no intervals, on missing modalities that were not named, and on a starter."""
        place, calibration = self.calibration_place, self.calibration()
        calibrated = calibration is not None
        notes = [] if place is None else place.messages
        texts = list[tuple[str, str]]()
        if calibrated and not may_have_intervals(self.recipe, files):
            missing = [name for name in self.recipe.data.source if name not in files]
            why = f"No intervals: the run is calibrated for one missing modality, and this case lacks {' and '.join(missing)}."
            texts.append(("no-intervals", why))
        if left := self._further_targets(files):
            why = f"Asked for {' and '.join(self.only)} only: {', '.join(left)} could be synthesised as well."
            texts.append(("not-asked-for", why))
        if self.recipe.synth.samples > 1 and not self.recipe.method.shows_doubt:
            why = "The samples of a flow differ in grain alone: their standard deviation does not show what may be wrong."
            texts.append(("grain", why))
        steps, trained = self.recipe.synth.steps, self.recipe.method.trained_steps
        if trained and steps not in trained:
            sizes = ", ".join(map(str, trained))
            why = f"The flow takes {plural(steps, 'step')}, of a size for which it was not trained: {sizes} steps are."
            texts.append(("flow-steps", why))
        starter, adapted = self.header.get("starter"), self.header.get("adapted")
        if starter is not None:
            texts += notes_on_starter(starter, calibration)
        if adapted is not None and adapted["calibrated"] and not calibrated:
            why = "No intervals: the run was adapted to other scans, and the calibration from before does not hold any more. Run voxlate calibrate again."
            texts.append(("no-intervals", why))
        return [*notes, *(message(code, why) for code, why in texts)]

    @property
    def aliases(self) -> Mapping[str, Sequence[str]]:
        """For each modality of a starter, or the source of data.any_source, the names of scans that it stands for."""
        data = self.recipe.data
        accepts: Mapping[str, Sequence[str]] = self.header.get("starter", {}).get("accepts", {})
        return {**accepts, data.source[0]: data.any_source} if data.any_source else accepts

    @property
    def missing_checks(self) -> list[Message]:
        """A message where orientation, field of view and modality of scans cannot be checked."""
        if self.anatomy is None and "imported" in self.header:
            text = f"{self.origin.name}: an imported model has no anatomy of its training: orientation and field of view of scans are not checked."
            return [message("unchecked", text)]
        if self.anatomy is None:
            text = f"{self.origin.name}: expected anatomy.safetensors next to the weights, found none (weights alone): orientation and field of view of scans are not checked. Give the train command of the run again, which adds it."
            return [message("unchecked", text)]
        missing = [name for name in self.recipe.data.source if name not in self.anatomy.usual]
        text = f"{self.origin.name}: expected at least {FEWEST} training patients with {' and '.join(missing)}, found fewer: its orientation and field of view are not checked."
        return [message("unchecked", text)] if missing else []

    @property
    def answer(self) -> Answer:
        """Whether an image is a prediction of the mean, or made of samples."""
        return "sample" if self.recipe.method.is_stochastic else "mean"

    @property
    def calibration_place(self) -> CalibrationPlace | None:
        """Where the calibration of images with these options is, whether it exists or not; None without intervals."""
        if self.calibrations is None:
            return None
        return CalibrationPlace(self.calibrations, self.answer, self.recipe.synth.samples)

    @property
    def calibration_file(self) -> Path:
        """The file of the calibration of images with these options, whether it exists or not."""
        if self.calibration_place is None:
            raise BadInput(
                f"{self.origin}: expected a run that is read from a folder, found one without. Load it again."
            )
        return self.calibration_place.file

    def calibration(self) -> Calibration | None:
        """The calibration of images with these options (see find_calibration); None without intervals."""
        place = self.calibration_place
        if place is None:
            return None
        return find_calibration(place, self.recipe, self.header, self.synthesis_options)

    @property
    def precision(self) -> Precision:
        """The precision of convolutions and matrix products on this device."""
        return of_synthesis(self.recipe, self.device)

    @property
    def synthesis_options(self) -> dict[str, Any]:
        """The options that decide the images, as plain values; the batch size decides roundings alone."""
        options = adapter(Synthesis).dump_python(self.recipe.synth, mode="json")
        decisive = {key: value for key, value in options.items() if key != "batch"}
        return {**decisive, "precision": self.precision}

    def check_names(self, scans: Collection[str], case: str) -> None:
        """Raise BadInput where modalities that the model needs are not among a case's scans."""
        check_names(self.recipe, self.aliases, scans, case)

    def names_of(self, scans: Collection[str]) -> list[str]:
        """The names of the image files for a case with these scans, without their ending."""
        return [f"{self.mark}{name}" for name in self._targets(scans)]

    def _targets(self, scans: Collection[str]) -> list[str]:
        """The modalities to synthesise for a case with these scans."""
        unwanted = self._further_targets(scans)
        return [name for name in targets_for(self.recipe, scans) if name not in unwanted]

    def _further_targets(self, scans: Collection[str]) -> list[str]:
        """The modalities that a case lacks, too, and that `only` leaves out."""
        if not self.only:
            return []
        return [name for name in targets_for(self.recipe, scans) if name not in self.only]

    @property
    def mark(self) -> str:
        """The beginning of file names, which tells the images that complete a case from its scans."""
        return SYNTHETIC if self.recipe.task.completes else ""

    @property
    def scan_names(self) -> tuple[str, ...]:
        """The scans of a case that are read: the sources, and a mask where the method of a member works inside one."""
        needs_mask = any(member.recipe.needs_mask for member in self.members)
        return (*self.recipe.data.source, *([MASK] if needs_mask else []))

    def plan(self, files: Mapping[str, Path | str], seed: int) -> dict[str, Any]:
        """All that decides the images of a case: model, options, seed, and contents of the inputs.

        Equal plans give equal images.
        """
        recipe = self.recipe
        calibration = self.calibration()
        plan: dict[str, Any] = {
            "model": {
                "title": recipe.title,
                "weights": self.header["weights_hash"],
                "steps": self.header["steps"],
            },
            "seed": seed,
            "synth": self.synthesis_options,
        }
        if (address := address_of(self.origin)) is not None:
            plan["model"]["hub"] = address
        if recipe.data.planes:
            plan["planes"] = recipe.data.planes
        if calibration is not None:
            plan["calibration"] = calibration.entry
        if files and self._further_targets(files):
            plan["only"] = list(self.only)
        windows = ranges_of(recipe)
        return {
            **plan,
            "inputs": contents_of(files),
            "units": self.header["units"],
            "axes": recipe.data.axes,
            "range": {
                name: window for name, window in windows.items() if name in recipe.data.target
            },
        }


def _as_table(name: str, value: Any) -> Any:
    """The name of a kind, such as "shared", as a table; other values as they are."""
    return {"kind": value} if name in TABLES and isinstance(value, str) else value


def load(
    run: Path | str,
    device: str = "auto",
    allow_code: bool = False,
    answer: Answer | None = None,
) -> Model:
    """Open a run folder, a weights file, starter:NAME or hf://NAME/REPO for synthesis; raises BadInput if it is none.

    allow_code: import, and thereby run, the code outside voxlate that the model names. answer: "mean" opens the
    predictor of a run that samples its predictor's residual, "sample" and None its last stage; raises BadInput where
    the run has no such answer.
    """
    path = _stage_path(run_folder(run), answer, allow_code)
    method, recipe, header = load_method(path, allow_code)
    if (
        not recipe.method.makes_targets
    ):  # an autoencoder alone, whose inputs are the images that it reconstructs
        recipe = replace(recipe, data=replace(recipe.data, source=recipe.data.target, stack=0))
    found_device = find_device(device)
    # a weights file of a hub's cache is a link, beside which the other files are
    origin = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
    folder = origin if origin.is_dir() else origin.parent
    header["weights_hash"] = file_hash(weights_of(path))
    anatomy_file = Run(folder).anatomy
    anatomy = read_anatomy(anatomy_file, recipe.intensity) if anatomy_file.is_file() else None
    return Model(method.to(found_device), recipe, header, found_device, origin, folder, anatomy)


def _stage_path(path: Path, answer: Answer | None, allow_code: bool) -> Path:
    """The run itself, or the weights file of the stage that gives this answer."""
    weights = weights_of(path)
    if answer is None or not weights.exists():
        return path
    if answer not in get_args(Answer):
        raise BadInput(
            f"answer: expected 'mean' or 'sample', found {answer!r}. Choose one of these."
        )
    recipe = from_dict(read_header(weights)["recipe"], f"{weights} (header)", allow_code)
    if answer == "sample" and not recipe.method.is_stochastic:
        raise BadInput(
            f"{path}: expected a model that draws samples for the answer 'sample', found '{recipe.title}', which makes one image of a case. Ask for the answer 'mean', or for none; {HOW_TO_SAMPLE}."
        )
    if answer == "sample" or not recipe.method.is_stochastic:
        return path
    stage = recipe.task.mean_stage
    if stage is None:
        raise BadInput(
            f"{path}: expected a model with a predictor for the answer 'mean', found '{recipe.title}', which has none. Take the mean of its samples instead: --samples 10 (in Python: samples=10)."
        )
    return Run(path if path.is_dir() else path.parent).weights(stage)
