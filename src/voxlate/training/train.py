"""The training of all stages of a recipe into a run; the same command resumes a stopped run."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from voxlate.base.errors import BadInput, first_of
from voxlate.base.executors.case_work import StepCallback, no_report
from voxlate.base.files import lock, relative_to
from voxlate.base.machine import keep_freed_memory
from voxlate.base.messages import Message, Say, message
from voxlate.base.option import merge
from voxlate.scans.cases.prepared import SPLITS, Cohort, open_cohort
from voxlate.scans.cohorts.split import FOLDS
from voxlate.science.methods.method import Method
from voxlate.synthesis.scan_checks import (
    check_filled,
    check_floor,
    check_one_scale,
    check_scales,
    known_scans_of,
)
from voxlate.training.batches.data_settings import (
    DataSettings,
    missing_modalities,
    training_cases,
)
from voxlate.training.job import Job
from voxlate.training.learner import Epochs, Learner
from voxlate.training.loop import finish, train_stage
from voxlate.training.naive import fit_cohort
from voxlate.training.planning.cohort_facts import GREY_LEVELS, scan_of
from voxlate.training.planning.rules import intensity
from voxlate.training.precision import choose, stage_precisions, with_precision
from voxlate.training.processes import by_main, processes, stop_signal
from voxlate.training.recipe import (
    FullStage,
    Recipe,
    check_order,
    ranges_of,
    stage_recipe,
    with_steps,
)
from voxlate.training.recipe.run_provenance import Budget, Budgets
from voxlate.training.run import Run, begin_run, weights_of
from voxlate.training.starter import initial_method, run_folder, starter_hash
from voxlate.training.starters.names import is_starter
from voxlate.training.training_options import TrainOptions
from voxlate.training.validate import validation_items, validation_split
from voxlate.training.weights import (
    file_hash,
    load_weights,
    read_header,
    reuse_weights,
    runs_of,
    unfit_network,
)


@dataclass(frozen=True)
class Beginning:
    """How a run begins, beyond its recipe, cohort and options.

    head: comment lines of its recipe.toml; budgets: what its plan gives each stage; starts: weights by stage of the run
    that is adapted, and whether they were calibrated.
    """

    head: str = ""
    budgets: Budgets = field(default_factory=dict)
    starts: Mapping[str, Path] = field(default_factory=dict)
    calibrated: bool = False


NEW = Beginning()


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    options: TrainOptions | None = None,
    *,
    beginning: Beginning = NEW,
    progress: StepCallback = no_report,
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
    starts = dict(beginning.starts)
    if asked.init is not None:
        starts["final"] = weights_of(run_folder(asked.init))
    run = Run(out)
    opened = _open_job(recipe, data, asked, beginning)
    jobs = _plan_jobs(replace(opened, out=run, progress=progress, say=say, track=asked.track))
    _check_stages(jobs, starts)
    reused = runs_of(asked.reuse)
    # The weights of some are imported, those of a pretrained autoencoder, say.
    pretrained = [other for other in reused if "imported" in other.origin["data"]]
    others = [other for other in reused if other not in pretrained]

    with contextlib.ExitStack() as held:

        def _begin() -> None:
            held.enter_context(lock(out))
            _begin_run(jobs[-1], data, asked.fold, starts, beginning)
            for note in _notes(jobs[-1], asked.fold, others):
                say(note)

        by_main(jobs[0].accelerator, _begin)
        stated = run.origin
        notes = {"adapted": stated["adapted"]} if "adapted" in stated else {}
        budgets = {name: Budget(**table) for name, table in stated.get("budgets", {}).items()}
        stop = held.enter_context(stop_signal())
        started = [replace(job, budgets=budgets, stop=stop) for job in jobs]
        _train_stages(started, starts, pretrained, notes)
    return run


def _open_job(recipe: Recipe, data: Path, asked: TrainOptions, beginning: Beginning) -> Job:
    """The training of the first stage on the cohort and the devices that are asked for."""
    cohort = open_cohort(data)
    if asked.fold is not None:
        cohort = cohort.in_fold(asked.fold)
    begins_anew = asked.init is None and not beginning.starts
    cohort = recipe.with_maps_of(cohort, must_draw=begins_anew)
    accelerator, device = processes(asked.device)
    return Job(recipe, recipe.all_stages[0], cohort, accelerator, device)


def _plan_jobs(first: Job) -> list[Job]:
    """The trainings of all stages, with a number of steps for epochs, and a precision in place of "auto".

    The precision is that of a run that has begun, or else that of this machine, which the main process chooses, because
    processes may measure differently.
    """
    jobs = first.of_stages(first.recipe)
    recipe = with_steps(first.recipe, [job.epoch_steps for job in jobs])

    def _decide() -> Recipe:
        stated = stage_precisions(first.run)
        chosen = with_precision(recipe, first.device, stated)
        if chosen != recipe and not stated:
            first.say(message("precision", f"train.precision: {choose(first.device)[1]}."))
        return chosen

    return first.of_stages(by_main(first.accelerator, _decide))


def _begin_run(
    job: Job,
    data: Path,
    fold: int | None,
    starts: Mapping[str, Path],
    beginning: Beginning,
) -> None:
    """Write recipe and provenance of a run, or compare them with those of a run that has begun.

    The provenance also states the cohort's place and the weights from which the run starts.
    """
    run, start = job.run, starts.get("final")
    digest = file_hash(start) if start else None
    about: dict[str, Any] = {
        "cohort": job.cohort.digest,
        "start": digest,
        "splits": job.cohort.splits,
    }
    # The start weights were trained on these voxels.
    inherited = read_header(start).get("training_voxels", []) if start else []
    prepared = relative_to(run.folder, Path(data).resolve())
    origin: dict[str, Any] = {"prepared": prepared, "inherited_voxels": inherited}
    if fold is not None:
        about["fold"] = fold
    if beginning.budgets:
        origin["budgets"] = {name: asdict(one) for name, one in beginning.budgets.items()}
    if beginning.starts:
        origin["adapted"] = {"weights": digest, "calibrated": beginning.calibrated}
    names = [stage.start_from for stage in job.recipe.all_stages]
    if starters := {name: starter_hash(name) for name in names if is_starter(name)}:
        origin["starters"] = starters
    begin_run(run.folder, job.recipe, beginning.head, about, origin)
    _describe_cases(job)


def _notes(job: Job, fold: int | None, others: Sequence[Run]) -> list[Message]:
    """Messages on the training; stages that other runs have trained are taken from them."""
    run = job.run
    notes = [] if fold is None else [fold_note(job.cohort, fold)]
    notes += check_training(job.recipe, job.cohort)
    text = f"curves in a browser: tensorboard --logdir {run.folder / 'tensorboard'}"
    notes.append(message("curves", text))
    for stage in job.recipe.stages:
        if not run.weights(stage.name).exists():
            notes += reuse_weights(run, others, stage_recipe(job.recipe, stage.name), stage.name)
    return notes


def _describe_cases(job: Job) -> None:
    """Write the naive baselines and the usual anatomy of the training cases, where they are absent."""
    run, recipe, cohort, data = job.run, job.recipe, job.cohort, job.recipe.data
    if not run.naive.exists():
        learned = fit_cohort(cohort, data.source, data.target, ranges_of(recipe))
        learned.save(run.naive)
    if not run.anatomy.exists():
        targets = {name: recipe.intensity[name] for name in data.target}
        known = known_scans_of(cohort, training_cases(cohort, data), data.source, targets)
        known.save(run.anatomy)


def _train_stages(
    jobs: Sequence[Job],
    starts: Mapping[str, Path],
    pretrained: Sequence[Run],
    notes: Mapping[str, Any],
) -> None:
    """Train all stages that are not finished.

    starts: weights by stage from which it is initialised; pretrained: runs of imported autoencoders; notes: additional
    entries of the weights' headers.
    """
    earlier = dict[str, Method]()
    for job in jobs:
        torch.manual_seed(job.seed)
        name = job.stage.name
        method = initial_method(job.stage, earlier)
        weights = job.run.weights(name)
        if weights.exists():
            load_weights(method, weights)
        else:
            if name in starts:
                _load_start(method, starts[name], "adapted" in notes)
            imported = _import_autoencoder(job, pretrained, method)
            method = imported or train_stage(job, method, notes)
        earlier[name] = method.eval().requires_grad_(False)


def _load_start(method: Method, start: Path, adapts: bool) -> None:
    """Load the weights from which a stage is initialised; an adaptation keeps the predictor that was adapted before."""
    prefixes = tuple(
        f"{name}.predictor."
        for name, module in method.named_modules()
        if isinstance(getattr(module, "predictor", None), Method)
    )
    own = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    load_weights(method, start)
    if adapts:
        inside = {name: tensor for name, tensor in own.items() if name.startswith(prefixes)}
        method.load_state_dict(inside, strict=False)


def _import_autoencoder(job: Job, pretrained: Sequence[Run], method: Method) -> Method | None:
    """The method of an autoencoder's stage with imported weights, and the latents' scale of the cohort's targets.

    None if the stage is no autoencoder, or if no imported autoencoder has its network, which is reported.
    """
    stage = job.stage
    if stage.method.makes_targets:
        return None
    for run in pretrained:
        change = unfit_network(run, stage)
        source = f"taken from {run.folder}, not trained"
        if change:
            source = f"not taken from {run.folder}: {change}"
        if job.accelerator.is_main_process:
            job.say(message("stage-reused", f"stage '{stage.name}' is {source}."))
        if not change:
            load_weights(method.without_opponent, run.weights())
            method.to(job.device)
            origin = run.origin["data"]["imported"]
            learner = Learner(method, method, {}, Epochs(0))
            return finish(job, learner, {"imported": origin})
    return None


def _check_stages(jobs: Sequence[Job], starts: Mapping[str, Path]) -> None:
    """Build every stage once, and raise BadInput for impossible settings, before the first step is trained."""
    recipe, cohort = jobs[0].recipe, jobs[0].cohort
    name = cohort.provenance.get("mask_from")
    if not recipe.finds_mask_of(name):
        raise BadInput(
            f"{cohort.folder}: expected a mask found in {' or '.join(recipe.data.source)}, which a model is given to synthesise, found the brain of {name}. Prepare it with --mask-from {recipe.data.source[0]}."
        )
    earlier: dict[str, Method] = {}
    for job in jobs:
        stage = job.stage
        check_scale(cohort, stage.data, recipe)
        job.batches()
        validation_items(recipe, stage, cohort)
        earlier[stage.name] = initial_method(stage, earlier)
        if stage.train.best is not None and validation_split(cohort) == "train":
            raise BadInput(
                f"{cohort.folder}: expected validation cases for train.best, which keeps the weights of their least error, found none. Prepare with a case that is held out, or train without train.best."
            )
        start = starts.get(stage.name)
        if start is None:
            continue
        if stage.task.encodes:
            raise BadInput(
                f"--init: expected a model without an autoencoder of its own, found '{recipe.title}'. Take the stages of another run with --reuse, or train without --init."
            )
        load_weights(earlier[stage.name], start)
        check_order(stage, read_header(start)["recipe"]["data"], f"{start}", "--init")


def check_training(recipe: Recipe, cohort: Cohort) -> list[Message]:
    """Messages on unusual data of the stages and on their validation, each once."""
    said = (one for stage in recipe.all_stages for one in _of_stage(stage, recipe, cohort))
    return list(dict.fromkeys(said))


def fold_note(cohort: Cohort, fold: int) -> Message:
    """A message on the held-out cases of a fold."""
    train, val, test = (cohort.splits[name] for name in SPLITS)
    count = len({case.fold for case in cohort.cases} - {None}) or FOLDS
    text = f"fold {fold} of {count}: {len(train)} cases train, {len(val)} validate ({first_of(val)}); the test split ({len(test)}) is not used."
    return message("fold", text, train=len(train), val=len(val))


def _of_stage(stage: FullStage, recipe: Recipe, cohort: Cohort) -> Iterator[Message]:
    data = stage.data
    lacking = missing_modalities(cohort, data, "train")
    if lacking and not data.apart:
        cases = ", ".join(f"{case} (no {', no '.join(names)})" for case, names in lacking.items())
        yield message("not-trained-on", f"left out of training: {cases}.", cases=len(lacking))
    if validation_split(cohort) == "train":
        text = "no validation cases: training items are used instead, and named so in the log."
        yield message("no-validation", text)
    teaching = training_cases(cohort, data)
    for name in data.target:
        yield from check_scales(name, cohort.target_widths(recipe.intensity[name], name, teaching))
    for name in data.modalities:
        yield from _of_window(name, stage, recipe, cohort, teaching)


def _of_window(
    name: str, stage: FullStage, recipe: Recipe, cohort: Cohort, teaching: Sequence[str]
) -> Iterator[Message]:
    """A caution where a window is that of 8-bit pictures, and scans are none, with the key of a map that fits them."""
    if recipe.intensity[name].window != (0, GREY_LEVELS):
        return
    headers = [header for header in map(cohort.header, teaching) if name in header.visible]
    if not headers:
        return
    scan = scan_of(name, headers)
    if scan.least >= 0 and scan.most <= GREY_LEVELS:
        return
    fitting, _ = intensity(scan, "target" if name in stage.data.target else "source")
    keys = ", ".join(f"{key}={json.dumps(value)}" for key, value in fitting.items())
    text = f"intensity.{name} is the window of 8-bit pictures (0 to {GREY_LEVELS}), and {name} has {scan.least:.4g} to {scan.most:.4g} {scan.unit} here, of which all beyond the window is lost. A map that fits: --set 'intensity.{name}={{{keys}}}'."
    yield message("window", text, grade="caution")


def check_scale(cohort: Cohort, data: DataSettings, recipe: Recipe) -> None:
    """Raise BadInput as check_one_scale, check_floor and check_filled do, of the training cases of a stage's data."""
    where = cohort.folder
    headers = [cohort.header(case) for case in training_cases(cohort, data)]
    check_one_scale(headers, data.target, where)
    for name in sorted(data.modalities):
        spec = recipe.intensity[name]
        for header in headers:
            check_floor(name, spec, header, f"{where}: {header.case}")
        check_filled(name, spec, headers, where)
