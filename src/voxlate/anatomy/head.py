"""The head on a grid: the one or two tissues of each voxel, and their shares."""

from dataclasses import dataclass

import numpy as np

from voxlate.anatomy import ageing, airways, bones, diseases
from voxlate.anatomy.ageing import Ageing
from voxlate.anatomy.airways import Airways
from voxlate.anatomy.bones import Bones
from voxlate.anatomy.diseases import Carried, Diseases, LesionShape
from voxlate.anatomy.exposure import Exposure
from voxlate.anatomy.head_shape import Anatomy, Lesion, LesionKind, anatomy
from voxlate.anatomy.shapes import Rng, Triple, triple
from voxlate.anatomy.tissue import Tissue
from voxlate.base.array_types import AnyArray

FIELD_MM = (200.0, 240.0, 168.0)  # x, y, z: an adult head from the upper jaw to the vertex
# Its centre in upright coordinates lies between these.
_LOWEST_MM = (-6.0, 8.0, 12.0)
_HIGHEST_MM = (6.0, 16.0, 22.0)


@dataclass(frozen=True)
class Shape:
    """All random numbers of one head's shape; they do not depend on the image's size.

    carried: a lesion of a label map, in place of the one that is drawn; centre_mm: of the field of view, in upright
    coordinates.
    """

    base: Anatomy
    ageing: Ageing
    diseases: Diseases
    carried: Carried | None
    airways: Airways
    bones: Bones
    centre_mm: Triple


def draw_shape(rng: Rng, kind: LesionKind, lesion: LesionShape | None) -> Shape:
    """Draw a head; lesion: of a label map, in place of one of this kind."""
    rngs = rng.spawn(7)
    base = anatomy(rngs[0], kind if lesion is None else "none")
    ill, base = diseases.draw(rngs[1], base)
    return Shape(
        base,
        ageing.draw(rngs[2]),
        ill,
        None if lesion is None else diseases.carry(rngs[3], lesion),
        airways.draw(rngs[4]),
        bones.draw(rngs[5]),
        triple(rngs[6].uniform(_LOWEST_MM, _HIGHEST_MM)),
    )


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
