"""A folder of synthesised images: which files of it voxlate wrote, whether they are as they were written, and their writing."""

import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.files import read_json, relative_to, write_json
from voxlate.scans.formats.io import content_hash, has_content, is_picture, is_synthetic
from voxlate.synthesis.provenance import provenance_of, read_provenance

Writer = Callable[[Path], object]

SHARED_SECONDS = 60.0  # that one of several processes waits for another to write shared files
OTHERS = ("cohort.json", "weights.safetensors")  # files of the folders that prepare and train write
# Every provenance of a synthesis has one of these keys.
OF_SYNTHESIS = {"images", "cases", "synth"}
# Of the formats in which images may be written.
ENDINGS = ".nii.gz", ".nii", ".nrrd", ".mha"
WRITERS = 2  # files that are written at a time


def write_images(
    folder: Path,
    images: Mapping[str, Writer],
    provenance: Mapping[str, Any],
) -> list[str]:
    """Write images by the name of their file, and FOLDER/provenance.json; returns the older images, which are removed.

    The provenance is written last, so that a folder with one is complete. Raises BadInput where a scan has the name of
    an image.
    """
    check_free(folder, images)
    removed = remove_images(folder, keep=images)
    places = {folder / name: write for name, write in images.items()}
    if sys.platform == "emscripten":  # a browser has no threads
        for path, write in places.items():
            write(path)
    else:
        with ThreadPoolExecutor(WRITERS) as pool:  # zlib compresses outside Python's lock
            for _ in pool.map(lambda path: places[path](path), places):
                pass
    listed = {name: content_hash(folder / name) for name in images}
    write_json(folder / "provenance.json", {**provenance, "images": listed})
    return removed


def check_scans(folder: Path, inputs: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise BadInput where the images in a folder are of other scans: of other content, and from elsewhere.

    inputs: the entry of the provenance. A scan that was corrected in its place is the same one.
    """
    stated = provenance_of(folder).get("inputs")
    if stated is None or _without_path(stated) == _without_path(inputs):
        return
    places = {scan["path"] for scan in stated.values() if "path" in scan}
    if not any(
        scan.get("path") and os.path.normpath(folder / scan["path"]) in places
        for scan in inputs.values()
    ):
        raise BadInput(
            f"{folder}: expected no image of another scan, found that of {' and '.join(sorted(places)) or 'one in memory'}. Choose another folder, or remove this one."
        )


def _without_path(inputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What tells the scans of a provenance apart, wherever they are."""
    return {
        name: {key: value for key, value in scan.items() if key != "path"}
        for name, scan in inputs.items()
    }


def remove_images(folder: Path, keep: Collection[str] = ()) -> list[str]:
    """Remove the provenance of a folder, and the images in it that are unchanged since they were written."""
    listed = _hashes_of(folder).items()
    removed = [
        name for name, content in listed if name not in keep and has_content(folder / name, content)
    ]
    for name in removed:
        (folder / name).unlink()
    (folder / "provenance.json").unlink(missing_ok=True)
    return removed


def read_synthesis(provenance: Path) -> dict[str, Any]:
    """The content of the provenance.json of a synthesis; {} where it belongs to a run or to another tool."""
    stated = read_json(provenance)
    if not isinstance(stated, dict) or not OF_SYNTHESIS & stated.keys():
        return {}
    return read_provenance(provenance)


def check_folder(folder: Path) -> None:
    """Raise BadInput where a folder is a run or a prepared cohort, or its provenance.json is not of a synthesis."""
    path = folder / "provenance.json"
    others = [name for name in OTHERS if (folder / name).is_file()]
    if path.is_file() and not read_synthesis(path):
        others.append(path.name)
    if others:
        raise BadInput(
            f"{folder}: expected a new folder, one of scans, or one that voxlate synth wrote, found {others[0]} of something else. Choose another folder."
        )


def check_free(folder: Path, names: Iterable[str]) -> None:
    """Raise BadInput where a file has one of these names and voxlate did not write it: scans are not replaced."""
    check_folder(folder)
    listed = _hashes_of(folder)
    for name in names:
        path = folder / name
        if name in listed or not path.is_file():
            continue
        stem = name.split(".")[0]
        if not any(is_synthetic(path.with_name(f"{stem}{ending}")) for ending in ENDINGS):
            raise BadInput(
                f"{path}: expected no file of this name that voxlate did not write, found one: is it the scan itself? Choose another folder."
            )


def is_unchanged(folder: Path, ending: str = "") -> bool:
    """Whether the provenance lists images, all unchanged since they were written, and but for pictures with this ending."""
    listed = _hashes_of(folder)
    in_format = all(name.endswith(ending) or is_picture(Path(name)) for name in listed)
    return (
        bool(listed)
        and in_format
        and all(has_content(folder / name, content) for name, content in listed.items())
    )


def _hashes_of(folder: Path) -> dict[str, str]:
    """The hashes of the images that a folder's provenance lists, by file name."""
    return provenance_of(folder).get("images", {})


def place_from(path: Path, folder: Path) -> str:
    """A path relative to a folder: provenance has no absolute path, and remains valid if both are moved."""
    return relative_to(folder, path.resolve() if path.exists() else path.absolute())
