"""The latents of a cohort under a frozen autoencoder, encoded once for all trainings that build on it."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxlate.batch import Batch
from voxlate.data.latents import cache_moments, uncacheable
from voxlate.data.patches import usable_cases
from voxlate.data.prepared import Cohort
from voxlate.diffusion.noise import Noise
from voxlate.diffusion.sample import SamplerSettings
from voxlate.images.intensity import IntensityMap
from voxlate.methods.method import Method, required
from voxlate.nets.autoencoder import AutoencoderNet
from voxlate.recipe import FullStage
from voxlate.training.run import checksum
from voxlate.training.validate import autocast

FOLDER = "latents"  # of a prepared cohort
VERSION = 1  # another one where networks or intensity maps give other numbers by the same settings


def why_not_kept(stage: FullStage, cohort: Cohort) -> str:
    """What forbids to keep latents, since they would not be the same in every epoch; "" where nothing does."""
    return uncacheable(cohort, stage.data, usable_cases(cohort, stage.data, "train")[0])


def moments_folder(
    stage: FullStage, cohort: Cohort, intensity: Mapping[str, IntensityMap], autoencoder: AutoencoderNet
) -> Path:
    """PREPARED/latents/<hash of the autoencoder and of how slices are read>: another autoencoder has another folder."""
    weights = {name: tensor.cpu() for name, tensor in autoencoder.state_dict().items()}
    data = stage.data
    read: dict[str, Any] = {"version": VERSION, "names": sorted({*data.source, *data.target})}
    read |= {"patch": data.patch[1:], "axes": data.axes, "centred": data.centred, "intensity": repr(dict(intensity))}
    read |= {"net": repr(autoencoder.net), "precision": stage.train.precision}
    return cohort.folder / FOLDER / checksum(read, weights)[:16]


def keep_moments(
    stage: FullStage,
    cohort: Cohort,
    intensity: Mapping[str, IntensityMap],
    autoencoder: AutoencoderNet,
    device: torch.device,
    folder: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Encode what is not yet in the folder."""

    def encode(images: Tensor) -> Tensor:
        with autocast(device, stage.train.precision):
            return torch.cat(autoencoder.encode(images.to(device)), dim=1)

    cache_moments(cohort, stage.data, intensity, encode, folder, progress)


@torch.no_grad()
def reconstruction_error(method: Method, batches: Iterable[Batch]) -> dict[str, float]:
    """MAE of what an autoencoder gives back of each target modality, of 255, clipped as a synthesis is."""
    errors = dict[str, list[Tensor]]()
    for batch in batches:
        target = required(batch.target)
        error = (method.synthesise(batch, Noise(0, batch.item), SamplerSettings()).clamp(-1, 1) - target).abs()
        there = torch.ones_like(error[:, :, 0, 0, 0]).bool() if batch.target_present is None else batch.target_present
        for channel, name in enumerate(batch.target_names):
            errors.setdefault(name, []).extend(error[there[:, channel], channel].flatten(1).mean(1))
    return {name: torch.stack(found).mean().item() * 127.5 for name, found in errors.items() if found}
