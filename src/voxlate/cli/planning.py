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
from voxlate.cli.app import note, say
from voxlate.cli.options import command
from voxlate.errors import BadInput
from voxlate.options import MAIN, PLAN, SIZES, Device, Option

if TYPE_CHECKING:
    from voxlate.planning.plan import Plan
    from voxlate.recipe import Recipe

AUTO = "auto"
RANKED = (
    "The first fills its patches best; among equals come those that learn from more cases, use more modalities, have "
    "less that is unusual, and take fewer steps. What a recipe reaches on the cohort is not predicted.\n"
)

Memory = Annotated[
    str | None,
    Option("Memory of the training, such as 8GB. Default: most of the free memory.", panel=PLAN, metavar="SIZE"),
]
Source = Annotated[list[str] | None, Option("Input modality. Repeatable.", panel=PLAN, metavar="NAME")]
Target = Annotated[list[str] | None, Option("Modality to synthesise. Repeatable.", panel=PLAN, metavar="NAME")]
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


@command("plan PREPARED --minutes 20", "plan PREPARED --source t1 --target ct --memory 8GB")
def plan(
    data: Annotated[Path, Argument(metavar="PREPARED", help="Prepared cohort.")],
    to: Annotated[Path, Option("TOML file of the recipe.", flag="--out", panel=MAIN)] = Path("plan.toml"),
    minutes: Annotated[float | None, Option("Training time on this machine. Default: 60.", panel=MAIN, least=0)] = None,
    source: Source = None,
    target: Target = None,
    memory: Memory = None,
    mode: Mode = None,
    plan_for: PlanFor = None,
    device: Device = "auto",
) -> None:
    """Choose a recipe for a prepared cohort, and explain it.

    The plan follows from the cohort, the training time and the memory; a few steps are tried on this machine. The
    output is an ordinary recipe that can be edited and trained.
    """
    if to.suffix != ".toml" or to.is_dir():
        raise BadInput(f"--out: expected the name of a .toml file, found {to}. Write --out plan.toml.")
    if to.exists():
        raise BadInput(f"{to}: expected a new file, found one that is there. Choose another --out, or remove it.")
    wishes = given(source=source, target=target, minutes=minutes, memory=memory, mode=mode, plan_for=plan_for)
    made = planned(data, {}, **wishes, device=device)
    made.save(to)
    for key, why in made.why.items():
        say(f"{key}: {why}.")
    say(f"{to} is the recipe. Next:  voxlate train {shlex.quote(str(to))} --data {shlex.quote(str(data))} --out RUN")


def given(**options: Any) -> dict[str, Any]:
    """Those of the options that the command line gives."""
    return {name: value for name, value in options.items() if value not in (None, [])}


def planned(data: Path, changes: Mapping[str, str], memory: str | None = None, **wishes: Any) -> "Plan":
    """The plan for a prepared cohort, with changes of its keys; what the probe finds is said."""
    from voxlate.cli.api import plan as run

    memory_bytes = None if memory is None else _bytes(memory)
    return run(data, memory_bytes=memory_bytes, say=note, **wishes).changed(changes)


def write_planned(
    data: Path, run: Path, changes: Mapping[str, str], wishes: Mapping[str, Any], *, device: str, **options: Any
) -> None:
    """Write the folder of a run that is planned for another machine, which trains it."""
    made = planned(data, changes, **wishes, device=device, **options)
    made.write_run(run)
    for key, why in made.why.items():
        note(f"{key}: {why}.")
    fold = "" if options.get("fold") is None else f" --fold {options['fold']}"
    after = f"voxlate train auto --data {data} --out {run}{fold}"
    say(f"{run} is planned. Next, where {data} and {run} are copied to:  {after}")


def auto_recipe(
    data: Path, run: Path, changes: Mapping[str, str], wishes: Mapping[str, Any], *, device: str, **options: Any
) -> tuple["Recipe", str, "Plan | None"]:
    """The recipe that `train auto` trains, and its head: the run's own where it has begun, else of a new plan."""
    from voxlate.planning.plan import check_same, planned_once

    recipe, head, made = planned_once(run, lambda: planned(data, changes, **wishes, device=device, **options), device)
    if made is None:
        check_same(run, recipe, wishes.get("source", ()), wishes.get("target", ()))
        asked = [*(f"--{name}" for name in wishes), *(f"--set {key}" for key in changes)]
        unused = f"; {', '.join(asked)} change nothing (another --out makes another plan)" if asked else ""
        note(f"{run / 'recipe.toml'} is resumed as it was planned{unused}.")
    for key, why in made.why.items() if made else ():
        note(f"{key}: {why}.")
    return recipe, head, made


def show_fits(data: Path, as_json: bool) -> None:
    """List the recipes that fit a prepared cohort, with what is not as usual; then, by reason, those that do not."""
    from voxlate.planning.fit import fits

    found = fits(data)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    fitting = [one for one in found if not one.against]
    say(f"{len(fitting)} of {len(found)} recipes fit {data}; `voxlate train auto` plans one for it.")
    if fitting:
        say(RANKED)
    for number, one in enumerate(fitting, start=1):
        say(f"  {number}. {one.name}  {one.title}\n      {one.why}")
        for sentence in one.notes:
            say(f"      {sentence}")
    others = defaultdict[str, list[str]](list)
    for one in found:
        if one.against:
            others[one.against].append(one.name)
    for reason, names in others.items():
        say(f"\n{reason}:\n  {', '.join(names)}")


def minutes_of(text: str) -> float:
    """`--minutes` of train, which may also be +30; raises BadInput where it is no number of minutes for a plan."""
    if re.fullmatch(resume.MINUTES, text) is None:
        raise BadInput(f"--minutes: expected how long a training may take, such as 60, found {text!r}. Write it so.")
    return float(text)


def _bytes(text: str) -> float:
    """8GB, 500 MB or 2g as bytes."""
    found = re.fullmatch(rf"\s*{resume.MINUTES}\s*([kmgt]?)i?b?\s*", text.lower())
    if found is None or not float(found[1]):
        raise BadInput(f"--memory: expected a size such as 8GB, found {text!r}. Write it so.")
    return float(found[1]) * SIZES[found[2]]
