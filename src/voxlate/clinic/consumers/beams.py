"""Parallel rays through a grid: their directions, and the exact lengths of their ways through the voxels."""

import math
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
from nibabel.affines import apply_affine

from voxlate.base.arrays import AnyArray
from voxlate.base.errors import BadInput
from voxlate.scans.images.grid import Grid
from voxlate.scans.images.mask import box_around

CHUNK = 1000  # rays at a time
ALONG = 1 - 1e-6  # cosine from which a beam's axis is one of the grid's
PARALLEL = 1e-9  # voxels per mm along an axis, below which a ray has no way along it


def read_beam(text: str) -> AnyArray:
    """The direction (RAS, length 1) of a beam: a gantry angle in degrees, or x,y,z towards right, front and head.

    Gantry 0 comes from the front of a patient on the back, head first, and 90 from the left (IEC 61217). Raises
    BadInput for any other text.
    """
    try:
        values = [*map(float, text.replace(",", " ").split())]
    except ValueError:
        values = []
    if len(values) == 1 and math.isfinite(values[0]):
        angle = math.radians(values[0])
        return np.array([math.sin(angle), -math.cos(angle), 0.0])
    length = math.hypot(*values)  # which does not overflow where the squares do
    if len(values) != 3 or not 0 < length < math.inf:
        raise BadInput(
            f"--beam: expected a gantry angle in degrees, or x,y,z of a direction (RAS), found {text!r}. Write 90, or 0,0,-1."
        )
    return np.array(values) / length


class BeamAxes(NamedTuple):
    """Axes of a beam in RAS: two across it and its direction, as columns; origin_mm: (0, 0, 0) of it in RAS."""

    axes: AnyArray
    origin_mm: AnyArray

    def place(self, points_mm: AnyArray) -> AnyArray:
        """Points in RAS [N, 3] in the axes of the beam."""
        return (points_mm - self.origin_mm) @ self.axes

    def ras(self, points: AnyArray) -> AnyArray:
        """Points in the axes of the beam [N, 3] in RAS."""
        return points @ self.axes.T + self.origin_mm


def frame_of(grid: Grid, direction: AnyArray) -> BeamAxes:
    """The axes of a beam through the first voxel; where the beam runs along an axis of the grid, so do all of them."""
    unit = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    across = unit[:, int(np.abs(direction @ unit).argmin())]
    across = across - (across @ direction) * direction
    across /= np.linalg.norm(across)
    return BeamAxes(
        np.stack([across, np.cross(direction, across), direction], axis=1), grid.affine[:3, 3]
    )


def sides_along(grid: Grid, frame: BeamAxes) -> AnyArray:
    """The distances in mm of voxels along the axes of a beam [3]; the least one for an axis that is none of the grid's."""
    spacing = np.array(grid.spacing_mm[::-1])
    along = np.abs(frame.axes.T @ (grid.affine[:3, :3] / spacing))
    return np.where(along.max(axis=1) > ALONG, spacing[along.argmax(axis=1)], spacing.min())


def rays_over(
    mask: AnyArray, grid: Grid, frame: BeamAxes, apart_mm: AnyArray | float
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Rays over the box of a mask [D, H, W]: positions along the two axes across, and depths, `apart_mm` (each) apart.

    They are multiples of the distance, and reach one distance or more beyond the box.
    """
    apart_mm = np.broadcast_to(apart_mm, 3)
    edges = [(first - 0.5, end - 0.5) for first, end in reversed(box_around(mask))]
    corners = apply_affine(grid.affine, [*product(*edges)])
    placed = frame.place(corners) / apart_mm
    first = np.floor(placed.min(axis=0)).astype(int) - 1
    last = np.ceil(placed.max(axis=0)).astype(int) + 1
    u, v, depth = (np.arange(a, b + 1) * apart for a, b, apart in zip(first, last, apart_mm))
    return u, v, depth


def starts_of(frame: BeamAxes, u: AnyArray, v: AnyArray, depth_mm: float) -> AnyArray:
    """The starts (RAS mm, [R, 3]) of rays at all positions along the two axes across a beam, at one depth."""
    across = np.stack(np.meshgrid(u, v, indexing="ij"), axis=-1).reshape(-1, 2)
    return frame.ras(np.column_stack([across, np.full(len(across), depth_mm)]))


def corners_mm(grid: Grid) -> AnyArray:
    """The corners of a grid (RAS mm, [8, 3])."""
    corners = [*product(*((-0.5, length - 0.5) for length in grid.shape[::-1]))]
    return np.asarray(apply_affine(grid.affine, corners))


def before_grid(grid: Grid, frame: BeamAxes) -> float:
    """A depth from which all rays of a beam begin outside a grid."""
    return float(frame.place(corners_mm(grid))[:, 2].min()) - 1.0


class Walk(NamedTuple):
    """The ways of some rays: rays: which; depths_mm: [R, K+1] the borders of their steps; voxels: [R, K] flat indices."""

    rays: slice
    depths_mm: AnyArray
    voxels: AnyArray

    @property
    def lengths_mm(self) -> AnyArray:
        """The lengths of the steps [R, K]; 0 outside the grid."""
        return np.diff(self.depths_mm, axis=1)


def walk(grid: Grid, starts_mm: AnyArray, direction: AnyArray) -> Iterator[Walk]:
    """The voxels on each ray from its start (RAS mm, [R, 3]) and the exact length in each, ray by ray and by depth.

    Source: Siddon 1985 (Med. Phys. 12:252): the crossings with the planes between voxels, sorted by depth.
    """
    inverse = np.linalg.inv(grid.affine)
    speed = inverse[:3, :3] @ direction
    shape = np.array(grid.shape[::-1])
    for first in range(0, len(starts_mm), CHUNK):
        rays = slice(first, min(first + CHUNK, len(starts_mm)))
        start = apply_affine(inverse, starts_mm[rays])
        enter = np.zeros(len(start))
        leave = np.full(len(start), np.inf)
        crossings = []
        for axis in range(3):
            at, length = start[:, axis, None], shape[axis]
            if abs(speed[axis]) < PARALLEL:
                beside = (at[:, 0] < -0.5) | (at[:, 0] > length - 0.5)
                leave = np.where(beside, 0.0, leave)
                continue
            depths = (np.arange(length + 1) - 0.5 - at) / speed[axis]
            crossings.append(depths)
            enter = np.maximum(enter, depths[:, [0, -1]].min(axis=1))
            leave = np.minimum(leave, depths[:, [0, -1]].max(axis=1))
        leave = np.maximum(leave, enter)
        borders = np.sort(np.concatenate(crossings, axis=1), axis=1)
        borders = borders.clip(enter[:, None], leave[:, None])
        middle = (borders[:, 1:] + borders[:, :-1]) / 2
        flat = np.zeros(middle.shape, np.int64)
        for axis in (2, 1, 0):
            index = np.floor(start[:, axis, None] + middle * speed[axis] + 0.5).astype(np.int64)
            flat = flat * shape[axis] + index.clip(0, shape[axis] - 1)
        yield Walk(rays, borders, flat)
