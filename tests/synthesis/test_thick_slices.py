"""Where slices are too thick to tell the crown's bone from the brain, a starter says so, and its intervals do, too."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from rows import every_row
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.base.executors.case_work import no_report
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, canonical
from voxlate.scans.images.mask import foreground
from voxlate.training.load import load

pytestmark = pytest.mark.slow


@pytest.fixture
def model(shipped_starters):
    return load(shipped_starters / "head-mr-to-ct", device="cpu")


@every_row("planes, has_intervals", [((1,), True), ((3,), False), ((), False)])
def test_a_case_read_in_one_plane_has_intervals_only_of_cases_that_were_read_so(
    model, planes, has_intervals
):
    own = model.calibration()
    known = replace(own, header=replace(own.header, planes=planes))
    stated = SimpleNamespace(find=lambda _: known, messages=lambda _: [])
    values = np.zeros((1, 6, 24, 24), np.float32)
    values[:, 1:5, 4:20, 4:20] = np.random.default_rng(0).uniform(500, 1000, (4, 16, 16))
    scan = Volume(values, np.diag([8.0, 8, 20, 1]), "a.u.", "mr")
    made = replace(model, calibrations=stated).synthesise({"mr": scan}, warn=no_report, anyway=True)
    assert bool(made.low) == has_intervals
    assert ("no-intervals" in {said.code for said in made.warnings}) == (not has_intervals)
    assert not made.std, "one plane says nothing of how planes differ"


@every_row("slices, thick", [(14, True), (56, False)])
def test_thick_slices_are_a_caution_and_the_crowns_intervals_contain_soft_tissue(
    tmp_path, model, slices, thick
):
    write_cohort(tmp_path, cases=1, size=(48, 48, slices), modalities=["t1"], seed=3)
    scan = read_volume(next(tmp_path.rglob("t1.nii.gz")), "t1")
    body = np.flatnonzero(foreground(canonical(scan)).any(axis=(1, 2)))
    made = model.synthesise({"mr": scan}, warn=no_report)
    assert ("thick-slices" in {said.code for said in made.warnings}) == thick
    top = body[-1] - len(body) // 5 + 1
    low = canonical(made.low["ct"]).data[0, top : body[-1] + 1]
    assert bool((low <= 0).all()) == thick


@pytest.mark.parametrize(
    ("part", "codes"), [("T-SPINE", ["other-content"]), ("CSPINE", []), ("HIPPOCAMPUS", [])]
)
def test_another_part_of_the_body_in_the_header_is_said_before_thick_slices(
    tmp_path, shipped_starters, part, codes
):
    write_cohort(tmp_path / "heads", cases=1, size=(48, 48, 14), modalities=["t1"], seed=3)
    scan = read_volume(next((tmp_path / "heads").rglob("t1.nii.gz")), "t1")
    model = load(shipped_starters / "head-mr-to-ct", device="cpu")
    said = model.check({"mr": replace(scan, body_part=part)}).messages
    known = [one.code for one in said if one.code in ("other-content", "thick-slices")]
    assert known == [*codes, "thick-slices"]
