"""Which cases to synthesise: the scans that the inputs of a command name, and the series of a mixed DICOM study that a model takes."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, first_of, known_name
from voxlate.base.messages import Message, message
from voxlate.scans.cases.case import MASK
from voxlate.scans.cohorts.case_files import UNNAMED, CaseFiles, CohortFiles, plain_name
from voxlate.scans.cohorts.path_names import modality_by_name
from voxlate.scans.cohorts.split import check_known
from voxlate.scans.formats.dicom import SeriesInfo, is_dicom_folder, list_series
from voxlate.scans.formats.dicom_file import KINDS, kind_of
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


ANY = {"", "mr", "mri", "source", "input"}  # names of scans that state no contrast


@dataclass(frozen=True)
class CaseScans:
    """One case to synthesise: its name and where its scans are.

    truths: the target modalities that the case has as scans;
    notes: on scans of other names that a starter takes; patient: "" where nothing says it.
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
    series: Sequence[str] | None = None,
    **layout: Any,
) -> list[CaseScans]:
    """The scans that the inputs name: `modality=path` pairs, a file or DICOM series, a case folder, or a cohort.

    missing: modalities that are ignored although their scans exist (to complete them). series: see pick_series.
    Raises BadInput where no scan fits.
    """
    data = model.facts.data
    ignored = {name.lower() for name in missing or ()}
    sources = [name.lower() for name in data.source]
    for name in sorted(ignored):
        known_name("--missing", "a modality that the model reads", name, sources)
    wanted = {name for name in model.scan_names if name.lower() not in ignored}
    found = []
    for scans in _name_scans(inputs, model, split, series, layout):
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
    series: Sequence[str] | None,
    layout: Mapping[str, Any],
) -> Iterator[CaseScans]:
    """All scans that the inputs name, whether the model uses them or not."""
    sources = model.facts.data.source
    # 'mr.h5#slice=3' is a scan, not a pair
    if all("=" in text and not is_there(Path(text)) for text in inputs):
        if series:
            raise BadInput(
                f"--series: expected a folder with one DICOM study as input, found {' '.join(inputs)}. Give the folder, or a pair MODALITY=FOLDER#KEY alone."
            )
        files = _pairs(inputs, [*sources, *chain.from_iterable(model.facts.accepts.values())])
        yield CaseScans(_case_of(files), files)
        return
    if len(inputs) != 1:
        raise BadInput(
            f"INPUT: expected one folder or modality=path pairs, found {' '.join(inputs)}. Give one or the other."
        )
    path = Path(inputs[0])
    if not is_there(path):
        raise BadInput(
            f"{path}: expected a case, a cohort or a file, found nothing there. Check the path."
        )
    place = _cohort_or_study(path, model, series, layout)
    if isinstance(place, list):
        wanted = {name: model.facts.accepts.get(name, ()) for name in sources}
        picked = pick_series(path, place, wanted, series)
        yield CaseScans(plain_name(path.resolve().name), picked.files, notes=picked.notes)
        return
    if series:
        raise BadInput(
            f"{path}: expected a folder of DICOM series of one study to choose from (--series), found those of several studies, or none. Give a pair MODALITY=FOLDER#KEY; voxlate info FOLDER lists the keys."
        )
    if _is_one_scan(path, layout):
        yield _one_scan(path, model)
        return
    from voxlate.scans.cohorts.find import find_cohort  # imported where a folder asks for it

    cohort = place or find_cohort(path, **layout)
    notes = tuple(message("left-out", f"Left out: {text}.") for text in cohort.unclaimed)
    for case in in_split(model, cohort.cases, split):
        if [*case.files] == [UNNAMED]:
            scan = _one_scan(case.files[UNNAMED], model)
            yield replace(scan, case=case.case, patient=case.patient, notes=(*scan.notes, *notes))
        else:
            mask = {MASK: case.mask} if case.mask else {}
            yield CaseScans(case.case, case.files | mask, notes=notes, patient=case.patient)
        notes = ()  # said once
    recorded = splits_of(model)
    for name in cohort.without_scan:  # sort_cases reports that they lack scans
        if split is None or recorded.get(name) == split:
            yield CaseScans(name, {})


def _one_scan(path: Path, model: Model) -> CaseScans:
    """The case of a lone scan; raises BadInput where a model of several sources does not take it by its name or tags."""
    sources = model.facts.data.source
    stem = without_ending(path.name).lower()
    says = modality_by_name(path)
    if len(sources) != 1:
        if path.is_dir():
            from voxlate.scans.cohorts.presets import modality_of  # see _name_scans

            says = modality_of(list_series(path)[0])
        accepted = {*sources, *chain.from_iterable(model.facts.accepts.values())}
        if says not in accepted:
            raise BadInput(
                f"{path}: expected scans with their names ({', '.join(sources)}), found one scan whose modality is not stated. Name the file by its modality, or give it as NAME={path}."
            )
        files = {says: path}
        return CaseScans(_case_of(files), files)
    files = {sources[0]: path}
    notes = tuple[Message, ...]()
    names = {sources[0], *model.facts.accepts.get(sources[0], ())}
    takes_any = says in MR and sources[0] in ANY
    if not (path.is_dir() or takes_any or says in ANY or {stem, says} & names):
        text = f"By its name, {path.name} is {says}, and it is taken as {sources[0]}. Give a scan of {sources[0]}, or a model for {says}."
        notes = (message("taken-as", text, grade="caution"),)
    why = why_excluded(list_series(path)[0]) if path.is_dir() else ""
    # a lone reformatted series is an ordinary scan, and of KINDS its reader speaks
    if why not in ("", DERIVED, *KINDS):
        notes = (
            *notes,
            message(
                "taken-as",
                f"By its tags the series ({path.name}) is no ordinary scan ({why}): among others it would be left out. Take another one.",
                grade="caution",
            ),
        )
    return CaseScans(_case_of(files), files, notes=notes)


def _pairs(inputs: list[str], sources: Sequence[str]) -> dict[str, Path]:
    """Files by modality from `modality=path` pairs."""
    pairs = [text.split("=", 1) for text in inputs]
    names = {name.lower(): name for name in (*sources, MASK)}
    expected = "a scan that the model takes, or a mask"
    files = {
        names[known_name("INPUT", expected, name.lower(), names)]: Path(path)
        for name, path in pairs
    }
    if len(files) < len(pairs):
        raise BadInput(
            f"INPUT: expected each modality once, found one twice ({' '.join(inputs)}). Give one scan of each."
        )
    return files


def in_split(model: Model, cases: Iterable[CaseFiles], split: str | None) -> list[CaseFiles]:
    """The cases of a split, or all; the fold of the model's training has priority over the splits of the cohort.

    A case that the training could not read has the split of its patient's other cases.
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
    of_patient = {case.patient: known for case, known in zip(cases, splits) if known}
    return [
        case
        for case, known in zip(cases, splits)
        if (known or of_patient.get(case.patient or case.case)) == split
    ]


def _case_of(files: Mapping[str, Path]) -> str:
    """A name for scans that are given as files: that of the first file, or of its folder if that is more specific."""
    if not files:
        raise BadInput("inputs: expected a scan, found none. Give one.")
    path = location_of(next(iter(files.values())))
    stem = without_ending(path.name)
    generic = stem.lower() in {name.lower() for name in files} or stem.lower() in UNITS
    name = path.absolute().parent.name if generic else stem
    return plain_name(name)


def _cohort_or_study(
    path: Path, model: Model, named: Sequence[str] | None, layout: Mapping[str, Any]
) -> CohortFiles | list[SeriesInfo] | None:
    """The cohort in a folder, the series of its one study from which a model picks, or None where neither is sure.

    A folder that holds one series, or one case by the layout with a scan of the model, is no study unless --series is
    named; several cases are a study where their series are those of one.
    """
    from voxlate.scans.cohorts.find import find_cohort  # see _name_scans

    if not path.is_dir() or any(layout.values()):
        return None
    series = study_series(path)
    if named or is_dicom_folder(path):
        return series if len(series) > (0 if named else 1) else None
    accepted = {*model.scan_names, *chain.from_iterable(model.facts.accepts.values())}
    try:
        cohort = find_cohort(path)
    except BadInput:
        return series or None
    is_case = len(cohort.cases) == 1 and accepted & cohort.cases[0].files.keys()
    return cohort if is_case else series or cohort


def _is_one_scan(path: Path, layout: Mapping[str, Any]) -> bool:
    """Whether a path is a file or a DICOM series, not a manifest, nor several series from which a preset chooses."""
    from voxlate.scans.cohorts.manifest import TABLES
    from voxlate.scans.cohorts.presets import load_preset

    if not path.is_dir():
        return path.suffix.lower() not in TABLES
    preset = layout.get("preset")
    return is_dicom_folder(path) and not (preset and load_preset(preset).series)


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
