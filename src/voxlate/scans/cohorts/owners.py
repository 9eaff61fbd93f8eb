"""The patients of cases: stated by a table, a pattern, an option, a public identifier or DICOM tags, or asked for.

Names of cases are not interpreted. Where several share a stem ('patient3a' and 'patient3b'), `require_patients` asks.
Of the tags of a person, hashes alone are kept, and none is shown.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from voxlate.base.errors import BadInput, first_of, plural
from voxlate.base.files import safe_name
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, plain_name
from voxlate.scans.cohorts.manifest import read_lines
from voxlate.scans.cohorts.path_names import DATE, PERSON, PUBLIC, is_person
from voxlate.scans.cohorts.split_lists import PATIENTS
from voxlate.scans.formats.dicom import entries_in, folder_and_key, images_of, is_dicom_folder
from voxlate.scans.formats.io import file_and_part, is_picture

EACH = "each"  # in place of a file of patients
# What may state a session, side or copy behind a stem: a date, words with a number, a letter behind a digit; or a number.
SUFFIX = re.compile(
    rf"(?:[-_. ]+(?:\w+[-_. ])?(?:{DATE}).*|[-_. ]+(?P<word>[^\W\d_]+[-_.]?\d{{0,3}})|[-_. ]*\(\d+\)|(?<=\d)[a-z]\d{{0,2}}|[-_. ]+(?P<number>\d+))$",
    re.IGNORECASE,
)
MOST_SESSIONS = 4  # of a patient in 'anna_1' and 'anna_2'; more are numbered patients of a group
# Pictures called anna_s005 or anna_005, of anna.
SLICE = re.compile(r"(?P<patient>.*[^\W_].*?)[-_. ]+(?:s|z|slice)?[-_]?\d{2,}", re.IGNORECASE)
NUMBERED = re.compile(r"(?:[a-z]+[-_. ]?)?\d+", re.IGNORECASE)  # pictures called 0001 or img_001
# What anonymisers write in the place of a patient.
NOBODY = re.compile(
    r"[\W0_]*|(?:anon|unknown|none|no.?name|n.?a$|de.?id|removed|x+$).*", re.IGNORECASE
)


def shared_stems(names: Iterable[str], are_numbers_plain: bool = False) -> dict[str, list[str]]:
    """The names that share a stem, by the stem, where they may be of one patient; {} of names that are numbered alone.

    are_numbers_plain: whether several words before numbers are those of modalities (scan_1, image_1).
    """
    names = sorted({*names})
    suffixes = {name: match for name in names if (match := SUFFIX.search(name))}
    groups = grouped((name[: match.start()], name) for name, match in suffixes.items())
    sizes = Counter({stem: len(of_stem) for stem, of_stem in groups.items() if stem})
    shared = {}
    for stem, of_stem in groups.items():
        several = sorted({*of_stem, *({stem} & {*names})})
        if not stem or len(several) < 2 or PERSON.fullmatch(several[-1]):
            continue
        is_everywhere = len(several) == len(names)
        ends_in_number = stem[-1].isdigit()
        matches = [suffixes[name] for name in of_stem]
        if any(match["word"] and PERSON.fullmatch(match["word"]) for match in matches):
            continue  # site_p1
        numbers = [match["number"] for match in matches if match["number"]]
        if len(numbers) == len(matches) and stem not in names:
            is_few = not are_numbers_plain and sizes.most_common(1)[0][1] <= MOST_SESSIONS
            is_short = is_few and all(number[0] != "0" for number in numbers)
            if is_everywhere or not (ends_in_number or is_short):
                continue  # head_01, and site_001 beside other_001
        elif is_everywhere and not ends_in_number:
            continue  # mri_anna, mri_bert
        shared[stem] = several
    return shared


def state_owners(
    cases: Sequence[CaseFiles], patients: Path | str | None, found: CohortFiles
) -> list[CaseFiles]:
    """The cases with their patients: by the option, as stated, by public identifiers, else each its own.

    The patient is '' where it must be asked for; `found.questions` then holds why.
    """
    if patients is not None:
        return take_patients(cases, patients)
    unstated = [case.case for case in cases if not case.patient]
    public = {name: match[0] for name in unstated if (match := PUBLIC.match(name))}
    if several := {owner for owner, count in Counter(public.values()).items() if count > 1}:
        found.guessed.append(
            f"{plural(len(several), 'patient')} by public identifiers ({first_of(sorted(several))})"
        )
    others = [name for name in unstated if name not in public and name not in found.undecided]
    are_pictures = all(is_picture(path) for case in cases for path in case.files.values())
    of_pictures = _owners_of_slices(others, found) if are_pictures else {}
    public |= of_pictures
    others = [name for name in others if name not in of_pictures]
    shared = shared_stems(others, bool(found.unpaired))
    if shared:
        shown = [f"{stem}: {first_of(group, 3)}" for stem, group in shared.items()]
        found.questions.append(
            f"{plural(sum(map(len, shared.values())), 'case')} that share the stem of their names ({first_of(shown, 3, '; ')}), and may be sessions of one patient"
        )
    found.undecided |= {name for group in shared.values() for name in group}
    owners = {name: public.get(name, "" if name in found.undecided else name) for name in unstated}
    if are_pictures:
        numbered = [name for name in others if NUMBERED.fullmatch(name) and not is_person(name)]
        if len(numbered) > 1:
            sentence = f"the names of {len(numbered)} pictures state a number and no patient ({first_of(numbered, 3)}), so that each counts as a patient; --patients FILE states whose they are"
            found.guessed.append(sentence)
            found.unowned.append(sentence)
    return [replace(case, patient=case.patient or owners.get(case.case, "")) for case in cases]


def _owners_of_slices(names: Sequence[str], found: CohortFiles) -> dict[str, str]:
    """The patients of pictures that are called as slices of several patients, which is noted; {} for other names."""
    matches = {name: match for name in names if (match := SLICE.fullmatch(name))}
    owners = {name: match["patient"] for name, match in matches.items()}
    count = len({*owners.values()})
    if len(owners) < len(names) or not 1 < count < len(names):
        return {}
    found.guessed.append(f"pictures are slices of {plural(count, 'patient')} by their names")
    return owners


def require_patients(found: CohortFiles, root: Path) -> None:
    """Raise BadInput where the patients of cases must be stated: scans of one patient could reach two splits."""
    unstated = [case.case for case in found.cases if not case.patient]
    if not unstated:
        return
    why = "; ".join(found.questions) or "cases without a patient"
    cut = SUFFIX.search(unstated[0])
    expression = (
        r"^(.*\d)[a-zA-Z]\d*$" if cut and cut[0][0].isalpha() else r"^(.+?)[-_. ]+[^-_. ]+$"
    )
    raise BadInput(
        f"{root}: expected the patient of each case, found {why}. Add --patients each if every case is a patient, --patients '{expression}' for the patient in the name, or --patients FILE, by default {PATIENTS} there, with 'CASE PATIENT' a line. {found.unpaired}".rstrip()
    )


def take_patients(cases: Sequence[CaseFiles], patients: Path | str) -> list[CaseFiles]:
    """The cases with their patients by EACH, by a text file with 'CASE PATIENT' a line, or by a regular expression.

    The patient is the expression's first group, or all that it matches; a case whose name it does not match is its own.
    """
    text = str(patients)
    path = Path(patients)
    if text == EACH:
        return [replace(case, patient=case.case) for case in cases]
    if re.search(r"[()\[\]*+?^$|]", text) and not path.is_file():
        try:
            matches = {case.case: re.search(text, case.case) for case in cases}
        except re.error as error:
            raise BadInput(
                f"--patients: expected a regular expression, a file or each, found '{text}' ({error}). Fix it."
            ) from error
        owners = {
            name: plain_name(match[match.re.groups and 1] or name)
            for name, match in matches.items()
            if match
        }
        return [replace(case, patient=owners.get(case.case, case.case)) for case in cases]
    owners = {}
    for number, line in read_lines(path).items():
        row = [safe_name(word, f"{path}, line {number}") for word in re.split(r"[\s,;]+", line)]
        if len(row) > 2 or owners.setdefault(row[0], row[-1]) != row[-1]:
            raise BadInput(
                f"{path}, line {number}: expected 'CASE PATIENT', each case once, found '{line}'. Fix the line."
            )
    lacking = sorted({case.case for case in cases} - owners.keys())
    if lacking:
        raise BadInput(
            f"{path}: expected 'CASE PATIENT' for every case, found none for {lacking[0]} ({len(lacking)} of {len(cases)} lack it). Add them; a case alone is a patient of its own."
        )
    return [replace(case, patient=owners[case.case]) for case in cases]


@dataclass(frozen=True)
class Person:
    """Hashes of what a header states of a patient; "" for nothing."""

    number: str
    name: str

    def may_be(self, other: "Person") -> bool:
        """Whether two headers are of one person: by PatientID, else by name."""
        if self.number and other.number:
            return self.number == other.number
        return self.name != "" and self.name == other.name


def join_by_person(cases: Sequence[CaseFiles], found: CohortFiles) -> list[CaseFiles]:
    """The cases, those of one person with the patient of the first; what was joined, or differs, is noted.

    Where all patients have one person's tags, as those of an anonymiser, nobody is known: found.questions has it.
    """
    known = list[tuple[Person, str]]()  # the persons that were met, and their patients
    owners = dict[str, str]()  # by a patient of the cases, the patient that it is
    for case in sorted(cases, key=lambda case: case.case):
        persons = [person for path in case.files.values() if (person := person_in(path))]
        if any(not persons[0].may_be(person) for person in persons):
            found.guessed.append(f"the DICOM files of case {case.case} state several patients")
            continue
        name = case.patient or case.case
        same = (owner for other, owner in known for person in persons if person.may_be(other))
        owner = owners.setdefault(name, next(same, name))
        known += [(person, owner) for person in persons]
    joined = [name for name, owner in owners.items() if name != owner]
    if joined and len({*owners.values()}) == 1:
        found.questions.append(
            f"one person by the DICOM tags of all {len(owners)} patients, as an anonymiser may write them"
        )
        return [replace(case, patient="") for case in cases]
    if joined:
        found.guessed.append(
            f"{plural(len(joined) + 1, 'patient')} are fewer persons by PatientID and name of their DICOM files ({first_of([owners[joined[0]], *joined])})"
        )
    return [replace(case, patient=owners.get(case.patient, case.patient)) for case in cases]


def person_in(path: Path) -> Person | None:
    """The person whom the first header of a DICOM series names; None where it names none, and for other files."""
    series, _ = file_and_part(path)
    place, key = folder_and_key(series)
    if not place.is_dir() or not is_dicom_folder(place):
        return None
    for file in [series] if key else entries_in(place):
        try:
            images = images_of(file)
        except BadInput:  # which reading the scan says
            continue
        for image in images:
            hashes = []
            for tag in ("PatientID", "PatientName"):
                words = image.text(tag).upper().split("^")
                text = "^".join(map(str.strip, words)).rstrip("^")
                is_nobody = NOBODY.fullmatch(text)
                hashes.append("" if is_nobody else hashlib.sha256(text.encode()).hexdigest())
            person = Person(*hashes)
            return person if person.number or person.name else None
    return None
