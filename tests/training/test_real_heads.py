"""Real scans that do not fit a starter are told by their content; whole ones that fit are not graded falsely."""

from dataclasses import replace

import numpy as np
import pytest

from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, canonical
from voxlate.scans.images.mask import foreground
from voxlate.synthesis.model import Model
from voxlate.training.model import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def head(shared) -> Volume:
    path = shared / "data" / "native_unaligned" / "chris" / "pd.nii.gz"
    return replace(canonical(read_volume(path, "pd")), modality="mr")


@pytest.fixture(scope="module")
def starter(shipped_starters) -> Model:
    return load(shipped_starters / "head-mr-to-ct", device="cpu")


def grades(model: Model, scan: Volume) -> dict[str, str]:
    """The grade of each code that a starter gives to a scan."""
    warnings = model.check({scan.modality: scan}).messages
    return {said.code: said.grade for said in warnings if said.grade != "note"}


def quarter_turn(scan: Volume) -> Volume:
    z, y, x = scan.grid.spacing_mm
    turned = np.rot90(scan.data, 1, (2, 3)).copy()
    return replace(scan, data=turned, affine=np.diag([y, x, z, 1.0]))


def test_a_real_head_that_its_borders_cut_has_no_other_warning(starter, head):
    assert grades(starter, head) == {"border": "caution", "crown-missing": "caution"}


def test_a_real_head_turned_or_cut_through_the_middle_is_a_caution(starter, head):
    assert grades(starter, quarter_turn(head))["axes-exchanged"] == "caution"
    half = replace(head, data=head.data[:, : head.data.shape[1] // 2].copy())
    assert grades(starter, half)["crown-missing"] == "caution"


def test_noise_in_the_outline_of_a_real_head_and_its_inverted_inside_are_not_to_be_trusted(
    starter, head
):
    body = foreground(head)
    noise = np.random.default_rng(0).uniform(20, 200, body.shape)
    inverted = 200 - head.data[0].clip(0, 190)
    for values in (noise, inverted):
        changed = np.where(body, values, 0).astype(np.float32)[None]
        found = grades(starter, replace(head, data=changed))
        assert "do not trust" in found.values()


def test_a_real_head_in_random_order_of_slices_is_not_to_be_trusted(starter, head):
    order = np.random.default_rng(0).permutation(head.data.shape[1])
    mixed = grades(starter, replace(head, data=head.data[:, order]))
    assert "do not trust" in mixed.values()


def test_a_real_pd_is_no_tof_and_real_tofs_show_vessels(shared, shipped_starters, head):
    model = load(shipped_starters / "head-tof-to-cta-experimental", device="cpu")
    assert grades(model, replace(head, modality="tof"))["no-vessels"] == "do not trust"
    for name in ("topcow_pair/mra", "native_unaligned/chris/mra"):
        tof = canonical(read_volume(shared / "data" / f"{name}.nii.gz", "tof"))
        assert "no-vessels" not in grades(model, tof)
