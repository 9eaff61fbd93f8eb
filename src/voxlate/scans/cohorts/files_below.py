"""The files below a cohort's folder: scans, DICOM folders, lists, images that voxlate synthesised, and what is none of them."""

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.files import SYNTHETIC, read_json
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, quote_some
from voxlate.scans.cohorts.path_names import split_folders
from voxlate.scans.cohorts.presets import Preset, is_skipped
from voxlate.scans.cohorts.split_lists import NO_LISTS, NOTES, may_be_list
from voxlate.scans.formats.dicom import (
    entries_in,
    folder_and_key,
    holds_image,
    images_of,
    is_dicom_folder,
)
from voxlate.scans.formats.io import (
    endings_by_name,
    holds_slices,
    is_synthetic,
    scan_endings,
)

Folders = Sequence[tuple[Path, list[str]]]  # each with the names of its files
SYNTHESISED = "SYNTHETIC "  # with which the descriptions of exported DICOM series begin
PROVENANCE = "provenance.json"
SKIPPED = "images of names or folders that the layout skips"
OF_VOXLATE = "images that were synthesised"
NO_IMAGES = "DICOM objects that are no images"


def folders_below(root: Path, found: CohortFiles) -> Folders:
    """All folders from root down with the names of their files; hidden ones are left out.

    A folder is read once, under its own name where that is beside a link to it: links are followed last. Folders of splits
    come first, as theirs may lead to folders of all scans.
    """
    visited = set[Path]()
    twice = list[str]()
    folders = []
    closed = list[OSError]()
    for place, names, files in os.walk(root, onerror=closed.append, followlinks=True):
        folder, real = Path(place), Path(place).resolve()
        visible = sorted(name for name in names if not name.startswith("."))
        links = [name for name in visible if (folder / name).is_symlink()]
        own = [name for name in visible if name not in links]
        of_splits = sorted(split_folders(f"{name}/scan" for name in own))
        names[:] = dict.fromkeys([*of_splits, *own, *links])
        if real in visited:
            twice.append((folder.relative_to(root) / "scan").as_posix())
            names.clear()
            continue
        visited.add(real)
        folders.append((folder, sorted(name for name in files if not name.startswith("."))))
    found.note(
        found.unread,
        split_folders(twice),
        "folders that may state a split by links to scans that are read elsewhere",
    )
    found.unread += [
        f"{error.filename}: expected a folder that may be read, found '{error.strerror}'"
        for error in closed
    ]
    return folders


def images_below(base: Path, folders: Folders, layout: Preset, found: CohortFiles) -> list[str]:
    """The paths of scans and DICOM folders that a layout may claim, relative to base, with '/'; others are noted.

    Raises BadInput where there are none.
    """
    patterns = " ".join(pattern for _, pattern in layout.forms).lower()
    named = [ending for ending in endings_by_name() if ending in patterns]
    kinds = () if layout.series else (*scan_endings(), *named)
    every = _paths_of(base, folders, kinds)
    if not every and not layout.series:
        # folders of scans have previews and tables of these endings
        every = _paths_of(base, folders, endings_by_name())
    outputs = {folder / name for folder, names in folders for name in _outputs_in(folder, names)}
    reasons = dict.fromkeys(every, "")
    for path in every:
        scan = base / path
        if is_skipped(path, layout):
            reasons[path] = SKIPPED
        elif scan in outputs or scan.name.startswith(SYNTHETIC):
            reasons[path] = OF_VOXLATE
        elif scan.is_dir() and not holds_image(scan):
            reasons[path] = NO_IMAGES
    paths = grouped((reason, path) for path, reason in reasons.items())
    if "" not in paths:
        raise BadInput(
            f"{base}: expected images ({', '.join((*scan_endings(), *endings_by_name()))}) or DICOM folders, found {' and '.join(paths) or 'none'}: an empty cohort. Check the path, or name the layout by --preset or --pattern."
        )
    taken = paths.pop("")
    for reason, others in paths.items():
        found.note(found.unclaimed, others, reason)
    return taken


def _paths_of(base: Path, folders: Folders, kinds: tuple[str, ...]) -> list[str]:
    """Paths of files with these endings, and of DICOM folders without such files."""
    paths = list[Path]()
    for folder, files in folders:
        images = [folder / name for name in files if name.lower().endswith(kinds)]
        is_series = files and not images and is_dicom_folder(folder)
        paths += [folder] if is_series else images
    return sorted(path.relative_to(base).as_posix() for path in paths)


def _outputs_in(folder: Path, names: Collection[str]) -> Collection[str]:
    """The images in a folder that voxlate synthesised, as the provenance beside them states."""
    if PROVENANCE in names:
        with suppress(BadInput):  # another tool's
            stated = read_json(folder / PROVENANCE)
            if isinstance(stated, dict) and "voxlate" in stated:
                return {*stated.get("images", ())} & {*names}
    return ()


def refuse_synthetic(cases: Iterable[CaseFiles], names: Collection[str] | None = None) -> None:
    """Raise BadInput where a scan of a cohort is an image that voxlate synthesised; names: of scans, by default all."""
    for case in cases:
        for name, path in case.files.items():
            if (names is None or name in names) and _states_synthesis(path):
                raise BadInput(
                    f"{path}: expected a scan of the patient, found an image that voxlate synthesised, which is no truth and no source to learn from. Take the scan, or leave the case out (--exclude)."
                )


def _states_synthesis(path: Path) -> bool:
    """Whether the file, or the description of a DICOM series, says so."""
    place, key = folder_and_key(path)
    if not place.is_dir():
        return is_synthetic(path)
    with suppress(BadInput, IndexError):  # which reading the scan says
        first = images_of(path if key else entries_in(place)[0])[0]
        return first.text("SeriesDescription").startswith(SYNTHESISED)
    return False


def folders_without_images(root: Path, cases: Sequence[CaseFiles], folders: Folders) -> list[str]:
    """Sentences on folders beside those of cases that hold files but no image of a known format, nor notes."""
    paths = [path for case in cases for path in case.paths.values()]
    levels = {path.parent.parent for path in paths if path.parent != root}
    with_cases = {folder for path in paths for folder in path.parents}
    known = (*NOTES, *NO_LISTS, *scan_endings())
    return [
        f"{folder.relative_to(root)}: no image of a kind that is read ({quote_some(files)})"
        for folder, files in folders
        if files and folder.parent in levels and folder not in with_cases
        if not any(name.lower().endswith(known) for name in files)
    ]


def lists_below(root: Path, folders: Folders, layout: Preset) -> list[Path]:
    """The files below root that may be lists, without those that the layout leaves out."""
    files = [folder / name for folder, names in folders for name in names]
    return [
        path
        for path in files
        if (path.suffix.lower() in NOTES or (may_be_list(path.name) and _is_readable(path)))
        and not is_skipped(path.relative_to(root).as_posix(), layout)
    ]


def _is_readable(path: Path) -> bool:
    """Whether a file of another ending is an array or a text, and no DICOM file that is called as a test."""
    try:
        with path.open("rb") as file:
            return holds_slices(path) or b"\0" not in file.read(1024)
    except OSError:  # a link that leads nowhere
        return False
