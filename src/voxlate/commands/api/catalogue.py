"""What comes with voxlate: recipes and starters. Lists of them import no network, so that they are shown at once."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.groups import grouped
from voxlate.commands.api.entry import command
from voxlate.training.recipe import text as recipe_text
from voxlate.training.starters.names import FOLDER, PREFIX, folder_of, starter_names


@command
def recipes(
    name: str | None = None, *, cohort: Path | str | None = None, allow_code: bool = False
) -> Any:
    """The shipped recipes as a list of tables; the keys of one by its name; or those that fit a prepared cohort.

    name: recipe whose keys are returned.
    cohort: prepared cohort for which recipes are ranked, or refused with a reason.
    allow_code: import the code outside voxlate that a recipe's file names.
    """
    if cohort is not None:
        from voxlate.training.planning.fit import fits

        return [asdict(fit) for fit in fits(cohort)]
    if name is not None:
        from voxlate.training.recipe import read, to_dict

        return {"name": name, **to_dict(read(name, allow_code=allow_code))}
    return recipe_text.table_of_recipes()


def recipes_by_modalities() -> dict[str, list[dict[str, Any]]]:
    """The shipped recipes by source and target, such as "t1 → ct"; small: whether a recipe has a small variant."""
    rows = recipe_text.table_of_recipes()
    names = {row["name"] for row in rows}
    return grouped(
        (
            f"{' + '.join(row['source'])} → {' + '.join(row['target'])}",
            {**row, "small": recipe_text.small_variant(row["name"]) in names},
        )
        for row in rows
        if not row["name"].endswith(recipe_text.SMALL)
    )


def explain_recipe(name: str, allow_code: bool = False) -> str:
    """The text of a recipe, and every key with its default and meaning."""
    from voxlate.commands.api.explain import explain
    from voxlate.training.recipe import read

    return recipe_text.text_of(name) + "\n" + explain(read(name, allow_code=allow_code))


@command
def list_starters(check: bool = False) -> list[dict[str, Any]]:
    """The weights that come with voxlate, as a list of tables.

    check: compare the weights of each starter with its hash, and run its self-test.
    """
    names = starter_names()
    if check and not names:
        raise BadInput(
            f"starters --check: expected an installed starter to check, found none in {FOLDER}. Install a version of voxlate with starters, or leave --check out."
        )
    if check:
        from voxlate.training.starter import check_starter

        for name in names:
            check_starter(folder_of(name))
    from voxlate.training.starters.card import (
        read_card,  # imports NumPy, which a list of recipes does not
    )

    keys = ("title", "source", "target", "accepts", "bytes", "parameters", "trained_on")
    cards = {name: read_card(folder_of(name)) for name in names}
    rows = list[dict[str, Any]]()
    for name, card in cards.items():
        stated = {key: getattr(card, key) for key in keys}
        rows.append({"name": f"{PREFIX}{name}", **stated, "card": card.lines})
    return rows
