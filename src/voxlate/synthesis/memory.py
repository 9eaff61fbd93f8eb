"""Whether memory and disk suffice for a large scan, which is estimated from its header before the scan is read."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlate.base import slabs
from voxlate.base.errors import BadInput
from voxlate.base.machine import free_disk, free_memory
from voxlate.scans.formats.io import shape_in_header
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.facts import ModelFacts

GIB = 2**30
PROGRAM = 1.0 * GIB  # the program with its libraries, and a small network on a few slices
SLAB_BYTES = 32  # a voxel of a slab, in the passes that take most
# bytes a voxel of arrays that live at the same time
SOURCE = 8  # as stored, and as read or a float32 copy for a moment
TARGET = 12  # in network units, in physical units, and with background or on the file's grid
MOMENT = 8  # of several samples: deviation and quantiles, in network units and in physical units
COMMON = 10  # masks, and the weights of blended patches
MASKS = 6  # of one byte a voxel, which stay in memory longer than arrays of floats


def check_memory(scans: Mapping[str, Any], facts: ModelFacts) -> None:
    """Raise BadInput where a large scan needs more memory or disk than there is; other scans are not checked.

    Scans whose header does not state a shape are not checked either: DICOM series and formats other than NIfTI.
    """
    shapes = {name: shape for name, scan in scans.items() if (shape := _shape_of(scan))}
    if not shapes:
        return
    name, shape = max(shapes.items(), key=lambda item: math.prod(item[1]))
    voxels = math.prod(shape)
    if 4 * voxels < slabs.LEAST_BYTES_IN_FILE:
        return
    size = "×".join(map(str, reversed(shape)))
    folder = slabs.scratch_folder()
    arrays = voxels * _bytes_a_voxel(len(scans), facts)
    memory = PROGRAM + min(slabs.SLAB, voxels) * SLAB_BYTES
    if folder is None:
        memory += arrays
    elif voxels < slabs.LEAST_BYTES_IN_FILE:  # masks are too small for files
        memory += MASKS * voxels
    free = free_memory()
    if memory > free:
        advice = "Free some, or take a machine with more."
        if folder is None:
            advice = "Take a machine with more, or use voxlate synth or voxlate.synthesise with a folder, which keep large arrays in files."
        raise BadInput(
            f"{name}: expected {memory / GIB:.1f} GB of free memory for a scan of {size} voxels, found {free / GIB:.1f} GB. {advice}"
        )
    if folder is None:
        return
    room = free_disk(folder)
    if arrays > room:
        raise BadInput(
            f"{name}: expected {arrays / GIB:.1f} GB of free disk in {folder} for a scan of {size} voxels, found {room / GIB:.1f} GB. Free some, or choose an --out on another disk."
        )


def _bytes_a_voxel(sources: int, facts: ModelFacts) -> int:
    """The bytes of all arrays of a case that exist at the same time, divided by its voxels."""
    moments = 3 if facts.synth.samples > 1 or facts.data.planes else 0
    return SOURCE * sources + (TARGET + MOMENT * moments) * len(facts.data.target) + COMMON


def _shape_of(scan: Any) -> Sequence[int] | None:
    """The shape of a scan [D, H, W] without its voxels; None where only reading them tells it."""
    if isinstance(scan, Volume):
        return scan.grid.shape
    if isinstance(scan, str | Path):
        return shape_in_header(Path(scan))
    return None
