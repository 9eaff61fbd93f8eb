"""The training of one stage: its loop of steps, validations and saved states, from the first step to its weights."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from voxlate.batch import Batch
from voxlate.batches.patches import cut_note
from voxlate.methods.autoencoding import reconstruction_error
from voxlate.methods.method import Method
from voxlate.nets.autoencoder import AutoencoderNet
from voxlate.recipe import Recipe, stage_recipe
from voxlate.recipe.training import Training
from voxlate.scoring.provenance import read_run
from voxlate.system.errors import BadInput, Stopped
from voxlate.system.machine import interrupts_held
from voxlate.training.clock import Clock, time_note
from voxlate.training.job import Job
from voxlate.training.latents import keep_moments, moments_folder, why_not_kept
from voxlate.training.learner import BestWeights, Learner
from voxlate.training.log import Log, StepCallback
from voxlate.training.measured import begin_measuring, verdicts_on
from voxlate.training.processes import StopAgreement, agreed, by_main
from voxlate.training.run import (
    Run,
    change_recipe,
    load_state,
    read_header,
    save_state,
    save_weights,
    weights_header,
)
from voxlate.training.states import check_state
from voxlate.training.step import begin_learner, take_step
from voxlate.training.validate import (
    validate,
    validation_items,
    validation_split,
    whole_slices,
)

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
    say: Callable[[str], None]
    pace: Pace | None = None
    pretrained: Sequence[Run] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


def train_stage(job: Job, session: Session, method: Method, started: str) -> Method | Recipe:
    """Train a stage to its end, or until its pace changes the recipe, which continues from the saved state."""
    stage = job.stage
    options = job.stage.train
    device = job.device
    run = session.run
    main = job.accelerator.is_main_process
    learner = begin_learner(method, options, device, job.epoch_steps if options.stop else 0)
    state = _saved(job, run)
    if state:
        if options.stop and isinstance(state.get("epochs"), dict):
            # A run of version 0.6 has no such entry.
            state["epochs"].setdefault("steps", job.epoch_steps_of_all_turns)
        check_state(run.state, state, learner, options.length, stage.data.patch)
        learner.load_state(state)
    parallel = method if job.alone else job.accelerator.prepare(method)
    loader = job.batches(learner.step, _kept_moments(job, method, session))
    with interrupts_held():  # readers that start must not receive Ctrl-C
        batches = iter(loader)
    items = validation_items(job.recipe, stage, job.cohort)
    log = Log(
        run.log,
        stage.name,
        options,
        learner.step,
        learner.seconds,
        main,
        session.progress,
    )
    if learner.step == 0:
        log.add_start(started)
        log.add_start(cut_note(job.cohort, stage.data))
        if options.best is not None:
            _validate(job, run, learner, items, log)
    clock = Clock(device)
    agreement = StopAgreement(job.accelerator, session.stop)
    paced_at = None if session.pace is None else max(1, round(PACED * options.steps))
    while learner.step < options.length and not _stops_early(learner, options):
        losses = take_step(learner, parallel, options, job.seed, batches, device, clock)
        learner.average.move(options.ema, options.part(learner.step)[0], options.keep_start)
        learner.step += 1
        _add_to_epoch(learner, losses, job.accelerator)
        last = learner.step == options.length or _stops_early(learner, options)
        saves = last or learner.step % options.save_every == 0
        logs = learner.step % options.log_every == 0
        stops = agreement.reached(learner.step, log.step_seconds)
        saves = saves or stops
        if saves or logs:  # a check at every step would wait for the device
            _check_finite(learner, losses, job, run, weights_too=saves)
        learner.seconds = log.add_step(learner.step, losses)
        if last or (options.validate_every and learner.step % options.validate_every == 0):
            _validate(job, run, learner, items, log, last and options.best is None)
            last = last or _stops_early(learner, options)
            saves = saves or last
        if main and last:
            session.say(
                time_note(stage.name, clock.seconds, log.add_time(learner.step, clock.seconds))
            )
            if options.stop and learner.step < options.length:
                log.add_end(
                    learner.step,
                    options.stop.sentence(learner.epochs.losses, learner.step),
                )
            if learner.best is not None:
                log.add_end(learner.step, _kept_sentence(learner.step, learner.best))
        if main and saves:
            save_state(run.state, {**learner.state(), "stage": stage.name})
        if stops and not last:
            raise Stopped(f"stopped at step {learner.step} of {options.length} ({stage.name})")
        if learner.step != paced_at or last:
            continue
        changed = _repaced(job, session, learner, log.step_seconds)
        if changed:
            if main:
                save_state(run.state, {**learner.state(), "stage": stage.name})
            job.accelerator.wait_for_everyone()
            return changed
    if learner.best is not None:
        learner.averaged.load_state_dict(learner.best.weights)
        _validate(job, run, learner, items, log, final=True)
    return finish(job, run, learner, session.notes)


def _bound(job: Job, method: Method, run: Run) -> dict[str, Any]:
    """The header entry with the reconstruction error of an autoencoder on held-out slices."""
    stage = job.stage
    if stage.method.makes_targets:
        stated = [read_header(run.weights(name)).get("bound", {}) for name in stage.task.needs]
        own = {
            name: value
            for bound in stated
            for name, value in bound.items()
            if name in stage.data.target
        }
        return {"bound": own} if own else {}
    batches = whole_slices(
        job.recipe, stage, job.cohort, validation_split(job.cohort), BOUND_SLICES
    )
    net = cast(AutoencoderNet, method.net)  # such methods have this network
    return {"bound": reconstruction_error(net, (batch.to(job.device) for batch in batches))}


def _validate(
    job: Job,
    run: Run,
    learner: Learner,
    items: Sequence[Batch],
    log: Log,
    final: bool = False,
) -> None:
    """Validate in the main process; with train.best, all processes keep the weights if its error is the least."""
    error = math.nan
    if job.accelerator.is_main_process:
        error = _log_validation(job, run, learner, items, log, final)
    if job.stage.train.best is not None and not final:
        learner.compare(agreed(job.accelerator, error))


def _kept_sentence(step: int, best: BestWeights) -> str:
    """Which weights are kept, for the log."""
    before = "those before the first step" if best.step == 0 else f"those of step {best.step}"
    return f"ended at step {step}; by train.best, the kept weights are {before}, whose validation error {best.error:.4g} is the least."


def _log_validation(
    job: Job, run: Run, learner: Learner, items: Sequence[Batch], log: Log, final: bool
) -> float:
    """Validate the averaged method; of the final weights, also compare it with naive baselines.

    Returns the mean absolute error in network units.
    """
    stage = job.stage
    picture = run.folder / "validation" / f"{stage.name}_{learner.step:07d}.png"
    measured = None
    if final and items and stage.method.makes_targets:
        measured = begin_measuring(job.recipe, stage, job.cohort)
    add = None if measured is None else measured.add
    scores = validate(learner.averaged, items, job.recipe, stage, job.device, picture, add)
    error = scores.get("mae", math.nan)
    prefix = "training_items_" if validation_split(job.cohort) == "train" else ""
    scores = {f"{prefix}{name}": value for name, value in scores.items()}
    learner.seconds = log.add_validation(learner.step, scores)
    if measured is not None:
        log.add_verdicts(learner.step, verdicts_on(measured, stage, job.cohort))
    return error


def _saved(job: Job, run: Run) -> dict[str, Any] | None:
    """The saved state of a job's stage; raises BadInput if it is of no stage of the recipe."""
    if not run.state.exists():
        return None
    state = load_state(run.state)
    names = [stage.name for stage in job.recipe.all_stages]
    if state["stage"] not in names:
        raise BadInput(
            f"{run.state}: expected a state of one of the stages {', '.join(names)}, found one of '{state['stage']:.80}'. Delete it to start again."
        )
    return state if state["stage"] == job.stage.name else None


def _repaced(job: Job, session: Session, learner: Learner, step_seconds: float) -> Recipe | None:
    """The recipe with other lengths by the pace, once for each stage; it is written to the run."""
    name = job.stage.name
    changed = list[Recipe | None]([None])

    def ask() -> None:
        noted = read_run(session.run.provenance).get("paced", {})
        if session.pace is None or name in noted:
            return
        recipe = session.pace(job.recipe, name, learner.step, step_seconds)
        note = {
            "step": learner.step,
            "seconds": step_seconds,
            "steps_before": job.stage.train.steps,
        }
        change_recipe(session.run, recipe or job.recipe, {"paced": {**noted, name: note}})
        changed[0] = recipe

    by_main(job.accelerator, ask)
    return agreed(job.accelerator, changed[0])


def finish(job: Job, run: Run, learner: Learner, notes: Mapping[str, Any] | None = None) -> Method:
    """The trained method for later stages; the main process writes its weights, which are a whole model.

    notes: additional entries of the header. The state stays until the next stage writes its own.
    """
    kept = learner.best is not None
    method = (learner.averaged if job.stage.train.ema or kept else learner.method).eval()
    slices = whole_slices(job.recipe, job.stage, job.cohort, "train", CALIBRATION_SLICES)
    method.finish(batch.to(job.device) for batch in slices)
    if job.accelerator.is_main_process:
        recipe = stage_recipe(job.recipe, job.stage.name)
        header = weights_header(recipe, method, job.cohort, learner.step, learner.seconds)
        header["training_voxels"] += read_run(run.provenance).get("inherited_voxels", [])
        if learner.best is not None:
            header["kept_step"] = learner.best.step
        save_weights(
            run.weights(job.stage.name),
            method,
            header | _bound(job, method, run) | dict(notes or {}),
        )
    job.accelerator.wait_for_everyone()
    return method


def _kept_moments(job: Job, method: Method, session: Session) -> Path | None:
    """The folder with the moments of the training cases' latents, encoded once; None if there are none to keep."""
    if method.autoencoder is None or job.replays or why_not_kept(job.stage, job.cohort):
        return None

    def report(done: int, total: int) -> None:
        session.progress(f"{job.stage.name} (latents)", done, total, {})
        if session.stop and done < total:
            raise Stopped(
                f"stopped at case {done} of {total} whose latents are encoded ({job.stage.name})"
            )

    maps = job.recipe.intensity
    autoencoder = method.autoencoder
    folder = moments_folder(job.stage, job.cohort, maps, autoencoder)
    by_main(
        job.accelerator,
        lambda: keep_moments(job.stage, job.cohort, maps, autoencoder, job.device, folder, report),
    )
    return folder


def _check_finite(
    learner: Learner,
    losses: Mapping[str, Mapping[str, torch.Tensor]],
    job: Job,
    run: Run,
    weights_too: bool,
) -> None:
    """Raise BadInput in all processes if a loss, or a weight before it is saved, is not finite.

    The previous state stays.
    """
    faults = [
        f"{turn}.{name} of {float(value):g}"
        for turn, parts in losses.items()
        for name, value in parts.items()
        if not math.isfinite(float(value))
    ]
    if not faults and weights_too:
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
        exact = " or in train.precision float32" if job.stage.train.precision == "bfloat16" else ""
        raise BadInput(
            f"{run.folder}: expected finite losses and weights, found a {faults[0]} at step {learner.step} of stage '{job.stage.name}': the training diverged; {kept}. Train into another --out with a lower train.optimiser.lr (now {job.stage.train.optimiser.lr:g}){exact}."
        )


def _add_to_epoch(
    learner: Learner,
    losses: Mapping[str, Mapping[str, torch.Tensor]],
    accelerator: Accelerator,
) -> None:
    """Add the loss of the turn that synthesises images to its epoch, with the same mean loss in all processes."""
    *_, of_images = losses.values()
    if learner.epochs.add(of_images["total"]) and accelerator.num_processes > 1:
        loss = torch.tensor(learner.epochs.losses[-1], device=accelerator.device)
        learner.epochs.losses[-1] = accelerator.reduce(loss, "mean").item()


def _stops_early(learner: Learner, options: Training) -> bool:
    """Whether a rule of the recipe ends the training; it depends on saved losses and errors, so a restart decides the same."""
    if options.best is not None and learner.best is not None:
        return 0 < options.best.patience <= learner.best.since
    return options.stop is not None and options.stop.reached(learner.epochs.losses)
