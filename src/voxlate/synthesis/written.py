"""The folder of a case's images: its provenance lists the files that voxlate wrote there, with their content."""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from voxlate.errors import BadInput
from voxlate.files import read_json, write_json
from voxlate.images.volume import content_hash, says_synthetic
from voxlate.scoring.provenance import provenance_of, read_provenance

Writer = Callable[[Path], object]

OTHERS = ("cohort.json", "weights.safetensors")  # of folders that prepare and train write
OF_SYNTHESIS = {"images", "cases", "synth"}  # keys of ours, one of which every provenance of a synthesis has


def write_images(folder: Path, images: Mapping[str, Writer], provenance: Mapping[str, Any]) -> list[str]:
    """Write images, by name of their file, and FOLDER/provenance.json; gives the earlier ones, which are removed.

    The provenance comes last: a folder that has one is whole. Raises BadInput where a scan has the name of an image.
    """
    check_free(folder, images)
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


def stated_synthesis(provenance: Path) -> dict[str, Any]:
    """What a provenance.json says of a synthesis; {} where it is of a run or of another tool."""
    stated = read_json(provenance)
    return read_provenance(provenance) if isinstance(stated, dict) and OF_SYNTHESIS & stated.keys() else {}


def check_folder(folder: Path) -> None:
    """Raise BadInput where a folder is a run or a prepared cohort, or its provenance.json is not of a synthesis."""
    path = folder / "provenance.json"
    foreign = [path.name] if path.is_file() and not stated_synthesis(path) else []
    if others := [name for name in OTHERS if (folder / name).is_file()] + foreign:
        raise BadInput(
            f"{folder}: expected a new folder, one of scans, or one that voxlate synth wrote, found {others[0]} of "
            "something else. Choose another folder."
        )


def check_free(folder: Path, names: Iterable[str]) -> None:
    """Raise BadInput where a file of one of these names is there that voxlate did not write: scans are not replaced."""
    check_folder(folder)
    listed = _listed(folder)
    for path in (folder / name for name in names if name not in listed):
        if path.is_file() and not says_synthetic(path.with_name(f"{path.name.split('.')[0]}.nii.gz")):
            raise BadInput(
                f"{path}: expected no file of this name that voxlate did not write, found one: is it the scan itself? "
                "Choose another --out."
            )


def is_unchanged(folder: Path) -> bool:
    """Whether the provenance lists images, and all of them are there as they were written."""
    listed = _listed(folder)
    return bool(listed) and all(_is(folder / name, content) for name, content in listed.items())


def _listed(folder: Path) -> dict[str, str]:
    listed: dict[str, str] = provenance_of(folder).get("images", {})
    return listed


def _is(path: Path, content: str) -> bool:
    return path.is_file() and content_hash(path) == content
