import numpy as np
import pytest

from voxlate.data.scale import PERCENTILES, case_scale, intensity_statistics, spread, typical_scale
from voxlate.images.intensity import Intensity, MinMax, Percentile, Window, ZScore


@pytest.fixture
def volume() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    values = rng.gamma(3.0, 100.0, (5, 20, 30)).astype(np.float32)
    mask = rng.random((5, 20, 30)) < 0.4
    values[~mask] = 0
    return values, mask


@pytest.mark.parametrize(
    "spec",
    [
        Window(low=-50, high=350),
        Percentile(low=0.5, high=99.5, inside="foreground"),
        Percentile(low=1, high=99.9, inside="all"),
        ZScore(clip=3.0),
        MinMax(per="volume"),
    ],
)
def test_stored_statistics_give_the_scale_that_the_voxels_give(
    spec: Intensity, volume: tuple[np.ndarray, np.ndarray]
) -> None:
    values, mask = volume
    stored, fitted = case_scale(spec, intensity_statistics(values, mask)), spec.fit(values, mask)
    assert (stored.low, stored.high) == pytest.approx((fitted.low, fitted.high), rel=1e-6)


def test_minmax_by_slice_is_each_slices_own_range(volume: tuple[np.ndarray, np.ndarray]) -> None:
    values, mask = volume
    statistics = intensity_statistics(values, mask)
    for d, one in enumerate(values):
        scale = case_scale(MinMax(per="slice"), statistics, d)
        assert (scale.low, scale.high) == (one.min(), one.max())


def test_percentiles_between_stored_ones_are_interpolated() -> None:
    ramp = spread(np.arange(10001, dtype=np.float32))  # percentile p of a ramp is 100 p
    assert [ramp.at(p) for p in PERCENTILES] == pytest.approx([100 * p for p in PERCENTILES], abs=1e-3)
    assert ramp.at(37.25) == pytest.approx(3725, abs=1e-2)


def test_without_a_mask_or_with_an_empty_one_all_is_foreground(volume: tuple[np.ndarray, np.ndarray]) -> None:
    values, _ = volume
    plain = intensity_statistics(values)
    assert plain.foreground == plain.all
    assert intensity_statistics(values, np.zeros(values.shape, bool)) == plain


def test_int16_and_float_voxels_of_the_same_values_have_the_same_statistics() -> None:
    values = np.random.default_rng(1).integers(-1000, 3000, (3, 8, 8))
    whole, real = intensity_statistics(values.astype(np.int16)), intensity_statistics(values.astype(np.float32))
    assert whole.all.percentiles == pytest.approx(real.all.percentiles, rel=1e-5)
    assert (whole.all.mean, whole.all.sd) == pytest.approx((real.all.mean, real.all.sd))


def test_the_typical_scale_is_the_median_over_cases_and_a_window_is_itself() -> None:
    cases = [intensity_statistics(np.linspace(0, top, 1000).reshape(10, 10, 10)) for top in (1.0, 3.0, 100.0)]
    scale = typical_scale(MinMax(per="volume"), cases)
    assert (scale.low, scale.high) == (0, 3)
    window = typical_scale(Window(low=-5, high=7), cases)
    assert (window.low, window.high) == (-5, 7)
