"""Images of the RIRE project: a text, header.ascii, and voxels in image.bin."""

import math
from pathlib import Path

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.scans.formats.format import Format, Stored
from voxlate.scans.images.grid import directions

VOXELS = "image.bin"  # always of this name, 16 bit two's complement, big-endian, the upper left corner first
LONGEST_HEADER = 1 << 16  # bytes; real ones have about a thousand
NEEDED = ("Rows", "Columns", "Slices", "Pixel size", "Slice thickness")
FIXED = {"Bits allocated": 16, "Pixel representation": 1}  # the second: signed
WHOLE = "a whole number"
ORIENTATION, USUAL = "Patient Orientation", "L : P : H"
AXES = ({"L", "R"}, {"P", "A"}, {"F", "H"})


def read_rire(path: Path) -> Stored:
    """The image of a header.ascii and its image.bin; the first voxel is put at 0, since no header states its position.

    Raises BadInput for a header that lacks a keyword, and where image.bin is absent, compressed or not whole.
    Source: the project's "Protocols for accessing information" (rire.insight-journal.org).
    """
    header = _header(path)
    shape = [int(*_numbers(path, header, key, WHOLE)) for key in ("Slices", "Rows", "Columns")]
    between_rows, between_columns = _numbers(path, header, "Pixel size", "two numbers of mm, a : b")
    (between_slices,) = _numbers(path, header, "Slice thickness", "a number of mm")
    stated = header.get(ORIENTATION.lower())
    affine = _directions(path, stated or USUAL) @ np.diag(
        [between_columns, between_rows, between_slices, 1.0]
    )
    guesses = [
        "its header states no position, so the first voxel is put at 0: --register aligns the scans."
    ]
    if stated is None:
        guesses.append(
            f"its header states no {ORIENTATION}: {USUAL} is assumed, as in all images of RIRE."
        )
    if between_rows != between_columns:
        guesses.append(
            "the first number of its pixel size is assumed to be the distance of rows, as in ACR-NEMA."
        )
    return Stored(
        _voxels(path.with_name(VOXELS), shape),
        affine,
        guesses=tuple(guesses),
        as_hu="its header states no unit: the values are taken as Hounsfield units.",
    )


def _header(path: Path) -> dict[str, str]:
    """Values by their keyword in lower case, the first of each; raises BadInput for a header of another kind."""
    with path.open("rb") as file:
        lines = file.read(LONGEST_HEADER).decode("latin-1").splitlines()
    values: dict[str, str] = {}
    for line in lines:
        key, mark, value = line.partition(":=")
        if mark:
            values.setdefault(" ".join(key.lower().split()), value.strip())
    missing = [key for key in NEEDED if key.lower() not in values]
    if missing:
        raise BadInput(
            f"{path}: expected a header of RIRE with {', '.join(NEEDED)}, found no {' and no '.join(missing)}. Get the file again."
        )
    for key, fixed in FIXED.items():
        stated = values.get(key.lower(), str(fixed))
        if stated != str(fixed):
            raise BadInput(
                f"{path}: expected {key} := {fixed}, found {stated}. Convert it to NIfTI."
            )
    return values


def _numbers(path: Path, header: dict[str, str], key: str, kind: str) -> list[float]:
    """The positive numbers of a keyword, which ':' separates; kind: what they are, in words."""
    text = header[key.lower()]
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    sound = all(math.isfinite(n) and n > 0 and (kind != WHOLE or n == int(n)) for n in numbers)
    if not sound or len(numbers) != 1 + kind.startswith("two"):
        raise BadInput(
            f"{path}: expected {key} := {kind} above 0, found '{text[:40]}'. Get the file again."
        )
    return numbers


def _directions(path: Path, text: str) -> np.ndarray:
    """Where columns, rows and slices grow to, as a 4x4 matrix to RAS; text: "L : P : H"."""
    letters = [part.strip().upper() for part in text.split(":")]
    if len(letters) != 3 or any(len(axis.intersection(letters)) != 1 for axis in AXES):
        raise BadInput(
            f"{path}: expected {ORIENTATION} := three of L R, A P, H F as in {USUAL}, found '{text[:40]}'. Correct it."
        )
    return directions("".join(letters).replace("F", "I").replace("H", "S"))


def _voxels(path: Path, shape: list[int]) -> np.ndarray:
    """float32 [D, H, W]; raises BadInput unless the file has as many bytes as the header says."""
    if not path.is_file():
        found = "none. Get it again"
        for packed in (path.with_name(f"{VOXELS}.gz"), path.with_name(f"{VOXELS}.Z")):
            if packed.exists():
                found = f"only {packed.name}. Decompress it: gunzip {packed}"
        raise BadInput(f"{path.parent}: expected {VOXELS} next to header.ascii, found {found}.")
    wanted = 2 * math.prod(shape)
    size = path.stat().st_size
    if size != wanted:
        voxels = "×".join(str(length) for length in reversed(shape))
        raise BadInput(
            f"{path}: expected {wanted} bytes for {voxels} voxels of 16 bit, as header.ascii says, found {size}. Get the file again."
        )
    return np.fromfile(path, ">i2").reshape(shape).astype(np.float32)


RIRE = Format("RIRE", read_rire, named_endings=(".ascii",), partners={".ascii": (VOXELS,)})
