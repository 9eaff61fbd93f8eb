"""The training of all stages of a recipe into a run; the same command resumes a stopped run."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from voxlate.batches.patches import training_cases
from voxlate.batches.windows import check_windows
from voxlate.cases import naive
from voxlate.cases.anatomy import anatomy_of
from voxlate.cases.prepared import Cohort, open_cohort
from voxlate.methods.method import Method
from voxlate.options.option import merge
from voxlate.options.train import TrainOptions
from voxlate.recipe import FullStage, Recipe, check_order, ranges_of, stage_recipe, with_steps
from voxlate.scoring.provenance import read_run
from voxlate.starters.names import is_starter
from voxlate.system.errors import BadInput
from voxlate.system.files import lock, relative_to
from voxlate.system.machine import keep_freed_memory
from voxlate.system.messages import Say, message
from voxlate.training.job import Job
from voxlate.training.learner import Epochs, Learner, show_window, start_from, train_only
from voxlate.training.log import StepCallback
from voxlate.training.messages import check_training, fold_note
from voxlate.training.precision import choose, stage_precisions, with_precision
from voxlate.training.pretrained import is_imported, unfit
from voxlate.training.processes import by_main, processes, stop_signal
from voxlate.training.run import Run, begin_run, stage_steps, weights_of
from voxlate.training.stage import Pace, Session, finish, train_stage
from voxlate.training.starter import run_folder, starter_hash
from voxlate.training.validate import validation_items, validation_split
from voxlate.training.weights import (
    file_hash,
    is_finished,
    load_method,
    load_weights,
    read_header,
    reuse_weights,
)


@dataclass(frozen=True)
class Beginning:
    """How a run begins, beyond its recipe, cohort and options.

    head: comment lines of its recipe.toml; pace: may change the lengths of stages once; starts: weights by stage of the
    run that is adapted, and whether they were calibrated; replay: the cohort that is replayed; begun: the hash of the
    weights from which the run in the folder began.
    """

    head: str = ""
    pace: Pace | None = None
    starts: Mapping[str, Path] = field(default_factory=dict)
    calibrated: bool = False
    replay: Path | None = None
    begun: str | None = None


NEW = Beginning()


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    options: TrainOptions | None = None,
    *,
    beginning: Beginning = NEW,
    progress: StepCallback = lambda *_: None,
    say: Say = lambda _: None,
    **changes: Any,
) -> Run:
    """Train every stage of a recipe on a prepared cohort into a run folder; a stopped run resumes bit for bit.

    changes: fields of the options, of which start, reuse, fold and device count. start: weights (or their run or
    starter) from which the last stage is initialised; reuse: other runs whose earlier stages are used if recipe, data
    and seed are equal; fold: train and validate on this fold of the patients, 0 to 4 (see split.fold_splits); say:
    receives messages before the first step. Only the main process writes. Raises BadInput if recipe and cohort do not fit or the folder is another run's,
    and Stopped at SIGINT or SIGTERM after the state was saved.
    """
    keep_freed_memory()
    asked = merge(TrainOptions, options, changes)
    fold = asked.fold
    starts = dict(beginning.starts)
    if asked.start is not None:
        starts["final"] = weights_of(run_folder(asked.start))
    cohort = open_cohort(data) if fold is None else open_cohort(data).in_fold(fold)
    fresh = not starts and beginning.begun is None and beginning.replay is None
    cohort = recipe.with_maps_of(cohort, must_draw=fresh)
    replayed = None
    if beginning.replay is not None:
        replayed = recipe.with_maps_of(open_cohort(beginning.replay), must_draw=False)
    accelerator, place = processes(asked.device)

    def jobs_of(recipe: Recipe) -> list[Job]:
        return [
            Job(recipe, stage, cohort, accelerator, place, replayed) for stage in recipe.all_stages
        ]

    run = Run(out)
    steps = [job.epoch_steps for job in jobs_of(recipe)]
    recipe = with_steps(recipe, steps, stage_steps(run, recipe))
    recipe = _with_precision(recipe, run, accelerator, place, say)
    _check_stages(recipe, jobs_of(recipe), starts)
    about = {
        "cohort": cohort.digest,
        "start": file_hash(starts["final"]) if "final" in starts else beginning.begun,
        "splits": cohort.splits,
        **({} if fold is None else {"fold": fold}),
        **({} if replayed is None else {"replay": replayed.digest}),
    }
    runs = [Run(Path(other)) for other in asked.reuse]
    pretrained = [other for other in runs if is_imported(other)]

    def begin() -> None:
        held.enter_context(lock(out))
        origin = _origin(recipe, out, data, starts, beginning)
        begin_run(out, recipe, beginning.head, about, origin)
        _describe_cases(run, recipe, cohort)
        notes = [] if fold is None else [fold_note(cohort, fold)]
        notes += check_training(recipe, cohort)
        text = f"curves in a browser: tensorboard --logdir {out / 'tensorboard'}"
        notes.append(message("curves", text))
        others = [other for other in runs if other not in pretrained]
        for stage in recipe.stages:
            if not run.weights(stage.name).exists():
                notes += reuse_weights(run, others, stage_recipe(recipe, stage.name), stage.name)
        for note in notes:
            say(note)

    with contextlib.ExitStack() as held:
        by_main(accelerator, begin)
        stated = read_run(run.provenance)
        notes = {key: stated[key] for key in ("adapted",) if key in stated}
        stop = held.enter_context(stop_signal())
        session = Session(run, stop, progress, say, beginning.pace, pretrained, notes)
        changed: Recipe | None = recipe
        while changed is not None:
            changed = _train_stages(session, jobs_of(changed), starts)
    return run


def _with_precision(
    recipe: Recipe,
    run: Run,
    accelerator: Accelerator,
    device: torch.device,
    say: Say,
) -> Recipe:
    """The recipe with a precision instead of "auto": that of a run that has begun, or else that of this machine.

    The main process decides for all, because processes may measure differently.
    """

    def decide() -> Recipe:
        stated = stage_precisions(run)
        chosen = with_precision(recipe, device, stated)
        if chosen != recipe and not stated:
            say(message("precision", f"train.precision: {choose(device).why}."))
        return chosen

    return by_main(accelerator, decide)


def _origin(
    recipe: Recipe, out: Path, data: Path, starts: Mapping[str, Path], beginning: Beginning
) -> dict[str, Any]:
    """The entries of a run's provenance on its cohort and on the weights from which it starts."""
    start = starts.get("final")
    # The start weights were trained on these voxels.
    inherited = read_header(start).get("training_voxels", []) if start else []
    origin: dict[str, Any] = {
        "prepared": relative_to(out, Path(data).resolve()),
        "inherited_voxels": inherited,
    }
    if beginning.replay is not None:
        origin["replayed"] = relative_to(out, beginning.replay.resolve())
    if beginning.starts:
        weights = file_hash(beginning.starts["final"])
        origin["adapted"] = {"weights": weights, "calibrated": beginning.calibrated}
    names = [stage.start_from for stage in recipe.all_stages]
    if starters := {name: starter_hash(name) for name in names if is_starter(name)}:
        origin["starters"] = starters
    return origin


def _describe_cases(run: Run, recipe: Recipe, cohort: Cohort) -> None:
    """Write the naive baselines and the usual anatomy of the training cases, where they are absent."""
    data = recipe.data
    if not run.naive.exists():
        windows = ranges_of(recipe)
        naive.fit_cohort(cohort, data.source, data.target, windows).save(run.naive)
    if not run.anatomy.exists():
        sources, targets = (
            {name: recipe.intensity[name] for name in names} for names in (data.source, data.target)
        )
        cases = training_cases(cohort, data)
        anatomy_of(cohort, cases, sources, targets).save(run.anatomy)


def _train_stages(
    session: Session, jobs: Sequence[Job], starts: Mapping[str, Path]
) -> Recipe | None:
    """Train all stages that are not finished; returns the new recipe if the pace of a stage has changed it."""
    run = session.run
    earlier = dict[str, Method]()
    for job in jobs:
        torch.manual_seed(job.seed)
        name = job.stage.name
        method, started = _initial_method(job.stage, earlier)
        if is_finished(run.weights(name), job.stage.train):
            load_weights(method, run.weights(name))
            _check_autoencoder(method, job.stage, earlier, run)
        else:
            if name in starts:
                _load_start(method, starts[name], adapts="adapted" in session.notes)
            imported = _import_autoencoder(job, session, method)
            trained = imported or train_stage(job, session, method, started)
            if isinstance(trained, Recipe):
                return trained
            method = trained
        earlier[name] = method.eval().requires_grad_(False)
    return None


def _load_start(method: Method, start: Path, *, adapts: bool) -> None:
    """Load the weights from which a stage is initialised; an adaptation keeps the predictor that was adapted before."""
    inside = dict[str, Tensor]()
    if adapts:
        prefixes = tuple(
            f"{name}.predictor."
            for name, module in method.named_modules()
            if isinstance(getattr(module, "predictor", None), Method)
        )
        own = method.state_dict().items()
        inside = {name: tensor.clone() for name, tensor in own if name.startswith(prefixes)}
    load_weights(method, start)
    method.load_state_dict(inside, strict=False)


def _import_autoencoder(job: Job, session: Session, method: Method) -> Method | None:
    """The method of an autoencoder's stage with imported weights, and the latents' scale of the cohort's targets.

    None if the stage is no autoencoder, or if no imported autoencoder has its network, which is reported.
    """
    stage = job.stage
    if stage.method.makes_targets:
        return None
    for run in session.pretrained:
        change = unfit(run, stage)
        source = f"taken from {run.folder}, not trained"
        if change:
            source = f"not taken from {run.folder}: {change}"
        if job.accelerator.is_main_process:
            session.say(message("stage-reused", f"stage '{stage.name}' is {source}."))
        if not change:
            load_weights(method.without_opponent, run.weights())
            method.to(job.device)
            origin = read_run(run.provenance)["data"]["imported"]
            learner = Learner(method, method, {}, Epochs(0))
            return finish(job, session.run, learner, {"imported": origin})
    return None


def _check_autoencoder(
    method: Method, stage: FullStage, earlier: Mapping[str, Method], run: Run
) -> None:
    """Raise BadInput if the autoencoder in a stage's weights differs from that of the stage that trained it."""
    if method.autoencoder is None:
        return
    inside = method.autoencoder.state_dict()
    for name in stage.task.needs:
        own = earlier[name].net.state_dict()
        same = own.keys() == inside.keys() and all(
            torch.equal(own[key].cpu(), inside[key].cpu()) for key in own
        )
        if not same:
            raise BadInput(
                f"{run.weights(stage.name)}: expected a model of the latents of {run.weights(name).name}, found one of another autoencoder's. Restore that file, or delete {run.weights(stage.name).name} to train it again."
            )


def _check_stages(recipe: Recipe, jobs: Sequence[Job], starts: Mapping[str, Path]) -> None:
    """Build every stage once, and raise BadInput for impossible settings, before the first step is trained."""
    cohort = jobs[0].cohort
    name = cohort.provenance.get("mask_from")
    if not recipe.finds_mask_of(name):
        raise BadInput(
            f"{cohort.folder}: expected a mask found in {' or '.join(recipe.data.source)}, which a model is given to synthesise, found the brain of {name}. Prepare it with --mask-from {recipe.data.source[0]}."
        )
    for job in jobs:
        check_windows(cohort, job.stage.data, recipe.intensity, not recipe.ignores_outside)
    earlier: dict[str, Method] = {}
    for job in jobs:
        job.batches()
        validation_items(recipe, job.stage, cohort)
        earlier[job.stage.name], _ = _initial_method(job.stage, earlier)
        if job.stage.train.best is not None and validation_split(cohort) == "train":
            raise BadInput(
                f"{cohort.folder}: expected validation cases for train.best, which keeps the weights of their least error, found none. Prepare with a case that is held out, or train without train.best."
            )
    if "final" in starts and jobs[-1].stage.task.encodes:
        raise BadInput(
            f"--init: expected a model without an autoencoder of its own, found '{recipe.title}'. Take the stages of another run with --reuse, or train without --init."
        )
    for job in jobs:
        start = starts.get(job.stage.name)
        if start is not None:
            load_weights(earlier[job.stage.name], start)
            check_order(job.stage, read_header(start)["recipe"]["data"], f"{start}", "--init")


def _initial_method(stage: FullStage, earlier: Mapping[str, Method]) -> tuple[Method, str]:
    """The untrained method of a stage, and a sentence for the log if some of its weights are not random."""
    method = stage.build(earlier)
    started = ""
    source = stage.start_from
    if is_starter(source):
        weights, theirs, _ = load_method(run_folder(source))
        started = start_from(method, weights, str(source))
        # The starter's names of modalities may differ; their order is the same.
        maps = [theirs.intensity[name] for name in theirs.data.target]
        targets = stage.data.target
        started += show_window(method, targets, dict(zip(targets, maps)), stage.start_window)
    elif source is not None:
        started = start_from(method, earlier[source], source)
    if stage.train.only is not None:
        train_only(method, stage.train.only)
    return method, started
