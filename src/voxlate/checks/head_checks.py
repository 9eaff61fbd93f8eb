"""Whether a scan shows the kind of head that a network of synthetic heads was trained on: whole, or the brain alone.

Recipes with `data.physics` state which. Measured on ten real heads, 16 real brains and 20 synthetic heads: brains are up
to 163 mm, heads from 183 mm in the mean of depth and width; the lower end of a head, at the neck or where the field of
view cuts it, is more than half as large as its largest slice, that of a brain less than a third. Also where the two sides
of a brain differ more than those of healthy brains do, as beside a tumour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from voxlate.base.array_types import Bool, Float32, Float64
from voxlate.base.errors import BadInput
from voxlate.base.messages import Message
from voxlate.checks.brain_fluid import fluid_and_tissue
from voxlate.checks.check_table import Measured, Numbers, ask
from voxlate.checks.head_pose import CELL_MM, Kind, cells_of, likeness_of, pose_of
from voxlate.checks.intensity_checks import tissue_numbers
from voxlate.checks.quality_checks import symmetry
from voxlate.checks.thumbnail import coarse
from voxlate.scans.images.grid import Volume, resample, with_spacing
from voxlate.scans.images.intensity import Scale
from voxlate.scans.images.mask import (
    Ends,
    Spacing,
    background_value,
    box_around,
    components_of,
    dilate,
    erode,
    fill_slices,
    find_tissue,
    foreground,
    hard_edges,
    largest,
)
from voxlate.scans.images.midline import midline_grid
from voxlate.scans.images.volume_statistics import PERCENTILES, Distribution

COARSE_MM = 2.0
LEAST_HEIGHT_MM = 40.0  # of bodies whose ends are compared
LEAST_SLAB_MM = 30.0  # of slices whose sides and pose are compared
END_MM = 10.0  # from the ends of the body, where its slices are compared
SHOWN = 0.6  # area at both ends of a body that is whole; without 30 mm of a brain 0.71
CLOSED = 0.45  # area at an end of a dome, as a share of the largest
# Times the median of the body: fat, vessels and fluid of one side outweigh nothing else.
BRIGHTEST = 2.0
RISEN = 0.75  # share of the largest area, above CLOSED
TINY = 1e-9
TURNS_DEGREES = (-20, -10, 10, 20)
LIKE = 0.45  # of left and right; less like ones are compared after turns
UPPER_MM = 100.0  # below the vertex: necks and shoulders are further down
CLOSE_MM, DEEPER_MM = 2.0, 25.0  # a surface is closed, and depths below it
SKULL_MM, LAYER_MM = (12.0, 14.0), 2.0  # the ends of layers with skull
# In wider voxels bone is not dark: three T2 scans of phantoms, in voxels of 3.6 to 5 mm, seemed to have none.
THIN_MM = 3.3
LONG = 1.12  # times as long as wide, from which a body has an angle
SLOW_MM, WIDE_MM, FINE_MM = 20.0, 8.0, 2.0  # blurs; FINE_MM also voxels in which sides are compared
SAME_WIDTH = 1.25  # times; shoulders are twice as wide as the head
# Of the sides of a brain: the blur, since folds of one side have no counterpart on the other; the rim, where a small tilt
# makes a large difference; and standard deviations of the brain, by which they differ.
BLUR_MM, SIDES_RIM_MM, APART = 6.0, 8.0, 1.0
AS_BACKGROUND = -0.96  # network units, of -1 to 1: up to 2 % of the range
RIM_MM = 10.0  # from the brain's surface, where fluid is dark in many scans and partly stripped
LEAST_POOL_ML = 0.5
TISSUE = 0.3  # of the median of the body: what is darker at a border is its partial volume, or bone
HARD = 0.2  # area at a border that cuts the head, beside that further in; round heads have less within a voxel
# Of a CT: a blur against noise, and what is no scalp; fewer cells of fluid or tissue are not compared.
NOISE_MM, DEEP_MM, FEWEST_CELLS = 1.5, 20.0, 20
FLUID_HU, BRAIN_HU = (-33.0, -14.0), (-5.0, 20.0)  # beside where most of the brain is
USUAL_HU = (20.0, 60.0)  # of the brain, in CTs that are off by up to 20 HU
WIDEST_ALONE_MM = 168.0  # the fluid of a masked head is not found
# By name of a contrast, whether fluid is brighter than tissue.
FLUID_BY_NAME = dict.fromkeys(("t1", "t1w", "t1n", "t1c", "t1ce", "flair", "t2f"), 0.0)
FLUID_BY_NAME |= {"t2": 1.0, "t2w": 1.0}
LEAST_TOUCH_MM = 30.0  # of a slice's border along the head: the skull is as long there, beyond a tip of nose or ear

# By name the axis to which a border of slices is normal, and whether it is the first or the last plane.
BORDERS = {"left": (2, 0), "right": (2, -1), "back": (1, 0), "front": (1, -1)}


@dataclass(frozen=True)
class _Head:
    """A scan in voxels of about COARSE_MM, its body, and the ends of this along D, H, W.

    values: above `background`; clean: whether that is one constant; areas: of the body in its slices, as shares of the
    largest; ends: that near the lower and the upper end of the body, not a number in a few slices.
    """

    values: Float32
    body: Bool
    box: Ends
    spacing_mm: Spacing
    background: float
    clean: bool
    areas: Float64
    ends: tuple[float, float]

    @property
    def across_mm(self) -> float:
        """The geometric mean of depth and width."""
        _, depth, width = np.ptp(self.box, 1) * self.spacing_mm
        return float(np.sqrt(depth * width))

    @property
    def radius_mm(self) -> float:
        """The radius of a circle of its largest area."""
        largest = self.body.sum((1, 2)).max()
        return float(np.sqrt(largest * np.prod(self.spacing_mm[1:]) / np.pi))

    @property
    def is_alone(self) -> bool:
        """Whether its lower end is closed in a constant background, as that of a stripped brain."""
        return self.clean and self.ends[0] < CLOSED

    @property
    def height_mm(self) -> float:
        """The height of the body."""
        return len(self.areas) * self.spacing_mm[0]


def check_head(scan: Volume, trained: Kind, values: Distribution | None = None) -> list[Message]:
    """Messages where a scan is not of the training's kind, or lies the wrong way round.

    scan: canonical; trained: whether the training saw whole heads, or brains without skull; values: of its voxels.
    """
    head = coarse_head(scan)
    middle, bright = np.percentile(head.values[head.body], [50, 99])
    numbers: Measured = {
        "middle": float(middle / max(bright, TINY)),
        "across_mm": head.across_mm,
        "height_mm": head.height_mm,
        "alone": head.is_alone,
    }
    if max(head.ends) < SHOWN:
        numbers["tall"] = head.height_mm / head.across_mm
    if head.height_mm >= LEAST_SLAB_MM:
        shown = tissue_of(head), head.body, np.array(head.spacing_mm)
        pose = pose_of(trained, *shown)
        numbers |= pose
        if trained == "head" and head.clean:  # stripping leaves a constant background
            numbers["as_brain"] = likeness_of("brain", cells_of(*shown)) - pose["upright"]
    if trained == "brain" and scan.modality in FLUID_BY_NAME:
        numbers |= _contrast(scan)
    if trained == "head":
        numbers |= _head_numbers(head)
        if values is not None:
            tissue, high, highest = map(values.at, (50, 99.9, 100))
            numbers["hottest"] = (highest - tissue) / max(high - tissue, TINY)
            known = values.percentiles
            numbers["lowest"] = known[0]
            # constant air is at the median and at a further percentile
            is_air = known.count(tissue) > 1
            numbers["under_air"] = PERCENTILES[known.index(tissue)] if is_air else 0.0
        if scan.grid.shape[0] > 1:
            numbers["slab_mm"] = head.height_mm
    return ask(trained, numbers, scan.modality)


def body_numbers(scan: Volume, ct: Volume | None) -> dict[str, float]:
    """Numbers of the body in a canonical scan of a cohort: see `body_in_case` in limits.toml; ct: on its grid, if there is one.

    Its height is compared where the upper end is a dome, its contrast in a brain without skull, or beside a CT.
    """
    head = coarse_head(scan)
    numbers = {"across_mm": head.across_mm, "height_mm": head.height_mm}
    if (roundness := _roundness(head)) < np.inf:
        numbers["roundness"] = roundness
    is_brain = head.is_alone and head.across_mm < WIDEST_ALONE_MM
    if scan.modality in FLUID_BY_NAME and (ct is not None or is_brain):
        numbers |= _contrast(scan, ct)
    return numbers


def _contrast(scan: Volume, ct: Volume | None = None) -> dict[str, float]:
    """How bright fluid is beside tissue, and whether the name says that it is brighter; ct: without one, the scan shows a brain."""
    if ct is None:
        levels = fluid_and_tissue(scan.data[0], foreground(scan), scan.grid.spacing_mm)
        if levels is None:
            return {}
        fluid, tissue = levels
    else:
        mm = ct.grid.spacing_mm
        hu = ndimage.gaussian_filter(ct.data[0], [NOISE_MM / side for side in mm], mode="nearest")
        deep = coarse(erode(fill_slices(foreground(ct)), DEEP_MM, mm))[0] > 0
        of_ct = coarse(hu)[0][deep]
        values = coarse(scan.data[0])[0][deep]
        brain = tissue_numbers(of_ct).get("tissue", 0.0)
        away = of_ct - brain
        parts = [values[(away > low) & (away < high)] for low, high in (FLUID_HU, BRAIN_HU)]
        if min(map(len, parts)) < FEWEST_CELLS or not USUAL_HU[0] <= brain <= USUAL_HU[1]:
            return {}
        fluid, tissue = (float(np.median(part)) - background_value(scan) for part in parts)
    if tissue <= 0:
        return {}
    return {"fluid": fluid / tissue, "by_name": FLUID_BY_NAME[scan.modality]}


def _head_numbers(head: _Head) -> Numbers:
    """Numbers of a head, or of what is in its place: see `head` in limits.toml."""
    lower, _ = head.ends
    along_mm = head.spacing_mm
    is_cut = hard_edges(head.body, along_mm, HARD)
    tissue = head.body & (head.values > TISSUE * np.median(head.values[head.body]))
    # the longest line along which each border of slices cuts the head, beside which synthetic heads have air
    sides = {
        # the border goes along the other axis of slices
        side: is_cut[axis, face] * tissue.take(face, axis).sum(1).max() * along_mm[3 - axis]
        for side, (axis, face) in BORDERS.items()
    }
    saturated = ndimage.distance_transform_edt(head.values >= head.values.max(), along_mm)
    numbers: Measured = {
        "saturated_mm": float(saturated.max()),
        "lower": lower,
        "upper": head.areas[-1],
        "lost_mm": head.radius_mm * (1 - np.sqrt(1 - head.areas[-1])) - along_mm[0],
        "roundness": _roundness(head),
        "touch_mm": max(sides.values()),
        "sides": ", ".join(side for side, length in sides.items() if length >= LEAST_TOUCH_MM),
        **_bone(head),
        **_shape(head),
    }
    if head.height_mm >= LEAST_SLAB_MM:
        numbers |= {"waist": _waist(head), "mirror": _mirror(head)}
    return numbers


def tissue_of(head: _Head) -> Float32:
    """What is no air in a head [D, H, W]: 0 for air, bone and dark fluid, 1 from the median of the body on; smoothed for cells."""
    median = float(np.median(head.values[head.body]))
    tissue = (head.values / max(median, TINY)).clip(0, 1) * head.body
    sigma = [CELL_MM / 2 / mm for mm in head.spacing_mm]
    return ndimage.gaussian_filter(tissue, sigma, mode="nearest")


def coarse_head(scan: Volume) -> _Head:
    """A canonical scan in voxels of about COARSE_MM, with its first and its last planes."""
    spacing_mm = np.array(scan.grid.spacing_mm)
    last = np.array(scan.grid.shape) - 1
    steps = -(-last // np.rint(COARSE_MM / spacing_mm).clip(1)).astype(int)
    planes = [np.linspace(0, end, count + 1).round().astype(int) for end, count in zip(last, steps)]
    values = scan.data[0][np.ix_(*planes)]
    z, y, x = (spacing_mm * last.clip(1) / steps.clip(1)).tolist()
    small = Volume(values[None], np.diag([x, y, z, 1.0]), scan.unit, scan.modality)
    _, clean = find_tissue(small)
    body = foreground(small)
    box = box_around(body)
    sums = body[slice(*box[0])].sum((1, 2))
    areas = sums / max(sums.max(), 1)
    ends = np.nan, np.nan
    if len(areas) * z >= LEAST_HEIGHT_MM:
        away = round(END_MM / z)
        ends = float(areas[away]), float(areas[-1 - away])
    background = background_value(small)
    return _Head(values - background, body, box, (z, y, x), background, clean, areas, ends)


def _roundness(head: _Head) -> float:
    """The depth at which the dome has RISEN of the largest area, over that of a sphere; inf where the end is a cut.

    A sphere of radius r has 1 - (1 - d/r)^2 of its largest area at the depth d.
    """
    shares = head.areas[::-1]
    if shares[0] >= CLOSED:
        return np.inf
    below = int(np.argmax(shares >= RISEN))
    between = (RISEN - shares[below - 1]) / (shares[below] - shares[below - 1])
    depth_mm = (below - 1 + between) * head.spacing_mm[0]
    sphere_mm = head.radius_mm * (np.sqrt(1 - shares[0]) - np.sqrt(1 - RISEN))
    return float(depth_mm / sphere_mm)


def _shape(head: _Head) -> dict[str, float]:
    """The upper part of a body: times as wide as deep, the mean of both, the angle of its longest axis in the plane."""
    upper = head.body[_upper(head)]
    _, depth, width = np.ptp(box_around(upper), axis=1) * head.spacing_mm
    places = np.argwhere(upper)[:, 1:] * np.array(head.spacing_mm[1:])
    spread, vectors = np.linalg.eigh(np.cov(places.T) + 1e-6 * np.eye(2))
    angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))) % 180
    is_long = float(np.sqrt(spread[1] / spread[0])) > LONG
    return {
        "wide": float(width / depth),
        "upper_mm": float(np.sqrt(width * depth)),
        "turned_degrees": min(angle, 180 - angle) * is_long,
    }


def _waist(head: _Head) -> float:
    """The least area between two larger ones, as a share of the lesser of them; 1 where the parts have other widths, as above shoulders."""
    areas = head.areas
    below = np.maximum.accumulate(areas)
    above = np.maximum.accumulate(areas[::-1])[::-1]
    shares = areas / np.minimum(below, above)
    at = head.box[0][0] + int(shares.argmin())
    parts = head.body[: at + 1], head.body[at:]
    widths = [np.count_nonzero(part.any((0, 1))) for part in parts]
    return float(shares.min()) if max(widths) < SAME_WIDTH * min(widths) else 1.0


def _upper(head: _Head) -> slice:
    """The slices of the upper part of a body."""
    bottom, top = head.box[0]
    return slice(max(bottom, top - max(1, int(UPPER_MM / head.spacing_mm[0]))), top)


def _bone(head: _Head) -> dict[str, float]:
    """skull: the lesser median of the layers of the upper part where the skull is, dark in MR, over that of what is deeper.

    sharp: the share of detail below some 8 mm that is below some 2 mm, inside.
    """
    planes = _upper(head)
    filled = fill_slices(dilate(head.body[planes], CLOSE_MM, head.spacing_mm))
    padded = np.pad(filled, ((0, 0), (1, 1), (1, 1)))
    depth_mm = ndimage.distance_transform_edt(padded, head.spacing_mm)[:, 1:-1, 1:-1]
    values = head.values[planes]
    deep = values[depth_mm > DEEPER_MM]
    if not deep.size or max(head.spacing_mm[1:]) > THIN_MM:
        return {}
    brain = float(np.median(deep))
    if brain <= max(TISSUE * float(np.median(head.values[head.body])), 0):
        return {}  # an empty inside says nothing of the skull
    layers = [values[(depth_mm > mm - LAYER_MM) & (depth_mm <= mm)] for mm in SKULL_MM]
    medians = [float(np.median(layer)) / brain for layer in layers if layer.size]
    fine, wide = (
        (values - ndimage.gaussian_filter(values, [blur / mm for mm in head.spacing_mm]))[
            depth_mm > RIM_MM
        ].std()
        for blur in (FINE_MM, WIDE_MM)
    )
    return {"skull": min(medians, default=0.0), "sharp": float(fine / max(wide, TINY))}


def _mirror(head: _Head) -> float:
    """How much the left of a head mirrors its right, at best, also after small turns."""
    even = _even(head)
    as_it_lies = symmetry(even)
    angles = TURNS_DEGREES if as_it_lies < LIKE else ()
    return max([as_it_lies, *(symmetry(_turned(even, np.radians(angle))) for angle in angles)])


def _turned(image: Float32, angle: float) -> Float32:
    """An image [D, H, W] turned by an angle in its plane, whose edge goes on."""
    cosine = np.cos(angle)
    sine = np.sin(angle)
    matrix = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    middle = (np.array(image.shape) - 1) / 2
    out = np.zeros_like(image)
    ndimage.affine_transform(
        image,
        matrix,
        middle - matrix @ middle,
        output=out,
        output_shape=image.shape,
        order=1,
        mode="nearest",
        prefilter=False,
    )
    return out


def _even(head: _Head) -> Float32:
    """The values in a body without what changes slowly, as coils do, and without their mean; 0 outside."""
    body = head.body
    values = np.where(body, head.values.clip(0, BRIGHTEST * np.median(head.values[body])), 0)
    sigma = [SLOW_MM / mm for mm in head.spacing_mm]
    slow, share = (
        ndimage.gaussian_filter(part.astype(np.float32), sigma, mode="nearest")
        for part in (values, body)
    )
    even = np.where(body, values * share / np.maximum(slow, TINY), 0)
    away = np.where(body, even - even[body].mean(), 0).astype(np.float32)
    return ndimage.gaussian_filter(away, [FINE_MM / mm for mm in head.spacing_mm], mode="nearest")


def black_pools_ml(scans: Sequence[Volume], scales: Sequence[Scale]) -> float:
    """The volume of connected regions, away from the brain's rim, that every scan shows as dark as its background.

    scans: of one stripped brain, on one grid; scales: from their values to network units.
    """
    heads = [coarse_head(scan) for scan in scans]
    spacing_mm = heads[0].spacing_mm
    body = np.logical_or.reduce([head.body for head in heads])
    dark = ndimage.distance_transform_edt(np.pad(body, 1), spacing_mm)[1:-1, 1:-1, 1:-1] > RIM_MM
    for head, scale in zip(heads, scales):
        dark &= scale.forward(head.values + head.background) <= AS_BACKGROUND
    sizes_ml = components_of(dark).sizes() * (float(np.prod(spacing_mm)) / 1000)
    return float(sizes_ml[sizes_ml >= LEAST_POOL_ML].sum())


def sides_of(brain: Volume) -> Numbers:
    """The largest region of a canonical brain that differs from its mirror image: its volume, and where it is.

    volume_ml: of the region on one side; aside_mm: from the plane of symmetry to its centre; up, front: its place along the
    brain's height and from its back, as shares. Nothing of a brain without a plane of symmetry or such a region.
    """
    try:
        grid = midline_grid(brain)
    except BadInput:  # no plane of symmetry
        return {}
    straight = resample(brain, with_spacing(grid, (FINE_MM,) * 3))
    body = foreground(straight)
    inside = erode(body & body[..., ::-1], SIDES_RIM_MM, straight.grid.spacing_mm)
    if not inside.any():
        return {}
    share = ndimage.gaussian_filter(body.astype(np.float32), BLUR_MM / FINE_MM)
    values = np.where(body, straight.data[0] - np.median(straight.data[0][body]), 0)
    smooth = ndimage.gaussian_filter(values, BLUR_MM / FINE_MM) / np.maximum(share, 0.1)
    apart = np.abs(smooth - smooth[..., ::-1]) / max(float(values[inside].std()), 1e-9)
    region = largest(inside & (apart > APART))
    if not region.any():
        return {}
    # both sides of the plane differ where one does
    middle = ndimage.center_of_mass(region)
    low, end = np.transpose(box_around(body))
    up, front, _ = (middle - low) / np.maximum(end - 1 - low, 1)
    return {
        "volume_ml": float(region.sum()) * FINE_MM**3 / 1000,
        "aside_mm": abs(middle[2] - (body.shape[2] - 1) / 2) * FINE_MM,
        "up": float(up),
        "front": float(front),
    }
