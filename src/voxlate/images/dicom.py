"""One DICOM series as a volume, its slices ordered by their place in the patient, and as frames, ordered in time."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.errors import BadInput
from voxlate.images.formats import LPS_TO_RAS, UNREADABLE, Moving, Stored, reason
from voxlate.images.grid import Grid, check_affine, same_grid
from voxlate.images.series import GEOMETRY, headers_of, listed, load_pydicom, series_among
from voxlate.images.spool import release, zeros

TILT_DEGREES = 0.5  # positions are rounded in headers; a real gantry tilt is degrees
DAY_S = 86400.0
SAME_PLACE_MM = 0.1  # positions of a table that goes to and fro differ by less, slices by more


@dataclass(frozen=True)
class Series:
    """The files of one series in the order of their slices, and the grid they make."""

    files: tuple[Path, ...]
    grid: Grid
    modality: str


def read_series_grid(path: Path) -> Grid:
    """The grid of a DICOM file, or of the one series that a folder holds or 'FOLDER#key' names, from the headers."""
    return _find_series(path).grid


def read_series(path: Path) -> Stored:
    """The one series in a folder, the one that 'FOLDER#key' names, or one file; rescaled slice by slice.

    Raises BadInput for several series, missing slices, gantry tilt, colour, several frames and damaged files.
    """
    return _read_stack(_find_series(path))


def _read_stack(series: Series) -> Stored:
    data = zeros(series.grid.shape)
    for plane, file in zip(data, series.files, strict=True):
        plane[:] = _pixels(file, plane.shape)
        release(data)
    return Stored(data, series.grid.affine, modality=series.modality)


def _find_series(path: Path) -> Series:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values outside the standard; what matters is checked here
        return _stack(_one_series(path), path)


def series_frames(path: Path) -> Moving:
    """The frames of a series that shows its slices several times: the k-th image of each place makes frame k.

    Raises BadInput as `read_series` does, where places have unequal numbers of images, and where nothing orders them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        headers = _one_series(path)
        places, moments = _by_place(headers, path)
        rows = [{file: headers[file] for file in row} for row in zip(*places, strict=True)]
        frames = [_stack(row, path) for row in rows]
    for number, frame in enumerate(frames, start=1):
        if not same_grid(frame.grid, frames[0].grid, tolerance_mm=0.5):  # of a moving table
            raise BadInput(
                f"{path}: expected all frames on one grid ({frames[0].grid}), found frame {number} elsewhere."
            )
    times = None if moments is None else np.array([np.mean([moments[file] for file in row]) for row in rows])
    return Moving(
        frames[0].grid,
        len(frames),
        None if times is None else times - times[0],
        lambda: (_pixels(file, frame.grid.shape[1:]) for frame in frames for file in frame.files),
        lambda k: _read_stack(frames[k]),
    )


def _by_place(headers: dict[Path, Any], path: Path) -> tuple[list[list[Path]], dict[Path, float] | None]:
    """The files at each place in their order in time, and their seconds where the headers tell them."""
    files = list(headers)
    planes, positions = _geometry(headers, path)
    along = positions @ np.cross(planes[0, :3], planes[0, 3:6])
    order = np.argsort(along, kind="stable")
    breaks = np.flatnonzero(np.diff(along[order]) > SAME_PLACE_MM) + 1
    places = [[files[k] for k in group] for group in np.split(order, breaks)]
    if len({len(place) for place in places}) > 1:
        short, full = min(places, key=len), max(places, key=len)
        raise BadInput(
            f"{path}: expected as many images at every place, found {len(short)} at that of {short[0].name} and "
            f"{len(full)} at that of {full[0].name}. Add the missing ones, or convert the series with dcm2niix."
        )
    for name, value in ORDERS:
        found = {file: value(header.get(name)) for file, header in headers.items()}
        known = {file: moment for file, moment in found.items() if moment is not None}
        if name.endswith("Time") and known and max(known.values()) - min(known.values()) > DAY_S / 2:  # past midnight
            known = {file: moment + DAY_S * (moment < DAY_S / 2) for file, moment in known.items()}
        if len(known) == len(files) and all(len({known[file] for file in place}) == len(place) for place in places):
            return [sorted(place, key=known.__getitem__) for place in places], known if name.endswith("Time") else None
    raise BadInput(
        f"{path}: expected an acquisition time or number that tells the images at one place apart, found none. "
        "Convert the series with dcm2niix."
    )


def _seconds(value: Any) -> float | None:
    """Seconds of the day of a DICOM time HHMMSS.FFFFFF; None where it is none."""
    digits = str(value or "")
    try:
        return int(digits[:2]) * 3600.0 + int(digits[2:4]) * 60.0 + float(digits[4:])
    except ValueError:
        return None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


ORDERS: tuple[tuple[str, Callable[[Any], float | None]], ...] = (
    ("AcquisitionTime", _seconds),
    ("ContentTime", _seconds),
    ("TemporalPositionIdentifier", _number),
    ("AcquisitionNumber", _number),
    ("InstanceNumber", _number),
)


def _one_series(path: Path) -> dict[Path, Any]:
    """The checked headers of the one series at a path."""
    headers = headers_of(path)
    if not headers:
        raise BadInput(f"{path}: expected a DICOM series, found no DICOM image here. Name the folder of its files.")
    _check_one_series(headers, path)
    for file, header in headers.items():
        _check_image(header, file)
    return headers


def _check_one_series(headers: dict[Path, Any], path: Path) -> None:
    found = series_among(headers.items())
    if len(found) > 1:
        raise BadInput(
            f"{path}: expected one DICOM series, found {listed(found)}. Name one of them by such a path, or put it in "
            "its own folder."
        )


def _check_image(header: Any, file: Path) -> None:
    try:
        frames, samples = int(header.get("NumberOfFrames") or 1), int(header.get("SamplesPerPixel") or 1)
        missing = [key for key in GEOMETRY if header.get(key) is None]
    except UNREADABLE as error:
        raise BadInput(f"{file}: expected a sound DICOM header, found a bad value in it ({reason(error)}).") from error
    if samples != 1:
        raise BadInput(f"{file}: expected grey values, found a colour image ({samples} samples a pixel).")
    if frames != 1:
        raise BadInput(f"{file}: expected one slice a file, found {frames} frames. Convert it with dcm2niix to NIfTI.")
    if missing:
        raise BadInput(f"{file}: expected the image's place in the patient, found no {missing[0]}. Use NIfTI or PNG.")


def _geometry(headers: dict[Path, Any], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Direction, spacing and size of each image, all alike, and its position: [N, 10] and [N, 3]."""
    files = list(headers)
    try:
        planes = np.array([[*h.ImageOrientationPatient, *h.PixelSpacing, h.Rows, h.Columns] for h in headers.values()])
        places = np.array([h.ImagePositionPatient for h in headers.values()], dtype=np.float64)
        planes = planes.astype(np.float64)
    except UNREADABLE as error:
        raise BadInput(
            f"{path}: expected sound geometry in every header, found a bad value ({reason(error)})."
        ) from error
    if np.abs(planes - planes[0]).max() > 1e-3:
        odd = files[int(np.abs(planes - planes[0]).max(axis=1).argmax())]
        raise BadInput(
            f"{odd}: expected the direction, spacing and size of {files[0].name}, found others (a localiser?). "
            "Remove it from the folder."
        )
    return planes, places


def _stack(headers: dict[Path, Any], path: Path) -> Series:
    """Sort the slices along their normal and lay the grid through them."""
    files = list(headers)
    first = headers[files[0]]
    planes, places = _geometry(headers, path)
    column_way, row_way = planes[0, :3], planes[0, 3:6]  # the directions in which columns and rows count up
    row_spacing, column_spacing = planes[0, 6:8]
    normal = np.cross(column_way, row_way)
    normal /= np.linalg.norm(normal) or 1.0
    order = np.argsort(places @ normal, kind="stable")
    step = _step(places[order], normal, [files[k] for k in order], first)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = column_way * column_spacing, row_way * row_spacing, step
    lps[:3, 3] = places[order[0]]
    shape = (len(files), int(first.Rows), int(first.Columns))
    grid = Grid(shape, check_affine(LPS_TO_RAS @ lps, path))
    return Series(tuple(files[k] for k in order), grid, str(first.get("Modality", "")).lower())


def _step(places: np.ndarray, normal: np.ndarray, files: list[Path], header: Any) -> np.ndarray:
    """The vector from one slice to the next. Raises BadInput for doubled or missing slices and for gantry tilt."""
    folder = files[0].parent
    if len(files) == 1:
        thickness = header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 1.0
        return normal * abs(float(thickness))
    steps = np.diff(places @ normal)
    usual = float(np.median(steps))
    if steps.min() < 1e-3:
        k = int(steps.argmin())
        raise BadInput(
            f"{folder}: expected one image at each place, found {files[k].name} and {files[k + 1].name} at one "
            "(several echoes or times?). Put one of them in its own folder, or name a time by #frame=1 or #peak."
        )
    if np.abs(steps - usual).max() > max(0.05, 0.03 * usual):
        k = int(np.abs(steps - usual).argmax())
        raise BadInput(
            f"{folder}: expected slices {usual:.2f} mm apart, found {steps[k]:.2f} mm between {files[k].name} and "
            f"{files[k + 1].name}. Add the missing slices, or convert the series with dcm2niix."
        )
    step: np.ndarray = (places[-1] - places[0]) / (len(files) - 1)
    tilt = np.degrees(np.arccos(min(1.0, float(step @ normal) / float(np.linalg.norm(step)))))
    if tilt > TILT_DEGREES:
        raise BadInput(
            f"{folder}: expected slices stacked along their normal, found them sheared by {tilt:.1f} degrees "
            "(gantry tilt). Convert the series with dcm2niix, which straightens it."
        )
    return step


def _pixels(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """One slice with its rescale slope and intercept applied."""
    pydicom = load_pydicom(file)
    advice = "Get the file again."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = pydicom.dcmread(file)
            if image.file_meta.TransferSyntaxUID.is_compressed:
                advice = "Install its decoder (pip install 'pylibjpeg[all]') or convert the series with dcm2niix."
            slope, intercept = float(image.get("RescaleSlope", 1)), float(image.get("RescaleIntercept", 0))
            pixels = image.pixel_array
    except UNREADABLE as error:
        message = f"{file}: expected whole pixel data, found none that can be read ({reason(error)}). {advice}"
        raise BadInput(message) from error
    if pixels.shape != shape:
        raise BadInput(
            f"{file}: expected {shape[1]}×{shape[0]} pixels, found shape {pixels.shape}. Get the file again."
        )
    return pixels * slope + intercept
