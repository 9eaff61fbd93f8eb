"""The folders of a cohort, and the scans, lists and other files that lie in them."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NoReturn

from voxlate.base.errors import BadInput, plural
from voxlate.base.files import MAPS, SYNTHETIC
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, quote_some
from voxlate.scans.cohorts.presets import NOTES
from voxlate.scans.formats.dicom import entries_in, folder_and_key, headers_of, is_dicom_folder
from voxlate.scans.formats.dicom_headers import text_of
from voxlate.scans.formats.io import endings_by_name, is_synthetic, scan_endings, without_ending

Folders = Sequence[tuple[Path, list[str]]]  # each with the names of its files
SYNTHESISED = "SYNTHETIC "  # with which the descriptions of exported DICOM series begin


def folders_below(root: Path, found: CohortFiles) -> Folders:
    """All folders from root down with the names of their files; hidden ones are left out.

    A folder is read once, under its own name where that is below root: links are followed last.
    """

    def note(error: OSError) -> None:
        """State a folder that may not be read."""
        found.unread.append(
            f"{error.filename}: expected a folder that may be read, found '{error.strerror}'"
        )

    visited = set()
    folders = list[tuple[Path, list[str]]]()
    twice = []
    starts = [root]
    for start in starts:  # grows by the links that are found
        for place, names, files in os.walk(start, onerror=note):
            folder, real = Path(place), Path(place).resolve()
            if real in visited:
                names.clear()
                if not folder.parent.resolve().is_relative_to(real):  # no link to a parent
                    twice.append(folder.relative_to(root).as_posix())
                continue
            visited.add(real)
            visible = sorted(name for name in names if not name.startswith("."))
            links = [name for name in visible if (folder / name).is_symlink()]
            names[:] = [name for name in visible if name not in links]
            starts += [folder / name for name in links]
            folders.append((folder, [name for name in files if not name.startswith(".")]))
            found.unread += filter(None, map(_broken_link, (folder / name for name in files)))
    if twice:
        found.unclaimed.append(
            f"{plural(len(twice), 'link')} to folders that are read under other names ({quote_some(twice)})"
        )
    return folders


def _broken_link(path: Path) -> str:
    """A sentence on a link that leads nowhere, else ""; links to scans are refused when the scans are read."""
    name = path.name.lower()
    is_read = name.startswith(".") or name.endswith((*scan_endings(), *NOTES))
    if is_read or not path.is_symlink() or path.exists():
        return ""
    return f"{path}: expected a folder or file, found a link that leads nowhere"


def image_paths(root: Path, folders: Folders, kinds: tuple[str, ...]) -> Iterator[str]:
    """Paths of image files and DICOM folders below root, relative, with '/'."""
    for folder, files in folders:
        place = folder.relative_to(root)
        images = [name for name in files if name.lower().endswith(kinds)]
        yield from ((place / name).as_posix() for name in images)
        if files and not images and folder != root and is_dicom_folder(folder):
            yield place.as_posix()


def is_synthesised(root: Path, path: str) -> bool:
    """Whether voxlate wrote an image: its prefix, or a map's ending and its header or a provenance above it, say so.

    Others call their scans t1_std, too.
    """
    stem = without_ending(Path(path).name)
    beside = (root / folder / "provenance.json" for folder in Path(path).parents)
    return stem.startswith(SYNTHETIC) or (
        stem.endswith(MAPS) and (is_synthetic(root / path) or any(map(Path.is_file, beside)))
    )


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
    if place.is_dir():
        with suppress(BadInput, IndexError):  # which reading the scan says
            ((image, header), *_) = headers_of(path if key else entries_in(place)[0]).items()
            return text_of(header, "SeriesDescription", image).startswith(SYNTHESISED)
        return False
    return is_synthetic(path)


def refuse_no_images(root: Path, folders: Folders, kinds: Sequence[str]) -> NoReturn:
    endings = {Path(name).suffix.lower() for _, names in folders for name in names}
    named = ", ".join(sorted(endings & {*endings_by_name()}))
    found = f"only {named}, which are read where a pattern names them" if named else "none"
    advice = "Name their layout by --preset or --pattern." if named else "Check the path."
    if is_dicom_folder(root):
        advice = "Put the DICOM files of each patient into a folder of their own."
    raise BadInput(
        f"{root}: expected images ({', '.join(kinds)}) or DICOM folders, found {found}: an empty cohort. {advice}"
    )


def folders_without_images(
    root: Path, cases: list[CaseFiles], folders: Folders, kinds: tuple[str, ...]
) -> list[str]:
    """Sentences on folders beside those of cases that hold files but no image of a known format."""
    paths = [*chain.from_iterable(case.paths.values() for case in cases)]
    levels = {path.parent.parent for path in paths if path.parent != root}
    with_cases = set(chain.from_iterable(path.parents for path in paths))
    sentences = []
    for folder, files in folders:
        data = sorted(name for name in files if not name.lower().endswith(NOTES))
        has_images = any(name.lower().endswith(kinds) for name in data)
        if data and not has_images and folder.parent in levels and folder not in with_cases:
            sentences.append(
                f"{folder.relative_to(root)}: no image of a kind that is read ({quote_some(data)})"
            )
    return sentences
