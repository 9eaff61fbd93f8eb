"""What the tags of DICOM series state of a cohort: the modality of each series, and which cases are of one person.

Of the tags of a person, hashes alone are kept, and none is shown.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from voxlate.base.errors import BadInput, first_of, plural
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, Row
from voxlate.scans.cohorts.presets import Tags
from voxlate.scans.formats.dicom import (
    SeriesInfo,
    entries_in,
    folder_and_key,
    headers_of,
    is_dicom_folder,
    list_series,
)
from voxlate.scans.formats.dicom_headers import kind_of, text_of
from voxlate.scans.formats.io import file_and_part

# Contrasts of MR by the words of a description; the first that fits counts.
MR = {
    "flair": "flair|dark.?fluid",
    "adc": r"\badc|apparent",
    "dwi": r"\bdwi|diff|trace",
    "swi": r"\bswi|suscept",
    "tof": r"\btof|angio|\bmra\b",
    "t1c": r"t1.*(?:\+c|\bc\+|\bce\b|gd|gad|post|\bkm\b|contrast)|(?:post|gd|contrast).*(?:t1|mprage|bravo)",
    "t1": r"t1|mp.?rage|spgr|bravo|tfl",
    "t2": "t2",
    "pd": r"\bpd|proton",
}
# What anonymisers write in the place of a patient.
NOBODY = re.compile(
    r"[\W0_]*|(?:anon|unknown|none|no.?name|n.?a$|de.?id|removed|x+$).*", re.IGNORECASE
)


def rows_by_tags(root: Path, path: str, tables: Mapping[str, Tags] | None = None) -> list[Row]:
    """The rows of the series in a DICOM folder, whose modalities their tags state; localisers are none.

    tables: the tags of each modality, where a preset states them; series that fit none are left out.
    Where one modality is of several patients, the case of a row is the end of its name, such as "_2"; else "".
    """
    every = list_series(root / path)
    if tables:
        return [
            Row(None, "", name.lower(), series.path, series)
            for (name, tags), series in product(tables.items(), every)
            if tags.fits(series)
        ]
    rows = []
    for series in every:
        kind = kind_of(series.image_type, f"{series.description} {series.protocol}")
        if kind != "localiser":
            rows.append(Row(None, "", modality_of(series), series.path, series))
    if len({row.modality for row in rows}) < len(rows):
        known = [*dict.fromkeys(person_in(row.path) for row in rows)]
        if len(known) > 1:
            rows = [replace(row, case=f"_{known.index(person_in(row.path)) + 1}") for row in rows]
    return rows


def modality_of(series: SeriesInfo) -> str:
    """The modality that the tags of a series state; mr of an MR series whose description names no contrast."""
    if series.modality != "MR":
        return {"PT": "pet"}.get(series.modality, series.modality.lower() or "mr")
    text = f"{series.description} {series.protocol}"
    return next((name for name, words in MR.items() if re.search(words, text, re.I)), "mr")


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
    """The cases, those of one person with the patient of the first; what was joined, or differs, is noted.

    Where all patients have one person's tags, as those of an anonymiser, nobody is known: found.questions has it.
    """
    patients = dict[Person, str]()  # by the persons that were met
    owners = dict[str, str]()  # by a patient of the cases, the patient that it is
    for case in sorted(cases, key=lambda case: case.case):
        persons = [person for path in case.files.values() if (person := person_in(path))]
        if any(not persons[0].may_be(person) for person in persons):
            found.guessed.append(f"the DICOM files of case {case.case} state several patients")
            continue
        name = case.patient or case.case
        known = (
            patients[other] for person in persons for other in patients if person.may_be(other)
        )
        owner = next(known, name)
        owners.setdefault(name, owner)
        patients |= dict.fromkeys(persons, owners[name])
    joined = [name for name, owner in owners.items() if name != owner]
    if joined and len({*owners.values()}) == 1:
        found.questions.append(
            f"one person by the DICOM tags of all {len(owners)} patients, as an anonymiser may write them"
        )
        return [replace(case, patient="") for case in cases]
    if joined:
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
