"""The folder of a case's images: its provenance lists the files that voxlate wrote there, with their content."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from voxlate.files import write_json
from voxlate.images.volume import content_hash
from voxlate.scoring.provenance import provenance_of

Writer = Callable[[Path], object]


def write_case(folder: Path, images: Mapping[str, Writer], provenance: Mapping[str, Any]) -> list[str]:
    """Write images, by name of their file, and FOLDER/provenance.json; gives the earlier ones, which are removed.

    The provenance comes last: a folder that has one is whole.
    """
    removed = remove_images(folder, keep=images)
    for name, write in images.items():
        write(folder / name)
    listed = {name: content_hash(folder / name) for name in images}
    write_json(folder / "provenance.json", {**provenance, "images": listed})
    return removed


def remove_images(folder: Path, keep: Collection[str] = ()) -> list[str]:
    """Remove the provenance of a folder and the images that it lists, where they are still as they were written."""
    removed = [name for name, content in _listed(folder).items() if name not in keep and _is(folder / name, content)]
    for name in removed:
        (folder / name).unlink()
    (folder / "provenance.json").unlink(missing_ok=True)
    return removed


def is_unchanged(folder: Path) -> bool:
    """Whether the provenance lists images, and all of them are there as they were written."""
    listed = _listed(folder)
    return bool(listed) and all(_is(folder / name, content) for name, content in listed.items())


def _listed(folder: Path) -> dict[str, str]:
    listed: dict[str, str] = provenance_of(folder).get("images", {})
    return listed


def _is(path: Path, content: str) -> bool:
    return path.is_file() and content_hash(path) == content
