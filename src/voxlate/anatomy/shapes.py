"""Signed distances, tubes and smooth noise: the geometry of the phantom's organs.

Points are three arrays (x, y, z) in mm (right, anterior, superior). A distance is negative inside a shape.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import fft, ndimage

from voxlate.base.arrays import AnyArray

Rng = np.random.Generator
Pair = tuple[float, float]
Points = tuple[AnyArray, AnyArray, AnyArray]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Space:
    """The coordinates of voxels in mm: right, anterior, superior, [D, H, W] each.

    straight: the axes x [W], y [H], z [D] of the grid before its bending, which limit the search for tubes.
    """

    x: AnyArray
    y: AnyArray
    z: AnyArray
    straight: Points | None = None

    def __iter__(self) -> Iterator[AnyArray]:
        return iter((self.x, self.y, self.z))

    @functools.cached_property
    def half(self) -> "Space":
        """The same with the left side mirrored to the right."""
        return replace(self, x=np.abs(self.x))

    def at(self, **coordinates: Any) -> "Space":
        """The same with other coordinates x, y or z."""
        return replace(self, **coordinates)

    def ellipsoid(self, text: str) -> AnyArray:
        """Distance to the ellipsoid that a text states: its centre, a bar and its half axes, "x y z | a b c" in mm."""
        centre, _, axes = text.partition("|")
        return ellipsoid(self, numbers(centre), numbers(axes))

    def tubes(self, parts: "str | Sequence[Tube]", reach_mm: float) -> AnyArray:
        """Distance to the nearest tube, exact within `reach_mm` of a tube and `reach_mm` elsewhere.

        parts: a text is read by `tubes_of`. The straight axes limit the search, because bending moves a point by at
        most the largest difference from them.
        """
        parts = tubes_of(parts) if isinstance(parts, str) else parts
        out = np.full(self.x.shape, reach_mm, dtype=np.float32)
        assert self.straight is not None
        axes = self.straight[::-1]
        shaped = np.meshgrid(*axes, indexing="ij", sparse=True)
        differences = [p - s for p, s in zip((self.z, self.y, self.x), shaped)]
        bent = [(float(d.min()), float(d.max())) for d in differences]
        for part in parts:
            for a, b, ra, rb in part.segments():
                margin = max(ra, rb) + reach_mm
                box = []
                for axis, at, (least, most) in zip((2, 1, 0), axes, bent):
                    low = min(a[axis], b[axis]) - margin - most
                    high = max(a[axis], b[axis]) + margin - least
                    box.append(slice(*np.searchsorted(at, (low, high))))
                inside = tuple(box)
                if out[inside].size:
                    near = _capsule([p[inside] for p in self], a, b, ra, rb)
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


def union(*distances: AnyArray) -> AnyArray:
    """Distance to the union of shapes."""
    return functools.reduce(np.minimum, distances)


def overlap(*distances: AnyArray) -> AnyArray:
    """Distance to what lies in all of these shapes."""
    return functools.reduce(np.maximum, distances)


def join(a: AnyArray, b: AnyArray, blend_mm: float) -> AnyArray:
    """Union of two distances whose crease is rounded over `blend_mm` (a quadratic blend)."""
    near = np.maximum(blend_mm - np.abs(a - b), 0)
    return np.minimum(a, b) - near * near * (0.25 / blend_mm)


def cut(a: AnyArray, b: AnyArray, blend_mm: float) -> AnyArray:
    """Intersection of two distances with a rounded crease."""
    return -join(-a, -b, blend_mm)


@dataclass(frozen=True)
class Tube:
    """A line through `path` (mm) whose radius changes linearly from `radius_mm[0]` to `radius_mm[1]`."""

    path: tuple[Triple, ...]
    radius_mm: Pair

    def segments(self) -> list[tuple[AnyArray, AnyArray, float, float]]:
        """The straight parts of the tube: both ends in mm, and the radius at each."""
        points = np.asarray(self.path, dtype=np.float64)
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        lengths = np.concatenate([[0.0], np.cumsum(steps)])
        radii = np.interp(lengths / max(lengths[-1], 1e-9), [0.0, 1.0], self.radius_mm)
        return list(zip(points, points[1:], radii, radii[1:]))

    def mirror(self) -> "Tube":
        """The tube of the other side."""
        return Tube(tuple((-x, y, z) for x, y, z in self.path), self.radius_mm)


@functools.lru_cache(maxsize=256)
def tubes_of(text: str) -> tuple[Tube, ...]:
    """The tubes that the lines of a text state.

    A line has the points of a path, as x y z in mm, a bar, the first and last radius in mm, and a comment after "#".
    """
    parts = []
    for line in text.strip().splitlines():
        course, _, radii = line.partition("#")[0].partition("|")
        path = tuple(triple(numbers(point)) for point in course.split(","))
        first, last = numbers(radii)
        parts.append(Tube(path, (first, last)))
    return tuple(parts)


def numbers(text: str) -> list[float]:
    """The numbers of a text, separated by spaces."""
    return [float(number) for number in text.split()]


def triple(numbers: Iterable[float]) -> Triple:
    """Three numbers of any kind as Python's own, whose arithmetic keeps arrays in float32."""
    x, y, z = map(float, numbers)
    return x, y, z


def _capsule(points: list[AnyArray], a: AnyArray, b: AnyArray, ra: float, rb: float) -> AnyArray:
    along = b - a
    from_a = [p - np.float32(c) for p, c in zip(points, a)]
    product = sum(d * np.float32(c) for d, c in zip(from_a, along))
    share = product * np.float32(1 / max(float(along @ along), 1e-9))
    share = np.clip(share, 0, 1)
    squared = sum((d - share * np.float32(c)) ** 2 for d, c in zip(from_a, along))
    return np.sqrt(squared) - (np.float32(ra) + share * np.float32(rb - ra))


@dataclass(frozen=True)
class NoiseField:
    """Smooth periodic noise on a cube of points `pitch_mm` apart; it does not depend on the image's size."""

    values: AnyArray
    pitch_mm: float

    def at(self, points: Iterable[AnyArray]) -> AnyArray:
        """The noise at points, [D, H, W] each."""
        index = np.stack([np.asarray(p, dtype=np.float32) / self.pitch_mm for p in points])
        return ndimage.map_coordinates(
            self.values, index, order=1, mode="grid-wrap", output=np.float32
        )

    def distance_to_zero(self) -> "NoiseField":
        """The distance in mm to the noise's zero surfaces, f / |grad f|, bounded where the slope vanishes."""
        slope = []
        for axis in range(3):
            difference = np.roll(self.values, -1, axis) - np.roll(self.values, 1, axis)
            slope.append(difference / (2 * self.pitch_mm))
        steep = np.sqrt(sum(s * s for s in slope))
        floor = 0.3 * float(np.sqrt(np.mean(steep**2)))
        distance = self.values / np.sqrt(steep**2 + floor**2)
        return NoiseField(distance.astype(np.float32), self.pitch_mm)


def noise(
    rng: Rng,
    wavelength_mm: float,
    pitch_mm: float,
    points: int,
    narrow: bool = False,
) -> NoiseField:
    """Gaussian noise of unit variance with this wavelength, and with all longer ones unless `narrow`."""
    white = rng.standard_normal((points,) * 3).astype(np.float32)
    axis = np.fft.fftfreq(points, pitch_mm)
    half = np.fft.rfftfreq(points, pitch_mm)
    squared = axis[:, None, None] ** 2 + axis[None, :, None] ** 2
    frequency = np.sqrt(squared + half[None, None, :] ** 2)
    relative = frequency * wavelength_mm
    if narrow:
        relative = (relative - 1) / 0.22
    keep = np.exp(-0.5 * relative**2)
    keep[0, 0, 0] = 0
    smooth = fft.irfftn(fft.rfftn(white) * keep, white.shape)
    return NoiseField((smooth / smooth.std()).astype(np.float32), pitch_mm)
