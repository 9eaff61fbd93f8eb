"""DICOM out: masks and label maps as Segmentation objects, a binary segment for each label.

Source: DICOM PS3.3 (2024), A.51 (segmentation), C.8.20.2 (segmentation image); codes: PS3.16, CID 7150 and 7151.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.formats.dicom_headers import Origin, new_series, write_objects
from voxlate.formats.dicom_multiframe import (
    Derivation,
    check_size,
    complete,
    highdicom_for,
    shared_arguments,
)
from voxlate.formats.dicom_placement import Placement, placed
from voxlate.images.grid import Volume
from voxlate.images.optional import optional_package
from voxlate.system.errors import BadInput

Code = tuple[str, str, str]  # value, scheme and meaning
MOST_LABEL = 255
TISSUE: Code = ("85756007", "SCT", "Tissue")
STRUCTURE: Code = ("91723000", "SCT", "Anatomical Structure")
ABNORMAL: Code = ("49755003", "SCT", "Morphologically Abnormal Structure")
# Category and type of the segments of a mask by its name; other label maps are tissue.
PROPERTIES: dict[str, tuple[Code, Code]] = {
    "brainmask": (STRUCTURE, ("12738006", "SCT", "Brain")),
    "lesion": (ABNORMAL, ("52988006", "SCT", "Lesion")),
}
SEGMENTED = Derivation(
    "Voxels of a mask or label map beside the image", ("113076", "DCM", "Segmentation")
)


def write_mask(volume: Volume, name: str, like: Path, out: Path, origin: Origin) -> list[Path]:
    """Write a mask or label map as one Segmentation with a segment for each label into the new folder `out`.

    Returns the file. name: that of the mask, such as "mask" or "seg"; like: the series on which it lies. Raises BadInput
    for values that are no labels, a mask without any voxel, a source that is no series, a missing highdicom, and a
    folder that holds anything but this mask.
    """
    pydicom = optional_package("pydicom", "dicom", like, "pydicom to write DICOM files")
    data, placement = placed(volume, like)
    labels, values = _labels(data, out)
    check_size(labels, out)
    digest = hashlib.sha256(labels.data).hexdigest()
    series = new_series(pydicom, placement.template(pydicom), name, origin, digest, "mask")
    made = _object(pydicom, labels, values, name, placement, series, out)
    complete(pydicom, made, series, placement, len(labels), SEGMENTED)
    made.pop("Laterality", None)  # an attribute of series without segments
    return write_objects(pydicom, out, series, 1, [made])


def _labels(data: np.ndarray, out: Path) -> tuple[np.ndarray, Sequence[int]]:
    """The segments [D, H, W], numbered from 1 on, and the label of each in the file."""
    values = np.unique(data)
    if not np.array_equal(values, np.rint(values)) or values[0] < 0 or values[-1] > MOST_LABEL:
        raise BadInput(
            f"{out}: expected labels, whole numbers from 0 to {MOST_LABEL}, found values from {values[0]:g} to {values[-1]:g}. Round them, or leave the file out."
        )
    labels = [int(value) for value in values if value]
    if not labels:
        raise BadInput(f"{out}: expected a mask with voxels above 0, found none. Leave it out.")
    numbers = np.zeros(MOST_LABEL + 1, np.uint8)
    numbers[labels] = range(1, len(labels) + 1)
    return np.ascontiguousarray(numbers[data.astype(np.uint8)]), labels


def _object(
    pydicom: Any,
    labels: np.ndarray,
    values: Sequence[int],
    name: str,
    placement: Placement,
    series: Any,
    out: Path,
) -> Any:
    """The labels as a Segmentation of highdicom, in the study of the source."""
    highdicom = highdicom_for(out)
    return highdicom.seg.Segmentation(
        segmentation_type="BINARY",
        segment_descriptions=[
            _segment(pydicom, highdicom, number, value, len(values), name)
            for number, value in enumerate(values, start=1)
        ],
        content_label="MASK",
        content_description=f"{name}: who drew it is not known to voxlate"[:64],
        **shared_arguments(pydicom, highdicom, placement, series, labels),
    )


def _segment(pydicom: Any, highdicom: Any, number: int, value: int, count: int, name: str) -> Any:
    """The description of a segment; the origin of a mask beside an image is unknown, so no algorithm is claimed."""
    coding = pydicom.sr.coding.Code
    category, kind = PROPERTIES.get(name, (TISSUE, TISSUE))
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name if count == 1 else f"{name} {value}",
        segmented_property_category=coding(*category),
        segmented_property_type=coding(*kind),
        algorithm_type="SEMIAUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="unknown", family=coding("UNKNOWN", "99VOXLATE", "Unknown"), version="unknown"
        ),
    )
