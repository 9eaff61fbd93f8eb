"""Synthesis of a case by a trained model: images on the scans' own grid, in physical units, with their spread."""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from pydantic_core import to_jsonable_python

from voxlate.config import fill
from voxlate.data.anatomy import FEWEST, Anatomy, read_anatomy
from voxlate.data.case import MASK, PreparedCase, digest
from voxlate.data.grades import worst
from voxlate.devices import find_device, name_of
from voxlate.errors import BadInput, did_you_mean
from voxlate.files import SYNTHETIC
from voxlate.images.intensity import Scale
from voxlate.images.volume import Volume, content_hash, is_there
from voxlate.methods.method import Method
from voxlate.recipe import Recipe, Synthesis, check_synthesis, fixed_ranges, from_dict
from voxlate.recipe.training import Precision
from voxlate.scoring.network_units import stated_units
from voxlate.scoring.provenance import TAUGHT
from voxlate.synthesis.brightness import peak_of
from voxlate.synthesis.calls import PatchProgress, Warn, no_report, reporting, warned
from voxlate.synthesis.empty import Empty, empty_slices
from voxlate.synthesis.inputs import Ready, Scan, by_name, made_of, make_ready
from voxlate.synthesis.intervals import Trusted, output_grid_of, trusted
from voxlate.synthesis.result import Synthesised, SynthesisedImage
from voxlate.synthesis.sampling import draw
from voxlate.training.precision import of_synthesis
from voxlate.training.run import DIGITS, Run, file_hash, first_change, load_method, made_by, read_header, weights_of
from voxlate.trust.calibration import Calibration, Prediction, calibration_path
from voxlate.trust.calibration_file import read_calibration

Answer = Literal["mean", "sample"]
COST = ("network_calls", "seconds_per_slice", "device")  # measured, so no part of the plan


@dataclass(frozen=True)
class Model:
    """A trained method with its recipe, scales and units: makes images in physical units from scans."""

    method: Method
    recipe: Recipe
    header: Mapping[str, Any]
    device: torch.device
    origin: Path
    calibrations: Path | None = None  # the folder where they are; None: images have no intervals
    anatomy: Anatomy | None = None  # what is usual in the training; None: scans are not compared with it

    def __repr__(self) -> str:
        made, given = " + ".join(self.recipe.data.target), " + ".join(self.recipe.data.source)
        return f"Model('{self.recipe.title}', {given} → {made}, {self.header['steps']} steps, {self.device})"

    @property
    def origins(self) -> tuple[Path, ...]:
        """Where it lies: a run folder, or a weights file."""
        return (self.origin,)

    def with_options(self, **changes: Any) -> "Model":
        """The same model with other synthesis options (sampler, steps, samples, ...); None keeps the recipe's.

        Raises BadInput for an unknown option, a value out of range, slices of a kind that the model has not, a sampler
        that does not fit the schedule, and several samples of a method that draws none.
        """
        chosen = {name: value for name, value in changes.items() if value is not None}
        own = vars(self.recipe.synth)
        if chosen.get("sampler", own["sampler"]) != own["sampler"]:
            own = {**own, "eta": 0.0}  # it is of the recipe's sampler
        synth = fill(Synthesis, {**own, **chosen}, "synthesis options")
        if synth.samples > 1 and not self.recipe.method.is_stochastic:
            raise BadInput(
                f"synth.samples: expected 1 for '{self.recipe.title}', which draws no noise, so that all samples of a "
                f"case are equal, found {synth.samples}. Ask for 1, or use a diffusion model."
            )
        recipe = replace(self.recipe, synth=synth)
        check_synthesis(recipe)
        return replace(self, recipe=recipe)

    def without_intervals(self) -> "Model":
        """The same model, whether its run is calibrated or not."""
        return replace(self, calibrations=None)

    def with_synthesis_of(self, other: Recipe) -> "Model":
        """The same model with the [synth] of another recipe, which differs from the model's own in that part only.

        Raises BadInput where the other recipe trains another method.
        """
        if other.method != self.recipe.method:
            raise BadInput(
                f"{self.origin}: expected a recipe that trains the same method ('{self.recipe.title}'), found "
                f"'{other.title}'. Choose another one, or train it."
            )
        return replace(self, recipe=replace(self.recipe, synth=other.synth)).with_options()

    def synthesise(
        self,
        scans: Mapping[str, Scan] | Scan,
        *,
        case: str = "case",
        seed: int = 0,
        progress: PatchProgress | bool = no_report,
        warn: Warn = warned,
        **options: Any,
    ) -> Synthesised:
        """Make the model's target modalities from scans {modality: scan}, or from one scan where it has one source.

        "mask": a mask, which wins.

        A scan is a path, a Volume, a nibabel image, or a pair of an array [x, y, z] and its affine (to RAS mm).

        The scans are resampled, registered, aligned and masked as those of the training were; the images come on the
        grid of the first source's own file. case: for messages and provenance; noise goes by the seed and the scans'
        voxels. progress: is called with slices done and in all; True and False report nothing. warn: is given each
        warning, a sentence; by default Python warns of all that are more than notes.
        options: as in the recipe's [synth] (samples, steps, ...). Raises BadInput where a scan is missing, or scans do
        not fit together.
        """
        model = self.with_options(**options)
        named = by_name(scans, self.recipe.data.source)
        ready, calibration = model.ready(named, case), model.calibration()
        begun = time.monotonic()
        images, calls = model.draw(ready, seed, reporting(progress), None if calibration is None else calibration.outer)
        seconds = (time.monotonic() - begun) / ready.prepared.header.shape[0]
        cost = dict(zip(COST, (calls, seconds, name_of(self.device))))
        output_grid = output_grid_of(ready.prepared, model.recipe.data.axes, model.header["units"])
        found = trusted(calibration, model.recipe, ready.prepared, images, output_grid)
        far = None if found.verdict is None else found.verdict.map(ready.prepared.header.shape)
        stated, low, high = model._stated(ready, images, found), found.low, found.high
        empty = model.empty(ready.prepared, images)
        if empty.any:
            images = empty.filled(images)
            stated = {**stated, "empty": empty.stated, "warnings": [*stated.get("warnings", ()), empty.note]}
        written = output_grid.images({name: one.values for name, one in images.items()})
        if empty.any:
            low, high = empty.closed(low, high, written, output_grid)
        for sentence in stated.get("warnings", ()):
            warn(sentence)
        return Synthesised(
            written,
            output_grid.images({name: one.physical_sd for name, one in images.items()}),
            {**made_by(), "case": case, **model.plan(ready.files, seed), **cost, **stated},
            model.mark,
            low,
            high,
            output_grid.images(dict.fromkeys(images, far)),
        )

    def empty(self, prepared: PreparedCase, images: Iterable[str]) -> Empty:
        """The slices of a prepared case that show nothing, and what these images are there."""
        scales = {name: Scale(*self.header["target_scales"][name]) for name in images}
        return empty_slices(self.recipe, prepared, self.anatomy, scales, self.header["units"])

    def _saw(self, prepared: PreparedCase) -> bool | None:
        """Whether the training saw voxels of a case's scans; None where the weights do not say what it saw."""
        known = set(self.header.get("training_voxels", ()))
        if not known:
            return None
        shown = [name for name in self.recipe.data.source if name in prepared.header.shown]
        return bool(known & {digest(prepared.arrays[name][:])[:DIGITS] for name in shown})

    def _stated(self, ready: Ready, images: Mapping[str, SynthesisedImage], found: Trusted) -> dict[str, Any]:
        """What a provenance says of a case's images in addition to how they were drawn; what is empty is left out."""
        peaks = {name: one.peak for name, one in images.items() if one.peak is not None}
        notes = [*ready.notes, self.uncalibrated(), *(peak.note(name) for name, peak in peaks.items())]
        notes += [found.verdict.sentence] if found.verdict else []
        bounds = found.bounds if any(found.bounds.values()) else None
        if bounds and worst([note for note in notes if note]) == "do not trust":
            bounds = None  # they were counted on scans like those of the calibration
            notes.append(
                "Bounds of the error are not stated, because they hold for scans like those of the calibration."
            )
        maps = {name: self.recipe.intensity[name] for name in self.recipe.data.target}
        calibration = self.calibration()
        found_out = {
            "peaks": {name: peak.stated for name, peak in peaks.items()},
            "bounds": bounds,
            "in_training": self._saw(ready.prepared),
            "familiar": found.verdict and found.verdict.stated,
            TAUGHT: calibration is not None and calibration.learned_from(ready.files),
            "warnings": [note for note in notes if note],
            "bound": self.header.get("bound"),
        }
        return {
            "prepared": ready.stated,
            "network_units": stated_units(maps, self.header["target_scales"]),
            **{key: one for key, one in found_out.items() if one or (key == "in_training" and one is not None)},
        }

    def ready(self, scans: Mapping[str, Scan], case: str) -> Ready:
        """A case's scans as the network is given them, with what is to be said of them."""
        self.check_names(scans, case)
        given = {name: scans[name] for name in self.scan_names if name in scans}
        return make_ready(self.recipe, self.header, given, case, self.anatomy)

    @property
    def unchecked(self) -> str:
        """A sentence where orientation, field of view and modality of scans cannot be checked; else ''."""
        if self.anatomy is None:
            return (
                f"{self.origin.name}: expected anatomy.safetensors next to the weights, found none (an older run, or "
                "weights alone): orientation and field of view of scans are not checked. Give the train command of the "
                "run again, which adds it."
            )
        if lacking := [name for name in self.recipe.data.source if name not in self.anatomy.usual]:
            return (
                f"{self.origin.name}: expected at least {FEWEST} training patients with {' and '.join(lacking)}, found "
                "fewer: its orientation and field of view are not checked."
            )
        return ""

    def draw(
        self, ready: Ready, seed: int, progress: PatchProgress, outer: float | None
    ) -> tuple[dict[str, SynthesisedImage], float]:
        """The images of a case on the grid that the network works on, and evaluations of the network for each sample.

        outer: see draw.draw.
        """
        drawn, calls = draw(self, ready.prepared, ready.key, seed, progress, outer)
        images, names = dict(zip(self.recipe.data.target, drawn)), made_of(self.recipe, ready.files)
        return {name: self._made(name, images[name], ready.prepared) for name in names}, calls

    def _made(self, name: str, drawn: Prediction, prepared: PreparedCase) -> SynthesisedImage:
        """A drawn image in physical units, its bright end corrected where that is asked for and its scale its own."""
        scale, spec = Scale(*self.header["target_scales"][name]), self.recipe.intensity[name]
        values = scale.inverse(drawn.values)
        made = SynthesisedImage(values, replace(drawn, values=scale.of(values)), scale)
        if not self.recipe.synth.peaks:
            return made
        volume = Volume(values[None], np.array(prepared.header.affine), self.header["units"][name], name)
        peak = peak_of(volume, spec, scale, float(self.header.get("training_ml") or 0))
        return made if peak is None else made.stretched(peak)

    def calibration(self) -> Calibration | None:
        """What held-back patients taught about images drawn like these, where the run has it and it is wanted.

        Raises BadInput where it is of other weights, of images drawn otherwise, or of another number of samples than
        was asked for.
        """
        if self.calibrations is None:
            return None
        path, samples = self.calibration_file, self.recipe.synth.samples
        if path.is_file():
            found = calibration_of(path, path.stat().st_mtime_ns)
            if found.header.weights != self.header["weights_hash"]:
                what = f"these weights ({self.header['weights_hash']}), found one of others ({found.header.weights})"
            elif change := first_change(but_rounding(found.header.synth), but_rounding(self.plan_of_synthesis)):
                what = f"images drawn as these are, found one of others ({change})"
            else:
                data = self.recipe.data
                found.check(self.header["units"], data.target, len(data.source), path)
                return found
        elif samples != (self.header["recipe"].get("synth") or {}).get("samples", 1) and self._calibrated_for():
            what = f"{samples} samples, found one of {self._calibrated_for()} samples"
        else:
            return None
        raise BadInput(
            f"{path.parent}: expected a calibration of {what}. Run voxlate calibrate again with the options of synth, "
            "change these, or go without intervals (--no-intervals)."
        )

    def _calibrated_for(self) -> str:
        """The numbers of samples for which the run has a calibration of this answer, in words."""
        found = self.calibrations.glob(f"calibration.{self.answer}.*.safetensors") if self.calibrations else ()
        counts = {one.name.split(".")[2] for one in found}
        return " or ".join(map(str, sorted(int(one) for one in counts if one.isdecimal())))

    def uncalibrated(self) -> str:
        """A sentence where a calibrated run makes images without intervals, for it draws another number of them."""
        if self.calibrations is None or self.calibration_file.is_file():
            return ""
        others = self._calibrated_for()
        if not others and any(self.calibrations.glob("calibration.*.safetensors")):
            other = next(one for one in get_args(Answer) if one != self.answer)
            return f"No intervals: the run is calibrated for its {other} answer (--answer {other})."
        if not others:
            return ""
        return f"No intervals: the run is calibrated for {others} samples (--samples {others.split()[0]})."

    @property
    def answer(self) -> Answer:
        return "sample" if self.recipe.method.is_stochastic else "mean"

    @property
    def calibration_file(self) -> Path:
        """Where a calibration of this answer, with so many samples, lies."""
        if self.calibrations is None:
            raise BadInput(
                f"{self.origin}: expected a run that is read from a folder, found one without. Load it again."
            )
        return calibration_path(self.calibrations, self.answer, self.recipe.synth.samples)

    @property
    def precision(self) -> Precision:
        """Of convolutions and products on this device."""
        return of_synthesis(self.recipe, self.device)

    @property
    def plan_of_synthesis(self) -> dict[str, Any]:
        """The options that decide how images are drawn, as plain values; the batch changes nothing."""
        options: dict[str, Any] = to_jsonable_python({**vars(self.recipe.synth), "precision": self.precision})
        return {key: value for key, value in options.items() if key != "batch"}

    def check_names(self, scans: Collection[str], case: str) -> None:
        """Raise BadInput where modalities that the model needs are not among a case's scans."""
        sources = self.recipe.data.source
        known = (*sources, *self.recipe.data.target, MASK)
        if unknown := sorted(set(scans) - set(known)):
            hint = did_you_mean(unknown[0], known) or "Choose one of these names, or leave it out."
            raise BadInput(f"{case}: expected scans of {', '.join(dict.fromkeys(known))}, found '{unknown[0]}'. {hint}")
        missing = [name for name in sources if name not in scans]
        may_lack = self.recipe.task.completes or self.recipe.data.allow_missing
        if len(missing) == len(sources) or (missing and not may_lack):
            raise BadInput(
                f"{case}: expected {' and '.join(sources)}, found {', '.join(sorted(scans)) or 'none of them'}. "
                f"Add {' and '.join(missing)}, or use a model for other modalities."
            )
        if self.recipe.task.completes and not missing:
            raise BadInput(
                f"{case}: expected a modality to be missing, found all of {', '.join(sources)}. "
                "Name one with --missing to make it anyway."
            )

    def files_of(self, scans: Collection[str]) -> list[str]:
        """Names of the images' files that are made of a case with these scans."""
        return [f"{self.mark}{name}.nii.gz" for name in made_of(self.recipe, scans)]

    @property
    def mark(self) -> str:
        """What names of files begin with: images that complete a case lie with scans of the same names."""
        return SYNTHETIC if self.recipe.task.completes else ""

    @property
    def scan_names(self) -> tuple[str, ...]:
        """The files of a case that are read: the sources, and a mask where the method works inside one."""
        return (*self.recipe.data.source, *([MASK] if self.recipe.needs_mask else []))

    def plan(self, files: Mapping[str, Path | str], seed: int) -> dict[str, Any]:
        """All that decides a case's images: model, options, seed, inputs' content; equal plans give equal images."""
        recipe, calibration = self.recipe, self.calibration()
        return {
            "model": {"title": recipe.title, "weights": self.header["weights_hash"], "steps": self.header["steps"]},
            "seed": seed,
            "synth": self.plan_of_synthesis,
            "empty_slices": "background",  # images of before this rule lack it, and are made again
            **({} if calibration is None else {"calibration": calibration.stated}),
            "inputs": {name: _content(Path(path)) for name, path in sorted(files.items())},
            "units": self.header["units"],
            "axes": recipe.data.axes,
            "range": {name: window for name, window in fixed_ranges(recipe).items() if name in recipe.data.target},
        }


@lru_cache(maxsize=8)
def calibration_of(path: Path, mtime_ns: int) -> Calibration:
    """The calibration in a file; the time stamp makes a new file a new entry of the cache."""
    return read_calibration(path)


def load(run: Path | str, device: str = "auto", allow_code: bool = False, answer: Answer | None = None) -> Model:
    """Open a run folder or a weights file for synthesis; raises BadInput where it is none.

    allow_code: import the code outside voxlate that the model names, which is then run. answer: "mean" opens the
    predictor of a run that draws what its predictor leaves, "sample" its last stage; raises BadInput where a run has no
    such answer. None: the last stage.
    """
    path = _answering(Path(run), answer, allow_code)
    method, recipe, header = load_method(path, allow_code)
    if not recipe.method.makes_targets:  # an autoencoder alone: it is given what it reconstructs
        recipe = replace(recipe, data=replace(recipe.data, source=recipe.data.target, stack=0))
    where, origin = find_device(device), path.resolve()
    folder = origin if origin.is_dir() else origin.parent
    header["weights_hash"] = file_hash(weights_of(path))
    known = Run(folder).anatomy
    anatomy = read_anatomy(known, recipe.intensity) if known.is_file() else None
    return Model(method.to(where), recipe, header, where, origin, folder, anatomy)


def _answering(path: Path, answer: Answer | None, allow_code: bool) -> Path:
    """The run itself, or the weights of the stage that gives the answer which is asked for."""
    weights = weights_of(path)
    if answer is None or not weights.exists():
        return path
    if answer not in get_args(Answer):
        raise BadInput(f"answer: expected 'mean' or 'sample', found {answer!r}. Choose one of these.")
    recipe = from_dict(read_header(weights)["recipe"], f"{weights} (header)", allow_code)
    if answer == "sample" and not recipe.method.is_stochastic:
        raise BadInput(
            f"{path}: expected a model that draws samples for the answer 'sample', found '{recipe.title}', which makes "
            "one image of a case. Ask for the answer 'mean', or for none."
        )
    if answer == "sample" or not recipe.method.is_stochastic:
        return path
    if (stage := recipe.task.mean_stage) is None:
        raise BadInput(
            f"{path}: expected a model with a predictor for the answer 'mean', found '{recipe.title}', which has none. "
            "Take the mean of its samples instead: --samples 10 (in Python: samples=10)."
        )
    return Run(path if path.is_dir() else path.parent).weights(stage)


def but_rounding(synth: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a synthesis without its precision: rounding is far below what a calibration states."""
    return {key: value for key, value in synth.items() if key != "precision"}


def _content(path: Path) -> dict[str, str]:
    """Of an input; where it lies is stated by those who write the image."""
    return {"sha256": content_hash(path)} if is_there(path) else {}
