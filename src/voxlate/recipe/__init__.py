"""Recipes: one TOML file a result, with everything that the result depends on in addition to the data.

`text` reads recipes as plain tables and knows no key; `settings`, `training` and `optimiser` hold what the keys mean;
`checks` compares them with one another; `reading` turns one form into the other; `provenance` reads what runs and images
state of their making. The recipes of the package are in `shipped/`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from voxlate.recipe.text import head_of, header, names, table, text_of, values_of

if (
    TYPE_CHECKING
):  # the settings import all networks, which takes seconds; a list of recipes needs none of them
    from voxlate.recipe.checks import check_order, check_synthesis
    from voxlate.recipe.reading import (
        code_of,
        from_dict,
        ranges_of,
        read,
        stage_recipe,
        to_dict,
        with_steps,
        with_tables,
        with_trainings,
    )
    from voxlate.recipe.settings import FullStage, Recipe, Stage, Synthesis

__all__ = [
    "FullStage",
    "Recipe",
    "Stage",
    "Synthesis",
    "check_order",
    "check_synthesis",
    "code_of",
    "from_dict",
    "head_of",
    "header",
    "names",
    "ranges_of",
    "read",
    "stage_recipe",
    "table",
    "text_of",
    "to_dict",
    "values_of",
    "with_steps",
    "with_tables",
    "with_trainings",
]


def __getattr__(name: str) -> Any:
    """The settings and functions that import networks, when they are first used."""
    for module in ("settings", "checks", "reading") if name in __all__ else ():
        found = importlib.import_module(f"{__name__}.{module}")
        if hasattr(found, name):
            return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
