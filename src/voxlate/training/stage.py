"""The training of one stage: its loop of steps, validations and saved states, from the first step to its weights."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from accelerate.utils import gather_object

from voxlate.base.errors import BadInput, Stopped
from voxlate.base.machine import interrupts_held
from voxlate.base.messages import message
from voxlate.science.batch import Batch
from voxlate.science.methods.autoencoding import reconstruction_error
from voxlate.science.methods.method import Method
from voxlate.science.nets.autoencoder import AutoencoderNet
from voxlate.training.batches.patches import note_on_cut
from voxlate.training.item_baselines import begin_errors, verdicts_on
from voxlate.training.job import Job, Session
from voxlate.training.latents import keep_moments
from voxlate.training.learner import Learner
from voxlate.training.log import Log
from voxlate.training.processes import StopAgreement, by_main
from voxlate.training.recipe import Recipe, stage_recipe
from voxlate.training.recipe.provenance import read_run
from voxlate.training.run import Run, change_recipe
from voxlate.training.sharpness import Sharpness, choose_sharpness
from voxlate.training.state_file import check_state, load_state, save_state
from voxlate.training.step import Losses, advance, begin_learner
from voxlate.training.validate import (
    Measure,
    validate,
    validation_items,
    validation_split,
    whole_slices,
)
from voxlate.training.weights import make_header, read_header, save_weights

# Shares of a stage after which its steps are corrected to the speed since the share before.
PACED = (0.1, 0.3, 0.6, 0.85)
# These slices suffice for a standard deviation to 1 % (paper 004's system uses at least 200).
CALIBRATION_SLICES = 256
BOUND_SLICES = 64


def train_stage(job: Job, session: Session, method: Method, started: str) -> Method | Recipe:
    """Train a stage to its end, or until its pace changes the recipe, which continues from the saved state.

    started: a sentence for the log if some of the weights are not random.
    """
    options = job.stage.train
    learner = begin_learner(method, options, job.device, job.epoch_steps if options.stop else 0)
    start = [weights.clone() for weights in learner.average.averaged] if options.keep_start else []
    _resume(learner, job, session.run)
    parallel = method if job.alone else job.accelerator.prepare(method)
    loader = job.batches(learner.step, keep_moments(job, method, session))
    watch = _Watch(job, session, learner)
    with interrupts_held():  # readers that start must not receive Ctrl-C
        batches = watch.time_waits(iter(loader))
    if learner.step == 0:
        watch.begin(started)
    while not learner.is_done(options):
        losses = advance(learner, parallel, job, batches)
        if start and learner.is_done(options):
            learner.keep_share(start, options.keep_start)
        stops = watch.add_step(losses)
        if learner.is_done(options):
            watch.end()
        elif stops:
            raise Stopped(f"stopped at step {learner.step} of {options.length} ({job.stage.name})")
        elif changed := watch.change_pace():
            return changed
    if learner.best is not None:
        learner.averaged.load_state_dict(learner.best.weights)
        watch.compare()
    return finish(job, session.run, learner, session.notes)


class _Watch:
    """Logs and validates a stage, saves its state, and reports its end."""

    def __init__(self, job: Job, session: Session, learner: Learner) -> None:
        self.job = job
        self.run = session.run
        self.session = session
        self.learner = learner
        self.options = job.stage.train
        self.main = job.accelerator.is_main_process
        self.log = Log(job, session, learner)
        self.items = validation_items(job.recipe, job.stage, job.cohort)
        self.agreement = StopAgreement(job.accelerator, session.stop)
        self.waited = 0.0  # seconds in which the training waited for data
        self.passed = self._count_passed()

    def time_waits(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; the seconds in which the training waits for them are added up."""
        while True:
            begun = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - begun
            if batch is None:
                return
            yield batch

    def begin(self, started: str) -> None:
        """Log the start of a training; with train.best, validate the weights before the first step."""
        for sentence in (started, note_on_cut(self.job.cohort, self.job.stage.data)):
            if self.main and sentence:
                self.log.add(started=sentence)
        if self.options.best is not None:
            self.validate()

    def add_step(self, losses: Losses) -> bool:
        """Log, check, validate and save after a step, each as often as the recipe states.

        Returns whether a signal stops the training after this step.
        """
        learner, options = self.learner, self.options
        self._add_to_epoch(losses)
        done = learner.is_done(options)
        stops = self.agreement.must_stop(learner.step, self.log.step_seconds)
        saves = done or stops or learner.step % options.save_every == 0
        if saves or learner.step % options.log_every == 0:  # a check would wait for the device
            self._check_finite(losses, self.learner.method.named_parameters() if saves else ())
        self.log.add_step(losses)
        if done and options.best is None:
            self.compare()
        elif done or (options.validate_every and learner.step % options.validate_every == 0):
            self.validate()
        if saves and self.main and not learner.is_done(options):
            self.save()
        return stops

    def _add_to_epoch(self, losses: Losses) -> None:
        """Add the loss of the turn that synthesises images to its epoch, with the same mean loss in all processes."""
        *_, of_images = losses.values()
        losses_of_epochs = self.learner.epochs.losses
        if self.learner.epochs.add(of_images["total"]) and not self.job.alone:
            loss = torch.tensor(losses_of_epochs[-1], device=self.job.accelerator.device)
            losses_of_epochs[-1] = self.job.accelerator.reduce(loss, "mean").item()

    def _check_finite(
        self, losses: Losses, weights: Iterable[tuple[str, torch.nn.Parameter]]
    ) -> None:
        """Raise BadInput in all processes if a loss or a weight is not finite; the previous state stays."""
        faults = []
        for turn, parts in losses.items():
            for name, value in parts.items():
                if not math.isfinite(float(value)):
                    faults.append(f"{turn}.{name} of {float(value):g}")
        for name, parameter in weights:
            if not faults and not parameter.isfinite().all():
                faults.append(f"weights '{name}'")
        if not self.job.alone:
            faults = gather_object(faults)
        if faults:
            kept = "no state was saved yet"
            if self.run.state.exists():
                kept = "the last state before it is kept"
            exact = " or in train.precision float32" if self.options.precision == "bfloat16" else ""
            raise BadInput(
                f"{self.run.folder}: expected finite losses and weights, found a {faults[0]} at step {self.learner.step} of stage '{self.job.stage.name}': the training diverged; {kept}. Train into another --out with a lower train.optimiser.lr (now {self.options.optimiser.lr:g}){exact}."
            )

    def validate(self) -> None:
        """Validate in the main process; with train.best, all processes keep the weights if their error is the least."""
        error = by_main(self.job.accelerator, self._log_validation)
        if self.options.best is not None:
            self.learner.compare(error)

    def compare(self) -> None:
        """Validate the final weights, and compare them with naive baselines."""

        def _log_verdicts() -> None:
            stage, cohort = self.job.stage, self.job.cohort
            if not self.items or not stage.method.makes_targets:
                self._log_validation()
                return
            errors = begin_errors(self.job.recipe, stage, cohort)
            self._log_validation(errors.add, self._say_sharpness())
            verdicts = verdicts_on(errors, stage, cohort)
            self.log.add(verdict={verdict.modality: verdict.document() for verdict in verdicts})

        by_main(self.job.accelerator, _log_verdicts)

    def _say_sharpness(self) -> float | None:
        """Say and log the sharpness that the weights will state; None if they state none."""
        chosen = _sharpness(self.job, self.learner.averaged)
        if chosen is None:
            return None
        wanted = self.job.recipe.synth.gradient_ratio or 0.0
        items = "training" if validation_split(self.job.cohort) == "train" else "validation"
        text = f"sharpness {chosen.place:g}: images of {items} items vary {chosen.ratio:.2f} times as much as the true ones, and {wanted:g} times was asked for."
        self.session.say(message("sharpness", text, place=chosen.place, ratio=chosen.ratio))
        self.log.add(sharpness={"place": chosen.place, "ratio": chosen.ratio})
        return chosen.place

    def _log_validation(
        self, measure: Measure | None = None, sharpness: float | None = None
    ) -> float:
        """Validate the averaged method; returns the mean absolute error in network units.

        sharpness: of the images, by default that of the recipe.
        """
        job, learner = self.job, self.learner
        recipe = job.recipe
        if sharpness is not None:
            recipe = replace(recipe, synth=replace(recipe.synth, sharpness=sharpness))
        path = self.run.folder / "validation" / f"{job.stage.name}_{learner.step:07d}.png"
        scores = validate(
            learner.averaged, self.items, recipe, job.stage, job.device, path, measure
        )
        prefix = "training_items_" if validation_split(job.cohort) == "train" else ""
        self.log.add_validation({f"{prefix}{name}": value for name, value in scores.items()})
        return scores.get("mae", math.nan)

    def save(self) -> None:
        """Write the state from which the training continues."""
        save_state(self.run.state, {**self.learner.state(), "stage": self.job.stage.name})

    def _count_passed(self) -> int:
        """The number of shares of the stage, of those after which its steps are corrected, that are done."""
        if self.session.pace is None:
            return 0
        done = self.options.progress(self.learner.step)
        return sum(done >= share - 1e-9 for share in PACED)

    def change_pace(self) -> Recipe | None:
        """The recipe with other lengths by the pace, after each share of PACED; it is written to the run.

        Steps that a killed run repeats keep their lengths.
        """
        job, step, pace = self.job, self.learner.step, self.session.pace
        repeats = self.options.paced and step <= self.options.paced[-1][0]
        passed = self._count_passed()
        if pace is None or repeats or passed == self.passed or not self.log.step_seconds:
            return None
        self.passed = passed

        def _ask() -> Recipe | None:
            seconds = self.log.step_seconds
            recipe = pace(job.recipe, job.stage.name, step, seconds)
            if recipe:
                before = {stage.name: stage.train.steps for stage in job.recipe.all_stages}
                note = {"stage": job.stage.name, "step": step, "seconds": seconds}
                noted = read_run(self.run.provenance).get("corrections", [])
                own = {"corrections": [*noted, {**note, "steps_before": before}]}
                change_recipe(self.run, recipe, own)
                self.save()
            return recipe

        changed = by_main(job.accelerator, _ask)
        self.log.time_anew()
        return changed

    def end(self) -> None:
        """Say how long the training waited for data, log why the training ended, and save its last state."""
        if not self.main:
            return
        learner, best = self.learner, self.learner.best
        seconds = self.log.add_time(self.waited)
        text = f"stage '{self.job.stage.name}': of {seconds:.3g} s, {self.waited / seconds:.0%} waiting for data."
        self.session.say(message("time", text))
        if self.options.stop and learner.step < self.options.length:
            self.log.add_end(self.options.stop.sentence(learner.epochs.losses, learner.step))
        if best is not None:
            of_step = f"those of step {best.step}" if best.step else "those before the first step"
            self.log.add_end(
                f"ended at step {learner.step}; by train.best, the kept weights are {of_step}, whose validation error {best.error:.4g} is the least."
            )
        self.save()


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
    check_state(run.state, state, learner, job.stage.train.length, job.stage.data.patch)
    learner.load_state(state)


def finish(job: Job, run: Run, learner: Learner, notes: Mapping[str, Any] | None = None) -> Method:
    """The trained method for later stages; the main process writes its weights, which are a whole model.

    notes: additional entries of the header. The state stays until the next stage writes its own.
    """
    options = job.stage.train
    averages = options.ema or options.keep_start or learner.best is not None
    method = (learner.averaged if averages else learner.method).eval()
    slices = whole_slices(job.recipe, job.stage, job.cohort, "train", CALIBRATION_SLICES)
    method.without_opponent.finish(batch.to(job.device) for batch in slices)
    if job.accelerator.is_main_process:
        recipe = stage_recipe(job.recipe, job.stage.name)
        header = make_header(recipe, method, job.cohort, learner.step, learner.seconds)
        header["training_voxels"] += read_run(run.provenance).get("inherited_voxels", [])
        if learner.best is not None:
            header["kept_step"] = learner.best.step
        if chosen := _sharpness(job, method):
            header["sharpness"] = chosen.place
        if bound := _bound(job, method, run):
            header["bound"] = bound
        save_weights(run.weights(job.stage.name), method, header | dict(notes or {}))
    job.accelerator.wait_for_everyone()
    return method


def _sharpness(job: Job, method: Method) -> Sharpness | None:
    """The sharpness of a trained model, where its recipe leaves it to the end of the training."""
    recipe = stage_recipe(job.recipe, job.stage.name)
    if recipe.synth.gradient_ratio is None:  # most trainings: their items are not read for it
        return None
    items = validation_items(job.recipe, job.stage, job.cohort)
    return choose_sharpness(recipe, job.stage, method.eval(), items, job.device)


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
