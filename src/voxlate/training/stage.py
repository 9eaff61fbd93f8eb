"""The training of one stage: its loop of steps, validations and saved states, from the first step to its weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate.utils import gather_object

from voxlate.batch import Batch
from voxlate.batches.patches import note_on_cut
from voxlate.methods.autoencoding import reconstruction_error
from voxlate.methods.method import Method
from voxlate.nets.autoencoder import AutoencoderNet
from voxlate.recipe import Recipe, stage_recipe
from voxlate.scoring.provenance import read_run
from voxlate.system.errors import BadInput, Stopped
from voxlate.system.machine import interrupts_held
from voxlate.system.messages import Say, message
from voxlate.training.clock import Clock, time_note
from voxlate.training.item_baselines import begin_errors, verdicts_on
from voxlate.training.job import Job
from voxlate.training.latents import keep_moments, moments_folder, why_not_kept
from voxlate.training.learner import Learner
from voxlate.training.log import Log, StepCallback
from voxlate.training.processes import StopAgreement, by_main
from voxlate.training.run import Run, change_recipe
from voxlate.training.state_file import check_state, load_state, save_state
from voxlate.training.step import Losses, begin_learner, take_step
from voxlate.training.validate import validate, validation_items, validation_split, whole_slices
from voxlate.training.weights import make_header, read_header, save_weights

PACED = 0.1  # share of a stage's steps after which its speed is known
# These slices suffice for a standard deviation to 1 % (paper 004's system uses at least 200).
CALIBRATION_SLICES = 256
BOUND_SLICES = 64


class Pace(Protocol):
    """Gives the recipe with other lengths by which a training continues after a tenth of a stage's steps.

    seconds: those of a step so far. None keeps the recipe. Only the main process calls it.
    """

    def __call__(self, recipe: Recipe, stage: str, step: int, seconds: float) -> Recipe | None: ...


@dataclass(frozen=True)
class Session:
    """The objects that all stages of a training share: its run, received stop signals, and callbacks.

    notes: additional entries of the weights' headers.
    """

    run: Run
    stop: Sequence[int]
    progress: StepCallback
    say: Say
    pace: Pace | None = None
    pretrained: Sequence[Run] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


def train_stage(job: Job, session: Session, method: Method, started: str) -> Method | Recipe:
    """Train a stage to its end, or until its pace changes the recipe, which continues from the saved state."""
    stage, options, run = job.stage, job.stage.train, session.run
    learner = begin_learner(method, options, job.device, job.epoch_steps if options.stop else 0)
    _resume(learner, job, run)
    parallel = method if job.alone else job.accelerator.prepare(method)
    loader = job.batches(learner.step, _cache_moments(job, method, session))
    with interrupts_held():  # readers that start must not receive Ctrl-C
        batches = iter(loader)
    main = job.accelerator.is_main_process
    log = Log(run.log, stage.name, options, learner, main, session.progress)
    watch = _Watch(job, session, learner, log, validation_items(job.recipe, stage, job.cohort))
    if learner.step == 0:
        log.add_start(started)
        log.add_start(note_on_cut(job.cohort, stage.data))
        if options.best is not None:
            watch.validate()
    clock = Clock(job.device)
    agreement = StopAgreement(job.accelerator, session.stop)
    paced_at = None if session.pace is None else max(1, round(PACED * options.steps))
    while not learner.is_done(options):
        losses = take_step(learner, parallel, options, job.seed, batches, job.device, clock)
        learner.average.move(options.ema, options.part(learner.step)[0], options.keep_start)
        learner.step += 1
        _add_to_epoch(learner, losses, job)
        done = learner.is_done(options)
        stops = agreement.must_stop(learner.step, log.step_seconds)
        saves = done or stops or learner.step % options.save_every == 0
        if saves or learner.step % options.log_every == 0:  # a check would wait for the device
            _check_finite(learner, losses, job, run, and_weights=saves)
        log.add_step(losses)
        if done or (options.validate_every and learner.step % options.validate_every == 0):
            watch.validate(compare=done and options.best is None)
            done = learner.is_done(options)
        if done and main:
            watch.report_end(clock)
        if main and (saves or done):
            watch.save()
        if stops and not done:
            raise Stopped(f"stopped at step {learner.step} of {options.length} ({stage.name})")
        if learner.step == paced_at and not done:
            changed = _change_pace(job, session, learner, log.step_seconds)
            if changed:
                if main:
                    watch.save()
                job.accelerator.wait_for_everyone()
                return changed
    if learner.best is not None:
        learner.averaged.load_state_dict(learner.best.weights)
        watch.validate(compare=True)
    return finish(job, run, learner, session.notes)


@dataclass(frozen=True)
class _Watch:
    """Validates a stage, saves its state, and reports its end."""

    job: Job
    session: Session
    learner: Learner
    log: Log
    items: Sequence[Batch]

    def validate(self, *, compare: bool = False) -> None:
        """Validate in the main process; with train.best, all processes keep the weights if its error is the least.

        compare: these are the final weights, which are compared with naive baselines, and no longer chosen.
        """
        error = by_main(self.job.accelerator, lambda: self._log_validation(compare))
        if self.job.stage.train.best is not None and not compare:
            self.learner.compare(error)

    def _log_validation(self, compare: bool) -> float:
        """Validate the averaged method; returns the mean absolute error in network units."""
        job, learner = self.job, self.learner
        stage = job.stage
        picture = f"{stage.name}_{learner.step:07d}.png"
        path = self.session.run.folder / "validation" / picture
        errors = None
        if compare and self.items and stage.method.makes_targets:
            errors = begin_errors(job.recipe, stage, job.cohort)
        add = None if errors is None else errors.add
        scores = validate(learner.averaged, self.items, job.recipe, stage, job.device, path, add)
        prefix = "training_items_" if validation_split(job.cohort) == "train" else ""
        self.log.add_validation({f"{prefix}{name}": value for name, value in scores.items()})
        if errors is not None:
            self.log.add_verdicts(verdicts_on(errors, stage, job.cohort))
        return scores.get("mae", math.nan)

    def save(self) -> None:
        """Write the state from which the training continues."""
        state = {**self.learner.state(), "stage": self.job.stage.name}
        save_state(self.session.run.state, state)

    def report_end(self, clock: Clock) -> None:
        """Say where the time went, and log why the training ended."""
        options, learner = self.job.stage.train, self.learner
        seconds = self.log.add_time(clock.seconds)
        text = time_note(self.job.stage.name, clock.seconds, seconds)
        self.session.say(message("time", text))
        if options.stop and learner.step < options.length:
            self.log.add_end(options.stop.sentence(learner.epochs.losses, learner.step))
        if learner.best is not None:
            best = learner.best
            of_step = f"those of step {best.step}" if best.step else "those before the first step"
            self.log.add_end(
                f"ended at step {learner.step}; by train.best, the kept weights are {of_step}, whose validation error {best.error:.4g} is the least."
            )


def _resume(learner: Learner, job: Job, run: Run) -> None:
    """Continue from the saved state of a stage, if there is one; raises BadInput if it is of no stage of the recipe."""
    if not run.state.exists():
        return
    state = load_state(run.state)
    names = [stage.name for stage in job.recipe.all_stages]
    if state["stage"] not in names:
        raise BadInput(
            f"{run.state}: expected a state of one of the stages {', '.join(names)}, found one of '{state['stage']:.80}'. Delete it to start again."
        )
    if state["stage"] != job.stage.name:
        return
    if job.stage.train.stop:
        # A run of version 0.6 has no such entry.
        state["epochs"].setdefault("steps", job.epoch_steps_of_all_turns)
    check_state(run.state, state, learner, job.stage.train.length, job.stage.data.patch)
    learner.load_state(state)


def _change_pace(
    job: Job, session: Session, learner: Learner, step_seconds: float
) -> Recipe | None:
    """The recipe with other lengths by the pace, once for each stage; it is written to the run."""
    name, pace = job.stage.name, session.pace

    def ask() -> Recipe | None:
        noted = read_run(session.run.provenance).get("paced", {})
        if pace is None or name in noted:
            return None
        recipe = pace(job.recipe, name, learner.step, step_seconds)
        note = {
            "step": learner.step,
            "seconds": step_seconds,
            "steps_before": job.stage.train.steps,
        }
        change_recipe(session.run, recipe or job.recipe, {"paced": {**noted, name: note}})
        return recipe

    return by_main(job.accelerator, ask)


def finish(job: Job, run: Run, learner: Learner, notes: Mapping[str, Any] | None = None) -> Method:
    """The trained method for later stages; the main process writes its weights, which are a whole model.

    notes: additional entries of the header. The state stays until the next stage writes its own.
    """
    averages = job.stage.train.ema or learner.best is not None
    method = (learner.averaged if averages else learner.method).eval()
    slices = whole_slices(job.recipe, job.stage, job.cohort, "train", CALIBRATION_SLICES)
    method.finish(batch.to(job.device) for batch in slices)
    if job.accelerator.is_main_process:
        recipe = stage_recipe(job.recipe, job.stage.name)
        header = make_header(recipe, method, job.cohort, learner.step, learner.seconds)
        header["training_voxels"] += read_run(run.provenance).get("inherited_voxels", [])
        if learner.best is not None:
            header["kept_step"] = learner.best.step
        if bound := _bound(job, method, run):
            header["bound"] = bound
        save_weights(run.weights(job.stage.name), method, header | dict(notes or {}))
    job.accelerator.wait_for_everyone()
    return method


def _bound(job: Job, method: Method, run: Run) -> dict[str, float]:
    """The reconstruction error of an autoencoder on held-out slices, by modality."""
    stage = job.stage
    if stage.method.makes_targets:
        errors = dict[str, float]()
        for name in stage.task.needs:
            errors |= read_header(run.weights(name)).get("bound", {})
        return {name: error for name, error in errors.items() if name in stage.data.target}
    split = validation_split(job.cohort)
    batches = whole_slices(job.recipe, stage, job.cohort, split, BOUND_SLICES)
    net = cast(AutoencoderNet, method.net)  # such methods have this network
    return reconstruction_error(net, (batch.to(job.device) for batch in batches))


def _cache_moments(job: Job, method: Method, session: Session) -> Path | None:
    """The folder with the moments of the training cases' latents, encoded once; None if there are none to keep."""
    autoencoder = method.autoencoder
    stage, cohort, maps = job.stage, job.cohort, job.recipe.intensity
    if autoencoder is None or job.replays or why_not_kept(stage, cohort):
        return None

    def report(done: int, total: int) -> None:
        session.progress(f"{stage.name} (latents)", done, total, {})
        if session.stop and done < total:
            raise Stopped(
                f"stopped at case {done} of {total} whose latents are encoded ({stage.name})"
            )

    folder = moments_folder(stage, cohort, maps, autoencoder)
    by_main(
        job.accelerator,
        lambda: keep_moments(stage, cohort, maps, autoencoder, job.device, folder, report),
    )
    return folder


def _check_finite(
    learner: Learner, losses: Losses, job: Job, run: Run, *, and_weights: bool
) -> None:
    """Raise BadInput in all processes if a loss, or a weight before it is saved, is not finite.

    The previous state stays.
    """
    faults = []
    for turn, parts in losses.items():
        for name, value in parts.items():
            if not math.isfinite(float(value)):
                faults.append(f"{turn}.{name} of {float(value):g}")
    if not faults and and_weights:
        faults = [
            f"weights '{name}'"
            for name, parameter in learner.method.named_parameters()
            if not parameter.isfinite().all()
        ]
    if not job.alone:
        faults = gather_object(faults)
    if faults:
        kept = (
            "the last state before it is kept" if run.state.exists() else "no state was saved yet"
        )
        options = job.stage.train
        exact = " or in train.precision float32" if options.precision == "bfloat16" else ""
        raise BadInput(
            f"{run.folder}: expected finite losses and weights, found a {faults[0]} at step {learner.step} of stage '{job.stage.name}': the training diverged; {kept}. Train into another --out with a lower train.optimiser.lr (now {options.optimiser.lr:g}){exact}."
        )


def _add_to_epoch(learner: Learner, losses: Losses, job: Job) -> None:
    """Add the loss of the turn that synthesises images to its epoch, with the same mean loss in all processes."""
    *_, of_images = losses.values()
    if learner.epochs.add(of_images["total"]) and not job.alone:
        loss = torch.tensor(learner.epochs.losses[-1], device=job.accelerator.device)
        learner.epochs.losses[-1] = job.accelerator.reduce(loss, "mean").item()
