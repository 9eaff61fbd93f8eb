"""DICOM: the meaning of a series' stored values, and the values of a slice."""

from collections import Counter
from collections.abc import MutableSequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from voxlate.formats.dicom_pixels import Image, read_pixels
from voxlate.formats.format import errors_as
from voxlate.system.errors import BadInput

VALUE_TAGS = (
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "PhotometricInterpretation",
    "ModalityLUTSequence",
)
GREY = ("MONOCHROME1", "MONOCHROME2")
HU_TYPES = ("HU", "US", "")  # US: unspecified, as many scanners write
MOST_APART = 100  # slopes of PET and of Philips' MR differ from slice to slice, but not by so much
CLEARLY_HU = -500.0  # no other scale of a CT goes so far below 0; air is -1000
KINDS = {
    "": "neither",
    "slope": "RescaleSlope and RescaleIntercept",
    "table": "a ModalityLUTSequence",
}
AGAIN = "Get the series again."
Scale = (
    tuple[float, float] | Literal["table"] | None
)  # slope and intercept, a lookup table, or values as stored


@dataclass(frozen=True)
class Meaning:
    """The meaning of a series' values by its headers.

    scaled: whether they state a scale; not_hu: why they cannot be Hounsfield units, '' where they can; guesses: as
    those of Volume.
    """

    scaled: bool
    not_hu: str = ""
    guesses: tuple[str, ...] = ()


def meaning_of(headers: dict[Image, Any], path: Path) -> Meaning:
    """The meaning of a series' stored values.

    Raises BadInput where some slices state a scale and others do not, and for slopes that are not above 0 or differ
    too much.
    """
    scales = {file: scale_of(header, file) for file, header in headers.items()}
    _check_one_kind(scales)
    _check_slopes(
        {file: scale[0] for file, scale in scales.items() if isinstance(scale, tuple)}, path
    )
    scale = next(iter(scales.values()))
    types = {text_of(header, "RescaleType", file).upper() for file, header in headers.items()}
    odd = sorted(types - set(HU_TYPES))
    if odd:
        not_hu = f"RescaleType {odd[0]}"
    elif scale == "table":
        not_hu = "a lookup table (ModalityLUTSequence)"
    else:
        not_hu = ""
    inverted = any(
        one.PhotometricInterpretation == GREY[0] and one.get("Modality") != "CT"
        for one in headers.values()
    )
    guess = "Its display is inverted (MONOCHROME1); its values are taken as stored. Check that large ones are bright."
    return Meaning(scale is not None, not_hu, (guess,) * inverted)


def tag_errors(name: str, file: object) -> AbstractContextManager[None]:
    """The errors of reading a tag as a sentence; pydicom converts values when they are asked for."""
    return errors_as(
        f"{file}: expected a sound DICOM header, found a bad {name}", "Get the file again."
    )


def text_of(header: Any, name: str, file: object) -> str:
    """The value of a tag as text in one line, several values with a backslash between; '' where there is none."""
    with tag_errors(name, file):
        value = header.get(name)
        if isinstance(value, MutableSequence):
            parts = value
        elif value is None:
            parts = []
        else:
            parts = [value]
        return " ".join("\\".join(str(part) for part in parts).split())


def number_of(header: Any, name: str) -> float | None:
    """The value of a tag as a number; None where it is absent or no number."""
    try:
        value = float(header.get(name))
    except Exception:
        return None
    return value if np.isfinite(value) else None


def scale_of(header: Any, file: object) -> Scale:
    """The scale from stored to physical values that a header states; raises BadInput where it is unusable."""
    with tag_errors("RescaleSlope, RescaleIntercept or ModalityLUTSequence", file):
        table = bool(header.get("ModalityLUTSequence"))
        found = {name: header.get(name) for name in ("RescaleSlope", "RescaleIntercept")}
        stated = {name: float(value) for name, value in found.items() if value not in (None, "")}
    if table and stated:
        raise BadInput(f"{file}: expected a lookup table or a slope, found both. {AGAIN}")
    if len(stated) == 1:
        raise BadInput(
            f"{file}: expected RescaleSlope and RescaleIntercept or neither, found {next(iter(stated))} alone. {AGAIN}"
        )
    if not stated:
        return "table" if table else None
    slope, intercept = stated.values()
    if not (np.isfinite([slope, intercept]).all() and slope > 0):
        raise BadInput(
            f"{file}: expected a rescale slope above 0, found {slope:g} (intercept {intercept:g}). Get the file again."
        )
    return slope, intercept


def _check_one_kind(scales: dict[Image, Scale]) -> None:
    kinds = {
        file: KINDS["table" if scale == "table" else "slope" if scale else ""]
        for file, scale in scales.items()
    }
    counts = Counter(kinds.values())
    odd = min(kinds, key=lambda file: (kinds[file] != KINDS[""], counts[kinds[file]]))
    other = next((file for file in kinds if kinds[file] != kinds[odd]), None)
    if other:
        raise BadInput(
            f"{odd}: expected its values to be scaled by {kinds[other]}, as those of {other.name} are, found {kinds[odd]} in it. {AGAIN}"
        )


def _check_slopes(slopes: dict[Image, float], path: Path) -> None:
    if not slopes:
        return
    least = min(slopes, key=slopes.__getitem__)
    most = max(slopes, key=slopes.__getitem__)
    if slopes[most] > MOST_APART * slopes[least]:
        raise BadInput(
            f"{path}: expected rescale slopes of one size, found {slopes[least]:g} in {least.name} and {slopes[most]:g} in {most.name}. {AGAIN}"
        )


def hounsfield(meaning: Meaning, data: np.ndarray) -> tuple[str, str]:
    """Why the values of a series cannot be Hounsfield units, and a sentence where it is assumed that they are."""
    if meaning.not_hu or meaning.scaled:
        return meaning.not_hu, ""
    lowest = float(data.min())
    silent = "neither RescaleSlope nor RescaleIntercept"
    if lowest > CLEARLY_HU:
        return f"{silent}, and no value below {CLEARLY_HU:g}", ""
    return "", f"It states {silent}; its values, from {lowest:g} on, are taken as Hounsfield units."


def read_slice(image: Image, header: Any, shape: tuple[int, ...]) -> np.ndarray:
    """One slice [H, W] in physical values: its lookup table, or its slope and intercept, applied.

    Raises BadInput for damaged files and another shape.
    """
    pixels = read_pixels(image, header.pixels)
    if pixels.shape != shape:
        raise BadInput(
            f"{image}: expected {shape[1]}×{shape[0]} pixels, found shape {pixels.shape}. Get the file again."
        )
    scale = scale_of(header, image)
    if scale == "table":
        from pydicom.pixels import apply_modality_lut

        with errors_as(f"{image}: expected a whole lookup table, found a bad one", AGAIN):
            return np.asarray(apply_modality_lut(pixels, header))
    slope, intercept = scale or (1.0, 0.0)
    values = np.multiply(pixels, slope, dtype=np.float64)
    values += intercept
    return values
