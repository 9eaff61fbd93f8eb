"""Arrays that live in a file without a name, for volumes that would fill the memory."""

import mmap
import tempfile

import numpy as np

LARGE = 32 * 2**20  # bytes; below this a file is not worth its trouble


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array of zeros: in memory if it is small, else in a nameless file of the system's temporary folder.

    The file is gone when the array is, even if the process is killed. TMPDIR chooses the folder.
    """
    size = int(np.prod(shape)) * 4
    if size < LARGE:
        return np.zeros(shape, np.float32)
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return np.memmap(file, np.float32, "r+", shape=shape)


def spooled(array: np.ndarray) -> np.ndarray:
    """The same float32 values in such an array; slice by slice, so that a flipped view is not copied in memory."""
    if array.nbytes < LARGE:
        return array
    copy = zeros(array.shape)
    for channel, plane in np.ndindex(array.shape[:2]):
        copy[channel, plane] = array[channel, plane]
    release(copy)
    return copy


def release(array: np.ndarray) -> None:
    """Let go of the pages of a spooled array that are in memory; its values stay, in the file."""
    base = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base  # type: ignore[assignment]
    if isinstance(base, mmap.mmap):
        base.flush()
        base.madvise(mmap.MADV_DONTNEED)
