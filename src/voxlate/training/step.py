"""One step of a training, in which each turn of a method runs once, and the state before the first step."""

import copy
import itertools
from collections.abc import Iterator

import torch
from torch import nn

from voxlate.batch import Batch, stable_id
from voxlate.diffusion.noise import Noise
from voxlate.methods.method import Method
from voxlate.nets.cpu import volumes_in_float32
from voxlate.recipe.training import Training
from voxlate.system.devices import can_compile
from voxlate.training.clock import Clock
from voxlate.training.learner import Epochs, Learner
from voxlate.training.validate import autocast


def begin_learner(
    method: Method, options: Training, device: torch.device, epoch_steps: int
) -> Learner:
    """The state of a training before its first step; epoch_steps: 0 if the losses of epochs are not needed."""
    method.to(device).train()
    averaged = copy.deepcopy(method).requires_grad_(False).eval()
    optimisers = {
        turn: options.optimiser.build(method.parameters_of(turn)) for turn in method.turns
    }
    # Compiling takes half a minute on a CPU and gains 4-20 %. Additional steps do not count, because it changes roundings.
    long = device.type in ("cuda", "xpu") or options.steps > 20_000
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
    clock: Clock | None = None,
) -> dict[str, dict[str, torch.Tensor]]:
    """Run every turn of the method as often as it states; returns each turn's last losses, still on the device."""
    losses = {}
    rate = options.rate(learner.step)
    progress = options.progress(learner.step)
    calls = 0
    clock = Clock(device) if clock is None else clock
    clock.start()
    for turn, repeats in learner.method.turns.items():
        if not learner.method.takes_turn(
            turn, progress
        ):  # its batches are skipped, because batches depend on the step alone
            calls += sum(1 for _ in itertools.islice(batches, repeats * options.accumulate))
            continue
        optimiser = learner.optimisers[turn]
        for group in optimiser.param_groups:
            group["lr"] = rate
        for _ in range(repeats):
            optimiser.zero_grad(set_to_none=True)
            for _ in range(options.accumulate):
                batch = next(batches)
                clock.lap("data")
                noise = Noise(stable_id(seed, learner.step, calls), batch.item)
                # This seed of dropout is the same after a restart.
                # torch.manual_seed looks for GPUs, which takes 1 ms.
                seed_of = torch.default_generator if device.type == "cpu" else torch
                seed_of.manual_seed(stable_id(noise.seed, int(batch.item.flatten()[0])))
                with volumes_in_float32(
                    device
                ):  # around the backward pass, too, which may compute layers again
                    with autocast(device, options.precision):
                        parts = parallel(turn, batch.to(device), noise, progress)
                    clock.lap("forward")
                    (parts["total"] / options.accumulate).backward()
                clock.lap("backward")
                calls += 1
            if options.clip_norm:
                moving = [
                    parameter for group in optimiser.param_groups for parameter in group["params"]
                ]
                # On other devices torch processes all tensors together by default.
                on_cpu = True if device.type == "cpu" else None
                nn.utils.clip_grad_norm_(moving, options.clip_norm, foreach=on_cpu)
            optimiser.step()
            clock.lap("backward")
        losses[turn] = {name: value.detach() for name, value in parts.items()}
    return losses
