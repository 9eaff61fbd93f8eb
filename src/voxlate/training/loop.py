"""The training of one stage, to be read from top to bottom: its steps, what follows them regularly, and its weights."""

import copy
import itertools
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar, cast

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
from voxlate.training.job import Clock, Job, keep_moments, read_places
from voxlate.training.learner import Epochs, Learner, Log, owner_of, resume, save_state
from voxlate.training.log_file import read_verdicts
from voxlate.training.processes import Agreement, by_main
from voxlate.training.recipe import stage_recipe
from voxlate.training.validate import (
    Measure,
    Sharpness,
    autocast,
    begin_errors,
    choose_sharpness,
    validate,
    validation_items,
    validation_split,
    verdicts_on,
    whole_slices,
)
from voxlate.training.weights import make_header, read_header, save_weights

LONG = 20_000  # steps; longer trainings are compiled
# These slices suffice for a standard deviation to 1 % (paper 004's system uses at least 200).
CALIBRATION_SLICES = 256
BOUND_SLICES = 64

T = TypeVar("T")
Losses = Mapping[str, Mapping[str, Tensor]]
"""The losses of each turn by their names."""


def train_stage(job: Job, method: Method, notes: Mapping[str, Any]) -> Method:
    """Train a stage to its end, from its saved state if there is one.

    notes: additional entries of the weights' header.
    Raises Stopped after a signal.
    """
    options = job.stage.train
    learner = begin_learner(method, job)
    first = [tensor.clone() for tensor in learner.moving[0]] if options.keep_start else []
    resume(learner, job)
    clock = begin_clock(job, learner.step)
    now = StageState(job, learner, clock, first)
    parallel = method if job.alone else job.accelerator.prepare(method)
    loader = job.batches(learner.step, keep_moments(job, method))
    with interrupts_held():  # readers that start must not receive Ctrl-C
        batches = iter(loader)
    with closing(now.log):
        if learner.step == 0 and options.best is not None:
            validate_now(now)  # the weights before the first step
        while not now.done:
            now.losses = take_step(learner, parallel, job, batches, clock)
            clock.move_on(learner.step)
            follow(now)
        if learner.best is not None:
            learner.averaged.load_state_dict(learner.best.weights)
            now.by_main(compare)
    chosen = {} if now.sharpness is None else {"sharpness": now.sharpness.place}
    return finish(job, learner, chosen | dict(notes))


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
    epochs = Epochs(job.epoch_steps if options.stop else 0)
    return Learner(method, averaged, optimisers, epochs)


def begin_clock(job: Job, step: int) -> Clock:
    """The clock of a stage that goes on from a step."""
    record, places = job.run.clock, list[float]()
    if job.budget is not None:
        places = read_places(record, job.stage.name, job.stage.train.steps)
    clock = Clock(job.stage.train, job.stage.name, job.budget, record, job.accelerator, places)
    clock.fill(step)
    return clock


def take_step(
    learner: Learner, parallel: Method, job: Job, batches: Iterator[Batch], clock: Clock
) -> Losses:
    """Run every turn of the method as often as it states, and move the running average of the weights.

    Returns each turn's last losses, still on the device.
    """
    losses = {}
    options, device = job.stage.train, job.device
    # torch.manual_seed looks for GPUs, which takes 1 ms.
    seeded = torch.default_generator if device.type == "cpu" else torch
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
            seeded.manual_seed(stable_id(noise.seed, int(batch.item.flatten()[0])))
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


@dataclass
class StageState:
    """A training between two steps, as the functions that follow a step read and change it.

    first: the weights before the first step, with train.keep_start; losses: of the last step; stops: whether a signal
    ends the training; is_old: whether the saved state would be older than train.save_every.
    """

    job: Job
    learner: Learner
    clock: Clock
    first: list[Tensor]
    losses: Losses = field(default_factory=dict)
    stops: bool = False
    is_old: bool = False

    def __post_init__(self) -> None:
        job = self.job
        self.options = job.stage.train
        self.is_main = job.accelerator.is_main_process
        self.log = Log(job, self.learner, self.clock)
        self.items = validation_items(job.recipe, job.stage, job.cohort)
        self.agreement = Agreement(job.accelerator)
        self.saved = self.log.seconds

    def by_main(self, do: "Callable[[StageState], T]") -> T:
        """The result of a function of this training, which the main process alone calls (see processes.by_main)."""
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
    def logs(self) -> bool:
        """Whether the losses of this step are logged."""
        return self.learner.step % self.options.log_every == 0 or self.done

    @property
    def validates(self) -> bool:
        """Whether the weights are validated after this step; those of the end without train.best see `compare`."""
        if self.done:
            return self.options.best is not None
        every = self.options.validate_every
        return every > 0 and self.learner.step % every == 0

    @cached_property
    def sharpness(self) -> Sharpness | None:
        """The sharpness of the trained model, where its recipe leaves it to the end; the main process chooses it."""
        if not self.is_main:
            return None
        job = self.job
        recipe = stage_recipe(job.recipe, job.stage.name)
        return choose_sharpness(recipe, job.stage, self.learner.averaged, self.items, job.device)


def add_losses(now: StageState) -> None:
    """Add the loss of the turn that synthesises images to its epoch, with the same mean in all processes."""
    *_, of_images = now.losses.values()
    epochs = now.learner.epochs
    if epochs.add(of_images["total"]) and not now.job.alone:
        loss = torch.tensor(epochs.losses[-1], device=now.job.accelerator.device)
        epochs.losses[-1] = now.job.accelerator.reduce(loss, "mean").item()


@torch.no_grad()
def keep_first(now: StageState) -> None:
    """Move the averaged weights towards those before the first step by train.keep_start (Wortsman et al. 2022, WiSE-FT).

    Where patients validate, their error decides between this share and the first weights alone.
    """
    average = now.learner.moving[0]
    trained = [weight.clone() for weight in average]

    def move(share: float) -> None:
        """Let the average be this share of the first weights, and else the trained ones."""
        torch._foreach_copy_(average, trained)
        torch._foreach_lerp_(average, now.first, share)

    kept = now.options.keep_start
    if now.items and validation_split(now.job.cohort) == "val":
        # The first weights come first, because an error of NaN is never less.
        errors = {}
        for share in (1.0, kept):
            move(share)
            errors[share] = now.by_main(validation_error)
        kept = min(errors, key=errors.__getitem__)
        if now.is_main:
            listed = ", ".join(f"{value:.4g} with {share:.0%}" for share, value in errors.items())
            text = f"of the weights before the first step, {kept:.0%} are kept: the validation error is {listed}."
            now.job.say(message("keep-start", text, share=kept))
            now.log.add(keep_start={f"{share:g}": value for share, value in errors.items()})
    move(kept)


def validation_error(now: StageState) -> float:
    """The mean absolute error of the averaged method on the validation items, in network units."""
    job = now.job
    return validate(now.learner.averaged, now.items, job.recipe, job.stage, job.device)["mae"]


def decide(now: StageState) -> None:
    """Decide in all processes whether a signal stops the training after this step, and whether a state is saved."""
    each = now.log.step_seconds
    is_old = now.log.seconds + each - now.saved >= now.options.save_every
    asked = (bool(now.job.stop), is_old)
    now.stops, now.is_old = now.agreement.ask(now.learner.step, each, asked)


def check_finite(now: StageState) -> None:
    """Raise BadInput in all processes if a loss, or before saving a weight, is not finite; the previous state stays."""
    faults = [
        f"{turn}.{name} of {float(value):g}"
        for turn, parts in now.losses.items()
        for name, value in parts.items()
        if not math.isfinite(float(value))
    ]
    if now.saves and not faults:
        weights = now.learner.method.named_parameters()
        faults += [f"weights '{name}'" for name, weight in weights if not weight.isfinite().all()]
    if not now.job.alone:
        faults = gather_object(faults)
    if not faults:
        return
    run, options = now.job.run, now.options
    kept = "the last state before it is kept" if run.state.exists() else "no state was saved yet"
    exact = " or in train.precision float32" if options.precision == "bfloat16" else ""
    raise BadInput(
        f"{run.folder}: expected finite losses and weights, found a {faults[0]} at step {now.learner.step} of stage '{now.job.stage.name}': the training diverged; {kept}. Train into another --out with a lower train.optimiser.lr (now {options.optimiser.lr:g}){exact}."
    )


def validate_now(now: StageState) -> None:
    """Validate in the main process; with train.best, all processes keep the weights if their error is the least."""
    error = now.by_main(_log_validation)
    if now.options.best is not None:
        now.learner.compare(error)


def compare(now: StageState) -> None:
    """Validate the final weights, and compare them with naive baselines; the main process does."""
    stage, cohort = now.job.stage, now.job.cohort
    if not now.items or not stage.method.makes_targets:
        _log_validation(now)
        return
    errors = begin_errors(now.job.run, now.job.recipe, stage, cohort)
    if chosen := now.sharpness:
        wanted = now.job.recipe.synth.gradient_ratio or 0.0
        items = "training" if validation_split(cohort) == "train" else "validation"
        text = f"sharpness {chosen.place:g}: images of {items} items vary {chosen.ratio:.2f} times as much as the true ones, and {wanted:g} times was asked for."
        now.job.say(message("sharpness", text, place=chosen.place, ratio=chosen.ratio))
        now.log.add(sharpness={"place": chosen.place, "ratio": chosen.ratio})
    _log_validation(now, errors.add, chosen)
    now.log.add(verdict={one.modality: asdict(one) for one in verdicts_on(errors, stage)})


def _log_validation(
    now: StageState, measure: Measure | None = None, chosen: Sharpness | None = None
) -> float:
    """Validate the averaged method; returns the mean absolute error in network units.

    chosen: the sharpness of the images, by default that of the recipe.
    """
    job, recipe = now.job, now.job.recipe
    if chosen is not None:
        recipe = replace(recipe, synth=replace(recipe.synth, sharpness=chosen.place))
    scores = validate(now.learner.averaged, now.items, recipe, job.stage, job.device, measure)
    prefix = "training_items_" if validation_split(job.cohort) == "train" else ""
    now.log.add_validation({f"{prefix}{name}": value for name, value in scores.items()})
    return scores.get("mae", math.nan)


def save(now: StageState) -> None:
    """Write the state from which the training continues."""
    if now.is_main:
        job = now.job
        state = {**now.learner.state(), "stage": job.stage.name}
        save_state(now.job.run.state, state, owner_of(job.recipe, job.cohort))
    now.saved = now.log.seconds


def follow(now: StageState) -> None:
    """What follows a step, in this order; raises Stopped after a signal."""
    add_losses(now)
    if now.done and now.first:
        keep_first(now)
    decide(now)
    if now.logs or now.saves:  # a check waits for the device
        check_finite(now)
    now.log.add_step(now.losses, now.logs)
    if now.done and now.options.best is None:
        now.by_main(compare)
    if now.validates:
        validate_now(now)
    step = now.learner.step
    if now.done and now.is_main and now.clock.place(step) < now.options.steps:
        now.log.add_end(f"ended at step {step} of {now.options.steps} by train.stop or train.best.")
    if now.saves:
        save(now)
    if now.stops and not now.done:
        raise Stopped(
            f"stopped at step {step} of {round(now.clock.steps(step))} ({now.job.stage.name})"
        )


def finish(job: Job, learner: Learner, notes: Mapping[str, Any]) -> Method:
    """The trained method for later stages; the main process writes its weights, which are a whole model.

    notes: additional entries of the header. The state stays until the next stage writes its own.
    """
    run, options = job.run, job.stage.train
    averages = options.ema or options.keep_start or learner.best is not None
    method = (learner.averaged if averages else learner.method).eval()
    slices = whole_slices(job.recipe, job.stage, job.cohort, "train", CALIBRATION_SLICES)
    method.without_opponent.finish(batch.to(job.device) for batch in slices)
    if job.accelerator.is_main_process:
        recipe = stage_recipe(job.recipe, job.stage.name)
        header = make_header(recipe, method, job.cohort, learner.step, learner.seconds)
        header["training_voxels"] += run.origin.get("inherited_voxels", [])
        if learner.best is not None:
            header["kept_step"] = learner.best.step
        if bound := _bound(job, method):
            header["bound"] = bound
        verdicts = read_verdicts(run.log).get(job.stage.name, [])
        if worse := {one.modality: one.sentence for one in verdicts if one.outcome == "worse"}:
            header["worse"] = worse
        save_weights(run.weights(job.stage.name), method, header | dict(notes))
        shutil.rmtree(run.latents, ignore_errors=True)
    job.accelerator.wait_for_everyone()
    return method


def _bound(job: Job, method: Method) -> dict[str, float]:
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
