"""One step of a training, in which each turn of a method runs once, and the state before the first step."""

import copy
import itertools
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from voxlate.base.devices import can_compile
from voxlate.base.items import stable_id
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.methods.method import Method
from voxlate.science.nets.cpu import volumes_in_float32
from voxlate.training.job import Job
from voxlate.training.learner import Epochs, Learner
from voxlate.training.recipe.training import Training
from voxlate.training.validate import autocast

Losses = Mapping[str, Mapping[str, torch.Tensor]]
"""The losses of each turn by their names."""


def begin_learner(
    method: Method, options: Training, device: torch.device, epoch_steps: int
) -> Learner:
    """The state of a training before its first step; epoch_steps: 0 if the losses of epochs are not needed."""
    method.to(device).train()
    averaged = copy.deepcopy(method).requires_grad_(False).eval()
    optimisers = {
        turn: options.optimiser.build(method.parameters_of(turn)) for turn in method.turns
    }
    # Compiling takes half a minute on a CPU and gains 4-20 %. Later steps do not count, because it changes roundings.
    long = device.type in ("cuda", "xpu") or options.planned > 20_000
    if (long and can_compile(device)) if options.compile is None else options.compile:
        method.net.compile()
    return Learner(method, averaged, optimisers, Epochs(epoch_steps))


def take_step(
    learner: Learner,
    parallel: Method,
    options: Training,
    seed: int,
    batches: Iterator[Batch],
    device: torch.device,
) -> Losses:
    """Run every turn of the method as often as it states; returns each turn's last losses, still on the device."""
    losses = {}
    progress = options.progress(learner.step)
    calls = itertools.count()
    for turn, repeats in learner.method.turns.items():
        # The batches of a turn that is not taken are skipped, because batches depend on the step alone.
        if not learner.method.takes_turn(turn, progress):
            for _ in range(repeats * options.accumulate):
                next(batches)
                next(calls)
            continue
        optimiser = learner.optimisers[turn]
        for group in optimiser.param_groups:
            group["lr"] = options.rate(learner.step)
        for _ in range(repeats):
            optimiser.zero_grad(set_to_none=True)
            for _ in range(options.accumulate):
                batch = next(batches)
                noise = Noise(stable_id(seed, learner.step, next(calls)), batch.item)
                _seed_dropout(device, stable_id(noise.seed, int(batch.item.flatten()[0])))
                # This is around the backward pass, too, which may compute layers again.
                with volumes_in_float32(device):
                    with autocast(device, options.precision):
                        parts = parallel(turn, batch.to(device), noise, progress)
                    (parts["total"] / options.accumulate).backward()
            _clip(optimiser, options.clip_norm, device)
            optimiser.step()
        losses[turn] = {name: value.detach() for name, value in parts.items()}
    return losses


def advance(learner: Learner, parallel: Method, job: Job, batches: Iterator[Batch]) -> Losses:
    """Take one step, and move the running average of the weights; returns the step's losses."""
    options = job.stage.train
    losses = take_step(learner, parallel, options, job.seed, batches, job.device)
    decay = options.decay(learner.step)
    learner.average.move(decay, options.part(learner.step)[0])
    learner.step += 1
    return losses


def _seed_dropout(device: torch.device, seed: int) -> None:
    """Seed the random numbers of layers, so that they are the same after a restart."""
    # torch.manual_seed looks for GPUs, which takes 1 ms.
    seeded = torch.default_generator if device.type == "cpu" else torch
    seeded.manual_seed(seed)


def _clip(optimiser: torch.optim.Optimizer, norm: float, device: torch.device) -> None:
    """Limit the norm of the gradient; 0: no limit."""
    if norm:
        groups = optimiser.param_groups
        moving = itertools.chain.from_iterable(group["params"] for group in groups)
        # On other devices torch processes all tensors together by default.
        on_cpu = True if device.type == "cpu" else None
        nn.utils.clip_grad_norm_(moving, norm, foreach=on_cpu)
