"""Cases of one person by the tags of their DICOM files. Of the tags, hashes alone are kept, and none is shown."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from voxlate.base.errors import BadInput, first_of, plural
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles
from voxlate.scans.formats.dicom import entries_in, folder_and_key, headers_of, is_dicom_folder
from voxlate.scans.formats.dicom_headers import text_of
from voxlate.scans.formats.io import file_and_part

# What anonymisers write in the place of a patient.
NOBODY = re.compile(
    r"[\W0_]*|(?:anon|unknown|none|no.?name|n.?a$|de.?id|removed|x+$).*", re.IGNORECASE
)


@dataclass(frozen=True)
class Person:
    """Hashes of what a header states of a patient; "" for nothing."""

    number: str
    name: str
    birth: str

    def may_be(self, other: "Person") -> bool:
        """Whether two headers are of one person: by PatientID, else by name; a blank date of birth fits any."""
        born_apart = bool(self.birth and other.birth and self.birth != other.birth)
        named_alike = self.name != "" and self.name == other.name
        if self.number and other.number:
            return self.number == other.number and (named_alike or not born_apart)
        return named_alike and not born_apart


def join_by_person(cases: Sequence[CaseFiles], found: CohortFiles) -> list[CaseFiles]:
    """The cases, those of one person with the patient of the first; what was joined, or differs, is noted."""
    patients = dict[Person, str]()  # by the persons that were met
    owners = dict[str, str]()  # by a patient of the cases, the patient that it is
    for case in sorted(cases, key=lambda case: case.case):
        persons = [person for path in case.files.values() if (person := person_in(path))]
        if any(not persons[0].may_be(person) for person in persons):
            found.guessed.append(f"the DICOM files of case {case.case} state several patients")
            continue
        known = (
            patients[other] for person in persons for other in patients if person.may_be(other)
        )
        owner = next(known, case.patient)
        owners.setdefault(case.patient, owner)
        patients |= dict.fromkeys(persons, owners[case.patient])
    joined = [name for name, owner in owners.items() if name != owner]
    if not joined:
        return [*cases]
    if len({*owners.values()}) == 1 < len(owners) - 1 and not any(one.birth for one in patients):
        found.guessed.append(
            f"the DICOM files of all {len(owners)} patients state one person, as anonymised ones may, and they are kept apart; --patients FILE states whose they are"
        )
        return [*cases]
    found.guessed.append(
        f"{plural(len(joined) + 1, 'patient')} are fewer persons by PatientID, name and date of birth of their DICOM files ({first_of([owners[joined[0]], *joined])})"
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
            headers = headers_of(file)
        except BadInput:  # which reading the scan says
            continue
        for image, header in headers.items():
            texts = (
                text_of(header, tag, image).upper()
                for tag in ("PatientID", "PatientName", "PatientBirthDate")
            )
            plain = ("^".join(map(str.strip, text.split("^"))).rstrip("^") for text in texts)
            hashes = (
                "" if NOBODY.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()
                for text in plain
            )
            person = Person(*hashes)
            return person if person.number or person.name else None
    return None
