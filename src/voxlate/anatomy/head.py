"""The head on a grid: the one or two tissues of each voxel, and their shares."""

from dataclasses import dataclass

import numpy as np

from voxlate.anatomy import ageing, bones, diseases
from voxlate.anatomy.ageing import Ageing
from voxlate.anatomy.bones import Airways, Bones
from voxlate.anatomy.diseases import Diseases, Lesion, Wanted
from voxlate.anatomy.exposure import Exposure
from voxlate.anatomy.shapes import NoiseField, Rng, Triple, Tube, noise, triple
from voxlate.anatomy.tissue import Label, Tissue
from voxlate.anatomy.vessels import vessels
from voxlate.base.array_types import AnyArray

FIELD_MM = (200.0, 240.0, 168.0)  # x, y, z: an adult head from the upper jaw to the vertex
# Its centre in upright coordinates lies between these.
_LOWEST_MM = (-6.0, 8.0, 12.0)
_HIGHEST_MM = (6.0, 16.0, 22.0)


@dataclass(frozen=True)
class Shape:
    """All random numbers of what a head holds beside the tissues of its label map; they do not depend on the image's size.

    centre_mm: of the field of view, in upright coordinates.
    """

    texture: NoiseField
    vessels: dict[Label, list[Tube]]
    ageing: Ageing
    diseases: Diseases
    airways: Airways
    bones: Bones
    centre_mm: Triple


def draw_shape(rng: Rng, wanted: Wanted) -> Shape:
    """Draw a head with a lesion."""
    rngs = rng.spawn(7)
    noise_rng, lesion_rng, vessel_rng = rngs[0].spawn(3)
    rough = noise(noise_rng, 16, 4, 64)
    ill = diseases.draw((lesion_rng, rngs[1], rngs[3]), wanted, rough)
    return Shape(
        noise(noise_rng, 9, 3, 84),
        vessels(vessel_rng, ill.lesion.side if ill.lesion.kind == "stroke" else 0),
        ageing.draw(rngs[2]),
        ill,
        bones.draw_airways(rngs[4]),
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
