"""Files that state no spacing and no orientation: arrays (NumPy's .npy and .npz, HDF5, MATLAB) and pictures (PNG, TIFF, BMP, JPEG)."""

import contextlib
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput, first_of
from voxlate.base.messages import message
from voxlate.base.optional import optional_package
from voxlate.scans.formats.format import (
    Format,
    KeptByFile,
    check_bytes,
    check_numbers,
    check_volume,
    errors_as,
    to_float32,
)
from voxlate.scans.images.grid import LPS_TO_RAS, Volume, directions

DATASET = "data"  # is read where a file has several arrays and the path names none
# after '#': what is read of an array, and what the file does not state ('mCTA/p1.npy#channel=0,axes=PL,mm=0.625x0.625x5')
LENGTH = r"0*(?:[1-9]\d{0,5}(?:\.\d*)?|0?\.0*[1-9]\d*)"  # above 0
SETTINGS = {
    "channel": r"\d{1,9}",
    "slice": r"\d{1,9}",
    "slices": "[012]",
    "array": r"[\w./-]+",
    "axes": "[RL][AP]|[AP][RL]",
    "mm": rf"{LENGTH}(?:x{LENGTH}x{LENGTH})?",
    "unit": r"[\w./]+",
}
SETTING = "|".join(f"{key}=(?:{value})" for key, value in SETTINGS.items())
PART = re.compile(f"(?:{SETTING})(?:,(?:{SETTING}))*")
AGAIN = "Get the file again."
# the axis along which the slices of a stack follow each other, where the path states none
SLICES_AXIS = {".h5": 0, ".hdf5": 0, ".mat": 2}
MATLAB_HDF5 = b"MATLAB 7.3"
GREY = ("L", "I", "F", "I;16", "I;16B", "I;16L")  # modes of PIL
PHOTOMETRIC = 262  # a tag of TIFF
SIDES = ("frame=1", "frame=2")  # of two pictures side by side


def is_part(text: str) -> bool:
    """Whether a text may stand after '#' in the path of an array file."""
    return PART.fullmatch(text) is not None


def read_array(path: Path, text: str = "") -> Volume:
    """A slice or a stack of slices in an array file; text: the settings after '#' in its path, each of which may be left out.

    array=NAME is an array of a file of several; channel=0 a channel of [H, W, C]; slice=12 a slice of a stack, which is
    read alone; slices=0 the axis along which slices follow each other, from bottom to top (default: the first in HDF5
    and where a slice is named, the last in MATLAB files). All count from 0. axes=PL: the directions in which rows and columns follow each other
    (default); mm=0.625, or mm=0.6x0.6x5 for rows, columns and slices (default: 1); unit=HU in place of the modality's.
    Objects are never unpickled. Raises BadInput for damaged files, and where the array that is named does not exist or
    holds no real numbers.
    """
    settings = _settings(text)
    with _chosen(path, settings) as (name, array):
        check_numbers(array.dtype, f"{path}, array '{name}'")
        number, axis = _axes(path, name, array, settings)
        shape = array.shape if number is None else array.shape[:axis] + array.shape[axis + 1 :]
        check_volume(shape, path)
        with errors_as(f"{path}: expected whole numbers of '{name}', found them damaged", AGAIN):
            if number is None:
                stack = np.moveaxis(np.asarray(array[()]), axis, 0)
            else:
                stack = np.asarray(array[(slice(None),) * axis + (number,)])
        data = to_float32(stack if stack.ndim == 3 else stack[None])
    axes = settings.get("axes", "PL")
    lengths = [float(length) for length in settings.get("mm", "1").split("x")]
    rows, columns, between = lengths if len(lengths) == 3 else (*lengths * 2, 1.0)
    affine = directions(f"{axes[1]}{axes[0]}S") @ np.diag([columns, rows, between, 1.0])
    note, guesses = f"array, axes {axes}", []
    if "mm" not in settings:
        note += ", spacing not stated: 1 mm assumed"
        if len(data) > 1:
            said = f"Arrays state no spacing and no orientation: 1 mm and slices from bottom to top are assumed. State them, for instance by {path.name}#axes=PL,mm=0.9x0.9x3."
            guesses.append(message("guess", said))
    unit = settings.get("unit", "")
    return Volume(data[None], affine, unit, "", note=note, guesses=tuple(guesses))


def _images_in(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the slices and stacks of real numbers in an array file, by the names of their arrays; {} for damaged files."""
    with contextlib.suppress(BadInput, OSError), contextlib.ExitStack() as opened:
        arrays = _open(path, opened)
        return {name: tuple(array.shape) for name, array in arrays.items() if _is_image(array)}
    return {}


images_in = KeptByFile(_images_in, 4096)


def _settings(text: str) -> dict[str, str]:
    """The settings of a text by their keys; of a key that stands twice, the last."""
    return dict(setting.partition("=")[::2] for setting in text.split(",") if setting)


def _axes(path: Path, name: str, array: Any, settings: Mapping[str, str]) -> tuple[int | None, int]:
    """The number of the slice or channel that is read alone, if one is, and the axis along which these follow each other."""
    what = "channel" if "channel" in settings else "slice"
    number = int(settings[what]) if what in settings else None
    usual = SLICES_AXIS.get(path.suffix.lower(), None if number is None else 0)
    axis = 2 if what == "channel" else settings.get("slices", usual)
    if array.ndim == 2 and number is None:
        return None, 0
    if array.ndim != 3 or axis is None or min(array.shape) < 1:
        raise BadInput(
            f"{path}: expected a slice [H, W] or a stack of slices, found array {_describe(name, array)}. Say what its axes are: {path.name}#slices=0 (slices along the first), #channel=0 (of [H, W, C]), or save a volume of 3 axes."
        )
    count = array.shape[int(axis)]
    if number is not None and number >= count:
        raise BadInput(
            f"{path}: expected {what} 0 to {count - 1} of array {_describe(name, array)}, found {what} {number}. Name one that it has."
        )
    return number, int(axis)


def _describe(name: str, array: Any) -> str:
    return f"'{name}' ({'×'.join(map(str, array.shape))}, {array.dtype})"


@contextlib.contextmanager
def _chosen(path: Path, settings: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """The array that a path names, or the only one of real numbers, and its name; it is read where it is indexed.

    Raises BadInput where that leaves several or none.
    """
    with contextlib.ExitStack() as opened:
        arrays = _open(path, opened)
        images = [name for name, array in arrays.items() if _is_image(array)]
        name = settings.get("array") or (images[0] if len(images) == 1 else DATASET)
        if name not in arrays:
            listed = first_of([_describe(*one) for one in arrays.items()]) or "none"
            raise BadInput(
                f"{path}: expected one array of numbers, or '{name}', found {listed}. Name one: {path.name}#array={images[0] if images else 'NAME'}."
            )
        yield name, arrays[name]


def _is_image(array: Any) -> bool:
    if array.dtype.kind not in "biuf" or len(array.shape) < 2:
        return False
    return min(array.shape) > 0 and sorted(array.shape)[-2] > 1  # voxel sizes are none


def _open(path: Path, opened: contextlib.ExitStack) -> Mapping[str, Any]:
    """The arrays in a file by their names; links of HDF5 to other files are not followed."""
    ending = path.suffix.lower()
    with errors_as(
        f"{path}: expected a whole {ending} file of numbers without objects, found another or damage",
        AGAIN,
    ):
        if ending == ".npy":
            return {DATASET: np.load(path, mmap_mode="r", allow_pickle=False)}
        if ending == ".npz":
            with zipfile.ZipFile(path) as file:
                check_bytes(sum(member.file_size for member in file.infolist()), path, "arrays")
            return dict(np.load(path, allow_pickle=False))
        with path.open("rb") as start:
            in_hdf5 = ending != ".mat" or start.read(len(MATLAB_HDF5)) == MATLAB_HDF5
        if not in_hdf5:
            from scipy.io import loadmat  # here, because most scans are no MATLAB files

            arrays = loadmat(path)
            return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
        h5py = optional_package("h5py", "hdf5", path, "h5py to read HDF5 files")
        found = {}

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and not (item.external or item.is_virtual):
                # MATLAB's axes are stated in reverse
                found[name] = item[()].T if ending == ".mat" else item

        # which follows no soft and no external links
        opened.enter_context(h5py.File(path, "r")).visititems(note)
        return found


ARRAY = Format(
    read=read_array,
    named_endings=(".npy", ".npz", *SLICES_AXIS),
    is_part=is_part,
)


def read_picture(path: Path, part: str) -> Volume:
    """A picture as one slice, values as stored, so that 0 is black: pixel [row, column] is data[0, row, column].

    part: one of SIDES. The pages of a TIFF are slices from bottom to top. Raises BadInput for damaged files, real colour,
    and a side of what is no two pictures.
    """
    from PIL import Image, ImageSequence  # here and below, because most scans are no pictures

    with (
        errors_as(f"{path}: expected a whole picture, found damage", AGAIN),
        warnings.catch_warnings(action="ignore"),
        Image.open(path) as picture,
    ):
        pages = getattr(picture, "n_frames", 1)
        check_volume((pages, picture.height, picture.width), path)
        white_is_zero = picture.format == "TIFF" and picture.getexif().get(PHOTOMETRIC) == 0
        with Image.open(path) as checked:
            checked.verify()  # the checksums of a PNG, which reading its pixels does not compare
        slices = [_grey(page, path) for page in ImageSequence.Iterator(picture)]
        pixels = np.stack(slices)
    said = []
    if pages > 1:
        said.append(f"Its {pages} pages are taken as slices from bottom to top, 1 mm apart.")
    if white_is_zero:
        if pixels.dtype == np.uint16:  # of 8 bits, pillow has inverted them
            pixels = np.iinfo(np.uint16).max - pixels
        said.append("In this TIFF, 0 is white (WhiteIsZero); whole numbers are inverted.")
    pixels = pixels.astype(np.float32)
    if part:
        sides = halves(pixels)
        if not sides:
            raise BadInput(
                f"{path}: expected two pictures side by side, found one. Name it without '#' and what follows."
            )
        pixels = sides[SIDES.index(part)]
    guesses = tuple(message("guess", text) for text in said)
    return Volume(pixels[None], LPS_TO_RAS, "grey", "", guesses=guesses)


def _grey(page: Any, path: Path) -> np.ndarray:
    """The grey values [H, W] of a page; raises BadInput for real colour."""
    if page.mode in GREY:
        return np.array(page)
    colour = np.array(page.convert("RGB"))
    if (colour != colour[..., :1]).any():
        raise BadInput(
            f"{path}: expected grey values, found a colour picture. Save it as greyscale."
        )
    return colour[..., 0]


def halves(pixels: np.ndarray) -> list[np.ndarray]:
    """The two pictures that lie side by side in one [1, H, W], which is twice as wide as high; [] for any other."""
    pages, height, width = pixels.shape
    is_pair = pages == 1 and width == 2 * height
    return np.split(pixels, 2, axis=2) if is_pair else []


PICTURE = Format(
    read_picture,
    endings=(".tif", ".tiff", ".png"),
    # of which folders of scans have previews
    named_endings=(".jpg", ".jpeg", ".bmp"),
    is_part=SIDES.__contains__,
)
