"""DICOM: the positions of a series' slices in the patient, and the grid of the series."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import from_matvec
from numpy.linalg import norm

from voxlate.base.errors import BadInput
from voxlate.scans.formats.dicom_headers import Headers, Image, number_of, numbers_of
from voxlate.scans.images.grid import LPS_TO_RAS, Grid, check_affine

TILT_DEGREES = 0.5  # positions are rounded in headers; a real gantry tilt is degrees
BENT_MM = 0.3  # of a slice beside the line of the others: less than a pixel
STRAIGHT = 1e-3  # directions are unit vectors at right angles to so much
COARSE_MM = 0.1  # to which some headers round positions
ROUNDING = 0.05  # of a length: headers round spacings (0.6 for 0.625 mm)
FAR_APART = 1.9  # times the thickness: gaps of whole slices are rare, of up to a half usual
COMPLETE = "Copy the missing ones, or, if none are, convert the series with dcm2niix."
# the tags of a slice's place, and how many numbers each has
POSITION, DIRECTION, SPACING = "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"
PLACE = {POSITION: 3, DIRECTION: 6, SPACING: 2}
SIZE = {"Rows": 1, "Columns": 1}
THICKNESS = ("SpacingBetweenSlices", "SliceThickness")


@dataclass(frozen=True)
class Stack:
    """The headers of one series in the order of its slices, its grid, and the assumptions behind it."""

    headers: Headers
    grid: Grid
    modality: str
    guesses: tuple[str, ...]


@dataclass(frozen=True)
class Planes:
    """The plane that all images of a series have in common, and the position of each.

    columns, rows, normal: unit vectors in which column and row numbers and slices grow (LPS); spacing: of rows and
    columns in mm; shape: their numbers; places: [N, 3].
    """

    columns: np.ndarray
    rows: np.ndarray
    normal: np.ndarray
    spacing: np.ndarray
    shape: tuple[int, int]
    places: np.ndarray


def planes_of(headers: Headers, path: Path) -> Planes:
    """The planes of a series; raises BadInput where they differ in direction, spacing or size, or are no planes."""
    images = list(headers)
    stated = {
        name: np.array([numbers_of(header, name, image, n) for image, header in headers.items()])
        for name, n in (PLACE | SIZE).items()
    }
    places, directions, spacing = (stated[name] for name in PLACE)
    columns, rows = directions[:, :3], directions[:, 3:]
    slant = np.abs((columns * rows).sum(1))
    for k, image in enumerate(images):
        lengths = norm(columns[k]), norm(rows[k])
        if not (spacing[k] > 0).all():
            raise BadInput(
                f"{image}: expected spacings above 0, found PixelSpacing {spacing[k, 0]:g}\\{spacing[k, 1]:g}. Get the file again."
            )
        if not (slant[k] < STRAIGHT and np.allclose(lengths, 1, atol=STRAIGHT)):
            raise BadInput(
                f"{image}: expected ImageOrientationPatient to be two unit vectors at right angles, found lengths {lengths[0]:.3f} and {lengths[1]:.3f}, product {slant[k]:.3f}. Convert the series with dcm2niix."
            )
    planes = np.concatenate([stated[name] for name in stated if name != POSITION], 1)
    apart = np.abs(planes - planes[0]).max(axis=1)
    if apart.max() > 1e-3:
        raise BadInput(
            f"{images[apart.argmax()]}: expected the direction, spacing and size of {images[0].name}, found others (a localiser?). Remove it from the folder."
        )
    normal = np.cross(columns[0], rows[0])
    height, width = (int(stated[name][0, 0]) for name in SIZE)
    return Planes(columns[0], rows[0], normal / norm(normal), spacing[0], (height, width), places)


def stack_of(headers: Headers, path: Path, numbered: bool = True) -> Stack:
    """Sort the slices along their normal and compute their grid.

    numbered: whether InstanceNumber counts slices alone, not frames too.
    """
    planes = planes_of(headers, path)
    order = np.argsort(planes.places @ planes.normal, kind="stable")
    places = planes.places[order]
    images = [list(headers)[k] for k in order]
    stacked = {image: headers[image] for image in images}
    step = _step(places, planes.normal, stacked, path)
    columns, rows = planes.columns * planes.spacing[1], planes.rows * planes.spacing[0]
    lps = from_matvec(np.stack([columns, rows, step], axis=1), places[0])
    grid = Grid((len(images), *planes.shape), check_affine(LPS_TO_RAS @ lps, path))
    said = [_said_of_step(float(norm(step)), stacked, path, numbered)]
    tilt = _median(headers, "GantryDetectorTilt")
    if tilt > TILT_DEGREES >= tilt_of(grid):
        said.append(
            f"It states that its gantry was tilted by {tilt:g} degrees, but its positions are those of upright slices, and are used: look whether the head is sheared."
        )
    modality = str(next(iter(headers.values())).get("Modality", "")).lower()
    return Stack(stacked, grid, modality, tuple(filter(None, said)))


def _step(places: np.ndarray, normal: np.ndarray, headers: Headers, path: Path) -> np.ndarray:
    """The vector from one slice to the next. Raises BadInput for doubled and missing slices."""
    images = list(headers)
    if len(images) == 1:
        return normal * (thickness_mm(headers[images[0]], images[0]) or 1.0)
    along = places @ normal
    steps = np.diff(along)
    usual = np.median(steps)
    if not is_even(places, normal):
        k = np.abs(steps - usual).argmax()
        raise BadInput(
            f"{path}: expected slices {usual:.2f} mm apart, found {steps[k]:.2f} mm between {images[k].name} and {images[k + 1].name} (at {along[k]:.2f} and {along[k + 1]:.2f} mm along their normal). Add the missing slices; if the scan changes its spacing there, convert it with dcm2niix, which also writes it with equal slices (*_Eq_1.nii.gz)."
        )
    step: np.ndarray = (places[-1] - places[0]) / (len(images) - 1)
    bent = norm(places - (places[0] + np.arange(len(images))[:, None] * step), axis=1)
    if bent.max() > BENT_MM:
        k = bent.argmax()
        raise BadInput(
            f"{path}: expected slices in a straight line, found {images[k].name} {bent[k]:.2f} mm beside it. Convert the series with dcm2niix."
        )
    return step


def is_even(places: np.ndarray, normal: np.ndarray) -> bool:
    """Whether places [N, 3], in order, follow each other by one step, but for the rounding of headers."""
    along = places @ normal
    steps = np.diff(along)
    usual = np.median(steps)
    if np.abs(steps - usual).max() <= max(0.05, 0.03 * usual):
        return True
    if np.abs(places / COARSE_MM - np.rint(places / COARSE_MM)).max() > 1e-6:
        return False
    # each place is wrong by half of the rounding at most, and a missing slice by half a step at least
    apart = np.abs(along - np.linspace(along[0], along[-1], len(along))).max()
    return bool(apart <= min(COARSE_MM * np.abs(normal).sum(), 0.4 * usual) + 1e-6)


def tilt_of(grid: Grid) -> float:
    """The angle in degrees by which the line of a grid's slices differs from their normal (gantry tilt)."""
    column_way, row_way, step = grid.affine[:3, :3].T
    normal = np.cross(column_way, row_way)
    along = abs(step @ normal) / (norm(step) * norm(normal))
    return float(np.degrees(np.arccos(min(1.0, along))))


def upright(grid: Grid) -> Grid:
    """The grid of the same planes and pixels whose slices are stacked along their normal, and which covers the grid.

    In each plane it is larger than the grid, by as much as its slices are shifted against each other.
    """
    depth, height, width = grid.shape
    directions = grid.affine[:3, :3]
    normal = np.cross(directions[:, 0], directions[:, 1])
    normal *= (directions[:, 2] @ normal) / (normal @ normal)
    in_plane, *_ = np.linalg.lstsq(directions[:, :2], directions[:, 2] - normal, rcond=None)
    shift = in_plane * (depth - 1)  # of the last slice against the first, in pixels (x, y)
    before = np.ceil(np.maximum(-shift, 0) - 1e-6)
    after = np.ceil(np.maximum(shift, 0) - 1e-6)
    affine = grid.affine.copy()
    affine[:3, 2] = normal
    affine[:3, 3] -= directions[:, :2] @ before
    wider, higher = (int(n) for n in before + after)
    return Grid((depth, height + higher, width + wider), affine)


def _said_of_step(step_mm: float, headers: Headers, path: Path, numbered: bool) -> str:
    """A sentence where slices may be missing at regular steps, else ''; headers: in order.

    Raises BadInput where headers and positions differ as they do when every second file is missing.
    """
    if len(headers) == 1:
        ((image, header),) = headers.items()
        known = thickness_mm(header, image)
        return "" if known else "The slice states no thickness: 1 mm is assumed. Check it."
    apart = _numbers_apart(headers) if numbered else 1
    spacing, thickness = (_median(headers, name) for name in THICKNESS)
    # which some scanners write as the spacing
    is_gap = spacing < (1 - ROUNDING) * thickness and _is_near(thickness + spacing, step_mm)
    times = round(step_mm / spacing) if spacing else 1
    if times > 1 and _is_near(times * spacing, step_mm) and (not is_gap or apart == times):
        raise BadInput(
            f"{path}: expected slices {spacing:g} mm apart, as their SpacingBetweenSlices states, found every step {step_mm:.2f} mm: only one of {times} is here. {COMPLETE}"
        )
    if spacing and (is_gap or _is_near(spacing, step_mm)):
        return ""
    if spacing > step_mm:
        return f"Slices are {step_mm:.2f} mm apart by their positions, which are used, and {spacing:g} mm by SpacingBetweenSlices. Check which is right."
    is_far = 0 < FAR_APART * thickness <= step_mm
    # with an overlap or gap of half a slice at most
    if is_far and apart > 1 and 0.5 <= step_mm / (apart * thickness) <= 1.5:
        raise BadInput(
            f"{path}: expected slices {thickness:g} mm thick to follow each other, found them {step_mm:.2f} mm apart and numbered by {apart} (InstanceNumber): only one of {apart} is here. {COMPLETE}"
        )
    if is_far or apart > 1:
        return f"Slices {thickness:g} mm thick are {step_mm:.2f} mm apart, and InstanceNumber counts by {apart}; it is assumed that none is missing. Look whether some are."
    return ""


def _is_near(length_mm: float, step_mm: float) -> bool:
    return abs(length_mm - step_mm) < ROUNDING * step_mm


def thickness_mm(header: Any, image: Image) -> float:
    """The thickness in mm that a header states; 0 where it states none, BadInput where it is no length."""
    for name in THICKNESS:
        for thickness in numbers_of(header, name, image):
            if thickness < 0:
                raise BadInput(
                    f"{image}: expected a slice thickness above 0, found {thickness:g} ({name}). Get the file again."
                )
            if thickness:
                return thickness
    return 0.0


def _median(headers: Headers, name: str) -> float:
    """The median of a number that headers state, without its sign; 0 where none does."""
    stated = [abs(n) for image, header in headers.items() for n in numbers_of(header, name, image)]
    return float(np.median([n for n in stated if n] or [0.0]))


def _numbers_apart(headers: Headers) -> int:
    """By how much InstanceNumber rises or falls with every slice; 1 where it has no rule, or slices are too few."""
    numbers = [number_of(header, "InstanceNumber") for header in headers.values()]
    if len(numbers) < 3 or None in numbers:
        return 1
    steps = np.diff(np.array(numbers, np.float64))
    return int(abs(steps[0])) if steps[0] and (steps == steps[0]).all() else 1
