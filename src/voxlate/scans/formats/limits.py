"""The size up to which a scan is read: headers may claim any size, and compressed files may expand to any."""

import math
import os
import zlib
from collections.abc import Iterable

from voxlate.base.errors import BadInput
from voxlate.base.options.option import bytes_of
from voxlate.scans.options.layout import LARGEST_VOLUME

DEFAULT = "4GB"
BYTES_A_VOXEL = 4  # float32
CHUNK = 1 << 20


def most_bytes() -> float:
    """The size of the largest volume that is read, in bytes of its float32 voxels."""
    return bytes_of(os.environ.get(LARGEST_VOLUME, DEFAULT), LARGEST_VOLUME)


def check_volume(shape: Iterable[int], where: object) -> None:
    """Raise BadInput, before memory is allocated, where the voxels of this shape exceed the largest volume."""
    sizes = tuple(shape)
    needed = math.prod(sizes) * BYTES_A_VOXEL
    if needed > most_bytes():
        size = "×".join(str(length) for length in reversed(sizes))
        raise BadInput(
            f"{where}: expected a volume of at most {most_bytes() / 2**30:.3g} GB, found {size} voxels ({needed / 2**30:.3g} GB). If the file is sound, pass --max-volume {math.ceil(needed / 2**30)}GB."
        )


def check_expansion(chunks: Iterable[bytes], wbits: int, where: object) -> int:
    """The bytes to which compressed chunks expand, without keeping them; raises BadInput beyond the largest volume.

    wbits: as those of zlib. Raises zlib.error where the data are damaged, and EOFError where they are cut short.
    """
    most = most_bytes()
    stream = zlib.decompressobj(wbits)
    total = 0
    for chunk in chunks:
        left = chunk
        while left and not stream.eof:
            total += len(stream.decompress(left, CHUNK))
            left = stream.unconsumed_tail
            if total > most:
                raise BadInput(
                    f"{where}: expected data that expand to at most {most / 2**30:.3g} GB, found more. If the file is sound, pass a larger --max-volume."
                )
    total += len(stream.flush())
    if not stream.eof:
        raise EOFError("the compressed data are cut short")
    return total
