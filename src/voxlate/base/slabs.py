"""Arrays larger than memory: they are kept in files of a scratch folder, and processed a few planes at a time.

Inside `scratch_in(folder)`, `empty` and `zeros` map large arrays from files without a name, which the system removes
with the process, even after a kill. The arrays are used as any other. `in_slabs` and the reductions below pass over them
in slabs along the first axis and give the pages back after each slab. Whether an array is in memory or in a file, the
same slabs are computed: the results are the same bits.
"""

import contextlib
import contextvars
import math
import mmap
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from voxlate.base.array_types import AnyArray
from voxlate.base.errors import FULL, CannotWrite, system_code

SLAB = 1 << 24  # voxels that are computed at a time
LEAST_BYTES_IN_FILE = 1 << 28  # bytes, from which an array is kept in a file


class _ScratchMap(mmap.mmap):
    """A mapping of a scratch file, whose pages may be given back at any time: the file keeps the values."""


_scratch: contextvars.ContextVar[Path | None] = contextvars.ContextVar("scratch", default=None)


@contextlib.contextmanager
def scratch_in(folder: Path) -> Iterator[None]:
    """Keep arrays of at least LEAST_BYTES_IN_FILE bytes that the block allocates in files of a folder."""
    token = _scratch.set(folder)
    try:
        yield
    finally:
        _scratch.reset(token)


def scratch_folder() -> Path | None:
    """The folder for large arrays; None where they are in memory."""
    return _scratch.get()


def empty(
    shape: Sequence[int], dtype: DTypeLike, in_memory: Callable[..., AnyArray] = np.empty
) -> AnyArray:
    """An array whose values are undefined: in a file where it is large and a scratch folder is set, else in memory."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    folder = _scratch.get()
    if folder is None or size < LEAST_BYTES_IN_FILE:
        return in_memory(tuple(shape), dtype)
    # a new file holds zeros
    return np.ndarray(tuple(shape), dtype, buffer=_map_file(folder, size))


zeros = partial(empty, in_memory=np.zeros)
"""An array of zeros; where it is kept as for `empty`."""


def _map_file(folder: Path, size: int) -> _ScratchMap:
    """A mapped file without a name, whose place on the disk is reserved: a full disk would kill the process later."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            reserve = getattr(os, "posix_fallocate", None)
            if reserve is None:  # macOS and Windows
                file.truncate(size)
            else:
                reserve(file.fileno(), 0, size)
            return _ScratchMap(file.fileno(), size)
    except OSError as error:
        if system_code(error) not in FULL:
            raise
        raise CannotWrite(
            f"{folder}: expected {size / 2**30:.3g} GB of disk for a part of a large volume, found the disk full. Free some, or choose an --out on another disk."
        ) from error


def slabs(shape: Sequence[int]) -> list[slice]:
    """Slices along the first axis that cover an array of this shape, with at most SLAB voxels each (or one plane)."""
    planes = max(1, SLAB // max(1, math.prod(shape[1:])))
    return [slice(z, min(z + planes, shape[0])) for z in range(0, shape[0], planes)]


def release(*arrays: AnyArray) -> None:
    """Give the pages of arrays in files back to the system, which reads them again where they are needed."""
    if sys.platform != "linux":
        return
    for array in arrays:
        owner: Any = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if isinstance(owner, _ScratchMap):
            owner.madvise(mmap.MADV_DONTNEED)


def in_slabs(
    function: Callable[..., AnyArray],
    *arrays: AnyArray,
    out: AnyArray | None = None,
) -> AnyArray:
    """The result of a function that treats every plane along the first axis alone; out: where it is written."""
    pieces = slabs(arrays[0].shape)
    if len(pieces) < 2 and out is None:
        return function(*arrays)
    for piece in pieces:
        values = function(*(array[piece] for array in arrays))
        if out is None:
            out = empty((len(arrays[0]), *values.shape[1:]), values.dtype)
        out[piece] = values
        del values
        release(out, *arrays)
    assert out is not None, "an array without planes has no slabs"
    return out


def map_slabs(
    function: Callable[..., Any],
    *arrays: AnyArray,
) -> list[Any]:
    """The result of a function for each slab of some arrays."""
    results = []
    for piece in slabs(arrays[0].shape):
        results.append(function(*(array[piece] for array in arrays)))
        release(*arrays)
    return results


def by_plane(function: Callable[..., AnyArray], *arrays: AnyArray) -> AnyArray:
    """One value (or row) for each plane along the first axis."""
    return np.concatenate(map_slabs(function, *arrays))


def count_nonzero(values: AnyArray) -> int:
    """The number of values of an array that are not 0."""
    return int(sum(map_slabs(np.count_nonzero, values)))


def least_and_most(values: AnyArray) -> tuple[Any, Any]:
    """The least and the largest value of an array."""
    ends = map_slabs(lambda slab: (slab.min(), slab.max()), values)
    return min(low for low, _ in ends), max(high for _, high in ends)


def spread_values(values: AnyArray, step: int) -> AnyArray:
    """Every step-th value of an array in C order, from the first on."""
    if len(slabs(values.shape)) < 2:
        return values.reshape(-1)[::step]
    plane = math.prod(values.shape[1:])
    pieces = []
    for piece in slabs(values.shape):
        first = -(piece.start * plane) % step
        pieces.append(values[piece].reshape(-1)[first::step].copy())
        release(values)
    return np.concatenate(pieces)


def chunks(array: AnyArray) -> Iterator[AnyArray]:
    """The values of an array in C order, as contiguous slabs."""
    part = array
    while part.ndim > 1 and len(part) == 1:
        part = part[0]
    if part.ndim == 0:
        part = part[None]
    for piece in slabs(part.shape):
        yield np.ascontiguousarray(part[piece]).reshape(-1)
        release(array)
