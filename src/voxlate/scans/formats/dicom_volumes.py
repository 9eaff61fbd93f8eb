"""DICOM: several volumes in one series, such as echoes, acquisitions or times, and images that repeat others."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from voxlate.base.errors import BadInput, first_of
from voxlate.scans.formats.dicom_geometry import planes_of
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


class Places(NamedTuple):
    """The images at each place in their order in time, and their seconds where the headers state them."""

    images: list[list[Image]]
    seconds: dict[Image, float] | None


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
    copies = list[Image]()
    for first, *others in _group_by_place(headers).values():
        for image in others:
            if not _same_values(first, image, headers):
                return []
            copies.append(image)
    return copies


def _same_values(a: Image, b: Image, headers: Headers) -> bool:
    """Whether two images have the same size and the same values."""
    shape, other = ((int(headers[image].Rows), int(headers[image].Columns)) for image in (a, b))
    if shape != other:
        return False
    values = read_slice(a, headers[a], shape)
    return np.array_equal(values, read_slice(b, headers[b], shape))


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


def order_in_time(headers: Headers, path: Path) -> Places:
    """The images at each place in their order in time; raises BadInput where no tag orders them."""
    images = list(headers)
    planes = planes_of(headers, path)
    along = planes.places @ planes.normal
    order = np.argsort(along, kind="stable")
    breaks = np.flatnonzero(np.diff(along[order]) > SAME_PLACE_MM) + 1
    ordered_images = [images[k] for k in order]
    ends = zip([0, *breaks], [*breaks, None])
    places = [ordered_images[first:end] for first, end in ends]
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
            return Places(ordered, moments if name.endswith("Time") else None)
    raise BadInput(
        f"{path}: expected an acquisition time or number that separates the images at one place, found none. Convert the series with dcm2niix."
    )


def _moments(headers: Headers, name: str) -> dict[Image, float]:
    """The value of a tag that orders images, for each file that states it; times in seconds, past midnight too."""
    is_time = name.endswith("Time")
    read = _seconds if is_time else number_of
    values = {image: read(header, name) for image, header in headers.items()}
    moments = {image: value for image, value in values.items() if value is not None}
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
