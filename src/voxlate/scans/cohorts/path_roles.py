"""What the folders and the name of a scan state where no pattern does: split, group, patient, study and modality.

Read from the outermost folder: words of a split, then groups (sites, tasks), the patient, and studies of the patient.
A modality is in the file's name or is a folder's. Known names decide, and of other names the first with a number.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.files import LONGEST_NAME
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import KNOWN, CohortFiles, is_known, is_of_mask, kind_of
from voxlate.scans.cohorts.patient_names import (
    DATE,
    PART,
    PARTS,
    PERSON,
    group_by_patient,
    identifies,
    is_person,
)
from voxlate.scans.cohorts.patterns import split_folders
from voxlate.scans.cohorts.rows import Row, quote_some
from voxlate.scans.formats.io import is_picture, location_of, read_volume, without_ending
from voxlate.scans.images.units import COUNTS, UNITS, plain_modality

NO_PATIENT = {"scan", "image", "img", "volume", "data", "series"}  # files called so in every folder
MOST_STUDIES = 4  # folders in the folder of a patient; a site's holds more on average
Place = tuple[
    tuple[str, ...], str, tuple[tuple[int, str], ...]
]  # groups, the patient, and the names of the study by their depths in the path
Scans = list[tuple[Place, Row]]


@dataclass(frozen=True)
class Roles:
    """What a path states. ids: groups, patient and studies, of which the first `folders` are folders; "": none."""

    path: str
    split: str | None
    ids: tuple[str, ...]
    folders: int
    modality: str

    @property
    def whole(self) -> list[int]:
        """The places of the ids that are no studies by their names; an outermost 'Kontrolle' is of controls."""
        return [
            place
            for place, name in enumerate(self.ids)
            if not _is_study(name) or (place == 0 and name.lower().startswith("kontrolle"))
        ]


def rows_by_roles(
    root: Path, paths: Sequence[str], found: CohortFiles, tagged: Callable[[str], list[Row]]
) -> tuple[list[Row], list[str]]:
    """The rows of scans by the names in their paths, and the paths of another form than most.

    tagged: the rows of a DICOM folder whose name states no modality, by its tags. Raises BadInput for other scans whose
    names state none.
    """
    splits = split_folders(paths)
    every = _named_by_siblings([_roles(path, (root / path).is_dir(), splits) for path in paths])
    roles, others = _of_usual_form(every)
    of_split = [role.path for role in others if role.split in ("train", "val")]
    if of_split and not any(role.split for role in roles):
        raise BadInput(
            f"{root}: expected scans of splits at one depth, found {len(of_split)} of a split at another ({quote_some(of_split)}). Pass --pattern with {{split}}, or name the folders train, val and test."
        )
    nameless = [
        role.path for role in roles if not role.modality and not (root / role.path).is_dir()
    ]
    if len(nameless) == len(roles) and _is_side_by_side(root / nameless[0]):
        found.guessed.append(
            "pictures twice as wide as high are two side by side: their left half is the modality a, their right half b"
        )
        halves = product(roles, enumerate("ab", start=1))
        roles = [
            replace(role, path=f"{role.path}#frame={number}", modality=side)
            for role, (number, side) in halves
        ]
    elif nameless:
        raise _without_modality(root, nameless)
    sites = _sites(roles)
    scans = Scans()
    for role in roles:
        named = [Row(None, "", role.modality.lower(), root / role.path)]
        for row in named if role.modality else tagged(role.path):
            scans.append((_place(role, sites), replace(row, split=role.split)))
    scans = _without_scan_folders(scans, found)
    return _rows(root, scans, found), [role.path for role in others]


def _rows(root: Path, scans: Scans, found: CohortFiles) -> list[Row]:
    """The rows of scans with the names of their cases, and with their patients where these have studies."""
    groups_of = grouped((patient, groups) for (groups, patient, _), _ in scans)
    twice = sorted(patient for patient, several in groups_of.items() if len({*several}) > 1)
    rows = []
    owners = {}
    for (groups, patient, study), row in scans:
        owner = ("_".join((*groups, patient)) if twice else patient) + row.case
        names = [name for _, name in study]
        case = "_".join((owner, *names)) or root.resolve().name
        if names and (names[-1].startswith((f"{owner}_", f"{owner}-")) or len(case) > LONGEST_NAME):
            case = names[-1]
        owners[case] = owner or case
        rows.append(replace(row, case=case))
    if studies := [case for case, owner in owners.items() if case != owner]:
        persons, sentence = group_by_patient(sorted({*owners.values()}))
        found.guessed += [sentence] if sentence else []
        owners = {case: persons.get(owner, owner) for case, owner in owners.items()}
        rows = [replace(row, patient=owners[row.case]) for row in rows]
        patients, case = {owners[study] for study in studies}, min(studies)
        found.guessed.append(
            f"{len(studies)} cases are studies of {len(patients)} patients by their folders ({case} is of {owners[case]})"
        )
    if any(row.case for _, row in scans):
        found.guessed.append(
            "DICOM folders with one modality of several patients are a case of each (FOLDER_1, FOLDER_2)"
        )
    if twice:
        found.guessed.append(
            f"folders or scans of one name in several folders are of different patients ({quote_some(twice)}); if each folder above them is one patient, pass --pattern '**/{{patient}}/{{case}}/{{modality}}'"
        )
    return rows


def _roles(path: str, is_dicom: bool, splits: Mapping[str, tuple[str, str]]) -> Roles:
    *folders, stem = without_ending(path).split("/")
    split, side, names = None, "", list[str]()
    for depth, folder in enumerate(folders, start=1):
        stated = splits.get("/".join(folders[:depth]))
        if stated is None or any(map(is_person, names)):
            names.append(folder)
        else:
            split, side = stated[0], stated[1] or side
    rest = stem if names else stem.replace(" ", "_")  # in a patient's folder, Tumor T1 is no T1
    for folder in names:
        bare = re.sub(rf"^{re.escape(folder)}[-_]+", "", rest)
        if not is_known(folder) or re.search(r"\d", bare) or bare.lower() in NO_PATIENT:
            rest = bare
    own, modality = _cut(
        rest, r"[-_]\d\d(?!\d*[A-Za-z]{2})" if names else rf"(?i)[-_](?:\d|{PERSON}[-_]?\d)"
    )
    if side and modality.lower() != side:
        own, modality = rest, side
    sides = [name for name in names if name in ("A", "B") and split and not modality]
    names = [name for name in names if name not in sides]
    modality = modality or "".join(sides)
    others = [
        name for name in names if not is_known(name) or (modality and re.search(r"\d\d", name))
    ]
    if not modality and len(others) < len(names):
        modality = next(name for name in reversed(names) if is_known(name))
    if modality and (others or own):
        names = others
    has_number = any(map(identifies, names))
    if names and is_dicom and not modality:
        own = own if is_person(own) or _is_study(own) else ""
    elif names and not modality and not (is_person(own) or re.search(r"\d{3}|^\d+$", own)):
        own, modality = "", rest
    elif names and (is_known(own) or not re.search(r"\d", own)) and (has_number or _is_study(own)):
        is_said = kind_of(modality) == "image" or kind_of(modality) != kind_of(rest)
        own, modality = "", rest if own and is_said and rest.endswith(modality) else modality
    ids = (*names, own) if own and not (names and own.lower() in NO_PATIENT) else tuple(names)
    plain = tuple(name.replace(" ", "_") for name in ids)
    return Roles(path, split, plain, len(names), modality.replace(" ", "_"))


def modality_by_name(path: Path) -> str:
    """The modality that the name of a scan states, read as in a cohort; "" for none."""
    role = _roles(location_of(path).name, False, {})
    return stated_modality(role.modality or "_".join(role.ids))


def stated_modality(name: str) -> str:
    """The modality that a name of scans states beside words that say nothing of the image's kind; "" for none, or several.

    t1_gewichtet is t1; t1_seg and synth_ct are none.
    """
    plain = plain_modality(name.lower())
    words = {*re.split("[-_]", plain)}
    stated = words & KNOWN
    if plain in KNOWN:
        return plain
    if len(stated) > 1:
        stated -= {"mr"}
    if len(stated) != 1 or any(map(COUNTS.fullmatch, words - UNITS.keys())):
        return ""
    return stated.pop()


def scans_named(names: Collection[str], modalities: Sequence[str]) -> list[str]:
    """The names of a cohort's scans that state one of these modalities, in their order; names with further words where no other does."""
    for read in (plain_modality, stated_modality):
        stated = {name: name if name in modalities else read(name) for name in names}
        found = [name for name in names if stated[name] in modalities]
        if found:
            return sorted(found, key=lambda name: modalities.index(stated[name]))
    return []


def _cut(stem: str, number: str) -> tuple[str, str]:
    """What a file's name states of its patient, and of its modality; "" for nothing. number: expression of a patient's."""
    pieces = re.split("([-_])", stem)
    for start in range(len(pieces) - 1, -1, -2):
        name = "".join(pieces[start:])
        if is_known(name) and not re.search(number, name):
            end = start
            if kind_of(name) == "mask":
                while end and is_of_mask(pieces[end - 2]):  # p1_lesion_mask
                    end -= 2
                name = "".join(pieces[end:])
            while end and pieces[end - 2].lower() in KNOWN:  # p1_t2_flair, p1_ct_mask
                end -= 2
            return "".join(pieces[: max(end - 1, 0)]), name
    for place in range(0, len(pieces) - 1, 2):
        if is_known(pieces[place]):
            return "".join(pieces[:place] + pieces[place + 2 :]), pieces[place]
    return stem, ""


@functools.cache
def _is_study(name: str) -> bool:
    """Whether a name is that of a study alone (MRI_11.01.2021), not of a patient such as S01 or a site such as B."""
    short = re.fullmatch(r"[a-z]|(?![vtdmwy])[a-z]\d+|[a-z]\d{3,}", name, re.IGNORECASE)
    parts = PARTS.fullmatch(f"_{name}")
    if short or parts is None:
        return False
    # Several parts without a time may be a patient's name, such as a_b.
    return bool(parts["time"] or PART.fullmatch(parts.string))


def _named_by_siblings(roles: Sequence[Roles]) -> list[Roles]:
    """The roles, of which those without a modality are read as a scan beside them: p1_hbv is of p1 beside p1_t2w."""
    siblings = {}
    for role in roles:
        start = without_ending(role.path).removesuffix(role.modality)
        if role.modality and start.endswith(("-", "_")):
            siblings[start] = role
    named = []
    for role in roles:
        bare = without_ending(role.path)
        marks = [] if role.modality else re.finditer("[-_]", bare)
        starts = [start for mark in marks if (start := bare[: mark.end()]) in siblings]
        if starts:
            of_sibling = siblings[starts[-1]]
            role = replace(of_sibling, path=role.path, modality=bare.removeprefix(starts[-1]))
        named.append(role)
    return named


def _of_usual_form(every: Sequence[Roles]) -> tuple[list[Roles], list[Roles]]:
    """The scans with the usual number of names in their paths, that of plain modalities (not of derivatives); and the others."""
    forms = grouped((len(role.whole), role) for role in every)
    cases = {form: len({role.ids for role in roles}) for form, roles in forms.items()}

    def rank(form: int) -> tuple[bool, int, int, bool]:
        """Enough cases, then scans of known modalities, then all images."""
        names = [role.modality.lower() for role in forms[form]]
        images = [name for name in names if kind_of(name) == "image"]
        plain = sum(name in KNOWN for name in images)
        return 2 * cases[form] > max(cases.values()), plain, len(images), form == 1

    usual = forms.pop(max(forms, key=rank))
    return usual, [*chain.from_iterable(forms.values())]


def _without_scan_folders(scans: Scans, found: CohortFiles) -> Scans:
    """The scans without the names of folders that hold one modality each, as archives have them below a study."""
    names = grouped(chain.from_iterable(study for (_, _, study), _ in scans))
    unnamed = [
        level
        for level, own in names.items()
        if not any(_is_study(name) or re.match(DATE, name, re.IGNORECASE) for name in own)
    ]
    for dropped in (unnamed, *([level] for level in sorted(unnamed, reverse=True))):
        held = defaultdict[Hashable, dict[Hashable, list[str]]](dict)
        shorter = Scans()
        for (groups, patient, study), row in scans:
            kept = tuple(one for one in study if one[0] not in dropped)
            folders = held[groups, patient, kept, row.split]
            folders.setdefault(study, []).append(row.modality)
            shorter.append(((groups, patient, kept), row))
        several = [[*own.values()] for own in held.values() if len(own) > 1]
        if several and all(
            len(own) == sum(map(len, own)) == len({*chain.from_iterable(own)}) for own in several
        ):
            example = sorted({name for level in dropped for name in names[level]})
            found.guessed.append(f"names of single scans are no studies ({quote_some(example)})")
            scans = shorter
    return scans


def _sites(roles: Sequence[Roles]) -> set[str]:
    """The names with a number whose folders hold those of patients."""
    below = defaultdict[str, set[str]](set)
    for role in roles:
        for outer, inner in zip(role.whole, role.whole[1:]):
            name = role.ids[outer]
            if identifies(name) and not is_person(name) and inner < role.folders:
                below[name].add(role.ids[inner])
    usual = sum(map(len, below.values())) / max(1, len(below))
    return {*below} if usual > MOST_STUDIES else set()


def _place(role: Roles, sites: set[str]) -> Place:
    whole, ids = role.whole, role.ids
    if not ids:
        return (), "", ()
    persons = [k for k in whole if k < role.folders and is_person(ids[k])]
    numbered = [place for place in whole if identifies(ids[place]) and ids[place] not in sites]
    first = (persons or numbered or whole[-1:] or [len(ids) - 1])[0]
    groups = [place for place in whole if place < first]
    study = [
        (place, name)
        for place, name in enumerate(ids)
        if place not in (first, *groups) and (_is_study(name) or identifies(name))
    ]
    return tuple(ids[place] for place in groups), ids[first], tuple(study)


def _is_side_by_side(path: Path) -> bool:
    """Whether a picture is twice as wide as high, as pix2pix puts two side by side."""
    if not is_picture(path):
        return False
    _, _, height, width = read_volume(path).data.shape
    return width == 2 * height


def _without_modality(root: Path, names: Sequence[str]) -> BadInput:
    """The error of scans whose names state no modality."""
    marks = (mark for mark in "_-" if all(mark in Path(name).stem for name in names))
    advice = "or name the files of each modality by --preset FILE.toml (docs/guides/own_data.md)"
    if mark := next(marks, ""):
        advice = f"pass --pattern '**/{{case}}{mark}{{modality}}' if they end so, {advice}"
    endings = {name.removeprefix(without_ending(name)) for name in names}
    if len(endings) == 1 and not any("/" in name for name in names):
        advice = (
            f"pass --pattern '{{case}}{endings.pop()}' if each is the one scan of a case, {advice}"
        )
    return BadInput(
        f"{root}: expected a folder for each case, or names that end with a modality, found {len(names)} scans of another form ({quote_some(names)}). Rename them, {advice}."
    )
