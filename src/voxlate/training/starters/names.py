"""Names in place of a run: starter:NAME means a folder of this package, hf://NAME/REPO one of a hub."""

from pathlib import Path
from typing import TypeGuard

from voxlate.base.errors import known_name
from voxlate.base.hub import download, is_on_hub

PREFIX = "starter:"
FOLDER = Path(__file__).parent
CARD = "card.toml"
FACTS = "facts.json"  # what a check asks of a starter or run, beside its weights


def is_starter(run: object) -> TypeGuard[Path | str]:
    """Whether a run is named as starter:NAME."""
    return isinstance(run, Path | str) and str(run).startswith(PREFIX)


def starter_names() -> list[str]:
    """The starters of this package, as starter:NAME."""
    return sorted(f"{PREFIX}{card.parent.name}" for card in FOLDER.glob(f"*/{CARD}"))


def folder_of(run: Path | str) -> Path:
    """The folder of starter:NAME; raises BadInput if no such starter is installed."""
    name = str(run).removeprefix(PREFIX)
    known = [one.removeprefix(PREFIX) for one in starter_names()]
    return FOLDER / known_name("starter", "the name of an installed starter", name, known)


def run_folder(run: Path | str) -> Path:
    """The path of a run; of starter:NAME and hf://NAME/REPO its folder."""
    if is_on_hub(run):
        return download(run)
    return folder_of(run) if is_starter(run) else Path(run)


def name_of(folder: Path) -> str | None:
    """The name of the starter that a folder of this package holds; None for any other folder."""
    is_one = folder.parent.resolve() == FOLDER.resolve() and (folder / CARD).is_file()
    return folder.name if is_one else None
