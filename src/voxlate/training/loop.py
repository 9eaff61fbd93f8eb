"""The training of one stage, to be read from top to bottom: its steps, what follows them regularly, and its weights."""

import copy
import itertools
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from voxlate.base.devices import can_compile
from voxlate.base.errors import BadInput, Stopped
from voxlate.base.items import stable_id
from voxlate.base.machine import interrupts_held
from voxlate.base.messages import message
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.methods.autoencoding import reconstruction_error
from voxlate.science.methods.method import Method
from voxlate.science.nets.autoencoder import AutoencoderNet
from voxlate.science.nets.cpu import volumes_in_float32
from voxlate.training.batches.patches import cache_moments, can_cache
from voxlate.training.job import Clock, Job, by_main
from voxlate.training.learner import Learner, Log, Losses, owner_of, resume, save_state
from voxlate.training.precision import autocast
from voxlate.training.recipe import Recipe, stage_recipe
from voxlate.training.validate import (
    Measure,
    begin_errors,
    choose_sharpness,
    validate,
    validation_items,
    validation_split,
    verdicts_on,
    whole_slices,
)
from voxlate.training.verdict import without_gain
from voxlate.training.weights import make_header, read_header, save_weights

LONG = 20_000  # steps; longer trainings are compiled
# These slices suffice for a standard deviation to 1 % (paper 004's system uses at least 200).
CALIBRATION_SLICES = 256
BOUND_SLICES = 64
ASKED_SECONDS = 3.0  # interval in which several processes exchange their decisions
# Shares of the weights before the first step that are validated, in this order.
SHARES = (1.0, 0.5, 0.25, 0.125, 0.0)
# Few validation patients do not tell smaller differences of error apart, and the first weights know other patients, too: an
# eighth had 5 to 13 % less error on two heads where one that validated had 1 to 8 % more.
TELLS = 1.1


def train_stage(job: Job, method: Method, notes: Mapping[str, Any]) -> Method:
    """Train a stage to its end, from its saved state if there is one.

    notes: additional entries of the weights' header.
    Raises Stopped after a signal.
    """
    options = job.stage.train
    learner = begin_learner(method, job)
    first = [tensor.clone() for tensor in learner.moving[0]] if options.keep_start else []
    resume(learner, job)
    clock = Clock(job, learner.step)
    now = StageState(job, learner, clock)
    parallel = method if job.alone else job.accelerator.prepare(method)
    loader = job.batches(learner.step, keep_moments(job, method))
    with interrupts_held():  # readers that start must not receive Ctrl-C
        batches = iter(loader)
    with closing(now):
        if learner.step == 0 and options.best is not None:
            validate_now(now)  # the weights before the first step
        while not now.done:
            losses = take_step(learner, parallel, job, batches, clock)
            clock.move_on(learner.step)
            follow(now, losses)
        kept = keep_first(now, first) if first else 0.0
        if learner.best is not None:
            learner.averaged.load_state_dict(learner.best.weights)
        compared = now.by_main(partial(compare, improved=kept < 1))
    return finish(job, learner, {**compared, **notes})


def begin_learner(method: Method, job: Job) -> Learner:
    """The state of a training before its first step."""
    options = job.stage.train
    method.to(job.device).train()
    averaged = copy.deepcopy(method).requires_grad_(False).eval()
    optimisers = {
        turn: options.optimiser.build(method.parameters_of(turn)) for turn in method.turns
    }
    # Compiling takes half a minute on a CPU, which gains 4-20 %, and over a minute for a GPU beside other work. Later
    # steps do not count, because it changes roundings.
    if options.steps > LONG and can_compile(job.device):
        method.net.compile()
    return Learner(method, averaged, optimisers)


def keep_moments(job: Job, method: Method) -> Path | None:
    """The folder with the moments of the training cases' latents, encoded anew; None if there are none to keep.

    A step of paper 004's recipe takes a quarter of its time with them.
    """
    autoencoder = method.autoencoder
    stage, cohort, folder = job.stage, job.cohort, job.run.latents
    if autoencoder is None or not can_cache(cohort, stage.data):
        return None

    def _report(done: int, total: int) -> None:
        job.progress(f"{stage.name} (latents)", done, total, {})

    def _encode(images: Tensor) -> Tensor:
        with autocast(job.device, stage.train.precision):
            return torch.cat(autoencoder.encode(images.to(job.device)), dim=1)

    def _encode_cases() -> None:
        cache_moments(cohort, stage.data, job.recipe.intensity, _encode, folder, _report)

    by_main(job.accelerator, _encode_cases)
    return folder


def take_step(
    learner: Learner, parallel: Method, job: Job, batches: Iterator[Batch], clock: Clock
) -> Losses:
    """Run every turn of the method as often as it states, and move the running average of the weights.

    Returns each turn's last losses, still on the device.
    """
    losses = {}
    options, device = job.stage.train, job.device
    place = clock.place(learner.step)
    progress = options.progress(place)
    calls = itertools.count()
    for turn, repeats in learner.method.turns.items():
        # The batches of a turn that is not taken are skipped, because batches depend on the step alone.
        if not learner.method.takes_turn(turn, progress):
            for _ in range(repeats):
                next(batches)
                next(calls)
            continue
        optimiser = learner.optimisers[turn]
        for group in optimiser.param_groups:
            group["lr"] = options.rate(place)
        for _ in range(repeats):
            optimiser.zero_grad(set_to_none=True)
            batch = next(batches)
            noise = Noise(stable_id(job.seed, learner.step, next(calls)), batch.item)
            # Dropout is the same after a restart.
            torch.manual_seed(stable_id(noise.seed, int(batch.item.flatten()[0])))
            # This is around the backward pass, too, which may compute layers again.
            with volumes_in_float32(device):
                with autocast(device, options.precision):
                    parts = parallel(turn, batch.to(device), noise, progress)
                parts["total"].backward()
            if options.clip_norm:
                groups = (group["params"] for group in optimiser.param_groups)
                weights = itertools.chain.from_iterable(groups)
                # On other devices torch processes all tensors together by default.
                on_cpu = device.type == "cpu" or None
                nn.utils.clip_grad_norm_(weights, options.clip_norm, foreach=on_cpu)
            optimiser.step()
        losses[turn] = {name: value.detach() for name, value in parts.items()}
    learner.move_average(options.decay(clock.steps(learner.step)), place)
    learner.step += 1
    return losses


class StageState(Log):
    """A training between two steps, with its log, as the functions that follow a step read and change it.

    stops: whether a signal ends the training; is_old: whether the saved state would be older than train.save_every;
    next_asked: the step after which several processes decide about both again.
    """

    def __init__(self, job: Job, learner: Learner, clock: Clock) -> None:
        super().__init__(job, learner, clock)
        self.options = job.stage.train
        self.items = validation_items(job.recipe, job.stage, job.cohort)
        self.epoch_steps = job.epoch_steps if self.options.stop else 0
        self.saved = self.seconds
        self.stops = self.is_old = False
        self.next_asked = 0

    def by_main(self, do: "Callable[[StageState], Any]") -> Any:
        """The result of a function of this training, which the main process alone calls (see job.by_main)."""
        return by_main(self.job.accelerator, lambda: do(self))

    @property
    def done(self) -> bool:
        """Whether the training has its length, or ends early."""
        return self.learner.is_done(self.options, self.clock.place(self.learner.step))

    @property
    def saves(self) -> bool:
        """Whether a state is written after this step."""
        return self.done or self.stops or self.is_old

    @property
    def validates(self) -> bool:
        """Whether the weights are validated after this step; those of the end without train.best see `compare`."""
        if self.done:
            return self.options.best is not None
        every = self.options.validate_every
        return every > 0 and self.learner.step % every == 0


def follow(now: StageState, losses: Losses) -> None:
    """What follows a step, in this order; raises Stopped after a signal."""
    step = now.learner.step
    if now.epoch_steps:
        add_to_epoch(now, losses)
    decide(now)
    logs = now.done or step % now.options.log_every == 0
    if logs or now.saves:  # a check waits for the device
        check_finite(now, losses)
    now.add_step(losses, logs)
    if now.validates:
        validate_now(now)
    if now.saves:
        save(now)
    if now.stops and not now.done:
        raise Stopped(
            f"stopped at step {step} of {round(now.clock.steps(step))} ({now.job.stage.name})"
        )


def add_to_epoch(now: StageState, losses: Losses) -> None:
    """Add the loss of the turn that synthesises images to its epoch, with the same mean in all processes."""
    learner, accelerator = now.learner, now.job.accelerator
    *_, of_images = losses.values()
    learner.epoch.append(of_images["total"])
    if len(learner.epoch) == now.epoch_steps:
        of_epoch = torch.stack(learner.epoch)
        if not now.job.alone:
            of_epoch = accelerator.reduce(of_epoch, "mean")
        learner.epochs.append(sum(of_epoch.tolist()) / now.epoch_steps)
        learner.epoch = []


def decide(now: StageState) -> None:
    """Decide in all processes whether a signal stops the training after this step, and whether a state is saved."""
    step, each = now.learner.step, now.step_seconds
    now.stops = bool(now.job.stop)
    now.is_old = now.seconds + each - now.saved >= now.options.save_every
    if now.job.alone:
        return
    if step < now.next_asked:
        now.stops = now.is_old = False
        return
    answers = gather_object([(each, now.stops, now.is_old)])
    slowest, now.stops, now.is_old = map(max, zip(*answers))
    now.next_asked = step + (max(1, int(ASKED_SECONDS / slowest)) if slowest else 1)


def check_finite(now: StageState, losses: Losses) -> None:
    """Raise BadInput in all processes if a loss, or before saving a weight, is not finite; the previous state stays."""
    faults = [
        f"{turn}.{name} of {float(value):g}"
        for turn, parts in losses.items()
        for name, value in parts.items()
        if not math.isfinite(float(value))
    ]
    if now.saves and not faults:
        weights = now.learner.method.named_parameters()
        faults += [f"weights '{name}'" for name, weight in weights if not weight.isfinite().all()]
    if not now.job.alone:
        faults = gather_object(faults)
    if faults:
        raise BadInput(
            f"{now.job.run.folder}: expected finite losses and weights, found a {faults[0]} at step {now.learner.step} of stage '{now.job.stage.name}': the training diverged. Train into another --out with a lower train.optimiser.lr (now {now.options.optimiser.lr:g}), or in train.precision float32."
        )


def validate_now(now: StageState) -> None:
    """Validate in the main process; with train.best, all processes keep the weights if their error is the least."""
    error: float = now.by_main(log_validation)
    if now.options.best is not None:
        now.learner.compare(error)


def log_validation(
    now: StageState, recipe: Recipe | None = None, measure: Measure | None = None
) -> float:
    """Validate the averaged method; returns the mean absolute error in network units.

    recipe: of the images, where it is another one; measure: see `validate`.
    """
    job, method = now.job, now.learner.averaged
    scores = validate(method, now.items, recipe or job.recipe, job.stage, job.device, measure)
    prefix = "training_items_" if validation_split(job.cohort) == "train" else ""
    now.add_validation({f"{prefix}{name}": value for name, value in scores.items()})
    return scores.get("mae", math.nan)


def save(now: StageState) -> None:
    """Write the state from which the training continues."""
    job = now.job
    if job.is_main:
        state = {**now.learner.state(), "stage": job.stage.name}
        save_state(job.run.state, state, owner_of(job.recipe, job.cohort))
    now.saved = now.seconds


def keep_first(now: StageState, first: list[Tensor]) -> float:
    """Move the averaged weights towards those before the first step, and return the share of these that is kept.

    The share is train.keep_start; where patients validate, it is the one of SHARES with the least error of theirs
    (Wortsman et al. 2022, WiSE-FT).
    """
    job, average, kept = now.job, now.learner.moving[0], now.options.keep_start

    def error() -> float:
        """The mean absolute error of the averaged method on the validation items, in network units."""

        def measure(now: StageState) -> float:
            averaged = now.learner.averaged
            return validate(averaged, now.items, job.recipe, job.stage, job.device)["mae"]

        measured: float = now.by_main(measure)
        return measured

    if now.items and validation_split(job.cohort) == "val":
        errors = errors_by_share(average, first, error)
        kept = chosen_share(errors, kept)
        if job.is_main:
            now.add(
                kept_start={"share": kept, "errors": {f"{one:g}": errors[one] for one in errors}}
            )
            listed = ", ".join(f"{errors[share]:.4g} with {share:.3g}" for share in sorted(errors))
            text = f"share of the weights before the first step that is kept: {kept:.3g}. Validation error by share: {listed}."
            job.say(message("keep-start", text, share=kept))
    with torch.no_grad():
        torch._foreach_lerp_(average, first, kept)
    return kept


@torch.no_grad()
def errors_by_share(
    weights: list[Tensor], first: list[Tensor], error: Callable[[], float]
) -> dict[float, float]:
    """The error of weights with each of SHARES of the first ones in them; the weights are as before afterwards."""
    trained = [weight.clone() for weight in weights]
    errors = {}
    for share in SHARES:
        torch._foreach_lerp_(weights, first, share)
        errors[share] = error()
        torch._foreach_copy_(weights, trained)
    return errors


def chosen_share(errors: Mapping[float, float], planned: float) -> float:
    """The share of the first weights that is kept, by the errors of validation patients.

    It is the one of the least error, or the largest share up to the planned one whose error is within TELLS of the least;
    all of the first weights where no other error is a number.
    """
    least = min(errors, key=lambda share: (math.isnan(errors[share]), errors[share]))
    near = [one for one in errors if one <= planned and errors[one] <= TELLS * errors[least]]
    return max([least, *near])


def compare(now: StageState, improved: bool = True) -> dict[str, Any]:
    """Choose the sharpness of the final weights, validate them, and compare them with naive baselines.

    The main process does. improved: whether validation patients have less error than with the weights before the first
    step. Returns what the weights' header states of it.
    """
    job, learner = now.job, now.learner
    stage, cohort, recipe = job.stage, job.cohort, job.recipe
    notes: dict[str, Any] = {} if learner.best is None else {"kept_step": learner.best.step}
    own = stage_recipe(recipe, stage.name)
    chosen = choose_sharpness(own, stage, learner.averaged, now.items, job.device)
    if chosen is not None:
        items = "training" if validation_split(cohort) == "train" else "validation"
        place, ratio = chosen
        text = f"sharpness {place:g}: images of {items} items vary {ratio:.2f} times as much as the true ones, and {own.synth.gradient_ratio:g} times was asked for."
        job.say(message("sharpness", text, place=place, ratio=ratio))
        recipe = replace(recipe, synth=replace(recipe.synth, sharpness=place))
        notes["sharpness"] = place
    if now.items and stage.method.makes_targets:
        errors = begin_errors(job.run, recipe, stage, cohort)
        log_validation(now, recipe, errors.add)
        verdicts = verdicts_on(errors, stage)
        if not improved:
            verdicts = [without_gain(one) for one in verdicts]
        now.add(verdict={one.modality: asdict(one) for one in verdicts})
        if worse := {one.modality: one.sentence for one in verdicts if one.outcome == "worse"}:
            notes["worse"] = worse
    else:
        log_validation(now)
    return notes


def finish(job: Job, learner: Learner, notes: Mapping[str, Any]) -> Method:
    """The trained method for later stages; the main process writes its weights, which are a whole model.

    notes: additional entries of the header. The state stays until the next stage writes its own.
    """
    run, stage = job.run, job.stage
    averages = stage.train.ema or stage.train.keep_start or learner.best is not None
    method = (learner.averaged if averages else learner.method).eval()
    slices = whole_slices(job.recipe, stage, job.cohort, "train", CALIBRATION_SLICES)
    method.without_opponent.finish(batch.to(job.device) for batch in slices)
    if job.is_main:
        recipe = stage_recipe(job.recipe, stage.name)
        header = make_header(recipe, method, job.cohort, learner.step, learner.seconds)
        header["training_voxels"] += run.origin.get("inherited_voxels", [])
        if bound := bound_of(job, method):
            header["bound"] = bound
        save_weights(run.weights(stage.name), method, {**header, **notes})
        shutil.rmtree(run.latents, ignore_errors=True)
    job.accelerator.wait_for_everyone()
    return method


def bound_of(job: Job, method: Method) -> dict[str, float]:
    """The reconstruction error of an autoencoder on held-out slices, by modality."""
    stage = job.stage
    if stage.method.makes_targets:
        errors = dict[str, float]()
        for name in stage.task.needs:
            errors |= read_header(job.run.weights(name)).get("bound", {})
        return {name: error for name, error in errors.items() if name in stage.data.target}
    split = validation_split(job.cohort)
    batches = whole_slices(job.recipe, stage, job.cohort, split, BOUND_SLICES)
    net = cast(AutoencoderNet, method.net)  # such methods have this network
    return reconstruction_error(net, (batch.to(job.device) for batch in batches))
