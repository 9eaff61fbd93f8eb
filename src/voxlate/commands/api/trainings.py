"""A training as `voxlate train` does it: of a recipe or of a plan."""

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.messages import message
from voxlate.base.option import flag_of
from voxlate.commands.api.progress import Reporter
from voxlate.training.job import by_main, processes
from voxlate.training.planning.plan import Plan
from voxlate.training.planning.planner import plan_training
from voxlate.training.recipe import Recipe, from_dict, head_of, read
from voxlate.training.recipe import text as recipe_text
from voxlate.training.run import Run, check_free
from voxlate.training.train import Beginning
from voxlate.training.train import train as train_recipe
from voxlate.training.training_options import AUTO, OF_PLAN, TrainOptions
from voxlate.training.weights import runs_of


def train_folds(recipe: Any, data: Path, out: Path, asked: TrainOptions, report: Reporter) -> Run:
    """Train a recipe, its folds or a plan into OUT, or resume what was stopped there."""
    given = (recipe, asked.set)
    recipe, changes = named = _with_names(given)
    # a class that Python gives is the caller's own
    asked = replace(asked, set=changes, allow_code=asked.allow_code or named != given)
    if asked.folds is None:
        return _train(recipe, data, out, asked, report)
    if asked.fold is not None:
        raise BadInput(
            f"--folds: expected no --fold with it, found {asked.fold}. Give one of the two."
        )
    for fold in range(asked.folds):
        report.step("folds", fold, asked.folds)
        run = _train(recipe, data, out / f"fold{fold}", replace(asked, fold=fold), report)
    return run


def _train(recipe: Any, data: Path, out: Path, asked: TrainOptions, report: Reporter) -> Run:
    """Train a recipe or a plan into one folder."""
    beginning = Beginning()
    if recipe == AUTO:
        chosen, beginning = _planned(data, out, asked, report)
    elif unfit := [*asked.changed_options("minutes", *OF_PLAN)]:
        named = f"{recipe}" if isinstance(recipe, Path | str) else "the recipe"
        raise BadInput(
            f"{flag_of(unfit[0])}: expected auto with it, found {named}. Drop it, or set another length by its key: --set train.steps=2000, say."
        )
    elif isinstance(recipe, Plan):
        chosen, head = recipe.change(asked.set or {}, asked.allow_code).with_head
        beginning = Beginning(head)
    elif isinstance(recipe, Mapping):
        tables = recipe_text.values_of(recipe, asked.set)
        chosen = from_dict(tables, "the recipe", asked.allow_code)
    else:
        chosen = read(f"{recipe}", asked.set, asked.allow_code)
        beginning = Beginning(head_of(f"{recipe}"))
    return train_recipe(
        chosen, data, out, asked, beginning=beginning, progress=report.step, say=report.say
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


def _planned(
    data: Path, out: Path, asked: TrainOptions, report: Reporter
) -> tuple[Recipe, Beginning]:
    """The recipe of a plan and what its training begins with; a folder that was planned before keeps its plan."""
    if asked.init is not None:
        raise BadInput(
            f"--init: expected a recipe whose start is chosen by you, found auto, which chooses it itself. Write the plan with voxlate plan, and train that file with --init {quote(str(asked.init))}."
        )
    run, changes = Run(out), asked.set or {}

    def make_plan() -> Plan | None:
        """A new plan with the changes of its keys; None where the folder is a run, which keeps its plan."""
        if run.provenance.exists():
            return None
        check_free(run)  # before minutes are spent on a plan
        runs_of(asked.reuse)
        # a starter has a network of its own
        own_network = any(re.match(r"(stages\.regression\.)?net\b", key) for key in changes)
        plan = plan_training(
            data,
            asked,
            fold=asked.fold,
            settings=changes,
            allow_code=asked.allow_code,
            from_scratch=asked.from_scratch or own_network,
        )
        text = f"{plan.sentence} Every key and its reason: {run.recipe}."
        report.say(message("plan", text))
        return plan

    accelerator, _ = processes(asked.device)
    # probes of several processes would differ
    plan = by_main(accelerator, make_plan)
    if plan is not None:
        recipe, head = plan.with_head
        return recipe, Beginning(head, plan.budgets)
    text = f"{run.recipe} is resumed as it was planned; options of a plan and --set change nothing (another --out makes another plan)."
    report.say(message("resumed", text))
    return from_dict(run.origin["recipe"], f"{out}", asked.allow_code), Beginning()
