"""Arrays that live in a file without a name, so that a volume never has to fit into memory.

What is large lies in the system's temporary folder (TMPDIR chooses another) and is worked on in runs of planes; after
each run the pages that it touched are let go, so that memory depends on a plane's size, not on the number of planes.
"""

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from voxlate.errors import BadInput

LARGE = 32 * 2**20  # bytes; below this a file is not worth its trouble
RUN_VOXELS = 2**21  # voxels that are worked on at a time


def zeros(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """An array of zeros: in memory if it is small, else in a nameless file of the system's temporary folder.

    The file is gone when the array is, even if the process is killed. Raises BadInput where the disk has no room.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LARGE:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile() as file:
        try:
            _reserve(file.fileno(), size)
        except OSError as error:
            raise BadInput(
                f"{tempfile.gettempdir()}: expected room for {size / 2**30:.1f} GiB of voxels, found none "
                f"({error.strerror or error}). Free some, or name another folder in TMPDIR."
            ) from error
        return np.asarray(np.memmap(file, dtype, "r+", shape=shape))


def _reserve(file: int, size: int) -> None:
    """Take the room now: a disk that fills up under a mapped file would kill the process without a word."""
    try:
        os.posix_fallocate(file, 0, size)
    except AttributeError:  # not on macOS and Windows
        os.truncate(file, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.truncate(file, size)  # a file system that cannot promise


def spooled(array: np.ndarray) -> np.ndarray:
    """The same values [C, D, H, W] in one contiguous piece, in a file where they are many.

    What is flipped or permuted is copied in pieces, in the order in which it lies in memory.
    """
    if array.nbytes < LARGE:
        return np.ascontiguousarray(array)
    if _mapping(array) is not None and array.flags.c_contiguous:
        return array
    copy = zeros(array.shape, array.dtype)
    for source, target in zip(array, copy):
        slow = int(np.argmax(np.abs(source.strides)))
        for span in runs(np.moveaxis(source, slow, 0)):
            place: list[slice] = [slice(None)] * 3
            place[slow] = span
            for planes in [span] if slow == 0 else runs(target):
                place[0] = planes
                target[tuple(place)] = source[tuple(place)]
                release(target)
            release(source)
    return copy


def runs(*arrays: np.ndarray) -> Iterator[slice]:
    """Slices that together cover the first axis of arrays of one shape, about RUN_VOXELS at a time.

    After each of them, what it has brought into memory of spooled arrays is let go.
    """
    first = arrays[0]
    size = max(1, RUN_VOXELS // max(1, math.prod(first.shape[1:])))
    for start in range(0, len(first), size):
        yield slice(start, min(start + size, len(first)))
        for array in arrays:
            release(array)


def mapped(function: Callable[..., np.ndarray], *arrays: np.ndarray, dtype: Any) -> np.ndarray:
    """function(run of each array), voxel by voxel, run by run: an array of their shape, in a file where it is large."""
    out = zeros(arrays[0].shape, dtype)
    for run in runs(out, *arrays):
        out[run] = function(*(array[run] for array in arrays))
    return out


def release(array: np.ndarray) -> None:
    """Let go of the pages of a spooled array that are in memory; its values stay, in the file."""
    mapping = _mapping(array)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(array: np.ndarray) -> mmap.mmap | None:
    base: Any = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return base if isinstance(base, mmap.mmap) else None
