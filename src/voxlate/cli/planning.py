"""The command plan, and what train does where the recipe is called auto."""

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument

from voxlate.cli import resume
from voxlate.cli.app import err, note, say
from voxlate.cli.messages import note_briefly
from voxlate.cli.options import command
from voxlate.options.option import MAIN, PLAN, Device, Option, bytes_of
from voxlate.system.errors import BadInput

if TYPE_CHECKING:
    from voxlate.planning.plan import Plan
    from voxlate.recipe import Recipe

AUTO = "auto"
# Reasons of a plan that are printed without --verbose.
DECISIONS = (
    "data.source",
    "start_from",
    "stages",
    "method",
    "net.width",
    "train.steps",
    "minutes",
    "by hand",
    "planned for",
)
RANKED = "Methods for pairs come first on paired scans, then recipes whose patches are filled, which train on more cases, use more modalities, are the systems of a paper or of voxlate, and have measured results; then those that are quicker. The scores that a recipe reaches on the cohort are not predicted.\n"

Memory = Annotated[
    str | None,
    Option(
        "Memory of the training, such as 8GB. Default: most of the free memory.",
        panel=PLAN,
        metavar="SIZE",
    ),
]
Source = Annotated[
    list[str] | None, Option("Input modality. Repeatable.", panel=PLAN, metavar="NAME")
]
Target = Annotated[
    list[str] | None, Option("Modality to synthesise. Repeatable.", panel=PLAN, metavar="NAME")
]
Mode = Annotated[
    Literal["both", "mean", "samples"] | None,
    Option(
        "Prediction of the model: mean (a regression), or samples or both (a diffusion of its residual too).",
        panel=PLAN,
    ),
]
PlanFor = Annotated[
    str | None,
    Option(
        "GPU for which a run is planned without training: '24GB, 80 TFLOPS' (memory, peak in bfloat16).",
        panel=PLAN,
        metavar="GPU",
    ),
]


FromScratch = Annotated[
    bool,
    Option("Begin from random weights even where a starter fits.", panel=PLAN),
]


@command("plan PREPARED --minutes 20", "plan PREPARED --source t1 --target ct --memory 8GB")
def plan(
    data: Annotated[Path, Argument(metavar="PREPARED", help="Prepared cohort.")],
    to: Annotated[Path, Option("TOML file of the recipe.", flag="--out", panel=MAIN)] = Path(
        "plan.toml"
    ),
    minutes: Annotated[
        float | None, Option("Training time on this machine. Default: 60.", panel=MAIN, least=0)
    ] = None,
    source: Source = None,
    target: Target = None,
    memory: Memory = None,
    mode: Mode = None,
    from_scratch: FromScratch = False,
    plan_for: PlanFor = None,
    device: Device = "auto",
) -> None:
    """Choose a recipe for a prepared cohort, and explain it.

    The plan depends on the cohort, the training time and the memory.
    A few training steps are timed on this machine.
    """
    if to.suffix != ".toml" or to.is_dir():
        raise BadInput(
            f"--out: expected the name of a .toml file, found {to}. Write --out plan.toml."
        )
    if to.exists():
        raise BadInput(
            f"{to}: expected a new file, found one that is there. Choose another --out, or remove it."
        )
    options = given(
        source=source,
        target=target,
        minutes=minutes,
        memory=memory,
        mode=mode,
        plan_for=plan_for,
        from_scratch=from_scratch or None,
    )
    chosen = planned(data, {}, **options, device=device)
    chosen.save(to)
    for key, why in chosen.why.items():
        say(f"{key}: {why}.")
    say(
        f"{to} is the recipe. Next:  voxlate train {shlex.quote(str(to))} --data {shlex.quote(str(data))} --out RUN"
    )


def given(**options: Any) -> dict[str, Any]:
    """The options that the command line gives."""
    return {name: value for name, value in options.items() if value not in (None, [])}


def planned(
    data: Path,
    changes: Mapping[str, str],
    memory: str | None = None,
    allow_code: bool = False,
    **options: Any,
) -> "Plan":
    """The plan for a prepared cohort, with changes of its keys; messages of the probe go to stderr."""
    from voxlate.cli.api import plan as run

    memory_bytes = None if memory is None else bytes_of(memory, "--memory")
    plan = run(data, memory_bytes=memory_bytes, say=note_briefly, **options)
    return plan.changed(changes, allow_code)


def write_planned(
    data: Path,
    run: Path,
    changes: Mapping[str, str],
    options: Mapping[str, Any],
    *,
    device: str,
    fold: int | None,
    allow_code: bool,
) -> None:
    """Write the folder of a run that is planned for another machine, which trains it."""
    chosen = planned(data, changes, **options, device=device, fold=fold, allow_code=allow_code)
    chosen.write_run(run)
    for key, why in chosen.why.items():
        note(f"{key}: {why}.")
    of_fold = "" if fold is None else f" --fold {fold}"
    after = f"voxlate train auto --data {data} --out {run}{of_fold}"
    say(f"{run} is planned. Next, after copying {data} and {run} to the other machine:  {after}")


def auto_recipe(
    data: Path,
    run: Path,
    changes: Mapping[str, str],
    options: Mapping[str, Any],
    verbose: bool,
    *,
    device: str,
    fold: int | None,
    allow_code: bool,
) -> tuple["Recipe", str, "Plan | None"]:
    """The recipe that `train auto` trains, its head, and its plan.

    A run that has begun keeps its recipe, and has no plan (None).
    """
    from voxlate.planning.plan import check_same, planned_once

    def make() -> "Plan":
        return planned(data, changes, **options, device=device, fold=fold, allow_code=allow_code)

    recipe, head, new_plan = planned_once(run, make, device, allow_code)
    if new_plan is None:
        check_same(run, recipe, options.get("source", ()), options.get("target", ()))
        ignored = [*(f"--{name}" for name in options), *(f"--set {key}" for key in changes)]
        unused = (
            f"; {', '.join(ignored)} change nothing (another --out makes another plan)"
            if ignored
            else ""
        )
        note(f"{run / 'recipe.toml'} is resumed as it was planned{unused}.")
        return recipe, head, None
    shown = {key: why for key, why in new_plan.why.items() if verbose or key in DECISIONS}
    say(f"Plan (every key and its reason: {run / 'recipe.toml'}):", err)
    for key, why in shown.items():
        say(f"  {key:{max(map(len, shown))}}  {why}", err)
    return recipe, head, new_plan


def show_fits(data: Path, as_json: bool) -> None:
    """List the recipes that fit a prepared cohort, with their peculiarities; then, by reason, the others."""
    from voxlate.planning.fit import fits

    recipes = fits(data)
    if as_json:
        print(json.dumps([asdict(recipe) for recipe in recipes]))
        return
    fitting = [recipe for recipe in recipes if not recipe.against]
    say(
        f"{len(fitting)} of {len(recipes)} recipes and starters fit {data}; `voxlate train auto` plans one for it."
    )
    if fitting:
        say(RANKED)
    for number, recipe in enumerate(fitting, start=1):
        say(f"  {number}. {recipe.name}  {recipe.title}\n      {recipe.why}")
        for sentence in recipe.notes:
            say(f"      {sentence}")
    others = defaultdict[str, list[str]](list)
    for recipe in recipes:
        if recipe.against:
            others[recipe.against].append(recipe.name)
    for reason, names in others.items():
        say(f"\n{reason}:\n  {', '.join(names)}")


def minutes_of(text: str) -> float:
    """`--minutes` of train, which may also be +30; raises BadInput where it is no number of minutes for a plan."""
    if re.fullmatch(resume.MINUTES, text) is None:
        raise BadInput(
            f"--minutes: expected the minutes of a training, such as 60, found {text!r}. Write it so."
        )
    return float(text)
