"""What a file format states of itself, and the errors and limits that readers share."""

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.option import bytes_of
from voxlate.scans.images.grid import Grid, Volume
from voxlate.scans.layout_options import LARGEST_VOLUME

Result = TypeVar("Result")

GZIP = b"\x1f\x8b"
POINTERS = {
    "annex/objects/": ("git-annex (DataLad)", "datalad get (or git annex get)"),
    "version https://git-lfs.github.com/": ("Git LFS", "git lfs pull"),
}
POINTER_BYTES = 1024  # pointers are shorter


@dataclass(frozen=True)
class DynamicScan:
    """A scan of several frames on one grid.

    times_s: [count], seconds since the first frame; None where the file does not state them. read(numbers): the frames of
    these numbers, counted from 0, one after the other. apart: what tells the frames apart, after "found 3 frames".
    """

    grid: Grid
    count: int
    times_s: np.ndarray | None
    read: Callable[[Iterable[int]], Iterator[Volume]]
    apart: str = ""


@dataclass(frozen=True)
class Format:
    """A file format. To add one, write its file in this folder and name it in FORMATS of voxlate/scans/formats/io.py.

    Endings are in lower case and begin with '.'; '.nii.gz' is one ending. Its functions raise BadInput.

    read(path, part): the image in a file, with unit and modality where the file states them; part: the text after '#' in a
    path ("" for none), which is_part(text) knows.
    endings: of files that count as scans wherever a cohort's folder holds them.
    named_endings: of files that are read only where a path or a pattern names them.
    written_endings, write(path, volume, description): for formats that voxlate writes; volumes have one channel.
    partners: patterns of further files of the same image by its ending; '*' is the file's name without the ending.
    """

    read: Callable[[Path, str], Volume]
    endings: tuple[str, ...] = ()
    named_endings: tuple[str, ...] = ()
    is_part: Callable[[str], bool] | None = None
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
    """Raise BadInput for a pointer to a file that was not fetched."""
    found = ""
    if path.is_symlink() and not path.exists():
        found = str(path.readlink())
    elif path.is_file() and path.stat().st_size <= POINTER_BYTES:
        found = path.read_text(encoding="latin-1")
    for mark, (owner, command) in POINTERS.items():
        if mark in found:
            raise BadInput(
                f"{path}: expected an image, found a pointer of {owner} to a file that was not fetched. Run {command} in its folder."
            )


DEFAULT = "4GB"
BYTES_A_VOXEL = 4  # float32


def check_bytes(count: float, where: object, what: str = "data") -> None:
    """Raise BadInput for more bytes than the largest volume has; what: is found."""
    most = bytes_of(os.environ.get(LARGEST_VOLUME, DEFAULT), f"{LARGEST_VOLUME}: ")
    if count > most:
        raise BadInput(
            f"{where}: expected at most {most / 2**30:.3g} GB, found {what} of {count / 2**30:.3g} GB or more. If the file is sound, pass --max-volume {math.ceil(count / 2**30)}GB."
        )


def check_volume(shape: Iterable[int], where: object) -> None:
    """Raise BadInput, before memory is allocated, where the voxels of this shape exceed the largest volume."""
    sizes = tuple(shape)
    size = "×".join(map(str, reversed(sizes)))
    check_bytes(math.prod(sizes) * BYTES_A_VOXEL, where, f"a volume of {size} voxels")
