"""What a file format states of itself, what its reader returns, and the errors and limits that readers share."""

import contextlib
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.messages import Message
from voxlate.base.option import bytes_of
from voxlate.scans.images.grid import Codes, Grid, Volume
from voxlate.scans.layout_options import LARGEST_VOLUME

Result = TypeVar("Result")

GZIP = b"\x1f\x8b"
ANNEX = "annex/objects/"
POINTERS = {
    ANNEX: ("git-annex (DataLad)", "datalad get (or git annex get)"),
    "version https://git-lfs.github.com/": ("Git LFS", "git lfs pull"),
}
POINTER_BYTES = 1024  # pointers are shorter


@dataclass(frozen=True)
class Stored:
    """The image in a file: data [D, H, W] float32, affine to RAS millimetres, unit and modality where stated.

    note: which part of the file was read; guesses: on each assumption about what the file does not state;
    codes: as those of Grid; not_hu: why the values cannot be Hounsfield units; as_hu: the assumption behind reading them as Hounsfield units;
    kind: of a DICOM series that is no ordinary scan; body_part: as that of Volume.
    """

    data: np.ndarray
    affine: np.ndarray
    unit: str = ""
    modality: str = ""
    note: str = ""
    guesses: tuple[str | Message, ...] = ()
    codes: Codes = (1, 1)
    not_hu: str = ""
    as_hu: str = ""
    kind: str = ""
    body_part: str = ""


@dataclass(frozen=True)
class DynamicScan:
    """A scan of several frames on one grid.

    times_s: [count], seconds since the first frame; None where the file does not state them. read(k): frame k, counted
    from 0. apart: what tells the frames apart, after "found 3 frames". every(): the voxels [D, H, W] of all frames, where
    a file gives them faster than one by one; whole(): all frames in one volume, where that is one.
    """

    grid: Grid
    count: int
    times_s: np.ndarray | None
    read: Callable[[int], Stored]
    apart: str = ""
    every: Callable[[], Iterator[np.ndarray]] | None = None
    whole: Callable[[], Stored] | None = None

    def frames(self) -> Iterator[np.ndarray]:
        """The voxels [D, H, W] of all frames."""
        if self.every is not None:
            return self.every()
        return (self.read(number).data for number in range(self.count))

    def only(self, path: Path) -> Stored:
        """The only frame, or all in one volume; raises BadInput where there are several."""
        if self.count == 1:
            return self.read(0)
        if self.whole is not None:
            return self.whole()
        raise BadInput(
            f"{path}: expected one 3-D volume, found {self.count} frames ({self.grid}{self.apart}). Name one of them, {path.name}#frame=1 to #frame={self.count}, or #peak for a bolus' arterial peak."
        )


def one_frame(stored: Stored) -> DynamicScan:
    """An image that is read already, as a scan of one frame."""
    depth, height, width = stored.data.shape
    return DynamicScan(Grid((depth, height, width), stored.affine), 1, None, lambda _: stored)


@dataclass(frozen=True)
class Format:
    """A file format. To add one, write its file in this folder and name it in FORMATS of voxlate/scans/formats/io.py.

    Endings are in lower case and begin with '.'; '.nii.gz' is one ending. `read` and the others raise BadInput.

    endings: of files that count as scans wherever a cohort's folder holds them.
    named_endings: of files that are read only where a path or a pattern names them.
    open(path): the frames of a file, of which the text after '#' in a path names one; or
    read(path, part): the image in a file by such a text ("" for none) of its own, which is_part(text) knows.
    recognises(path): whether a file without a known ending has this format, by its content.
    written_endings, write(path, volume, description): for formats that voxlate writes; volumes have one channel.
    partners: patterns of further files of the same image by its ending; '*' is the file's name without the ending.
    """

    open: Callable[[Path], DynamicScan] | None = None
    read: Callable[[Path, str], Stored] | None = None
    endings: tuple[str, ...] = ()
    named_endings: tuple[str, ...] = ()
    is_part: Callable[[str], bool] | None = None
    recognises: Callable[[Path], bool] | None = None
    written_endings: tuple[str, ...] = ()
    write: Callable[[Path, Volume, str], None] | None = None
    partners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def all_endings(self) -> tuple[str, ...]:
        """The endings of all files that are read."""
        return self.endings + self.named_endings


class KeptByFile(Generic[Result]):
    """A function of a file, and of further values, whose last results are kept; of a changed file it is computed again."""

    def __init__(self, compute: Callable[..., Result], most: int | None = None) -> None:
        self.kept = lru_cache(most)(lambda _, *given: compute(*given))

    def __call__(self, path: Path, *others: Any) -> Result:
        state = path.stat() if path.exists() else None
        return self.kept(state and (state.st_size, state.st_mtime_ns), path, *others)


def check_numbers(dtype: np.dtype, where: object) -> None:
    """Raise BadInput unless each voxel is one real number."""
    if dtype.kind not in "biuf":
        raise BadInput(
            f"{where}: expected real numbers, found {dtype}. Save the magnitude of complex voxels, and colour as grey."
        )


def to_float32(values: np.ndarray) -> np.ndarray:
    """The values as float32; those beyond float32 become infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32, order="C")  # a copy: libraries free what they gave


def first_line(error: BaseException) -> str:
    """The first line of an error, to be quoted in a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160].rstrip(".")


@contextlib.contextmanager
def errors_as(sentence: str, advice: str) -> Iterator[None]:
    """Turn any error that a library raises inside into BadInput: the sentence, what the system says, the advice.

    Libraries raise many types of errors for damaged files; PIL even raises a SyntaxError. Their texts explain nothing to
    a user, and are kept as the error's cause alone.
    """
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        system = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise BadInput(f"{sentence}{system}. {advice}") from error


def check_fetched(path: Path) -> None:
    """Raise BadInput for a pointer to a file that was not fetched, and for a link that leads nowhere."""
    found = ""
    if path.is_symlink() and not path.exists():
        found = str(path.readlink())
        if ANNEX not in found:
            raise BadInput(
                f"{path}: expected a file, found a link to {found}, where nothing is. Copy the file itself."
            )
    elif path.is_file():
        with path.open("rb") as file:
            begin = file.read(POINTER_BYTES).decode("latin-1")
        if begin.lstrip().lower().startswith(("<!doctype html", "<html")):
            raise BadInput(
                f"{path}: expected an image, found a web page, such as a server's error or login. Download the image again."
            )
        found = begin if path.stat().st_size <= POINTER_BYTES else ""
    for mark, (owner, command) in POINTERS.items():
        if mark in found:
            raise BadInput(
                f"{path}: expected an image, found a pointer of {owner} to a file that was not fetched. Run {command} in its folder."
            )


DEFAULT = "4GB"
BYTES_A_VOXEL = 4  # float32
CHUNK = 1 << 20


def most_bytes() -> float:
    """The size of the largest volume that is read, in bytes of its float32 voxels."""
    return bytes_of(os.environ.get(LARGEST_VOLUME, DEFAULT), f"{LARGEST_VOLUME}: ")


def check_bytes(count: float, where: object, what: str = "data") -> None:
    """Raise BadInput for more bytes than the largest volume has; what: is found."""
    most = most_bytes()
    if count > most:
        raise BadInput(
            f"{where}: expected at most {most / 2**30:.3g} GB, found {what} of {count / 2**30:.3g} GB or more. If the file is sound, pass --max-volume {math.ceil(count / 2**30)}GB."
        )


def check_volume(shape: Iterable[int], where: object) -> None:
    """Raise BadInput, before memory is allocated, where the voxels of this shape exceed the largest volume."""
    sizes = tuple(shape)
    size = "×".join(map(str, reversed(sizes)))
    check_bytes(math.prod(sizes) * BYTES_A_VOXEL, where, f"a volume of {size} voxels")


def check_expansion(chunks: Iterable[bytes], wbits: int, where: object) -> int:
    """The bytes to which compressed chunks expand, without keeping them; raises BadInput beyond the largest volume.

    wbits: as those of zlib. Raises zlib.error where the data are damaged, and EOFError where they are cut short.
    """
    stream = zlib.decompressobj(wbits)
    total = 0
    for chunk in chunks:
        left = chunk
        while left and not stream.eof:
            total += len(stream.decompress(left, CHUNK))
            left = stream.unconsumed_tail
            check_bytes(total, where)
    total += len(stream.flush())
    if not stream.eof:
        raise EOFError("the compressed data are cut short")
    return total
