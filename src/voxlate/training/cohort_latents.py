"""The latents of a cohort under a frozen autoencoder, encoded once for all trainings that use them."""

from pathlib import Path

import torch
from torch import Tensor

from voxlate.base.errors import Stopped
from voxlate.science.methods.method import Method
from voxlate.science.nets.autoencoder import AutoencoderNet
from voxlate.training.batches.latents import cache_moments, uncacheable
from voxlate.training.job import Job, Session
from voxlate.training.precision import autocast
from voxlate.training.processes import by_main
from voxlate.training.weights import weights_checksum

FOLDER = "latents"  # folder inside a prepared cohort
# It changes if networks or intensity maps give other numbers for the same settings.
VERSION = 1


def keep_moments(job: Job, method: Method, session: Session) -> Path | None:
    """The folder with the moments of the training cases' latents, encoded once; None if there are none to keep."""
    autoencoder = method.autoencoder
    stage, cohort = job.stage, job.cohort
    replays = job.replay is not None and stage.train.replay is not None
    if autoencoder is None or replays or uncacheable(cohort, stage.data):
        return None

    def _report(done: int, total: int) -> None:
        session.progress(f"{stage.name} (latents)", done, total, {})
        if session.stop and done < total:
            raise Stopped(
                f"stopped at case {done} of {total} whose latents are encoded ({stage.name})"
            )

    def _encode(images: Tensor) -> Tensor:
        with autocast(job.device, stage.train.precision):
            return torch.cat(autoencoder.encode(images.to(job.device)), dim=1)

    folder = _moments_folder(job, autoencoder)
    maps = job.recipe.intensity
    by_main(
        job.accelerator,
        lambda: cache_moments(cohort, stage.data, maps, _encode, folder, _report),
    )
    return folder


def _moments_folder(job: Job, autoencoder: AutoencoderNet) -> Path:
    """PREPARED/latents/<hash>, where the hash depends on the autoencoder and the reading of slices."""
    weights = {name: tensor.cpu() for name, tensor in autoencoder.state_dict().items()}
    data = job.stage.data
    read = {
        "version": VERSION,
        "names": sorted(data.modalities),
        "patch": data.patch[1:],
        "axes": data.axes,
        "centred": data.centred,
        "intensity": repr(dict(job.recipe.intensity)),
        "net": repr(autoencoder.net),
        "precision": job.stage.train.precision,
    }
    return job.cohort.folder / FOLDER / weights_checksum(read, weights)[:16]
