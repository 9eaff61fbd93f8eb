"""Synthesis of a case by a trained model: images on the scans' own grid, in physical units, with their spread."""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import nibabel as nib
import numpy as np
import torch
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn.functional import pad

from voxlate.batch import BACKGROUND, Batch, stable_id
from voxlate.config import fill
from voxlate.data.align import Preparation
from voxlate.data.batches import collate
from voxlate.data.case import MASK, PreparedCase, prepare_case, resize_case
from voxlate.data.familiar import check_floor, unfamiliar, varied_level
from voxlate.data.layout import laid_out
from voxlate.data.patches import read_patch
from voxlate.diffusion.noise import Noise, Tile
from voxlate.errors import BadInput
from voxlate.files import SYNTHETIC, safe_name
from voxlate.images.grid import canonical, check_affine, return_to
from voxlate.images.intensity import Percentile, Scale
from voxlate.images.mask import clearest
from voxlate.images.pictures import Plane, pixel_mm, plane_of, shades, square_pixels
from voxlate.images.tiling import (
    Blend,
    SlicePlan,
    Triple,
    Whole,
    fit_to_mask,
    varied_slices,
    whole_slices,
    whole_volume,
    zoomed,
)
from voxlate.images.volume import SYNTHETIC_SCAN, Volume, content_hash, is_there, read_volume, unit_of, write_volume
from voxlate.learning import evaluations
from voxlate.methods.method import Method
from voxlate.recipe import Recipe, Synthesis, check_synthesis, fixed_ranges, from_dict
from voxlate.scoring.network_units import stated_units
from voxlate.synthesis.calls import PatchProgress, count_calls
from voxlate.synthesis.peaks import Peak, peak_of
from voxlate.synthesis.written import write_images
from voxlate.training.run import Run, file_hash, load_method, made_by, read_header
from voxlate.training.validate import autocast, find_device

Scan = Volume | Path | str | nib.spatialimages.SpatialImage | tuple[np.ndarray, np.ndarray]
Answer = Literal["mean", "sample"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
COST = ("network_calls", "seconds_per_slice", "device")  # measured, so no part of the plan


@dataclass(frozen=True)
class Synthesised:
    """Mean of the samples for each modality, its standard deviation where samples > 1, and how it was made.

    mark: what file names begin with, where scans may bear the same names.
    """

    volumes: dict[str, Volume]
    std: dict[str, Volume]
    provenance: dict[str, Any]
    mark: str = ""

    @property
    def files(self) -> dict[str, Volume]:
        """All images by the name of their file, without its suffix."""
        spreads = {f"{name}_std": one for name, one in self.std.items()}
        return {f"{self.mark}{name}": one for name, one in {**self.volumes, **spreads}.items()}

    def __repr__(self) -> str:
        images = ", ".join(f"{name} {one.grid} in {one.unit}" for name, one in self.volumes.items())
        return f"Synthesised({images}{', with standard deviation' if self.std else ''})"

    @property
    def volume(self) -> Volume:
        """The image of a model that makes one modality."""
        (volume,) = self.volumes.values()
        return volume

    def to_nifti(self, modality: str | None = None) -> nib.nifti1.Nifti1Image:
        """An image as nibabel's, indexed [x, y, z]; modality: which one, where there are several."""
        volume = self.volume if modality is None else self.volumes[modality]
        return nib.nifti1.Nifti1Image(volume.data[0].T, volume.affine)

    def save(self, folder: Path | str) -> list[Path]:
        """Write FOLDER/<modality>.nii.gz, <modality>_std.nii.gz and provenance.json; gives the images' paths."""
        self.write(Path(folder))
        return [Path(folder) / f"{name}.nii.gz" for name in self.files]

    def write(self, folder: Path, suffixes: Sequence[str] = (".nii.gz",)) -> list[str]:
        """Write each image with each suffix, and provenance.json, which lists them; gives what is removed for them."""
        files = {f"{name}{suffix}": volume for name, volume in self.files.items() for suffix in suffixes}
        images = {name: partial(write_volume, volume=one, what=SYNTHETIC_SCAN) for name, one in files.items()}
        return write_images(folder, images, self.provenance)

    def show(self) -> Image.Image:
        """The middle axial, coronal and sagittal slice of each image as one picture, which notebooks draw."""
        rows = []
        for volume in map(canonical, self.volumes.values()):
            low, high = np.percentile(volume.data, (0.5, 99.5))
            planes = [plane_of(volume.data[0], one, volume.data.shape[1 + k] // 2) for k, one in enumerate(PLANES)]
            pixels = [pixel_mm(volume.grid.spacing_mm, one) for one in PLANES]
            row = [square_pixels(shades(one, low, max(high, low + 1e-6)), size) for one, size in zip(planes, pixels)]
            tall = max(len(one) for one in row)
            rows.append(np.concatenate([np.pad(one, ((0, tall - len(one)), (0, 0))) for one in row], axis=1))
        wide = max(row.shape[1] for row in rows)
        return Image.fromarray(np.concatenate([np.pad(row, ((0, 0), (0, wide - row.shape[1]))) for row in rows]))


@dataclass(frozen=True)
class Model:
    """A trained method with its recipe, scales and units: makes images in physical units from scans."""

    method: Method
    recipe: Recipe
    header: Mapping[str, Any]
    device: torch.device
    origin: Path

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
        model.check_names(scans, case)
        volumes = {name: _read(scans[name], name) for name in model.scan_names if name in scans}
        files = {name: volume.origin for name, volume in volumes.items()}
        mask = volumes.pop(MASK, None)
        key = _voxels_key(volumes.values())
        preparation = model.preparation_for(volumes)
        prepared = prepare_case(case, volumes, preparation, mask=mask, masked=model.recipe.needs_mask)
        notes = model.check_scans(prepared, case)
        if mask is None and model.recipe.needs_mask and preparation.mask_from != model.preparation.mask_from:
            usual = model.preparation.mask_from
            notes.append(f"The brain was found in {preparation.mask_from}, not in {usual} as in training (missing).")
        if not model.recipe.method.makes_targets:
            made = " and ".join(model.recipe.data.target)
            notes.append(
                f"{made} is reconstructed from itself: the bound of models with this autoencoder, no synthesis."
            )
        widths = model.header.get("target_widths", {})
        notes += [sentence for name in model.made_of(files) if (sentence := varied_level(name, widths.get(name, ())))]
        prepared = laid_out(prepared, model.recipe.data.axes)  # from here on; its affine leads the images back
        volumes.clear()
        begun = time.monotonic()
        mean, spread, calls = _run(model, prepared, key, seed, progress)
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        cost = dict(zip(COST, (calls, (time.monotonic() - begun) / prepared.header.shape[0], where)))
        _check_finite(case, mean, spread)
        result, std, peaks = dict[str, Volume](), dict[str, Volume](), dict[str, dict[str, float]]()
        for channel, name in enumerate(model.recipe.data.target):
            if name not in model.made_of(files):
                continue
            scale = Scale(*model.header["target_scales"][name])
            values = scale.inverse(mean[channel])
            sd = None if spread is None else spread[channel] * ((scale.high - scale.low) / 2)
            if (peak := model._peak(values, name, scale, prepared)) is not None:
                values, sd = peak.stretch(values), None if sd is None else peak.stretch_sd(sd, values)
                peaks[name] = {"median": round(peak.middle, 4), "slope": round(peak.slope, 4)}
                notes += [said] if (said := peak.note(name)) else []
            result[name] = model._on_own_grid(values, name, prepared)
            if sd is not None:
                std[name] = model._on_own_grid(sd, name, prepared)
        provenance = {
            **made_by(),
            "case": case,
            **model.plan(files, seed),
            **cost,
            "prepared": model.record(preparation, prepared),
            "network_units": stated_units(
                {name: model.recipe.intensity[name] for name in model.recipe.data.target}, model.header["target_scales"]
            ),
            **({"peaks": peaks} if peaks else {}),
            **({"warnings": notes} if notes else {}),
            **({"bound": self.header["bound"]} if "bound" in self.header else {}),
        }
        return Synthesised(result, std, provenance, model.mark)

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
        return [note for note in notes if note]

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
            return TypeAdapter(Preparation).validate_python(self.header["preparation"])
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
        return peak_of(made, spec, scale)

    def _on_own_grid(self, values: np.ndarray, modality: str, prepared: PreparedCase) -> Volume:
        """Values [D, H, W] in physical units, on the grid of the first source's own file, or of the fixed scan's."""
        grid, origins = np.array(prepared.header.affine), prepared.header.origins
        # where scans were registered, the image lies in the frame of the one that they were registered to
        fixed = [one.to for one in prepared.header.registered.values() if one.kept != "none"]
        first = origins[fixed[0]] if fixed else next(iter(origins.values()))
        made = Volume(values[None].astype(np.float32, copy=False), grid, self.header["units"][modality], modality)
        return return_to(made, first.grid)

    def plan(self, files: Mapping[str, Path | str], seed: int) -> dict[str, Any]:
        """All that decides a case's images: model, options, seed, inputs' content; equal plans give equal images."""
        recipe = self.recipe
        options = {key: value for key, value in vars(recipe.synth).items() if key != "batch"}  # batch changes nothing
        plan = {
            "model": {"title": recipe.title, "weights": self.header["weights_hash"], "steps": self.header["steps"]},
            "seed": seed,
            "synth": options,
            "inputs": {name: _stated(Path(path)) for name, path in sorted(files.items())},
            "units": self.header["units"],
            "axes": recipe.data.axes,
            "range": {name: window for name, window in fixed_ranges(recipe).items() if name in recipe.data.target},
        }
        plain: dict[str, Any] = json.loads(TypeAdapter(dict[str, Any]).dump_json(plan))
        return plain


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
    return Model(method.to(where), recipe, {**header, "weights_hash": file_hash(weights)}, where, path.resolve())


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


def _run(
    model: Model, prepared: PreparedCase, key: str, seed: int, progress: PatchProgress | None
) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Mean and standard deviation [T, D, H, W] in network units, a few slices or one patch at a time.

    Last: evaluations of the network for each sample of a slice or patch.
    """
    synth, data = model.recipe.synth, model.recipe.data
    plan, prepared = _plan(model, prepared)
    starts, count = plan.starts(), len(data.target)
    blend = Blend(plan.output_tiling, [BACKGROUND] * count + [0.0] * (count if synth.samples > 1 else 0))
    with count_calls(model.method.net, _progress_in_windows(model, plan, progress)) as calls:
        size = 1 if synth.exact else synth.batch
        for begin in range(0, len(starts), size):
            chosen = starts[begin : begin + size]
            places = [plan.place(start) for start in chosen]
            patches = [read_patch(prepared, data, model.recipe.intensity, *plan.patch_at(start)) for start in chosen]
            streams = [
                [_streams(synth, key, place[0] + d, prepared.header.spacing_mm[0]) for d in range(len(patch.items))]
                for place, patch in zip(places, patches)
            ]
            noise = partial(Noise, seed, streams, tiles=_noise_tiles(plan, chosen))
            for place, image in zip(places, _mean_and_sd(model, collate(data, patches), noise, plan)):
                blend.add(image, place)
            if progress and synth.windows is None:
                progress(begin + len(chosen), len(starts))
    done = blend.result()
    each = calls.count / max(1, len(starts) * synth.samples)
    return done[:count], done[count:] if synth.samples > 1 else None, each


def _progress_in_windows(model: Model, plan: SlicePlan, progress: PatchProgress | None) -> Callable[[int], None] | None:
    """Turns evaluations of the network into slices done, where a whole volume is one item; None elsewhere."""
    synth, depth = model.recipe.synth, plan.input_tiling.shape[0]
    if progress is None or synth.windows is None:
        return None
    mirrored = 2 if synth.mirror else 1
    wanted = evaluations(synth) * len(synth.windows.slices(depth)) * synth.samples * mirrored
    return lambda count: progress(min(depth, int(depth * count / wanted)), depth)


def _plan(model: Model, prepared: PreparedCase) -> tuple[SlicePlan, PreparedCase]:
    """Which patches the network sees, and the case that they are read from: resized, where the options say so."""
    recipe, shape = model.recipe, prepared.header.shape
    slices = recipe.synth.slices
    if recipe.synth.windows is not None:
        if slices != Whole():
            raise BadInput(
                f"synth.windows: expected synth.slices of kind 'whole' without a crop, found {slices}. "
                "Drop one of the two."
            )
        return whole_volume(shape), prepared
    plan = slices.plan(shape, recipe.data.patch, recipe.synth.overlap)
    if slices.resize_to is not None:
        first, last = varied_slices([prepared.arrays[name][:] for name in prepared.header.present])
        plan = replace(plan, input_tiling=whole_slices((last - first, *slices.resize_to)), first=first)
        if last == first:
            return plan, prepared
        prepared = resize_case(prepared, slices.resize_to, (first, last))
    mask = prepared.mask(recipe.data.source) if recipe.ignores_outside else None
    sides = [stage.net.multiple for stage in recipe.all_stages]
    return fit_to_mask(plan, mask, max(sides), recipe.data.centred, slices.crop, recipe.data.patch[1:]), prepared


def _noise_tiles(plan: SlicePlan, starts: list[Triple]) -> list[Tile] | None:
    """Which part of the slices' noise each tile has; None for whole slices, whatever their margins."""
    (_, *plane), (_, *size) = plan.input_tiling.shape, plan.input_tiling.patch
    if all(length >= whole for length, whole in zip(size, plane)):
        return None
    return [Tile((y, x), (size[0], size[1]), (plane[0], plane[1])) for _, y, x in starts]


def _voxels_key(scans: Iterable[Volume]) -> str:
    """What scans show and where: the same patient has the same noise, whatever the case and its files are called."""
    digest = hashlib.sha256()
    for scan in scans:
        in_ras = canonical(scan)
        digest.update(repr((in_ras.data.shape, (np.round(in_ras.affine, 3) + 0.0).tolist())).encode())
        digest.update(np.ascontiguousarray(in_ras.data).data)
    return digest.hexdigest()


def _streams(synth: Synthesis, key: str, z: int, spacing_mm: float) -> dict[int, float]:
    """The noise streams that a slice draws from, with their weights; tiles of a slice share them."""
    return {stable_id(key, other, 0, 0): weight for other, weight in synth.noise.streams(z, spacing_mm).items()}


def _mean_and_sd(model: Model, batch: Batch, noise: Callable[[int], Noise], plan: SlicePlan) -> np.ndarray:
    """Mean and, where there are several samples, standard deviation (ddof = 1): [B, T or 2T, D, H, W]."""
    synth: Synthesis = model.recipe.synth
    batch = batch.to(model.device)
    mean, squares = torch.zeros(()), torch.zeros(())
    for sample in range(synth.samples):
        image = _one_sample(model, batch, noise(sample), plan)
        step = image - mean
        mean = mean + step / (sample + 1)
        squares = squares + step * (image - mean)  # Welford 1962
    parts = [mean] if synth.samples == 1 else [mean, (squares / (synth.samples - 1)).sqrt()]
    made: np.ndarray = torch.cat(parts, dim=1).cpu().numpy()
    return made


def _one_sample(model: Model, batch: Batch, noise: Noise, plan: SlicePlan) -> Tensor:
    """One sample [B, T, D, H, W] at the volume's resolution; clipped after resizing, because splines overshoot."""
    synth = model.recipe.synth
    precision = "float32" if synth.exact else synth.precision or model.recipe.train.precision
    with torch.inference_mode(), autocast(model.device, precision):
        image = model.method.synthesise(batch, noise, synth).float()
        if synth.mirror:
            axis = model.recipe.data.left_right
            flipped = replace(batch, source=batch.source.flip(axis), mask=batch.mask.flip(axis))
            image = (image + model.method.synthesise(flipped, noise, synth).float().flip(axis)) / 2
    image = pad(image, [-margin for margin in plan.margins], value=BACKGROUND)
    if plan.resized:
        image = torch.from_numpy(zoomed(image.cpu().numpy(), plan.output_tiling.patch[1:]))
    return image.clamp(-1, 1)


def _stated(path: Path) -> dict[str, str]:
    """An input's content; where it lies is stated by those who write the image."""
    return {"sha256": content_hash(path)} if is_there(path) else {}


def _check_finite(case: str, *images: np.ndarray | None) -> None:
    for image in images:
        if image is not None and not np.isfinite(image).all():
            raise BadInput(
                f"{case}: expected an image of finite values, found {int((~np.isfinite(image)).sum())} of {image.size} "
                "that are not: nothing is written. Choose another sampler or more steps, or train again."
            )


def _read(scan: Scan, modality: str) -> Volume:
    if isinstance(scan, Volume):
        return scan
    if isinstance(scan, str | Path):
        return read_volume(Path(scan), modality)
    array, affine = (scan.dataobj, scan.affine) if isinstance(scan, nib.spatialimages.SpatialImage) else scan
    values = np.asarray(array, np.float32)
    if values.ndim != 3 or not np.isfinite(values).all():
        found = f"the shape {values.shape}" if values.ndim != 3 else "values that are not"
        raise BadInput(f"{modality}: expected an array [x, y, z] of finite values, found {found}. Change it.")
    return Volume(values.T[None].copy(), check_affine(np.asarray(affine), modality), unit_of(modality), modality)
