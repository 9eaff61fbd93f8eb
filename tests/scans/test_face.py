"""Scans that may show a face, and brains without a skull."""

import numpy as np
import pytest

from rows import every_row
from voxlate.anatomy.cohort import write_cohort
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import is_stripped, may_show_face


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """A phantom with its skull, and one without."""
    folder = tmp_path_factory.mktemp("heads")
    for name, stripped in (("whole", False), ("brain", True)):
        modalities = ["t1"] if stripped else ["t1", "t2", "ct"]
        write_cohort(
            folder / name, cases=1, size=(48, 48, 24), modalities=modalities, stripped=stripped
        )
    return folder


@every_row("name", ["t1", "t2", "ct"])
def test_a_head_with_its_skull_may_show_a_face(heads, name):
    volume = read_volume(heads / "whole" / "phantom_000" / f"{name}.nii.gz", name)
    assert not is_stripped(volume)
    assert may_show_face(volume)


def test_a_brain_without_its_skull_shows_no_face(heads):
    volume = read_volume(heads / "brain" / "phantom_000" / "t1.nii.gz", "t1")
    assert is_stripped(volume)
    assert not may_show_face(volume)


def test_a_brain_in_hounsfield_units_without_bone_is_stripped():
    data = np.full((1, 40, 40, 40), -1000, np.float32)
    data[:, 8:32, 8:32, 8:32] = 35
    volume = Volume(data, np.diag([4.0, 4, 4, 1]), "HU", "ct")
    assert is_stripped(volume)
    data[:, 8:10, 8:32, 8:32] = 1000
    assert not is_stripped(volume)


def test_a_slab_of_a_head_shows_no_face(heads):
    volume = read_volume(heads / "whole" / "phantom_000" / "t1.nii.gz", "t1")
    slab = Volume(volume.data[:, 10:14].copy(), volume.affine, volume.unit, "t1")
    assert not may_show_face(slab)


@every_row("name, face", [("native_unaligned/chris/t1", True), ("native_unaligned/chris/pd", True),
                          ("brats_like/BraTS-GLI-00001-000/t2", False), ("topcow_pair/mra", False)])  # fmt: skip
@pytest.mark.slow
def test_real_heads_with_their_skin_may_show_a_face(shared, name, face):
    path = shared / "data" / f"{name}.nii.gz"
    assert may_show_face(read_volume(path, path.name.split(".")[0])) == face
