"""Scores against closed forms, against scikit-image and against the laws they must keep."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from made_volumes import save_pair
from voxlate.evaluation.scoring import metrics
from voxlate.evaluation.scoring.metrics import (
    mae,
    mae_z,
    psnr,
    rmse,
    ssim,
)
from voxlate.evaluation.scoring.scores import read_scores

ORACLE = {
    "gaussian_weights": True,
    "sigma": 1.5,
    "use_sample_covariance": False,
    "data_range": 4.0,
}


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    truth = gaussian_filter(rng.uniform(0, 4, (17, 30, 26)), 1.2).astype(np.float32)
    return truth, (truth + rng.normal(0, 0.2, truth.shape)).astype(np.float32)


def oracle(truth, synthesis):
    """The mean of scikit-image's SSIM over slices."""
    return np.mean([structural_similarity(a, b, **ORACLE) for a, b in zip(truth, synthesis)])


def test_errors_of_a_known_difference():
    truth = np.zeros((1, 2, 2))
    synthesis = np.array([[[3.0, -1.0], [0.0, 0.0]]])
    assert mae(truth, synthesis) == 1.0
    assert rmse(truth, synthesis) == pytest.approx(math.sqrt(2.5))
    assert psnr(truth, synthesis, 10.0) == pytest.approx(10 * math.log10(100 / 2.5))
    assert mae(truth, synthesis, mask=[[[1, 0], [0, 0]]]) == 3.0
    assert mae(np.array([0, 250], np.uint8), np.array([250, 0], np.uint8)) == 250.0


def test_ssim_is_that_of_scikit_image_whole_over_slices_and_in_a_mask(pair):
    truth, synthesis = pair
    assert ssim(truth, synthesis, 4.0) == pytest.approx(oracle(truth, synthesis), abs=1e-6)
    expected, full = structural_similarity(truth, synthesis, full=True, **ORACLE)
    assert ssim(truth, synthesis, 4.0, dimensions=3) == pytest.approx(expected, abs=1e-6)
    mask = np.zeros(truth.shape, bool)
    mask[6:9, 10:20, 8:14] = True
    found = ssim(truth, synthesis, 4.0, dimensions=3, mask=mask)
    assert found == pytest.approx(full[mask].mean(), abs=1e-6)


def offset(truth, offsets):
    return truth + np.array(offsets, np.float32)[:, None, None]


def test_mae_z_is_the_mean_jump_of_the_error_from_slice_to_slice(pair):
    truth = pair[0][:4].astype(np.float64)
    assert mae_z(truth, offset(truth, [0, 1, 3, 3])) == pytest.approx((1 + 2 + 0) / 3)
    assert mae_z(truth, truth + 7) == pytest.approx(0, abs=1e-6)
    assert mae_z(truth, 0 * truth) == pytest.approx(np.abs(np.diff(truth, axis=0)).mean())
    assert math.isnan(mae_z(truth[:1], truth[:1]))
    # in a mask, both neighbours are inside it
    inside = np.zeros(truth.shape, bool)
    inside[1:3, 5, 5] = inside[3, 8, 8] = True
    assert mae_z(truth, offset(truth, [0, 1, 3, 9]), inside) == pytest.approx(2)


def test_ssim_does_not_depend_on_the_slabs_it_is_computed_in(pair, monkeypatch):
    def both():
        mask = np.random.default_rng(1).random(pair[0].shape) > 0.5
        return [ssim(*pair, 4.0, mask=mask, dimensions=dimensions) for dimensions in (2, 3)]

    whole = both()
    monkeypatch.setattr(metrics, "SLAB_VOXELS", 2 * 30 * 26)
    assert both() == pytest.approx(whole, abs=1e-7)


def test_ssim_is_nan_where_no_window_fits_or_the_mask_is_empty(pair):
    assert math.isnan(ssim(pair[0][:10], pair[1][:10], 1.0, dimensions=3))
    assert math.isnan(ssim(pair[0][:, :8], pair[1][:, :8], 1.0))
    assert math.isnan(ssim(*pair, 1.0, mask=np.zeros(pair[0].shape)))


OWN = '''
def worst(truth, synthesis, inside):
    """The largest error."""
    return abs(synthesis - truth)[inside].max()

def spoil(truth, synthesis, inside):
    synthesis[...] = truth
    return 0

def mae(truth, synthesis, inside):
    return 0

def broken(truth, synthesis, inside):
    raise IndexError("no such voxel")

worst.unit = "HU"
'''


def test_a_metric_of_the_users_own_stands_in_the_table_beside_the_others(
    voxlate, tmp_path, monkeypatch
):
    truth = np.full((6, 20, 20), -1000, np.float32)
    truth[1:5, 4:16, 4:16] = 40
    image = truth.copy()
    image[2, 8, 8] += 300
    image[0, 0, 0] += 900  # air, which does not count
    out, cohort = save_pair(tmp_path, truth, image)
    (tmp_path / "my_metrics.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)

    def score(name, *options):
        metric = f"my_metrics:{name}"
        return voxlate("evaluate", out, "--truth", cohort, "--metrics", metric, *options)

    # code runs only where it is allowed
    assert score("worst").code == 2
    assert "worst" in score("worst", "--allow-code").done().out
    scores = read_scores(out / "metrics.json")
    found = scores.means["ct"]["synthesis"]
    assert (found["worst"]["mean"], found["worst"]["unit"]) == (300, "HU")
    assert scores.header["own_metrics"]["worst"]["better"] == "lower"
    score("spoil", "--allow-code").done()
    spoilt = read_scores(out / "metrics.json").means["ct"]["synthesis"]
    # each function has arrays of its own
    assert spoilt["whole.mae"] == found["whole.mae"]
    for name in ("broken", "missing", "mae"):
        assert score(name, "--allow-code").code == 2
