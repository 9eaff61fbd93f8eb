"""The CT scanner, against known answers."""

from dataclasses import replace

import numpy as np
import pytest

from voxlate.anatomy.mapped_head import make_head
from voxlate.anatomy.signal import Exposure, expose, metal_rate_per_ms, tissue_map
from voxlate.anatomy.tissue import METAL, Label

pytestmark = pytest.mark.slow

SPACING_MM = (3.0, 2.0, 2.0)
SIZE = (50, 60, 24)
PLAIN = Exposure(0.01, 0.0, 0.5)


@pytest.fixture(scope="module")
def head():
    """A head with a filling among its teeth and a plate on its vertex."""
    plain = make_head(5, 0, SIZE)
    labels, share = plain.labels.copy(), plain.share.copy()
    labels[4, 44, 20:22] = Label.METAL
    share[4, 44, 20:22] = 1
    return replace(plain, labels=labels, share=share)


def _exposed(clean: np.ndarray, scanner: Exposure) -> np.ndarray:
    rng = np.random.default_rng(0)
    return expose(clean, scanner, "ct", SPACING_MM, rng)


def test_a_scanner_rounds_and_clips_and_its_noise_has_its_standard_deviation_and_its_grains():
    noise_hu = 10.0
    water = np.zeros((8, 64, 64), np.float32)
    levels = water + np.linspace(-2000, 9000, 64, dtype=np.float32)[:, None]
    assert np.array_equal(_exposed(levels, PLAIN), np.rint(levels.clip(-1024, 3071)))
    noise = _exposed(water, replace(PLAIN, noise_hu=noise_hu, grain_mm=2.0))
    assert noise.std() == pytest.approx(noise_hu, rel=0.05)
    neighbours = np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]
    slices = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
    assert neighbours > 0.5
    assert abs(slices) < 0.05


def test_metal_shortens_t2star_with_the_fourth_power_of_the_distance(head):
    rate = metal_rate_per_ms(head)
    dx = head.spacing_mm[2]
    one, two = rate[4, 44, 22], rate[4, 44, 26]  # one and five voxels beside the metal
    assert one / two == pytest.approx(((4 + 5 * dx) / (4 + dx)) ** 4, rel=1e-3)
    plain = replace(head, labels=np.where(np.isin(head.labels, METAL), Label.MUSCLE, head.labels))
    assert metal_rate_per_ms(plain) is None
    with_metal, without = tissue_map(head, "t2star_map"), tissue_map(plain, "t2star_map")
    tissue = (without > 0) & (head.labels == plain.labels)
    expected = without / (1 + rate * without)
    assert with_metal[tissue] == pytest.approx(expected[tissue], rel=2e-3)
    assert (expected[tissue] < 0.5 * without[tissue]).any()
