"""The training of all stages of a recipe into a run; the same command resumes a stopped run."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from voxlate.batches.patches import teaching_cases
from voxlate.batches.windows import check_windows
from voxlate.cases import naive
from voxlate.cases.anatomy import anatomy_of
from voxlate.cases.prepared import open_cohort
from voxlate.methods.method import Method
from voxlate.recipe import FullStage, Recipe, check_order, fixed_ranges, stage_recipe, with_steps
from voxlate.scoring.provenance import read_run
from voxlate.starters.names import is_starter
from voxlate.system.errors import BadInput
from voxlate.system.files import locked, seen_from
from voxlate.system.machine import keep_freed_memory
from voxlate.training.job import Job
from voxlate.training.learner import Epochs, Learner, show_window, start_from, train_only
from voxlate.training.log import StepCallback
from voxlate.training.messages import fold_note, notes_on
from voxlate.training.precision import choose, kept_precisions, settled
from voxlate.training.pretrained import is_imported, unfit
from voxlate.training.processes import agreed, by_main, processes, stop_signal
from voxlate.training.run import (
    Run,
    begin_run,
    file_hash,
    is_finished,
    kept_steps,
    load_method,
    load_weights,
    read_header,
    reuse_weights,
    weights_of,
)
from voxlate.training.stage import Pace, Session, finish, train_stage
from voxlate.training.starter import run_folder, starter_hash
from voxlate.training.validate import validation_items, validation_split


@dataclass(frozen=True)
class Adaptation:
    """What a run is adapted from: weights by stage, whether they were calibrated, and the cohort that is replayed."""

    starts: Mapping[str, Path]
    calibrated: bool = False
    replay: Path | None = None


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    head: str = "",
    pace: Pace | None = None,
    start: Path | str | None = None,
    begun: str | None = None,
    adaptation: Adaptation | None = None,
    reuse: Sequence[Path] = (),
    fold: int | None = None,
    device: str = "auto",
    progress: StepCallback = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> Run:
    """Train every stage of a recipe on a prepared cohort into a run folder; a stopped run resumes bit for bit.

    head: comment lines for the run's recipe.toml; pace: may change the lengths of stages once; start: weights (or
    their run or starter) from which the last stage is initialised; begun: instead of start, the hash of the weights
    from which the run in `out` began; adaptation: instead of start, the run that is adapted; reuse: other runs whose earlier stages are used if recipe, data and seed are equal; fold: train
    and validate on this fold of the patients, 0 to 4 (see split.fold_splits); say: receives messages before the first
    step. Only the main process writes. Raises BadInput if recipe and cohort do not fit or the folder is another run's,
    and Stopped at SIGINT or SIGTERM after the state was saved.
    """
    keep_freed_memory()
    cohort = open_cohort(data) if fold is None else open_cohort(data).in_fold(fold)
    adaptation = adaptation or Adaptation({})
    starts = dict(adaptation.starts)
    if start is not None:
        starts["final"] = weights_of(run_folder(start))
    start = starts.get("final")
    fresh = not starts and begun is None and adaptation.replay is None
    cohort = recipe.drawn_from(cohort, must_draw=fresh)
    replayed = None
    if adaptation.replay is not None:
        replayed = recipe.drawn_from(open_cohort(adaptation.replay), must_draw=False)
    accelerator, place = processes(device)

    def jobs_of(recipe: Recipe) -> list[Job]:
        return [
            Job(recipe, stage, cohort, accelerator, place, replayed) for stage in recipe.all_stages
        ]

    kept = kept_steps(Run(out), recipe)
    recipe = with_steps(recipe, [job.epoch_steps for job in jobs_of(recipe)], kept)
    recipe = _with_precision(recipe, Run(out), accelerator, place, say)
    _check_stages(recipe, jobs_of(recipe), starts)
    about = {
        "cohort": cohort.digest,
        "start": file_hash(start) if start else begun,
        "splits": cohort.splits,
        **({} if fold is None else {"fold": fold}),
        **({} if replayed is None else {"replay": replayed.digest}),
    }
    given = [Run(Path(other)) for other in reuse]
    others = [other for other in given if not is_imported(other)]
    pretrained = [other for other in given if is_imported(other)]

    def begin() -> None:
        held.enter_context(locked(out))
        place = seen_from(out, Path(data).resolve())
        # The start weights were trained on these voxels.
        inherited = read_header(start).get("training_voxels", []) if start else []
        origin: dict[str, Any] = {"prepared": place, "inherited_voxels": inherited}
        if adaptation.replay is not None:
            origin["replayed"] = seen_from(out, adaptation.replay.resolve())
        if adaptation.starts:
            origin["adapted"] = {"weights": about["start"], "calibrated": adaptation.calibrated}
        if named := [
            stage.start_from for stage in recipe.all_stages if is_starter(stage.start_from)
        ]:
            origin["starters"] = {name: starter_hash(name) for name in named}
        run = begin_run(out, recipe, head, about, origin)
        if not run.naive.exists():
            naive.fit_cohort(
                cohort, recipe.data.source, recipe.data.target, fixed_ranges(recipe)
            ).save(run.naive)
        if not run.anatomy.exists():
            sources = {name: recipe.intensity[name] for name in recipe.data.source}
            targets = {name: recipe.intensity[name] for name in recipe.data.target}
            anatomy_of(cohort, teaching_cases(cohort, recipe.data), sources, targets).save(
                run.anatomy
            )
        notes = [] if fold is None else [fold_note(cohort, fold)]
        notes += notes_on(recipe, cohort)
        notes.append(f"curves in a browser: tensorboard --logdir {out / 'tensorboard'}")
        for stage in recipe.stages:
            if not run.weights(stage.name).exists():
                notes += reuse_weights(run, others, stage_recipe(recipe, stage.name), stage.name)
        for note in notes:
            say(note)

    with contextlib.ExitStack() as held:
        by_main(accelerator, begin)
        stated = read_run(Run(out).provenance)
        notes = {"adapted": stated["adapted"]} if "adapted" in stated else {}
        received = held.enter_context(stop_signal())
        session = Session(Run(out), received, progress, say, pace, pretrained, notes)
        changed: Recipe | None = recipe
        while changed is not None:
            changed = _train_stages(session, jobs_of(changed), starts)
    return session.run


def _with_precision(
    recipe: Recipe,
    run: Run,
    accelerator: Accelerator,
    device: torch.device,
    say: Callable[[str], None],
) -> Recipe:
    """The recipe with a precision instead of "auto": that of a run that has begun, or else that of this machine.

    The main process decides for all, because processes may measure differently.
    """
    settled_recipe: list[Recipe] = [recipe]

    def choose_once() -> None:
        kept = kept_precisions(run)
        settled_recipe[0] = settled(recipe, device, kept)
        if settled_recipe[0] != recipe and not kept:
            say(f"train.precision: {choose(device).why}.")

    by_main(accelerator, choose_once)
    return agreed(accelerator, settled_recipe[0])


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
                _load_start(method, starts[name], session.notes)
            trained = _pretrained(job, session, method) or train_stage(
                job, session, method, started
            )
            if isinstance(trained, Recipe):
                return trained
            method = trained
        earlier[name] = method.eval().requires_grad_(False)
    return None


def _load_start(method: Method, start: Path, notes: Mapping[str, Any]) -> None:
    """Load the weights from which a stage is initialised; an adaptation keeps the predictor that was adapted before."""
    inside = dict[str, Tensor]()
    if "adapted" in notes:
        prefixes = [
            f"{name}.predictor."
            for name, module in method.named_modules()
            if isinstance(getattr(module, "predictor", None), Method)
        ]
        inside = {
            name: tensor.clone()
            for name, tensor in method.state_dict().items()
            if name.startswith(tuple(prefixes))
        }
    load_weights(method, start)
    method.load_state_dict(inside, strict=False)


def _pretrained(job: Job, session: Session, method: Method) -> Method | None:
    """The method of an autoencoder's stage with imported weights, and the latents' scale of the cohort's targets.

    None if the stage is no autoencoder, or if no imported autoencoder has its network, which is reported.
    """
    stage = job.stage
    main = job.accelerator.is_main_process
    if stage.method.makes_targets:
        return None
    for run in session.pretrained:
        change = unfit(run, stage)
        if main:
            source = (
                f"not taken from {run.folder}: {change}"
                if change
                else f"taken from {run.folder}, not trained"
            )
            session.say(f"stage '{stage.name}' is {source}.")
        if not change:
            load_weights(method.without_opponent, run.weights())
            method.to(job.device)
            origin = read_run(run.provenance)["data"]["imported"]
            return finish(
                job,
                session.run,
                Learner(method, method, {}, Epochs(0)),
                {"imported": origin},
            )
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
    if is_starter(stage.start_from):
        weights, theirs, _ = load_method(run_folder(stage.start_from))
        started = start_from(method, weights, str(stage.start_from))
        # The starter's names of modalities may differ; their order is the same.
        maps = [theirs.intensity[name] for name in theirs.data.target]
        of = dict(zip(stage.data.target, maps))
        started += show_window(method, stage.data.target, of, stage.start_window)
    elif stage.start_from is not None:
        started = start_from(method, earlier[stage.start_from], stage.start_from)
    if stage.train.only is not None:
        train_only(method, stage.train.only)
    return method, started
