"""Slices in array files: NumPy's .npy and .npz, and stacks in HDF5. None of them states spacing or orientation."""

import io
import math
import re
import zipfile
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
    check_numbers,
    errors_as,
    first_line,
)
from voxlate.scans.images.grid import Spacing, directions

DATASET = "data"  # of a stack, where the path does not name another
MOST_BYTES = 1 << 28  # of a slice with its channels; a larger array is damaged, or no slice
# after '#': the slice, and what the file does not state ('mCTA/p1.npy#channel=0,axes=PL,mm=0.625x0.625x5')
SETTINGS = {
    "channel": r"\d{1,9}",
    "slice": r"\d{1,9}",
    "array": r"[\w.-]+",
    "axes": "[RL][AP]|[AP][RL]",
    "mm": r"[\d.]+(?:x[\d.]+x[\d.]+)?",
    "unit": r"[\w./]+",
}
SETTING = "|".join(f"{key}=(?:{value})" for key, value in SETTINGS.items())
PART = re.compile(f"(?:{SETTING})(?:,(?:{SETTING}))*")
AGAIN = "Get the file again."


@dataclass(frozen=True)
class Part:
    """The text after '#' in a path: the slice that it names, and the geometry and unit of that slice.

    axes: the directions in which the array's first and second axis grow; spacing_mm: along these and between slices.
    """

    channel: int | None = None
    slice: int | None = None
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
    """One slice of an array file; text: the settings after '#' in its path, each of which may be left out.

    channel=0 is a channel of a .npy [H, W, C]; array=src an array of a .npz; slice=12 a slice of an HDF5 file's dataset
    `data` [slices, H, W] (array= names another), which is read alone; all count from 0. axes=PL: the directions in
    which rows and columns follow each other (default); mm=0.625, or mm=0.6x0.6x5 for rows, columns and slices (default:
    1); unit=HU in place of the modality's. Objects are never unpickled. Raises BadInput for damaged files, and where
    the array that is named does not exist or is no slice of real numbers.
    """
    part = _part(path, text)
    read = {".npy": _from_npy, ".npz": _from_npz}.get(path.suffix.lower(), _from_stack)
    values = read(path, part)
    if values.ndim != 2 or not values.size:
        advice = "Save slices one by one."
        if path.suffix.lower() == ".npy" and values.ndim == 3:
            advice = f"Name one channel: #channel=0 to {values.shape[-1] - 1}."
        raise BadInput(
            f"{path}: expected a slice [H, W], found an array of {_shape(values)}. {advice}"
        )
    # float64 beyond float32 becomes infinite, which is refused where it is checked
    with np.errstate(over="ignore"):
        data = values.astype(np.float32)[None]
    spacing = "" if part.spacing_mm else ", spacing not stated: 1 mm assumed"
    return Stored(data, part.affine, unit=part.unit, note=f"array, axes {part.axes}{spacing}")


def stack_shape(path: Path, text: str) -> tuple[int, int, int]:
    """Slices, height and width of a stack in HDF5; text: as for `read_array`. Raises BadInput as that does."""
    with _open(path) as file:
        slices, height, width = _dataset(path, file, _part(path, text).array).shape
    return slices, height, width


def slice_size(path: Path, text: str) -> tuple[int, int] | None:
    """Height and width of a slice as the header of a .npy or .npz states them; None where it does not state them."""
    try:
        part = _part(path, text)
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as file, file.open(f"{part.array}.npy") as member:
                shape = _header_shape(member)
        else:
            with path.open("rb") as stream:
                shape = _header_shape(stream)
    except Exception:  # the error is raised when the slice is read
        return None
    expected = 2 if part.channel is None else 3
    return (shape[0], shape[1]) if len(shape) == expected else None


def _header_shape(stream: Any) -> tuple[int, ...]:
    npy = np.lib.format
    version, _ = npy.read_magic(stream)
    read = {1: npy.read_array_header_1_0, 2: npy.read_array_header_2_0}
    return read[version](stream)[0]


def _part(path: Path, text: str) -> Part:
    settings = [setting.partition("=")[::2] for setting in text.split(",") if setting]
    values: dict[str, Any] = dict(settings)
    if len(values) < len(settings):
        raise BadInput(
            f"{path}: expected each key once after '#', found '#{text}'. Remove one of them."
        )
    allowed = {".npy": {"channel"}, ".npz": {"array"}}.get(path.suffix.lower(), {"slice", "array"})
    others = {"channel", "slice", "array"} & set(values) - allowed
    if others:
        raise BadInput(
            f"{path}: expected {' or '.join(sorted(allowed))}= of such a file, found {others.pop()}=. Name that."
        )
    for key in {"channel", "slice"} & set(values):
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


def _from_npy(path: Path, part: Part) -> np.ndarray:
    with open(path, "rb") as file:
        values = _parse(file.read(MOST_BYTES + 1), str(path))
    if part.channel is None:
        return values
    if values.ndim < 3:
        raise BadInput(
            f"{path}: expected channels [H, W, C], found {_shape(values)}. Leave out channel=."
        )
    if values.ndim > 3 or part.channel >= values.shape[-1]:
        raise BadInput(
            f"{path}: expected channel {part.channel}, from 0, of [H, W, C], found {_shape(values)}. Name one that it has."
        )
    return values[..., part.channel]


def _from_npz(path: Path, part: Part) -> np.ndarray:
    with (
        errors_as(f"{path}: expected a whole .npz, found damage", AGAIN),
        zipfile.ZipFile(path) as file,
    ):
        members = {member.filename.removesuffix(".npy"): member for member in file.infolist()}
        name = part.array or (next(iter(members)) if len(members) == 1 else "")
        if name not in members:
            wanted = f"an array '{name}'" if name else "one array, or #array= with a name"
            raise BadInput(f"{path}: expected {wanted}, found {_names(members)}. Check the file.")
        if members[name].file_size > MOST_BYTES:
            raise BadInput(
                f"{path}: expected a slice in '{name}', found {members[name].file_size} bytes. Check it."
            )
        whole = file.read(members[name])  # to the end, where its checksum is compared
    return _parse(whole, f"{path}, array {name}")


def _parse(whole: bytes, where: str) -> np.ndarray:
    """The array in the bytes of a .npy file, whose header must account for every one of them."""
    stream = io.BytesIO(whole)
    try:
        values = np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:
        if "Object arrays" in str(error):
            found = "Python objects, which may run code and are not read. Save numbers."
        else:
            found = f"a damaged file ({first_line(error)}). Get it again."
        raise BadInput(f"{where}: expected an array as numpy saves it, found {found}") from error
    if stream.read(1):
        raise BadInput(
            f"{where}: expected an array alone, found more bytes than its header states. Get it again."
        )
    check_numbers(values.dtype, where)
    return values


def _from_stack(path: Path, part: Part) -> np.ndarray:
    number = part.slice
    with _open(path) as file:
        dataset = _dataset(path, file, part.array)
        if number is None or number >= len(dataset):
            found = "none" if number is None else f"slice={number}"
            raise BadInput(
                f"{path}: expected #slice= from 0 to {len(dataset) - 1}, found {found}. Name a slice."
            )
        with errors_as(
            f"{path}: expected whole voxel data of slice {number}, found it damaged", AGAIN
        ):
            # slices that the file compresses together
            chunk = dataset.chunks[0] if dataset.chunks else 1
            if chunk == 1 or dataset.nbytes // len(dataset) * chunk > MOST_BYTES:
                return np.asarray(dataset[number])
            first = number // chunk * chunk
            return _chunk(path, dataset.name, first, first + chunk)[number - first]


@partial(KeptByFile, most=2)
def _chunk(path: Path, name: str, first: int, end: int) -> np.ndarray:
    """Slices that the file compresses together, kept for the next one of them."""
    with _open(path) as file:
        return np.asarray(file[name][first:end])


def _open(path: Path) -> Any:
    h5py = optional_package("h5py", "hdf5", path, "h5py to read HDF5 files")
    with errors_as(f"{path}: expected a whole HDF5 file, found none", AGAIN):
        return h5py.File(path, "r")


def _dataset(path: Path, file: Any, name: str) -> Any:
    """A stack of slices in the file itself; links of an HDF5 file to other files are not followed."""
    name = name or DATASET
    with errors_as(f"{path}: expected a sound HDF5 file, found damage", AGAIN):
        link = file.get(name, getlink=True)
        dataset: Any = file[name] if type(link).__name__ == "HardLink" else None
        shape = getattr(dataset, "shape", None)
        names = list(file)
        elsewhere = shape is not None and (dataset.external or dataset.is_virtual)
    if shape is None or elsewhere:
        raise BadInput(
            f"{path}: expected a dataset '{name}' in the file itself, found {_names(names)}. Rename it so."
        )
    is_stack = len(shape) == 3 and min(shape) > 0
    if not is_stack or shape[1] * shape[2] * dataset.dtype.itemsize > MOST_BYTES:
        raise BadInput(
            f"{path}: expected slices [slices, H, W] in '{name}', found {_shape(dataset)}. Save them so."
        )
    check_numbers(dataset.dtype, f"{path}, dataset {name}")
    return dataset


def _shape(values: Any) -> str:
    return f"shape {tuple(int(n) for n in values.shape)}"


def _names(names: Any) -> str:
    return first_of([f"'{name}'" for name in sorted(map(str, names))]) or "nothing"


ARRAY = Format(
    "array",
    read_array,
    named_endings=(".npy", ".npz", ".h5", ".hdf5"),
    read_part=read_array,
    is_part=is_part,
)
