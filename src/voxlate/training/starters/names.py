"""Names of starters: starter:NAME in place of a run means a folder of this package."""

from pathlib import Path
from typing import TypeGuard

from voxlate.base.errors import BadInput, known_name

PREFIX = "starter:"
FOLDER = Path(__file__).parent
CARD = "card.toml"


def is_starter(run: object) -> TypeGuard[Path | str]:
    """Whether a run is named as starter:NAME."""
    return isinstance(run, Path | str) and str(run).startswith(PREFIX)


def starter_names() -> list[str]:
    """The names of the starters of this package."""
    return sorted(card.parent.name for card in FOLDER.glob(f"*/{CARD}"))


def starters_to_run() -> list[str]:
    """The starters of this package, as starter:NAME."""
    return [f"{PREFIX}{name}" for name in starter_names()]


def folder_of(run: Path | str) -> Path:
    """The folder of starter:NAME; raises BadInput if no such starter is installed."""
    name = str(run).removeprefix(PREFIX)
    known = starter_names()
    if not known:
        raise BadInput(
            f"{PREFIX}{name}: expected an installed starter, found none: no starter is installed with this copy of voxlate. Train a run, or install a version with starters."
        )
    return FOLDER / known_name("starter", "the name of an installed starter", name, known)


def name_of(folder: Path) -> str | None:
    """The name of the starter that a folder of this package holds; None for any other folder."""
    is_one = folder.parent.resolve() == FOLDER.resolve() and (folder / CARD).is_file()
    return folder.name if is_one else None
