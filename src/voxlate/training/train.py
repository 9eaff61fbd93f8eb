"""The training of all stages of a recipe into a run; the same command resumes a stopped run."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from voxlate.base.errors import BadInput, first_of
from voxlate.base.executors.case_work import StepCallback, no_report
from voxlate.base.files import file_hash, lock, relative_to
from voxlate.base.messages import Message, Say, message
from voxlate.base.option import merge
from voxlate.scans.cases.prepared import SPLITS, Cohort, open_cohort
from voxlate.scans.cohorts.split import FOLDS
from voxlate.scans.images.ranges import Ends
from voxlate.science.methods.method import Method
from voxlate.science.nets.unet import ResidualUNet, narrow
from voxlate.synthesis.scan_checks import (
    check_filled,
    check_floor,
    check_one_scale,
    check_scales,
    known_scans_of,
)
from voxlate.training.batches.data_settings import (
    intensity_key,
    missing_modalities,
    training_cases,
)
from voxlate.training.job import Job, by_main, processes, stop_signal
from voxlate.training.learner import Learner
from voxlate.training.loop import finish, train_stage
from voxlate.training.naive import fit_cohort
from voxlate.training.precision import choose, stage_precisions, with_precision
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
from voxlate.training.starters.card import read_card
from voxlate.training.starters.names import folder_of, is_starter, run_folder
from voxlate.training.torch_network import write_facts
from voxlate.training.training_options import TrainOptions
from voxlate.training.validate import paired_patches, validation_split
from voxlate.training.weights import (
    is_imported,
    load_method,
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
PICTURES = (0, 255)  # the window of pictures with 8 bits


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
    asked = merge(TrainOptions, options, changes)
    starts = dict(beginning.starts)
    if asked.init is not None:
        starts["final"] = weights_of(run_folder(asked.init))
    cohort = open_cohort(data)
    if asked.fold is not None:
        cohort = cohort.in_fold(asked.fold)
    cohort = recipe.with_maps_of(cohort, must_draw=not starts)
    accelerator, device = processes(asked.device)
    run = Run(out)
    first = Job(
        recipe,
        recipe.all_stages[0],
        cohort,
        accelerator,
        device,
        out=run,
        progress=progress,
        say=say,
        track=asked.track,
    )
    jobs = _with_lengths(first)
    _check_stages(jobs, starts)
    others = runs_of(asked.reuse)

    with contextlib.ExitStack() as held:

        def _begin() -> None:
            held.enter_context(lock(out))
            _begin_run(jobs[-1], data, asked.fold, starts, beginning)
            _say_first(jobs, asked.fold, others)

        by_main(accelerator, _begin)
        stated = run.origin
        notes = {"adapted": stated["adapted"]} if "adapted" in stated else {}
        budgets = {name: Budget(**table) for name, table in stated.get("budgets", {}).items()}
        stop = held.enter_context(stop_signal())
        earlier = dict[str, Method]()
        for job in jobs:
            name, started = job.stage.name, replace(job, budgets=budgets, stop=stop)
            method = _train_stage(started, earlier, starts.get(name), others, notes)
            earlier[name] = method.eval().requires_grad_(False)
        if accelerator.is_main_process:
            write_facts(run.folder)
    return run


def _with_lengths(first: Job) -> list[Job]:
    """The trainings of all stages, with a number of steps for epochs, and a precision in place of "auto".

    The precision is that of a run that has begun, or else that of this machine, which the main process chooses, because
    processes may measure differently.
    """
    lengths = [job.epoch_steps for job in first.of_stages(first.recipe)]
    recipe = with_steps(first.recipe, lengths)

    def _decide() -> Recipe:
        stated = stage_precisions(first.run, recipe)
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

    The provenance also states the cohort's place and the weights from which the run starts. The naive baselines and the
    usual anatomy of the training cases are written where they are absent.
    """
    run, recipe, cohort, start = job.run, job.recipe, job.cohort, starts.get("final")
    digest = file_hash(start) if start else None
    about = {"cohort": cohort.digest, "start": digest, "splits": cohort.splits}
    of_fold = {} if fold is None else {"fold": fold}
    origin: dict[str, Any] = {
        "prepared": relative_to(run.folder, Path(data).resolve()),
        # The start weights were trained on these voxels.
        "inherited_voxels": read_header(start).get("training_voxels", []) if start else [],
    }
    if beginning.budgets:
        origin["budgets"] = {name: asdict(one) for name, one in beginning.budgets.items()}
    if beginning.starts:
        origin["adapted"] = {"weights": digest, "calibrated": beginning.calibrated}
    begin_run(run.folder, recipe, beginning.head, about | of_fold, origin)
    source, target = recipe.data.source, recipe.data.target
    if not run.naive.exists():
        fit_cohort(cohort, source, target, ranges_of(recipe)).save(run.naive)
    if not run.anatomy.exists():
        targets = {name: recipe.intensity[name] for name in target}
        cases = training_cases(cohort, recipe.data)
        known_scans_of(cohort, cases, source, targets).save(run.anatomy)


def _say_first(jobs: Sequence[Job], fold: int | None, others: Sequence[Run]) -> None:
    """Messages on the training; earlier stages that other runs have trained are taken from them."""
    *earlier, last = jobs
    run, recipe, cohort, say = last.run, last.recipe, last.cohort, last.say
    if fold is not None:
        train, val, test = (cohort.splits[name] for name in SPLITS)
        count = len({case.fold for case in cohort.cases} - {None}) or FOLDS
        text = f"fold {fold} of {count}: {len(train)} cases train, {len(val)} validate ({first_of(val)}); the test split ({len(test)}) is not used."
        say(message("fold", text, train=len(train), val=len(val)))
    for note in check_training(recipe, cohort):
        say(note)
    text = f"curves in a browser: tensorboard --logdir {run.folder / 'tensorboard'}"
    say(message("curves", text))
    for job in earlier:
        if not run.weights(job.stage.name).exists():
            own = stage_recipe(recipe, job.stage.name)
            for note in reuse_weights(run, others, own, job.stage):
                say(note)


def _train_stage(
    job: Job,
    earlier: Mapping[str, Method],
    start: Path | None,
    others: Sequence[Run],
    notes: Mapping[str, Any],
) -> Method:
    """Train a stage that is not finished.

    start: weights from which it is initialised, but where an adaptation begins with a starter in a window; others: runs that may hold a pretrained autoencoder; notes: additional
    entries of the weights' header.
    """
    torch.manual_seed(job.seed)
    method = initial_method(job.stage, earlier)
    weights = job.run.weights(job.stage.name)
    if weights.exists():
        load_weights(method, weights)
        return method
    adapts = "adapted" in notes
    if start is not None and not (adapts and job.stage.start_window):
        _load_start(method, start, adapts)
    for other in others:
        pretrained = is_imported(other) and not job.stage.method.makes_targets
        if pretrained and not unfit_network(other, job.stage):
            load_weights(method.without_opponent, other.weights())
            method.to(job.device)
            imported = {"imported": other.origin["data"]["imported"]}
            return finish(job, Learner(method, method), imported)
    return train_stage(job, method, notes)


def _load_start(method: Method, start: Path, adapts: bool) -> None:
    """Load the weights from which a stage is initialised; an adaptation keeps the predictor that was adapted before."""
    adapted = {
        name: tensor.clone()
        for name, tensor in method.state_dict().items()
        if adapts and "task.predictor." in name
    }
    load_weights(method, start)
    method.load_state_dict(adapted, strict=False)


def starter_for(source: Path | str, stage: FullStage) -> Method:
    """The method of a starter with the modalities of a stage alone, its output in the stage's windows.

    Raises BadInput where the starter has no fixed range in which a window could be.
    """
    method, recipe, _ = load_method(folder_of(source))
    own, data, net = recipe.data, stage.data, method.net
    names = read_card(folder_of(source)).match(data.source, data.target) or {}
    known = {theirs: name for name, theirs in names.items()}
    ins = [(known.get(name, name), step) for name, step in data.channels]
    outs = [known.get(name, name) for name in data.target]
    completes = recipe.task.completes
    same = (ins, outs, stage.task.completes) == (own.channels, own.target, completes)
    there = {*ins} <= {*own.channels} and {*outs} <= {*own.target}
    if there and not same and isinstance(net, ResidualUNet):
        places = [own.channels.index(channel) for channel in ins]
        targets = [own.target.index(name) for name in outs]
        missing = [float(channel not in ins) for channel in own.channels] if completes else []
        kept = places if stage.task.completes else ()
        method.net = narrow(net, places, targets, torch.tensor(missing), kept)
    for name, window in stage.start_window.items():
        place = data.target.index(name)
        whole = recipe.intensity[outs[place]].window
        if whole is None or not isinstance(method.net, ResidualUNet):
            raise BadInput(
                f"start_window.{name}: expected a starter with a U-Net and one range of {name} for all scans, found another. Drop it."
            )
        method.net.rescale(place, *_rescaling(whole, window))
    return method


def _rescaling(whole: Ends, window: Ends) -> tuple[float, float]:
    """The factor and the offset that take network units of one range to those of another."""
    width = window[1] - window[0]
    return (whole[1] - whole[0]) / width, (sum(whole) - sum(window)) / width


def initial_method(stage: FullStage, earlier: Mapping[str, Method]) -> Method:
    """The method of a stage before its first step."""
    method, source = stage.build(earlier), stage.start_from
    if source is not None:
        first = starter_for(source, stage) if is_starter(source) else earlier[source]
        start_from(method, first, source)
    if stage.train.only is not None:
        train_only(method, stage.train.only)
    return method


def start_from(method: Method, earlier: Method, name: str) -> None:
    """Copy the weights of an earlier stage's method, except for its opponent; other weights stay random.

    Raises BadInput if a weight has no counterpart with its name and shape.
    """
    here = method.without_opponent.state_dict()
    there = earlier.without_opponent.state_dict()
    for key, tensor in there.items():
        if key not in here or here[key].shape != tensor.shape:
            shape = tuple(here[key].shape) if key in here else "none"
            raise BadInput(
                f"start_from = '{name}': expected a weight for each of its weights, found {shape} for '{key}' of shape {tuple(tensor.shape)}. Use the same networks except for new parts."
            )
    method.without_opponent.load_state_dict({**here, **there})


def train_only(method: Method, part: str) -> None:
    """Freeze all weights without this part in their dotted name, except for critics; raises BadInput if none remains."""
    moving = 0
    for name, parameter in method.without_opponent.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and f".{part}." in f".{name}.")
        moving += parameter.requires_grad
    if not moving:
        raise BadInput(
            f"train.only: expected a part of the weights' names, such as {name}, found '{part}', which is in none that may move. Change it."
        )


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
        headers = [cohort.header(case) for case in training_cases(cohort, stage.data)]
        check_one_scale(headers, stage.data.target, cohort.folder)
        for name in sorted(stage.data.modalities):
            spec = recipe.intensity[name]
            for header in headers:
                check_floor(name, spec, header, f"{cohort.folder}: {header.case}")
            check_filled(name, spec, headers, cohort.folder)
        job.batches()
        paired_patches(recipe, stage, cohort)
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
        headers = [cohort.header(case) for case in teaching]
        known = [header.statistics[name].all for header in headers if name in header.statistics]
        low = min((values.at(0) for values in known), default=0.0)
        high = max((values.at(100) for values in known), default=0.0)
        if recipe.intensity[name].window == PICTURES and (low < 0 or high > PICTURES[1]):
            text = f"intensity.{name} is the window of 8-bit pictures (0 to 255), and {name} has {low:.4g} to {high:.4g} {cohort.units[name]} here, of which all beyond the window is lost. Use another map: {intensity_key(name)}, or the window of your scans."
            yield message("window", text, grade="caution")
