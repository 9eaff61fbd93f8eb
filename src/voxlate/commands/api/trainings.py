"""A training as `voxlate train` does it: of a recipe or of a plan."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from shlex import quote
from typing import Any, cast

from rich.console import Console

from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import Context, InProcess, Work, no_report, run_cases
from voxlate.base.executors.workers import choose_executor
from voxlate.base.messages import message
from voxlate.base.option import flag_of
from voxlate.commands.api.progress import Reporter
from voxlate.training.planning.plan import Plan
from voxlate.training.planning.planner import plan_training
from voxlate.training.processes import by_main, processes
from voxlate.training.recipe import Recipe, from_dict, head_of, read
from voxlate.training.recipe import text as recipe_text
from voxlate.training.run import Run, check_free
from voxlate.training.train import Beginning
from voxlate.training.train import train as train_recipe
from voxlate.training.training_options import AUTO, OF_PLAN, TrainOptions
from voxlate.training.weights import runs_of

WIDTH = 80  # columns of the table of a plan in a message
# Reasons of a plan that are printed.
DECISIONS = (
    "data.source",
    "start_from",
    "--mode",
    "stages.regression.net.width",
    "net.width",
    "--minutes",
    "--set",
)


def train_folds(recipe: Any, data: Path, out: Path, asked: TrainOptions, report: Reporter) -> Run:
    """Train a recipe, its folds or a plan into OUT, or resume what was stopped there."""
    given = (recipe, asked.set)
    recipe, changes = named = _with_names(given)
    # a class that Python gives is the caller's own
    asked = replace(asked, set=changes, allow_code=asked.allow_code or named != given)
    trainings = [(out, asked)]
    if asked.folds is not None:
        if asked.fold is not None:
            raise BadInput(
                f"--folds: expected no --fold with it, found {asked.fold}. Give one of the two."
            )
        trainings = [(fold_of(out, fold), replace(asked, fold=fold)) for fold in range(asked.folds)]
    executor = choose_executor(asked, asked.device)
    job = _Training(
        recipe, data, report if isinstance(executor, InProcess) else Reporter(no_report)
    )
    count = no_report if asked.folds is None else lambda _, *counts: report.step("folds", *counts)
    return cast(Run, run_cases(executor, job, trainings, count, report.say, Exception)[-1].result)


def fold_of(out: Path, fold: int) -> Path:
    """The folder of a fold's run."""
    return out / f"fold{fold}"


@dataclass(frozen=True)
class _Training:
    """The training of a recipe into one or more folders; report: of the process that trains."""

    recipe: Any
    data: Path
    report: Reporter
    uses_network: bool = True

    def open(self) -> Work:
        """The training into one folder."""
        return self._train

    def _train(self, training: tuple[Path, TrainOptions], context: Context) -> Run:
        """Train the recipe into a folder by its options, or resume it there."""
        recipe, (run, asked) = self.recipe, training
        report = replace(self.report, say=context.warn)
        named = f"{recipe}" if isinstance(recipe, Path | str) else "the recipe"
        if recipe == AUTO:
            return _train_planned(self.data, run, asked, report)
        if unfit := [*asked.changed_options("minutes", *OF_PLAN)]:
            raise BadInput(
                f"{flag_of(unfit[0])}: expected auto with it, found {named}. Drop it, or set another length by its key: --set train.steps=2000, say."
            )
        chosen, head = _read_recipe(recipe, asked)
        _say_last_stage(chosen, asked, report)
        return train_recipe(
            chosen,
            self.data,
            run,
            asked,
            beginning=Beginning(head),
            progress=report.step,
            say=report.say,
        )


def _with_names(value: Any) -> Any:
    """A recipe's value with "module:name" in place of each class or function."""
    if isinstance(value, Mapping):
        return {key: _with_names(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_with_names, value))
    if not callable(value):
        return value
    name = f"{value.__module__}:{value.__qualname__}"
    if getattr(sys.modules[value.__module__], value.__qualname__, None) is not value:
        raise BadInput(
            f"recipe: expected a class or function at the top level of a module, script or notebook, found {name}. Define it there."
        )
    return name


def _read_recipe(recipe: Any, asked: TrainOptions) -> tuple[Recipe, str]:
    """A recipe with its changes, and the comment lines at its head."""
    changes, allow_code = asked.set or {}, asked.allow_code
    if isinstance(recipe, Plan):
        return recipe.change(changes, allow_code).with_head
    if isinstance(recipe, Mapping):
        return from_dict(recipe_text.values_of(recipe, changes), "the recipe", allow_code), ""
    return read(str(recipe), changes, allow_code), head_of(str(recipe))


def _train_planned(data: Path, run: Path, asked: TrainOptions, report: Reporter) -> Run:
    """Plan a training and train it, or train a folder that was planned before."""
    changes = asked.set or {}
    if asked.init is not None:
        raise BadInput(
            f"--init: expected a recipe whose start is chosen by you, found auto, which chooses it itself. Write the plan with voxlate plan, and train that file with --init {quote(str(asked.init))}."
        )

    accelerator, _ = processes(asked.device)

    def make_plan() -> Plan | None:
        """A new plan with the changes of its keys; None where the folder is a run, which keeps its plan."""
        if Run(run).provenance.exists():
            return None
        check_free(Run(run))  # before minutes are spent on a plan
        if Run(run).recipe.exists():
            raise BadInput(
                f"{run}: expected a run or an empty folder to plan a training into, found a recipe.toml alone. Train it by its path in place of auto, or choose another --out."
            )
        runs_of(asked.reuse)
        plan = plan_training(
            data,
            asked,
            fold=asked.fold,
            settings=changes,
            allow_code=asked.allow_code,
            say=report.say,
            # A starter has a network of its own.
            from_scratch=asked.from_scratch
            or any(re.match(r"(stages\.regression\.)?net\b", key) for key in changes),
        )
        keys = DECISIONS if "start_from" in plan.why else ("--from-scratch", *DECISIONS)
        lines = StringIO()
        Console(file=lines, width=WIDTH).print(plan.table(keys))
        table = [line.rstrip() for line in lines.getvalue().splitlines() if line.strip()]
        text = f"{plan.sentence} Every key and its reason: {run / 'recipe.toml'}."
        report.say(message("plan", "\n".join([text, *table])))
        return plan

    # Probes of several processes would differ.
    plan = by_main(accelerator, make_plan)
    if plan is None:
        return _resume_plan(run, data, asked, report)
    recipe, head = plan.with_head
    beginning = Beginning(head, plan.budgets)
    return train_recipe(
        recipe, data, run, asked, beginning=beginning, progress=report.step, say=report.say
    )


def _resume_plan(run: Path, data: Path, asked: TrainOptions, report: Reporter) -> Run:
    """Resume a planned run, which keeps its plan."""
    ignored = [*map(flag_of, asked.changed_options(*OF_PLAN, "minutes"))]
    ignored += [f"--set {key}" for key in asked.set or {}]
    listed = ", ".join(ignored) or "options of a plan"
    text = f"{run / 'recipe.toml'} is resumed as it was planned; {listed} change nothing (another --out makes another plan)."
    report.say(message("resumed", text))
    recipe = from_dict(Run(run).origin["recipe"], f"{run}", asked.allow_code)
    return train_recipe(recipe, data, run, asked, progress=report.step, say=report.say)


def _say_last_stage(recipe: Recipe, asked: TrainOptions, report: Reporter) -> None:
    """State that changes of the training hold for the last stage alone, where a recipe has several."""
    tables = {key.split(".")[0] for key in asked.set or {}}
    own = sorted(tables & {"train", "net", "method", "opponent"})
    if own and recipe.stages:
        others = ", ".join(f"stages.{stage.name}.{own[0]}" for stage in recipe.stages)
        text = f"--set {own[0]}… changes the last stage alone; the others are {others}."
        report.say(message("last-stage", text))
