"""DICOM: the images of a series as frames in time, as the slices of a volume, and as images of one patient and scan."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import from_matvec
from numpy.linalg import norm

from voxlate.base.errors import BadInput, first_of
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, message
from voxlate.scans.formats.dicom_file import Image, by_text
from voxlate.scans.images.grid import LPS_TO_RAS, Grid, check_affine

TILT_DEGREES = 0.5  # positions are rounded in headers; a real gantry tilt is degrees
STRAIGHT = 2e-3  # directions are unit vectors at right angles to so much
EVEN_MM = 0.2  # of a slice beside its even place; some headers round positions to 0.1 mm
EVEN, MOST_APART = 0.03, 0.4  # the same as shares of a step: of thick slices, and at most
FAR_APART = 1.9  # times the thickness: gaps of whole slices are rare, of up to a half usual
SAME_PLACE_MM = 0.05  # positions of a moving table differ by less, slices by more
# the tags of a slice's place, and how many numbers each has
POSITION = "ImagePositionPatient"
PLACE = {POSITION: 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
SIZE = {"Rows": 1, "Columns": 1}
THICKNESS = ("SpacingBetweenSlices", "SliceThickness")
# what may tell apart and order the images at one place: what they show first, then times, the best first
ORDERS = (
    "EchoTime",
    "DiffusionBValue",
    "AcquisitionTime",
    "ContentTime",
    "AcquisitionDateTime",
    "FrameReferenceDateTime",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "InstanceNumber",
)
CLOCKS = ORDERS[2:6]
CLOCK = re.compile(
    r"(?:\d{8})?(\d\d)(\d\d)(\d\d(?:\.\d*)?)(?:[+-]\d{4})?"
)  # a date, and a time of the day
DAY_S = 86400.0
# of whom: refused where two are named
PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
# of which scan: two values are two scans; more were written by an anonymiser or an export, image by image
SCAN = ("StudyInstanceUID", "FrameOfReferenceUID")
IDENTITY = (*PATIENT, *SCAN, "SeriesInstanceUID", "SeriesDescription")
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
MOST_NAMED = 6


@dataclass(frozen=True)
class Planes:
    """The plane that all images of a series have in common, and the position of each, in LPS mm.

    steps: [3, 2], from one column and one row to the next; normal: a unit vector; shape: rows and columns; places: [N, 3].
    """

    steps: np.ndarray
    normal: np.ndarray
    shape: tuple[int, int]
    places: np.ndarray

    @property
    def along(self) -> np.ndarray:
        """The place of each image on the normal in mm."""
        return self.places @ self.normal


@dataclass(frozen=True)
class Stack:
    """The images of one volume in the order of its slices, its grid, and the assumptions behind it."""

    images: list[Image]
    grid: Grid
    guesses: tuple[str, ...]


def _planes(images: Sequence[Image]) -> Planes:
    """The planes of images; raises BadInput where they differ in direction, spacing or size, or are no planes."""
    places, *rest = (
        np.array([image.numbers(tag, count) for image in images])
        for tag, count in (PLACE | SIZE).items()
    )
    forms = np.concatenate(rest, axis=1)
    apart = np.abs(forms - forms[0]).max(axis=1)
    if apart.max() > 1e-3:
        raise BadInput(
            f"{images[apart.argmax()]}: expected the direction, spacing and size of {images[0].name}, found others (a localiser?). Remove it from the folder."
        )
    directions, (row_mm, column_mm, height, width) = np.split(forms[0], [6])
    ways = directions.reshape(2, 3)
    if not np.allclose(ways @ ways.T, np.eye(2), atol=STRAIGHT) or min(row_mm, column_mm) <= 0:
        raise BadInput(
            f"{images[0]}: expected two unit vectors at right angles in ImageOrientationPatient, and PixelSpacing above 0, found {directions.round(3).tolist()} and {row_mm:g}\\{column_mm:g}. Convert the series with dcm2niix."
        )
    normal = np.cross(*ways)
    steps = ways.T * (column_mm, row_mm)
    return Planes(steps, normal / norm(normal), (int(height), int(width)), places)


def frames_of(
    images: Sequence[Image], path: Path
) -> tuple[list[Sequence[Image]], str, np.ndarray | None]:
    """The images of a series as frames of one image at each place, the tag that tells them apart, and their seconds.

    Raises BadInput where places have unequal numbers of images, and where no tag orders them.
    """
    along = _planes(images).along
    order = np.argsort(along, kind="stable")
    breaks = np.flatnonzero(np.diff(along[order]) > SAME_PLACE_MM) + 1
    places = [[images[k] for k in place] for place in np.split(order, breaks)]
    short, full = min(places, key=len), max(places, key=len)
    if len(full) == 1:
        return [images], "", None
    if len(short) < len(full):
        raise BadInput(
            f"{path}: expected as many images at every place, found {len(short)} at that of {short[0].name} and {len(full)} at that of {full[0].name}. Add the missing ones, remove those stored twice, or convert the series with dcm2niix."
        )
    for tag in ORDERS:
        moments = _moments(images, tag)
        if all(
            len({moments.get(image) for image in place} - {None}) == len(place) for place in places
        ):
            break
    else:
        raise BadInput(
            f"{path}: expected one image at each place, or a tag that separates the images at one place, found {len(full)} with the same tags at that of {full[0].name}. Remove those stored twice, or convert the series with dcm2niix."
        )
    in_time = (sorted(place, key=moments.__getitem__) for place in places)
    frames: list[Sequence[Image]] = [*zip(*in_time)]
    means = np.array([[moments[image] for image in frame] for frame in frames]).mean(axis=1)
    return frames, tag, means - means[0] if tag in CLOCKS else None


def _moments(images: Sequence[Image], tag: str) -> dict[Image, float]:
    """The order of images by a tag, for each that states it; times in seconds, past midnight too."""
    read = _seconds if tag in CLOCKS else Image.number
    stated = ((image, read(image, tag)) for image in images)
    moments = {image: value for image, value in stated if value is not None}
    if tag in CLOCKS and moments and max(moments.values()) - min(moments.values()) > DAY_S / 2:
        # past midnight
        return {image: value + DAY_S * (value < DAY_S / 2) for image, value in moments.items()}
    return moments


def _seconds(image: Image, tag: str) -> float | None:
    """Seconds of the day of a DICOM time or date with time; None where it is none."""
    clock = CLOCK.fullmatch(str(image.header.get(tag)).strip())
    if clock is None:
        return None
    hours, minutes, seconds = map(float, clock.groups())
    return hours * 3600 + minutes * 60 + seconds


def stack_of(images: Sequence[Image], path: Path, numbered: bool = True) -> Stack:
    """Sort the slices along their normal and compute their grid; raises BadInput for missing slices.

    numbered: whether InstanceNumber counts slices alone, not frames too.
    """
    planes = _planes(images)
    order = np.argsort(planes.along, kind="stable")
    places = planes.places[order]
    stacked = [images[k] for k in order]
    if len(stacked) == 1:
        thickness = thickness_mm(stacked[0])
        step = planes.normal * (thickness or 1.0)
        said = "" if thickness else "The slice states no thickness: 1 mm is assumed. Check it."
    else:
        step = _even_step(places, stacked, path)
        said = _said_of_step(float(norm(step)), stacked, path, numbered)
    lps = from_matvec(np.column_stack([planes.steps, step]), places[0])
    grid = Grid((len(stacked), *planes.shape), check_affine(LPS_TO_RAS @ lps, path))
    guesses = [said] if said else []
    tilt = _median(stacked, "GantryDetectorTilt")
    if tilt > TILT_DEGREES >= tilt_of(grid):
        guesses.append(
            f"It states that its gantry was tilted by {tilt:g} degrees, but its positions are those of upright slices, and are used: look whether the head is sheared."
        )
    return Stack(stacked, grid, tuple(guesses))


def _even_step(places: np.ndarray, images: list[Image], path: Path) -> np.ndarray:
    """The vector from one slice to the next; raises BadInput, naming two slices, where another one leads from one to the other."""
    step: np.ndarray = (places[-1] - places[0]) / (len(places) - 1)
    away = norm(places - (places[0] + np.arange(len(places))[:, None] * step), axis=1)
    length = norm(step)
    if away.max() <= min(max(EVEN_MM, EVEN * length), MOST_APART * length):
        return step
    steps = np.diff(places, axis=0)
    usual = np.median(steps, axis=0)
    k = norm(steps - usual, axis=1).argmax()
    raise BadInput(
        f"{path}: expected slices in a straight line, {norm(usual):.2f} mm apart, found {norm(steps[k]):.2f} mm between {images[k].name} and {images[k + 1].name}, or another direction. Add the missing slices; if the scan changes its spacing there, convert it with dcm2niix, which also writes it with equal slices (*_Eq_1.nii.gz)."
    )


def _said_of_step(step_mm: float, images: list[Image], path: Path, numbered: bool) -> str:
    """A sentence where slices may be missing at regular steps, else ''; images: in order.

    Raises BadInput where headers and positions differ as they do when every second file is missing.
    """
    spacing, thickness = (_median(images, tag) for tag in THICKNESS)
    stated = max(spacing, thickness)
    if not 0 < FAR_APART * stated <= step_mm:
        return ""
    steps = np.abs(np.diff([image.number("InstanceNumber") or 0.0 for image in images]))
    if spacing or (numbered and steps.min() > 1):
        raise BadInput(
            f"{path}: expected slices {stated:g} mm apart or thick, as their headers state, found every step {step_mm:.2f} mm: only one of {round(step_mm / stated)} is here. Copy the missing ones, or, if none are, convert the series with dcm2niix."
        )
    return f"Slices {stated:g} mm thick are {step_mm:.2f} mm apart; it is assumed that none is missing. Look whether some are."


def thickness_mm(image: Image) -> float:
    """The thickness in mm that a header states; 0 where it states none above 0."""
    stated = (mm for tag in THICKNESS for mm in image.numbers(tag))
    return next((mm for mm in stated if mm > 0), 0.0)


def _median(images: Sequence[Image], tag: str) -> float:
    """The median of a number that headers state, without its sign; 0 where none does."""
    stated = [abs(number) for image in images for number in image.numbers(tag) if number]
    return float(np.median(stated or [0.0]))


def tilt_of(grid: Grid) -> float:
    """The angle in degrees by which the line of a grid's slices differs from their normal (gantry tilt)."""
    column_way, row_way, step = grid.affine[:3, :3].T
    normal = np.cross(column_way, row_way)
    along = abs(step @ normal) / (norm(step) * norm(normal))
    return float(np.degrees(np.arccos(min(1.0, along))))


def upright(grid: Grid) -> Grid:
    """The grid of the same planes and pixels whose slices are stacked along their normal, and which covers the grid."""
    affine = grid.affine.copy()
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    affine[:3, 2] = normal * (affine[:3, 2] @ normal) / (normal @ normal)
    depth, height, width = grid.shape
    # of the last slice against the first, in columns and rows
    shift = (np.linalg.inv(affine) @ grid.affine)[:2, 2] * (depth - 1)
    before = np.ceil(np.maximum(-shift, 0) - 1e-6)
    after = np.ceil(np.maximum(shift, 0) - 1e-6)
    affine[:3, 3] -= affine[:3, :2] @ before
    wider, higher = (before + after).astype(int).tolist()
    return Grid((depth, height + higher, width + wider), affine)


def check_patient(images: Sequence[Image], path: Path) -> None:
    """Raise BadInput for images of two patients, which may also lie at the same places."""
    for tag in PATIENT:
        values = _values(images, tag)
        if len(values.keys() - {""}) > 1:
            raise _mixed(tag, values, path)


def _mixed(tag: str, values: dict[str, list[Image]], path: Path) -> BadInput:
    """The refusal of a series in which a tag has several values, which are not shown."""
    groups = [_names(named) for value, named in values.items() if value]
    return BadInput(
        f"{path}: expected one series to be of one patient and scan, found {len(groups)} values of {tag}: one in {groups[0]} and others in {groups[1]}. Put the images of each into a folder of its own."
    )


def check_agreement(images: Sequence[Image], path: Path) -> list[str | Message]:
    """Compare tags in the images of one volume, in order; returns what is said of each difference that is no error.

    Raises BadInput where they are of two scans, or show different things.
    """
    said: list[str | Message] = []
    for (tag, value), sentence in STATED.items():
        is_usual = tag == "PhotometricInterpretation" and images[0].text("Modality") == "CT"
        if value in by_text(images, tag) and not is_usual:  # which has no meaning in a CT
            said.append(sentence)
    for tag in IDENTITY:  # whose values are never shown
        values = _values(images, tag)
        known = len(values.keys() - {""})
        if tag in SCAN and known == 2:
            raise _mixed(tag, values, path)
        if len(values) > 1:
            said.append(
                f"Its images have {known} values of {tag}, or none; they form one even stack, and are taken as one series."
            )
    kinds = by_text(images, "ImageType")
    if len({frozenset(COMPLEX & {*kind.upper().split("\\")}) for kind in kinds}) > 1:
        listed = [f"{kind or 'nothing'} in {_names(named)}" for kind, named in kinds.items()]
        raise BadInput(
            f"{path}: expected one kind of image in a volume, found ImageType {first_of(listed, MOST_NAMED, '; ')}. Put the images of each kind into a folder of its own."
        )
    slopes = [image.number("RescaleSlope") or 1.0 for image in images]
    first, last = slopes[0], slopes[-1]
    if first != last and slopes == sorted(slopes, reverse=first > last):
        text = f"Its RescaleSlope drifts along the slices, from {first:g} to {last:g}. Look whether tissue keeps its brightness."
        said.append(message("guess", text, grade="caution"))
    return said


def _values(images: Sequence[Image], tag: str) -> dict[str, list[Image]]:
    """The images that state each value of a tag; empty components at the end of a name are no difference (PS3.5, 6.2.1)."""
    if tag == "PatientName":
        return grouped((image.text(tag).upper().rstrip("^ "), image) for image in images)
    return by_text(images, tag)


def _names(images: Sequence[Image]) -> str:
    return first_of([image.name for image in images], MOST_NAMED)
