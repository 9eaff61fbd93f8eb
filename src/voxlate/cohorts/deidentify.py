"""DICOM files under pseudonyms, by the table of the Basic Application Level Confidentiality Profile (PS3.15, annex E).

The table is that of dicom-anonymizer (edition 2026c). UIDs and patient ids are keyed hashes, and dates are shifted by a
number of days of the patient (option "Retain Longitudinal Temporal Information With Modified Dates"). Times and birth
dates follow the table. Private attributes are removed, except those of voxlate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from voxlate.cohorts.pseudonyms import Pseudonyms
from voxlate.formats.dicom_series import PRIVATE_GROUP
from voxlate.formats.format import errors_as
from voxlate.images.optional import optional_package
from voxlate.system.errors import BadInput
from voxlate.system.files import locked, whole_file

EDITION = "dicomfields_2026c"
CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
)
METHOD = "voxlate, PS3.15 basic profile, keyed pseudonyms, shifted dates"
SYNTHETIC = (
    "SYNTHETIC - NOT FOR DIAGNOSIS"  # the description of a synthesised series under a pseudonym
)
OWN_CREATOR = "voxlate"  # the private creator of the block with the provenance, in any case
STANDARD_UIDS = "1.2.840.10008."  # UIDs of DICOM itself, such as SOP classes, name no object
# Texts of people that the table leaves to other options, or leaves out.
FREE_TEXTS: dict[tuple[int, int], Literal["delete", "empty", "dummy"]] = {
    (0x0040, 0xA160): "dummy",  # TextValue, in the content of documents
    (0x0070, 0x0081): "empty",  # ContentDescription, which some objects require
    (0x0028, 0x1055): "delete",  # WindowCenterWidthExplanation
    (0x0028, 0x3003): "dummy",  # LUTExplanation, which maps require
    (
        0x0012,
        0x0081,
    ): "delete",  # name of an ethics committee, which only the number of its approval allows
}
OVERLAYS = range(
    0x6000, 0x6100
)  # the table removes their pixels, without which the rest is invalid
STATIONS = (
    "ImplementationVersionName",  # attributes of the file itself that name a machine or a hospital's software
    "SourceApplicationEntityTitle",
    "SendingApplicationEntityTitle",
    "ReceivingApplicationEntityTitle",
    "SourcePresentationAddress",
    "SendingPresentationAddress",
    "ReceivingPresentationAddress",
    "PrivateInformationCreatorUID",
    "PrivateInformation",
)
BIRTH_DATE = (0x0010, 0x0030)
DUMMY_NUMBER, DUMMY_TEXT = 0, "REMOVED"
TEXTS = ("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT", "PN")
Action = Literal["delete", "empty", "dummy", "uid"]
# The action for each list of the library's table. Where the standard leaves a choice, the one that keeps an object
# valid without knowing its type is taken. Sequences that refer to images stay, with other UIDs.
ACTIONS: dict[str, Action] = {
    "X_TAGS": "delete",
    "Z_TAGS": "empty",
    "X_Z_TAGS": "empty",
    "D_TAGS": "dummy",
    "Z_D_TAGS": "dummy",
    "X_D_TAGS": "dummy",
    "X_Z_D_TAGS": "dummy",
    "U_TAGS": "uid",
    "X_Z_U_STAR_TAGS": "uid",
}
Tag = tuple[int, int]


@dataclass(frozen=True)
class Rules:
    """What the table says of each tag; repeated: of groups such as 50xx, with masks of group and element."""

    actions: dict[Tag, Action]
    repeated: tuple[tuple[int, int, int, int, Action], ...]

    @classmethod
    def load(cls, where: object) -> "Rules":
        """The rules of the library's table; raises BadInput where the library is not installed."""
        library = optional_package(
            "dicomanonymizer.dicomfields_selector",
            "pseudonyms",
            where,
            "dicom-anonymizer for the table of PS3.15",
        )
        table = library.dicom_anonymization_database_selector(EDITION)
        actions = dict[Tag, Action]()
        repeated = list[tuple[int, int, int, int, Action]]()
        for name, action in ACTIONS.items():
            for tag in table[name]:
                if len(tag) > 2:
                    repeated.append((*tag, action))
                else:
                    actions[tag] = action
        return cls(actions, tuple(repeated))

    def action(self, tag: Tag) -> Action | None:
        """The action for a tag; None where the table does not have it."""
        if tag in FREE_TEXTS:
            return FREE_TEXTS[tag]
        if tag[0] in OVERLAYS:
            return "delete"
        if tag in self.actions:
            return self.actions[tag]
        for group, element, group_mask, element_mask, action in self.repeated:
            same_group = tag[0] & group_mask == group & group_mask
            if same_group and tag[1] & element_mask == element & element_mask:
                return action
        return None


@dataclass(frozen=True)
class Deidentified:
    """The written files, and files that were left out, because they hold texts and no pixels."""

    files: tuple[Path, ...]
    left_out: tuple[Path, ...]


def deidentify_folder(source: Path, target: Path, pseudonyms: Pseudonyms) -> Deidentified:
    """Write each DICOM image below a folder to TARGET/<SOP instance>.dcm, under pseudonyms.

    Raises BadInput where a file is no DICOM file, or states that names are burned into its pixels.
    """
    pydicom = optional_package("pydicom", "dicom", source, "pydicom to write DICOM files")
    rules = Rules.load(source)
    files = sorted(one for one in source.rglob("*") if one.is_file())
    if not files:
        raise BadInput(f"{source}: expected a folder with DICOM files, found none. Check the path.")
    written = list[Path]()
    left_out = list[Path]()
    with locked(target):
        for file in files:
            sentence = f"{file}: expected a DICOM file, found another one"
            with errors_as(sentence, "Take it out of the folder."):
                dataset = pydicom.dcmread(file)
            if not any(
                name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
            ):
                left_out.append(file)
                continue
            deidentify(dataset, pseudonyms, rules, file)
            path = target / f"{dataset.SOPInstanceUID}.dcm"
            if path in written:
                raise BadInput(
                    f"{file}: expected a SOPInstanceUID of its own, found that of another file in {source}. Take one of them out: the second would replace the first."
                )
            with whole_file(path) as temporary:
                dataset.save_as(temporary, enforce_file_format=True)
            written.append(path)
    return Deidentified(tuple(written), tuple(left_out))


def deidentify(dataset: Any, pseudonyms: Pseudonyms, rules: Rules, where: object) -> None:
    """Change a pydicom dataset in place: no attribute in it names the patient, and its UIDs are keyed hashes."""
    if str(dataset.get("BurnedInAnnotation", "NO")).strip().upper() == "YES":
        raise BadInput(
            f"{where}: expected pixels without names, found BurnedInAnnotation YES. Leave this series out: pseudonyms do not change pixels."
        )
    if not dataset.get("SOPInstanceUID"):
        raise BadInput(
            f"{where}: expected a SOPInstanceUID, found none. Leave this file out, or get it again as the scanner made it."
        )
    patient = _patient(dataset, where)
    synthetic = str(dataset.get("SeriesDescription", "")).startswith("SYNTHETIC")
    for part in _parts(dataset):
        _remove_private(part)
        for element in list(part):
            _apply(part, element, pseudonyms, rules, patient)
    pseudonym = pseudonyms.patient(patient)
    dataset.PatientID = pseudonym
    dataset.PatientName = pseudonym
    if synthetic:
        dataset.SeriesDescription = SYNTHETIC
    for keyword in STATIONS:
        dataset.file_meta.pop(keyword, None)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.preamble = bytes(128)
    _state_method(dataset)


def _patient(dataset: Any, where: object) -> str:
    """The patient's id; without one, name and birth date, so that two patients never share a pseudonym."""
    own = str(dataset.get("PatientID", "") or "")
    if own:
        return own
    name = str(dataset.get("PatientName", "") or "")
    if not name:
        raise BadInput(
            f"{where}: expected a PatientID or PatientName, found neither, so that patients cannot be told apart. Fill one in."
        )
    return f"{name} {dataset.get('PatientBirthDate', '')}"


def _parts(dataset: Any) -> Iterator[Any]:
    """The dataset and those in its sequences, innermost first."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _parts(item)
    yield dataset


def _remove_private(part: Any) -> None:
    """Remove private attributes, except those in a block of our own."""
    own = {
        (element.tag.group, element.tag.element)
        for element in part
        if element.tag.is_private_creator
        and element.tag.group == PRIVATE_GROUP
        and str(element.value).lower() == OWN_CREATOR
    }
    for element in list(part):
        tag = element.tag
        if not tag.is_private:
            continue
        creator = (tag.group, tag.element if tag.is_private_creator else tag.element >> 8)
        if creator not in own:
            del part[tag]


def _apply(part: Any, element: Any, pseudonyms: Pseudonyms, rules: Rules, patient: str) -> None:
    """Do to an element what the table says."""
    tag = (element.tag.group, element.tag.element)
    action = rules.action(tag)
    if element.tag.is_private:
        return
    if element.VR == "UN":  # nobody knows what it holds
        del part[element.tag]
    elif element.VR in ("DA", "DT") and tag != BIRTH_DATE:
        element.value = _each(element.value, lambda one: pseudonyms.date(str(one)[:8], patient))
    elif action == "uid" and element.VR == "UI":
        element.value = _each(element.value, lambda one: _uid(str(one), pseudonyms))
    elif action == "delete":
        del part[element.tag]
    elif action == "empty":
        element.value = [] if element.VR == "SQ" else None
    elif action == "dummy":
        _replace(part, element)


def _each(value: Any, change: Any) -> Any:
    """One value changed, or each of several."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [change(one) for one in value]
    return change(value) if value else value


def _uid(uid: str, pseudonyms: Pseudonyms) -> str:
    return uid if uid.startswith(STANDARD_UIDS) else pseudonyms.uid(uid)


def _replace(part: Any, element: Any) -> None:
    """Put a value without meaning in place of an element's; sequences stay, because their items are changed."""
    if element.VR == "SQ":
        return
    if element.VR in TEXTS:
        element.value = DUMMY_TEXT
    elif element.VR in ("DS", "IS", "FD", "FL", "SS", "US", "SL", "UL"):
        element.value = DUMMY_NUMBER
    elif element.VR == "TM":
        element.value = "000000"
    elif element.VR == "AS":
        element.value = "000Y"
    else:
        del part[element.tag]


def _state_method(dataset: Any) -> None:
    """State in the dataset that, and how, it was de-identified."""
    pydicom = optional_package("pydicom", "dicom", "DICOM", "pydicom to write DICOM files")
    codes = []
    for value, meaning in CODES:
        code = pydicom.Dataset()
        code.CodeValue = value
        code.CodingSchemeDesignator = "DCM"
        code.CodeMeaning = meaning
        codes.append(code)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = METHOD
    dataset.DeidentificationMethodCodeSequence = codes
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"
