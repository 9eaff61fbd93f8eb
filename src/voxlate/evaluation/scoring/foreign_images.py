"""Images that other software wrote: the case and the modality of each by its path, for folders that synth did not write."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.formats.dicom import is_dicom_folder
from voxlate.scans.formats.io import scan_endings, without_ending
from voxlate.scans.images.units import unit_of

SYNTHETIC_CT = ("sct", "synct", "pct", "pseudoct", "syntheticct")


def recognise_images(
    out: Path, cases: Mapping[str, CaseFiles]
) -> tuple[dict[tuple[str, str], Path], list[str]]:
    """The images below a folder by case and modality, and the paths that name no case or no modality of it.

    A case is named where its whole name stands in a path, a modality where it stands in the rest of it; without one, an
    image is the case's only CT. Raises BadInput for two images of one case and modality.
    """
    found = dict[tuple[str, str], Path]()
    unknown = list[str]()
    by_length = sorted(cases, key=len, reverse=True)
    for path in _images_below(out):
        place = without_ending(path.relative_to(out).as_posix())
        named = (case for case in by_length if re.search(_whole(case), place))
        case = next(named, None)
        modality = (
            None if case is None else _modality_of(re.sub(_whole(case), " ", place), cases[case])
        )
        if case is None or modality is None:
            unknown.append(place)
            continue
        if other := found.get((case, modality)):
            raise BadInput(
                f"{out}: expected one {modality} of {case}, found {other.relative_to(out)} and {path.relative_to(out)}. Leave one of them in the folder."
            )
        found[case, modality] = path
    return found, unknown


def _whole(name: str) -> str:
    """A pattern of a name that is not a part of a longer one."""
    return rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])"


def _modality_of(rest: str, case: CaseFiles) -> str | None:
    """The modality of a case that a path names, or its only CT."""
    words = re.split(r"[^a-z0-9]+", rest.lower())
    for word in reversed(words):
        if word in case.files:
            return word
        if word in SYNTHETIC_CT and "ct" in case.files:
            return "ct"
    in_hu = [name for name in case.files if unit_of(name) == "HU"]
    return in_hu[0] if len(in_hu) == 1 else None


def _images_below(out: Path) -> Iterator[Path]:
    """The image files and DICOM series below a folder."""
    for place, folders, files in os.walk(out):
        folders.sort()
        if is_dicom_folder(Path(place)):
            folders.clear()
            yield Path(place)
            continue
        for name in sorted(files):
            if name.lower().endswith(scan_endings()):
                yield Path(place) / name
