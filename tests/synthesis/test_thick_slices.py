"""Where slices are too thick to tell the crown's bone from the brain, a starter says so, and its intervals do, too."""

import numpy as np
import pytest

from voxlate.anatomy.cohort import write_cohort
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import canonical
from voxlate.scans.images.mask import foreground
from voxlate.training.model import load

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("slices", "thick"), [(14, True), (56, False)])
def test_thick_slices_are_a_caution_and_the_crowns_intervals_contain_soft_tissue(
    tmp_path, shipped_starters, slices, thick
):
    write_cohort(tmp_path / "heads", cases=1, size=(48, 48, slices), modalities=["t1"], seed=3)
    scan = read_volume(next((tmp_path / "heads").rglob("t1.nii.gz")), "t1")
    body = np.flatnonzero(foreground(canonical(scan))[:].any(axis=(1, 2)))
    model = load(shipped_starters / "head-mr-to-ct", device="cpu")
    made = model.synthesise({"mr": scan}, warn=lambda _: None)
    assert ("thick-slices" in {said.code for said in made.warnings}) == thick
    top = body[-1] - len(body) // 5 + 1
    low = canonical(made.low["ct"]).data[0, top : body[-1] + 1]
    assert bool((low <= 0).all()) == thick
