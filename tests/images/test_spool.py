"""Volumes in files: the same numbers as in memory, little of them in memory, and nothing left behind."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlate.errors import BadInput
from voxlate.images import spool
from voxlate.images.grid import canonical, resample, return_to, with_spacing
from voxlate.images.mask import foreground
from voxlate.images.morphology import closed, components, fill_holes, fill_slices, largest, opened, without_specks
from voxlate.images.volume import Volume, read_volume, write_volume

RANDOM = np.random.default_rng(0)
AFFINE = np.array([[0, 0, 2.5, -20], [-0.7, 0, 0, 30], [0, 0.7, 0, 7], [0, 0, 0, 1]])  # sagittal: axes permuted


@pytest.fixture
def everything_large(monkeypatch) -> None:
    """Arrays of a kilobyte lie in files, and are worked on two thousand voxels at a time."""
    monkeypatch.setattr(spool, "LARGE", 1000)
    monkeypatch.setattr(spool, "RUN_VOXELS", 2000)


def head(shape=(24, 40, 36)) -> Volume:
    """A bright ellipsoid with a hole in it, in noise."""
    z, y, x = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    inside = x**2 + y**2 + z**2 < 0.7
    values = np.where(inside, 600, 0) + RANDOM.normal(0, 15, shape)
    values[10:14, 18:22, 16:20] = 0
    return Volume(np.rint(values)[None].astype(np.float32), AFFINE, "a.u.", "t1", "head")


def test_every_step_gives_the_same_bits_from_files(tmp_path, monkeypatch) -> None:
    scan = head()

    def steps() -> list[np.ndarray]:
        upright = canonical(scan)
        write_volume(tmp_path / "a.nii.gz", upright)
        return [
            upright.data,
            return_to(upright, scan.grid).data,
            resample(upright, with_spacing(upright.grid, (1.3, 1.1, 0.9))).data,
            foreground(upright),
            np.frombuffer((tmp_path / "a.nii.gz").read_bytes(), np.uint8),
            read_volume(tmp_path / "a.nii.gz").data,
        ]

    in_memory = steps()
    monkeypatch.setattr(spool, "LARGE", 1000)
    monkeypatch.setattr(spool, "RUN_VOXELS", 2000)
    for plain, filed in zip(in_memory, steps()):
        assert plain.dtype == filed.dtype
        assert plain.tobytes() == filed.tobytes()
        assert filed.flags.c_contiguous


@pytest.mark.usefixtures("everything_large")
def test_what_is_released_is_still_there() -> None:
    values = RANDOM.normal(size=(2, 5, 30, 20)).astype(np.float32)
    held = spool.zeros(values.shape)
    held[:] = values
    spool.release(held[1, 2:])  # a view of it is enough
    np.testing.assert_array_equal(held, values)
    turned = held[:, ::-1].transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(spool.spooled(turned), values[:, ::-1].transpose(0, 2, 3, 1))
    assert spool.spooled(held) is held


@pytest.mark.usefixtures("everything_large")
def test_a_full_disk_is_one_sentence_and_not_a_killed_process(monkeypatch) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(BadInput, match=r"expected room for .* GiB of voxels, found none .*TMPDIR"):
        spool.zeros((10, 100, 100))


def test_a_header_that_promises_more_than_the_file_is_refused_before_room_is_made(tmp_path, monkeypatch) -> None:
    write_volume(tmp_path / "a.nii", head())
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[42:48] = np.array([30000, 30000, 30000], np.int16).tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    monkeypatch.setattr("os.posix_fallocate", None)
    with pytest.raises(BadInput, match="damaged or cut short"):
        read_volume(tmp_path / "a.nii")


masks = st.tuples(
    st.integers(1, 7), st.integers(1, 9), st.integers(1, 9), st.floats(0.1, 0.9), st.integers(0, 999)
).map(lambda args: np.random.default_rng(args[4]).random(args[:3]) < args[3])


@settings(deadline=None, max_examples=150)
@given(masks)
def test_components_joined_over_planes_are_those_of_the_whole_volume(mask) -> None:
    labels, count = scipy.ndimage.label(mask)
    found = components(mask)
    assert found.count == count
    np.testing.assert_array_equal(found.owner[found.parts], labels)
    np.testing.assert_array_equal(found.sizes()[1:], np.bincount(labels.reshape(-1), minlength=count + 1)[1:])
    np.testing.assert_array_equal(fill_holes(mask), scipy.ndimage.binary_fill_holes(mask))


@settings(deadline=None, max_examples=60)
@given(masks, st.floats(0, 3))
def test_morphology_follows_scipys(mask, radius) -> None:
    reach = [int(radius + 1e-6) if n > 1 else 0 for n in mask.shape]
    box = np.ones([2 * r + 1 for r in reach], bool)
    padded = np.pad(mask, [(r, r) for r in reach], mode="edge")
    inner = tuple(slice(r, n + r) for r, n in zip(reach, mask.shape))
    grown = scipy.ndimage.grey_dilation(mask.astype(np.uint8), footprint=box, mode="nearest") > 0
    shut = scipy.ndimage.grey_erosion(grown.astype(np.uint8), footprint=box, mode="nearest") > 0
    assert padded[inner].shape == mask.shape
    np.testing.assert_array_equal(closed(mask, radius, (1, 1, 1)), shut)


@pytest.mark.usefixtures("everything_large")
def test_masks_in_files_are_those_in_memory() -> None:
    mask = scipy.ndimage.gaussian_filter(RANDOM.normal(size=(30, 40, 50)), 1.2) > 0.1
    filed = spool.mapped(np.asarray, mask, dtype=bool)
    for step in (largest, without_specks, fill_slices, lambda m: opened(m, 2.0, (1, 1, 1))):
        got = step(filed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(spool, "LARGE", 2**40)
            patch.setattr(spool, "RUN_VOXELS", 2**40)
            np.testing.assert_array_equal(got, step(mask))


MEASURE = """
import sys
from pathlib import Path
import numpy as np
import voxlate.data.scale as scale
from voxlate.images import spool
from voxlate.images.grid import canonical, return_to
from voxlate.images.mask import foreground
from voxlate.images.volume import read_volume, write_volume

def peak():
    return int(next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM")).split()[1])

scale.LARGE = spool.LARGE = 2**20
spool.RUN_VOXELS = 2**18
import scipy.sparse.csgraph
before = peak()
scan = read_volume(sys.argv[1])
upright = canonical(scan)
body = foreground(upright)
scale.intensity_statistics(upright.data[0], body)
write_volume(sys.argv[1], return_to(upright, scan.grid))
print((peak() - before) / 1024, scan.data.nbytes / 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_memory_does_not_grow_with_the_slices(tmp_path) -> None:
    """Read, turn, mask, measure and write: 48 slices more take little beside the size of one copy of them."""
    grown = []
    for depth in (16, 64):
        path = tmp_path / f"{depth}.nii"
        write_volume(path, head((depth, 256, 256)))
        command = [sys.executable, "-c", MEASURE, str(path)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        grown.append([float(number) for number in said])
    (few, small), (many, large) = grown
    assert many - few < 0.3 * (large - small), grown
