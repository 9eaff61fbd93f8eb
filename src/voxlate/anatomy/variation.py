"""The variation of a label map: what it does not tell apart, and where each voxel of a new head lies in it.

Drawn are fat and muscle, skin, dura, marrow, diploe, and contents of hollow organs. Airways are widened or swollen, so that their
mucosa differs between heads. The map is turned, mirrored, scaled, bent by smooth noise; the vault of the skull is thicker or
thinner, most of all above the nose, where its sinuses are, and the ventricles are wider or narrower.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from voxlate.anatomy.fine_anatomy import CEREBRUM_AXES, CEREBRUM_CENTRE
from voxlate.anatomy.label_map import CODES, LabelMap, enlarge
from voxlate.anatomy.shapes import (
    NoiseField,
    Points,
    Space,
    Triple,
    bounded_normal,
    noise,
    triple,
)
from voxlate.anatomy.tissue import SKULL, Label, Rng
from voxlate.base.array_types import AnyArray
from voxlate.scans.images.mask import box_around, erode

_CROSS = ndimage.generate_binary_structure(3, 1)
_VAULT_MM = 14.0  # cancellous bone closer to the brain is diploe
_ORBIT_MM = 11.0  # fat around the optic nerve and the eye's muscles
_SPINE_MM = 12.0  # below the lowest brain, from where fluid is that of the spine
_CORTEX_MM = 2.5
_BROW_MM = 25.0  # depth from the front of the brain in which the frontal sinuses are
_WALL_MM = 2.0  # of hollow organs


@dataclass(frozen=True)
class Habitus:
    """The random numbers of one body.

    skin_mm; fat_mm: depth of subcutaneous fat; muscle_mm: of the thin muscles on the skull; plane_mm: thickness of planes of
    fat; swelling_mm: by which mucosa narrows the airways, negative where they are wide, modulated by `lobes`; cortex_mm: of
    bones of one label; dura: where it shows, 2.5 nearly everywhere; gas: share of hollow organs; wet: share of air cells that
    hold fluid; planes, lobes: noise whose zeros are planes of fat between muscles, and whose peaks are lobes of fat; shrunk_mm: depth to which fluid replaces the
    surface of the brain, as in old age; table_mm: depth in bone below which it is diploe or marrow, inf where only the map says
    so: dark bone that is thick would look like a sinus.
    """

    skin_mm: float
    fat_mm: float
    muscle_mm: float
    plane_mm: float
    swelling_mm: float
    cortex_mm: float
    dura: float
    gas: float
    wet: float
    planes: NoiseField
    lobes: NoiseField
    shrunk_mm: float
    table_mm: float


def draw_habitus(rng: Rng) -> Habitus:
    """Draw the habitus of a body."""
    # The order of the draws decides the bodies.
    return Habitus(
        skin_mm=rng.uniform(1.2, 2.4),
        fat_mm=rng.uniform(0.6, 7.0),
        muscle_mm=rng.uniform(0.8, 2.6),
        plane_mm=rng.uniform(0.1, 0.7),
        swelling_mm=rng.uniform(-1.8, 2.6),
        cortex_mm=rng.uniform(1.2, 2.6),
        dura=rng.uniform(-0.5, 2.5),
        gas=rng.uniform(0.0, 1.0),
        wet=rng.uniform(0.1, 0.9) if rng.random() < 0.25 else 0.0,
        planes=noise(rng, 15, 3, 64),
        lobes=noise(rng, 34, 6, 48),
        shrunk_mm=rng.uniform(0, 4) if rng.random() < 0.4 else 0.0,
        table_mm=rng.uniform(1.0, 2.4) if rng.random() < 0.95 else np.inf,
    )


def draw_tissues(body: LabelMap, habitus: Habitus) -> AnyArray:
    """The tissues of a label map: numbers of `Label` and of its table's own ones, uint8 [D, H, W]."""
    out = body.codes.copy()
    lobes = _field(body, habitus.lobes)
    _vary_airways(out, body, habitus, lobes)
    skull_mm = body.distance_mm(body.where(Label.BONE, "cancellous", "whole_bone"))
    _draw_soft(out, body, habitus, lobes, skull_mm)
    _draw_bones(out, body, habitus, lobes)
    _draw_hollow(out, body, habitus, lobes)
    fluid = body.where("fluid")
    out[fluid] = Label.CSF
    if body.brain.any():
        _shrink(out, body, habitus, lobes)
        # Dura is the fluid beside the skull, where it is thick enough to show.
        skull = ndimage.binary_dilation(np.isin(out, SKULL), _CROSS)
        out[fluid & skull & (lobes < habitus.dura)] = Label.DURA
        lowest = box_around(body.brain)[0][0]
        below = max(lowest - round(_SPINE_MM / body.spacing_mm[0]), 0)
        spine = out[:below]
        spine[np.isin(spine, (Label.CSF, Label.DURA))] = Label.SPINAL_FLUID
    else:
        out[fluid] = Label.SPINAL_FLUID  # FLUID of an organ, which is not in the skull
    return out


def _field(body: LabelMap, of: NoiseField) -> AnyArray:
    """Noise at the voxels of a map, interpolated from coarse ones."""
    steps = body.coarse_steps
    axes = [
        np.arange(0, length, step, dtype=np.float32) * np.float32(spacing)
        for length, step, spacing in zip(body.codes.shape, steps, body.spacing_mm)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return enlarge(of.at((x, y, z)), body.codes.shape, steps)


def _vary_airways(out: AnyArray, body: LabelMap, habitus: Habitus, lobes: AnyArray) -> None:
    """Swell or widen mucosa beside internal air, and fill some cells with fluid; bone stays."""
    air = body.where(Label.SINUS)
    if body.table.inside != "air":
        return
    swelling = habitus.swelling_mm + 0.8 * lobes
    depth = body.distance_mm(~air)
    out[air & (depth < swelling) & (swelling > 0)] = Label.MUCOSA
    outside = body.distance_mm(air)
    soft = body.where("soft", Label.MUCOSA, Label.MUSCLE) & (body.depth_mm > 6)
    out[soft & (outside < -0.7 * swelling)] = Label.SINUS
    if habitus.wet:
        # Cells beside each other fill together, and fluid rests on the back of the lying head.
        back = np.linspace(0, 1, air.shape[1], dtype=np.float32)[None, :, None]
        out[air & (lobes > 0.6) & (back < habitus.wet) & (body.depth_mm > 8)] = Label.SINUS_FLUID


def _draw_soft(
    out: AnyArray, body: LabelMap, habitus: Habitus, lobes: AnyArray, skull_mm: AnyArray
) -> None:
    """Muscle with planes and lobes of fat below the skin and its fat; fat in the orbits."""
    soft = out == CODES["soft"]
    depth = body.depth_mm
    has_skin = bool(body.where(Label.SKIN).any())
    skin_mm = 2.0 if has_skin else habitus.skin_mm
    planes = np.abs(_field(body, habitus.planes)) * 6  # mm: the noise's slope is about 1 in 6 mm
    fat = depth < skin_mm + habitus.fat_mm * (1 + 0.35 * lobes)
    # On the skull a thin muscle or its tendon lies below the fat.
    fat &= (skull_mm > habitus.muscle_mm * (1 + 0.4 * lobes)) | (depth < skin_mm + 1)
    fat |= planes < habitus.plane_mm * (1 + lobes)
    fat |= lobes > 1.5
    orbit = body.distance_mm(body.where(Label.EYE)) < _ORBIT_MM
    fat |= orbit & (depth > 6)
    out[soft] = np.where(fat[soft], np.uint8(Label.FAT), np.uint8(Label.MUSCLE))
    if not has_skin:
        out[soft & (depth < skin_mm)] = Label.SKIN


def _draw_bones(out: AnyArray, body: LabelMap, habitus: Habitus, lobes: AnyArray) -> None:
    """Diploe around the brain, marrow elsewhere, both within a cortex of bone."""
    near = body.distance_mm(body.brain) < _VAULT_MM
    inner = np.where(near, np.uint8(Label.DIPLOE), np.uint8(Label.MARROW))
    has_brain = bool(body.brain.any())
    cancellous = body.where("cancellous")
    if has_brain:
        cancellous |= _holes_of_vault(out, body)
    out[cancellous] = inner[cancellous]
    if has_brain and np.isfinite(habitus.table_mm):
        bone = np.isin(out, SKULL)
        deep = erode(bone, max(habitus.table_mm, min(body.spacing_mm)), body.spacing_mm)
        deep &= lobes > -1  # the rest is dense, as around the inner ear
        out[deep] = inner[deep]
    whole = body.where("whole_bone")
    deep = erode(whole, max(habitus.cortex_mm, min(body.spacing_mm)), body.spacing_mm)
    out[whole] = Label.BONE
    out[deep] = inner[deep]


def _holes_of_vault(out: AnyArray, body: LabelMap) -> AnyArray:
    """Air in the vault behind the frontal sinuses, which is diploe that a segmentation took for air."""
    (low, high), (_, front), _ = box_around(body.brain)
    holes = out == Label.SINUS
    holes[: (low + high) // 2] = False
    holes[:, front - round(_BROW_MM / body.spacing_mm[1]) :] = False
    return holes


def _draw_hollow(out: AnyArray, body: LabelMap, habitus: Habitus, lobes: AnyArray) -> None:
    """A muscular wall around content, with gas where noise is high and above it in the lying body."""
    hollow = body.where("hollow")
    lumen = erode(hollow, max(_WALL_MM, min(body.spacing_mm)), body.spacing_mm)
    out[hollow] = Label.MUSCLE
    out[lumen] = Label.SINUS_FLUID
    out[lumen & (lobes > 1.5 - 2 * habitus.gas)] = Label.SINUS


def _shrink(out: AnyArray, body: LabelMap, habitus: Habitus, lobes: AnyArray) -> None:
    """Fluid in place of the surface of the brain, with cortex below it."""
    if not habitus.shrunk_mm:
        return
    depth = body.distance_mm(~body.brain) - habitus.shrunk_mm * (1 + 0.5 * lobes)
    out[(out == Label.WHITE) & (depth < _CORTEX_MM)] = Label.GREY
    out[body.brain & (depth < 0)] = Label.CSF


_TURN_DEGREES = (9.0, -4.0, 5.0)  # standard deviations around x (nodding), y and z
_VAULT_THICKNESS_MM = 7.0  # average thickness, over which a displacement grows
_SCALP_MM = 12.0  # beyond the vault, over which it fades
_FADE_MM = 10.0  # around the ventricles
_PITCH_MM = 4.0  # of stored displacements
_BROW = "0 80 4 | 40 30 36"  # centre and half axes of the bone that holds the frontal sinuses


@dataclass(frozen=True)
class HeadGrid:
    """The phantoms' upright coordinates in a map: upright = (map - origin) * scale, in x, y, z."""

    origin_mm: Triple
    scale: Triple

    def upright(self, points: Points) -> Space:
        """Upright coordinates of points of the map."""
        return Space(
            *(
                (p - np.float32(o)) * np.float32(s)
                for p, o, s in zip(points, self.origin_mm, self.scale)
            )
        )


def frame_of(body: LabelMap) -> HeadGrid:
    """The frame in which the brain's box is that of the phantoms' cerebrum."""
    spacing = body.spacing_mm[::-1]
    sides = zip(box_around(body.brain)[::-1], spacing)
    ends = [(first * step, (end - 1) * step) for (first, end), step in sides]
    half = [(last - first) / 2 for first, last in ends]
    x, y = CEREBRUM_AXES[0] / half[0], CEREBRUM_AXES[1] / half[1]
    z = (x + y) / 2
    top = CEREBRUM_CENTRE[2] + CEREBRUM_AXES[2]
    origin = (sum(ends[0]) / 2, sum(ends[1]) / 2, ends[2][1] - top / z)
    return HeadGrid(triple(origin), triple((x, y, z)))


@dataclass(frozen=True)
class Variation:
    """The random numbers of one variation.

    turn: 3 × 3; mirror: whether left and right change places; scale: of x, y, z; bend_mm: standard deviation of the
    displacement by the noise `bend`; vault_mm: by which the vault is thicker, modulated by `bend`; brow_mm: by which it is
    thicker still around the frontal sinuses; ventricle_mm: by which the ventricles' walls lie further out.
    """

    turn: AnyArray
    mirror: bool
    scale: AnyArray
    bend: tuple[NoiseField, ...]
    bend_mm: float
    vault_mm: float
    brow_mm: float
    ventricle_mm: float


def draw_variation(rng: Rng) -> Variation:
    """Draw a variation."""
    # The order of the draws decides the bodies.
    return Variation(
        turn=Rotation.from_euler(
            "XYZ", _TURN_DEGREES * bounded_normal(rng, 3), degrees=True
        ).as_matrix(),
        mirror=rng.random() < 0.5,
        scale=np.exp(0.05 * bounded_normal(rng, 3)),
        bend=tuple(noise(rng, 80, 10, 32) for _ in range(3)),
        bend_mm=rng.uniform(1.0, 4.5),
        # 20 label maps have a vault of 6.0 mm, two real CTs of 7.8 and 9.0
        vault_mm=rng.uniform(-1.0, 3.0),
        brow_mm=rng.uniform(0, 10) if rng.random() < 0.7 else 0.0,
        ventricle_mm=rng.uniform(-1.5, 1.5) if rng.random() < 0.6 else rng.uniform(0, 5),
    )


@dataclass(frozen=True)
class Places:
    """Where voxels of the new head lie in the map; middle_mm: the point (x, y, z) of the map that stays in place.

    inner: displacement of the map's points by vault and ventricles, [3, D, H, W] (x, y, z) on points _PITCH_MM apart.
    """

    variation: Variation
    middle_mm: Triple
    inner: AnyArray | None

    def on(self, axes: Points) -> Points:
        """Coordinates in mm from the map's first voxel, [D, H, W] each, of a grid with axes x, y, z in mm from the middle."""
        drawn = self.variation
        points = np.meshgrid(*axes[::-1], indexing="ij", sparse=True)[::-1]
        bent = [p + drawn.bend_mm * field.on(axes) for p, field in zip(points, drawn.bend)]
        matrix = (drawn.turn / drawn.scale[:, None]).astype(np.float32)
        turned = [sum(a * p for a, p in zip(row, bent)) for row in matrix]
        placed = [p + np.float32(c) for p, c in zip(turned, self.middle_mm)]
        if self.inner is None:
            return placed
        index = np.stack(placed[::-1]) / np.float32(_PITCH_MM)
        return [
            p + ndimage.map_coordinates(field, index, order=1, mode="nearest", output=np.float32)
            for p, field in zip(placed, self.inner)
        ]


def places_of(body: LabelMap, tissues: AnyArray, drawn: Variation) -> Places:
    """The places of a variation of a map, whose bones stay as they are where it has no brain."""
    spacing = body.spacing_mm[::-1]
    x, y, z = ((n - 1) / 2 * step for n, step in zip(tissues.shape[::-1], spacing))
    inner = _inner(body, tissues, drawn) if body.brain.any() else None
    return Places(drawn, (x, y, z), inner)


def _inner(body: LabelMap, tissues: AnyArray, drawn: Variation) -> AnyArray:
    """Displacements that thicken the vault and widen the ventricles: of the map's points, so against the growth."""
    lengths = list(zip(tissues.shape, body.spacing_mm))
    axes = [np.arange(0, n * step, _PITCH_MM) for n, step in lengths]
    index = [
        np.minimum(np.rint(axis / step).astype(int), n - 1)
        for axis, (n, step) in zip(axes, lengths)
    ]
    coarse = np.ix_(*index)
    fluid = tissues[coarse] == Label.CSF
    cavity = body.brain[coarse] | fluid | (tissues[coarse] == Label.DURA)
    cavity = ndimage.binary_closing(np.pad(cavity, 2), iterations=2)[2:-2, 2:-2, 2:-2]
    outside, away = _signed(cavity)
    rise = np.clip(outside / _VAULT_THICKNESS_MM, 0, 1) * np.clip(
        1 + (_VAULT_THICKNESS_MM - outside) / _SCALP_MM, 0, 1
    )
    z, y, x = np.meshgrid(*(axis.astype(np.float32) for axis in axes), indexing="ij")
    thicker = drawn.vault_mm * (1 + 0.3 * drawn.bend[0].at((y, z, x)))
    if drawn.brow_mm:
        from_brow = frame_of(body).upright((x, y, z)).ellipsoid(_BROW)
        thicker = thicker + drawn.brow_mm * np.clip(-from_brow / 10, 0, 1)
    displacement = -rise * thicker * away
    ventricles = tissues[coarse] == Label.VENTRICLE
    if ventricles.any():
        outside, away = _signed(ventricles)
        fade = np.exp(-np.abs(outside) / _FADE_MM)
        displacement = displacement - drawn.ventricle_mm * fade * away
    return displacement.astype(np.float32)


def _signed(mask: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Distance in mm to the surface of a mask, negative inside, and its direction [3, D, H, W] (x, y, z)."""
    far = ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)
    far = ndimage.gaussian_filter(far * _PITCH_MM, 1)
    slope = np.stack(np.gradient(far, _PITCH_MM)[::-1])
    return far, slope / np.maximum(np.sqrt((slope**2).sum(0)), 0.3)
