"""DICOM out: what objects of many frames share: the geometry that highdicom needs, and each frame's place and sources.

Source: DICOM PS3.3 (2024), C.7.6.16 (multi-frame functional groups).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from voxlate.formats.dicom_headers import (
    SYNTHESIS,
    Origin,
    as_file,
    code,
    described,
    instance_uid,
)
from voxlate.formats.dicom_placement import Placement
from voxlate.images.optional import optional_package
from voxlate.system.errors import BadInput

SERIAL_NUMBER = "0"  # of a device, which enhanced objects must state; a program has none
MOST_BYTES = 2**32 - 2  # of the pixels of one object, whose length is a number of 32 bits
# The anatomic region of frames by the source's BodyPartExamined; it must be stated.
REGIONS = {
    "HEAD": ("69536005", "SCT", "Head"),
    "BRAIN": ("12738006", "SCT", "Brain"),
    "SKULL": ("89546000", "SCT", "Skull"),
    "NECK": ("45048000", "SCT", "Neck"),
}
ANY_REGION = ("38266002", "SCT", "Entire body")
_OWN = ("SeriesInstanceUID", "PatientName")  # of a stand-in, not of the new series
FRAMES = "PerFrameFunctionalGroupsSequence"


@dataclass(frozen=True)
class Derivation:
    """How frames were computed: a sentence, and a code as (value, scheme, meaning)."""

    description: str
    code: tuple[str, str, str]

    def item(self, pydicom: Any, placement: Placement, level: int) -> Any:
        """The derivation of a frame, with its source slices."""
        made = pydicom.Dataset()
        made.DerivationDescription = self.description[:1024]
        made.DerivationCodeSequence = [code(pydicom, *self.code)]
        made.SourceImageSequence = placement.references(pydicom, level)
        return made


def synthesis(origin: Origin) -> Derivation:
    """The derivation of a synthesised image."""
    return Derivation(described(origin), SYNTHESIS)


def highdicom_for(out: object) -> Any:
    """The package highdicom; raises BadInput with what to do where it is absent."""
    return optional_package(
        "highdicom", "dicom-maps", out, "highdicom to write maps and masks as DICOM objects"
    )


def check_size(pixels: np.ndarray, out: object) -> None:
    """Raise BadInput for pixels that one object cannot hold."""
    if pixels.nbytes > MOST_BYTES:
        raise BadInput(
            f"{out}: expected at most {MOST_BYTES} bytes of pixels for one DICOM object, found {pixels.nbytes}. Leave it out; it stays in its own file."
        )


def anatomy(pydicom: Any, template: Any) -> Any:
    """The part of the body that frames show, by the header of a source image."""
    part = str(template.get("BodyPartExamined", "")).upper()
    item = pydicom.Dataset()
    item.AnatomicRegionSequence = [code(pydicom, *REGIONS.get(part, ANY_REGION))]
    item.FrameLaterality = "U"
    return item


def _stand_ins(pydicom: Any, placement: Placement, series: Any) -> list[Any]:
    """An image for each object of the source series, with the attributes that highdicom takes from its sources."""
    images = dict[str, Any]()
    for source in placement.sources:
        uid = str(source.header.SOPInstanceUID)
        if uid in images:
            continue  # another frame of the same object
        one = pydicom.Dataset()
        if source.image.frame:  # of an enhanced object, whose functional groups highdicom reads
            one = pydicom.dcmread(source.image.file, stop_before_pixels=True)
        for element in series:
            if element.keyword not in _OWN and element.tag not in one:
                one.add(element)
        one.SOPClassUID, one.SOPInstanceUID = source.header.SOPClassUID, uid
        one.SeriesInstanceUID = placement.series_uid()
        one.Rows, one.Columns = source.header.Rows, source.header.Columns
        if not source.image.frame:
            for name in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"):
                setattr(one, name, getattr(source.header, name))
            one.SliceThickness = source.header.get("SliceThickness") or 1
        one.PatientName = ""  # highdicom warns of names without a caret; `complete` writes the name
        images[uid] = one
    return list(images.values())


def shared_arguments(
    pydicom: Any, highdicom: Any, placement: Placement, series: Any, pixels: np.ndarray
) -> dict[str, Any]:
    """The arguments of every object of highdicom: its pixels, sources, series, device, and the place of every frame."""
    return {
        "source_images": _stand_ins(pydicom, placement, series),
        "pixel_array": pixels,
        "series_instance_uid": series.SeriesInstanceUID,
        "series_number": series.SeriesNumber,
        "sop_instance_uid": instance_uid(pydicom, series, 0),
        "instance_number": 1,
        "manufacturer": series.Manufacturer,
        "manufacturer_model_name": series.ManufacturerModelName,
        "software_versions": series.SoftwareVersions,
        "device_serial_number": SERIAL_NUMBER,
        **_planes(pydicom, highdicom, placement, len(pixels)),
    }


def _planes(pydicom: Any, highdicom: Any, placement: Placement, count: int) -> dict[str, Any]:
    """The arguments of highdicom that state the place of every frame."""
    slices = []
    for level in range(count):
        one = pydicom.Dataset()
        placement.place(one, level)
        slices.append(one)
    first = slices[0]
    positions = [
        highdicom.PlanePositionSequence(
            "PATIENT", [float(value) for value in one.ImagePositionPatient]
        )
        for one in slices
    ]
    return {
        "pixel_measures": highdicom.PixelMeasuresSequence(
            [float(value) for value in first.PixelSpacing], float(first.SliceThickness)
        ),
        "plane_orientation": highdicom.PlaneOrientationSequence(
            "PATIENT", [float(value) for value in first.ImageOrientationPatient]
        ),
        "plane_positions": positions,
    }


def complete(
    pydicom: Any, made: Any, series: Any, placement: Placement, depth: int, how: Derivation
) -> Any:
    """Give an object of highdicom the attributes of its series, and its frames their places and sources.

    depth: number of slices, each of which may have several frames or none.
    """
    for element in series:
        made[element.tag] = element
    as_file(pydicom, made, instance_uid(pydicom, series, 0))
    _name_dimensions(pydicom, made, series)
    places = []
    derivations = []
    for level in range(depth):
        one = pydicom.Dataset()
        placement.place(one, level)
        places.append(one.ImagePositionPatient)
        derivations.append(how.item(pydicom, placement, level))
    found = np.array(places, float)
    for frame in made[FRAMES]:  # highdicom sorts them
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        level = int(np.abs(found - position).sum(1).argmin())
        frame.PlanePositionSequence[0].ImagePositionPatient = places[level]
        frame.DerivationImageSequence = [derivations[level]]
    return made


def _name_dimensions(pydicom: Any, made: Any, series: Any) -> None:
    """Give the organisation of the dimensions, too, a UID that depends on the content alone."""
    entropy = [str(series.SeriesInstanceUID), "dimensions"]
    uid = pydicom.uid.generate_uid(entropy_srcs=entropy)
    for item in [*made.DimensionOrganizationSequence, *made.DimensionIndexSequence]:
        item.DimensionOrganizationUID = uid
