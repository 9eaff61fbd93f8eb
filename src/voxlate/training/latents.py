"""The latents of a cohort under a frozen autoencoder, encoded once for all trainings that use them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from voxlate.batches.latents import cache_moments, uncacheable
from voxlate.batches.patches import usable_cases
from voxlate.cases.prepared import Cohort
from voxlate.images.intensity import IntensityMap
from voxlate.nets.autoencoder import AutoencoderNet
from voxlate.recipe import FullStage
from voxlate.training.validate import autocast
from voxlate.training.weights import weights_checksum

FOLDER = "latents"  # folder inside a prepared cohort
# It changes if networks or intensity maps give other numbers for the same settings.
VERSION = 1


def why_not_kept(stage: FullStage, cohort: Cohort) -> str:
    """The reason against keeping latents, namely that they differ between epochs; "" if there is none."""
    return uncacheable(cohort, stage.data, usable_cases(cohort, stage.data, "train"))


def moments_folder(
    stage: FullStage,
    cohort: Cohort,
    intensity: Mapping[str, IntensityMap],
    autoencoder: AutoencoderNet,
) -> Path:
    """PREPARED/latents/<hash>, where the hash depends on the autoencoder and the reading of slices."""
    weights = {name: tensor.cpu() for name, tensor in autoencoder.state_dict().items()}
    data = stage.data
    read = {
        "version": VERSION,
        "names": sorted({*data.source, *data.target}),
        "patch": data.patch[1:],
        "axes": data.axes,
        "centred": data.centred,
        "intensity": repr(dict(intensity)),
        "net": repr(autoencoder.net),
        "precision": stage.train.precision,
    }
    return cohort.folder / FOLDER / weights_checksum(read, weights)[:16]


def keep_moments(
    stage: FullStage,
    cohort: Cohort,
    intensity: Mapping[str, IntensityMap],
    autoencoder: AutoencoderNet,
    device: torch.device,
    folder: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Encode the cases that are not in the folder yet."""

    def _encode(images: Tensor) -> Tensor:
        with autocast(device, stage.train.precision):
            return torch.cat(autoencoder.encode(images.to(device)), dim=1)

    cache_moments(cohort, stage.data, intensity, _encode, folder, progress)
