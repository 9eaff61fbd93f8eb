"""Water-equivalent path lengths against other ray tracers: SimpleITK's resampling in fine steps."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rows import every_row
from voxlate.clinic.consumers.beams import read_beam
from voxlate.clinic.consumers.proton import ray_totals, wepl_map
from voxlate.scans.images.grid import Grid

pytestmark = pytest.mark.slow

STEP_MM = 0.02
BEYOND_MM = 150.0  # longer than any way through the grid
LPS = np.diag([-1.0, -1.0, 1.0])
DIRECTIONS = ("37", "301.5", "0.3,-0.5,-0.8", "-0.9,0.1,0.4")


def image_of(values, grid):
    """A grid's values as an image of SimpleITK, in which the patient's left, back and head are positive."""
    itk = pytest.importorskip("SimpleITK", reason="the comparison needs the extra 'registration'")
    image = itk.GetImageFromArray(values)
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((LPS @ grid.affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((LPS @ grid.affine[:3, 3]).tolist())
    return image


def summed(image, starts_mm, direction):
    """Path lengths of rays from starts (RAS) on, by the values of the nearest voxels in steps of STEP_MM."""
    itk = pytest.importorskip("SimpleITK")
    # a grid of one voxel across, whose last axis is the ray
    across = np.linalg.svd(direction[None])[2][1:]
    axes = LPS @ np.column_stack([*across, direction])
    resample = itk.ResampleImageFilter()
    resample.SetInterpolator(itk.sitkNearestNeighbor)
    resample.SetSize((1, 1, int(BEYOND_MM / STEP_MM)))
    resample.SetOutputSpacing((1.0, 1.0, STEP_MM))
    resample.SetOutputDirection(axes.ravel().tolist())
    found = []
    for start in starts_mm + STEP_MM / 2 * direction:
        resample.SetOutputOrigin((LPS @ start).tolist())
        found.append(itk.GetArrayFromImage(resample.Execute(image)).sum() * STEP_MM)
    return np.array(found)


def oblique_head():
    """An ellipsoid with bone, air and grain: its grid, stopping power and body, and the image of the power inside it."""
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
    rsp = np.where(body, rsp, 0.4).astype(np.float32)
    return grid, rsp, body, image_of(rsp * body, grid)


@every_row("beam", DIRECTIONS)
def test_whole_rays_have_the_path_length_of_fine_steps_by_simpleitk(beam):
    grid, rsp, body, image = oblique_head()
    direction = read_beam(beam)
    rays = ray_totals({"rsp": rsp}, body, grid, direction, apart_mm=7.0)
    assert len(rays.length_mm) > 20
    expected = summed(image, rays.entry_mm - 0.5 * direction, direction)
    # each border between voxels is missed by half a step at most
    np.testing.assert_allclose(rays.wepl_mm["rsp"], expected, atol=0.06)
    assert np.abs(rays.wepl_mm["rsp"] - expected).mean() < 0.02


@every_row("beam", DIRECTIONS)
def test_depths_of_voxels_are_those_of_fine_steps_back_to_the_skin(beam):
    grid, rsp, body, image = oblique_head()
    direction = read_beam(beam)
    depths = wepl_map(rsp, body, grid, direction)
    voxels = np.random.default_rng(1).permutation(np.argwhere(body))[:400]
    centres = voxels[:, ::-1] @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    expected = summed(image, centres, -direction)
    error = depths[tuple(voxels.T)] - expected
    assert expected.max() > 40
    # interpolated between rays one voxel apart across walls of bone and air; half a voxel of shift is 0.6 mm or more
    assert abs(error.mean()) < 0.15
    assert np.abs(error).mean() < 0.75
