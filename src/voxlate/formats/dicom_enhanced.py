"""DICOM out: a volume as one enhanced CT or MR object of many frames.

Source: DICOM PS3.3 (2024), A.36 (enhanced MR), A.38 (enhanced CT), C.8.13.1, C.8.15.2, C.7.6.16 (functional groups).
"""

import hashlib
from pathlib import Path
from typing import Any

from voxlate.formats.dicom_derived import (
    check_unit,
    stored_values,
    window_of,
)
from voxlate.formats.dicom_headers import (
    Origin,
    as_file,
    decimal_string,
    instance_uid,
    new_series,
    write_objects,
)
from voxlate.formats.dicom_multiframe import (
    FRAMES,
    SERIAL_NUMBER,
    anatomy,
    check_size,
    synthesis,
)
from voxlate.formats.dicom_placement import Placement, placed
from voxlate.images.grid import Volume
from voxlate.images.optional import optional_package

_CT = "1.2.840.10008.5.1.4.1.1.2.1"
_MR = "1.2.840.10008.5.1.4.1.1.4.1"
IMAGE_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
STACK_ID, IN_STACK_POSITION = 0x00209056, 0x00209057
FRAME_CONTENT = 0x00209111


def write_enhanced(volume: Volume, like: Path, out: Path, origin: Origin) -> list[Path]:
    """Write a volume as one enhanced CT (HU) or MR object into the new folder `out`; returns the file.

    like, and what raises BadInput: as those of dicom_derived.write_derived.
    """
    pydicom = optional_package("pydicom", "dicom", like, "pydicom to write DICOM files")
    check_unit(volume, out)
    data, placement = placed(volume, like)
    stored, slope = stored_values(data, volume.unit, out)
    check_size(stored, out)
    template = placement.template(pydicom)
    digest = hashlib.sha256(stored.data).hexdigest()
    made = new_series(pydicom, template, volume.modality, origin, digest, "enhanced")
    _write_image(pydicom, made, volume, template, len(stored))
    made.SourceImageEvidenceSequence = [_evidence(pydicom, placement, made.StudyInstanceUID)]
    _write_dimensions(pydicom, made)
    made.SharedFunctionalGroupsSequence = [
        _shared(pydicom, made, volume, placement, slope, template)
    ]
    how = synthesis(origin)
    frames = []
    for level in range(len(stored)):
        frame = _frame(pydicom, placement, level)
        frame.DerivationImageSequence = [how.item(pydicom, placement, level)]
        frames.append(frame)
    setattr(made, FRAMES, frames)
    _, made.Rows, made.Columns = stored.shape
    made.add_new("PixelData", "OW", stored.tobytes())
    as_file(pydicom, made, instance_uid(pydicom, made, 0))
    return write_objects(pydicom, out, made, 1, [made])


def _write_image(pydicom: Any, made: Any, volume: Volume, template: Any, frames: int) -> None:
    """The attributes of the object that are no functional groups."""
    is_ct = volume.unit == "HU"
    made.SOPClassUID, made.Modality = (_CT, "CT") if is_ct else (_MR, "MR")
    made.ImageType = IMAGE_TYPE
    made.InstanceNumber = 1
    made.NumberOfFrames = frames
    made.DeviceSerialNumber = SERIAL_NUMBER
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 1
    made.PixelPresentation, made.VolumetricProperties = "MONOCHROME", "VOLUME"
    made.VolumeBasedCalculationTechnique = "NONE"
    made.PresentationLUTShape = "IDENTITY"
    made.ContentQualification = "RESEARCH"
    made.BurnedInAnnotation = "NO"
    made.LossyImageCompression = template.get("LossyImageCompression", "00") or "00"
    made.ImageComments = "Computed by a trained model. Research software, not a medical device."
    made.AcquisitionContextSequence = []
    made.pop("Laterality", None)  # the frames state it
    if not is_ct:
        made.ComplexImageComponent, made.AcquisitionContrast = "MAGNITUDE", "UNKNOWN"
        made.ApplicableSafetyStandardAgency = template.get("ApplicableSafetyStandardAgency", "NONE")


def _evidence(pydicom: Any, placement: Placement, study: str) -> Any:
    """The source objects, each once; study: that of the new object, because a source may state none."""
    objects = {str(one.header.SOPInstanceUID): one.header for one in placement.sources}
    references = [
        _item(pydicom, ReferencedSOPClassUID=one.SOPClassUID, ReferencedSOPInstanceUID=uid)
        for uid, one in objects.items()
    ]
    series = _item(
        pydicom, SeriesInstanceUID=placement.series_uid(), ReferencedSOPSequence=references
    )
    return _item(pydicom, StudyInstanceUID=study, ReferencedSeriesSequence=[series])


def _write_dimensions(pydicom: Any, made: Any) -> None:
    """Frames are counted along one stack."""
    uid = pydicom.uid.generate_uid(entropy_srcs=[str(made.SeriesInstanceUID), "dimensions"])
    organisation = pydicom.Dataset()
    organisation.DimensionOrganizationUID = uid
    made.DimensionOrganizationSequence = [organisation]
    made.DimensionOrganizationType = "3D"
    items = []
    for pointer in (STACK_ID, IN_STACK_POSITION):
        item = pydicom.Dataset()
        item.DimensionIndexPointer = pointer
        item.FunctionalGroupPointer = FRAME_CONTENT
        item.DimensionOrganizationUID = uid
        items.append(item)
    made.DimensionIndexSequence = items


def _shared(
    pydicom: Any, made: Any, volume: Volume, placement: Placement, slope: float, template: Any
) -> Any:
    """What all frames share: pixel spacing, orientation, kind, anatomy, scale and window."""
    first = pydicom.Dataset()
    placement.place(first, 0)
    low, high = window_of(volume, slope)
    kind = _item(pydicom, FrameType=IMAGE_TYPE)
    for name in ("PixelPresentation", "VolumetricProperties", "VolumeBasedCalculationTechnique"):
        setattr(kind, name, made[name].value)
    if made.Modality == "MR":
        kind.ComplexImageComponent, kind.AcquisitionContrast = "MAGNITUDE", "UNKNOWN"
    groups = {
        "PixelMeasuresSequence": _item(
            pydicom, PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness
        ),
        "PlaneOrientationSequence": _item(
            pydicom, ImageOrientationPatient=first.ImageOrientationPatient
        ),
        f"{made.Modality}ImageFrameTypeSequence": kind,
        "FrameAnatomySequence": anatomy(pydicom, template),
        "PixelValueTransformationSequence": _item(
            pydicom,
            RescaleIntercept="0",
            RescaleSlope=decimal_string(slope),
            RescaleType="HU" if volume.unit == "HU" else "US",
        ),
        "FrameVOILUTSequence": _item(
            pydicom,
            WindowCenter=decimal_string((low + high) / 2),
            WindowWidth=decimal_string(high - low),
        ),
    }
    if made.Modality == "CT":
        groups["IrradiationEventIdentificationSequence"] = _event(pydicom, made, template)
    return _item(pydicom, **{name: [group] for name, group in groups.items()})


def _event(pydicom: Any, made: Any, template: Any) -> Any:
    """The irradiation event that every CT must name: that of the source, or else a UID that no exposure has."""
    entropy = [str(made.SeriesInstanceUID), "no exposure"]
    uid = template.get("IrradiationEventUID") or pydicom.uid.generate_uid(entropy_srcs=entropy)
    return _item(pydicom, IrradiationEventUID=uid)


def _frame(pydicom: Any, placement: Placement, level: int) -> Any:
    """The place of a frame in space and in the stack."""
    place = pydicom.Dataset()
    placement.place(place, level)
    content = _item(
        pydicom,
        StackID="1",
        InStackPositionNumber=level + 1,
        DimensionIndexValues=[1, level + 1],
    )
    return _item(
        pydicom,
        FrameContentSequence=[content],
        PlanePositionSequence=[_item(pydicom, ImagePositionPatient=place.ImagePositionPatient)],
    )


def _item(pydicom: Any, **attributes: Any) -> Any:
    made = pydicom.Dataset()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made
