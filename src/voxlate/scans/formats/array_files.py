"""Slices and stacks in array files: NumPy's .npy and .npz, HDF5 and MATLAB. None of them states spacing or orientation."""

import contextlib
import io
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput, first_of
from voxlate.base.optional import optional_package
from voxlate.scans.formats.format import (
    Format,
    KeptByFile,
    Stored,
    check_bytes,
    check_numbers,
    check_volume,
    errors_as,
    to_float32,
)
from voxlate.scans.images.grid import Spacing, directions

DATASET = "data"  # is read where a file has several arrays and the path names none
MOST_BYTES = 1 << 28  # of slices that are kept for the next one
MATLAB_HDF5 = b"MATLAB 7.3"
# after '#': what is read of an array, and what the file does not state ('mCTA/p1.npy#channel=0,axes=PL,mm=0.625x0.625x5')
SETTINGS = {
    "channel": r"\d{1,9}",
    "slice": r"\d{1,9}",
    "slices": "[012]",
    "array": r"[\w./-]+",
    "axes": "[RL][AP]|[AP][RL]",
    "mm": r"[\d.]+(?:x[\d.]+x[\d.]+)?",
    "unit": r"[\w./]+",
}
SETTING = "|".join(f"{key}=(?:{value})" for key, value in SETTINGS.items())
PART = re.compile(f"(?:{SETTING})(?:,(?:{SETTING}))*")
AGAIN = "Get the file again."
# the axis along which the slices of a stack follow each other, where the path states none
SLICES_AXIS = {".h5": 0, ".hdf5": 0, ".mat": 2}
Arrays = Mapping[str, Any]  # each with a shape and a dtype; is read where it is indexed


@dataclass(frozen=True)
class Part:
    """The text after '#' in a path: the array, slice or channel that it names, and its geometry and unit.

    slices: the axis along which the slices of a stack follow each other; axes: the directions in which rows and columns
    grow; spacing_mm: along these and between slices.
    """

    channel: int | None = None
    slice: int | None = None
    slices: int | None = None
    array: str = ""
    axes: str = "PL"
    spacing_mm: Spacing | None = None
    unit: str = ""

    @property
    def affine(self) -> np.ndarray:
        """4x4, (column, row, slice) to RAS millimetres; 1 mm where the path states no spacing."""
        rows, columns, between = self.spacing_mm or (1.0, 1.0, 1.0)
        return directions(f"{self.axes[1]}{self.axes[0]}S") @ np.diag([columns, rows, between, 1.0])


def is_part(text: str) -> bool:
    """Whether a text may stand after '#' in the path of an array file."""
    return PART.fullmatch(text) is not None


def read_array(path: Path, text: str = "") -> Stored:
    """A slice or a stack of slices in an array file; text: the settings after '#' in its path, each of which may be left out.

    array=NAME is an array of a file of several; channel=0 a channel of [H, W, C]; slice=12 a slice of a stack, which is
    read alone; slices=0 the axis along which slices follow each other, from bottom to top (default: the first in HDF5,
    the last in MATLAB files). All count from 0. axes=PL: the directions in which rows and columns follow each other
    (default); mm=0.625, or mm=0.6x0.6x5 for rows, columns and slices (default: 1); unit=HU in place of the modality's.
    Objects are never unpickled. Raises BadInput for damaged files, and where the array that is named does not exist or
    holds no real numbers.
    """
    part = _part(path, text)
    with _open(path) as arrays:
        name, array = _choose(path, arrays, part)
        stack = _stack(path, name, array, part)
        check_volume(stack.shape, path)
        data = to_float32(stack, path)
    spacing = "" if part.spacing_mm else ", spacing not stated: 1 mm assumed"
    guesses: tuple[str, ...] = ()
    if spacing and len(data) > 1:
        guesses = (
            f"Arrays state no spacing and no orientation: 1 mm and slices from bottom to top are assumed. State them, for instance by {path.name}#axes=PL,mm=0.9x0.9x3.",
        )
    note = f"array, axes {part.axes}{spacing}"
    return Stored(data, part.affine, unit=part.unit, note=note, guesses=guesses)


def stack_shape(path: Path, text: str) -> tuple[int, int, int]:
    """Slices, height and width of a stack; text: as for `read_array`. Raises BadInput as that does."""
    part = _part(path, text)
    with _open(path) as arrays:
        name, array = _choose(path, arrays, part)
        if len(array.shape) != 3:
            raise _no_stack(path, name, array)
        axis = _axis(path, part) or 0
        slices = array.shape[axis]
        height, width = (int(n) for k, n in enumerate(array.shape) if k != axis)
    return int(slices), height, width


def slice_size(path: Path, text: str) -> tuple[int, int] | None:
    """Height and width of a slice as the header of a .npy or .npz states them; None where it does not state them."""
    try:
        part = _part(path, text)
        with _open(path) as arrays:
            _, array = _choose(path, arrays, part)
            shape = array.shape
    except BadInput:  # which is raised when the slice is read
        return None
    expected = 2 if part.channel is None else 3
    return (shape[0], shape[1]) if len(shape) == expected else None


def _part(path: Path, text: str) -> Part:
    settings = [setting.partition("=")[::2] for setting in text.split(",") if setting]
    values: dict[str, Any] = dict(settings)
    if len(values) < len(settings) or len({"channel", "slice"} & values.keys()) > 1:
        raise BadInput(
            f"{path}: expected each key once after '#', and a channel or a slice, found '#{text}'. Remove one of them."
        )
    for key in {"channel", "slice", "slices"} & values.keys():
        values[key] = int(values[key])
    if "mm" in values:
        values["spacing_mm"] = _spacing(path, values.pop("mm"))
    return Part(**values)


def _spacing(path: Path, text: str) -> Spacing:
    try:
        rows, columns, between = map(float, text.split("x") if "x" in text else (text, text, "1"))
    except ValueError:
        rows = columns = between = 0.0
    if min(rows, columns, between) <= 0 or not math.isfinite(rows * columns * between):
        raise BadInput(
            f"{path}: expected mm=0.6 or mm=0.6x0.6x5, above 0, found mm={text}. Fix the spacing."
        )
    return rows, columns, between


def _choose(path: Path, arrays: Arrays, part: Part) -> tuple[str, Any]:
    """The array that a path names, or the only one of real numbers; raises BadInput where that leaves several or none."""
    images = [name for name, array in arrays.items() if _is_image(array)]
    name = part.array or (images[0] if len(images) == 1 else DATASET)
    if name not in arrays:
        listed = first_of([f"'{one}' {_describe(array)}" for one, array in arrays.items()])
        example = images[0] if images else "NAME"
        raise BadInput(
            f"{path}: expected {f'an array {name!r}' if part.array else 'one array of numbers'}, found {listed or 'none'}. Name one: {path.name}#array={example}."
        )
    check_numbers(arrays[name].dtype, f"{path}, array '{name}'")
    return name, arrays[name]


def _is_image(array: Any) -> bool:
    return array.dtype.kind in "biuf" and len(array.shape) > 1 and min(array.shape) > 0


def _describe(array: Any) -> str:
    return f"({'×'.join(map(str, array.shape))}, {array.dtype})"


def _axis(path: Path, part: Part) -> int | None:
    return SLICES_AXIS.get(path.suffix.lower()) if part.slices is None else part.slices


def _stack(path: Path, name: str, array: Any, part: Part) -> np.ndarray:
    """The slices [D, H, W] that a path names of an array."""
    stated = _axis(path, part)
    number = part.channel if part.slice is None else part.slice
    what = "slice" if part.channel is None else "channel"
    axis = (stated if part.channel is None else 2) if len(array.shape) == 3 else 0
    is_slice = len(array.shape) == 2 and number is None
    if axis is None or not (len(array.shape) == 3 or is_slice) or min(array.shape) < 1:
        raise _no_stack(path, name, array)
    if number is not None and number >= array.shape[axis]:
        raise BadInput(
            f"{path}: expected {what} 0 to {array.shape[axis] - 1} of array '{name}' {_describe(array)}, found {what} {number}. Name one that it has."
        )
    with errors_as(f"{path}: expected whole numbers of array '{name}', found them damaged", AGAIN):
        if len(array.shape) == 2:
            return np.asarray(array[:])[None]
        if number is None:
            check_volume(array.shape, path)
            return np.moveaxis(np.asarray(array[:]), axis, 0)
        return _one_slice(path, name, array, axis, number)[None]


def _one_slice(path: Path, name: str, array: Any, axis: int, number: int) -> np.ndarray:
    """One slice along an axis; slices that an HDF5 file compresses together are read once."""
    chunk = (getattr(array, "chunks", None) or (1,))[0] if axis == 0 else 1
    if chunk == 1 or array.nbytes // len(array) * chunk > MOST_BYTES:
        return np.asarray(array[(*[slice(None)] * axis, number)] if axis else array[number])
    first = number // chunk * chunk
    return _chunk(path, name, first, first + chunk)[number - first]


@partial(KeptByFile, most=2)
def _chunk(path: Path, name: str, first: int, end: int) -> np.ndarray:
    with _open(path) as arrays:
        return np.asarray(arrays[name][first:end])


def _no_stack(path: Path, name: str, array: Any) -> BadInput:
    return BadInput(
        f"{path}: expected a slice [H, W] or a stack of slices, found array '{name}' {_describe(array)}. Say what its axes are: {path.name}#slices=0 (slices along the first), #channel=0 (of [H, W, C]), or save a volume of 3 axes."
    )


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Arrays]:
    """The arrays in a file by their names, none of them read yet; raises BadInput for a file that is none, or damaged."""
    ending = path.suffix.lower()
    with contextlib.ExitStack() as opened:
        with errors_as(f"{path}: expected a whole {ending} file, found another or damage", AGAIN):
            if ending == ".npy":
                arrays: Arrays = {DATASET: _npy(path)}
            elif ending == ".npz":
                arrays = _npz(opened.enter_context(zipfile.ZipFile(path)), path)
            elif ending == ".mat" and not _starts_with(path, MATLAB_HDF5):
                arrays = _mat(path)
            else:
                h5py = optional_package("h5py", "hdf5", path, "h5py to read HDF5 files")
                arrays = _hdf5(h5py, opened.enter_context(h5py.File(path, "r")))
                if ending == ".mat":  # whose axes HDF5 states in reverse
                    arrays = {name: _Reversed(array) for name, array in arrays.items()}
        yield arrays


def _starts_with(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(mark)) == mark


def _npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "objects" in str(error).lower():
            raise BadInput(
                f"{path}: expected numbers, found Python objects, which may run code and are not read. Save numbers."
            ) from error
        raise
    if array.offset + array.nbytes != path.stat().st_size:
        raise BadInput(
            f"{path}: expected an array alone, found more bytes than its header states. {AGAIN}"
        )
    return array


def _npz(file: zipfile.ZipFile, path: Path) -> Arrays:
    check_bytes(sum(member.file_size for member in file.infolist()), path, "arrays")
    # to the end, where the checksum of each is compared
    return {
        member.filename.removesuffix(".npy"): np.load(
            io.BytesIO(file.read(member)), allow_pickle=False
        )
        for member in file.infolist()
    }


def _mat(path: Path) -> Arrays:
    """The arrays of a MATLAB file before version 7.3."""
    from scipy.io import loadmat, whosmat  # here, because most scans are no MATLAB files

    for _, shape, _ in whosmat(path):
        check_volume(shape, path)
    arrays = loadmat(path)
    return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}


def _hdf5(h5py: Any, file: Any) -> Arrays:
    """The arrays in a file itself, in its groups too; links to other files are not followed."""
    arrays = {}

    def note(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset) and not (found.external or found.is_virtual):
            arrays[name] = found

    file.visititems(note)  # which follows no soft and no external links
    return arrays


class _Reversed:
    """An array of an HDF5 file with its axes in reverse."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape, self.dtype = array.shape[::-1], array.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        """The values at a place; its axes are those of the reversed array."""
        return np.asarray(self.array[()]).T[key]


ARRAY = Format(
    "array",
    read_array,
    named_endings=(".npy", ".npz", ".h5", ".hdf5", ".mat"),
    read_part=read_array,
    is_part=is_part,
)
