"""Images that other software wrote: the case and the modality of each by its path, and what their values say."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.messages import Message
from voxlate.checks.check_table import exact_messages
from voxlate.checks.truths import SketchedTruth
from voxlate.scans.cohorts.case_files import KNOWN, CaseFiles
from voxlate.scans.cohorts.path_names import scans_named
from voxlate.scans.formats.dicom import is_dicom_folder
from voxlate.scans.formats.io import scan_endings, without_ending
from voxlate.scans.images.units import unit_of

MADE = (
    "pred",
    "prediction",
    "predicted",
    "fake",
    "synth",
    "synthetic",
    "generated",
    "output",
    "result",
)
SYNTHETIC_CT = (
    "sct",
    "synct",
    "pct",
    "pseudoct",
    "syntheticct",
)


def value_messages(label: str, truth: SketchedTruth) -> list[Message]:
    """Messages on a CT of other software whose values are not those of a CT."""
    if truth.unit != "HU":
        return []
    return [said.on(label) for said in exact_messages(truth.sketch.image, "HU", "synthetic CT")]


def recognise_images(
    out: Path, cases: Mapping[str, CaseFiles]
) -> tuple[dict[tuple[str, str], Path], list[str]]:
    """The images below a folder by case and modality, and the paths that name no case or no modality of it.

    The file's own name comes before those of its folders. A name of two cases or two modalities says nothing; an
    image is the case's only CT where no word says what else it is. Raises BadInput for two images of one case and modality.
    """
    images = dict[tuple[str, str], Path]()
    unknown = list[str]()
    for path in _images_below(out):
        place = without_ending(path.relative_to(out).as_posix())
        case, rest = _case_of(place, cases)
        modality = None if case is None else _modality_of(rest, cases[case])
        if case is None or modality is None:
            unknown.append(place)
            continue
        if other := images.get((case, modality)):
            raise BadInput(
                f"{out}: expected one {modality} of {case}, found {other.relative_to(out)} and {path.relative_to(out)}. Leave one of them in the folder."
            )
        images[case, modality] = path
    return images, unknown


def names_apart(out: Path, cases: Mapping[str, CaseFiles]) -> str:
    """What the first image of a case is called below a folder, what the truths of this case are, and a preset that names one so; "" without such an image."""
    for path in _images_below(out):
        place = without_ending(path.relative_to(out).as_posix())
        case, rest = _case_of(place, cases)
        if case is None:
            continue
        truths = cases[case].files
        name = re.sub(r"\W+", "_", rest).strip("_").lower() or "ct"
        stem = without_ending(next(iter(truths.values())).name).replace(case, "{case}")
        form = stem if "{case}" in stem else f"{{case}}/{stem}"
        return f'; {place} is of the case {case}, whose truths are named {", ".join(truths)}. If one of them is its truth, name it as the image: --preset FILE.toml with the lines [files] and {name} = "{form}" (the truth\'s path), or rename the images'
    return ""


def _case_of(place: str, cases: Collection[str]) -> tuple[str | None, str]:
    """The one case that the last part of a path with a case's name has, and the path without it."""
    parts = place.split("/")
    for level in reversed(range(len(parts))):
        rest = parts[level]
        named = list[str]()
        for case in sorted(cases, key=len, reverse=True):
            whole = rf"(?<![A-Za-z0-9]){re.escape(case)}(?![A-Za-z0-9])"
            if re.search(whole, rest):
                named.append(case)
                rest = re.sub(whole, " ", rest)
        if len(named) == 1:
            return named[0], "/".join([*parts[:level], rest, *parts[level + 1 :]])
        if named:
            break
    return None, place


def _modality_of(rest: str, case: CaseFiles) -> str | None:
    """The one modality of a case that a path names, or the only one that states the same kind (ct_bone for ct), or its only CT."""
    words = [word for word in re.split(r"[^a-z0-9]+", rest.lower()) if word]
    named = {word for word in words if word in case.files}
    kinds = [word for word in words if word in KNOWN]
    if kinds and not named:
        named = {*scans_named(case.files, kinds)}
    if "ct" in case.files and {*words} & {*SYNTHETIC_CT}:
        named.add("ct")
    if named:
        return named.pop() if len(named) == 1 else None
    in_name = re.split(r"[^a-z0-9]+", rest.lower().rpartition("/")[2])
    in_hu = [name for name in case.files if unit_of(name) == "HU"]
    says_else = any(word and not word.isdigit() and word not in MADE for word in in_name)
    return in_hu[0] if len(in_hu) == 1 and not says_else else None


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
