"""Which cases to synthesise: the scans that the inputs of a command name, and the series of a DICOM study that a model takes."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, first_of, known_name
from voxlate.base.messages import Message, message
from voxlate.scans.cases.case import MASK
from voxlate.scans.cohorts.case_files import UNNAMED, CaseFiles, plain_name
from voxlate.scans.cohorts.path_names import modality_by_name
from voxlate.scans.cohorts.split import check_known
from voxlate.scans.formats.dicom import SeriesInfo, is_dicom_folder, list_series
from voxlate.scans.formats.dicom_file import kind_of
from voxlate.scans.formats.io import is_there, location_of, without_ending
from voxlate.scans.images.units import HOUNSFIELD, MR, UNITS, plain_modality, unit_of
from voxlate.synthesis.inputs import by_accepted_names
from voxlate.synthesis.model import Model

FEWEST_IMAGES = 3  # of a volume
# Of the images of the largest fitting series; others are parts or repeats of few slices.
SHARE_OF_LARGEST = 0.5
MOST_LISTED = 12
# of the image types; MR images may be DERIVED and PRIMARY where a scanner only corrected their distortion
COMPUTED = {"SECONDARY", "MPR", "RESAMPLED", "REFORMATTED"}
# What the description of a CT with contrast agent holds; that of a plain one (ncct) holds nothing of it.
AGENTS = {
    "cta": r"angio|cta",
    "ctv": r"ctv|ven",
    "cect": r"contrast|\+ ?c\b|\bce\b|\bkm\b|perf|ven",
}
ANY = {"", "mr", "mri", "source", "input"}  # names of scans that state no contrast


@dataclass(frozen=True)
class CaseScans:
    """One case to synthesise: its name and where its scans are.

    truths: the target modalities that the case has as scans; notes: on the choice of scans; patient: "" where nothing says it.
    """

    case: str
    files: dict[str, Path]
    truths: tuple[str, ...] = ()
    notes: tuple[Message, ...] = ()
    patient: str = ""


def find_scans(
    inputs: list[str],
    model: Model,
    *,
    split: str | None = None,
    missing: Sequence[str] | None = None,
    **layout: Any,
) -> list[CaseScans]:
    """The scans that the inputs name: `modality=path` pairs, a file or DICOM series, a case folder, a study, or a cohort.

    missing: modalities that are ignored although their scans exist (to complete them).
    Raises BadInput where no scan fits.
    """
    data = model.facts.data
    ignored = {name.lower() for name in missing or ()}
    sources = [name.lower() for name in data.source]
    for name in sorted(ignored):
        known_name("--missing", "a modality that the model reads", name, sources)
    wanted = {name for name in model.scan_names if name.lower() not in ignored}
    found = []
    for scans in _name_scans(inputs, model, split, layout):
        own, notes = by_accepted_names(scans.files, model.facts.accepts, data.target)
        used = {name: path for name, path in own.items() if name in wanted}
        found.append(
            replace(
                scans,
                files=used,
                truths=tuple(sorted(own.keys() & set(data.target) - wanted)),
                notes=(*scans.notes, *notes, *model.unused(own)),
            )
        )
    return found


def _name_scans(
    inputs: list[str],
    model: Model,
    split: str | None,
    layout: Mapping[str, Any],
) -> Iterator[CaseScans]:
    """All scans that the inputs name, whether the model uses them or not."""
    facts = model.facts
    # 'mr.h5#slice=3' is a scan, not a pair
    if all("=" in text and not is_there(Path(text)) for text in inputs):
        files = _pairs(inputs, [*facts.data.source, *chain.from_iterable(facts.accepts.values())])
        yield CaseScans(_case_of(files), files)
        return
    path = Path(inputs[0])
    if len(inputs) != 1 or not is_there(path):
        raise BadInput(
            f"INPUT: expected one case, cohort or file that is there, or modality=path pairs, found {' '.join(inputs)}. Check the path."
        )
    if study := _find_study(path, model, layout):
        wanted = {name: facts.accepts.get(name, ()) for name in facts.data.source}
        files, notes = pick_series(path, study, wanted)
        yield CaseScans(plain_name(path.resolve().name), files, notes=tuple(notes))
    elif _is_one_scan(path, layout):
        yield _one_scan(path, model)
    else:
        yield from _scans_of_cohort(path, model, split, layout)


def _scans_of_cohort(
    path: Path, model: Model, split: str | None, layout: Mapping[str, Any]
) -> Iterator[CaseScans]:
    """The cases of a cohort, or of a split of it, those without a scan last."""
    from voxlate.scans.cohorts.find import find_cohort  # imported where a folder asks for it

    cohort = find_cohort(path, **layout)
    notes = tuple(message("left-out", f"Left out: {text}.") for text in cohort.unclaimed)
    for case in in_split(model, cohort.cases, split):
        scans = CaseScans(case.case, dict(case.files), patient=case.patient)
        if [*case.files] == [UNNAMED]:
            lone = _one_scan(case.files[UNNAMED], model)
            scans = replace(lone, case=case.case, patient=case.patient)
        elif case.mask:
            scans.files[MASK] = case.mask
        yield replace(scans, notes=(*scans.notes, *notes))
        notes = ()  # said once
    recorded = splits_of(model)
    for name in cohort.without_scan:  # sort_cases reports that they lack scans
        if split is None or recorded.get(name) == split:
            yield CaseScans(name, {})


def _pairs(inputs: list[str], sources: Sequence[str]) -> dict[str, Path]:
    """Files by modality from `modality=path` pairs."""
    names = {name.lower(): name for name in (*sources, MASK)}
    files = dict[str, Path]()
    for text in inputs:
        name, _, path = text.partition("=")
        own = names[known_name("INPUT", "a scan that the model takes", name.lower(), names)]
        if own in files:
            raise BadInput(
                f"INPUT: expected each modality once, found {own} twice ({' '.join(inputs)}). Give one scan of each."
            )
        files[own] = Path(path)
    if not files:
        raise BadInput("INPUT: expected a scan, found none. Give one.")
    return files


def _one_scan(path: Path, model: Model) -> CaseScans:
    """The case of a lone scan; raises BadInput where a model of several sources does not take it by its name or tags."""
    sources = model.facts.data.source
    says = modality_by_name(path)
    name = sources[0]
    notes = tuple[Message, ...]()
    if len(sources) > 1:
        name = says
        if path.is_dir():
            from voxlate.scans.cohorts.presets import (
                modality_of,  # imported where DICOM asks for it
            )

            name = modality_of(list_series(path)[0])
        if name not in {*sources, *chain.from_iterable(model.facts.accepts.values())}:
            raise BadInput(
                f"{path}: expected scans with their names ({', '.join(sources)}), found one scan whose modality is not stated. Name the file by its modality, or give it as NAME={path}."
            )
    elif not path.is_dir():
        takes_any = says in MR and name in ANY
        accepted = {name, *model.facts.accepts.get(name, ())}
        is_named = {without_ending(path.name).lower(), says} & accepted
        if not (takes_any or says in ANY or is_named):
            text = f"By its name, {path.name} is {says}, and it is taken as {name}. Give a scan of {name}, or a model for {says}."
            notes = (message("taken-as", text, grade="caution"),)
    files = {name: path}
    return CaseScans(_case_of(files), files, notes=notes)


def _case_of(files: Mapping[str, Path]) -> str:
    """A name for scans that are given as files: that of the first file, or of its folder if that is more specific."""
    path = location_of(next(iter(files.values())))
    stem = without_ending(path.name)
    is_generic = stem.lower() in {name.lower() for name in files} or stem.lower() in UNITS
    return plain_name(path.absolute().parent.name if is_generic else stem)


def _is_one_scan(path: Path, layout: Mapping[str, Any]) -> bool:
    """Whether a path is a file or a DICOM series, not a manifest, nor several series from which a preset chooses."""
    if not path.is_dir():
        from voxlate.scans.cohorts.manifest import TABLES  # as above

        return path.suffix.lower() not in TABLES
    from voxlate.scans.cohorts.presets import load_preset  # as above

    preset = layout.get("preset")
    return is_dicom_folder(path) and not (preset and load_preset(preset).series)


def in_split(model: Model, cases: Iterable[CaseFiles], split: str | None) -> list[CaseFiles]:
    """The cases of a split, or all; the fold of the model's training has priority over the splits of the cohort.

    Raises BadInput if no split is known.
    """
    cases = list(cases)
    if split is None:
        return cases
    recorded = splits_of(model)
    in_fold = any(member.facts.of_fold for member in model.members)
    splits = []
    for case in cases:
        own = case.split
        trained = recorded.get(case.case)
        splits.append(trained or own if in_fold else own or trained)
    check_known(split, splits)
    return [case for case, known in zip(cases, splits) if known == split]


def splits_of(model: Model) -> dict[str, str]:
    """The split of each case in the model's training; a training case of any member is not held out."""
    return merge_splits(member.facts.splits for member in model.members)


def merge_splits(trainings: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The split of each case in several trainings: train if in any of them, else that in the first."""
    splits = dict[str, str]()
    for case, split in chain.from_iterable(of_cases.items() for of_cases in trainings):
        if split == "train" or case not in splits:
            splits[case] = split
    return splits


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
        return "derived"
    if not series.directions:
        return "without a place in the patient"
    if series.images < FEWEST_IMAGES:
        return f"of fewer than {FEWEST_IMAGES} images"
    return ""


def _find_study(path: Path, model: Model, layout: Mapping[str, Any]) -> list[SeriesInfo]:
    """The series of the one study in a folder, from which a model picks; [] where it holds one series, a case or a cohort.

    A folder with one case by the layout, and a scan of the model in it, is no study.
    """
    if not path.is_dir() or any(layout.values()):
        return []
    series = study_series(path)
    if not series or is_dicom_folder(path):
        return series if len(series) > 1 else []
    from voxlate.scans.cohorts.find import find_cohort  # see _scans_of_cohort

    try:
        cases = find_cohort(path).cases
    except BadInput:
        return series
    accepted = {*model.scan_names, *chain.from_iterable(model.facts.accepts.values())}
    is_case = len(cases) == 1 and accepted & cases[0].files.keys()
    return [] if is_case else series


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
    path: Path, series: Sequence[SeriesInfo], modalities: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Path], list[Message]]:
    """A series for each modality of a model that a study has, and a message on each choice.

    modalities: each with further names that it accepts. Of several series that fit, the best is taken (see _find_fitting), and
    the others are named. Raises BadInput where the best one is in several folders, and where none fits any.
    """
    taken = dict[str, SeriesInfo]()
    notes = []
    for modality, further in modalities.items():
        free = [one for one in series if not why_excluded(one) and one not in taken.values()]
        fitting = _find_fitting([modality, *further], free)
        if not fitting:
            continue
        best, *others = fitting
        if best.uid in {one.uid for one in others}:
            raise BadInput(
                f"{path}: expected the best series for {modality} in one folder, found parts of it in several ({_list(fitting)}). Put them into one."
            )
        taken[modality] = best
        text = f"Of {len(series)} series, {_describe(best)} is taken as {modality}"
        if others:
            text += f", the best by contrast (T1 first) and number of images; also fitting: {_list(others)}"
        notes.append(message("chosen-series", f"{text}."))
    if not taken:
        raise BadInput(
            f"{path}: expected a series to be {' or '.join(modalities)}, found none that fits among its {len(series)} series ({_list(series)}). Name one: {next(iter(modalities))}=FOLDER#KEY."
        )
    return {name: one.path for name, one in taken.items()}, notes


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
            least = SHARE_OF_LARGEST * max(one.images for one in fitting)
            uids = {one.uid for one in fitting if one.images >= least}
            return sorted([one for one in fitting if one.uid in uids], key=rank)
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
    """Some series, with the place of each, and why it is no candidate."""
    said = [f"{_describe(one)} in {one.path} {why_excluded(one)}".rstrip() for one in series]
    return first_of(said, MOST_LISTED, "; ")


def _describe(series: SeriesInfo) -> str:
    return f'series {series.number or series.key} ({series.modality} "{series.description}", {series.images} images)'
