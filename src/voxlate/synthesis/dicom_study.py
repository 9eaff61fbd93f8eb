"""The series of a mixed DICOM study that a model takes: by modality, description, image type and geometry."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlate.base.errors import BadInput, first_of
from voxlate.base.messages import Message, message
from voxlate.scans.formats.dicom import SeriesInfo, is_dicom_folder, list_series
from voxlate.scans.formats.dicom_file import kind_of
from voxlate.scans.images.units import HOUNSFIELD, MR, plain_modality, unit_of

FEWEST_IMAGES = 3  # of a volume
# Of the images of the largest fitting series; others are parts or repeats of few slices.
SHARE_OF_LARGEST = 0.5
MOST_LISTED = 12
# of the image types; MR images may be DERIVED and PRIMARY where a scanner only corrected their distortion
COMPUTED = {"SECONDARY", "MPR", "RESAMPLED", "REFORMATTED"}
DERIVED = "derived"
# What the description of a CT with contrast agent holds; that of a plain one (ncct) holds nothing of it.
AGENTS = {
    "cta": r"angio|cta",
    "ctv": r"ctv|ven",
    "cect": r"contrast|\+ ?c\b|\bce\b|\bkm\b|perf|ven",
}


@dataclass(frozen=True)
class Picked:
    """The series of a study by the model's modalities, and a message on the choice of each."""

    files: dict[str, Path]
    notes: tuple[Message, ...]


def why_excluded(series: SeriesInfo) -> str:
    """Why a series is no candidate, in a word or two; '' where it is one."""
    if "SYNTHETIC" in series.description.upper():
        return "synthetic"
    if kind := kind_of(series.image_type, series.description):
        return kind
    if len(series.directions) > 1:
        return "localiser"
    if series.modality in ("OT", "SC"):
        return "screenshot"
    if COMPUTED & {*series.image_type.upper().split("\\")}:
        return DERIVED
    if not series.directions:
        return "without a place in the patient"
    if series.images < FEWEST_IMAGES:
        return f"of fewer than {FEWEST_IMAGES} images"
    return ""


def study_series(path: Path) -> list[SeriesInfo]:
    """The series of one study in a folder or in folders below it; [] where these are several studies or none."""
    all_series = []
    for folder in [path, *sorted(filter(Path.is_dir, path.rglob("*")))]:
        if is_dicom_folder(folder):
            all_series += list_series(folder)
        if len({candidate.study or str(candidate.folder) for candidate in all_series}) > 1:
            return []
    return all_series


def pick_series(
    path: Path,
    series: Sequence[SeriesInfo],
    modalities: Mapping[str, Sequence[str]],
    named: Sequence[str] | None,
) -> Picked:
    """A series for each modality of a model that a study has.

    modalities: each with further names that it accepts. named: "NUMBER or UID" or "MODALITY=NUMBER or UID", which rule.
    Of several that fit, the best is taken (see _find_fitting), and the others are named. Raises BadInput where a name stands for
    several series, where the best one is in several folders, and where none fits any.
    """
    asked = _by_modality([*modalities], named or ())
    reasons = Counter(filter(None, map(why_excluded, series)))
    aside = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "none"
    taken = dict[str, SeriesInfo]()
    notes = []
    for modality in [*asked, *(name for name in modalities if name not in asked)]:
        which = asked.get(modality)
        if which is None:
            free = [one for one in series if not why_excluded(one) and one not in taken.values()]
            fitting = _find_fitting([modality, *modalities[modality]], free)
            if not fitting:
                continue
        else:
            fitting = [one for one in series if which in (one.number, one.uid, one.key)]
        parts = fitting if which else [one for one in fitting if one.uid == fitting[0].uid]
        if len(parts) != 1:
            raise BadInput(
                f"{path}: expected one series to be {modality}, found {len(parts)} that fit{f' {which}' if which else ''} ({_list(parts or series)}). Name one by its number, UID or key: --series {modality}=NUMBER. Put a series that is in several folders into one."
            )
        (taken[modality],) = parts
        described = _describe(parts[0])
        if which is None:
            text = f"Of {len(series)} series, {described} is taken as {modality}"
            if others := fitting[1:]:
                text += f", the best by contrast (T1 first) and number of images; also fitting: {_list(others)}"
            text += f". Left out: {aside}."
            notes.append(message("chosen-series", text))
        else:
            text = f"{modality}: {described}, as --series names it."
            notes.append(message("named-series", text))
    if not taken:
        raise BadInput(
            f"{path}: expected a series to be {' or '.join(modalities)}, found none that fits among its {len(series)} series ({_list(series)}). Name one by its number or UID: --series {next(iter(modalities))}=NUMBER."
        )
    return Picked({name: one.path for name, one in taken.items()}, tuple(notes))


def _by_modality(modalities: Sequence[str], named: Sequence[str]) -> dict[str, str]:
    """The number, UID or key of a series for each modality for which --series states one."""
    asked = dict[str, str]()
    by_name = {name.lower(): name for name in modalities}
    for text in named:
        modality, mark, which = text.rpartition("=")
        alone = modalities[0] if len(modalities) == 1 else ""
        name = by_name.get(modality.lower(), "") if mark else alone
        if not name or name in asked:
            raise BadInput(
                f"--series: expected MODALITY=NUMBER, each of {', '.join(modalities)} at most once, found {text!r}. Correct it."
            )
        asked[name] = which
    return asked


def _find_fitting(names: Sequence[str], candidates: Sequence[SeriesInfo]) -> list[SeriesInfo]:
    """The candidates that the first name fits that any fits, the best first: T1, then those of the most images.

    Those with less than half the most images are left out, but for the rest of a series that is in another folder.
    """
    from voxlate.scans.cohorts.presets import modality_of  # imported where a study asks for it

    def rank(series: SeriesInfo) -> tuple[bool, int]:
        """Lower is better; the order of equal ones stays that of the study."""
        return modality_of(series) != "t1", -series.images

    for name in names:
        fitting = [one for one in candidates if _fits(name.lower(), one)]
        if fitting:
            most = max(one.images for one in fitting)
            large = [one for one in fitting if one.images >= SHARE_OF_LARGEST * most]
            uids = {one.uid for one in large}
            return sorted([one for one in fitting if one in large or one.uid in uids], key=rank)
    return []


def _fits(name: str, series: SeriesInfo) -> bool:
    """Whether a series is of a modality by its tags, as a cohort's are; of an unknown one, whether its description has the name."""
    from voxlate.scans.cohorts.presets import modality_of  # imported where a study asks for it

    text = series.description or series.protocol
    if unit_of(name) == unit_of(HOUNSFIELD[0]):
        letters = re.split(r"\d", name)[0]
        stated = [kind for kind, words in AGENTS.items() if re.search(words, text, re.I)]
        is_kind = not stated if letters == "ncct" else letters in ("ct", *stated)
        return series.modality.upper() == "CT" and is_kind
    wanted = {"mra": "tof"}.get(name, plain_modality(name))
    if wanted in MR:
        return series.modality == "MR" and wanted in ("mr", modality_of(series))
    return bool(re.search(rf"\b{re.escape(name)}\b", text, re.I))


def _list(series: Sequence[SeriesInfo]) -> str:
    """Some series, with the folder of each, and why it is no candidate."""
    said = []
    for one in series:
        facts = (
            _describe(one),
            one.uid and f"UID {one.uid}",
            f"in {one.folder}",
            why_excluded(one),
        )
        said.append(", ".join(filter(None, facts)))
    return first_of(said, MOST_LISTED, "; ")


def _describe(series: SeriesInfo) -> str:
    return f'series {series.number or series.key} ({series.modality} "{series.description}", {series.images} images)'
