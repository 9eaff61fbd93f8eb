"""DICOM: several volumes in one series, images that repeat others, and tags whose values all images share."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput, first_of
from voxlate.scans.formats.dicom_geometry import DIRECTION, POSITION, is_even, planes_of
from voxlate.scans.formats.dicom_headers import (
    Headers,
    Image,
    number_of,
    numbers_of,
    text_of,
    texts_of,
)
from voxlate.scans.formats.dicom_pixels import RESCALE, TABLE, read_slice

# what may tell apart and order the images at one place: what they show first, then times, the best first
SHOWN = ("EchoTime", "ImageType", "DiffusionBValue")
ORDERS = (
    *SHOWN,
    "AcquisitionTime",
    "ContentTime",
    "AcquisitionDateTime",
    "FrameReferenceDateTime",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "InstanceNumber",
)
# of whom: refused where two are named
PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
# of which scan: two values are two scans; more were written by an anonymiser or an export, image by image
SCAN = ("StudyInstanceUID", "FrameOfReferenceUID")
# of which series: series that differ in one of them are joined where their images form one even stack
JOINED = ("SeriesInstanceUID", "SeriesDescription")
# how it was acquired: differences are said
ACQUISITION = (
    "EchoTime",
    "PhotometricInterpretation",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "KVP",
    "FlipAngle",
    "InversionTime",
)
IDENTITY = PATIENT + SCAN + JOINED
SCALE = (*RESCALE, TABLE)  # which PET gives to every slice
AGREEING = (*IDENTITY, "ImageType", *SCALE, *ACQUISITION)
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
COMPLEX = {"M", "P", "R", "I", "MAGNITUDE", "PHASE", "REAL", "IMAGINARY"}
# times the least value: scanners vary echo times a little; slopes of PET differ from slice to slice
MOST_APART = {"EchoTime": 1.05, "RescaleSlope": 100.0}
# what the images of one stack share
FORM = ("SeriesNumber", "Modality", "Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")
FEWEST_IMAGES = 3  # images whose steps can be compared
ROUNDED = 2  # decimals of positions in mm and of directions: images at one place agree to so much
MOST_NAMED = 6
DAY_S = 86400.0
DATE_DIGITS = 8  # YYYYMMDD
SAME_PLACE_MM = 0.1  # positions of a moving table differ by less, slices by more


def check_single_volume(headers: Headers, path: Path) -> None:
    """Raise BadInput, with what tells them apart, where a series shows its places several times."""
    places = sorted(_by_place(headers).values(), key=len, reverse=True)
    count = len(places[0])
    if count == 1:
        return
    order = _order(headers, places)
    apart = "with the same tags"
    if order is not None:
        name, _ = order
        apart = f"told apart by {name}"
        if name in SHOWN:
            apart += f" ({first_of(sorted(texts_of(headers, name)), MOST_NAMED)})"
    raise BadInput(
        f"{path}: expected one image at each place, found {count} at that of {places[0][0].name}, {apart}. Name one volume by #frame=1 to #frame={count}, or the peak of a bolus by #peak."
    )


def find_copies(headers: Headers) -> list[Image]:
    """The images that repeat another at their place exactly.

    Where images at one place differ anywhere in a series, it holds several volumes, and none is a copy.
    """
    copies = []
    for first, *others in _by_place(headers).values():
        for image in others:
            values, others_values = (_values(one, headers[one]) for one in (first, image))
            if not np.array_equal(values, others_values):
                return []
            copies.append(image)
    return copies


def _values(image: Image, header: Any) -> np.ndarray:
    return read_slice(image, header, (int(header.Rows), int(header.Columns)))


def _by_place(headers: Headers) -> dict[tuple[float, ...], list[Image]]:
    """The images at each place, which is a position and a direction."""
    places = defaultdict(list)
    for image, header in headers.items():
        place = numbers_of(header, POSITION, image, 3) + numbers_of(header, DIRECTION, image, 6)
        places[tuple(round(value, ROUNDED) + 0.0 for value in place)].append(image)
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
    found = _order(headers, places)
    if found is None:
        raise BadInput(
            f"{path}: expected an acquisition time or number that separates the images at one place, found none. Convert the series with dcm2niix."
        )
    name, moments = found
    ordered = [sorted(place, key=moments.__getitem__) for place in places]
    return ordered, moments if name.endswith("Time") and name != "EchoTime" else None


def _order(
    headers: Headers, places: Sequence[Sequence[Image]]
) -> tuple[str, dict[Image, float]] | None:
    """The first tag that separates the images at every place, and their order by it; None where none does."""
    for name in ORDERS:
        moments = _moments(headers, name)
        if len(moments) == len(headers) and all(
            len({moments[image] for image in place}) == len(place) for place in places
        ):
            return name, moments
    return None


def _moments(headers: Headers, name: str) -> dict[Image, float]:
    """The order of images by a tag, for each that states it; times in seconds, past midnight too."""
    if name == "ImageType":
        texts = sorted(texts_of(headers, name))
        return {
            image: float(texts.index(text_of(header, name, image)))
            for image, header in headers.items()
        }
    is_clock = name.endswith("Time") and name != "EchoTime"
    read = _seconds if is_clock else number_of
    moments = {
        image: value
        for image, header in headers.items()
        if (value := read(header, name)) is not None
    }
    if is_clock and moments and max(moments.values()) - min(moments.values()) > DAY_S / 2:
        # past midnight
        return {image: value + DAY_S * (value < DAY_S / 2) for image, value in moments.items()}
    return moments


def _seconds(header: Any, name: str) -> float | None:
    """Seconds of the day of a DICOM time HHMMSS.FFFFFF; None where it is none."""
    digits = str(header.get(name) or "")
    if name.endswith("DateTime"):
        digits = digits[DATE_DIGITS:].partition("+")[0].partition("-")[0]  # of a time zone
    try:
        return int(digits[:2]) * 3600.0 + int(digits[2:4]) * 60.0 + float(digits[4:])
    except ValueError:
        return None


def check_agreement(headers: Headers, path: Path) -> tuple[str, ...]:
    """Compare tags in the images of one volume, in order; returns a sentence on each difference that is no error.

    Raises BadInput where they are of two patients or scans, or show different things.
    """
    modality = next(iter(headers.values())).get("Modality")
    said = []
    for (name, value), sentence in STATED.items():
        is_usual = name == "PhotometricInterpretation" and modality == "CT"  # has no meaning there
        if value in texts_of(headers, name) and not is_usual:
            said.append(sentence)
    for name in AGREEING:
        images = _by_text(headers, name)
        if len(images) < 2:
            continue
        known = [value for value in images if value]
        if name in IDENTITY:  # whose values are never shown
            two = " and others in ".join(_names(images[value]) for value in known[:2])
            if len(known) > 1 and (name in PATIENT or (name in SCAN and len(known) == 2)):
                raise BadInput(
                    f"{path}: expected one series to be of one patient and scan, found {len(known)} values of {name}: one in {two}. Put the images of each into a folder of its own."
                )
            said.append(
                f"Its images have {len(known)} values of {name}; they form one even stack, and are taken as one series."
                if len(known) > 1
                else f"Some of its images state no {name} ({_names(images[''])})."
            )
            continue
        listed = [f"{value or 'nothing'} in {_names(images[value])}" for value in images]
        differing = f"{name} {first_of(listed, MOST_NAMED, '; ')}"
        if _shows_other_content(name, [*images]):
            raise BadInput(
                f"{path}: expected one kind of image in a volume, found {differing}. Put the images of each kind into a folder of its own."
            )
        if name != "EchoTime" and not (name in SCALE and modality == "PT"):
            said.append(f"Its images differ in {differing}. Look whether they belong together.")
    return tuple(said)


def _by_text(headers: Headers, name: str) -> dict[str, list[Image]]:
    """The images that state each value of a tag; numbers are the same where their texts are not."""
    images = defaultdict(list)
    for image, header in headers.items():
        value = text_of(header, name, image)
        if name == "PatientName":  # empty components at its end are no difference (PS3.5, 6.2.1)
            value = "^".join(map(str.strip, value.upper().split("^"))).rstrip("^")
        elif name == TABLE:
            value = value and "a table"
        elif name in SCALE + ACQUISITION and (number := number_of(header, name)) is not None:
            value = f"{number:g}"
        images[value].append(image)
    return images


def _names(images: Sequence[Image]) -> str:
    return first_of([image.name for image in images], MOST_NAMED)


def _shows_other_content(name: str, values: list[str]) -> bool:
    """Whether the values of a tag mean different contents, such as magnitude and phase, or scaled and as stored."""
    if name == "ImageType":
        return len({frozenset(COMPLEX & {*value.upper().split("\\")}) for value in values}) > 1
    if "" in values or name not in MOST_APART:
        return "" in values and name in SCALE
    numbers = [number_of({name: value}, name) or 0.0 for value in values]
    return max(numbers) > MOST_APART[name] * min(numbers)


def series_keys(headers: Headers) -> dict[Image, str]:
    """The key of the series to which each image belongs, which the images of a series share.

    Series are joined where their images together form one even stack and share UID or description: scanners and
    anonymisers change one of them image by image.
    """
    keys = {image: _key(header, image) for image, header in headers.items()}
    sizes = Counter(keys.values())
    for shared in (*JOINED, "") if len(sizes) > 1 else ():
        alike = defaultdict[tuple[str, ...], list[Image]](list)
        for image, header in headers.items():
            with suppress(BadInput):  # which is raised when the series is read
                form = (text_of(header, name, image) for name in (shared, *FORM) if name)
                alike[tuple(form)].append(image)
        for images in alike.values():
            joined = {keys[image] for image in images}
            whole = sum(sizes[key] for key in joined) == len(images)
            # images that share neither are joined where each differs
            if len(joined) < 2 or not whole or not (shared or len(joined) == len(images)):
                continue
            if _is_stack([headers[image] for image in images]):
                keys |= dict.fromkeys(images, min(joined))
        sizes = Counter(keys.values())
    return keys


def _key(header: Any, image: Image) -> str:
    """Eight digits for a series. The UID itself would identify the patient's record in our files."""
    names = ("SeriesInstanceUID", "SeriesNumber", "Modality", "SeriesDescription")
    lines = [text_of(header, name, image) for name in names]
    stack = text_of(header, "StackID", image)  # each stack of an enhanced object is a volume
    if stack not in ("", "1"):
        lines.append(stack)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]


def _is_stack(headers: Sequence[Any]) -> bool:
    """Whether images of one direction form one even stack."""
    try:
        places = np.array([numbers_of(header, POSITION, "", 3) for header in headers])
        rows, columns = np.reshape(numbers_of(headers[0], DIRECTION, "", 6), (2, 3))
    except BadInput:  # which is raised when the series is read
        return False
    normal = np.cross(rows, columns)
    places = places[np.argsort(places @ normal)]
    is_single = len(places) >= FEWEST_IMAGES and np.diff(places @ normal).min() >= 1e-3
    return is_single and is_even(places, normal)
