"""Water-equivalent path lengths against sums over fine steps of each ray."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from rows import every_row
from voxlate.clinic.consumers.beams import read_beam
from voxlate.clinic.consumers.proton import ray_totals, wepl_map
from voxlate.scans.images.grid import Grid

pytestmark = pytest.mark.slow

STEP_MM = 0.02
BEYOND_MM = 150.0  # longer than any way through the grid
DIRECTIONS = ("37", "301.5", "0.3,-0.5,-0.8", "-0.9,0.1,0.4")


def summed(values, grid, starts_mm, direction):
    """Path lengths of rays from starts (RAS) on, by the values of the nearest voxels in steps of STEP_MM."""
    steps_mm = np.arange(STEP_MM / 2, BEYOND_MM, STEP_MM)
    to_index = np.linalg.inv(grid.affine)[:3]
    found = []
    for start in starts_mm:
        places = start[:, None] + steps_mm * direction[:, None]
        x_y_z = to_index[:, :3] @ places + to_index[:, 3:]
        found.append(map_coordinates(values, x_y_z[::-1], order=0).sum() * STEP_MM)
    return np.array(found)


def oblique_head():
    """An ellipsoid with bone, air and grain: its grid, stopping power and body."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xz", [-0.25, 0.4]).as_matrix() * [1.1, 1.5, 2.3]
    affine[:3, 3] = [12.0, -40.0, 7.0]
    grid = Grid((22, 40, 48), affine)
    z, y, x = np.meshgrid(*(np.linspace(-1.15, 1.15, n) for n in grid.shape), indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    rsp = 1.03 + 0.1 * np.random.default_rng(4).normal(size=grid.shape)
    rsp[radius > 0.8] = 1.6
    rsp[(np.abs(x) < 0.2) & (np.abs(y + 0.4) < 0.2)] = 0.001
    body = radius < 1
    return grid, np.where(body, rsp, 0.4).astype(np.float32), body


@every_row("beam", DIRECTIONS)
def test_whole_rays_have_the_path_length_of_fine_steps(beam):
    grid, rsp, body = oblique_head()
    direction = read_beam(beam)
    rays = ray_totals({"rsp": rsp}, body, grid, direction, apart_mm=7.0)
    assert len(rays.length_mm) > 20
    expected = summed(rsp * body, grid, rays.entry_mm - 0.5 * direction, direction)
    # each border between voxels is missed by half a step at most
    np.testing.assert_allclose(rays.wepl_mm["rsp"], expected, atol=0.06)
    assert np.abs(rays.wepl_mm["rsp"] - expected).mean() < 0.02


@every_row("beam", DIRECTIONS)
def test_depths_of_voxels_are_those_of_fine_steps_back_to_the_skin(beam):
    grid, rsp, body = oblique_head()
    direction = read_beam(beam)
    depths = wepl_map(rsp, body, grid, direction)
    voxels = np.random.default_rng(1).permutation(np.argwhere(body))[:400]
    centres = voxels[:, ::-1] @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    expected = summed(rsp * body, grid, centres, -direction)
    error = depths[tuple(voxels.T)] - expected
    assert expected.max() > 40
    # interpolated between rays one voxel apart across walls of bone and air; half a voxel of shift is 0.6 mm or more
    assert abs(error.mean()) < 0.15
    assert np.abs(error).mean() < 0.75
