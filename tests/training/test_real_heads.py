"""Real scans that do not fit a starter are told by their content; whole ones that fit are not graded falsely."""

from dataclasses import replace

import numpy as np
import pytest

from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import canonical
from voxlate.scans.images.mask import foreground
from voxlate.training.load import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def head(shared):
    path = shared / "data/native_unaligned/chris/pd.nii.gz"
    return replace(canonical(read_volume(path, "pd")), modality="mr")


@pytest.fixture(scope="module")
def starter(shipped_starters):
    return load(shipped_starters / "head-mr-to-ct", device="cpu")


def grades(model, scan):
    """The grade of each code that a starter gives to a scan."""
    warnings = model.check({scan.modality: scan}).messages
    return {said.code: said.grade for said in warnings if said.grade != "note"}


def test_a_real_head_that_its_borders_cut_has_no_other_warning(starter, head):
    said = grades(starter, head)
    assert said.keys() == {"border", "crown-missing", "shape"}, "its crown is cut"
    assert {*said.values()} == {"caution"}


def test_a_real_head_turned_or_cut_through_the_middle_is_a_caution(starter, head):
    z, y, x = head.grid.spacing_mm
    turned = np.rot90(head.data, 1, (2, 3)).copy()
    turned = replace(head, data=turned, affine=np.diag([y, x, z, 1.0]))
    assert grades(starter, turned)["axes-exchanged"] != "note"
    half = replace(head, data=head.data[:, : head.data.shape[1] // 2].copy())
    assert grades(starter, half)["crown-missing"] == "caution"


def test_noise_in_the_outline_of_a_real_head_its_inverted_inside_and_mixed_slices_are_not_to_be_trusted(
    starter, head
):
    draw, body = np.random.default_rng(0), foreground(head)
    noise = np.where(body, draw.uniform(20, 200, body.shape), 0)
    inverted = np.where(body, 200 - head.data[0].clip(0, 190), 0)
    for values in (noise, inverted, draw.permutation(head.data[0])):
        changed = replace(head, data=values.astype(np.float32)[None])
        assert "do not trust" in grades(starter, changed).values()
