"""Protons: relative stopping power, and water-equivalent path length along a beam.

Source: Schneider, Pedroni and Lomax 1996 (Phys. Med. Biol. 41:111): the table (tissues.py); the path length is the
integral of the relative stopping power along the ray from the skin (beams.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from voxlate.base.arrays import AnyArray
from voxlate.base.errors import BadInput
from voxlate.clinic.consumers.beams import frame_of, rays_over, sides_along, starts_of, walk
from voxlate.scans.images.grid import Grid

RAYS_MM = 5.0  # between the rays whose totals are listed


@dataclass(frozen=True)
class RayTotals:
    """Whole rays through the body: entry_mm: [R, 3] the skin (RAS); length_mm: [R] within the body; wepl_mm: [R] of each map."""

    entry_mm: AnyArray
    length_mm: AnyArray
    wepl_mm: Mapping[str, AnyArray]


def ray_totals(
    rsp: Mapping[str, AnyArray],
    body: AnyArray,
    grid: Grid,
    direction: AnyArray,
    apart_mm: float = RAYS_MM,
) -> RayTotals:
    """Water-equivalent path lengths of parallel rays through a body, for each map [D, H, W] of relative stopping power.

    Raises BadInput where no ray meets the body.
    """
    frame = frame_of(grid, direction)
    u, v, depth = rays_over(body, grid, frame, apart_mm)
    starts = starts_of(frame, u, v, depth[0])
    entry, length = np.zeros((len(starts), 3)), np.zeros(len(starts))
    wepl = {name: np.zeros(len(starts)) for name in rsp}
    for part in walk(grid, starts, direction):
        inside = np.where(body.reshape(-1)[part.voxels], part.lengths_mm, 0.0)
        length[part.rays] = inside.sum(axis=1)
        first = part.depths_mm[np.arange(len(inside)), (inside > 0).argmax(axis=1)]
        entry[part.rays] = starts[part.rays] + first[:, None] * direction
        for name, values in rsp.items():
            wepl[name][part.rays] = (inside * values.reshape(-1)[part.voxels]).sum(axis=1)
    met = length > 0
    if not met.any():
        missed_body()
    return RayTotals(entry[met], length[met], {name: values[met] for name, values in wepl.items()})


def missed_body() -> None:
    """Raise BadInput for a beam that meets no body."""
    raise BadInput(
        "--beam: expected rays that meet the body, found none: the image shows no body above -300 HU. Check the CT and its unit."
    )


def wepl_map(rsp: AnyArray, body: AnyArray, grid: Grid, direction: AnyArray) -> AnyArray:
    """The water-equivalent depth in mm of the centre of each voxel [D, H, W] from the skin, along parallel rays.

    Rays are one voxel side apart and go through the centres of voxels where the beam runs along an axis of the grid, so that
    depths are exact; else the values are interpolated linearly between them. Before the skin the depth is 0.
    """
    frame = frame_of(grid, direction)
    apart = sides_along(grid, frame)
    u, v, depth = rays_over(body, grid, frame, apart)
    starts = starts_of(frame, u, v, depth[0])
    stopping = np.where(body, rsp, 0).astype(np.float32).reshape(-1)
    table = np.zeros((len(starts), len(depth)), np.float32)
    for part in walk(grid, starts, direction):
        steps = part.lengths_mm * stopping[part.voxels]
        reached = np.concatenate([np.zeros((len(steps), 1)), steps.cumsum(axis=1)], axis=1)
        for row, borders, values in zip(
            range(part.rays.start, part.rays.stop), part.depths_mm, reached
        ):
            table[row] = np.interp(depth - depth[0], borders, values)
    # from voxels (z, y, x) to positions in the table (u, v, depth)
    to_beam = frame.axes.T @ grid.affine[:3, :3][:, ::-1] / apart[:, None]
    first = np.array([u[0], v[0], depth[0]])
    offset = (frame.place(grid.affine[None, :3, 3])[0] - first) / apart
    return ndimage.affine_transform(
        table.reshape(len(u), len(v), len(depth)),
        to_beam,
        offset,
        output_shape=grid.shape,
        output=np.float32,
        order=1,
        mode="nearest",
        prefilter=False,
    )
