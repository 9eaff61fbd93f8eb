"""The head on a grid: the one or two tissues of each voxel, and their shares."""

from dataclasses import dataclass, replace

import numpy as np

from voxlate.anatomy import bones, brain, contents, diseases, exposure, face, furniture
from voxlate.anatomy import head_shape as body
from voxlate.anatomy.canvas import blank
from voxlate.anatomy.contents import Contents
from voxlate.anatomy.diseases import LesionShape
from voxlate.anatomy.exposure import Exposure
from voxlate.anatomy.face import Face
from voxlate.anatomy.furniture import Furniture
from voxlate.anatomy.head_shape import Anatomy, Bending, Lesion, LesionKind
from voxlate.anatomy.shapes import Points, Rng, Space, Triple, triple
from voxlate.anatomy.tissue import Tissue, patient
from voxlate.base.array_types import AnyArray

FIELD_MM = (200.0, 240.0, 168.0)  # x, y, z: an adult head from the upper jaw to the vertex
# Its centre in upright coordinates lies between these.
_LOWEST_MM = (-6.0, -14.0, -22.0)
_HIGHEST_MM = (6.0, 12.0, 12.0)
_SLAB_VOXELS = 2**19  # bounds the memory of the distances for any size


@dataclass(frozen=True)
class Shape:
    """All random numbers of one head's shape; they do not depend on the image's size.

    centre_mm: of the field of view, in upright coordinates.
    """

    base: Anatomy
    face: Face
    contents: Contents
    furniture: Furniture
    centre_mm: Triple


def draw_shape(rng: Rng, kind: LesionKind, lesion: LesionShape | None) -> Shape:
    """Draw a head; lesion: of a label map, in place of one of this kind."""
    base_rng, pose_rng, face_rng, contents_rng, furniture_rng, lesion_rng = rng.spawn(6)
    base = body.anatomy(base_rng, kind if lesion is None else "none")
    inside = contents.draw(contents_rng, base)
    if lesion is not None:
        inside = replace(inside, carried=diseases.carry(lesion_rng, lesion))
    return Shape(
        base,
        face.draw(face_rng),
        inside,
        furniture.draw(furniture_rng, base.scale),
        triple(pose_rng.uniform(_LOWEST_MM, _HIGHEST_MM)),
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


def make_head(
    seed: int,
    case: int,
    size: tuple[int, int, int],
    lesion: LesionKind = "none",
    carried: LesionShape | None = None,
) -> Head:
    """One case of a cohort; the same seed and case give the same head.

    size: voxels in x, y, z over the same field of view; carried: a lesion of a label map in place of one of the kind.
    """
    shape_rng, tissue_rng, exposure_rng = np.random.default_rng([seed, case]).spawn(3)
    shape = draw_shape(shape_rng, lesion, carried)
    spacing = [field / n for field, n in zip(FIELD_MM, size)]
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(size, spacing)]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [axis[0] for axis in axes]
    x, y, z = ((axis + middle).astype(np.float32) for axis, middle in zip(axes, shape.centre_mm))
    bent = body.bending(shape.base, (x, y, z))
    voxel_mm = float(np.prod(spacing)) ** (1 / 3)
    thickness = max(1, _SLAB_VOXELS // (size[0] * size[1]))
    starts = range(0, size[2], thickness)
    slabs = [_slab(shape, bent, (x, y, z[start : start + thickness]), voxel_mm) for start in starts]
    labels, second, share, lesion_map, texture = map(np.concatenate, zip(*slabs))
    maps = (labels, second, share, lesion_map, texture)
    drawn = shape.contents.base.lesion
    tissue = patient(tissue_rng)
    return Head(*maps, affine, drawn, tissue, seed, case, exposure.draw(exposure_rng))


def _slab(shape: Shape, bent: Bending, straight: Points, voxel_mm: float) -> tuple[AnyArray, ...]:
    """Labels, second labels, shares, lesion map and texture of a few slices; straight: x [W], y [H], z [D] in mm."""
    points = body.upright(shape.base, bent, straight)
    canvas = blank(points.x.shape, voxel_mm)
    outer = brain.envelope(points)
    z, y, x = np.meshgrid(*straight[::-1], indexing="ij", sparse=True)
    furniture.paint(canvas, shape.furniture, Space(x, y, z))
    face.paint(canvas, shape.base, shape.face, points, outer.cavity)
    lesion_map = contents.paint(canvas, shape.contents, points, outer)
    face.paint_ridges(canvas, shape.face, points)
    bones.paint_plates(canvas, shape.face.bones, points)
    texture = shape.base.texture.on(straight).astype(np.float16)
    return canvas.label, canvas.second, canvas.share, lesion_map, texture
