"""DICOM for the users of a synthesised CT: the CT series with the body for planning, maps of attenuation for PET."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.messages import Message, message
from voxlate.clinic.dicom_images import write_derived
from voxlate.clinic.dicom_objects import highdicom, quantity_of, write_map, write_mask
from voxlate.clinic.dicom_out import check_patient, check_source, is_series, origin_of
from voxlate.clinic.dicom_placement import SOURCE_IMAGE
from voxlate.clinic.dicom_structure import write_structure
from voxlate.scans.formats.dicom import headers_of
from voxlate.scans.formats.dicom_series import PRIVATE_SCHEME, Code
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.provenance import provenance_of

BODY = "threshold of -300 HU, filled, without couch"
GRID: Code = ("GRID", PRIVATE_SCHEME, "Image that gives the grid, patient and study")


def find_source(folder: Path | None, like: Path | None, messages: list[Message]) -> Path | None:
    """The DICOM series of the source of a synthesis; where there is none, None and a message why.

    folder: that of the provenance, or None. Raises BadInput for a `like` that is not the source.
    """
    if folder is None:
        text = "no DICOM: it states which series an image was synthesised of, which only folders that synth wrote say."
        messages.append(message("consumer", text))
        return None
    try:
        return check_source(folder, like, messages)
    except BadInput as error:
        if like is not None:
            raise
        messages.append(message("consumer", f"no DICOM: {error}", case=folder.name))
        return None


def write_plan(
    ct: Volume, body: Volume, folder: Path, source: Path, to: Path, messages: list[Message]
) -> None:
    """Write TO/ct, the derived series, and the body on its slices: TO/rtstruct, and TO/body as a Segmentation.

    folder, source: of the synthesis, and the DICOM series of its source.
    """
    origin = origin_of(provenance_of(folder))
    if not all(header.get("PatientPosition") for header in headers_of(source).values()):
        text = "the source states no patient position, and neither does the series: a planning system may refuse it, or assume head first on the back. Compare the orientation there."
        messages.append(message("consumer", text, case=folder.name))
    write_derived(ct, source, to / "ct", origin, slices="own")
    write_structure(body, "BODY", "EXTERNAL", to / "ct", to / "rtstruct", origin)
    if _has_highdicom("Segmentation of the body", messages):
        write_mask(body, "body", to / "ct", to / "body", origin, BODY)


def write_attenuation(
    maps: Mapping[str, Volume],
    statement: str,
    folder: Path | None,
    pet: Path | str | None,
    to: Path,
    messages: list[Message],
) -> bool:
    """Write maps of attenuation in 1/cm as Parametric Maps, TO/<name>; whether there is a series to write them for.

    They get patient, study and frame of reference of a PET that is a DICOM series, else those of the source. statement:
    how the maps were computed. Raises BadInput for a PET of another patient.
    """
    series = None if pet is None or not is_series(Path(pet)) else Path(pet)
    like = series
    if series is not None and folder is not None:
        check_patient(folder, series, messages)
    else:
        like = find_source(folder, None, messages)
    if folder is None or like is None:
        return False
    if not _has_highdicom("Parametric Map of the attenuation", messages):
        return False
    origin = origin_of(provenance_of(folder))
    origin = replace(origin, facts=(*origin.facts, ("mu", statement)))
    purpose = SOURCE_IMAGE if series is None else GRID
    for name, volume in maps.items():
        quantity = quantity_of(name.replace("mu", "mu_511kev", 1), "1/cm")
        write_map(volume, quantity, like, to / name, origin, purpose)
    return True


def _has_highdicom(purpose: str, messages: list[Message]) -> bool:
    """Whether highdicom is installed; says what is left out without it."""
    try:
        highdicom.load()
    except BadInput as error:
        messages.append(message("consumer", f"no {purpose}: {error}"))
        return False
    return True
