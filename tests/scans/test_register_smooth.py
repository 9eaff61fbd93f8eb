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

SEED = 5


@pytest.fixture(scope="module")
def ct():
    """The CT of a head, [1, D, H, W] at about 2.5 mm."""
    head = make_head(SEED, 0, (72, 80, 60))
    return Volume(image(head, "ct")[None], head.affine, "HU", "ct", "ct")


@pytest.fixture
def flat(ct):
    return replace(ct, data=ct.data[:, 33:34])


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


def errors_mm(transform, moving, fixed, inside):
    """How far the transform, after the bend, takes points of the body from where they were."""
    start = np.indices(fixed.data.shape[1:])
    went = np.stack(
        [
            apply_transform(
                replace(moving, data=one[None].astype(np.float32)), fixed.grid, transform
            ).data[0]
            for one in np.indices(moving.data.shape[1:])
        ]
    )
    spacing = np.array(fixed.grid.spacing_mm)[:, None, None, None]
    bend = [scipy.ndimage.map_coordinates(axis, went, order=1) for axis in bend_mm(fixed)]
    return np.linalg.norm(((went - start) * spacing + bend)[:, inside], axis=0)


@pytest.mark.slow
def test_a_bent_ct_is_registered_to_itself_within_half_a_voxel(ct, monkeypatch):
    monkeypatch.setattr(module, "SAMPLES", 4000)  # enough for the rigid part
    moving = bent(ct)
    found = register(moving, ct, "smooth")
    assert found.kept == "smooth"
    inside = ct.data[0] > -300
    errors = errors_mm(found.transform, moving, ct, inside)
    assert np.median(errors) < 1
    assert np.percentile(errors, 90) < 1.6
    assert np.median(np.linalg.norm(bend_mm(ct)[:, inside], axis=0)) > 1.6


@pytest.mark.slow
def test_a_single_slice_is_displaced_within_its_plane_to_a_part_of_a_voxel(tmp_path):
    head = make_head(SEED, 0, (200, 240, 9))
    fixed = Volume(image(head, "ct")[None, 4:5], head.affine, "HU", "ct", "ct")
    moving = bent(fixed)
    found = register(moving, fixed, "smooth")
    assert found.kept == "smooth"
    errors = errors_mm(found.transform, moving, fixed, fixed.data[0] > -300)
    assert np.median(errors) < 0.3
    assert np.percentile(errors, 90) < 0.7
    back = apply_transform(moving, fixed.grid, found.transform).data
    before, after = (np.abs(one - fixed.data).mean() for one in (moving.data, back))
    assert after < 0.5 * before
    write_transform(tmp_path / "ct.h5", found.transform)
    again = apply_transform(moving, fixed.grid, read_transform(tmp_path / "ct.h5")).data
    assert np.allclose(again, back, atol=0.1)


@pytest.mark.slow
def test_slices_are_not_registered_by_methods_of_volumes(flat):
    with pytest.raises(BadInput):
        register(flat, flat, "rigid")


@pytest.mark.slow
def test_scans_that_agree_nowhere_stay_where_they_are(flat):
    noise = np.random.default_rng(0).normal(size=flat.data.shape).astype(np.float32)
    assert register(replace(flat, data=noise, unit="a.u."), flat, "smooth").kept == "none"
