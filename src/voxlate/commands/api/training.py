"""The commands that train: plan, train, adapt, import_weights, calibrate."""

import re
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from rich.text import Text

from voxlate.base.errors import BadInput
from voxlate.base.messages import message
from voxlate.base.options.check import check_options
from voxlate.commands.api.entry import command
from voxlate.commands.api.next_steps import after_folds, after_training
from voxlate.commands.api.progress import Feedback, Reporter, report_to
from voxlate.evaluation.calibrate import calibrate as fit_intervals
from voxlate.evaluation.calibrate import find_calibration_cases, own_copy
from voxlate.evaluation.intervals.summary import sentences, table
from voxlate.evaluation.options.calibrate import CalibrateOptions
from voxlate.exchange.foreign import Stated
from voxlate.exchange.foreign_formats import READERS, import_model
from voxlate.exchange.pretrained import Source, import_autoencoder, net_changes
from voxlate.exchange.published import import_run
from voxlate.synthesis.model import Model
from voxlate.training.calibration_file import calibration_file
from voxlate.training.continuing import train_further
from voxlate.training.log_file import read_verdicts
from voxlate.training.model import load
from voxlate.training.options import AdaptOptions, ImportOptions, PlanOptions, TrainOptions
from voxlate.training.planning.adapt import adapt as adapt_run
from voxlate.training.planning.pace import read_pace
from voxlate.training.planning.plan import Plan, check_same, plan_once
from voxlate.training.planning.planner import plan_training
from voxlate.training.recipe import Recipe, from_dict, head_of, read, to_dict
from voxlate.training.recipe import text as recipe_text
from voxlate.training.run import Run
from voxlate.training.train import Beginning
from voxlate.training.train import train as train_recipe
from voxlate.training.verdict import colour_lines
from voxlate.training.weights import read_header, runs_of

AUTO = "auto"
MINUTES = r"(\d+\.?\d*|\.\d+)"
MORE = {"steps": r"\+[1-9]\d{0,7}", "minutes": rf"\+{MINUTES}"}
OF_PLAN = ("source", "target", "any_source", "memory_bytes", "mode", "from_scratch")
OF_RECIPE = ("changes", "start", "reuse", "fold", "folds", "small", *OF_PLAN)
FLAGS = {"changes": "--set", "start": "--init", "memory_bytes": "--memory"}
Publication = Literal[
    "xmodality", "kl-f4", "kl-f8", "diffusers", "monai", "nnunet", "konfai", "pix2pix"
]


@command
def plan(
    data: Path | str,
    options: PlanOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> Plan:
    """Choose a recipe for a prepared cohort, with a reason for each key; a few steps are timed on this machine.

    data: prepared cohort.
    """
    asked = check_options(PlanOptions, options, changes)
    with report_to(progress) as report:
        return plan_training(data, asked, say=report.say)


@command
def train(
    recipe: Plan | Recipe | Mapping[str, Any] | Path | str,
    data: Path | str | None = None,
    out: Path | str | None = None,
    options: TrainOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> Run:
    """Train a recipe, or resume or continue a run; the same call resumes a stopped training.

    recipe: "auto" (planned for the cohort), a plan, a shipped recipe, a TOML file, a table of keys, or a run to continue.
    data: prepared cohort; for a run only needed if the cohort was moved.
    out: output folder; not needed when continuing a run. With `folds`, the run of the last fold is returned.
    """
    asked = check_options(TrainOptions, options, changes)
    with report_to(progress) as report:
        if out is None and isinstance(recipe, Path | str) and Path(recipe).is_dir():
            return _continue(Path(recipe), None if data is None else Path(data), asked, report)
        asked = _importable(asked)
        if asked.folds is None:
            return _train_new(recipe, data, out, asked, report)
        if asked.fold is not None:
            raise BadInput(
                f"--folds: expected no --fold with it, found {asked.fold}. Give one of the two."
            )
        for fold in range(asked.folds):
            folder = None if out is None else fold_of(out, fold)
            done = _train_new(recipe, data, folder, replace(asked, fold=fold), report)
        return done


def fold_of(out: Path | str, fold: int) -> Path:
    """The folder of a fold's run."""
    return Path(out) / f"fold{fold}"


def _train_new(
    recipe: Any,
    data: Path | str | None,
    out: Path | str | None,
    asked: TrainOptions,
    report: Reporter,
) -> Run:
    """Train a recipe into a folder, or resume it there."""
    named = f"{recipe}" if isinstance(recipe, Path | str) else "the recipe"
    if asked.small:
        if recipe == AUTO or not isinstance(recipe, Path | str):
            raise BadInput(
                "--small: expected the name or the file of a recipe with a table [small], found another. Drop it."
            )
        recipe = recipe_text.small_variant(str(recipe))
    prepared, run = _check_places(named, data, out, asked)
    if recipe == AUTO:
        return _train_planned(prepared, run, asked, report)
    if of_plan := asked.changed_options(*OF_PLAN):
        raise BadInput(
            f"{_flag(next(iter(of_plan)))}: expected the recipe auto, which is planned, found {named}. Drop it."
        )
    chosen, head = _read_recipe(recipe, asked)
    _say_last_stage(chosen, asked, report)
    return train_recipe(
        chosen,
        prepared,
        run,
        asked,
        beginning=Beginning(head),
        progress=report.step,
        say=report.say,
    )


def _flag(name: str) -> str:
    """The name of an option of `train` in messages."""
    return FLAGS.get(name, f"--{name.replace('_', '-')}")


def _importable(asked: TrainOptions) -> TrainOptions:
    """The options with names in place of Python classes among the changes, whose code the caller has allowed so."""
    named = _with_names(dict(asked.changes or {}))
    if named == (asked.changes or {}):
        return asked
    return replace(asked, changes=named, allow_code=True)


def _with_names(value: Any) -> Any:
    """A recipe's value with "module:name" in place of each class or function."""
    if isinstance(value, Mapping):
        return {key: _with_names(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_names(inner) for inner in value]
    if not callable(value):
        return value
    name = f"{value.__module__}:{value.__qualname__}"
    if value.__module__ == "__main__" or "." in value.__qualname__:
        raise BadInput(
            f"recipe: expected a class or function that a later command can import, found {name}. Write it into a module, at its top level."
        )
    return name


def _check_places(
    named: str, data: Path | str | None, out: Path | str | None, asked: TrainOptions
) -> tuple[Path, Path]:
    """The cohort and the folder that a recipe needs; raises BadInput without them, or if a length is given."""
    lengths = {"steps": asked.steps, "minutes": None if named == AUTO else asked.minutes}
    for name, length in lengths.items():
        if length is not None:
            number = f"{length}".lstrip("+") if name == "steps" else "2000"
            raise BadInput(
                f"--{name}: expected a run's folder to train further, found the recipe {named}, whose length is a key: --set train.steps={number}, say. Write it so, or give the folder."
            )
    if data is None:
        raise BadInput(
            f"--data: expected a prepared cohort to train {named} on, found none. Add --data PREPARED."
        )
    if out is None:
        raise BadInput(
            f"--out: expected a folder for the run of {named}, found none. Add --out RUN."
        )
    return Path(data), Path(out)


def _continue(run: Path, data: Path | None, asked: TrainOptions, report: Reporter) -> Run:
    """Continue a run by `+N` steps or `+M` minutes, or resume it."""
    if unfit := [*asked.changed_options(*OF_RECIPE)]:
        raise BadInput(
            f"{_flag(unfit[0])}: expected a recipe with it, found the run {run}, which keeps its recipe. Drop it, or begin a new run with it from these weights: voxlate train {shlex.quote(str(run / 'recipe.toml'))} --data PREPARED --init {shlex.quote(str(run))} --out NEW."
        )
    lengths = {"steps": asked.steps, "minutes": asked.minutes}
    wanted = {
        name: f"{length}".removesuffix(".0")
        for name, length in lengths.items()
        if length is not None
    }
    if len(wanted) > 1:
        raise BadInput(
            f"--steps: expected --steps or --minutes, found both ({', '.join(wanted.values())}). Drop one."
        )
    for name, text in wanted.items():
        if not re.fullmatch(MORE[name], text) or float(text) == 0:
            digits = "of at most 8 digits, " if name == "steps" else ""
            raise BadInput(
                f"--{name}: expected a number above 0 after a +, {digits}of {name} in addition to those of {run}, found {text}. Write --{name} +30, say."
            )
    return train_further(
        run,
        steps=int(wanted["steps"]) if "steps" in wanted else None,
        minutes=float(wanted["minutes"]) if "minutes" in wanted else None,
        data=data,
        device=asked.device,
        allow_code=asked.allow_code,
        progress=report.step,
        say=report.say,
    )


def _read_recipe(recipe: Any, asked: TrainOptions) -> tuple[Recipe, str]:
    """A recipe with its changes, and the comment lines at its head."""
    changes, allow_code = asked.changes or {}, asked.allow_code
    if isinstance(recipe, Plan):
        return recipe.change(changes, allow_code).with_head
    if isinstance(recipe, Recipe):
        tables = recipe_text.apply_changes(to_dict(recipe), changes)
        return from_dict(tables, "the recipe", allow_code) if changes else recipe, ""
    if isinstance(recipe, Mapping):
        tables = _with_names(recipe)
        allow_code = allow_code or tables != recipe
        return from_dict(recipe_text.values_of(tables, changes), "the recipe", allow_code), ""
    return read(str(recipe), changes, allow_code), head_of(str(recipe))


def _train_planned(data: Path, run: Path, asked: TrainOptions, report: Reporter) -> Run:
    """Plan a training and train it, or train a folder that was planned before."""
    began = time.monotonic()
    changes = asked.changes or {}
    if asked.start is not None:
        raise BadInput(
            f"--init: expected a recipe whose start is chosen by you, found auto, which chooses it itself. Write the plan with voxlate plan, and train that file with --init {shlex.quote(str(asked.start))}."
        )

    def make_plan() -> Plan:
        """A new plan with the changes of its keys."""
        runs_of(asked.reuse)
        found = plan_training(
            data,
            asked,
            fold=asked.fold,
            settings=changes,
            allow_code=asked.allow_code,
            say=report.say,
            minutes=None if asked.minutes is None else _minutes(f"{asked.minutes}"),
            # A starter has a network of its own.
            from_scratch=asked.from_scratch
            or any(re.match(r"(stages\.0\.)?net\b", key) for key in changes),
        )
        report.plan(found.why, run / "recipe.toml")
        return found

    chosen, head, new_plan = plan_once(run, make_plan, asked.device, asked.allow_code)
    if new_plan is None:
        _say_resumed(run, chosen, asked, report)
        _say_last_stage(chosen, asked, report)
    beginning = Beginning(head, read_pace(run, chosen, report.say))
    done = train_recipe(
        chosen, data, run, asked, beginning=beginning, progress=report.step, say=report.say
    )
    if new_plan is not None:
        outcome = new_plan.outcome(done, time.monotonic() - began, asked.device)
        report.say(message("outcome", outcome))
        if any(verdict.outcome == "worse" for verdict in done.verdicts):
            report.say(message("help", new_plan.help(done)))
    return done


def _minutes(text: str) -> float:
    """The minutes of a plan; raises BadInput for another text, such as +30."""
    if re.fullmatch(MINUTES, text) is None:
        raise BadInput(
            f"--minutes: expected the minutes of a training, such as 60, found {text!r}. Write it so."
        )
    return float(text)


def _say_resumed(run: Path, recipe: Recipe, asked: TrainOptions, report: Reporter) -> None:
    """State that a planned run keeps its plan; raises BadInput where it was planned for other modalities."""
    check_same(run, recipe, asked)
    given = [_flag(name) for name in asked.changed_options(*OF_PLAN, "minutes")]
    ignored = [*given, *(f"--set {key}" for key in asked.changes or {})]
    listed = f"{', '.join(ignored)} change nothing (another --out makes another plan)"
    unused = f"; {listed}" if ignored else ""
    text = f"{run / 'recipe.toml'} is resumed as it was planned{unused}."
    report.say(message("resumed", text))


def _say_last_stage(recipe: Recipe, asked: TrainOptions, report: Reporter) -> None:
    """State that changes of the training hold for the last stage alone, where a recipe has several."""
    tables = {key.split(".")[0] for key in asked.changes or {}}
    own = sorted(tables & {"train", "net", "method", "opponent"})
    if own and recipe.stages:
        others = ", ".join(f"stages.{stage.name}.{own[0]}" for stage in recipe.stages)
        text = f"--set {own[0]}… changes the last stage alone; the others are {others}."
        report.say(message("last-stage", text))


def describe_trained(
    run: Run, allow_code: bool = False, folds: int | None = None
) -> list[Text | str]:
    """What the command line prints of a trained run, the last of `folds`: its weights, the next command, and its verdicts."""
    weights = run.weights()
    recipe = from_dict(read_header(weights)["recipe"], f"{weights}", allow_code)
    after = after_training(run.folder, recipe.data, recipe.task.completes)
    if folds is not None:
        after = after_folds([fold_of(run.folder.parent, fold) for fold in range(folds)])
    found: list[Text | str] = [f"{weights} is the model. Next:  voxlate {after}"]
    by_stage = read_verdicts(run.log)
    for stage, verdict in by_stage.items():
        if stage != "final":
            found.append(Text.assemble(f"stage '{stage}': ", colour_lines(verdict)))
    final = by_stage.get("final")
    none = "– no verdict: no validation case has the source and the target modalities"
    return [*found, colour_lines(final) if final else none]


@command
def adapt(
    run: Path | str,
    data: Path | str,
    out: Path | str,
    options: AdaptOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> Run:
    """Continue a run or starter on a few cases of another site, in a run of its own.

    The learning rate is lower, and the weights with the least error on held-out cases are kept.

    run: run folder, weights file, starter:NAME or hf://NAME/REPO.
    data: prepared cohort of the other site, with a held-out case.
    out: output folder.
    """
    asked = check_options(AdaptOptions, options, changes)
    with report_to(progress) as report:
        return adapt_run(run, data, out, asked, progress=report.step, say=report.say)


@command
def import_weights(
    source: Publication,
    weights: Path | str,
    out: Path | str,
    options: ImportOptions | None = None,
    **changes: Any,
) -> Run:
    """Convert published weights into a run: a network that synthesise accepts, or an autoencoder for train's `reuse`.

    source: "xmodality"; "kl-f4" or "kl-f8" for an autoencoder of latent diffusion, which takes no changes; or the
        package of a model: "diffusers", "monai", "nnunet", "konfai" or "pix2pix".
    weights: published file (safetensors); a package's own folder or file.
    out: output folder.
    """
    asked = check_options(ImportOptions, options, changes)
    recipe = None if asked.recipe is None else str(asked.recipe)
    if source in READERS:
        stated = Stated(recipe, asked.changes or {}, asked.spacing_mm, asked.any_spacing)
        return import_model(source, Path(weights), stated, Path(out))
    if recipe or asked.spacing_mm or asked.any_spacing:
        raise BadInput(
            f"import: expected no recipe and no spacing with {source}, whose preprocessing was published, found one. Drop --recipe, --spacing and --any-spacing."
        )
    if source == "xmodality":
        return import_run(Path(weights), Path(out), asked.changes or {})
    if asked.changes:
        found = next(iter(asked.changes))
        raise BadInput(
            f"--set: expected none with {source}, whose file states all keys, found {found!r}. Drop it."
        )
    return import_autoencoder(cast(Source, source), Path(weights), Path(out))


def describe_imported(run: Run) -> list[str]:
    """What the command line prints of imported weights: the next command."""
    out = run.folder
    if read_header(run.weights())["recipe"]["method"]["kind"] != "autoencoding":
        return [f"{run.weights()} is the model. Next:  voxlate synth {out} SCANS --out OUT"]
    return [
        f"{run.weights()} is the autoencoder. Next:",
        f"  voxlate train LATENT_RECIPE --data PREPARED --out RUN --reuse {out} {net_changes(run)}",
    ]


@dataclass(frozen=True)
class Fitted:
    """A calibration: its file and what it states; the compared methods; its sentences; samples of the synthesis."""

    path: Path
    stated: Mapping[str, Any]
    compared: Any
    sentences: list[str]
    samples: int


@command
def calibrate(
    run: Model | Path | str,
    cohort: Path | str,
    options: CalibrateOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> list[str]:
    """Fit prediction intervals and error bounds on held-out patients; returns what they state, a sentence each.

    The calibration is written into the run; synthesise then writes bounds. The same call resumes a stopped calibration.

    run: run folder, into which the calibration is written, a loaded model, or starter:NAME or hf://NAME/REPO with `out`.
    cohort: cases with true scans that training did not use.
    """
    asked = check_options(CalibrateOptions, options, changes)
    return fit_calibration(run, Path(cohort), asked, progress).sentences


def fit_calibration(
    run: Model | Path | str, cohort: Path, asked: CalibrateOptions, progress: Feedback
) -> Fitted:
    """Fit prediction intervals as `calibrate` does; a new copy of a starter is removed where it cannot be calibrated."""
    new = None if asked.out is None or Path(asked.out).exists() else Path(asked.out)
    try:
        if isinstance(run, Model):
            model, asked = run, replace(asked, device=f"{run.device}")
        else:
            model = load(own_copy(run, asked.out), asked.device, asked.allow_code, asked.answer)
        keys = {"samples": asked.samples, **(asked.synth or {})}
        model = model.with_options(asked.allow_code, **keys)
        cases = find_calibration_cases(model, cohort, asked)
        with report_to(progress) as report:
            fitted = fit_intervals(model, cases, asked, progress=report.step, warn=report.say)
    except (BadInput, OSError):
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)
        raise
    header = fitted.header
    samples = model.facts.synth.samples
    return Fitted(calibration_file(model), fitted.entry, table(header), sentences(header), samples)
