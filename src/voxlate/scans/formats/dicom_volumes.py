"""DICOM: several volumes in one series, images that repeat others, and tags whose values all images share."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput, first_of
from voxlate.scans.formats.dicom_geometry import is_even, planes_of
from voxlate.scans.formats.dicom_headers import Headers, Image, number_of, text_of, texts_of
from voxlate.scans.formats.dicom_pixels import read_slice
from voxlate.scans.formats.format import errors_as

# what may tell the volumes of one series apart, in the order in which it is tried
SEPARATING = (
    "StackID",
    "EchoTime",
    "ImageType",
    "DiffusionBValue",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
)
# what may order the images at one place in time, the best first
ORDERS = (
    "AcquisitionTime",
    "ContentTime",
    "AcquisitionDateTime",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "InstanceNumber",
)
ROUNDED = 2  # decimals of positions in mm and of directions: images at one place agree to so much
MOST_LISTED = 12
DAY_S = 86400.0
DATE_DIGITS = 8  # YYYYMMDD
SAME_PLACE_MM = 0.1  # positions of a moving table differ by less, slices by more
Place = tuple[float, ...]


def digits_of(lines: Iterable[str]) -> str:
    """Eight hexadecimal digits for some lines of text."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]


def keys_of_parts(key: str, header: Any, image: Image) -> list[str]:
    """The keys of the parts of a series to which an image belongs; key: that of the series."""
    values = {name: text_of(header, name, image) for name in SEPARATING}
    return [digits_of([key, f"{name}={value}"]) for name, value in values.items() if value]


def check_single_volume(headers: Headers, key: str, path: Path) -> None:
    """Raise BadInput, with the path of each, where a tag tells several volumes of a series apart."""
    if not _repeats(headers) and len(texts_of(headers, "StackID")) == 1:
        return
    for name in SEPARATING:
        parts: dict[str, Headers] = defaultdict(dict)
        for image, header in headers.items():
            parts[text_of(header, name, image)][image] = header
        if len(parts) < 2 or "" in parts:
            continue
        if name == "StackID" or not any(map(_repeats, parts.values())):
            folder = next(iter(headers)).file.parent
            lines = [
                f"{name} {value}, {len(part)} images: {folder.name}#{digits_of([key, f'{name}={value}'])}"
                for value, part in parts.items()
            ]
            raise BadInput(
                f"{path}: expected one volume, found {len(parts)} in this series by {name} ({first_of(lines, MOST_LISTED, '; ')}). Name one of them by such a path, or a time by #frame=1 or #peak."
            )


def find_copies(headers: Headers) -> list[Image]:
    """The images that repeat another at their place exactly.

    Where images at one place differ anywhere in a series, it holds several volumes, and none is a copy.
    """
    copies = []
    for first, *others in _group_by_place(headers).values():
        for image in others:
            if not _same_values(first, image, headers):
                return []
            copies.append(image)
    return copies


def _same_values(a: Image, b: Image, headers: Headers) -> bool:
    """Whether two images have the same size and the same values."""
    first, second = (
        read_slice(image, header, (int(header.Rows), int(header.Columns)))
        for image, header in ((a, headers[a]), (b, headers[b]))
    )
    return np.array_equal(first, second)


def _repeats(headers: Headers) -> bool:
    """Whether there are several images at a place."""
    return len(_group_by_place(headers)) < len(headers)


def _group_by_place(headers: Headers) -> Mapping[Place, list[Image]]:
    """The images at each place, which is a position and a direction."""
    places: dict[Place, list[Image]] = defaultdict(list)
    for image, header in headers.items():
        with errors_as(
            f"{image}: expected a sound place in its header, found a bad value", "Get it again."
        ):
            values = [*header.ImagePositionPatient, *header.ImageOrientationPatient]
            place = tuple(round(float(value), ROUNDED) + 0.0 for value in values)
        places[place].append(image)
    return places


def order_in_time(
    headers: Headers, path: Path
) -> tuple[list[list[Image]], dict[Image, float] | None]:
    """The images at each place in their order in time, and their seconds where the headers state them.

    Raises BadInput where no tag orders them.
    """
    images = list(headers)
    planes = planes_of(headers, path)
    along = planes.places @ planes.normal
    order = np.argsort(along, kind="stable")
    breaks = np.flatnonzero(np.diff(along[order]) > SAME_PLACE_MM) + 1
    places = [[images[k] for k in place] for place in np.split(order, breaks)]
    short = min(places, key=len)
    full = max(places, key=len)
    if len(short) < len(full):
        raise BadInput(
            f"{path}: expected as many images at every place, found {len(short)} at that of {short[0].name} and {len(full)} at that of {full[0].name}. Add the missing ones, or convert the series with dcm2niix."
        )
    for name in ORDERS:
        moments = _moments(headers, name)
        if len(moments) < len(images):
            continue
        apart = [len(set(map(moments.__getitem__, place))) for place in places]
        if min(apart) == len(full):
            ordered = [sorted(place, key=moments.__getitem__) for place in places]
            return ordered, moments if name.endswith("Time") else None
    raise BadInput(
        f"{path}: expected an acquisition time or number that separates the images at one place, found none. Convert the series with dcm2niix."
    )


def _moments(headers: Headers, name: str) -> dict[Image, float]:
    """The value of a tag that orders images, for each file that states it; times in seconds, past midnight too."""
    is_time = name.endswith("Time")
    read = _seconds if is_time else number_of
    moments = {
        image: value
        for image, header in headers.items()
        if (value := read(header, name)) is not None
    }
    if is_time and moments and max(moments.values()) - min(moments.values()) > DAY_S / 2:
        # past midnight
        return {image: value + DAY_S * (value < DAY_S / 2) for image, value in moments.items()}
    return moments


def _seconds(header: Any, name: str) -> float | None:
    """Seconds of the day of a DICOM time HHMMSS.FFFFFF; None where it is none."""
    digits = str(header.get(name) or "")
    if name == "AcquisitionDateTime":
        digits = digits[DATE_DIGITS:].partition("+")[0].partition("-")[0]  # of a time zone
    try:
        return int(digits[:2]) * 3600.0 + int(digits[2:4]) * 60.0 + float(digits[4:])
    except ValueError:
        return None


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
SCALE = CONTENT[2:]  # which PET gives to every slice
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
FEWEST_IMAGES = 3  # images whose steps can be compared
# times the least value: scanners vary echo times a little; slopes of PET differ from slice to slice
MOST_APART = {"EchoTime": 1.05, "RescaleSlope": 100.0}
MOST_NAMED = 6


def check_agreement(headers: Headers, path: Path) -> tuple[str, ...]:
    """Compare tags in the images of one volume, in order; returns a sentence on each difference that is no error.

    Raises BadInput where they are of two patients or scans, or show different things.
    """
    modality = next(iter(headers.values())).get("Modality")
    said, varied = [], []
    for name in dict.fromkeys(AGREEING):
        images = _images_by_value(headers, name)
        places = [f"{value or 'nothing'} in {_first(images[value])}" for value in images]
        listed = first_of(places, MOST_NAMED, "; ")
        known = [value for value in images if value]
        if (name, modality) != INVERTED_CT:
            said += [STATED[name, value] for value in known if (name, value) in STATED]
        if len(images) < 2:
            continue
        if name in PATIENT + SCAN and len(known) < 2:
            said.append(f"It states no {name} in some images ({_first(images[''])}).")
        elif name in PATIENT or (name in SCAN and len(known) == 2):
            two = " and others in ".join(_first(images[value]) for value in known[:2])
            raise BadInput(
                f"{path}: expected one series to be of one patient and scan, found {len(known)} values of {name}: one in {two}. Put the images of each into a folder of its own."
            )
        elif name in SCAN + JOINED:
            varied.append(f"{len(known)} values of {name}")
        elif name in CONTENT and _is_other_content(name, [*images]):
            raise BadInput(
                f"{path}: expected one kind of image in a volume, found {name} {listed}. Put the images of each kind into a folder of its own."
            )
        elif name in ACQUISITION or (name in SCALE and modality != "PT"):
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
        if name == "PatientName":  # empty components at its end are no difference (PS3.5, 6.2.1)
            value = "^".join(map(str.strip, value.upper().split("^"))).rstrip("^")
        elif name in CONTENT + ACQUISITION and (number := number_of(header, name)) is not None:
            value = f"{number:g}"
        elif name == "ModalityLUTSequence" and value:
            value = "a table"
        images[value].append(image)
    return images


def _first(images: list[Image]) -> str:
    return first_of([image.name for image in images], MOST_NAMED)


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
        for name in (*JOINED, ""):
            text = text_of(header, name, image) if name else ""
            parts = self._parts[name, text, *form]
            parts.setdefault(key, []).append(np.array([place, np.cross(rows, columns)]))

    def keys(self) -> dict[str, str]:
        """The common key of each series that belongs to others, by its own."""
        joined = dict[str, str]()
        for (shared, *_), parts in self._parts.items():
            whole = all(len(images) == self._images[key] for key, images in parts.items())
            # images that share neither UID nor description are joined where each differs
            if len(parts) < 2 or not whole or (not shared and max(map(len, parts.values())) > 1):
                continue
            images = np.concatenate([*parts.values()])  # [N, place and normal, 3], of one direction
            places, normal = images[:, 0], images[0, 1]
            places = places[np.argsort(places @ normal)]
            is_stack = len(places) >= FEWEST_IMAGES and np.diff(places @ normal).min() >= 1e-3
            if is_stack and is_even(places, normal):
                joined |= dict.fromkeys(parts, min(parts))
        return joined
