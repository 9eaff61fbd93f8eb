"""DICOM: what the stored values of a series mean, and the values of a slice."""

import warnings
from collections import Counter
from collections.abc import MutableSequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from voxlate.errors import BadInput
from voxlate.images.formats import reason

VALUE_TAGS = ("RescaleSlope", "RescaleIntercept", "RescaleType", "PhotometricInterpretation", "ModalityLUTSequence")
FRAME_TAGS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
GREY = ("MONOCHROME1", "MONOCHROME2")
HU_TYPES = ("HU", "US", "")  # US: unspecified, as many scanners write
MOST_APART = 100  # slopes of PET and of Philips' MR differ from slice to slice, but not by so much
PLAINLY_HU = -500.0  # no other scale of a CT goes so far below 0; air is -1000
KINDS = {"": "neither", "slope": "RescaleSlope and RescaleIntercept", "table": "a ModalityLUTSequence"}
AGAIN = "Get the series again."
Scale = tuple[float, float] | Literal["table"] | None  # slope and intercept, a lookup table, or values as stored


@dataclass(frozen=True)
class Meaning:
    """What the headers of a series say of its values.

    scaled: whether they state a scale; not_hu: why they cannot be Hounsfield units, '' where they can; guesses: as
    those of Volume.
    """

    scaled: bool
    not_hu: str = ""
    guesses: tuple[str, ...] = ()


def meaning_of(headers: dict[Path, Any], path: Path) -> Meaning:
    """What the stored values of a series mean.

    Raises BadInput for colour, for slices of which some state a scale and others none, and for slopes that are not
    above 0 or not of one size.
    """
    for file, header in headers.items():
        _check_grey(header, file)
    scales = {file: scale_of(header, file) for file, header in headers.items()}
    _check_one_kind(scales)
    _check_slopes({file: scale[0] for file, scale in scales.items() if isinstance(scale, tuple)}, path)
    scale = next(iter(scales.values()))
    types = {text_of(header, "RescaleType", file).upper() for file, header in headers.items()}
    odd = sorted(types - set(HU_TYPES))
    not_hu = f"RescaleType {odd[0]}" if odd else "a lookup table (ModalityLUTSequence)" if scale == "table" else ""
    inverted = any(one.PhotometricInterpretation == GREY[0] and one.get("Modality") != "CT" for one in headers.values())
    guess = "Its display is inverted (MONOCHROME1); its values are taken as stored. Check that large ones are bright."
    return Meaning(scale is not None, not_hu, (guess,) * inverted)


def tag_of(header: Any, name: str, file: Path) -> Any:
    """The value of a tag, None where there is none; pydicom converts it here, and raises all sorts of errors."""
    try:
        return header.get(name)
    except Exception as error:
        raise _bad(name, file, error) from error


def text_of(header: Any, name: str, file: Path) -> str:
    """The value of a tag as text in one line, several values with a backslash between; '' where there is none."""
    value = tag_of(header, name, file)
    try:
        parts = value if isinstance(value, MutableSequence) else [] if value is None else [value]
        return " ".join("\\".join(str(part) for part in parts).split())
    except Exception as error:
        raise _bad(name, file, error) from error


def _bad(name: str, file: Path, error: Exception) -> BadInput:
    return BadInput(f"{file}: expected a sound DICOM header, found a bad {name} ({reason(error)}). Get the file again.")


def _check_grey(header: Any, file: Path) -> None:
    kind = tag_of(header, "PhotometricInterpretation", file)
    if kind not in GREY:
        raise BadInput(
            f"{file}: expected grey values ({' or '.join(GREY)}), found {kind or 'no PhotometricInterpretation'}. Save "
            "it as grey values, or move it elsewhere."
        )


def scale_of(header: Any, file: Path) -> Scale:
    """How a header says that stored values become physical ones; raises BadInput where it says it badly."""
    table = bool(tag_of(header, "ModalityLUTSequence", file))
    found = {name: tag_of(header, name, file) for name in ("RescaleSlope", "RescaleIntercept")}
    stated = {name: value for name, value in found.items() if value not in (None, "")}
    if table and stated:
        raise BadInput(f"{file}: expected a lookup table or a slope, found both. {AGAIN}")
    if len(stated) == 1:
        raise BadInput(
            f"{file}: expected RescaleSlope and RescaleIntercept or neither, found {next(iter(stated))} alone. {AGAIN}"
        )
    if not stated:
        return "table" if table else None
    try:
        slope, intercept = map(float, stated.values())
    except (TypeError, ValueError) as error:
        raise BadInput(f"{file}: expected a sound rescale slope, found a bad one ({reason(error)}). {AGAIN}") from error
    if not (np.isfinite([slope, intercept]).all() and slope > 0):
        raise BadInput(
            f"{file}: expected a rescale slope above 0, found {slope:g} (intercept {intercept:g}). Get the file again."
        )
    return slope, intercept


def _check_one_kind(scales: dict[Path, Scale]) -> None:
    kinds = {file: KINDS["table" if scale == "table" else "slope" if scale else ""] for file, scale in scales.items()}
    counts = Counter(kinds.values())
    odd = min(kinds, key=lambda file: (kinds[file] != KINDS[""], counts[kinds[file]]))
    if other := next((file for file in kinds if kinds[file] != kinds[odd]), None):
        raise BadInput(
            f"{odd}: expected its values to be scaled by {kinds[other]}, as those of {other.name} are, found "
            f"{kinds[odd]} in it. {AGAIN}"
        )


def _check_slopes(slopes: dict[Path, float], path: Path) -> None:
    if not slopes:
        return
    least, most = min(slopes, key=slopes.__getitem__), max(slopes, key=slopes.__getitem__)
    if slopes[most] > MOST_APART * slopes[least]:
        raise BadInput(
            f"{path}: expected rescale slopes of one size, found {slopes[least]:g} in {least.name} and "
            f"{slopes[most]:g} in {most.name}. {AGAIN}"
        )


def hounsfield(meaning: Meaning, data: np.ndarray) -> tuple[str, str]:
    """Why the values of a series cannot be Hounsfield units, and a sentence where that they are is a guess."""
    if meaning.not_hu or meaning.scaled:
        return meaning.not_hu, ""
    lowest, silent = float(data.min()), "neither RescaleSlope nor RescaleIntercept"
    if lowest > PLAINLY_HU:
        return f"{silent}, and no value below {PLAINLY_HU:g}", ""
    return "", f"It states {silent}; its values, from {lowest:g} on, are taken as Hounsfield units."


def read_slice(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """One slice [H, W] in physical values: its lookup table, or its slope and intercept, applied.

    Raises BadInput for damaged files, another shape, and enhanced objects.
    """
    image, pixels = _read_pixels(file)
    if any(name in image for name in FRAME_TAGS):
        raise BadInput(
            f"{file}: expected one slice with its own place and scale, found an enhanced object, which states them by "
            "frames. Convert it with dcm2niix to NIfTI."
        )
    if pixels.shape != shape:
        raise BadInput(
            f"{file}: expected {shape[1]}×{shape[0]} pixels, found shape {pixels.shape}. Get the file again."
        )
    with warnings.catch_warnings(action="ignore"):
        scale = scale_of(image, file)
    if scale == "table":
        return _looked_up(pixels, image, file)
    slope, intercept = scale or (1.0, 0.0)
    return np.asarray(pixels * slope + intercept)


def _read_pixels(file: Path) -> tuple[Any, np.ndarray]:
    """The data set in a file, and its pixels as stored."""
    import pydicom

    advice = "Get the file again."
    try:
        with warnings.catch_warnings(action="ignore"):
            warnings.filterwarnings("error", "The decoded RLE segment")
            image = pydicom.dcmread(file)
            if image.file_meta.TransferSyntaxUID.is_compressed:
                advice = "Install its decoder (pip install 'pylibjpeg[all]') or convert the series with dcm2niix."
            return image, image.pixel_array
    except Exception as error:
        message = f"{file}: expected whole pixel data, found none that can be read ({reason(error)}). {advice}"
        raise BadInput(message) from error


def _looked_up(pixels: np.ndarray, image: Any, file: Path) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut

    try:
        return np.asarray(apply_modality_lut(pixels, image))
    except Exception as error:
        raise BadInput(f"{file}: expected a whole lookup table, found a bad one ({reason(error)}). {AGAIN}") from error
