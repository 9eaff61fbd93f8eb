"""Folders of this machine that the page may use, which are those below the server's root: what they hold, and new ones."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from voxlate.base.errors import BadInput
from voxlate.base.files import inside, safe_name

RECIPE, WEIGHTS = "recipe.toml", "weights.safetensors"  # of a run; see training.run.Run
ROOT = "ROOT"  # stands for the root folder in sentences
Content = Literal["scans", "prepared", "run"]
MOST_SHOWN = 500  # folders of a list
DEEPEST = 4  # folders between the root and a run
MOST_SEARCHED = 5000  # folders that are searched for runs


@dataclass(frozen=True)
class Place:
    """A folder below the root. place: its path from there, "." for the root itself; title: its name."""

    place: str
    title: str
    content: Content


@dataclass(frozen=True)
class Listing:
    """A folder with its subfolders. parents: from the root on; files: number of files; hidden: of folders not shown."""

    here: Place
    parents: list[Place]
    folders: list[Place]
    files: int
    hidden: int


def below_root(root: Path | None, text: str) -> Path:
    """The folder or file that a text names relative to the root; raises BadInput for any other place.

    Links that lead out of the root are refused. Whether another place exists is not said.
    """
    if root is None:
        raise BadInput(
            "folder: expected a server with a root folder, found a server without one. Ask who runs the server for one."
        )
    named = Path(text.strip().lstrip("/\\") or ".")
    if "\0" in text or named.is_absolute() or not inside(root, root / named):
        raise BadInput(
            "folder: expected a place below the root folder, found another. Choose one below it."
        )
    path = (root / named).resolve()
    # path.exists would raise an error for a name that is too long
    if not os.path.exists(path):
        raise BadInput(
            f"folder: expected {named.as_posix()!r} below the root folder, found nothing there. Check its name."
        )
    return path


def place_of(root: Path, path: Path) -> Place:
    """A folder as the page names it."""
    place = path.relative_to(root).as_posix()
    title = "the root folder" if place == "." else path.name
    return Place(place, title, content_of(path))


def content_of(path: Path) -> Content:
    """Whether a folder is a prepared cohort, a run, or another folder."""
    if os.path.isfile(path / "cohort.json"):  # which is False, too, where the folder cannot be read
        return "prepared"
    is_run = os.path.isfile(path / RECIPE) or os.path.isfile(path / WEIGHTS)
    return "run" if is_run else "scans"


def list_folder(root: Path | None, text: str) -> Listing:
    """The subfolders of a folder below the root, which raises BadInput where it cannot be read.

    Hidden folders, and links that lead out of the root, are counted and not shown.
    """
    path, root = below_root(root, text), below_root(root, ".")
    if not path.is_dir():
        raise BadInput("folder: expected a folder, found a file. Choose the folder that it is in.")
    try:
        entries = sorted(path.iterdir())
        folders = [entry for entry in entries if os.path.isdir(entry)]
    except OSError as error:
        raise BadInput(
            f"folder: expected one that can be read, found '{error.strerror}'. Choose another one."
        ) from error
    shown = [entry for entry in folders if not entry.name.startswith(".") and inside(root, entry)]
    shown = shown[:MOST_SHOWN]
    above = [parent for parent in reversed(path.parents) if parent.is_relative_to(root)]
    return Listing(
        place_of(root, path),
        [place_of(root, parent) for parent in above],
        [place_of(root, folder) for folder in shown],
        len(entries) - len(folders),
        len(folders) - len(shown),
    )


def new_folder(root: Path | None, text: str, apart_from: Path | None = None) -> Path:
    """The folder below the root into which a job writes; it must be new or empty.

    apart_from: a cohort, in which nothing may be written. Raises BadInput for other places.
    """
    root = below_root(root, ".")
    names = [name for name in text.strip().replace("\\", "/").split("/") if name]
    if not names:
        raise BadInput("new folder: expected a name, found none. Write one.")
    path = root.joinpath(*(safe_name(name, "new folder") for name in names))
    if not inside(root, path):
        raise BadInput(
            "new folder: expected a place below the root folder, found another. Choose one below it."
        )
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BadInput(
            f"new folder: expected a new name, found {'/'.join(names)!r}, which is there. Choose another name."
        )
    if apart_from is not None and inside(apart_from, path):
        raise BadInput(
            "new folder: expected a place outside of the cohort, found one inside, where it would be taken for scans. Choose a place beside it."
        )
    return path


def check_links(root: Path, folder: Path) -> None:
    """Raise BadInput where a link below a folder leads out of the root: what it leads to may not be read."""
    waiting = [folder.resolve()]
    seen = set()
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        for place, names, files in os.walk(here):
            linked = [path for name in (*names, *files) if (path := Path(place, name)).is_symlink()]
            for path in linked:
                if not inside(root, path):
                    raise BadInput(
                        f"{path.relative_to(root).as_posix()}: expected a link to a place below the root folder, found one that leads elsewhere. Remove it, or ask who runs the server for a root folder that has both."
                    )
            waiting += [path.resolve() for path in linked if path.is_dir()]


def find_runs(root: Path | None) -> dict[str, Path]:
    """The runs below the root that have weights, by their place; see DEEPEST and MOST_SEARCHED."""
    if root is None:
        return {}
    places = {}
    for path in islice(_folders(root, DEEPEST), MOST_SEARCHED):
        if content_of(path) == "run" and os.path.isfile(path / WEIGHTS):
            places[path.relative_to(root).as_posix()] = path
    return places


def _folders(path: Path, deepest: int) -> Iterator[Path]:
    """The folders below a folder, without links, hidden folders, and those inside of runs and prepared cohorts."""
    try:
        with os.scandir(path) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
            )
    except OSError:
        return
    for name in names:
        folder = path / name
        yield folder
        if deepest > 1 and content_of(folder) == "scans":
            yield from _folders(folder, deepest - 1)
