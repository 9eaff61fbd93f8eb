"""Registration by a smooth displacement: phantoms that are bent by a known field, as volumes and as slices."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage

from voxlate.anatomy.head import make_head
from voxlate.anatomy.scanner import image
from voxlate.base.errors import BadInput
from voxlate.scans.images import register as module
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.register import apply_transform, register, write_transform
from voxlate.scans.images.transforms import read_transform
from voxlate.scans.images.units import unit_of

SEED, SIZE = 5, (72, 80, 60)


@pytest.fixture(scope="module")
def scans():
    """CT and T1 of one head, [1, D, H, W] at about 2.5 mm."""
    head = make_head(SEED, 0, SIZE)
    return {
        name: Volume(image(head, name)[None], head.affine, unit_of(name), name, name)
        for name in ("ct", "t1")
    }


def bend_mm(volume):
    """A known smooth displacement of up to 4 mm along rows and columns, [3, D, H, W] as (D, H, W)."""
    d, h, w = np.indices(volume.data.shape[1:], dtype=float)
    spacing = volume.grid.spacing_mm
    across, along = h * spacing[1], w * spacing[2]
    return np.stack([np.zeros_like(d), 4 * np.sin(along / 40), 3 * np.cos(across / 45)])


def bent(volume):
    """The volume whose point x shows what the original shows at x + bend(x)."""
    steps = bend_mm(volume) / np.array(volume.grid.spacing_mm)[:, None, None, None]
    places = np.indices(volume.data.shape[1:]) + steps
    moved = scipy.ndimage.map_coordinates(volume.data[0], places, order=1, mode="nearest")
    return replace(volume, data=moved[None].astype(np.float32))


def errors_mm(found, moving, fixed, inside):
    """How far the transform, after the bend, takes points of the body from where they were."""
    known = bend_mm(fixed)
    coordinates = [
        Volume(one[None].astype(np.float32), moving.affine, "", "")
        for one in np.indices(moving.data.shape[1:])
    ]
    went = [apply_transform(one, fixed.grid, found.transform).data[0] for one in coordinates]
    spacing = np.array(fixed.grid.spacing_mm)[:, None, None, None]
    place = (np.stack(went) - np.indices(fixed.data.shape[1:])) * spacing
    left = [
        place[axis] + scipy.ndimage.map_coordinates(known[axis], np.stack(went), order=1)
        for axis in range(3)
    ]
    return np.linalg.norm(np.stack(left)[:, inside], axis=0)


@pytest.mark.slow
def test_a_bent_ct_is_registered_to_itself_within_half_a_voxel(scans, monkeypatch):
    monkeypatch.setattr(module, "SAMPLES", 4000)  # enough for the rigid part
    fixed, moving = scans["ct"], bent(scans["ct"])
    found = register(moving, fixed, "smooth")
    assert found.kept == "smooth"
    inside = fixed.data[0] > -300
    errors = errors_mm(found, moving, fixed, inside)
    assert (
        np.percentile(errors, 90)
        < 1.6
        < np.percentile(np.linalg.norm(bend_mm(fixed)[:, inside], axis=0), 50)
    )
    assert np.median(errors) < 1


@pytest.mark.slow
def test_a_single_slice_is_displaced_within_its_plane_to_a_part_of_a_voxel(tmp_path):
    head = make_head(SEED, 0, (200, 240, 9))
    ct = image(head, "ct")[None, 4:5]
    fixed = Volume(ct, head.affine, "HU", "ct", "ct")
    moving = bent(fixed)
    found = register(moving, fixed, "smooth")
    assert found.kept == "smooth"
    errors = errors_mm(found, moving, fixed, fixed.data[0] > -300)
    assert np.median(errors) < 0.3
    assert np.percentile(errors, 90) < 0.7
    back = apply_transform(moving, fixed.grid, found.transform).data
    before, after = (np.abs(one - fixed.data).mean() for one in (moving.data, back))
    assert after < 0.5 * before
    write_transform(tmp_path / "ct.h5", found.transform)
    again = apply_transform(moving, fixed.grid, read_transform(tmp_path / "ct.h5")).data
    assert np.allclose(again, back, atol=0.1)


@pytest.mark.slow
def test_slices_are_not_registered_by_methods_of_volumes(scans):
    flat = replace(scans["ct"], data=scans["ct"].data[:, 33:34])
    with pytest.raises(BadInput, match="single slices with --register smooth"):
        register(flat, flat, "rigid")


@pytest.mark.slow
def test_scans_that_agree_nowhere_stay_where_they_are(scans):
    fixed = replace(scans["ct"], data=scans["ct"].data[:, 33:34])
    noise = np.random.default_rng(0).normal(size=fixed.data.shape).astype(np.float32)
    found = register(replace(fixed, data=noise, unit="a.u."), fixed, "smooth")
    assert found.kept == "none"
