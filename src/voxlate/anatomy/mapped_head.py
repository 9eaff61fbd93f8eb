"""A head, or any other body, on a grid, from a label map: varied, drawn out, with findings and metal.

The maps that come with the package are those of SynthSeg (Apache-2.0): Billot et al. 2023, Med Image Anal 86:102789.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from voxlate.anatomy import diseases, fine_anatomy, variation
from voxlate.anatomy.diseases import Ageing, Diseases, Lesion, LesionKind, before_tumour
from voxlate.anatomy.fine_anatomy import Plate
from voxlate.anatomy.label_map import LabelMap, read_table
from voxlate.anatomy.shapes import (
    Canvas,
    NoiseField,
    Points,
    Space,
    Triple,
    Tube,
    noise,
    triple,
)
from voxlate.anatomy.signal import FIELD_MM, Exposure, Head, draw_exposure
from voxlate.anatomy.tissue import INTRACRANIAL, SKULL, TUMOUR, Label, Rng, Tissue
from voxlate.anatomy.variation import HeadGrid, Places, frame_of
from voxlate.base.array_types import AnyArray
from voxlate.base.items import stable_id
from voxlate.scans.images.mask import box_around, erode

SHIPPED_HEADS = ("head_01", "head_10", "head_18")
TABLE = "synthseg"
SPACINGS_MM = (2, 4)  # of the maps
_COARSE_MM = 3.0  # voxels of phantoms whose maps are the coarse ones
_SLAB_VOXELS = 2**21  # bounds the memory of the coordinates
_FIELD_Z_MM = 9.0  # upright coordinates of the phantoms' middle slice
_CUT = 0.3  # share of heads whose lowest part the scan leaves out
_ROOM = 1.2  # size of the grid on which a body is painted, relative to the map
# Its centre in upright coordinates lies between these.
_LOWEST_MM = (-6.0, 8.0, 12.0)
_HIGHEST_MM = (6.0, 16.0, 22.0)


def make_mapped_head(
    body: LabelMap,
    seed: int,
    case: int,
    spacing_mm: Triple | None,
    lesion: LesionKind = "none",
) -> Head:
    """One variation of a label map; the same map, name, seed and case give the same head.

    spacing_mm: voxels along x, y, z, by default the map's; lesion: of maps that show a brain.
    """
    rng = np.random.default_rng([seed, case, stable_id(body.name)])
    scene = draw_scene(rng, body, lesion)
    (cut_rng,) = rng.spawn(1)
    step = triple(spacing_mm or body.spacing_mm[::-1])
    axes = _axes(body.codes.shape, body.spacing_mm, step)
    maps = paint(scene, axes)
    box = _box(maps[0], step, cut_rng)
    affine = _affine(scene, axes, box, step)
    return head_of(scene, [array[box] for array in maps], affine, seed, case)


def make_head(
    seed: int, case: int, size: tuple[int, int, int], lesion: LesionKind = "none"
) -> Head:
    """One case of a cohort; the same seed and case give the same head.

    size: voxels in x, y, z over the same field of view.
    """
    spacing = np.divide(FIELD_MM, size)
    voxel_mm = float(np.prod(spacing)) ** (1 / 3)
    body = _read(map_of(case), SPACINGS_MM[voxel_mm > _COARSE_MM])
    scene = draw_scene(np.random.default_rng([seed, case]), body, lesion)
    assert scene.frame is not None
    # Where the middle of the frame comes to lie, without its bending.
    moved, places = scene.places.variation, scene.places
    from_middle = np.subtract(scene.frame.origin_mm, places.middle_mm)
    origin = moved.turn.T @ (moved.scale * from_middle)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * step for n, step in zip(size, spacing)]
    corner = affine[:3, 3] + origin + scene.centre_mm
    axes = [
        (np.arange(n) * step + first).astype(np.float32)
        for n, step, first in zip(size, spacing, corner)
    ]
    return head_of(scene, paint(scene, axes), affine, seed, case)


def map_of(case: int) -> str:
    """The name of a case's map; each has each kind of lesion in a cohort of mixed ones."""
    turn = case // len(SHIPPED_HEADS)
    return SHIPPED_HEADS[(case + turn) % len(SHIPPED_HEADS)]


@lru_cache
def _read(name: str, spacing_mm: int) -> LabelMap:
    """A map that comes with the package."""
    with np.load(file_of(name, spacing_mm)) as file:
        codes = file["codes"]
    return LabelMap(name, codes, (float(spacing_mm),) * 3, read_table(TABLE))


def file_of(name: str, spacing_mm: int) -> Path:
    """The file of a map that comes with the package (benchmarks/shipped_maps.py writes it)."""
    return Path(__file__).with_name("heads") / f"{name}_{spacing_mm}mm.npz"


@dataclass(frozen=True)
class Scene:
    """All random numbers of a body, which do not depend on the image's size, and all that is painted.

    frame: None where the map shows no brain, and nothing of a head is painted; centre_mm: of the field of view, in
    upright coordinates.
    """

    body: LabelMap
    tissues: AnyArray
    places: Places
    frame: HeadGrid | None
    texture: NoiseField
    vessels: dict[Label, list[Tube]]
    ageing: Ageing
    diseases: Diseases
    teeth: dict[Label, list[Tube]]
    plates: list[Plate]
    centre_mm: Triple
    tissue: Tissue
    exposure: Exposure


def draw_scene(rng: Rng, body: LabelMap, wanted: LesionKind) -> Scene:
    """Draw a variation of a map with a lesion, its tissues, and where it places them."""
    shape_rng, vary_rng, habitus_rng, tissue_rng, exposure_rng = rng.spawn(5)
    fine_rng, ill_rng, age_rng, _, airways_rng, bones_rng, centre_rng = shape_rng.spawn(7)
    noise_rng, lesion_rng, vessel_rng = fine_rng.spawn(3)
    rough = noise(noise_rng, 16, 4, 64)
    ill = diseases.draw(lesion_rng, ill_rng, wanted, rough)
    drawn = variation.draw_variation(vary_rng)
    if drawn.mirror:
        body = body.mirror()
    tissues = variation.draw_tissues(body, variation.draw_habitus(habitus_rng))
    frame = frame_of(body) if body.brain.any() else None
    places = variation.places_of(body, tissues, drawn)
    if frame is not None:
        _paint_cells(tissues, body, frame, airways_rng)
    return Scene(
        body,
        tissues,
        places,
        frame,
        noise(noise_rng, 9, 3, 84),
        fine_anatomy.vessels(vessel_rng, ill.lesion.side if ill.lesion.kind == "stroke" else 0),
        diseases.draw_age(age_rng),
        ill,
        fine_anatomy.draw_teeth(bones_rng),
        fine_anatomy.draw_plates(bones_rng),
        triple(centre_rng.uniform(_LOWEST_MM, _HIGHEST_MM)),
        body.table.tissue(tissue_rng),
        draw_exposure(exposure_rng),
    )


def head_of(scene: Scene, maps: list[AnyArray], affine: AnyArray, seed: int, case: int) -> Head:
    """A painted head; maps: its labels, second labels, shares, lesion map and texture."""
    lesion = scene.diseases.lesion if scene.frame is not None else Lesion("none")
    labels, second, share, lesion_map, texture = maps
    drawn = affine, lesion, scene.tissue, seed, case, scene.exposure
    return Head(labels, second, share, lesion_map, texture, *drawn)


def paint(scene: Scene, axes: Points) -> list[AnyArray]:
    """The maps of a grid; axes: x [W], y [H], z [D] in mm from the middle."""
    thick = max(1, _SLAB_VOXELS // (len(axes[0]) * len(axes[1])))
    slabs = [
        _slab(scene, (axes[0], axes[1], axes[2][start : start + thick]))
        for start in range(0, len(axes[2]), thick)
    ]
    return [np.concatenate(arrays) for arrays in zip(*slabs)]


def _affine(scene: Scene, axes: Points, box: tuple[slice, ...], step: Triple) -> AnyArray:
    """From the index (x, y, z) in a box of the grid to mm; heights of heads are those of the phantoms."""
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = [axis[part.start] for axis, part in zip(axes, box[::-1])]
    if scene.frame is not None:
        middle_z = scene.places.middle_mm[2] - scene.frame.origin_mm[2]
        affine[2, 3] += middle_z * scene.frame.scale[2] - _FIELD_Z_MM
    return affine


def _axes(shape: tuple[int, ...], spacing_mm: Triple, step: Triple) -> Points:
    """Coordinates x, y, z in mm from the middle of a grid that holds the turned and scaled body."""
    lengths = [n * s * _ROOM for n, s in zip(shape, spacing_mm)][::-1]
    counts = [int(np.ceil(length / s)) for length, s in zip(lengths, step)]
    return [((np.arange(n) - (n - 1) / 2) * s).astype(np.float32) for n, s in zip(counts, step)]


def _box(labels: AnyArray, step: Triple, rng: Rng) -> tuple[slice, ...]:
    """The part of the grid that a scan shows: the body with some air, and in some scans not its lowest part."""
    there = labels != Label.AIR
    box = []
    for (first, end), size, n in zip(box_around(there), step[::-1], labels.shape):
        room = round(rng.uniform(2, 18) / size)
        box.append(slice(max(first - room, 0), min(end + room, n)))
    if rng.random() < _CUT:
        height = box[0].stop - box[0].start
        box[0] = slice(box[0].start + int(height * rng.uniform(0.05, 0.5)), box[0].stop)
    return tuple(box)


def _paint_cells(tissues: AnyArray, body: LabelMap, frame: HeadGrid, rng: Rng) -> None:
    """Paint mastoid cells and frontal sinuses into bone under its shell, which maps show solid or with a few holes."""
    bone = np.isin(tissues, SKULL)
    solid = bone | (tissues == Label.SINUS)
    deep = np.nonzero(bone & erode(solid, max(body.spacing_mm), body.spacing_mm))
    points = [index * np.float32(s) for index, s in zip(deep[::-1], body.spacing_mm[::-1])]
    lined, air = fine_anatomy.hollow(rng, frame.upright(points))
    cells = tissues[deep]
    cells[lined < 0] = Label.MUCOSA
    cells[air < 0] = Label.SINUS
    tissues[deep] = cells


def _slab(scene: Scene, axes: Points) -> tuple[AnyArray, ...]:
    """The maps of a few slices; axes: x [W], y [H], z [D] in mm from the middle."""
    at = scene.places.on(axes)
    index = [p / np.float32(s) for p, s in zip(at[::-1], scene.body.spacing_mm)]
    canvas = _take(scene.tissues, index, float(axes[0][1] - axes[0][0]))
    lesion_map = np.zeros(at[0].shape, np.uint8)
    if scene.frame is not None:
        lesion_map = _paint_head(canvas, scene, scene.frame.upright(at))
    texture = scene.texture.on(axes).astype(np.float16)
    return canvas.label, canvas.second, canvas.share, lesion_map, texture


def _take(tissues: AnyArray, index: list[AnyArray], voxel_mm: float) -> Canvas:
    """A canvas of the tissues at fractional indices (z, y, x): the two with the largest shares of eight corners."""
    low = [np.floor(i).astype(np.int32) for i in index]
    corners = [*np.ndindex(2, 2, 2)]
    in_air = np.pad(tissues, 1)
    last = [n - 1 for n in in_air.shape]
    label = np.empty((8, *low[0].shape), np.uint8)
    for number, corner in enumerate(corners):
        at = [np.clip(i + step + 1, 0, end) for i, step, end in zip(low, corner, last)]
        label[number] = in_air[tuple(at)]
    ones = np.ones(low[0].shape, np.float32)
    canvas = Canvas(label[0].copy(), label[0].copy(), ones, voxel_mm)
    mixed = (label != label[0]).any(0)
    labels = label[:, mixed]
    shares = [(i - f)[mixed] for i, f in zip(index, low)]
    weights = np.stack(
        [np.prod([s if c else 1 - s for s, c in zip(shares, corner)], axis=0) for corner in corners]
    )
    totals = np.stack([(weights * (labels == own)).sum(0) for own in labels])
    first = totals.argmax(0)[None]
    main, most = (np.take_along_axis(a, first, 0)[0] for a in (labels, totals))
    totals[labels == main] = -1
    second = totals.argmax(0)[None]
    other, next_most = (np.take_along_axis(a, second, 0)[0] for a in (labels, totals))
    alone = next_most < 0
    canvas.label[mixed] = main
    canvas.second[mixed] = np.where(alone, main, other)
    canvas.share[mixed] = np.where(alone, 1, most / (most + np.maximum(next_most, 0)))
    return canvas


def _paint_head(canvas: Canvas, scene: Scene, points: Space) -> AnyArray:
    """Paint findings, vessels, teeth with fillings, and plates; returns the lesion map."""
    soft = np.isin(canvas.label, INTRACRANIAL)
    inner = before_tumour(scene.diseases.lesion, points, soft)
    diseases.paint_age(canvas, scene.ageing, inner)
    lesion_map = diseases.paint(canvas, scene.diseases, points)
    canvas.paint_tubes(scene.vessels, inner, soft & ~np.isin(canvas.label, TUMOUR))
    canvas.paint_tubes(scene.teeth, points, np.isin(canvas.label, SKULL))
    fine_anatomy.paint_plates(canvas, scene.plates, points)
    return lesion_map * soft
