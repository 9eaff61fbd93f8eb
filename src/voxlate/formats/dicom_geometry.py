"""DICOM: the positions of a series' slices in the patient, and the grid of the series."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.formats.dicom_pixels import Image
from voxlate.formats.dicom_values import number_of, text_of
from voxlate.formats.format import errors_as
from voxlate.images.grid import LPS_TO_RAS, Grid, check_affine
from voxlate.system.errors import BadInput

TILT_DEGREES = 0.5  # positions are rounded in headers; a real gantry tilt is degrees
BENT_MM = 0.3  # of a slice beside the line of the others: less than a pixel
STRAIGHT = 1e-3  # directions are unit vectors at right angles to so much
ROUNDING = 0.05  # of a length: headers round spacings (0.6 for 0.625 mm)
LOOK = "Look whether some are missing."
FAR_APART = 1.9  # times the thickness: gaps of whole slices are rare, of up to a half usual


@dataclass(frozen=True)
class Stack:
    """The headers of one series in the order of its slices, its grid, and the assumptions behind it."""

    headers: dict[Image, Any]
    grid: Grid
    modality: str
    guesses: tuple[str, ...]


def planes_of(headers: dict[Image, Any], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Direction, spacing and size of each image, the same for all, and its position: [N, 10] and [N, 3]."""
    files = list(headers)
    with errors_as(
        f"{path}: expected sound geometry in every header, found a bad value",
        "Get the series again.",
    ):
        planes = np.array([_plane(header) for header in headers.values()])
        places = np.array(
            [header.ImagePositionPatient for header in headers.values()], dtype=np.float64
        )
        planes = planes.astype(np.float64)
    rows, columns = planes[:, :3], planes[:, 3:6]
    slant = np.abs((rows * columns).sum(1))
    for k, file in enumerate(files):
        lengths = np.linalg.norm(rows[k]), np.linalg.norm(columns[k])
        if not np.isfinite(places[k]).all() or not (planes[k, 6:8] > 0).all():
            found = f"PixelSpacing {planes[k, 6]:g}\\{planes[k, 7]:g}"
            raise BadInput(
                f"{file}: expected a place and spacings above 0, found {found}. Get the file again."
            )
        if not (slant[k] < STRAIGHT and np.allclose(lengths, 1, atol=STRAIGHT)):
            raise BadInput(
                f"{file}: expected ImageOrientationPatient to be two unit vectors at right angles, found lengths {lengths[0]:.3f} and {lengths[1]:.3f}, product {slant[k]:.3f}. Convert the series with dcm2niix."
            )
    if np.abs(planes - planes[0]).max() > 1e-3:
        odd = files[int(np.abs(planes - planes[0]).max(axis=1).argmax())]
        raise BadInput(
            f"{odd}: expected the direction, spacing and size of {files[0].name}, found others (a localiser?). Remove it from the folder."
        )
    return planes, places


def _plane(header: Any) -> list[Any]:
    return [*header.ImageOrientationPatient, *header.PixelSpacing, header.Rows, header.Columns]


def stack_of(headers: dict[Image, Any], path: Path, numbered: bool = True) -> Stack:
    """Sort the slices along their normal and compute their grid.

    numbered: whether InstanceNumber counts slices alone, not frames too.
    """
    files = list(headers)
    first = headers[files[0]]
    planes, places = planes_of(headers, path)
    column_way, row_way = (
        planes[0, :3],
        planes[0, 3:6],
    )  # the directions in which columns and rows count up
    row_spacing, column_spacing = planes[0, 6:8]
    normal = np.cross(column_way, row_way)
    normal /= np.linalg.norm(normal)
    order = np.argsort(places @ normal, kind="stable")
    step = _step(places[order], normal, [files[k] for k in order], first)
    lps = np.eye(4)
    lps[:3, 0] = column_way * column_spacing
    lps[:3, 1] = row_way * row_spacing
    lps[:3, 2] = step
    lps[:3, 3] = places[order[0]]
    shape = (len(files), int(first.Rows), int(first.Columns))
    grid = Grid(shape, check_affine(LPS_TO_RAS @ lps, path))
    guesses = _guesses_of_step(
        float(np.linalg.norm(step)),
        [headers[files[k]] for k in order],
        path,
        numbered,
    )
    return Stack(
        {files[k]: headers[files[k]] for k in order},
        grid,
        str(first.get("Modality", "")).lower(),
        guesses,
    )


def _step(places: np.ndarray, normal: np.ndarray, files: list[Image], header: Any) -> np.ndarray:
    """The vector from one slice to the next. Raises BadInput for doubled and missing slices."""
    folder = files[0].file.parent
    if len(files) == 1:
        return normal * (_thickness(header, files[0]) or 1.0)
    steps = np.diff(places @ normal)
    usual = float(np.median(steps))
    if steps.min() < 1e-3:
        k = int(steps.argmin())
        raise BadInput(
            f"{folder}: expected one image at each place, found {files[k].name} and {files[k + 1].name} at one (several echoes or times?). Put one of them in its own folder, or name a time by #frame=1 or #peak."
        )
    if np.abs(steps - usual).max() > max(0.05, 0.03 * usual):
        k = int(np.abs(steps - usual).argmax())
        before, after = (places @ normal)[k : k + 2]
        raise BadInput(
            f"{folder}: expected slices {usual:.2f} mm apart, found {steps[k]:.2f} mm between {files[k].name} and {files[k + 1].name} (at {before:.2f} and {after:.2f} mm along their normal). Add the missing slices; if the scan changes its spacing there, convert it with dcm2niix, which also writes it with equal slices (*_Eq_1.nii.gz)."
        )
    step: np.ndarray = (places[-1] - places[0]) / (len(files) - 1)
    straight = places[0] + np.arange(len(files))[:, None] * step
    bent = np.linalg.norm(places - straight, axis=1)
    if bent.max() > BENT_MM:
        k = int(bent.argmax())
        raise BadInput(
            f"{folder}: expected slices in a straight line, found {files[k].name} {bent[k]:.2f} mm beside it. Convert the series with dcm2niix."
        )
    return step


def tilt_of(grid: Grid) -> float:
    """The angle in degrees by which the line of a grid's slices differs from their normal (gantry tilt)."""
    column_way, row_way, step = grid.affine[:3, :3].T
    normal = np.cross(column_way, row_way)
    along = abs(float(step @ normal)) / float(np.linalg.norm(step) * np.linalg.norm(normal))
    return float(np.degrees(np.arccos(min(1.0, along))))


def upright(grid: Grid) -> Grid:
    """The grid of the same planes and pixels whose slices are stacked along their normal, and which covers the grid.

    In each plane it is larger than the grid, by as much as its slices are shifted against each other.
    """
    depth, height, width = grid.shape
    directions = grid.affine[:3, :3]
    normal = np.cross(directions[:, 0], directions[:, 1])
    normal *= float(directions[:, 2] @ normal) / float(normal @ normal)
    in_plane, *_ = np.linalg.lstsq(directions[:, :2], directions[:, 2] - normal, rcond=None)
    shift = in_plane * (depth - 1)  # of the last slice against the first, in pixels (x, y)
    before = np.ceil(np.maximum(-shift, 0) - 1e-6)
    after = np.ceil(np.maximum(shift, 0) - 1e-6)
    affine = grid.affine.copy()
    affine[:3, 2] = normal
    affine[:3, 3] -= directions[:, :2] @ before
    wider, higher = (int(n) for n in before + after)
    return Grid((depth, height + higher, width + wider), affine)


def _guesses_of_step(
    step_mm: float,
    headers: list[Any],
    path: Path,
    numbered: bool,
) -> tuple[str, ...]:
    """A sentence where slices may be missing at regular steps, else none; headers: in order.

    Raises BadInput where headers and positions differ as they do when every second file is missing.
    """
    if len(headers) == 1:
        if _thickness(headers[0], path):
            return ()
        return (f"The slice states no thickness: 1 mm is assumed. {LOOK}",)
    spacing = _stated_mm(headers, "SpacingBetweenSlices")
    thickness = _stated_mm(headers, "SliceThickness")
    counted = _counted_by(headers) if numbered else 1
    advice = "Copy the missing ones, or, if none are, convert the series with dcm2niix."
    if spacing:
        times = round(step_mm / spacing)
        multiple = times > 1 and abs(step_mm / spacing - times) < ROUNDING * times
        # some scanners write the gap between slices instead
        gap = (
            spacing < (1 - ROUNDING) * thickness
            and abs(thickness + spacing - step_mm) < ROUNDING * step_mm
        )
        if multiple and (not gap or counted == times):
            raise BadInput(
                f"{path}: expected slices {spacing:g} mm apart, as their SpacingBetweenSlices states, found every step {step_mm:.2f} mm: only one of {times} is here. {advice}"
            )
        if gap or abs(spacing - step_mm) < ROUNDING * step_mm:
            return ()
    far = 0 < FAR_APART * thickness <= step_mm
    if (
        far and counted > 1 and 0.5 <= step_mm / (counted * thickness) <= 1.5
    ):  # overlap or gap of a half
        raise BadInput(
            f"{path}: expected slices {thickness:g} mm thick to follow each other, found them {step_mm:.2f} mm apart and numbered by {counted} (InstanceNumber): only one of {counted} is here. {advice}"
        )
    if far:
        return (
            f"Slices {thickness:g} mm thick are {step_mm:.2f} mm apart; it is assumed that none is missing. {LOOK}",
        )
    if counted > 1:
        return (
            f"InstanceNumber counts by {counted} from slice to slice; it is assumed that none is missing. {LOOK}",
        )
    return ()


def _thickness(header: Any, file: object) -> float | None:
    """The thickness in mm that a header states; None where it states none, BadInput where it is no length."""
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        text = text_of(header, name, file)
        if text and (found := number_of(header, name)) != 0:
            if found is None or found < 0:
                raise BadInput(
                    f"{file}: expected a slice thickness above 0, found {text} ({name}). Get the file again."
                )
            return found
    return None


def _stated_mm(headers: list[Any], name: str) -> float:
    """The median of a length that headers state, without its sign; 0 where none does."""
    values = [number_of(header, name) for header in headers]
    stated = [abs(value) for value in values if value]
    return float(np.median(stated)) if stated else 0.0


def _counted_by(headers: list[Any]) -> int:
    """By how much InstanceNumber rises or falls with every slice; 1 where it has no rule, or slices are too few."""
    numbers = [number_of(header, "InstanceNumber") for header in headers]
    known = np.array([number for number in numbers if number is not None])
    steps = np.diff(known)
    if len(known) < max(3, len(headers)):
        return 1
    if steps[0] == 0 or (steps != steps[0]).any():
        return 1
    return int(abs(steps[0]))
