"""DICOM: the tags whose values all images of a series share, and what a difference means."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput, first_of
from voxlate.scans.formats.dicom_geometry import is_even
from voxlate.scans.formats.dicom_headers import Headers, Image, number_of, text_of

# of whom: refused where two are named
PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
# of which scan: two values are two scans; more were written by an anonymiser or an export, image by image
SCAN = ("StudyInstanceUID", "FrameOfReferenceUID")
# of which series: series that differ in one of them are joined where their images form one even stack
JOINED = ("SeriesInstanceUID", "SeriesDescription")
# what is imaged: refused where it differs within a volume
CONTENT = ("ImageType", "EchoTime", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence")
# how: said, with the images
ACQUISITION = (
    "ImageType",
    "PhotometricInterpretation",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "KVP",
    "FlipAngle",
    "InversionTime",
)
SCALE = CONTENT[2:]  # which scanners may give to every slice
# what is said of a series if any image states it
STATED = {
    ("PhotometricInterpretation", "MONOCHROME1"): (
        "Its display is inverted (MONOCHROME1); its values are taken as stored. Check that large ones are bright."
    ),
    ("LossyImageCompression", "01"): (
        "It was compressed with loss (LossyImageCompression); fine structures may be lost. Take the original."
    ),
    ("BurnedInAnnotation", "YES"): (
        "Text is written into its pixels (BurnedInAnnotation). Look whether it names the patient or hides tissue."
    ),
}
AGREEING = (*PATIENT, *SCAN, *JOINED, *CONTENT, *ACQUISITION, *(name for name, _ in STATED))
COMPLEX = {"M", "P", "R", "I", "MAGNITUDE", "PHASE", "REAL", "IMAGINARY"}
INVERTED_CT = ("PhotometricInterpretation", "CT")  # which is written so without a meaning
# what the images of one stack share
FORM = ("SeriesNumber", "Modality", "Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")
FEWEST = 3  # images whose steps can be compared
# times the least value: scanners vary echo times a little; slopes of PET differ from slice to slice
MOST_APART = {"EchoTime": 1.05, "RescaleSlope": 100.0}
MOST_LISTED = 6


def check_agreement(headers: Headers, path: Path) -> tuple[str, ...]:
    """Compare tags in the images of one volume, in order; returns a sentence on each difference that is no error.

    Raises BadInput where they are of two patients or scans, or show different things.
    """
    modality = next(iter(headers.values())).get("Modality")
    said, varied = list[str](), list[str]()
    for name in dict.fromkeys(AGREEING):
        images = _images_by_value(headers, name)
        listed = "; ".join(f"{value or 'nothing'} in {_first(images[value])}" for value in images)
        known = [value for value in images if value]
        sentences = [STATED[name, value] for value in known if (name, value) in STATED]
        if (name, modality) != INVERTED_CT:
            said += sentences
        if len(images) < 2:
            continue
        if name in PATIENT + SCAN and len(known) < 2:
            said.append(f"It states no {name} in some images ({_first(images[''])}).")
        elif name in PATIENT or (name in SCAN and len(known) == 2):
            places = " and others in ".join(_first(images[value]) for value in known[:2])
            raise BadInput(
                f"{path}: expected one series to be of one patient and scan, found {len(known)} values of {name}: one in {places}. Put the images of each into a folder of its own."
            )
        elif name in SCAN + JOINED:
            varied.append(f"{len(known)} values of {name}")
        elif name in CONTENT and _is_other_content(name, [*images]):
            raise BadInput(
                f"{path}: expected one kind of image in a volume, found {name} {listed}. Put the images of each kind into a folder of its own."
            )
        elif name in ACQUISITION or (name in SCALE and 2 * len(images) <= len(headers)):
            said.append(f"{name} differs: {listed}. Look whether these images belong together.")
    if varied:
        said.append(
            f"Its images have {' and '.join(varied)}; they form one even stack, and are taken as one series."
        )
    return tuple(said)


def _images_by_value(headers: Headers, name: str) -> dict[str, list[Image]]:
    """The images that state each value of a tag; numbers are the same where their texts are not."""
    images: dict[str, list[Image]] = defaultdict(list)
    for image, header in headers.items():
        value = text_of(header, name, image)
        number = number_of(header, name)
        if name == "PatientName":  # empty components at its end are no difference (PS3.5, 6.2.1)
            value = "^".join(map(str.strip, value.upper().split("^"))).rstrip("^")
        elif name in CONTENT + ACQUISITION and number is not None:
            value = f"{number:g}"
        elif name == "ModalityLUTSequence" and value:
            value = "a table"
        images[value].append(image)
    return images


def _first(images: list[Image]) -> str:
    return first_of([image.name for image in images], MOST_LISTED)


def _is_other_content(name: str, values: list[str]) -> bool:
    """Whether the values of a tag mean different contents, such as magnitude and phase, or scaled and as stored."""
    if name == "ImageType":
        return len({frozenset(COMPLEX & {*value.upper().split("\\")}) for value in values}) > 1
    if "" in values or name not in MOST_APART:
        return "" in values and name in SCALE
    numbers = [number for value in values if (number := number_of({name: value}, name))]
    return len(numbers) < len(values) or max(numbers) > MOST_APART[name] * min(numbers)


class Joins:
    """The series of a folder that belong together, although their UIDs or their descriptions differ."""

    def __init__(self) -> None:
        self._images = Counter[str]()
        self._parts = defaultdict[tuple[str, ...], dict[str, list[np.ndarray]]](dict)

    def note(self, key: str, image: Image, header: Any) -> None:
        """State an image of the series of this key."""
        self._images[key] += 1
        try:
            numbers = [*header.ImagePositionPatient, *header.ImageOrientationPatient]
            place, rows, columns = np.array(numbers, np.float64).reshape(3, 3)
            form = [text_of(header, name, image) for name in FORM]
        except Exception:  # the error is raised when the series is read
            return
        for name in JOINED:
            parts = self._parts[name, text_of(header, name, image), *form]
            parts.setdefault(key, []).append(np.array([place, np.cross(rows, columns)]))

    def keys(self) -> dict[str, str]:
        """The common key of each series that belongs to others, by its own."""
        joined = dict[str, str]()
        for parts in self._parts.values():
            whole = all(len(images) == self._images[key] for key, images in parts.items())
            if len(parts) > 1 and whole and _is_stack(np.concatenate([*parts.values()])):
                joined |= dict.fromkeys(parts, min(parts))
        return joined


def _is_stack(images: np.ndarray) -> bool:
    """Whether the places of images of one direction, [N, place and normal, 3], form an even stack of slices."""
    places, normal = images[:, 0], images[0, 1]
    places = places[np.argsort(places @ normal)]
    if len(places) < FEWEST or np.diff(places @ normal).min() < 1e-3:
        return False
    return is_even(places, normal)
