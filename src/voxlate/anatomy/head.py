"""The head on a grid: the one or two tissues of each voxel, and their shares."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from voxlate.anatomy import detailed, exposure, simple
from voxlate.anatomy.anatomy import Anatomy, Lesion, LesionKind, anatomy, upright
from voxlate.anatomy.canvas import Canvas
from voxlate.anatomy.diseases import LesionShape
from voxlate.anatomy.exposure import Exposure
from voxlate.anatomy.shapes import Points, Space
from voxlate.anatomy.tissue import Tissue, patient
from voxlate.base.arrays import AnyArray

Painter = Callable[..., AnyArray]  # of a canvas; returns the lesion map

FIELD_MM = (200.0, 240.0, 168.0)  # x, y, z: an adult head from the upper jaw to the vertex
_CENTRE_MM = (0.0, 0.0, 9.0)  # the field's centre in upright coordinates
_SLAB_VOXELS = 2**19  # bounds the memory of the distances for any size


@dataclass(frozen=True)
class Head:
    """One phantom patient on a grid [D, H, W] (z, y, x; growing to superior, anterior, right).

    labels, second: the tissues (`Label`) with the largest and second largest share of a voxel; share: that of `labels`,
    0..1. lesion_map: 1 core, 2 penumbra of a stroke; 1 necrosis, 2 oedema, 3 enhancing rim of a tumour. texture has
    unit variance. affine: 4 × 4, from the (x, y, z) index to RAS in mm. exposure: of its CT; None: that of anatomy 1.
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
    exposure: Exposure | None = None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances of voxels along D, H and W."""
        dx, dy, dz = np.diag(self.affine)[:3]
        return float(dz), float(dy), float(dx)


def make_head(
    seed: int,
    case: int,
    size: tuple[int, int, int],
    lesion: LesionKind = "none",
    version: int = 1,
    shape: LesionShape | None = None,
) -> Head:
    """One case of a cohort; the same seed and case give the same head.

    size: voxels in x, y, z over the same field of view; version: 1, the plain head on which older cohorts rest, or 2, the detailed one (`phantoms.detailed`).
    shape: of version 2, a lesion of a label map in place of one of the kind.
    """
    shape_rng, tissue_rng, exposure_rng = np.random.default_rng([seed, case]).spawn(3)
    if version == 1:
        base = anatomy(shape_rng, lesion)
        paint = partial(simple.paint, shape=base)
        drawn, centre_mm, scanner = base.lesion, _CENTRE_MM, None
    else:
        whole = detailed.draw(shape_rng, lesion, shape)
        base = whole.base
        paint = partial(detailed.paint, shape=whole)
        drawn, centre_mm = whole.contents.base.lesion, whole.centre_mm
        scanner = exposure.draw(exposure_rng)
    spacing = [field / n for field, n in zip(FIELD_MM, size)]
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(size, spacing)]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [axis[0] for axis in axes]
    x, y, z = ((axis + middle).astype(np.float32) for axis, middle in zip(axes, centre_mm))
    voxel_mm = float(np.prod(spacing)) ** (1 / 3)
    thickness = max(1, _SLAB_VOXELS // (size[0] * size[1]))
    starts = range(0, size[2], thickness)
    slabs = [_slab(base, paint, (x, y, z[start : start + thickness]), voxel_mm) for start in starts]
    labels, second, share, lesion_map, texture = map(np.concatenate, zip(*slabs))
    tissue = patient(tissue_rng)
    maps = (labels, second, share, lesion_map, texture)
    return Head(*maps, affine, drawn, tissue, seed, case, scanner)


def _slab(base: Anatomy, paint: Painter, straight: Points, voxel_mm: float) -> tuple[AnyArray, ...]:
    """Labels, second labels, shares, lesion map and texture of a few slices; straight: x [W], y [H], z [D] in mm."""
    z, y, x = np.meshgrid(*straight[::-1], indexing="ij")
    grid = Space(x, y, z, straight)
    points = upright(base, grid)
    canvas = Canvas(x.shape, voxel_mm)
    lesion_map = paint(canvas, points=points, grid=grid)
    texture = base.texture.at(points).astype(np.float16)
    return canvas.label, canvas.second, canvas.share, lesion_map, texture
