"""NIfTI and FreeSurfer files, read frame by frame and written so that every viewer shows them at the same place."""

import gzip
import logging
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from math import inf, prod
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.files import HIGH, LOW, STD, UNCALIBRATED
from voxlate.base.messages import Grade, Message, graded, message
from voxlate.scans.formats.dynamic import is_frame, read_frame
from voxlate.scans.formats.format import (
    GZIP,
    DynamicScan,
    Format,
    check_bytes,
    check_numbers,
    check_volume,
    errors_as,
    to_float32,
)
from voxlate.scans.images.grid import Grid, Volume, check_affine, same_grid

logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what it says is said here
SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}  # xyzt_units; an unknown unit is not guessed
PACKED = (".gz", ".mgz")
READ_BYTES = 1 << 20
START_BYTES = 1 << 12  # in which the description is
DESCRIPTION = "voxlate; research use only"  # in the header, which has room for 80 characters
SYNTHETIC = "; a synthetic image"
SYNTHETIC_SCAN = f"{SYNTHETIC}, see provenance.json"
MAP_DESCRIPTIONS = {  # in the header of a map's file, by the end of its name
    LOW: "lower interval end",
    HIGH: "upper interval end",
    STD: "spread of samples",
    UNCALIBRATED: "spread of samples",
}
AGAIN = "Copy or download it again."

ALIGNED = 2  # code of an affine that leads to the space of another file
APART_MM = 0.1  # of a corner by two affines: float32 headers differ by less

NiftiImage = nib.nifti1.Nifti1Image


def description_of(file: str, grades: Collection[Grade] = ()) -> str:
    """The description in the header of a synthesised file of this name, of at most 79 characters; grades: of its messages."""
    name = file.partition(".")[0]
    texts = (f"{SYNTHETIC}: {text}" for end, text in MAP_DESCRIPTIONS.items() if name.endswith(end))
    plain = SYNTHETIC if "do not trust" in grades else SYNTHETIC_SCAN  # the grade needs its room
    return graded(next(texts, plain), grades)


def _load(path: Path) -> Any:
    """The nibabel image behind a path, of which only the header has been read and checked."""
    is_packed = path.suffix.lower() in PACKED
    with path.open("rb") as file:
        if (file.read(len(GZIP)) == GZIP) != is_packed:
            raise BadInput(
                f"{path}: expected compressed data where the name ends with .gz or .mgz, and others elsewhere, found the opposite. Rename it, or decompress it."
            )
    sentence = f"{path}: expected a NIfTI or FreeSurfer volume, found none"
    with errors_as(sentence, AGAIN), warnings.catch_warnings(action="ignore"):
        image = nib.load(path)
        start = read_start(path)
    if not isinstance(image, NiftiImage | nib.freesurfer.mghformat.MGHImage):
        raise BadInput(
            f"{path}: expected a NIfTI or FreeSurfer volume, found {type(image).__name__}, which does not state which side is left. Convert it to NIfTI."
        )
    if isinstance(image, NiftiImage):
        # any negative number mirrors the slices, as the standard's own reader takes it; nibabel mends them
        kind = type(image.header)
        as_written = kind(start[: kind.template_dtype.itemsize], check=False)
        if as_written["pixdim"][0] < 0:
            image.header["pixdim"][0] = -1
    unit, _ = _units(image)
    if unit in ("meter", "micron"):
        raise BadInput(
            f"{path}: expected sizes in millimetres, found {unit}s (xyzt_units). Write the header again in millimetres."
        )
    return image


def grid_of(image: Any, path: Path | str) -> tuple[Grid, tuple[Message, ...]]:
    """The grid of a loaded header, and a message where it states no orientation, or two.

    The affine is the sform where its code is set, else the qform, else the header's sizes. Raises BadInput for colour,
    complex voxels and bad affines.
    """
    sizes = tuple(int(n) for n in image.shape)
    if len(sizes) < 2 or min(sizes) < 1:
        raise BadInput(
            f"{path}: expected a volume, found an image of size {sizes}. Check the file."
        )
    check_numbers(image.get_data_dtype(), path)
    width, height, depth = (*sizes, 1)[:3]
    shape = depth, height, width
    if not isinstance(image, NiftiImage):
        return Grid(shape, check_affine(image.affine, path)), ()
    header = image.header
    q, s = (int(header[key]) for key in ("qform_code", "sform_code"))
    if not q and not s:
        guess = "its header states no orientation (the codes of qform and sform are 0), so rows were taken to run from right to left, columns to the front and slices to the top. Check left and right."
        affine = check_affine(header.get_base_affine(), path)
        return Grid(shape, affine, (0, 0)), (message("guess", guess),)
    of_q, of_s = _stated(header.get_qform), _stated(header.get_sform)
    if not of_s[:3].any() and q:  # a set sform may be all zero
        s = 0
    affine = check_affine(of_s if s else of_q, path)
    if not (q and s) or same_grid(Grid(shape, of_q), Grid(shape, of_s), APART_MM):
        return Grid(shape, affine, (q, s)), ()
    turn = of_q[:3, :3].T @ of_s[:3, :3]
    # an axis points the other way
    is_turned = np.linalg.det(turn) < 0 or (turn.diagonal() < 0).any()
    grade: Grade = "caution" if is_turned else "note"
    apart = "on the sides, so that left and right may be exchanged" if is_turned else "on places"
    guess = f"its qform and sform disagree {apart}; the sform was taken. Check its orientation, and write one of them into both."
    return Grid(shape, affine, (0, s)), (message("guess", guess, grade=grade),)


def _stated(read: Callable[[], np.ndarray]) -> np.ndarray:
    """An affine of a header; zeros for a qform that is no rotation."""
    try:
        return read()
    except (ValueError, nib.spatialimages.HeaderDataError):
        return np.zeros((4, 4))


def _units(image: Any) -> tuple[str, str]:
    """The units of space and time in a header; "unknown" where it states none that the standard defines."""
    try:
        return image.header.get_xyzt_units()
    except (AttributeError, KeyError):
        return "unknown", "unknown"


def read_nifti(path: Path, part: str) -> Volume:
    """The volume in a .nii, .nii.gz, .mgh or .mgz file, or the frame that the part of its path names.

    Raises BadInput for damaged files, colour, complex voxels and singular affines.
    """
    return read_frame(path, part, open_nifti)


def open_nifti(path: Path) -> DynamicScan:
    """The frames of a file, read lazily; a 3-D file has one."""
    image = _load(path)
    grid, guesses = grid_of(image, path)
    check_volume(grid.shape, path)
    count = prod(image.shape[3:])

    def read(numbers: Iterable[int]) -> Iterator[Volume]:
        """Frames that follow each other, counted from 0."""
        for voxels in _frames(image, grid, path, [*numbers]):
            data = to_float32(voxels)[None]
            yield Volume(data, grid.affine, "", "", guesses=guesses, codes=grid.codes)

    return DynamicScan(grid, count, _times(image, count), read)


def _times(image: Any, count: int) -> np.ndarray | None:
    """Seconds of the frames, where the header states the unit and the step of the fourth axis."""
    if not isinstance(image, NiftiImage) or len(image.shape) < 4 or image.shape[3] != count:
        return None
    step = float(image.header["pixdim"][4]) * SECONDS.get(_units(image)[1], 0.0)
    return np.arange(count) * step if 0 < step < inf else None


def _frames(image: Any, grid: Grid, path: Path, numbers: list[int]) -> Iterator[np.ndarray]:
    """The voxels [D, H, W] of frames, scaled: x grows fastest in these files, then y, z and time."""
    stored = image.dataobj
    size = prod(grid.shape) * stored.dtype.itemsize
    least = image.header.single_vox_offset if isinstance(image, NiftiImage) else 0
    slope, intercept = np.float64(stored.slope), float(stored.inter)
    scaled = (slope, intercept) != (1.0, 0.0)
    with (
        errors_as(
            f"{path}: expected voxels for {grid}, found them damaged or cut short",
            AGAIN,
        ),
        open_packed(path) as file,
    ):
        file.seek(max(int(stored.offset), least) + numbers[0] * size)
        for _ in numbers:
            raw = file.read(size)
            frame = np.frombuffer(raw, stored.dtype).reshape(grid.shape)
            yield frame * slope + intercept if scaled else frame
        # to the trailer, which has a checksum; a small file may expand without end
        beyond = 0
        while isinstance(file, gzip.GzipFile) and (block := file.read(READ_BYTES)):
            beyond += len(block)
            check_bytes(beyond, path, "data behind its voxels")


def open_packed(path: Path) -> BinaryIO | gzip.GzipFile:
    """A file, decompressed by a reader that compares checksums."""
    return gzip.open(path) if path.suffix.lower() in PACKED else path.open("rb")


def write_nifti(path: Path, volume: Volume, description: str) -> None:
    """Write a volume with the codes of its qform and sform, in millimetres; int16 where that loses nothing, else float32.

    description: is appended to the header's. The bytes depend on nothing but voxels, affine and description: the file
    holds no time and no name.
    """
    data = volume.data[0]
    image = nib.nifti1.Nifti1Image(data.T.astype(smallest_type(data), copy=False), volume.affine)
    image.header.set_xyzt_units("mm")
    _place(image, volume)
    image.header["descrip"] = describe(description)
    image.header.set_slope_inter(1.0, 0.0)
    with path.open("wb") as plain:
        if path.suffix != ".gz":
            image.to_stream(plain)
            return
        # without the name of the file and the time
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=plain, mtime=0) as packed:
            image.to_stream(packed)


def _place(image: nib.nifti1.Nifti1Image, volume: Volume) -> None:
    """Set the affine with the volume's codes; a grid that a header without codes cannot state is that of another file."""
    q, s = volume.codes
    for code_q, code_s in ((q, s), (ALIGNED, ALIGNED)):
        image.set_sform(volume.affine, code=code_s)
        image.set_qform(volume.affine, code=code_q)
        if same_grid(Grid(volume.grid.shape, image.header.get_best_affine()), volume.grid):
            return


def smallest_type(data: np.ndarray) -> type[np.int16] | type[np.float32]:
    """int16 where it loses nothing of the voxels, else float32."""
    limits = np.iinfo(np.int16)
    if data.min() < limits.min or data.max() > limits.max:
        return np.float32
    return np.int16 if (data == np.rint(data)).all() else np.float32


def describe(description: str) -> bytes:
    """The description that a written file states, of at most 79 bytes."""
    return f"{DESCRIPTION}{description}".encode()[:79]


def read_start(path: Path) -> bytes:
    """The first bytes of a file, decompressed, in which its description is."""
    with open_packed(path) as file:
        return file.read(START_BYTES)


NIFTI = Format(
    read_nifti,
    endings=(".nii.gz", ".nii", ".mgz", ".mgh"),
    is_part=is_frame,
    written_endings=(".nii", ".nii.gz"),
    write=write_nifti,
)
