"""From a trained model and a patient's scans to images on the scans' own grid, in physical units, with their spread."""

import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn.functional import pad

from voxlate.batch import BACKGROUND, Batch, stable_id
from voxlate.config import fill
from voxlate.data.prepared import MASK
from voxlate.diffusion.noise import Noise
from voxlate.errors import BadInput
from voxlate.images.frames import without_frame
from voxlate.images.grid import Grid, canonical, resample, return_to, same_grid, with_spacing
from voxlate.images.intensity import Scale
from voxlate.images.mask import brain
from voxlate.images.midline import midline_grid
from voxlate.images.tiling import Blend, Triple
from voxlate.images.views import Resized, View, resize, view, zoomed
from voxlate.images.volume import Volume, read_volume
from voxlate.methods.method import Method
from voxlate.recipe import Recipe, Synthesis, check_synthesis, fixed_ranges
from voxlate.synthesis.calls import counted
from voxlate.synthesis.inputs import Inputs
from voxlate.training.run import file_hash, load_method, made_by
from voxlate.training.validate import autocast, find_device

Progress = Callable[[int, int], None]
Physical = Callable[[np.ndarray], np.ndarray]  # from network units
EFFORT = ("network_calls", "seconds_per_slice", "device")  # what a synthesis took: no part of its plan


@dataclass(frozen=True)
class Synthesised:
    """Mean of the samples for each modality, its standard deviation where samples > 1, and how it was made."""

    volumes: dict[str, Volume]
    std: dict[str, Volume]
    provenance: dict[str, Any]

    @property
    def volume(self) -> Volume:
        """The image of a model that makes one modality."""
        (volume,) = self.volumes.values()
        return volume


@dataclass(frozen=True)
class Model:
    """A trained method with everything it needs to read scans and to give images in physical units."""

    method: Method
    recipe: Recipe
    header: Mapping[str, Any]
    device: torch.device
    origin: Path

    def with_options(self, **changes: Any) -> "Model":
        """The same model with other synthesis options (sampler, steps, samples, ...); None keeps the recipe's.

        Raises BadInput for an unknown option, a value out of range, slices of a kind that the model has not, and a
        sampler that does not fit the schedule.
        """
        chosen = {name: value for name, value in changes.items() if value is not None}
        synth = fill(Synthesis, {**vars(self.recipe.synth), **chosen}, "synthesis options")
        recipe = replace(self.recipe, synth=synth)
        check_synthesis(recipe)
        return replace(self, recipe=recipe)

    def drawn_like(self, other: Recipe) -> "Model":
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
        scans: Mapping[str, Volume | Path | str],
        *,
        case: str = "case",
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> Synthesised:
        """Make the model's target modalities from scans {modality: volume or path}; "mask": a mask file, which wins.

        case: names the noise streams, with the seed. options: as in the recipe's [synth] (samples, steps, ...).
        Raises BadInput where a scan is missing, or the scans lie on different grids.
        """
        model = self.with_options(**options)
        model.check_names(scans, case)
        volumes: dict[str, Volume] = {}
        grids: dict[str, Grid] = {}  # as the files have them
        frame: Grid | None = None  # of all scans, as `prepare` made it of the training's
        for name in sorted(set(model.shown) & set(scans), key=model._turn):
            scan = _read(scans[name], name)
            grids[scan.origin or name] = scan.grid
            turned = canonical(scan)
            frame = frame or model._frame(turned)
            volumes[name] = model._brought(name, turned, frame, given=MASK in scans)
        first = _one_grid(grids)
        wanted = model._wanted(volumes)
        grid = next(iter(volumes.values())).grid
        begun = time.monotonic()
        mean, spread, calls = _run(model, volumes, grid, case, seed, progress)
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        effort = dict(zip(EFFORT, (calls, (time.monotonic() - begun) / grid.shape[0], where)))
        result, std = dict[str, Volume](), dict[str, Volume]()
        for channel, name in enumerate(model.recipe.data.target):
            if name not in wanted:
                continue
            scale = Scale(*model.header["target_scales"][name])
            result[name] = model._returned(mean[channel], scale.inverse, name, grid, first)
            if spread is not None:
                half = (scale.high - scale.low) / 2
                std[name] = model._returned(spread[channel], partial(np.multiply, half), name, grid, first)
        files = {name: volume.origin for name, volume in volumes.items()}
        return Synthesised(result, std, {**made_by(), **model.plan(files, case, seed), **effort})

    def check_names(self, scans: Collection[str], case: str) -> None:
        """Raise BadInput where modalities that the model needs are not among a case's scans."""
        sources = self.recipe.data.source
        missing = [name for name in sources if name not in scans]
        completes = self.recipe.task.completes
        if len(missing) == len(sources) or (missing and not completes):
            raise BadInput(
                f"{case}: expected {' and '.join(sources)}, found {', '.join(sorted(scans)) or 'none of them'}. "
                f"Add {' and '.join(missing)}, or use a model for other modalities."
            )
        if completes and not missing:
            raise BadInput(
                f"{case}: expected a modality to be missing, found all of {', '.join(sources)}. "
                "Name one with --missing to make it anyway."
            )

    @property
    def shown(self) -> tuple[str, ...]:
        """What is read of a case's scans: the sources, and a mask where the method works inside one."""
        return (*self.recipe.data.source, *([MASK] if self.recipe.masked else []))

    def _wanted(self, volumes: Mapping[str, Volume]) -> list[str]:
        completes = self.recipe.task.completes
        return [name for name in self.recipe.data.target if not (completes and name in volumes)]

    def _frame(self, volume: Volume) -> Grid:
        """The grid that the method works on, from a case's first scan: aligned and with the spacing of its training."""
        spacing = self.header.get("spacing_mm")
        grid = midline_grid(volume) if self.header.get("align") == "midline" else volume.grid
        return with_spacing(grid, tuple(spacing)) if spacing else grid

    def _turn(self, name: str) -> tuple[bool, int]:
        """The order in which scans are read: first the one that training's heads were aligned by."""
        return name != self.header.get("align_by"), self.shown.index(name)

    def _brought(self, name: str, volume: Volume, frame: Grid, given: bool) -> Volume:
        """A scan on the method's grid; without a given mask, a cut head is refused before air is put around it."""
        if same_grid(volume.grid, frame):
            return volume
        if self.recipe.masked and not given and name == self.header.get("brain_from"):
            brain(volume)
        return resample(volume, frame, order=0 if name == MASK else 1)

    def _returned(self, values: np.ndarray, physical: Physical, modality: str, grid: Grid, to: Grid) -> Volume:
        """A channel of the blend, in physical units and on the grid of the scans."""
        return return_to(Volume(physical(values)[None], grid.affine, self.header["units"][modality], modality), to)

    def plan(self, files: Mapping[str, Path | str], case: str, seed: int) -> dict[str, Any]:
        """How a case's images will be made: model, options, seed, inputs; equal plans give equal images."""
        recipe = self.recipe
        options = {key: value for key, value in vars(recipe.synth).items() if key != "batch"}  # batch changes nothing
        plan = {
            "model": {"title": recipe.title, "weights": self.header["weights_hash"], "steps": self.header["steps"]},
            "run": str(self.origin),
            "case": case,
            "seed": seed,
            "synth": options,
            "inputs": {name: _input(Path(path)) for name, path in sorted(files.items())},
            "units": self.header["units"],
            "range": {name: window for name, window in fixed_ranges(recipe).items() if name in recipe.data.target},
        }
        plain: dict[str, Any] = json.loads(TypeAdapter(dict[str, Any]).dump_json(plan))
        return plain


def load(run: Path | str, device: str = "auto", allow_code: bool = False) -> Model:
    """Open a run folder or a weights file for synthesis; raises BadInput where it is none.

    allow_code: import the code outside voxlate that the model names, which is then run.
    """
    path = Path(run)
    method, recipe, header = load_method(path, allow_code)
    weights = path / "weights.safetensors" if path.is_dir() else path
    where = find_device(device)
    return Model(method.to(where), recipe, {**header, "weights_hash": file_hash(weights)}, where, path.resolve())


def _run(
    model: Model, volumes: dict[str, Volume], grid: Grid, case: str, seed: int, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Mean and standard deviation [T, D, H, W] in network units, a few slices or one patch at a time.

    Last: evaluations of the network for each sample of a slice or patch.
    """
    synth, data = model.recipe.synth, model.recipe.data
    if isinstance(synth.slices, Resized):
        volumes, sight = resize(volumes, synth.slices.size)
    else:
        sight = view(synth.slices, grid.shape, data.patch, synth.overlap)
    inputs, count = Inputs(model.recipe, volumes, model.header.get("brain_from")), len(data.target)
    sight = inputs.frame(sight)
    starts = sight.starts()
    blend = Blend(sight.drawn, (2 if synth.samples > 1 else 1) * count)
    with counted(model.method.net) as calls:
        for begin in range(0, len(starts), synth.batch):
            chosen = starts[begin : begin + synth.batch]
            batch = inputs.batch(sight.seen, chosen, [stable_id(case, *sight.place(start)) for start in chosen])
            streams = [_streams(synth, case, sight.place(start), grid.spacing_mm[0]) for start in chosen]
            for start, image in zip(chosen, _samples(model, batch, partial(Noise, seed, streams), sight)):
                blend.add(image, sight.place(start))
            if progress:
                progress(begin + len(chosen), len(starts))
    for z in sight.beside():
        blend.fill(z, [BACKGROUND] * count + [0.0] * count)
    done = blend.result()
    asked = calls.count / max(1, len(starts) * synth.samples)
    return done[:count], done[count:] if synth.samples > 1 else None, asked


def _streams(synth: Synthesis, case: str, place: Triple, spacing_mm: float) -> dict[int, float]:
    """The noise streams that a piece draws from, with their weights: those of the same place in some slices."""
    z, *plane = place
    return {stable_id(case, other, *plane): weight for other, weight in synth.noise.streams(z, spacing_mm).items()}


def _samples(model: Model, batch: Batch, noise: Callable[[int], Noise], sight: View) -> np.ndarray:
    """Mean and, where there are several samples, standard deviation (ddof = 1): [B, T or 2T, D, H, W]."""
    synth: Synthesis = model.recipe.synth
    source, mask = pad(batch.source, sight.edges, value=BACKGROUND), pad(batch.mask, sight.edges)
    batch = replace(batch, source=source, mask=mask).to(model.device)
    mean, squares = torch.zeros(()), torch.zeros(())
    for sample in range(synth.samples):
        image = _one(model, batch, noise(sample), sight)
        step = image - mean
        mean = mean + step / (sample + 1)
        squares = squares + step * (image - mean)  # Welford 1962
    parts = [mean] if synth.samples == 1 else [mean, (squares / (synth.samples - 1)).sqrt()]
    made: np.ndarray = torch.cat(parts, dim=1).cpu().numpy()
    return made


def _one(model: Model, batch: Batch, noise: Noise, sight: View) -> Tensor:
    """One sample [B, T, D, H, W] as the volume has it, clipped only there: splines overshoot."""
    synth = model.recipe.synth
    with torch.inference_mode(), autocast(model.device, model.recipe.train.precision):
        image = model.method.synthesise(batch, noise, synth).float()
        if synth.mirror:
            flipped = replace(batch, source=batch.source.flip(-1), mask=batch.mask.flip(-1))
            image = (image + model.method.synthesise(flipped, noise, synth).float().flip(-1)) / 2
    left, right, top, bottom = sight.edges
    image = pad(image, (-left, -right, -top, -bottom), value=BACKGROUND)
    if sight.size is not None:
        image = torch.from_numpy(zoomed(image.cpu().numpy(), sight.shape[1:]))
    return image.clamp(-1, 1)


def _one_grid(grids: Mapping[str, Grid]) -> Grid:
    (name, first), *others = grids.items()
    for other, grid in others:
        if not same_grid(first, grid):
            raise BadInput(f"{other}: expected the grid of {name} ({first}), found {grid}. Resample one to the other.")
    return first


def _read(scan: Volume | Path | str, modality: str) -> Volume:
    return scan if isinstance(scan, Volume) else read_volume(Path(scan), modality)


def _input(path: Path) -> dict[str, str]:
    file, _ = without_frame(path)
    return {"path": str(path.resolve()), "sha256": file_hash(file)} if file.is_file() else {"path": str(path)}
