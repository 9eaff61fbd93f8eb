"""The cases of a cohort of DICOM series, each series chosen by its tags, and those of one person by the tags.

Of the tags of a person, hashes alone are kept, and none is shown.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

from voxlate.base.errors import BadInput, first_of, plural
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, cases_of
from voxlate.scans.cohorts.patterns import fits_any, path_expression, split_folders, study_of
from voxlate.scans.cohorts.presets import Preset, Tags
from voxlate.scans.cohorts.rows import Exclusion, Row, quote_some
from voxlate.scans.formats.dicom import (
    SeriesInfo,
    describe_series,
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


def cases_by_series(
    root: Path,
    layout: Preset,
    folders: Sequence[Path],
    exclusion: Exclusion,
    found: CohortFiles,
) -> list[CaseFiles]:
    """The cases whose series are in folders of the layout's form, each series chosen by its tags.

    A case may have one folder or many; root may itself be one. A modality that no series fits is missing. Raises
    BadInput where no folder has the form, several series fit one modality of a case, or none fits in any case.
    """
    skip = [path_expression(pattern) for pattern in layout.skip]
    places = {}  # by their paths below root
    for folder in filter(is_dicom_folder, folders):
        name = folder.relative_to(root).as_posix() if folder != root else root.resolve().name
        if not fits_any(name, skip):
            places[name] = folder
    for pattern in layout.patterns:
        expression = path_expression(pattern)
        matches = {name: match for name in places if (match := expression.fullmatch(name))}
        if not matches:
            continue
        listed, splits = [], split_folders(places)
        for name, match in matches.items():
            patient, study, split = study_of(match, root, splits)
            listed += [
                Row(patient, study, "", series.path, series, split)
                for series in list_series(places[name])
            ]
        rows = [
            replace(row, modality=name.lower())
            for (name, tags), row in product(layout.series.items(), listed)
            if row.series and tags.fits(row.series)
        ]
        if not rows:
            raise _none_fits(root, listed, layout.series)
        unclear = partial(_several_series, layout.series)
        return cases_of(rows, exclusion, layout.patient, layout.runs, found, unclear)
    others = f"{len(places)} of another form ({quote_some([*places])})" if places else "none"
    expected = "' or '".join(layout.patterns)
    raise BadInput(
        f"{root}: expected folders of DICOM files like '{expected}', found {others}. Check the path, or pass --pattern with {{patient}} and {{case}} where they stand in a folder's path."
    )


def rows_by_tags(root: Path, path: str) -> list[Row]:
    """The rows of the series in a DICOM folder, whose modalities their tags state; localisers are none.

    Where one modality is of several patients, the case of a row is the end of its name, such as "_2"; else "".
    """
    rows = []
    for series in list_series(root / path):
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


def _several_series(tables: Mapping[str, Tags], rows: Sequence[Row]) -> BadInput:
    """The error of a case with several series that fit the tags of one modality."""
    modality = rows[0].modality
    name, tags = next((name, tags) for name, tags in tables.items() if name.lower() == modality)
    candidates = [row.series for row in rows if row.series]
    folders = " and ".join(dict.fromkeys(str(series.folder) for series in candidates))
    return BadInput(
        f"{folders}: expected one series with {tags} to be {modality} of case {rows[0].case}, found {describe_series(candidates)}. Narrow [series.{name}] in a TOML file of your own (--preset), or name one in a table (--manifest)."
    )


def _none_fits(root: Path, listed: Sequence[Row], tables: Mapping[str, Tags]) -> BadInput:
    cases = [(row.patient, row.case) for row in listed]
    candidates = [row.series for row, case in zip(listed, cases) if case == cases[0] and row.series]
    wanted = " or ".join(f"{tags} ({name})" for name, tags in tables.items())
    shown = f"{listed[0].case} has {describe_series(candidates)}" if listed else "no series at all"
    return BadInput(
        f"{root}: expected DICOM series with {wanted}, found none in {len({*cases})} cases; {shown}. Check the path, or name the tags in a preset file of your own."
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
