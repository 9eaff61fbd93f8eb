"""Intervals that a starter brings along: fitted on synthetic heads, widened on real ones, and stated as such."""

import shutil

import numpy as np
import pytest

import voxlate as package
from rows import slow
from scans import contents_of
from starter_intervals import RealHeads, ends_in_window, widen
from starter_pack import with_intervals
from voxlate.base.files import file_hash, read_json
from voxlate.evaluation.intervals.conformal import needed_scale
from voxlate.synthesis.intervals import notes_on_starter
from voxlate.training.calibration_file import read_calibration, write_calibration
from voxlate.training.load import load
from voxlate.training.starters.card import Intervals, read_card

FILE = "calibration.mean.1.safetensors"
SAID = "fitted on 6 synthetic heads; measured on real heads: 7 (made 2 times wider)"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the calibration of this module is kept, which the first test computes."""
    return tmp_path_factory.mktemp("kept") / "own"


@pytest.fixture
def own(starter, kept, cohort, tmp_path, quick_widths):
    """A copy of the starter that is calibrated as any run, on six heads."""
    if not kept.exists():
        package.calibrate("starter:tiny", cohort, out=kept, progress=False)
    return shutil.copytree(kept, tmp_path / "own")


@pytest.fixture
def ready(starter, own):
    """The starter with the intervals of this copy, twice as wide."""
    widened = widen(read_calibration(own / FILE), {"t2": {"factor": 2.0, "heads": 7}})
    write_calibration(starter / FILE, widened)
    with_intervals(starter, Intervals(FILE, file_hash(starter / FILE), f"They were {SAID}."))
    return starter


@pytest.fixture
def scan(cohort):
    return cohort / "case0/t1.nii.gz"


@slow
def test_a_starter_writes_intervals_and_states_their_basis_and_no_bound(
    ready, voxlate, cohort, out
):
    answer = voxlate("synth", "starter:tiny", cohort / "case0", "--out", out).done()
    assert "each exceeded with a probability" not in answer.out
    names = {path.name for path in (out / "case0").iterdir()}
    assert names == {"t2.nii.gz", "t2_low.nii.gz", "t2_high.nii.gz", "provenance.json"}
    stated = read_json(out / "case0/provenance.json")
    assert stated["calibration"]["widened"] == {"t2": {"factor": 2.0, "heads": 7}}
    assert "bounds" not in stated
    assert "synthetic-intervals" in {said["code"] for said in stated["warnings"]}
    voxlate("evaluate", out, "--truth", cohort).done()
    assert voxlate("report", out).code == 0


def test_widened_intervals_reach_twice_as_far_from_the_image(ready, own, scan):
    narrow, wide = (load(run, "cpu").synthesise({"t1": scan}) for run in (own, "starter:tiny"))
    image = wide.volume.data
    for near, far in ((narrow.low, wide.low), (narrow.high, wide.high)):
        reached = image + 2 * (near["t2"].data - image)
        inside = (reached > 1) & (reached < 1399)
        assert inside.sum() > 300
        np.testing.assert_allclose(far["t2"].data[inside], reached[inside], atol=0.1)
    assert narrow.bounds == wide.bounds == {}


@slow
def test_a_calibration_on_patients_replaces_that_of_the_starter_in_a_copy_alone(
    ready, voxlate, cohort, scan, out, tmp_path
):
    before, copied = contents_of(ready), tmp_path / "copied"
    assert "Add --out RUN" in voxlate("calibrate", "starter:tiny", cohort).refusal
    voxlate("calibrate", "starter:tiny", cohort, "--out", copied).done()
    assert "for research only" in voxlate("synth", copied, scan, "--out", out).done().err
    (provenance,) = out.glob("*/provenance.json")
    assert "widened" not in read_json(provenance)["calibration"]
    names = {path.name for path in provenance.parent.iterdir()}
    assert "t2_low.nii.gz" in names
    assert contents_of(ready) == before


def test_options_for_which_the_intervals_were_not_fitted_give_an_image_without_them(
    ready, voxlate, scan, out
):
    answer = voxlate("synth", "starter:tiny", scan, "--out", out, "--set", "synth.mirror=true")
    assert "It has no intervals for such images" in answer.done().err
    assert not list(out.glob("*/t2_low.nii.gz"))


def test_a_starter_that_is_packed_again_loses_its_intervals(ready, install):
    card = read_card(install())
    assert card.intervals is None
    assert "It has no intervals." in card.lines


def test_the_factor_that_a_voxel_needs_is_its_error_over_the_distance_on_that_side():
    error = np.array([-2.0, 3.0, 0.0, 1.0], np.float32)
    below = np.array([1.0, 1.0, 0.0, 1.0], np.float32)
    above = np.array([9.0, 6.0, 0.0, 0.0], np.float32)
    assert needed_scale(error, below, above).tolist() == [2.0, 0.5, 0.0, np.inf]


def test_black_and_white_of_a_window_show_all_hounsfield_units_beyond_it():
    least, most = ends_in_window(np.array([0, 51, 255], np.float32), (0, 80))
    assert least.tolist() == [-np.inf, 16.0, 80.0]
    assert most.tolist() == [0.0, 16.0, np.inf]


def test_the_factor_covers_the_nominal_share_on_average_over_heads():
    even = np.linspace(0, 1, 10_001)
    heads = RealHeads({"easy": even, "hard": 3 * even}, 0.9)
    assert heads.factor == pytest.approx(2.4, abs=0.01)  # (1 + 2.4 / 3) / 2 = 0.9
    assert heads.coverages(2.4) == pytest.approx({"easy": 1.0, "hard": 0.8}, abs=0.001)
    assert RealHeads({"easy": even / 2}, 0.9).factor == 1.0, "too wide ones are not narrowed"


def test_nobody_is_told_to_calibrate_on_cases_of_which_none_could_have_intervals():
    for can_have in (True, False):
        notes = notes_on_starter({"name": "x", "trained_on": "heads"}, None, can_have)
        assert any("voxlate calibrate" in said.text for said in notes) == can_have


def test_the_limits_of_a_starter_are_said_with_the_targets_that_have_them():
    starter = {"name": "x", "trained_on": "heads", "target_limits": {"flair": "No lesions."}}
    for targets, said in ((("flair", "t2"), 1), (("t2",), 0)):
        notes = notes_on_starter(starter, None, True, targets)
        assert [note.code for note in notes].count("target-limits") == said
