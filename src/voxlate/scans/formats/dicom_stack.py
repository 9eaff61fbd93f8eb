"""DICOM: the images of a series as those of one scan, as frames in time, and as the slices of a volume."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import from_matvec
from numpy.linalg import norm

from voxlate.base.errors import BadInput, first_of
from voxlate.base.groups import grouped
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
SPACING, THICKNESS = "SpacingBetweenSlices", "SliceThickness"
# what may tell apart and order the images at one place: what they show first, then times, the best first
CLOCKS = ("AcquisitionTime", "ContentTime", "AcquisitionDateTime", "FrameReferenceDateTime")
ORDERS = (
    "EchoTime",
    "DiffusionBValue",
    *CLOCKS,
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "InstanceNumber",
)
CLOCK = re.compile(
    r"(?:\d{8})?(\d\d)(\d\d)(\d\d(?:\.\d*)?)(?:[+-]\d{4})?"
)  # a date, and a time of the day
DAY_S = 86400.0
GREY = ("MONOCHROME1", "MONOCHROME2")
RESCALE = ("RescaleSlope", "RescaleIntercept")
TABLE = "ModalityLUTSequence"
HU_TYPES = {"HU", "US", ""}  # US: unspecified, as many scanners write
IMAGES_STATED = ("ImagesInAcquisition", "NumberOfSlices")
# of whom the images of a series are, and of which scan: so many values are refused, and never shown;
# more than two UIDs were written by an anonymiser
IDENTITY = {
    "PatientID": np.inf,
    "PatientBirthDate": np.inf,
    "StudyInstanceUID": 2,
    "FrameOfReferenceUID": 2,
    "SeriesInstanceUID": 0,
    "SeriesDescription": 0,
}
COMPLEX = {"M", "P", "R", "I", "MAGNITUDE", "PHASE", "REAL", "IMAGINARY"}

# all tags that are read of a slice
TAGS_OF_SLICES = [
    *PLACE,
    *SIZE,
    SPACING,
    THICKNESS,
    *ORDERS,
    *RESCALE,
    "RescaleType",
    TABLE,
    *IDENTITY,
    *IMAGES_STATED,
    "PhotometricInterpretation",
]


@dataclass(frozen=True)
class Planes:
    """The plane that all images of a series have in common, and the position of each, in LPS mm.

    steps: [3, 2], from one column and one row to the next; shape: rows and columns; places: [N, 3].
    """

    steps: np.ndarray
    shape: tuple[int, int]
    places: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        """The unit vector across the planes."""
        across = np.cross(*self.steps.T)
        return np.asarray(across / norm(across))


@dataclass(frozen=True)
class Stack:
    """The images of one volume in the order of its slices, its grid, and a sentence on the assumption behind it, or ''."""

    images: list[Image]
    grid: Grid
    guess: str


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
    return Planes(ways.T * (column_mm, row_mm), (int(height), int(width)), places)


def frames_of(
    images: Sequence[Image], path: Path
) -> tuple[list[Sequence[Image]], str, np.ndarray | None]:
    """The images of a series as frames of one image at each place, the tag that tells them apart, and their seconds.

    Raises BadInput where places have unequal numbers of images, and where no tag orders them.
    """
    planes = _planes(images)
    along = planes.places @ planes.normal
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
        numbers = [{moments.get(image) for image in place} - {None} for place in places]
        if all(len(different) == len(full) for different in numbers):
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
    clock = CLOCK.fullmatch(image.text(tag))
    if clock is None:
        return None
    hours, minutes, seconds = map(float, clock.groups())
    return hours * 3600 + minutes * 60 + seconds


def stack_of(images: Sequence[Image], path: Path) -> Stack:
    """Sort the slices along their normal and compute their grid; raises BadInput for missing slices."""
    planes = _planes(images)
    order = np.argsort(planes.places @ planes.normal, kind="stable")
    places = planes.places[order]
    stacked = [images[k] for k in order]
    spacing_mm, thickness_mm = _median(stacked, SPACING), _median(stacked, THICKNESS)
    if len(stacked) > 1:
        step = _even_step(places, stacked, path)
        guess = _check_step(float(norm(step)), spacing_mm, thickness_mm, path)
    else:
        length_mm = spacing_mm or thickness_mm
        step = planes.normal * (length_mm or 1.0)
        guess = "" if length_mm else "The slice states no thickness: 1 mm is assumed. Check it."
    lps = from_matvec(np.column_stack([planes.steps, step]), places[0])
    grid = Grid((len(stacked), *planes.shape), check_affine(LPS_TO_RAS @ lps, path))
    return Stack(stacked, grid, guess)


def _median(images: Sequence[Image], tag: str) -> float:
    """The median of a length that headers state, without its sign; 0 where none does."""
    stated = [abs(number) for image in images if (number := image.number(tag))]
    return float(np.median(stated or [0.0]))


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


def _check_step(step_mm: float, spacing_mm: float, thickness_mm: float, path: Path) -> str:
    """A sentence where slices may be missing at regular steps, else ''.

    Raises BadInput where the step is a multiple of the stated spacing, as it is where every second file is missing.
    """
    stated = max(spacing_mm, thickness_mm)
    if not 0 < FAR_APART * stated <= step_mm:
        return ""
    if spacing_mm:
        raise BadInput(
            f"{path}: expected slices {stated:g} mm apart, as their headers state, found every step {step_mm:.2f} mm: only one of {round(step_mm / stated)} is here. Copy the missing ones, or, if none are, convert the series with dcm2niix."
        )
    return f"Slices {stated:g} mm thick are {step_mm:.2f} mm apart; it is assumed that none is missing. Look whether some are."


def check_images(images: Sequence[Image], path: Path) -> list[str]:
    """Compare images of a series; returns what is said of them that is no error.

    Raises BadInput for images of two patients or scans, and for such as are no slices of grey values.
    """
    said = []
    for tag, most_refused in IDENTITY.items():
        values = by_text(images, tag)
        if len(values) > 1:
            said.append(
                f"Its images have {len(values)} values of {tag}, or none; they are taken as one series."
            )
        values.pop("", None)
        if 1 < len(values) <= most_refused:
            one, other, *_ = values.values()
            raise BadInput(
                f"{path}: expected one series to be of one patient and scan, found {len(values)} values of {tag}: one in {one[0].name}, another in {other[0].name}. Put the images of each into a folder of its own, or convert the series with dcm2niix."
            )
    for image in images:
        kind = image.text("PhotometricInterpretation") or "no kind of pixels"
        if "MOSAIC" in image.text("ImageType"):
            kind = "the slices of a volume side by side (a Siemens mosaic)"
        if kind not in GREY:
            raise BadInput(
                f"{image}: expected one slice of grey values ({' or '.join(GREY)}), found {kind}. Convert it with dcm2niix to NIfTI, or move it elsewhere."
            )
    for tag in IMAGES_STATED:
        stated = {image.number(tag) or 0 for image in images}
        if len(stated) == 1 and len(images) < max(stated):
            raise BadInput(
                f"{path}: expected the {max(stated):g} images that their headers state ({tag}), found {len(images)}. Copy the missing ones, or convert what there is with dcm2niix."
            )
    # an inverted display has no meaning in a CT
    inverted = GREY[0] in by_text(images, "PhotometricInterpretation")
    if inverted and images[0].text("Modality") != "CT":
        said.append(
            "Its display is inverted (MONOCHROME1); its values are taken as stored. Check that large ones are bright."
        )
    return said


def check_kinds(images: Sequence[Image]) -> None:
    """Raise BadInput for magnitude and phase in one volume."""
    kinds = grouped(
        (frozenset(COMPLEX & {*image.text("ImageType").upper().split("\\")}), image)
        for image in images
    )
    if len(kinds) > 1:
        named = [f"{'/'.join(kind) or 'none'} in {some[0].name}" for kind, some in kinds.items()]
        raise BadInput(
            f"{images[0]}: expected one kind of image in a volume, found several in ImageType ({first_of(named)}). Put the images of each kind into a folder of its own."
        )


def find_scale(images: Sequence[Image]) -> tuple[bool, str]:
    """Whether headers scale stored values, and why these cannot be Hounsfield units ('' where they can).

    Raises BadInput for a scale that is not whole, not above 0, not that of all images, or a table.
    """
    first = bool(images[0].text(RESCALE[0]))
    for image in images:
        slope, intercept = map(image.numbers, RESCALE)
        is_whole = bool(slope and intercept and slope[0] > 0) or not slope + intercept
        if not is_whole or bool(slope) != first or TABLE in image.header:
            table = f" and a {TABLE}" if TABLE in image.header else ""
            raise BadInput(
                f"{image}: expected a RescaleSlope above 0 with a RescaleIntercept, or neither of both, as in the other images, found slope {slope}, intercept {intercept}{table}. Get the series again."
            )
    odd = {kind.upper() for kind in by_text(images, "RescaleType")} - HU_TYPES
    return first, f"RescaleType {min(odd)}" if odd else ""


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
