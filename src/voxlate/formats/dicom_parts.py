"""DICOM: several volumes in one series, such as echoes or acquisitions, and images that repeat others."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.formats.dicom_pixels import Image
from voxlate.formats.dicom_values import read_slice, text_of
from voxlate.formats.format import errors_as
from voxlate.system.errors import BadInput, first_of

# what may tell the volumes of one series apart, in the order in which it is tried
SEPARATING = (
    "StackID",
    "EchoTime",
    "ImageType",
    "DiffusionBValue",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
)
ROUNDED = 2  # decimals of positions in mm and of directions: images at one place agree to so much
MOST_LISTED = 12
Place = tuple[float, ...]


def part_keys(key: str, header: Any, image: Image) -> Iterator[tuple[str, str, str]]:
    """The parts of the series of this key to which an image belongs: a tag, its value, and the key of that part."""
    for name in SEPARATING:
        value = text_of(header, name, image)
        if value:
            digest = hashlib.sha256(f"{key}\n{name}={value}".encode()).hexdigest()
            yield name, value, digest[:8]


def check_one_volume(headers: dict[Image, Any], key: str, path: Path) -> None:
    """Raise BadInput, with the path of each, where a tag tells several volumes of a series apart."""
    stacks = {text_of(header, "StackID", image) for image, header in headers.items()}
    repeated = any(len(images) > 1 for images in _by_place(headers).values())
    if not repeated and len(stacks) == 1:
        return
    for name in SEPARATING:
        parts: dict[tuple[str, str], dict[Image, Any]] = defaultdict(dict)
        for image, header in headers.items():
            for tag, value, part in part_keys(key, header, image):
                if tag == name:
                    parts[value, part][image] = header
        if len(parts) < 2 or sum(map(len, parts.values())) < len(headers):
            continue
        separate = all(
            len(images) == 1 for part in parts.values() for images in _by_place(part).values()
        )
        if separate or name == "StackID":
            folder = next(iter(headers)).file.parent
            lines = [
                f"{name} {value}, {len(images)} images: {folder.name}#{part}"
                for (value, part), images in parts.items()
            ]
            raise BadInput(
                f"{path}: expected one volume, found {len(parts)} in this series by {name} ({first_of(lines, MOST_LISTED, '; ')}). Name one of them by such a path, or a time by #frame=1 or #peak."
            )


def without_copies(headers: dict[Image, Any]) -> tuple[dict[Image, Any], tuple[str, ...]]:
    """The headers without images that repeat another at their place exactly, and a sentence on those.

    Where images at one place differ anywhere in a series, it holds several volumes, and nothing is left out.
    """
    copies = list[Image]()
    for first, *others in _by_place(headers).values():
        for image in others:
            if not _same_values(first, image, headers):
                return headers, ()
            copies.append(image)
    if not copies:
        return headers, ()
    repeated = set(copies)
    left = {image: header for image, header in headers.items() if image not in repeated}
    note = f"{len(copies)} images repeat another at the same place exactly and are left out (the first: {copies[0].name})."
    return left, (note,)


def _same_values(a: Image, b: Image, headers: dict[Image, Any]) -> bool:
    """Whether two images have the same size and the same values."""
    shape, other = ((int(headers[one].Rows), int(headers[one].Columns)) for one in (a, b))
    if shape != other:
        return False
    values = read_slice(a, headers[a], shape)
    return np.array_equal(values, read_slice(b, headers[b], shape))


def _by_place(headers: dict[Image, Any]) -> dict[Place, list[Image]]:
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
