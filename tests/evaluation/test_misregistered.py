"""Misregistered pairs: what their distance costs, and scores after an image was moved onto its truth."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage

from made_volumes import save
from preparing import prepare
from refusals import refuses
from rows import every_row, slow
from voxlate.anatomy.shipped_heads import make_head
from voxlate.anatomy.signal import image
from voxlate.evaluation.evaluate_options import EvaluateOptions
from voxlate.evaluation.scoring.evaluate import evaluate, rules_of
from voxlate.evaluation.scoring.metrics import METRIC_OF, ImagePair
from voxlate.evaluation.scoring.misregistered import floor_of, motion_onto, score_aligned
from voxlate.scans.cases.align import Registered
from voxlate.scans.cases.case import PreparedCase, write_case
from voxlate.scans.cases.prepared import case_path, open_cohort
from voxlate.scans.images.misalignment import Misalignment
from voxlate.scans.images.ranges import Range
from voxlate.scans.images.register import Similarity

SPACING_MM = (2.0, 1.0, 1.0)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
WIDTH = 60
SAME = Similarity(1.0, 1.0, 1.0)


def apart(mm: float, translation_mm=(0.0, 0.0, 1.0)) -> Misalignment:
    return Misalignment(mm, mm, translation_mm, 0.0, "", "ct")


def edge() -> np.ndarray:
    """Voxels of 0 on the left and 100 on the right."""
    values = np.zeros((12, 20, WIDTH), np.float32)
    values[..., WIDTH // 2 :] = 100
    return values


def test_a_moved_edge_costs_its_height_times_the_share_of_voxels_it_passes():
    expected = pytest.approx(100 * 3.0 / WIDTH, rel=1e-3)
    assert floor_of(edge(), None, SPACING_MM, apart(3.0)) == {"floor": expected, "floor_mm": 3.0}
    assert floor_of(edge(), None, SPACING_MM, apart(3.0, (0.0, 0.0, -0.2)))["floor"] == expected
    assert floor_of(edge(), None, SPACING_MM, apart(3.0, (1.0, 0.0, 0.0)))[
        "floor"
    ] == pytest.approx(0, abs=1e-4)


def test_noise_is_next_to_nothing_of_the_cost():
    noise = np.random.default_rng(0).normal(0, 10, (24, 40, WIDTH)).astype(np.float32)
    floor = floor_of(noise, None, (1.0, 1.0, 1.0), apart(3.0))["floor"]
    assert floor < 2.5  # 11.3 without smoothing


@pytest.fixture
def prepared(tmp_path):
    """Two cases, whose alignment was not estimated."""
    for number, case in enumerate("ab"):
        draw = np.random.default_rng(number)
        ct = edge() + draw.normal(0, 1, edge().shape).astype(np.float32)
        save(tmp_path / "in" / case / "ct.nii.gz", ct, affine=AFFINE)
        save(tmp_path / "in" / case / "t1.nii.gz", 300 - ct, "t1", "a.u.", AFFINE)
        save(tmp_path / "out" / case / "ct.nii.gz", ct + 8, affine=AFFINE)
    return prepare(tmp_path / "in", tmp_path / "prepared", workers=1, audit=False).folder


@every_row(
    ("mm", "registered", "floor"),
    [
        (3.0, {}, 5.0),
        (0.6, {}, None),
        (0.6, {"t1": Registered("ct", "rigid", "none", SAME, SAME, "")}, 1.0),
    ],
)
def test_beside_the_mae_stands_the_part_of_scans_that_lie_apart_or_were_registered(
    prepared, mm, registered, floor
):
    cohort = open_cohort(prepared)
    case = cohort.case("b")
    header = replace(case.header, misaligned={"t1": apart(mm)}, registered=registered)
    arrays = {name: np.array(values) for name, values in case.arrays.items()}
    del case  # its arrays are the file's, which Windows could not replace
    write_case(case_path(cohort.folder, "b"), PreparedCase(header, arrays))
    scores = evaluate(prepared.parent / "out", prepared.parent / "in", prepared=prepared)
    table = scores.by_case("ct")
    if floor is None:
        assert "floor" not in table
    else:
        assert table["floor"].dropna().to_dict() == {"b": pytest.approx(floor, abs=0.3)}
        assert scores.short_table().lines["ct"][1].label == METRIC_OF["floor"].label


# images moved onto their truth

HEAD_MM = (200 / 72, 240 / 80, 200 / 72)
FUNCTIONS = {key: METRIC_OF[key].compute for key in ("mae", "gradient_strength")}


@pytest.fixture(scope="module")
def head():
    """A CT [D, H, W] in HU, and its body."""
    ct = image(make_head(5, 0, (72, 80, 60)), "ct")
    return ct, ct > -300


def scores(truth, synthesis, body):
    pair = ImagePair(truth, synthesis, Range(-1000.0, 2000.0, "HU", ""), None)
    return score_aligned(pair, body, HEAD_MM, FUNCTIONS) | {"mae": FUNCTIONS["mae"](pair)}


@slow
def test_an_image_that_is_shifted_by_5_mm_is_moved_back(head):
    truth, body = head
    shift_mm = np.array([0.0, 4.0, -3.0])
    shifted = scipy.ndimage.shift(truth, shift_mm / HEAD_MM, order=1, mode="nearest")
    found = scores(truth, shifted, body)
    assert found["aligned.mm"] == pytest.approx(5.0, abs=0.4)
    # interpolated twice, it keeps a part
    assert found["aligned.mae"] < 0.5 * found["mae"]


@slow
def test_an_image_in_its_place_keeps_its_scores(head):
    truth, body = head
    noisy = truth + 20 * np.random.default_rng(0).standard_normal(truth.shape).astype(np.float32)
    found = scores(truth, noisy, body)
    assert found["aligned.mm"] < 0.2
    assert found["aligned.mae"] == pytest.approx(found["mae"], rel=0.15)


def test_a_slice_is_moved_within_its_plane(head):
    truth, body = (volume[32:33] for volume in head)
    shifted = scipy.ndimage.shift(truth, (0, 1.0, 1.0), order=1, mode="nearest")
    motion = motion_onto(truth, shifted, body, (3.0, 3.0, 3.0), "HU")
    assert motion.displacements(np.zeros((1, 3)))[0] == pytest.approx([0, 3, 3], abs=0.6)


@slow
def test_a_shift_over_10_mm_is_an_error_of_the_image_and_stays(head):
    truth, body = head
    shifted = scipy.ndimage.shift(truth, (0, 5, 0), order=1, mode="nearest")
    assert motion_onto(truth, shifted, body, HEAD_MM, "HU") is None


def test_a_region_may_not_have_the_name_of_the_aligned_scores():
    with refuses("aligned"):
        rules_of(EvaluateOptions(align=True, regions={"aligned": "ct>100"}))
