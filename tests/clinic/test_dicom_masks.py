"""Masks and label maps as Segmentation objects: the voxels of each label, at the places of the source."""

import numpy as np
import pytest

from refusals import refuses
from rows import every_row

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

from derived_objects import ORDERS, ORIGIN, SHAPE, reordered, write_source  # noqa: E402 - needs pydicom

from voxlate.clinic.dicom_objects import write_mask  # noqa: E402
from voxlate.scans.images.grid import LPS_TO_RAS, Volume  # noqa: E402

LABELS = (1, 2, 4)


def labelled(affine) -> Volume:
    """A label map; slice 2 shows nothing."""
    data = np.random.default_rng(2).choice((0, *LABELS), (1, *SHAPE)).astype(np.float32)
    data[0, 2] = 0
    return Volume(data, affine, "", "seg")


def segments(file):
    """The voxels [x, y, z in mm] of each segment, as highdicom reads them, by the label in its name."""
    one = highdicom.seg.segread(file)
    read = one.get_volume(combine_segments=False)
    found = {}
    for number in one.segment_numbers:
        label = one.get_segment_description(number).segment_label
        places = np.argwhere(read.array[..., number - 1])
        in_mm = np.c_[places, np.ones(len(places))] @ read.affine.T
        found[label] = {tuple(np.round(place, 2) + 0.0) for place in in_mm[:, :3]}
    return found


def expected(volume, label):
    lps = LPS_TO_RAS @ volume.affine
    return {
        tuple(np.round(lps @ (x, y, z, 1), 2)[:3] + 0.0)
        for z, y, x in np.argwhere(volume.data[0] == label)
    }


@every_row("order, flips, angle", [(*ORDERS[0], 0.0), (*ORDERS[17], 0.31), (*ORDERS[34], 0.31)])
def test_each_label_is_a_segment_with_its_voxels_at_their_places(tmp_path, order, flips, angle):
    volume = labelled(write_source(tmp_path / "mr", angle))
    (file,) = write_mask(
        reordered(volume, order, flips), "seg", tmp_path / "mr", tmp_path / "out", ORIGIN
    )
    found = segments(file)
    assert found == {f"seg {label}": expected(volume, label) for label in LABELS}


@every_row(
    "value, message",
    [
        (0.5, "expected labels, whole numbers from 0 to 255, found values from 0 to 0.5"),
        (300, "found values from 0 to 300"),
        (0, "expected a mask with voxels above 0, found none"),
    ],
)
def test_what_is_no_mask_is_refused_and_nothing_is_written(tmp_path, value, message):
    affine = write_source(tmp_path / "mr")
    data = np.zeros((1, *SHAPE), np.float32)
    data[0, 1, 2, 3] = value
    mask = Volume(data, affine, "", "seg")
    with refuses(message):
        write_mask(mask, "seg", tmp_path / "mr", tmp_path / "out", ORIGIN)
    assert not (tmp_path / "out").exists()
