"""DICOM: the images of a dynamic series at each place, in their order in time."""

from pathlib import Path
from typing import Any

import numpy as np

from voxlate.formats.dicom_geometry import planes_of
from voxlate.formats.dicom_pixels import Image
from voxlate.formats.dicom_values import number_of
from voxlate.system.errors import BadInput

DAY_S = 86400.0
SAME_PLACE_MM = 0.1  # positions of a moving table differ by less, slices by more
# what may order the images at one place in time, the best first
ORDERS = (
    "AcquisitionTime",
    "ContentTime",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "InstanceNumber",
)


def by_place(
    headers: dict[Image, Any],
    path: Path,
) -> tuple[list[list[Image]], dict[Image, float] | None]:
    """The files at each place in their order in time, and their seconds where the headers state them."""
    files = list(headers)
    planes, positions = planes_of(headers, path)
    along = positions @ np.cross(planes[0, :3], planes[0, 3:6])
    order = np.argsort(along, kind="stable")
    breaks = np.flatnonzero(np.diff(along[order]) > SAME_PLACE_MM) + 1
    places = [[files[k] for k in group] for group in np.split(order, breaks)]
    if len({len(place) for place in places}) > 1:
        short = min(places, key=len)
        full = max(places, key=len)
        raise BadInput(
            f"{path}: expected as many images at every place, found {len(short)} at that of {short[0].name} and {len(full)} at that of {full[0].name}. Add the missing ones, or convert the series with dcm2niix."
        )
    for name in ORDERS:
        moments = _moments(headers, name)
        if len(moments) == len(files) and all(_differ(place, moments) for place in places):
            ordered = [sorted(place, key=moments.__getitem__) for place in places]
            return ordered, moments if name.endswith("Time") else None
    raise BadInput(
        f"{path}: expected an acquisition time or number that separates the images at one place, found none. Convert the series with dcm2niix."
    )


def _moments(headers: dict[Image, Any], name: str) -> dict[Image, float]:
    """The value of a tag that orders images, for each file that states it; times in seconds, past midnight too."""
    clock = name.endswith("Time")
    read = _seconds if clock else number_of
    values = {file: read(header, name) for file, header in headers.items()}
    moments = {file: value for file, value in values.items() if value is not None}
    if (
        clock and moments and max(moments.values()) - min(moments.values()) > DAY_S / 2
    ):  # past midnight
        return {file: value + DAY_S * (value < DAY_S / 2) for file, value in moments.items()}
    return moments


def _differ(place: list[Image], moments: dict[Image, float]) -> bool:
    return len({moments[file] for file in place}) == len(place)


def _seconds(header: Any, name: str) -> float | None:
    """Seconds of the day of a DICOM time HHMMSS.FFFFFF; None where it is none."""
    digits = str(header.get(name) or "")
    try:
        return int(digits[:2]) * 3600.0 + int(digits[2:4]) * 60.0 + float(digits[4:])
    except ValueError:
        return None
