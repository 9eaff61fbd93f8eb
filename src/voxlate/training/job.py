"""The training of one stage on a cohort (its seed, epochs and batches), and what all stages share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from voxlate.base.errors import BadInput, Stopped
from voxlate.base.executors.case_work import StepCallback
from voxlate.base.items import stable_id
from voxlate.base.machine import begin_reader, cores
from voxlate.base.messages import Say
from voxlate.scans.cases.prepared import Cohort
from voxlate.science.batch import Batch
from voxlate.science.methods.method import Method
from voxlate.science.nets.autoencoder import AutoencoderNet
from voxlate.training.batches.batches import Batches, Mixed, Planes, training_batches
from voxlate.training.batches.latents import cache_moments, uncacheable
from voxlate.training.clock import Clock
from voxlate.training.precision import autocast
from voxlate.training.processes import by_main
from voxlate.training.recipe import FullStage, Recipe
from voxlate.training.recipe.run_provenance import Budget, Budgets
from voxlate.training.run import Run
from voxlate.training.weights import weights_checksum

LATENTS = "latents"  # folder inside a prepared cohort
# It changes if networks or intensity maps give other numbers for the same settings.
VERSION = 1
# Most readers of a process. A reader draws 14 slices of a synthetic head a second, and an H200 trains on over 80. With MPS,
# each has its own torch in the memory that the GPU shares.
READERS = {"cuda": 12, "xpu": 12, "mps": 2}


@dataclass(frozen=True)
class Session:
    """The objects that all stages of a training share: its run, received stop signals, and callbacks.

    track: the service that also gets the log's numbers; pretrained: runs of imported autoencoders; starts: weights by
    stage from which it is initialised; notes: additional entries of the weights' headers.
    """

    run: Run
    stop: Sequence[int]
    progress: StepCallback
    say: Say
    track: str | None
    pretrained: Sequence[Run]
    starts: Mapping[str, Path]
    notes: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """The training of one stage on a cohort.

    replay: an earlier cohort, of which train.replay of the items are; budgets: of the stages of a plan.
    """

    recipe: Recipe
    stage: FullStage
    cohort: Cohort
    accelerator: Accelerator
    device: torch.device
    replay: Cohort | None = None
    budgets: Budgets = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The seed by the stage's place, so that a first stage that is trained alone has the same weights."""
        place = [stage.name for stage in self.recipe.all_stages].index(self.stage.name)
        return stable_id(self.stage.train.seed, "stage", place)

    def of_stages(self, recipe: Recipe) -> list["Job"]:
        """The trainings of all stages of a recipe on the same data and devices."""
        return [replace(self, recipe=recipe, stage=stage) for stage in recipe.all_stages]

    @property
    def epoch_steps(self) -> int:
        """Steps in which the turn that synthesises images uses as many items as there are."""
        *_, batches = self.stage.turns.values()
        items = len(training_batches(self.cohort, self.stage.data, self.recipe.intensity).items)
        return math.ceil(items / (self.stage.train.batch * batches))

    @property
    def alone(self) -> bool:
        """Whether this is the only process of the training."""
        return self.accelerator.num_processes == 1

    @property
    def budget(self) -> Budget | None:
        """What a plan gives the stage."""
        return self.budgets.get(self.stage.name)

    @property
    def most_steps(self) -> int:
        """The largest number of steps of the stage."""
        return Clock(self.stage.train, budget=self.budget).most_steps

    def batches(self, step: int = 0, moments: Path | None = None) -> DataLoader[Batch]:
        """Batches from a step on; batch k depends on the seed and k alone, so resuming skips batches without reading.

        moments: folder with the moments of their latents.
        """
        options = self.stage.train
        world = self.accelerator.num_processes
        if options.batch % (options.accumulate * world):
            raise BadInput(
                f"train.batch: expected a multiple of train.accumulate × processes ({options.accumulate} × {world}), found {options.batch}. Change one of them."
            )
        calls = options.accumulate * sum(self.stage.turns.values())
        size = options.batch // options.accumulate // world
        shared = {"batch": size, "rank": self.accelerator.process_index, "world": world}
        batches: Dataset[Batch]
        if self.replay is not None and options.replay is not None:
            count = self.most_steps * calls * size * world
            new, replayed = (self._batches(one, count) for one in (self.cohort, self.replay))
            batches = Mixed(new, replayed, share=options.replay, **shared)
        else:
            steps = self.most_steps * calls
            batches = self._batches(self.cohort, steps, moments=moments, **shared)
        workers = _readers(self.device, world) if options.workers is None else options.workers
        return DataLoader(
            batches,
            batch_size=None,
            sampler=range(step * calls, self.most_steps * calls),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=begin_reader,
        )

    def _batches(self, cohort: Cohort, steps: int, **shared: Any) -> Batches | Planes:
        """The batches of a cohort, of one item each by default; shared: how processes share them."""
        return training_batches(
            cohort,
            self.stage.data,
            self.recipe.intensity,
            seed=self.seed,
            steps=steps,
            unpaired=not self.stage.method.needs_pairs,
            **shared,
        )


def _readers(device: torch.device, processes: int = 1) -> int:
    """Number of processes that read batches for each of a training's processes, one core of which computes its steps.

    None on a CPU, because they would take cores from the step.
    """
    if device.type == "cpu":
        return 0
    return min(READERS[device.type], max(cores() // processes - 1, 1))


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
    return job.cohort.folder / LATENTS / weights_checksum(read, weights)[:16]
