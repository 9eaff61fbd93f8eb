"""DICOM files under pseudonyms, by the table of the Basic Application Level Confidentiality Profile (PS3.15, annex E).

The table is that of dicom-anonymizer (edition 2026c). UIDs and patient ids are keyed hashes, and dates are shifted by a
number of days of the patient (option "Retain Longitudinal Temporal Information With Modified Dates"). Times and birth
dates follow the table. Private attributes are removed, except those of voxlate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from voxlate.base.errors import BadInput
from voxlate.base.files import lock, whole_file
from voxlate.base.optional import optional_package
from voxlate.scans.cohorts.pseudonyms import Pseudonyms
from voxlate.scans.formats.dicom_series import PRIVATE_GROUP, code
from voxlate.scans.formats.format import errors_as

EDITION = "dicomfields_2026c"
CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
)
METHOD = "voxlate, PS3.15 basic profile, keyed pseudonyms, shifted dates"
# the description of a synthesised series under a pseudonym
SYNTHETIC = "SYNTHETIC - NOT FOR DIAGNOSIS"
OWN_CREATOR = "voxlate"  # the private creator of the block with the provenance, in any case
STANDARD_UIDS = "1.2.840.10008."  # UIDs of DICOM itself, such as SOP classes, name no object
Action = Literal["delete", "empty", "dummy", "uid"]
Tag = tuple[int, int]
# Texts of people that the table leaves to other options, or leaves out.
FREE_TEXTS: dict[Tag, Action] = {
    (0x0040, 0xA160): "dummy",  # TextValue, in the content of documents
    (0x0070, 0x0081): "empty",  # ContentDescription, which some objects require
    (0x0028, 0x1055): "delete",  # WindowCenterWidthExplanation
    (0x0028, 0x3003): "dummy",  # LUTExplanation, which maps require
    (0x0012, 0x0081): "delete",  # an ethics committee, which only the number of its approval allows
}
# The table removes curves, and the pixels of overlays, without which the rest of an overlay is invalid.
REMOVED_GROUPS = (0x5000, 0x6000)
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
# Values without meaning, by the type of an attribute.
DUMMIES = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT", "PN"), "REMOVED"),
    **dict.fromkeys(("DS", "IS", "FD", "FL", "SS", "US", "SL", "UL"), 0),
    "TM": "000000",
    "AS": "000Y",
}
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
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True)
class Deidentified:
    """DICOM images under pseudonyms, as `voxlate.pseudonymise` returns them.

    Args:
        files: the written files.
        left_out: files that were left out, because they hold texts and no pixels.

    Example:
        >>> import voxlate
        >>> _ = voxlate.pseudonym_key("KEY")
        >>> voxlate.pseudonymise("SERIES", "ANONYMOUS", key="KEY").files[0].suffix
        '.dcm'
    """

    files: tuple[Path, ...]
    left_out: tuple[Path, ...]


def actions_of_table(where: object) -> dict[Tag, Action]:
    """The action for each attribute of the library's table; raises BadInput where the library is not installed."""
    library = optional_package(
        "dicomanonymizer.dicomfields_selector",
        "pseudonyms",
        where,
        "dicom-anonymizer for the table of PS3.15",
    )
    table = library.dicom_anonymization_database_selector(EDITION)
    actions = dict[Tag, Action]()
    for name, action in ACTIONS.items():
        actions |= dict.fromkeys(table[name], action)
    return actions | FREE_TEXTS


def deidentify_folder(source: Path, target: Path, pseudonyms: Pseudonyms) -> Deidentified:
    """Write each DICOM image below a folder to TARGET/<SOP instance>.dcm, under pseudonyms.

    Raises BadInput where a file is no DICOM file, or states that names are burned into its pixels.
    """
    pydicom = optional_package("pydicom", "dicom", source, "pydicom to write DICOM files")
    actions = actions_of_table(source)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    if not files:
        raise BadInput(f"{source}: expected a folder with DICOM files, found none. Check the path.")
    written = list[Path]()
    left_out = []
    with lock(target):
        for file in files:
            sentence = f"{file}: expected a DICOM file, found another one"
            with errors_as(sentence, "Take it out of the folder."):
                dataset = pydicom.dcmread(file)
            if not any(name in dataset for name in PIXELS):
                left_out.append(file)
                continue
            _deidentify(dataset, pseudonyms, actions, file)
            dataset.DeidentificationMethodCodeSequence = [
                code(value, "DCM", meaning) for value, meaning in CODES
            ]
            path = target / f"{dataset.SOPInstanceUID}.dcm"
            if path in written:
                raise BadInput(
                    f"{file}: expected a SOPInstanceUID of its own, found that of another file in {source}. Take one of them out: the second would replace the first."
                )
            with whole_file(path) as temporary:
                dataset.save_as(temporary, enforce_file_format=True)
            written.append(path)
    return Deidentified(tuple(written), tuple(left_out))


def _deidentify(
    dataset: Any, pseudonyms: Pseudonyms, actions: dict[Tag, Action], where: object
) -> None:
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
    is_synthetic = str(dataset.get("SeriesDescription", "")).startswith("SYNTHETIC")

    def change(part: Any, element: Any) -> None:
        """Do to an element what the table states, and remove private attributes except those of a block of our own."""
        tag, kind = element.tag, element.VR
        key = (tag.group, tag.element)
        action = "delete" if tag.group & 0xFF00 in REMOVED_GROUPS else actions.get(key)
        if tag.is_private:
            if not _is_ours(part, tag):
                del part[tag]
        elif kind in ("DA", "DT") and key != BIRTH_DATE:
            element.value = _each(element.value, lambda date: pseudonyms.date(date[:8], patient))
        elif action == "uid" and kind == "UI":
            element.value = _each(
                element.value,
                lambda uid: uid if uid.startswith(STANDARD_UIDS) else pseudonyms.uid(uid),
            )
        # nobody knows what an attribute of an unknown type holds
        elif action == "delete" or kind == "UN":
            del part[tag]
        elif action == "empty":
            element.value = [] if kind == "SQ" else None
        elif action == "dummy" and kind in DUMMIES:
            element.value = DUMMIES[kind]
        elif action == "dummy" and kind != "SQ":  # the items of a sequence are changed
            del part[tag]

    dataset.walk(change)
    dataset.PatientID = dataset.PatientName = pseudonyms.patient(patient)
    if is_synthetic:
        dataset.SeriesDescription = SYNTHETIC
    for keyword in STATIONS:
        dataset.file_meta.pop(keyword, None)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.preamble = bytes(128)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = METHOD
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"


def _patient(dataset: Any, where: object) -> str:
    """The patient's id; without one, name and birth date, so that two patients never share a pseudonym."""
    patient_id = str(dataset.get("PatientID", "") or "")
    if patient_id:
        return patient_id
    name = str(dataset.get("PatientName", "") or "")
    if not name:
        raise BadInput(
            f"{where}: expected a PatientID or PatientName, found neither, so that patients cannot be told apart. Fill one in."
        )
    return f"{name} {dataset.get('PatientBirthDate', '')}"


def _is_ours(part: Any, tag: Any) -> bool:
    """Whether a private attribute is of a block of voxlate; creators of other blocks are removed before their blocks."""
    creator = tag if tag.is_private_creator else (tag.group, tag.element >> 8)
    name = part.get(creator)
    return (
        tag.group == PRIVATE_GROUP and name is not None and str(name.value).lower() == OWN_CREATOR
    )


def _each(value: Any, change: Callable[[str], str]) -> Any:
    """One value changed, or each of several."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [change(str(part)) for part in value]
    return change(str(value)) if value else value
