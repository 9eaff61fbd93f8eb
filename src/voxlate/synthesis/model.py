"""Synthesis of a case by a trained model: images on the scans' own grid, in physical units, with their spread."""

import hashlib
import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import nibabel as nib
import numpy as np
import torch

from voxlate.batch import BACKGROUND
from voxlate.config import adapter, fill
from voxlate.data.align import Preparation
from voxlate.data.case import MASK, PreparedCase, prepare_case
from voxlate.data.familiar import check_floor, unfamiliar, varied_level
from voxlate.data.layout import laid_out
from voxlate.errors import BadInput
from voxlate.files import SYNTHETIC, safe_name
from voxlate.images.grid import canonical, check_affine
from voxlate.images.intensity import Percentile, Scale
from voxlate.images.mask import clearest, foreground
from voxlate.images.volume import Volume, content_hash, is_there, read_volume, unit_of
from voxlate.methods.method import Method
from voxlate.recipe import Recipe, Synthesis, check_synthesis, fixed_ranges, from_dict
from voxlate.scoring.network_units import stated_units
from voxlate.scoring.provenance import TAUGHT
from voxlate.synthesis.calls import PatchProgress
from voxlate.synthesis.draw import draw
from voxlate.synthesis.made import Made, Synthesised
from voxlate.synthesis.peaks import Peak, peak_of
from voxlate.synthesis.trusted import Trusted, lattice_of, trusted
from voxlate.training.run import Run, file_hash, first_change, load_method, made_by, read_header
from voxlate.training.validate import find_device
from voxlate.trust.calibration import Calibration, Image, calibration_path, read_calibration
from voxlate.trust.unfamiliar import Patches, patches_of, verdict_on

Scan = Volume | Path | str | nib.spatialimages.SpatialImage | tuple[np.ndarray, np.ndarray]
Answer = Literal["mean", "sample"]
UNLIKE_VOXELS = 1.5  # times as long or as short, along any axis
COST = ("network_calls", "seconds_per_slice", "device")  # measured, so no part of the plan


@dataclass(frozen=True)
class Ready:
    """A case as the network is given it; key: of its noise; files: where its scans were read from."""

    prepared: PreparedCase
    preparation: Preparation
    key: str
    files: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """A trained method with its recipe, scales and units: makes images in physical units from scans."""

    method: Method
    recipe: Recipe
    header: Mapping[str, Any]
    device: torch.device
    origin: Path
    calibrations: Path | None = None  # the folder where they are; None: images have no intervals

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
        if synth.samples > 1 and not self.recipe.method.draws:
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
        scans: Mapping[str, Scan],
        *,
        case: str = "case",
        seed: int = 0,
        progress: PatchProgress | None = None,
        **options: Any,
    ) -> Synthesised:
        """Make the model's target modalities from scans {modality: scan}; "mask": a mask, which wins.

        A scan is a path, a Volume, a nibabel image, or a pair of an array [x, y, z] and its affine (to RAS mm).

        The scans are resampled, registered, aligned and masked as those of the training were; the images come on the
        grid of the first source's own file. case: for messages and provenance; noise goes by the seed and the scans'
        voxels. options: as in the recipe's
        [synth] (samples, steps, ...). Raises BadInput where a scan is missing, or scans do not fit together.
        """
        model = self.with_options(**options)
        ready = model.ready(scans, case)
        calibration, notes = model.calibration(), list(ready.notes)
        notes += [said] if (said := model.uncalibrated()) else []
        begun = time.monotonic()
        images, calls = model.draw(ready, seed, progress, calibration)
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        cost = dict(zip(COST, (calls, (time.monotonic() - begun) / ready.prepared.header.shape[0], where)))
        notes += [said for name, one in images.items() if one.peak is not None and (said := one.peak.note(name))]

        lattice = lattice_of(ready.prepared, model.recipe.data.axes)

        def written(values: Mapping[str, np.ndarray]) -> dict[str, Volume]:
            return {name: lattice.written(one, name, model.header["units"][name]) for name, one in values.items()}

        said_of, verdict = Trusted({}, {}, {}), None
        if calibration is not None:
            sources = model.sources(ready.prepared)
            said_of = trusted(calibration, images, sources, lattice, model.header["units"])
            if calibration.memory is not None:
                verdict = verdict_on(calibration.memory, model.patches(ready.prepared, sources))
                notes += [verdict.sentence] if verdict.flagged else []
        slopes = {
            name: {"median": round(one.peak.middle, 4), "slope": round(one.peak.slope, 4)}
            for name, one in images.items()
            if one.peak is not None
        }
        targets = model.recipe.data.target
        provenance = {
            **made_by(),
            "case": case,
            **model.plan(ready.files, seed),
            **cost,
            "prepared": model.record(ready.preparation, ready.prepared),
            "network_units": stated_units(
                {name: model.recipe.intensity[name] for name in targets}, model.header["target_scales"]
            ),
            **({"peaks": slopes} if slopes else {}),
            **({"bounds": said_of.bounds} if any(said_of.bounds.values()) else {}),
            **({} if verdict is None else {"familiar": verdict.stated}),
            **({TAUGHT: True} if calibration is not None and calibration.learned_from(ready.files) else {}),
            **({"warnings": notes} if notes else {}),
            **({"bound": self.header["bound"]} if "bound" in self.header else {}),
        }
        spread = {name: one.physical_sd for name, one in images.items() if one.physical_sd is not None}
        return Synthesised(
            written({name: one.values for name, one in images.items()}),
            written(spread),
            provenance,
            model.mark,
            said_of.low,
            said_of.high,
            {} if verdict is None else written(dict.fromkeys(images, verdict.map(ready.prepared.header.shape))),
        )

    def ready(self, scans: Mapping[str, Scan], case: str) -> "Ready":
        """A case's scans as the network is given them, with what is to be said of them."""
        self.check_names(scans, case)
        volumes = {name: _read(scans[name], name) for name in self.scan_names if name in scans}
        files = {name: volume.origin for name, volume in volumes.items()}
        mask = volumes.pop(MASK, None)
        key = _voxels_key(volumes.values())
        preparation = self.preparation_for(volumes)
        prepared = prepare_case(case, volumes, preparation, mask=mask, masked=self.recipe.needs_mask)
        notes = self.check_scans(prepared, case)
        if mask is None and self.recipe.needs_mask and preparation.mask_from != self.preparation.mask_from:
            usual = self.preparation.mask_from
            notes.append(f"The brain was found in {preparation.mask_from}, not in {usual} as in training (missing).")
        if not self.recipe.method.makes_targets:
            made = " and ".join(self.recipe.data.target)
            notes.append(
                f"{made} is reconstructed from itself: the bound of models with this autoencoder, no synthesis."
            )
        widths = self.header.get("target_widths", {})
        notes += [sentence for name in self.made_of(files) if (sentence := varied_level(name, widths.get(name, ())))]
        # from here on as the network sees it; its affine leads the images back
        return Ready(laid_out(prepared, self.recipe.data.axes), preparation, key, files, tuple(notes))

    def draw(
        self,
        ready: "Ready",
        seed: int,
        progress: PatchProgress | None = None,
        calibration: Calibration | None = None,
        outer: float | None = None,
    ) -> tuple[dict[str, "Made"], float]:
        """The images of a case on the grid that the network works on, and evaluations of the network for each sample.

        calibration: whose intervals are wanted; outer: see draw.draw.
        """
        if calibration and any(one.way == "quantiles" for one in calibration.header.targets.values()):
            outer = 1 - calibration.header.coverage
        drawn, images = draw(self, ready.prepared, ready.key, seed, progress, outer), dict[str, Made]()
        for channel, name in enumerate(self.recipe.data.target):
            if name not in self.made_of(ready.files):
                continue
            scale = Scale(*self.header["target_scales"][name])
            parts = (drawn.mean, drawn.sd, drawn.low, drawn.high)
            mean, sd, low, high = (None if one is None else one[channel] for one in parts)
            assert mean is not None
            values, half = scale.inverse(mean), np.float32((scale.high - scale.low) / 2)
            if (peak := self._peak(values, name, scale, ready.prepared)) is not None:
                sd = None if sd is None else peak.stretch_sd(sd * half, values) / half
                low, high = (None if one is None else scale.of(peak.stretch(scale.inverse(one))) for one in (low, high))
                values = peak.stretch(values)
            images[name] = Made(values, Image(scale.of(values), sd, low, high), scale, peak)
        return images, drawn.calls

    def sources(self, prepared: PreparedCase) -> list[np.ndarray]:
        """The sources [D, H, W] of a case in network units; one that it lacks is background."""
        found = []
        for name in self.recipe.data.source:
            if name in prepared.header.shown:
                scale = self.recipe.intensity[name].scale(prepared.header.statistics[name])
                found.append(scale.forward(prepared.volume(name).data[0]))
            else:
                found.append(np.full(prepared.header.shape, BACKGROUND, np.float32))
        return found

    def patches(self, prepared: PreparedCase, sources: Sequence[np.ndarray]) -> Patches:
        """What a case's scans show, to be compared with those that a calibration knows."""
        shown = [name for name in self.recipe.data.source if name in prepared.header.shown]
        body = np.logical_or.reduce([foreground(prepared.volume(name)) for name in shown])
        return patches_of(sources, body, prepared.header.spacing_mm)

    def calibration(self) -> Calibration | None:
        """What held-back patients taught about images drawn like these, where the run has it and it is wanted.

        Raises BadInput where it is of other weights, of images drawn otherwise, or of another number of samples than
        was asked for.
        """
        if self.calibrations is None:
            return None
        path = self.calibration_file
        if not path.is_file():
            usual, own = (self.header["recipe"].get("synth") or {}).get("samples", 1), self.recipe.synth.samples
            if own == usual or not self._calibrated_for():
                return None
            what = f"{own} samples, found one of {self._calibrated_for()} samples"
        else:
            found = calibration_of(path, path.stat().st_mtime_ns)
            if found.header.weights != self.header["weights_hash"]:
                what = f"these weights ({self.header['weights_hash']}), found one of others ({found.header.weights})"
            elif change := first_change(found.header.synth, self.plan_of_synthesis):
                what = f"images drawn as these are, found one of others ({change})"
            else:
                return found
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
        return "sample" if self.recipe.method.draws else "mean"

    @property
    def calibration_file(self) -> Path:
        """Where a calibration of this answer, with so many samples, lies."""
        if self.calibrations is None:
            raise BadInput(
                f"{self.origin}: expected a run that is read from a folder, found one without. Load it again."
            )
        return calibration_path(self.calibrations, self.answer, self.recipe.synth.samples)

    @property
    def plan_of_synthesis(self) -> dict[str, Any]:
        """The options that decide how images are drawn, as plain values; the batch changes nothing."""
        options = {key: value for key, value in vars(self.recipe.synth).items() if key != "batch"}
        plain: dict[str, Any] = json.loads(adapter(dict[str, Any]).dump_json(options))
        return plain

    def check_scans(self, prepared: PreparedCase, case: str) -> list[str]:
        """Sentences on guesses and on scans unlike the training's; raises BadInput for one that shows nothing."""
        notes = []
        for name, statistics in prepared.header.statistics.items():
            if statistics.blank:
                found = f"every voxel {statistics.all.at(0):g}"
                raise BadInput(f"{case}: expected {name} to show something, found {found}. Check the scan.")
            check_floor(name, self.recipe.intensity[name], prepared.header, case)
            notes += [f"{name}: {guess}" for guess in prepared.header.origins[name].guesses]
            ranges = self.header.get("training_ranges", {})
            notes.append(unfamiliar(name, statistics, self.recipe.intensity[name], ranges))
        notes.append(self._other_voxels(prepared))
        return [note for note in notes if note]

    def _other_voxels(self, prepared: PreparedCase) -> str:
        """A sentence where voxels are of quite another size than in training, and nothing resamples them; else ''."""
        trained, here = self.header.get("training_spacing_mm"), prepared.header.spacing_mm
        if not trained or self.preparation.spacing_mm:
            return ""
        if max(max(a / b, b / a) for a, b in zip(trained, here)) <= UNLIKE_VOXELS:
            return ""
        mm = " x ".join(f"{one:.3g}" for one in here), " x ".join(f"{one:.3g}" for one in trained)
        return (
            f"Voxels are {mm[0]} mm (z, y, x), where those of the training were {mm[1]} mm: anatomy has another size "
            "to the network. Resample the scan, or do not trust the image."
        )

    def check_names(self, scans: Collection[str], case: str) -> None:
        """Raise BadInput where modalities that the model needs are not among a case's scans."""
        sources = self.recipe.data.source
        known = (*sources, *self.recipe.data.target, MASK)
        if unknown := sorted(set(scans) - set(known)):
            raise BadInput(
                f"{case}: expected scans of {', '.join(dict.fromkeys(known))}, found '{unknown[0]}'. Choose one of "
                "these names, or leave it out."
            )
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
        return [f"{self.mark}{name}.nii.gz" for name in self.made_of(scans)]

    def made_of(self, scans: Collection[str]) -> list[str]:
        """The modalities that are made of a case with these scans: the targets, of a completion those that it lacks."""
        completes = self.recipe.task.completes
        return [name for name in self.recipe.data.target if not (completes and name in scans)]

    @property
    def mark(self) -> str:
        """What names of files begin with: images that complete a case lie with scans of the same names."""
        return SYNTHETIC if self.recipe.task.completes else ""

    @property
    def scan_names(self) -> tuple[str, ...]:
        """The files of a case that are read: the sources, and a mask where the method works inside one."""
        return (*self.recipe.data.source, *([MASK] if self.recipe.needs_mask else []))

    @property
    def preparation(self) -> Preparation:
        """How the training's cases came to one grid and to their mask."""
        if "preparation" in self.header:
            return adapter(Preparation).validate_python(self.header["preparation"])
        header = self.header  # weights from before this key was written
        spacing, brain_from = header.get("spacing_mm"), header.get("brain_from")
        return Preparation(
            spacing_mm=tuple(spacing) if spacing else None,
            fixed=header.get("align_by"),
            align=header.get("align"),
            mask="body" if brain_from is None else "brain",
            mask_from=brain_from,
        )

    def preparation_for(self, scans: Mapping[str, Volume]) -> Preparation:
        """The training's; a missing fixed scan is replaced by the first source, that of the brain by the clearest."""
        trained, spacing = self.preparation, self.header.get("training_spacing_mm")
        if trained.mask == "brain" and trained.mask_from not in scans:
            trained = replace(trained, mask_from=clearest({name: scan.unit for name, scan in scans.items()}))
        if trained.fixed in scans:
            return trained
        if trained.fixed is not None and (trained.resample or trained.register) and spacing:
            trained = replace(trained, spacing_mm=trained.spacing_mm or tuple(spacing))  # the fixed scan's, in training
        return replace(trained, fixed=next(iter(scans)))

    def record(self, used: Preparation, prepared: PreparedCase) -> dict[str, Any]:
        """How a case was prepared, for its provenance."""
        fixed, moves = self.preparation.fixed, used.resample or used.register or used.align
        note = f"{used.fixed} in place of the training's {fixed}, which is no scan of this case"
        registered = prepared.header.registered.items()
        return {
            **asdict(used),
            **({"on_grid_of": used.fixed} if used.register else {}),
            **({"grid_of": note} if moves and fixed not in (None, used.fixed) else {}),
            "registered": {name: asdict(replace(one, transform="")) for name, one in registered},
        }

    def _peak(self, values: np.ndarray, name: str, scale: Scale, prepared: PreparedCase) -> Peak | None:
        """How the bright end of an image [D, H, W] is corrected, where options ask for it and its scale is its own."""
        spec = self.recipe.intensity[name]
        if not (self.recipe.synth.peaks and isinstance(spec, Percentile)):
            return None
        made = Volume(values[None], np.array(prepared.header.affine), self.header["units"][name], name)
        return peak_of(made, spec, scale, float(self.header.get("training_ml") or 0))

    def plan(self, files: Mapping[str, Path | str], seed: int) -> dict[str, Any]:
        """All that decides a case's images: model, options, seed, inputs' content; equal plans give equal images."""
        recipe = self.recipe
        calibration = self.calibration()
        plan = {
            "model": {"title": recipe.title, "weights": self.header["weights_hash"], "steps": self.header["steps"]},
            "seed": seed,
            "synth": self.plan_of_synthesis,
            **({} if calibration is None else {"calibration": calibration.stated}),
            "inputs": {name: _stated(Path(path)) for name, path in sorted(files.items())},
            "units": self.header["units"],
            "axes": recipe.data.axes,
            "range": {name: window for name, window in fixed_ranges(recipe).items() if name in recipe.data.target},
        }
        plain: dict[str, Any] = json.loads(adapter(dict[str, Any]).dump_json(plan))
        return plain


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
    for name in (*recipe.data.source, *recipe.data.target, *(stage.name for stage in recipe.stages)):
        safe_name(name, f"{path} (header)")  # they become names of files
    if not recipe.method.makes_targets:  # an autoencoder alone: it is given what it reconstructs
        recipe = replace(recipe, data=replace(recipe.data, source=recipe.data.target, stack=0))
    weights = path / "weights.safetensors" if path.is_dir() else path
    where = find_device(device)
    origin = path.resolve()
    folder = origin if origin.is_dir() else origin.parent
    return Model(method.to(where), recipe, {**header, "weights_hash": file_hash(weights)}, where, origin, folder)


def _answering(path: Path, answer: Answer | None, allow_code: bool) -> Path:
    """The run itself, or the weights of the stage that gives the answer which is asked for."""
    weights = Run(path).weights() if path.is_dir() else path
    if answer is None or not weights.exists():
        return path
    if answer not in get_args(Answer):
        raise BadInput(f"answer: expected 'mean' or 'sample', found {answer!r}. Choose one of these.")
    recipe = from_dict(read_header(weights)["recipe"], f"{weights} (header)", allow_code)
    if answer == "sample" and not recipe.method.draws:
        raise BadInput(
            f"{path}: expected a model that draws samples for the answer 'sample', found '{recipe.title}', which makes "
            "one image of a case. Ask for the answer 'mean', or for none."
        )
    if answer == "sample" or not recipe.method.draws:
        return path
    if (stage := recipe.task.mean_stage) is None:
        raise BadInput(
            f"{path}: expected a model with a predictor for the answer 'mean', found '{recipe.title}', which has none. "
            "Take the mean of its samples instead: --samples 10 (in Python: samples=10)."
        )
    return Run(path if path.is_dir() else path.parent).weights(stage)


def _voxels_key(scans: Iterable[Volume]) -> str:
    """What scans show and where: the same patient has the same noise, whatever the case and its files are called."""
    digest = hashlib.sha256()
    for scan in scans:
        in_ras = canonical(scan)
        digest.update(repr((in_ras.data.shape, (np.round(in_ras.affine, 3) + 0.0).tolist())).encode())
        digest.update(np.ascontiguousarray(in_ras.data).data)
    return digest.hexdigest()


def _stated(path: Path) -> dict[str, str]:
    """An input's content; where it lies is stated by those who write the image."""
    return {"sha256": content_hash(path)} if is_there(path) else {}


def _read(scan: Scan, modality: str) -> Volume:
    if isinstance(scan, Volume):
        return scan
    if isinstance(scan, str | Path):
        return read_volume(Path(scan), modality)
    if (isinstance(scan, tuple) and len(scan) != 2) or not isinstance(scan, tuple | nib.spatialimages.SpatialImage):
        raise BadInput(
            f"{modality}: expected a path, a Volume, a nibabel image, or a pair of an array [x, y, z] and its affine, "
            f"found {type(scan).__name__}. Give one of these."
        )
    array, affine = (scan.dataobj, scan.affine) if isinstance(scan, nib.spatialimages.SpatialImage) else scan
    values = np.asarray(array, np.float32)
    if values.ndim != 3 or not np.isfinite(values).all():
        found = f"the shape {values.shape}" if values.ndim != 3 else "values that are not"
        raise BadInput(f"{modality}: expected an array [x, y, z] of finite values, found {found}. Change it.")
    return Volume(values.T[None].copy(), check_affine(np.asarray(affine), modality), unit_of(modality), modality)
