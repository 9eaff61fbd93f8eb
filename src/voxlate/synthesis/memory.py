"""Whether memory suffices for a large scan, which is estimated from its header before the scan is read."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.machine import free_memory
from voxlate.scans.formats.io import shape_in_header
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.facts import ModelFacts

GIB = 2**30
LARGE = 1 << 26  # voxels: scans with fewer fit into any machine
PROGRAM = 1.0 * GIB  # the program with its libraries, and a small network on a few slices
# bytes a voxel of arrays that live at the same time
SOURCE = 8  # as stored, and as read or a float32 copy for a moment
TARGET = 12  # in network units, in physical units, and with background or on the file's grid
MOMENT = 8  # of several samples: deviation and quantiles, in network units and in physical units
COMMON = 20  # masks, the weights of blended patches, and what a computation copies for a moment


def check_memory(scans: Mapping[str, Any], facts: ModelFacts) -> None:
    """Raise BadInput where a large scan needs more memory than there is; other scans are not checked.

    Scans whose header does not state a shape are not checked either: DICOM series and formats other than NIfTI.
    """
    shapes = {name: shape for name, scan in scans.items() if (shape := _shape_of(scan))}
    if not shapes:
        return
    name, shape = max(shapes.items(), key=lambda item: math.prod(item[1]))
    voxels = math.prod(shape)
    if voxels < LARGE:
        return
    memory, free = PROGRAM + voxels * bytes_a_voxel(len(scans), facts), free_memory()
    if memory > free:
        size = "×".join(map(str, reversed(shape)))
        raise BadInput(
            f"{name}: expected {memory / GIB:.1f} GB of free memory for a scan of {size} voxels, found {free / GIB:.1f} GB. Free some, take a machine with more, or resample the scan to larger voxels."
        )


def bytes_a_voxel(sources: int, facts: ModelFacts) -> int:
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
