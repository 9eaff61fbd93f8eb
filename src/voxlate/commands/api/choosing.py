"""The commands that choose what is trained: recipes, starters, plan."""

import json
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from rich.text import Text

from voxlate.base.errors import BadInput
from voxlate.base.groups import grouped
from voxlate.base.option import AllowCode, MainOption, flag_of
from voxlate.commands.api.entry import Argument, Command, Place, plain
from voxlate.scans.layout_options import quote_path
from voxlate.training.training_options import AUTO, OF_PLAN, PlanOptions

if TYPE_CHECKING:
    from voxlate.training.planning.plan import Plan


def _recipe_lines(rows: Any, asked: Any) -> Iterator[Any]:
    from voxlate.training.recipe import text

    if asked.name is not None:
        from voxlate.training.recipe import read  # loads pydantic

        yield text.text_of(asked.name)
        yield "# Every key of this recipe, with its meaning:"
        yield from key_lines(read(asked.name, allow_code=asked.allow_code))
        return
    names = {row["name"] for row in rows}
    shown = [row for row in rows if not row["name"].endswith(text.SMALL)]
    notes = [text.SMALL if row["name"] + text.SMALL in names else "" for row in shown]
    yield from _lines_by_modalities(shown, notes)
    if asked.paper is None:
        yield f"\nThose of a paper, or all:  voxlate recipes --paper {' | '.join(text.papers())}"


@Command(
    """
    recipes t1_to_t2_brain
    recipes --paper mrdpm
    """,
    lines=_recipe_lines,
    reads=True,
)
def recipes(
    name: Annotated[
        str | None,
        Argument(
            "Recipe to print, with the meaning of every key.",
            metavar="NAME",
        ),
    ] = None,
    *,
    paper: Annotated[
        str | None,
        MainOption(
            "Paper whose recipes are listed: its system, baselines and ablations; all: every recipe.",
            metavar="NAME",
        ),
    ] = None,
    allow_code: AllowCode = False,
) -> list[dict[str, Any]] | dict[str, Any]:
    """List the shipped recipes to start from by source and target, or those of a paper, or print one.
    \f
    Returns:
        list[dict[str, Any]] | dict[str, Any]: Without a `name` a list of tables with the name, title, paper, source and target of each recipe; of a
            `name` the recipe with all its keys.

    Raises:
        BadInput: the recipe or paper is unknown, or it names code without allow_code.

    Example:
        >>> import voxlate
        >>> voxlate.recipes("t1_to_t2_brain")["data"]["target"]
        ['t2']
        >>> "phantom_t1_to_ct" in {recipe["name"] for recipe in voxlate.recipes()}
        True
    """
    if name is not None:
        from voxlate.training.recipe import read, to_dict

        return {"name": name, **to_dict(read(name, allow_code=allow_code))}
    from voxlate.training.recipe.text import table_of_recipes

    return table_of_recipes(paper)


def key_lines(settings: Any, table: str = "") -> Iterator[str]:
    """A line for each key, in the order of a recipe's tables: `# train.steps = 500  optimiser steps`."""
    from voxlate.base.config import key_types, meaning_of  # loads pydantic

    hints = key_types(type(settings))
    for key, value in vars(settings).items():
        if is_dataclass(value):
            yield from key_lines(value, f"{table}{key}.")
        elif key != "kind":
            text = json.dumps(plain(value), ensure_ascii=False)
            written = "unset" if value is None else text.replace('": ', '" = ')  # as in TOML
            yield f"# {table}{key} = {written}  {meaning_of(hints[key])}"


def _lines_by_modalities(rows: list[dict[str, Any]], notes: list[str]) -> Iterator[Any]:
    """Rows by source and target, such as "t1 → ct", each with its note."""
    width, wide = (max(map(len, texts)) for texts in ([row["name"] for row in rows], notes))
    pairs = (
        (
            f"{' + '.join(row['source'])} → {' + '.join(row['target'])}",
            f"  {row['name']:{width}}  {note:{wide}}  {row['title']}",
        )
        for row, note in zip(rows, notes)
    )
    for pair, lines in grouped(pairs).items():
        yield Text(f"\n{pair}", style="bold")
        yield from lines


def _starter_lines(starters: list[dict[str, Any]], asked: Any) -> Iterator[Any]:
    if not starters:
        yield "No starter is installed with this copy of voxlate: train a run (voxlate train auto)."
        return
    notes = [f"{starter['bytes'] / 1e6:.1f} MB, {starter['licence']}" for starter in starters]
    yield from _lines_by_modalities(starters, notes)
    if asked.name is not None:
        yield from ("", *starters[0]["card"])
        return
    yield f"\nWhat was measured, and the limits:  voxlate starters {starters[0]['name']}"
    yield "Next:  voxlate synth STARTER SCANS --out OUT, or with pairs of your own:  voxlate train auto --data PREPARED --out RUN"


@Command(
    """
    starters
    starters head-mr-to-ct
    """,
    name="starters",
    lines=_starter_lines,
    reads=True,
)
def list_starters(
    name: Annotated[
        str | None,
        Argument(
            "Starter of which all is printed: its training, scans, scores and limits.",
            metavar="NAME",
        ),
    ] = None,
) -> list[dict[str, Any]]:
    """List the weights that come with voxlate, or print one's card.
    \f
    Returns:
        list[dict[str, Any]]: A table for each starter, or for that of the `name`: name, title, source, target, bytes, licence,
            parameters and card.

    Raises:
        BadInput: no starter has the `name`.

    Example:
        >>> import voxlate
        >>> "starter:head-mr-to-ct" in [starter["name"] for starter in voxlate.list_starters()]
        True
    """
    from voxlate.training.starters.names import PREFIX, folder_of, starter_names

    folders = [folder_of(one) for one in (starter_names() if name is None else [name])]
    from voxlate.training.starters.card import read_card  # imports NumPy

    keys = ("title", "source", "target", "accepts", "bytes", "licence", "parameters", "trained_on")
    rows = []
    for folder in folders:
        card = read_card(folder)
        stated = {key: getattr(card, key) for key in keys}
        rows.append({"name": f"{PREFIX}{folder.name}", **stated, "card": card.lines})
    return rows


def _plan_lines(chosen: "Plan", asked: Any) -> Iterator[Any]:
    yield chosen.table()
    assumed = "" if asked.minutes else " 60 minutes are assumed without --minutes."
    yield f"{chosen.prediction}{assumed}"
    recipe = f"{AUTO}{_words(asked)}" if asked.out is None else quote_path(asked.out)
    yield f"Next:  voxlate train {recipe} --data {quote_path(asked.data)} --out RUN"


def _words(asked: Any) -> str:
    """The options of a plan that were asked for, for the training that makes the same plan."""
    words = []
    for name, value in asked.options.changed_options("minutes", *OF_PLAN).items():
        flag = f" {flag_of(name)}"
        each = value if isinstance(value, list | tuple) else [value]
        words += [flag if one is True else f"{flag} {quote(f'{one}')}" for one in each]
    return "".join(words)


def _plan_document(chosen: "Plan") -> dict[str, Any]:
    return {"tables": chosen.tables, "rows": chosen.rows, "prediction": chosen.prediction}


@Command(
    """
    plan PREPARED --minutes 20 --out plan.toml
    plan PREPARED --source t1 --target ct --memory 8GB
    """,
    lines=_plan_lines,
    document=_plan_document,
)
def plan(
    data: Annotated[Place, Argument("Prepared cohort.", metavar="PREPARED")],
    *,
    options: PlanOptions,
    out: Annotated[Place | None, MainOption("TOML file of the recipe.")] = None,
) -> "Plan":
    """Choose a recipe for a prepared cohort, and explain it.

    The plan depends on the cohort, the training time and the memory.
    A few training steps are timed on this machine. Where a starter fits, networks compete for a tenth of the minutes.
    \f
    Returns:
        Plan: The recipe as `tables`, the reason of each key (`why`, `rows`), the predicted `seconds` and `memory` (bytes), and
            `change` and `save`.

    Raises:
        BadInput: the cohort is not prepared or has no such modality; minutes or memory do not suffice; or `out` exists.

    Example:
        >>> import voxlate
        >>> plan = voxlate.plan("PREPARED", minutes=1, mode="mean", from_scratch=True)
        >>> plan.tables["data"]["source"], "net.width" in plan.why
        (['t1'], True)
    """
    from voxlate.training.planning.planner import plan_training

    to = None if out is None else Path(out)
    if to is not None and to.exists():
        raise BadInput(
            f"{to}: expected a new file, found one that is there. Choose another --out, or remove it."
        )
    chosen = plan_training(data, options)
    if to is not None:
        chosen.save(to)
    return chosen
