"""What the folders and the name of a scan state where no pattern does: split, group, patient, study and modality.

Read from the outermost folder: words of a split, then groups (sites, tasks), the patient, and studies of the patient.
A modality is in the file's name or is a folder's. Known names decide, and of other names the first with a number.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.scans.cohorts.case_files import LABELS, MASKS, CohortFiles
from voxlate.scans.cohorts.choice import Row, quote_some
from voxlate.scans.cohorts.patient_names import PART, identifies, is_person
from voxlate.scans.cohorts.patterns import split_in
from voxlate.scans.formats.io import is_picture, read_volume, without_ending
from voxlate.scans.images.units import UNITS

OTHERS = "t1w t2w pdw t1gd dwi adc mri cbct ctp qsm phase mag fa md dsa pet"
KNOWN = {*UNITS, *MASKS, *LABELS, *OTHERS.split()}
NO_PATIENT = {"scan", "image", "img", "volume", "data", "series"}  # files called so in every folder
MOST_STUDIES = 4  # folders in the folder of a patient; a site's holds more on average
Place = tuple[tuple[str, ...], str, tuple[str, ...]]  # groups, the patient, and the study


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
        """The places of the ids that are no studies by their names."""
        return [place for place, name in enumerate(self.ids) if not _is_study(name)]


def rows_by_roles(
    root: Path, paths: Sequence[str], found: CohortFiles, tagged: Callable[[str], list[Row]]
) -> tuple[list[Row], list[str]]:
    """The rows of scans by the names in their paths, and the paths of another form than most.

    tagged: the rows of a DICOM folder whose name states no modality, by its tags. Raises BadInput for other scans whose
    names state none.
    """
    every = [_roles(path, (root / path).is_dir()) for path in paths]
    forms = Counter(len(role.whole) for role in every)
    usual = max(forms, key=lambda form: (forms[form], form == 1))
    roles = [role for role in every if len(role.whole) == usual]
    of_split = [role.path for role in every if role.split in ("train", "val") and role not in roles]
    if of_split and not any(role.split for role in roles):
        raise BadInput(
            f"{root}: expected scans of splits at one depth, found {len(of_split)} of a split at another ({quote_some(of_split)}). Pass --pattern with {{split}}, or name the folders train, val and test."
        )
    nameless = [
        role.path for role in roles if not role.modality and not (root / role.path).is_dir()
    ]
    if nameless:
        raise _without_modality(root, nameless)
    sites = _sites(roles)
    places = [_place(role, sites) for role in roles]
    groups_of = defaultdict[str, set[tuple[str, ...]]](set)
    for groups, patient, _ in places:
        groups_of[patient].add(groups)
    twice = sorted(patient for patient, groups in groups_of.items() if len(groups) > 1)
    rows = list[Row]()
    owners = dict[str, str]()
    for role, (groups, patient, study) in zip(roles, places):
        owner = "_".join((*groups, patient)) if twice else patient
        case = "_".join((owner, *study)) or root.resolve().name
        if study:
            case = study[-1] if study[-1].startswith(owner) else case
            owners[case] = owner
        named = [Row(None, case, role.modality.lower(), root / role.path)]
        for row in named if role.modality else tagged(role.path):
            rows.append(Row(owners.get(case), case, row.modality, row.path, row.series, role.split))
    if owners:
        case = min(owners)
        found.guessed.append(
            f"{len(owners)} cases are studies of {len({*owners.values()})} patients by their folders ({case} is of {owners[case]})"
        )
    if twice:
        found.guessed.append(
            f"a name of patients in several folders is of several patients ({quote_some(twice)})"
        )
    return rows, [role.path for role in every if role not in roles]


def is_known(name: str) -> bool:
    """Whether a name is that of a known modality, mask or label map, or begins with one ('cta2', 't1_gd')."""
    lower = name.lower()
    first = re.split("[-_]", lower)[0]
    return {lower, first} & KNOWN != set() or re.split("[^a-z]", lower)[0] in UNITS


def _roles(path: str, is_dicom: bool) -> Roles:
    *folders, stem = without_ending(path).split("/")
    split, side, names = None, "", list[str]()
    for folder in folders:
        stated = None if any(map(is_person, names)) else split_in(folder)
        if stated is None:
            names.append(folder)
        else:
            split, side = stated[0], stated[1] or side
    rest = stem
    for folder in names:
        rest = re.sub(rf"^{re.escape(folder)}[-_]+", "", rest)
    own, modality = _cut(rest, r"[-_]\d\d" if names else r"[-_]\d")
    sides = [name for name in names if name in ("A", "B") and split and not modality]
    names = [name for name in names if name not in sides]
    modality = modality or side or "".join(sides)
    others = [name for name in names if not is_known(name)]
    if not modality and len(others) < len(names):
        modality = next(name for name in reversed(names) if is_known(name))
    if modality and (others or own):
        names = others
    has_number = any(map(identifies, names))
    if names and is_dicom and not modality:
        own = own if is_person(own) or _is_study(own) else ""
    elif names and not modality and not (is_person(own) or re.search(r"\d{3}|^\d+$", own)):
        own, modality = "", rest
    elif names and not re.search(r"\d", own) and (has_number or _is_study(own)):
        own, modality = "", rest if own and rest.endswith(modality) else modality
    ids = (*names, own) if own and not (names and own.lower() in NO_PATIENT) else tuple(names)
    return Roles(path, split, ids, len(names), modality)


def _cut(stem: str, number: str) -> tuple[str, str]:
    """What a file's name states of its patient, and of its modality; "" for nothing. number: expression of a patient's."""
    pieces = re.split("([-_])", stem)
    for start in range(len(pieces) - 1, -1, -2):
        name = "".join(pieces[start:])
        if is_known(name) and not re.search(number, name):
            return "".join(pieces[: max(start - 1, 0)]), name
    for place in range(0, len(pieces) - 1, 2):
        if is_known(pieces[place]):
            return "".join(pieces[:place] + pieces[place + 2 :]), pieces[place]
    return stem, ""


def _is_study(name: str) -> bool:
    """Whether a name is that of a study alone, not of a patient such as S01 or a site such as B."""
    short = re.fullmatch(r"[a-z]|(?![vtdmwy])[a-z]\d+|[a-z]\d{3,}", name, re.IGNORECASE)
    return short is None and PART.fullmatch(f"_{name}") is not None


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
    numbered = [place for place in whole if identifies(ids[place]) and ids[place] not in sites]
    first = (numbered or whole[-1:] or [len(ids) - 1])[0]
    groups = [place for place in whole if place < first]
    study = [
        name
        for place, name in enumerate(ids)
        if place not in (first, *groups) and (_is_study(name) or identifies(name))
    ]
    return tuple(ids[place] for place in groups), ids[first], tuple(study)


def _without_modality(root: Path, names: Sequence[str]) -> BadInput:
    """The error of scans whose names state no modality."""
    shown = f"{len(names)} scans of another form ({quote_some(names)})"
    if all(is_picture(root / name) for name in names):
        _, _, height, width = read_volume(root / names[0]).data.shape
        if width == 2 * height:
            return BadInput(
                f"{root}: expected a picture for each modality, found {shown}, twice as wide as high, as pix2pix puts two side by side. Cut each into two, named as FOLDER/CASE_a.png and FOLDER/CASE_b.png."
            )
    return BadInput(
        f"{root}: expected a folder for each case, or names that end with a modality, found {shown}. Pass --pattern '{{case}}_{{modality}}' for many cases in one folder, or '{{modality}}' where they are one patient's."
    )
