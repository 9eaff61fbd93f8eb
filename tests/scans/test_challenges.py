"""The metrics of challenges equal those of the public evaluators on the same arrays.

The numbers of SynthRAD2025 and BraSyn were computed once by the evaluators' algorithm (SynthRAD2025/evaluation 17cac47 on
int16 arrays; hongweilibran/BraSyn 4d9af6d with the SSIM of torchmetrics in float64).
"""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio

from refusals import refuses
from voxlate.evaluation.scoring.evaluators import brasyn, synthrad2023, synthrad2025


def arrays(shape=(24, 40, 36)):
    """Smooth noise from -2000 to 2200, the same with errors, and an ellipsoid."""
    random = np.random.default_rng(5)
    truth = np.round(gaussian_filter(random.normal(0, 1, shape), 2) * 9000)
    image = np.round(truth + gaussian_filter(random.normal(0, 1, shape), 1) * 900)
    places = np.indices(shape).T / shape - 0.5
    return truth, image, (places**2).sum(-1).T < 0.16


def test_synthrad2023_has_the_evaluators_similarity_and_scikit_images_noise_ratio():
    truth, image, mask = arrays()
    low, high = -1024.0, 3000.0
    a, b = (np.clip(one, low, high).astype(np.float32) for one in (truth, image))
    psnr = peak_signal_noise_ratio(a[mask], b[mask], data_range=high - low)
    scores = synthrad2023(truth, image, mask)
    assert scores["mae"] == pytest.approx(np.abs(truth - image)[mask].mean(), abs=1e-9)
    assert scores["psnr"] == pytest.approx(psnr, abs=1e-6)
    # of the evaluator (SynthRAD2023/metrics fe7e385)
    assert scores["ssim"] == pytest.approx(0.9649226459916592, abs=1e-6)


def test_synthrad2025_has_the_evaluators_values_of_small_and_large_images():
    for shape, mae, psnr, similarity in (
        ((24, 40, 36), 103.76878301174949, 30.126706191665008, 0.9942752632069978),
        ((100, 99, 104), 107.09016934162644, 29.804199237874343, 0.9882053626831244),
    ):
        expected = {"mae": mae, "psnr": psnr, "ms_ssim": similarity}
        assert synthrad2025(*arrays(shape)) == pytest.approx(expected, abs=1e-6)


def test_brasyn_has_the_values_of_the_published_script_in_tumour_and_rest_if_there_is_a_tumour():
    truth, image, mask = arrays()
    truth, image, tumour = np.abs(truth), np.abs(image), mask & (truth > 300)
    expected = {"ssim_tumour": 0.9513151821378225, "ssim_healthy": 0.8647549572215585}
    assert brasyn(truth, image, tumour) == pytest.approx(expected, abs=1e-6)
    scores = brasyn(truth, image, np.zeros_like(mask))
    assert np.isnan(scores["ssim_tumour"])
    assert 0 < scores["ssim_healthy"] < 1


def test_images_thinner_than_the_window_are_refused():
    truth, image, mask = (one[:5] for one in arrays())
    with refuses("found 36×40×5"):
        synthrad2023(truth, image, mask)
