"""Scans that may show a face, and brains without a skull."""

from dataclasses import replace

import numpy as np
import pytest

from rows import every_row, slow
from voxlate.anatomy.phantom_cohort import write_cohort
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


@every_row(
    "folder, name, stripped",
    [("whole", "t1", False), ("whole", "t2", False), ("whole", "ct", False), ("brain", "t1", True)],
)
def test_a_head_with_its_skull_may_show_a_face_and_a_brain_without_does_not(
    heads, folder, name, stripped
):
    volume = read_volume(heads / folder / "phantom_000" / f"{name}.nii.gz", name)
    assert is_stripped(volume) == stripped
    assert may_show_face(volume) != stripped


def test_a_brain_in_hounsfield_units_without_bone_is_stripped():
    data = np.full((1, 40, 40, 40), -1000, np.float32)
    data[:, 8:32, 8:32, 8:32] = 35
    volume = Volume(data, np.diag([4.0, 4, 4, 1]), "HU", "ct")
    assert is_stripped(volume)
    data[:, 8:10, 8:32, 8:32] = 1000
    assert not is_stripped(volume)


def test_a_slab_of_a_head_shows_no_face(heads):
    volume = read_volume(heads / "whole" / "phantom_000" / "t1.nii.gz", "t1")
    assert not may_show_face(replace(volume, data=volume.data[:, 10:14].copy()))


@every_row("name, face", [("native_unaligned/chris/t1", True), ("native_unaligned/chris/pd", True),
                          ("brats_like/BraTS-GLI-00001-000/t2", False), ("topcow_pair/mra", False)])  # fmt: skip
@slow
def test_real_heads_with_their_skin_may_show_a_face(shared, name, face):
    path = shared / "data" / f"{name}.nii.gz"
    assert may_show_face(read_volume(path, path.name.split(".")[0])) == face
