"""Arrays that are processed in slabs and kept in files give the same bits as whole arrays in memory."""

import errno

import numpy as np
import pytest
import scipy.ndimage

from rows import every_row
from voxlate.base import slabs
from voxlate.base.errors import CannotWrite
from voxlate.base.slabs import (
    chunks,
    empty,
    scratch_in,
    spread_values,
    zeros,
)
from voxlate.scans.images import mask as masks
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.volume_statistics import PERCENTILES, distribution

SHAPE = (23, 30, 41)


@pytest.fixture
def small_slabs(monkeypatch):
    """Slabs of two planes."""
    monkeypatch.setattr(slabs, "SLAB", 2500)


def noise(seed=0, sigma=1.0) -> np.ndarray:
    return scipy.ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), sigma)


@every_row("dtype", [np.int16, np.float32])
@every_row("masked", [False, True])
def test_statistics_of_large_sets_are_numpys_to_the_bit(small_slabs, dtype, masked):
    values = (noise(sigma=0.4) * 900).astype(dtype)
    values[values < -300] = -300  # many equal values, as of a background
    inside = noise(1) > 0 if masked else None
    flat = values.reshape(-1) if inside is None else values[inside]
    found = distribution(values, inside)
    assert (found.mean, found.sd) == (flat.mean(dtype=np.float64), flat.std(dtype=np.float64))
    assert found.percentiles == tuple(np.percentile(flat, PERCENTILES))


@every_row("unit", ["HU", "a.u."])
def test_the_foreground_is_the_same_in_slabs_and_in_files(tmp_path, monkeypatch, unit):
    z, y, x = np.ogrid[:23, :30, :41]
    head = ((z - 11) / 9) ** 2 + ((y - 15) / 10) ** 2 + ((x - 20) / 13) ** 2 < 1
    image = np.where(head, 400, -1000 if unit == "HU" else 20) + 15 * noise(4, 0.5)
    volume = Volume(image[None].astype(np.float32), np.diag([4, 4, 4, 1.0]), unit, "x")
    whole = masks.foreground(volume)
    box = masks.box_around(whole)
    assert 0.1 < whole.mean() < 0.5
    monkeypatch.setattr(slabs, "SLAB", 2500)
    monkeypatch.setattr(slabs, "LEAST_BYTES_IN_FILE", 1)
    with scratch_in(tmp_path):
        assert np.array_equal(masks.foreground(volume), whole)
        assert masks.box_around(whole) == box


def test_large_arrays_are_in_files_that_vanish(tmp_path, monkeypatch):
    monkeypatch.setattr(slabs, "LEAST_BYTES_IN_FILE", 1000)
    with scratch_in(tmp_path / "new"):
        array = zeros((10, 10, 10), np.int16)
        array[:] = 7
        assert empty((3, 3), np.int16).base is None
    slabs.release(array)
    assert (array == 7).all()
    assert array.base is not None
    assert not list((tmp_path / "new").iterdir())
    assert empty((10, 10, 10), np.int16).base is None


def test_a_full_disk_is_said_before_the_file_is_used(tmp_path, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(slabs.os, "posix_fallocate", no_room, raising=False)
    with scratch_in(tmp_path), pytest.raises(CannotWrite, match=r"0\.931 GB"):
        empty((1000, 1000, 1000), np.uint8)


def test_passes_over_slabs_give_the_values_of_whole_arrays(small_slabs):
    values = noise(5).astype(np.float32)
    assert len(slabs.slabs(SHAPE)) > 5
    for step in (1, 7, 2600):
        assert np.array_equal(spread_values(values, step), values.reshape(-1)[::step])
    assert b"".join(chunk.data for chunk in chunks(values[None, ::-1])) == values[::-1].tobytes()
