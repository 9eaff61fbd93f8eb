"""Signed distances, tubes and smooth noise: the geometry of the phantom's organs, and the canvas on which they are painted.

Points are three arrays (x, y, z) in mm (right, anterior, superior). A distance is negative inside a shape.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import fft, ndimage

from voxlate.anatomy.tissue import Label, Rng
from voxlate.base.array_types import AnyArray

Pair = tuple[float, float]
Points = Sequence[AnyArray]  # x, y, z
Triple = tuple[float, float, float]
Box = tuple[slice, slice, slice]
Tube = AnyArray  # its straight parts: x, y, z and radius in mm of both ends, [N, 2, 4]


@dataclass(frozen=True)
class Space:
    """The coordinates of voxels in mm: right, anterior, superior, [D, H, W] each."""

    x: AnyArray
    y: AnyArray
    z: AnyArray

    def __iter__(self) -> Iterator[AnyArray]:
        return iter((self.x, self.y, self.z))

    @cached_property
    def half(self) -> "Space":
        """The same with the left side mirrored to the right."""
        return Space(np.abs(self.x), self.y, self.z)

    def ellipsoid(self, text: str, size: AnyArray | float = 1.0) -> AnyArray:
        """Distance to the ellipsoid that a text states: its centre, a bar and its half axes, "x y z | a b c" in mm.

        size: by which its half axes are multiplied.
        """
        centre, _, axes = text.partition("|")
        scaled = [(p - c) / size for p, c in zip(self, numbers(centre))]
        return ellipsoid(scaled, (0, 0, 0), numbers(axes)) * size

    @cached_property
    def _ends_of_planes(self) -> list[tuple[AnyArray, AnyArray]]:
        """Least and largest z of each slice, y of each row, and x of each column."""
        return [
            (along.min(others), along.max(others))
            for along, others in zip((self.z, self.y, self.x), ((1, 2), (0, 2), (0, 1)))
        ]

    def boxes(self, low: AnyArray, high: AnyArray) -> list[Box]:
        """The voxels [D, H, W] that may lie between corners x, y, z in mm, [N, 3] each."""
        sides = []
        for place, (least, most) in zip((2, 1, 0), self._ends_of_planes):
            inside = (most >= low[:, place, None]) & (least <= high[:, place, None])
            end = np.where(inside.any(1), len(least) - inside[:, ::-1].argmax(1), 0)
            sides.append([*map(slice, inside.argmax(1).tolist(), end.tolist())])
        return [*zip(*sides)]

    def tubes(self, parts: Sequence[Tube], reach_mm: float) -> AnyArray:
        """Distance to the nearest tube, exact within `reach_mm` of a tube and `reach_mm` elsewhere."""
        out = np.full(self.x.shape, reach_mm, dtype=np.float32)
        segments = np.concatenate(parts)
        margin = segments[:, :, 3:].max(1) + reach_mm
        ends = segments[:, :, :3]
        boxes = self.boxes(ends.min(1) - margin, ends.max(1) + margin)
        for inside, (start, end) in zip(boxes, segments):
            near = _capsule([p[inside] for p in self], start, end)
            np.minimum(out[inside], near, out=out[inside])
        return out


def ellipsoid(
    points: Iterable[AnyArray], centre: Sequence[float], axes: Sequence[float]
) -> AnyArray:
    """Distance to an ellipsoid to first order, exact on its surface: k0 (k0 - 1) / k1.

    Source: Taubin 1991, "Estimation of planar curves, surfaces ...": f / |grad f| with f = |p / a| - 1.
    """
    scaled = [np.subtract(p, c, dtype=np.float32) / a for p, c, a in zip(points, centre, axes)]
    k0 = np.sqrt(scaled[0] ** 2 + scaled[1] ** 2 + scaled[2] ** 2)
    k1 = np.sqrt(sum((s / a) ** 2 for s, a in zip(scaled, axes)))
    return k0 * (k0 - 1) / np.maximum(k1, 1e-6)


@dataclass(frozen=True)
class Canvas:
    """A head in the making: voxels that are painted from the outside inwards; each keeps its last two tissues and their shares.

    label, second: numbers of `Label`; share: that of `label`, 0..1; all are [D, H, W].
    """

    label: AnyArray
    second: AnyArray
    share: AnyArray
    voxel_mm: float

    def paint(self, label: Label, distance: AnyArray, where: AnyArray | None = None) -> None:
        """Paint where `distance` is negative; a voxel that the surface crosses is shared by two tissues."""
        distance = np.broadcast_to(distance, self.label.shape)
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

    def paint_tubes(
        self, tubes: Mapping[Label, Sequence[Tube]], points: Space, where: AnyArray
    ) -> None:
        """Paint tubes by their labels."""
        for label, parts in tubes.items():
            if parts:
                self.paint(label, points.tubes(parts, 4), where)

    def paint_ball(
        self,
        label: Label,
        points: Space,
        centre: Triple,
        axes: Triple,
        where: AnyArray | None = None,
    ) -> None:
        """Paint an ellipsoid with this centre and these half axes in mm."""
        # The first-order distance is at least that to the surface along the shortest half axis.
        half = np.multiply(axes, 1 + self.voxel_mm / 2 / min(axes))
        (box,) = points.boxes(np.subtract([centre], half), np.add([centre], half))
        inside = None if where is None else where[box]
        # What is painted on a part of the canvas is painted on the whole.
        part = Canvas(self.label[box], self.second[box], self.share[box], self.voxel_mm)
        part.paint(label, ellipsoid([p[box] for p in points], centre, axes), inside)


def tube(path: Sequence[Sequence[float]], radius_mm: Pair) -> Tube:
    """The tube along a path in mm, whose radius changes linearly from `radius_mm[0]` to `radius_mm[1]`."""
    points = np.asarray(path, dtype=np.float64)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    lengths = np.concatenate([[0.0], np.cumsum(steps)])
    radii = np.interp(lengths / max(lengths[-1], 1e-9), [0.0, 1.0], radius_mm)
    ends = np.column_stack([points, radii])
    return np.stack([ends[:-1], ends[1:]], axis=1)


def tubes_of(text: str) -> list[Tube]:
    """The tubes that the lines of a text state.

    A line has the points of a path, as x y z in mm, a bar, and the first and last radius in mm.
    """
    parts = []
    for line in text.strip().splitlines():
        course, _, radii = line.partition("|")
        first, last = numbers(radii)
        parts.append(tube([*map(numbers, course.split(","))], (first, last)))
    return parts


def numbers(text: str) -> list[float]:
    """The numbers of a text, separated by spaces."""
    return [float(number) for number in text.split()]


def triple(numbers: Iterable[float]) -> Triple:
    """Three numbers of any kind as Python's own, whose arithmetic keeps arrays in float32."""
    x, y, z = map(float, numbers)
    return x, y, z


def _capsule(points: list[AnyArray], start: AnyArray, end: AnyArray) -> AnyArray:
    """Distance to a line whose radius changes linearly; start, end: x, y, z and radius in mm."""
    x, y, z = (p - np.float32(c) for p, c in zip(points, start))
    dx, dy, dz, thicker = (end - start).astype(np.float32)
    scale = 1 / max(dx * dx + dy * dy + dz * dz, np.float32(1e-9))
    share = x * (dx * scale) + y * (dy * scale) + z * (dz * scale)
    share = np.minimum(np.maximum(share, 0), 1)
    x -= share * dx
    y -= share * dy
    z -= share * dz
    return np.sqrt(x * x + y * y + z * z) - (np.float32(start[3]) + share * thicker)


def bounded_normal(rng: Rng, size: int) -> AnyArray:
    """Normal numbers, at most 2 standard deviations away from 0."""
    return np.clip(rng.standard_normal(size), -2, 2)


@dataclass(frozen=True)
class NoiseField:
    """Smooth periodic noise on a cube of points `pitch_mm` apart; it does not depend on the image's size.

    shift_mm: by which it is shifted along x, y and z.
    """

    values: AnyArray
    pitch_mm: float
    shift_mm: Triple

    def at(self, points: Iterable[AnyArray]) -> AnyArray:
        """The noise at points, [D, H, W] each."""
        index = np.stack(self._places(points)[::-1])
        return ndimage.map_coordinates(
            self.values, index, order=1, mode="grid-wrap", output=np.float32
        )

    def on(self, axes: Points) -> AnyArray:
        """The same on a grid with axes x [W], y [H], z [D], [D, H, W], in less time."""
        values = self.values
        for axis, place in enumerate(self._places(axes)[::-1]):
            low = np.floor(place).astype(int)
            share = (place - low).astype(np.float32).reshape(-1, *[1] * (2 - axis))
            before, after = (values.take(low + step, axis, mode="wrap") for step in (0, 1))
            values = before + share * (after - before)
        return values

    def _places(self, points: Iterable[AnyArray]) -> list[AnyArray]:
        """Fractional indices of points."""
        shifted = (p + np.float32(shift) for p, shift in zip(points, self.shift_mm))
        return [p / np.float32(self.pitch_mm) for p in shifted]


def noise(
    rng: Rng,
    wavelength_mm: float,
    pitch_mm: float,
    points: int,
    cells: bool = False,
) -> NoiseField:
    """Gaussian noise of unit variance with this wavelength, and with all longer ones.

    cells: instead, the distance in mm to the zero surfaces of noise of this wavelength alone. Fields of the same kind are shifts of one field, because
    drawing another for each head takes longer than a small head.
    """
    values = _field(wavelength_mm, pitch_mm, points, cells)
    return NoiseField(values, pitch_mm, triple(rng.uniform(0, points * pitch_mm, 3)))


@lru_cache
def _field(wavelength_mm: float, pitch_mm: float, points: int, cells: bool) -> AnyArray:
    """The noise of one kind, [points, points, points]."""
    white = np.random.default_rng(0).standard_normal((points,) * 3).astype(np.float32)
    axis = np.fft.fftfreq(points, pitch_mm)
    half = np.fft.rfftfreq(points, pitch_mm)
    squared = axis[:, None, None] ** 2 + axis[None, :, None] ** 2
    frequency = np.sqrt(squared + half[None, None, :] ** 2)
    relative = frequency * wavelength_mm
    if cells:
        relative = (relative - 1) / 0.22
    keep = np.exp(-0.5 * relative**2)
    keep[0, 0, 0] = 0
    smooth = fft.irfftn(fft.rfftn(white) * keep, white.shape)
    values = (smooth / smooth.std()).astype(np.float32)
    return _distance_to_zero(values, pitch_mm) if cells else values


def _distance_to_zero(values: AnyArray, pitch_mm: float) -> AnyArray:
    """The distance in mm to the zero surfaces of noise, f / |grad f|, bounded where the slope vanishes."""
    slope = [
        (np.roll(values, -1, axis) - np.roll(values, 1, axis)) / (2 * pitch_mm) for axis in range(3)
    ]
    steep = np.sqrt(sum(s * s for s in slope))
    floor = 0.3 * float(np.sqrt(np.mean(steep**2)))
    return (values / np.sqrt(steep**2 + floor**2)).astype(np.float32)
