"""The patients of cases: stated by a table, a pattern, an option, a public identifier or DICOM tags, or asked for.

Names of cases are not interpreted. Where several share a part ('patient3a' and 'patient3b', 'V1_p01' and 'V2_p01'),
`require_patients` asks.
Of the tags of a person, hashes alone are kept, and none is shown.
"""

import hashlib
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

from voxlate.base.errors import BadInput, first_of, plural
from voxlate.base.files import safe_name
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, plain_name
from voxlate.scans.cohorts.manifest import read_lines
from voxlate.scans.cohorts.path_names import DATE, PERSON, PUBLIC, is_person, patient_of
from voxlate.scans.cohorts.split_lists import PATIENTS
from voxlate.scans.formats.array_files import images_in
from voxlate.scans.formats.dicom import entries_in, folder_and_key, images_of, is_dicom_folder
from voxlate.scans.formats.io import file_and_part, holds_slices, is_picture

EACH = "each"  # in place of a file of patients
# Patients in the names of cases: before a letter, the first part, all but the last, the last, all but the first, one between.
EXPRESSIONS = (
    r"^(.*\d)[a-zA-Z]+\d*$",
    "^([^_]+)",
    "^([^-]+)",
    "^(.+)[-_. ][^-_. ]+$",
    "([^_]+)$",
    "([^-]+)$",
    r"([a-zA-Z]+\d+)$",
    "^[^-_. ]+[-_. ](.+)$",
    "_([^_]+)_",
)
# The parts of a name: dates, persons such as 'pat_1', and other words and numbers ('V1p01' has two).
PART = re.compile(
    rf"{DATE}|(?<![^\W_])(?:{PERSON.pattern})(?![^\W_])|[^\W\d_]*\d+|[^\W\d_]+",
    re.IGNORECASE,
)
MOST_SESSIONS = 4  # of a patient in 'anna_1' and 'anna_2'; more are numbered patients of a group
NUMBERED = re.compile(r"(?:[a-z]+[-_. ]?)?\d+", re.IGNORECASE)  # pictures called 0001 or img_001
# What anonymisers write in the place of a patient.
NOBODY = re.compile(
    r"[\W0_]*|(?:anon|unknown|none|no.?name|n.?a$|de.?id|removed|x+$).*", re.IGNORECASE
)


def shared_parts(names: Sequence[str], are_pictures: bool = False) -> dict[str, list[str]]:
    """The names that are alike but for one part, by what they share, where they may be of one patient.

    They may not where they share dates alone, or that part is a person or one of many numbers, unless these may be those
    of slices (are_pictures); nor where all names share the rest, unless it is a person or that part a date.
    """
    of_names = {name: tuple(match[0] for match in PART.finditer(name)) for name in sorted(names)}
    whole = {parts: name for name, parts in of_names.items()}
    groups = grouped(
        ((parts[:place], parts[place + 1 :]), (parts[place], name))
        for name, parts in of_names.items()
        for place in reversed(range(len(parts)))
    )
    shared = dict[str, list[str]]()
    for (before, behind), group in groups.items():
        rest = (*before, *behind)
        words = [word for word, _ in group]
        several = sorted({name for _, name in group} | {whole.get(rest, group[0][1])})
        if len(several) < 2 or all(map(_is_date, rest)) or any(map(PERSON.fullmatch, words)):
            continue
        if not any(map(PERSON.fullmatch, rest)) and not any(map(_is_date, words)):
            are_numbers = not are_pictures and all(map(str.isdecimal, words))
            is_short = len(words) <= MOST_SESSIONS and all(word[0] != "0" for word in words)
            if len(several) == len(of_names) or (are_numbers and not is_short):
                continue
        if not {*several} <= {*chain.from_iterable(shared.values())}:
            shared["_".join(rest)] = several
    return shared


def _is_date(name: str) -> bool:
    """Whether a name is a date, which is that of no patient."""
    return bool(re.fullmatch(DATE, name))


def state_owners(cases: Sequence[CaseFiles], found: CohortFiles) -> list[CaseFiles]:
    """The cases with their patients: as stated, by public identifiers, else each its own.

    The patient is '' where it must be asked for; `found.questions` then holds why.
    """
    owners = {case.case: case.patient or patient_of(case.case) for case in cases}
    asked = {case.case for case in cases if not (case.patient or PUBLIC.match(case.case))}
    others = sorted(asked - found.undecided)
    are_pictures = all(_is_slice(path) for case in cases for path in case.files.values())
    if shared := shared_parts(others, are_pictures):
        shown = [f"{stem}: {first_of(group, 3)}" for stem, group in shared.items()]
        several = {*chain.from_iterable(shared.values())}
        found.questions.append(
            f"{plural(len(several), 'case')} that share a part of their names ({first_of(shown, 3, '; ')}), and may be sessions of one patient"
        )
        found.undecided |= several
    numbered = [name for name in others if NUMBERED.fullmatch(name) and not is_person(name)]
    if len(numbered) > 1 and are_pictures:
        sentence = f"the names of {len(numbered)} pictures state a number and no patient ({first_of(numbered, 3)}), so that each counts as a patient; --patients FILE states whose they are"
        found.guessed.append(sentence)
        found.unowned.append(sentence)
    owners |= dict.fromkeys(asked & found.undecided, "")
    return [replace(case, patient=owners[case.case]) for case in cases]


def _is_slice(path: Path) -> bool:
    """Whether a file is a picture, or an array file without stacks of slices."""
    file = file_and_part(path)[0]
    return is_picture(path) or (
        holds_slices(file) and all(len(shape) == 2 for shape in images_in(file).values())
    )


def state_pairs(found: CohortFiles) -> None:
    """State in `found.unpaired` that each modality is in cases of its own, where the cohort has several."""
    scans = grouped((name, path) for case in found.cases for name, path in case.files.items())
    is_repeated = any(len(paths) > 1 for paths in scans.values())
    if len(scans) > 1 and is_repeated and all(len(case.files) == 1 for case in found.cases):
        shown = first_of([f"{name} in {paths[0]}" for name, paths in scans.items()])
        found.unpaired = f"Expected cases with two modalities, found each modality in cases of its own ({shown}). If equal parts of their paths are of one patient, pass --pattern with {{case}} in their place, such as '{{modality}}/{{case}}_*'; or give the scans of a pair one case in the table of voxlate manifest; without pairs, train a recipe with method.kind = 'cycle'."


def require_patients(found: CohortFiles) -> None:
    """Raise BadInput where the patients of cases must be stated: scans of one patient could reach two splits."""
    if all(case.patient for case in found.cases):
        return
    why = "; ".join(found.questions) or "cases without a patient"
    raise BadInput(
        f"{found.root}: expected the patient of each case, found {why}. Add {answers(found)}. {found.unpaired}".rstrip()
    )


def answers(found: CohortFiles) -> str:
    """The options that state the patients of the cases that lack one, each with the patients that it makes of them."""
    asked = [case.case for case in found.cases if not case.patient]
    offered = dict[frozenset[tuple[str, ...]], str]()
    for option in (EACH, *EXPRESSIONS):
        owners = owners_by(found.cases, option)
        patients = grouped((owner, case) for case, owner in owners.items())
        joins_some = 1 < len(patients) < len(owners) and not _is_date(owners[asked[0]])
        if option == EACH or joins_some:
            shown = first_of([*dict.fromkeys(map(owners.__getitem__, asked))], 2)
            text = f"--patients {shlex.quote(option)} if they are {plural(len(patients), 'patient')} ({shown})"
            offered.setdefault(frozenset(map(tuple, patients.values())), text)
    return f"{', '.join(offered.values())}, or --patients FILE (by default {PATIENTS} there) with 'CASE PATIENT' a line"


def take_patients(cases: Sequence[CaseFiles], patients: Path | str) -> list[CaseFiles]:
    """The cases with their patients by an option; raises BadInput where it states none for one of them."""
    owners = owners_by(cases, patients)
    lacking = sorted({case.case for case in cases} - owners.keys())
    if lacking:
        raise BadInput(
            f"{patients}: expected 'CASE PATIENT' for every case, found none for {lacking[0]} ({len(lacking)} of {len(cases)} lack it). Add them; a case alone is a patient of its own."
        )
    is_expression = patients != EACH and not Path(patients).is_file()
    if is_expression and not any(re.search(f"{patients}", case.case) for case in cases):
        raise BadInput(
            f"--patients: expected an expression that matches names of cases such as {cases[0].case}, found '{patients}'. Change it."
        )
    return [replace(case, patient=owners[case.case]) for case in cases]


def owners_by(cases: Sequence[CaseFiles], patients: Path | str) -> dict[str, str]:
    """The patients of cases by EACH, by a text file with 'CASE PATIENT' a line, or by a regular expression.

    The patient is the expression's first group, or all that it matches; a case whose name it does not match is its own.
    """
    owners = {case.case: case.case for case in cases}
    text = str(patients)
    if text == EACH:
        return owners
    if Path(patients).is_file() or not re.search(r"[()\[\]*+?^$|]", text):
        return _owners_in_file(Path(patients))
    try:
        expression = re.compile(text)
    except re.error as error:
        raise BadInput(
            f"--patients: expected a regular expression, a file or each, found '{text}' ({error}). Fix it."
        ) from error
    for case in owners:
        if match := expression.search(case):
            owners[case] = plain_name(match[min(expression.groups, 1)] or case)
    return owners


def _owners_in_file(path: Path) -> dict[str, str]:
    """The patient of each case in a text file with 'CASE PATIENT' a line."""
    owners = dict[str, str]()
    for number, line in read_lines(path).items():
        row = [
            safe_name(word, f"{path}, line {number}") for word in re.split(r"[\s,;]+", line.strip())
        ]
        if len(row) > 2 or owners.setdefault(row[0], row[-1]) != row[-1]:
            raise BadInput(
                f"{path}, line {number}: expected 'CASE PATIENT', each case once, found '{line}'. Fix the line."
            )
    return owners


def join_by_person(
    cases: Sequence[CaseFiles], found: CohortFiles, is_stated: bool, doubts: list[str]
) -> list[CaseFiles]:
    """The cases, those of one person with the patient of the first where nobody states the patients; what was joined is noted.

    A case of several persons is a doubt. Where all patients have one person's tags, as those of an anonymiser, nobody is
    known: found.questions has it.
    """
    owners = dict[str, str]()  # by a patient of the cases, the patient that it is
    of_persons = dict[str, str]()
    mixed = []
    for case in cases:
        persons = {*map(person_in, case.files.values())} - {""}
        if len(persons) > 1:
            mixed.append(case.case)
        for person in [*persons] if len(persons) == 1 else []:
            name = case.patient or case.case
            owner = of_persons.setdefault(person, owners.get(name, name))
            owners.setdefault(name, owner)
    what = "cases of several patients by their DICOM tags (--pattern or --manifest pairs others)"
    found.note(doubts, mixed, what)
    joined = [name for name, owner in owners.items() if name != owner]
    if is_stated or not joined:
        return [*cases]
    if len({*owners.values()}) == 1:
        found.questions.append(
            f"one person by the DICOM tags of all {len(owners)} patients, as an anonymiser may write them"
        )
        return [replace(case, patient="") for case in cases]
    found.guessed.append(
        f"{plural(len(joined) + 1, 'patient')} are fewer persons by PatientID and name of their DICOM files ({first_of([owners[joined[0]], *joined])})"
    )
    return [replace(case, patient=owners.get(case.patient, case.patient)) for case in cases]


def person_in(path: Path) -> str:
    """A hash of the person whom the first header of a DICOM series names, by PatientID or else by name; "" where it names nobody, and for other files."""
    series = file_and_part(path)[0]
    place, key = folder_and_key(series)
    if not place.is_dir() or not is_dicom_folder(place):
        return ""
    for file in [series] if key else entries_in(place):
        with suppress(BadInput):  # which reading the scan says
            for image in images_of(file):
                for tag in ("PatientID", "PatientName"):
                    words = image.text(tag).upper().split("^")
                    text = "^".join(map(str.strip, words)).rstrip("^")
                    if not NOBODY.fullmatch(text):
                        return hashlib.sha256(f"{tag} {text}".encode()).hexdigest()
                return ""
    return ""
