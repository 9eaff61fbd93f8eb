"""From a trained model and a patient's scans to images on the scans' own grid, in physical units, with their spread."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from voxlate.batch import Batch, stable_id
from voxlate.data.scale import case_scale, intensity_statistics
from voxlate.diffusion.noise import Noise
from voxlate.errors import BadInput
from voxlate.images.grid import Grid, canonical, resample, return_to, same_grid, with_spacing
from voxlate.images.intensity import MinMax, Percentile, Scale, Window, ZScore
from voxlate.images.mask import foreground
from voxlate.images.tiling import Blend, tiles
from voxlate.images.volume import Volume, read_volume
from voxlate.methods.tasks import BACKGROUND, Complete
from voxlate.recipe import Recipe, Synthesis
from voxlate.run import file_hash, load_method, made_by
from voxlate.validate import autocast

Progress = Callable[[int, int], None]


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

    method: nn.Module
    recipe: Recipe
    header: Mapping[str, Any]
    device: torch.device
    origin: Path

    def with_options(self, **changes: Any) -> "Model":
        """The same model with other synthesis options (sampler, steps, samples, ...); None keeps the recipe's."""
        chosen = {name: value for name, value in changes.items() if value is not None}
        synth = replace(self.recipe.synth, **chosen)
        return replace(self, recipe=replace(self.recipe, synth=synth))

    def synthesise(
        self,
        scans: Mapping[str, Volume | Path | str],
        *,
        case: str = "case",
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> Synthesised:
        """Make the model's target modalities from scans {modality: volume or path}.

        case: names the noise streams, with the seed. options: as in the recipe's [synth] (samples, steps, sampler, ...).
        Raises BadInput where a scan is missing, or the scans lie on different grids.
        """
        model = self.with_options(**options)
        volumes = {name: _read(scan, name) for name, scan in scans.items()}
        first = model._checked(volumes)
        wanted = model._wanted(volumes)
        brought = {name: model._brought(canonical(volume)) for name, volume in volumes.items()}
        grid = next(iter(brought.values())).grid
        mean, spread = _run(model, brought, grid, case, seed, progress)
        result: dict[str, Volume] = {}
        std: dict[str, Volume] = {}
        for channel, name in enumerate(model.recipe.data.target):
            if name not in wanted:
                continue
            scale = Scale(*model.header["target_scales"][name])
            result[name] = model._returned(scale.inverse(mean[channel]), name, grid, first)
            if spread is not None:
                width = spread[channel] * ((scale.high - scale.low) / 2)
                std[name] = model._returned(width, name, grid, first)
        files = {name: volume.origin for name, volume in volumes.items()}
        return Synthesised(result, std, {**made_by(), **model.plan(files, case, seed)})

    def _checked(self, volumes: Mapping[str, Volume]) -> Grid:
        sources = self.recipe.data.source
        missing = [name for name in sources if name not in volumes]
        completes = isinstance(self.recipe.task, Complete)
        if not volumes or (missing and not completes):
            raise BadInput(
                f"{_where(volumes)}: expected {' and '.join(sources)}, found {', '.join(sorted(volumes)) or 'none of them'}. "
                f"Add {' and '.join(missing)}, or use a model for other modalities."
            )
        if completes and not missing:
            raise BadInput(f"{_where(volumes)}: expected a modality to be missing, found all of {', '.join(sources)}.")
        first, *others = volumes.values()
        for other in others:
            if not same_grid(first.grid, other.grid):
                raise BadInput(
                    f"{other.origin or other.modality}: expected the grid of {first.origin or first.modality} "
                    f"({first.grid}), found {other.grid}. Resample one to the other first."
                )
        return first.grid

    def _wanted(self, volumes: Mapping[str, Volume]) -> list[str]:
        if isinstance(self.recipe.task, Complete):
            return [name for name in self.recipe.data.target if name not in volumes]
        return list(self.recipe.data.target)

    def _brought(self, volume: Volume) -> Volume:
        spacing = self.header.get("spacing_mm")
        return resample(volume, with_spacing(volume.grid, tuple(spacing))) if spacing else volume

    def _returned(self, values: np.ndarray, modality: str, grid: Grid, to: Grid) -> Volume:
        volume = Volume(values[None], grid.affine, self.header["units"][modality], modality)
        return return_to(volume, to)

    def plan(self, files: Mapping[str, Path | str], case: str, seed: int) -> dict[str, Any]:
        """How a case's images will be made: model, options, seed, inputs; equal plans give equal images."""
        recipe = self.recipe
        windows = {name: one for name, one in recipe.intensity.items() if isinstance(one, Window)}
        options = {key: value for key, value in vars(recipe.synth).items() if key != "batch"}  # batch changes nothing
        plan = {
            "model": {"title": recipe.title, "weights": self.header["weights_hash"], "steps": self.header["steps"]},
            "run": str(self.origin),
            "case": case,
            "seed": seed,
            "synth": options,
            "inputs": {name: _input(Path(path)) for name, path in sorted(files.items())},
            "units": self.header["units"],
            "range": {name: [windows[name].low, windows[name].high] for name in recipe.data.target if name in windows},
        }
        plain: dict[str, Any] = json.loads(TypeAdapter(dict[str, Any]).dump_json(plan))
        return plain


def load(run: Path | str, device: str = "auto") -> Model:
    """Open a run folder or a weights file for synthesis; raises BadInput where it is none."""
    path = Path(run)
    method, recipe, header = load_method(path)
    weights = path / "weights.safetensors" if path.is_dir() else path
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    return Model(method.to(where), recipe, {**header, "weights_hash": file_hash(weights)}, where, path.resolve())


def _run(
    model: Model, volumes: Mapping[str, Volume], grid: Grid, case: str, seed: int, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean and standard deviation [T, D, H, W] in network units, a few slices or one patch at a time."""
    synth, data = model.recipe.synth, model.recipe.data
    inputs = _Inputs(model, volumes)
    whole_slices = data.patch[0] == 1
    shape = grid.shape
    size = (1, *shape[1:]) if whole_slices else tuple(min(p, s) for p, s in zip(data.patch, shape))
    places = tiles(shape, size, 0.0 if whole_slices else synth.overlap)
    blend = Blend((2 if synth.samples > 1 else 1) * len(data.target), shape, size)
    for begin in range(0, len(places), synth.batch):
        chosen = places[begin : begin + synth.batch]
        batch = inputs.batch(chosen, [stable_id(case, *(axis.start for axis in place)) for place in chosen])
        mean, std = _samples(model, batch, seed)
        images = mean if std is None else torch.cat([mean, std], dim=1)
        for place, image in zip(chosen, images.cpu().numpy()):
            blend.add(place, image)
        if progress:
            progress(begin + len(chosen), len(places))
    done = blend.result()
    count = len(data.target)
    return done[:count], done[count:] if synth.samples > 1 else None


def _samples(model: Model, batch: Batch, seed: int) -> tuple[Tensor, Tensor | None]:
    """Running mean and standard deviation (ddof = 1) of the samples, [B, T, D, H, W]; memory does not grow with them."""
    synth: Synthesis = model.recipe.synth
    batch = batch.to(model.device)
    mean = squares = None
    for sample in range(synth.samples):
        image = _one(model, batch, Noise(seed, batch.item.tolist(), sample))
        if mean is None or squares is None:
            mean, squares = image.clone(), torch.zeros_like(image)
        else:
            step = image - mean
            mean += step / (sample + 1)
            squares += step * (image - mean)  # Welford 1962
    assert mean is not None and squares is not None
    return mean, (squares / (synth.samples - 1)).sqrt() if synth.samples > 1 else None


def _one(model: Model, batch: Batch, noise: Noise) -> Tensor:
    synth = model.recipe.synth
    with torch.inference_mode(), autocast(model.device, model.recipe.train.precision):
        image = model.method.synthesise(batch, noise, synth).float()
        if synth.mirror:
            flipped = replace(batch, source=batch.source.flip(-1), mask=batch.mask.flip(-1))
            image = (image + model.method.synthesise(flipped, noise, synth).float().flip(-1)) / 2
    return image.clamp(-1, 1)


class _Inputs:
    """Scans in physical units with their scales; gives batches in network units, place by place."""

    def __init__(self, model: Model, volumes: Mapping[str, Volume]):
        self.model, self.volumes = model, volumes
        recipe = model.recipe
        self.statistics = {}
        for name, volume in volumes.items():
            spec = recipe.intensity[name]
            inside = isinstance(spec, ZScore) or (isinstance(spec, Percentile) and spec.inside == "foreground")
            mask = foreground(volume) if inside else None
            self.statistics[name] = intensity_statistics(volume.data[0], mask)

    def batch(self, places: list[tuple[slice, slice, slice]], items: list[int]) -> Batch:
        data = self.model.recipe.data
        source = np.stack([np.concatenate([self._channel(name, place) for name in data.source]) for place in places])
        present = torch.tensor([[name in self.volumes for name in data.source]] * len(places))
        tensor = torch.from_numpy(source)
        return Batch(
            source=tensor,
            mask=torch.ones_like(tensor[:, :1]),
            present=present,
            item=torch.tensor(items),
        )

    def _channel(self, name: str, place: tuple[slice, slice, slice]) -> np.ndarray:
        """[1 + 2·stack, D, H, W]: the place itself, or with its neighbouring slices as further channels."""
        stack = self.model.recipe.data.stack
        if name not in self.volumes:
            return np.full((1 + 2 * stack, *(axis.stop - axis.start for axis in place)), BACKGROUND, np.float32)
        values = self.volumes[name].data[0]
        planes = []
        for shift in range(-stack, stack + 1):
            index = np.clip(np.arange(place[0].start, place[0].stop) + shift, 0, len(values) - 1)
            plane = values[index][:, place[1], place[2]]
            planes.append(self._scale(name, int(index[0])).forward(plane))
        return np.stack(planes)

    def _scale(self, name: str, index: int) -> Scale:
        spec = self.model.recipe.intensity[name]
        per_slice = isinstance(spec, MinMax) and spec.per == "slice"
        return case_scale(spec, self.statistics[name], index if per_slice else None)


def _read(scan: Volume | Path | str, modality: str) -> Volume:
    return scan if isinstance(scan, Volume) else read_volume(Path(scan), modality)


def _where(volumes: Mapping[str, Volume]) -> str:
    origins = [volume.origin for volume in volumes.values() if volume.origin]
    return str(Path(origins[0]).parent) if origins else "input"


def _input(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {"path": str(path)}
    return {"path": str(path.resolve()), "sha256": file_hash(path)}
