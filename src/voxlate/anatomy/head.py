"""The head on a grid: the one or two tissues of each voxel, and their shares."""

from dataclasses import dataclass

import numpy as np

from voxlate.anatomy.diseases import Lesion
from voxlate.anatomy.exposure import Exposure
from voxlate.anatomy.tissue import Tissue
from voxlate.base.array_types import AnyArray

FIELD_MM = (200.0, 240.0, 168.0)  # x, y, z: an adult head from the upper jaw to the vertex


@dataclass(frozen=True)
class Head:
    """One phantom patient on a grid [D, H, W] (z, y, x; growing to superior, anterior, right).

    labels, second: the tissues (`Label`) with the largest and second largest share of a voxel; share: that of `labels`,
    0..1. lesion_map: 1 core, 2 penumbra of a stroke; 1 necrosis, 2 oedema, 3 enhancing rim of a tumour. texture has
    unit variance. affine: 4 × 4, from the (x, y, z) index to RAS in mm. exposure: of its CT; hu: a real
    CT in its place.
    """

    labels: AnyArray
    second: AnyArray
    share: AnyArray
    lesion_map: AnyArray
    texture: AnyArray
    affine: AnyArray
    lesion: Lesion
    tissue: Tissue
    seed: int
    case: int
    exposure: Exposure
    hu: AnyArray | None = None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances of voxels along D, H and W."""
        dx, dy, dz = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(dz), float(dy), float(dx)
