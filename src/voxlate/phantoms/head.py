"""The head on a grid: the one or two tissues of each voxel, and their shares."""

from dataclasses import dataclass

import numpy as np

from voxlate.phantoms import anatomy as body
from voxlate.phantoms import brain
from voxlate.phantoms.anatomy import Anatomy, Lesion, LesionKind
from voxlate.phantoms.shapes import Points, Tube, ellipsoid, join, tubes
from voxlate.phantoms.tissue import BRAIN, TUMOUR, Label, Tissue, patient

FIELD_MM = (200.0, 240.0, 168.0)  # x, y, z: an adult head from the upper jaw to the vertex
_CENTRE_MM = (0.0, 0.0, 9.0)  # the field's centre in upright coordinates
_SLAB_VOXELS = 2**19  # bounds the memory of the distances for any size


@dataclass(frozen=True)
class Head:
    """One phantom patient on a grid [D, H, W] (z, y, x; growing to superior, anterior, right).

    labels, second: the tissues (`Label`) with the largest and second largest share of a voxel; share: that of `labels`,
    0..1. lesion_map: 1 core, 2 penumbra of a stroke; 1 necrosis, 2 oedema, 3 enhancing rim of a tumour. texture has
    unit variance. affine: 4 × 4, from the (x, y, z) index to RAS in mm.
    """

    labels: np.ndarray
    second: np.ndarray
    share: np.ndarray
    lesion_map: np.ndarray
    texture: np.ndarray
    affine: np.ndarray
    lesion: Lesion
    tissue: Tissue
    seed: int
    case: int

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        dx, dy, dz = np.diag(self.affine)[:3]
        return float(dz), float(dy), float(dx)


def make_head(
    seed: int,
    case: int,
    size: tuple[int, int, int],
    lesion: LesionKind = "none",
    asymmetry: float = 1.0,
) -> Head:
    """One case of a cohort; the same seed and case give the same head.

    size: voxels in x, y, z over the same field of view; asymmetry: 0 gives a head that is symmetric except for its
    lesion.
    """
    shape_rng, tissue_rng = np.random.default_rng([seed, case]).spawn(2)
    shape = body.anatomy(shape_rng, lesion, asymmetry)
    spacing = [field / n for field, n in zip(FIELD_MM, size)]
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(size, spacing)]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [axis[0] for axis in axes]
    x, y, z = ((axis + middle).astype(np.float32) for axis, middle in zip(axes, _CENTRE_MM))
    voxel_mm = float(np.prod(spacing)) ** (1 / 3)
    thickness = max(1, _SLAB_VOXELS // (size[0] * size[1]))
    starts = range(0, size[2], thickness)
    slabs = [_slab(shape, (x, y, z[start : start + thickness]), voxel_mm) for start in starts]
    labels, second, share, lesion_map, texture = (np.concatenate(parts) for parts in zip(*slabs))
    tissue = patient(tissue_rng)
    return Head(
        labels, second, share, lesion_map, texture, affine, shape.lesion, tissue, seed, case
    )


class _Canvas:
    """Voxels that are painted from the outside inwards; each keeps its last two tissues and their shares."""

    def __init__(self, shape: tuple[int, ...], voxel_mm: float):
        self.label = np.zeros(shape, dtype=np.uint8)
        self.second = np.zeros(shape, dtype=np.uint8)
        self.share = np.ones(shape, dtype=np.float32)
        self.voxel_mm = voxel_mm

    def paint(self, label: Label, distance: np.ndarray, where: np.ndarray | None = None) -> None:
        """Paint where `distance` is negative; a voxel that the surface crosses is shared by two tissues."""
        touched = distance < self.voxel_mm / 2
        if where is not None:
            touched &= where
        cover = np.clip(0.5 - distance[touched] / self.voxel_mm, 0, 1)
        old = self.label[touched]
        share = self.share[touched]
        same = old == label
        wins = cover >= 0.5
        new_share = np.where(wins, cover, 1 - cover)
        new_second = np.where(wins, old, label)
        self.share[touched] = np.where(same, np.maximum(share, cover), new_share)
        self.second[touched] = np.where(same, self.second[touched], new_second)
        self.label[touched] = np.where(same | wins, label, old)


def _slab(shape: Anatomy, axes: Points, voxel_mm: float) -> tuple[np.ndarray, ...]:
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    points = body.upright(shape, (x, y, z))
    canvas = _Canvas(x.shape, voxel_mm)
    envelope = brain.cerebrum(points)
    cerebellum = brain.cerebellum(points)
    stem = tubes(points, axes, brain.BRAINSTEM, 40)
    cavity = brain.cavity(join(join(envelope, cerebellum, 6), stem, 8), points)
    _face_and_skull(canvas, shape, points, axes, cavity)
    canvas.paint(Label.CSF, cavity)
    inner = body.displaced_by_tumour(shape.lesion, points, -cavity)
    _brain(canvas, shape, inner, axes, cerebellum, stem)
    lesion_map = _lesions(canvas, shape, points)
    for label, vessels in shape.vessels.items():
        if vessels:
            canvas.paint(label, tubes(inner, axes, vessels, 4))
    lesion_map *= np.isin(canvas.label, (*BRAIN, *TUMOUR))
    across = points[0] if shape.asymmetry else np.abs(points[0])
    texture = shape.texture.at((across, points[1], points[2]))
    return (
        canvas.label,
        canvas.second,
        canvas.share,
        lesion_map,
        texture.astype(np.float16),
    )


def _face_and_skull(
    canvas: _Canvas, shape: Anatomy, points: Points, axes: Points, cavity: np.ndarray
) -> None:
    x, y, z = points
    half: Points = (np.abs(x), y, z)
    rough = shape.rough.at(half)
    thick = shape.skull_mm + 0.5 * rough
    face = ellipsoid(points, (0, 38, -50), (64, 58, 62))
    face = join(face, ellipsoid(points, (0, -14, -90), (58, 62, 80)), 20)
    face = join(face, ellipsoid(points, (0, 99, -50), (12, 14, 22)), 10)
    outline = join(cavity - thick - 6.0, face, 14)
    ear = np.maximum(ellipsoid(half, (82, -12, -32), (9, 15, 26)), 0.5 * rough - 1)
    canvas.paint(Label.SKIN, join(outline, ear, 2))
    canvas.paint(Label.FAT, outline + 2.0)
    canvas.paint(Label.MUSCLE, np.maximum(outline + 4.6 + 0.8 * rough, z - 12 + 0.2 * y))
    canvas.paint(Label.MUSCLE, outline + 9 + rough)
    _orbits(canvas, half, axes, cavity)
    canvas.paint(Label.BONE, np.maximum(cavity - thick, -cavity - 3))
    canvas.paint(Label.DIPLOE, np.maximum(1.9 - cavity, cavity - thick + 1.9))
    frontal = ellipsoid(half, (9, 90, -6), (11, 4.5, 10)) + 1.2 * rough
    frontal = np.maximum(frontal, outline + 5)
    canvas.paint(Label.SINUS, np.maximum(frontal, 1.6 - cavity))
    cells = ellipsoid(half, (50, -32, -42), (11, 14, 15))
    canvas.paint(Label.BONE, cells, cavity > 0)
    holes = np.maximum(cells + 1.5, 2.5 * shape.texture.at(half))
    canvas.paint(Label.SINUS, holes, cavity > 1.5)


def _orbits(canvas: _Canvas, half: Points, axes: Points, cavity: np.ndarray) -> None:
    """Orbits with eyes, the airy spaces of the middle face, cheek bones and jaw."""
    x, y, z = half
    outside = cavity > 2
    orbit = ellipsoid((x + 0.35 * (y - 68), y, z), (31, 66, -37), (17, 27, 16))
    maxillary = ellipsoid(half, (29, 62, -66), (13, 15, 14))
    ethmoid = ellipsoid(half, (0, 64, -50), (11, 25, 20))
    sphenoid = ellipsoid(half, (6, 28, -40), (8, 10, 7))
    pharynx = ellipsoid(half, (0, 22, -76), (11, 10, 18))
    cavities = np.minimum(maxillary, orbit)
    walls = np.minimum(cavities, np.minimum(ethmoid, sphenoid)) - 1.6
    arch = Tube(((44, 66, -54), (58, 44, -47), (66, 20, -43), (67, 0, -42)), (4.0, 3.0))
    jaw = Tube(((56, 10, -50), (50, 16, -76), (47, 22, -100)), (4.5, 5.5))
    jaw_front = Tube(((47, 22, -86), (36, 62, -88), (0, 84, -90)), (5.5, 6.0))
    bones = tubes(half, axes, (arch, jaw, jaw_front), 6)
    canvas.paint(Label.BONE, np.minimum(walls, bones), outside)
    lids = ellipsoid(half, (31, 88, -37), (14, 10, 12))
    canvas.paint(Label.FAT, np.minimum(orbit, lids), outside)
    optic_nerve = Tube(((30, 64, -36), (20, 44, -32), (9, 26, -24)), (1.6, 1.6))
    canvas.paint(Label.WHITE, tubes(half, axes, [optic_nerve], 4), outside)
    rectus = (
        Tube(((40, 78, -37), (38, 60, -37), (24, 44, -34)), (1.3, 1.6)),
        Tube(((20, 78, -37), (19, 60, -37), (18, 44, -34)), (1.3, 1.6)),
    )
    canvas.paint(Label.MUSCLE, tubes(half, axes, rectus, 4), outside)
    canvas.paint(Label.MUSCLE, ellipsoid(half, (31, 76, -37), (12.2, 12.2, 12.2)))
    canvas.paint(Label.EYE, ellipsoid(half, (31, 76, -37), (11.2, 11.2, 11.2)))
    canvas.paint(Label.MUSCLE, ellipsoid(half, (31, 84, -37), (4.5, 2.2, 4.5)))
    sinuses = np.minimum(maxillary, sphenoid)
    canvas.paint(Label.SINUS, np.minimum(sinuses, pharynx), outside)
    # The shells lie between septum and turbinates.
    shells = np.abs(x - 5.5) - 1.1
    meatus = np.maximum(-shells, 1.0 - x)
    canvas.paint(Label.SINUS, np.maximum(ethmoid, meatus), outside)


def _brain(
    canvas: _Canvas,
    shape: Anatomy,
    points: Points,
    axes: Points,
    cerebellum: np.ndarray,
    stem: np.ndarray,
) -> None:
    cortex = brain.cortex_depth(shape, points, brain.cerebrum(points))
    canvas.paint(Label.GREY, -cortex)
    canvas.paint(Label.WHITE, shape.cortex_mm - cortex)
    canvas.paint(Label.CSF, np.maximum(cerebellum - 1.6, -cortex - 0.5), cortex < 1)
    folia = brain.folia_depth(points, cerebellum)
    canvas.paint(Label.GREY, -folia)
    canvas.paint(Label.WHITE, 2.0 - folia)
    canvas.paint(Label.WHITE, np.maximum(stem, points[2] - 2))
    half: Points = (np.abs(points[0]), points[1], points[2])
    canvas.paint(Label.WHITE, ellipsoid(half, (15, -22, -33), (9, 15, 8)))
    canvas.paint(Label.DEEP_GREY, body.deep_grey(points), cortex > 1)
    canvas.paint(Label.VENTRICLE, body.ventricles(shape, points, axes))


def _lesions(canvas: _Canvas, shape: Anatomy, points: Points) -> np.ndarray:
    """Paint a tumour, or map a stroke (its tissue keeps its labels); returns the lesion map."""
    lesion_map = np.zeros(canvas.label.shape, dtype=np.uint8)
    if shape.lesion.kind == "stroke":
        core, whole = body.territory(shape, points)
        lesion_map[whole < 0] = 2
        lesion_map[core < 0] = 1
        lesion_map *= np.isin(canvas.label, BRAIN) & (points[2] > -14)
    if shape.lesion.kind == "tumour":
        necrosis, rim, oedema = body.tumour(shape, points)
        soft = np.isin(canvas.label, (*BRAIN, Label.CSF, Label.VENTRICLE))
        inside = soft & (np.abs(points[0]) > 2)
        canvas.paint(Label.OEDEMA, oedema, canvas.label == Label.WHITE)
        canvas.paint(Label.ENHANCING, rim, inside)
        canvas.paint(Label.NECROSIS, np.maximum(necrosis, rim + 2.5), inside)
        for value, label in enumerate(TUMOUR, start=1):
            lesion_map[canvas.label == label] = value
    return lesion_map
