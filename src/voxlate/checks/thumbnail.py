"""A thumbnail of a scan, by which scans of one case, of other cases, and truths are compared: one picture, one similarity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product

import numpy as np

from voxlate.base.array_types import AnyArray, Bool, Float32, Float64
from voxlate.base.similarity import Classes, Counts, mutual_information
from voxlate.scans.images.mask import Ends, Spacing, box_around, components_of, otsu

BINS = 16  # classes of equal counts: they do not depend on the unit
BODY_SIDE = 48  # voxels along an axis, in which the body is found
MOST_CELLS = 64  # along an axis of a coarse scan
LATTICE = (24, 32, 32)
FLAT_LATTICE = (1, 64, 64)
SMALLEST = 16  # rows and columns; fewer show no body
INSIDE = 0.6  # of the half axes of a body's box; beyond, the outline is what all bodies share
MARGIN = 0.05  # of the body's box, around it
BORDER_SHARE = 0.02  # of a scan that a constant at its border fills, if it pads the scan
CUT_OUT = 0.2  # share of voxels that have the constant around a body that was cut out
GAP = 0.5  # of the range of the other values, between these and the constant
MIRRORED = ("upside down", "front to back", "left to right")  # along D, H, W


@dataclass(frozen=True)
class Thumbnail:
    """One scan: its values on a lattice over the whole grid, and its classes inside two boxes.

    values: [d, h, w]; body: which of them the scan shows as body; own: inside the box of its own body; shared: inside
    that of the case's reference scan; box_mm: sides of its own box; padding: the constant around the scan that is far
    from all its other values, if there is one.
    """

    values: Float32
    body: Bool
    own: Classes
    shared: Classes
    box_mm: Spacing
    padding: float | None


def thumbnails(
    arrays: Mapping[str, AnyArray],
    reference: str,
    spacing_mm: Spacing,
) -> dict[str, Thumbnail]:
    """The thumbnail of each array [D, H, W] of one grid; none of a grid that is too small to show a body."""
    if min(arrays[reference].shape[1:]) < SMALLEST:
        return {}
    boxes = {name: _body_box(array) for name, array in arrays.items()}
    return {
        name: _thumbnail(array, boxes[name], boxes[reference], spacing_mm)
        for name, array in arrays.items()
    }


def coarse(array: AnyArray) -> tuple[Float32, list[int]]:
    """Voxels of an array [D, H, W] at regular steps, at most MOST_CELLS along an axis, and the steps."""
    steps = [-(-length // MOST_CELLS) for length in array.shape]
    return array[:: steps[0], :: steps[1], :: steps[2]].astype(np.float32), steps


def _thumbnail(array: AnyArray, own: Ends, shared: Ends, spacing_mm: Spacing) -> Thumbnail:
    values = _on_lattice(array, [(0, length) for length in array.shape])
    padding = _padding(values)
    scanned = values if padding is None else values[values != np.float32(padding)]
    floor = float(np.percentile(values, 5))
    # a brain's fluid alone may be above Otsu's level
    shown = _body_box(array, floor) if np.mean(values == np.float32(floor)) > CUT_OUT else own
    depth, height, width = ((end - first) * mm for (first, end), mm in zip(shown, spacing_mm))
    return Thumbnail(
        values,
        values > otsu(scanned),
        _classes(_on_lattice(array, _wider(own))),
        _classes(_on_lattice(array, _wider(shared))),
        (depth, height, width),
        padding,
    )


def _body_box(array: AnyArray, level: float | None = None) -> Ends:
    """The box of the largest object above a level, by default Otsu's, whatever the unit."""
    steps = [max(1, length // BODY_SIDE) for length in array.shape]
    few = array[:: steps[0], :: steps[1], :: steps[2]].astype(np.float32)
    parts = components_of(few > (otsu(few) if level is None else level))
    # without an object, all is background, which is taken
    which = np.arange(parts.count + 1) == parts.sizes().argmax()
    sides = zip(box_around(parts.choose(which)), steps, array.shape)
    return [(first * step, min(end * step, length)) for (first, end), step, length in sides]


def _wider(box: Ends) -> Ends:
    return [
        (round(first - MARGIN * (end - first)), round(end + MARGIN * (end - first)))
        for first, end in box
    ]


def _on_lattice(array: AnyArray, box: Ends) -> Float32:
    """The nearest voxels to the points of a regular lattice inside a box; beyond the array, those of its faces."""
    counts = FLAT_LATTICE if len(array) == 1 else LATTICE
    places = []
    for (first, end), count, length in zip(box, counts, array.shape):
        points = first + (np.arange(count) + 0.5) * ((end - first) / count)
        places.append(np.floor(points).astype(np.intp).clip(0, length - 1))
    return array[np.ix_(*places)].astype(np.float32)


def _classes(values: Float32) -> Classes:
    """Classes of equal counts; a value that is more frequent than that has one of its own."""
    if not values.size:
        return np.zeros(values.shape, np.uint8)
    edges = np.percentile(values, np.linspace(0, 100, BINS + 1)[1:-1])
    return np.searchsorted(edges, values, side="right").astype(np.uint8)


def _padding(values: Float32) -> float | None:
    """A constant at the border of the slices that is below or above all other values by far; 0 is ordinary air."""
    border = np.concatenate([values[:, [0, -1]].ravel(), values[:, :, [0, -1]].ravel()])
    some, counts = np.unique(border, return_counts=True)
    constant = float(some[counts.argmax()])
    others = values[values != np.float32(constant)]
    if constant == 0 or len(others) < 2 or len(others) > (1 - BORDER_SHARE) * values.size:
        return None
    low, high = np.percentile(others, [0.1, 99.9])
    return constant if max(low - constant, constant - high) > GAP * (high - low) else None


def similarity(a: Classes, b: Classes) -> float:
    """Normalised mutual information of two pictures on one lattice, from 0 (nothing in common) to 1."""
    ends = (0.0, float(BINS))
    return float(np.nan_to_num(mutual_information(a, b, ends, ends, BINS) - 1))


def pair_similarity(a: Thumbnail, b: Thumbnail) -> float:
    """That of two scans as they lie or box on box, so that a shift alone does not count; a: of a reference scan."""
    return max(similarity(a.own, b.shared), similarity(a.own, b.own))


def resemblance(scan: Thumbnail, others: Sequence[Thumbnail]) -> float:
    """The rank correlation of the inside of a body with those of others, box on box: the median, of the worse half."""
    sides = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in scan.own.shape]
    height, y, x = np.meshgrid(*sides, indexing="ij")
    inside = height**2 + y**2 + x**2 < INSIDE**2
    halves = []
    for half in (inside & (height <= 0), inside & (height >= 0)):
        own = unit(scan.own[half])
        halves.append(float(np.median([own @ unit(other.own[half]) for other in others])))
    return min(halves)


def unit(classes: AnyArray) -> Float32:
    """Values without their mean, as a vector of length 1."""
    away = classes - classes.mean(dtype=np.float32)
    return away / max(float(np.linalg.norm(away)), 1e-6)


def best_flip(a: Thumbnail, b: Thumbnail) -> tuple[float, str]:
    """The largest similarity of two scans of a case after flips of the second, and how it is flipped."""
    return max(
        (similarity(a.own, np.flip(classes, axes)), " and ".join(MIRRORED[axis] for axis in axes))
        for axes, classes in product(_flips(a), (b.own, b.shared))
    )


def _flips(thumbnail: Thumbnail) -> list[tuple[int, ...]]:
    """The sets of axes along which a picture can be flipped."""
    axes = [axis for axis, length in enumerate(thumbnail.own.shape) if length > 1]
    return [*chain.from_iterable(combinations(axes, count) for count in (1, 2, 3))]


def empty_share(body: Thumbnail, scan: Thumbnail, air: float) -> float:
    """The share of a body where another scan of its case holds air (values below `air`) or its most frequent value.

    The least one of all flips, so that a scan that is turned against the body is not empty.
    """
    shares = [1.0]
    for axes in ((), *_flips(scan)):
        inside = scan.values[np.flip(body.body, axes)]
        _, counts = np.unique(inside[inside >= air], return_counts=True)
        full = counts.sum() - counts.max(initial=0)
        shares.append(1 - full / max(inside.size, 1))
    return float(min(shares))


def class_curve(a: Thumbnail, b: Thumbnail) -> tuple[Float64, Counts]:
    """The mean class of b for each class of a within the body of a, and the counts of these; both [2, BINS].

    The two rows are of the lower and the upper half; a slice has the first alone. The curve tells one contrast from
    another, whatever the anatomy, the unit and the place of a slice are.
    """
    half = np.argwhere(a.body)[:, 0] * 2 // len(a.body)
    classes = _classes(a.values[a.body]) + half * BINS
    counts = np.bincount(classes, minlength=2 * BINS).reshape(2, BINS)
    sums = np.bincount(classes, _classes(b.values[a.body]), minlength=2 * BINS).reshape(2, BINS)
    return sums / np.maximum(counts, 1), counts
