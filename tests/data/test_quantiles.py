"""Percentiles by passes over pieces are numpy's own of the whole, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from voxlate.data import scale
from voxlate.data.quantiles import percentiles
from voxlate.data.scale import PERCENTILES, intensity_statistics


def in_pieces(values: np.ndarray, size: int):
    return lambda: (values[k : k + size] for k in range(0, len(values), size))


@settings(deadline=None, max_examples=200)
@given(
    arrays.arrays(np.float32, st.integers(1, 60), elements=st.floats(-(2.0**99), 2.0**99, width=32)),
    st.lists(st.floats(0, 100), min_size=1, max_size=5),
    st.integers(1, 20),
)
def test_any_finite_values_give_numpys_percentiles(values, points, size) -> None:
    np.testing.assert_array_equal(percentiles(in_pieces(values, size), points), np.percentile(values, points))


@pytest.mark.parametrize("kind", ["gamma", "normal", "constant", "halves", "whole"])
def test_many_values_of_any_shape_give_numpys_percentiles(kind) -> None:
    draw = np.random.default_rng(0)
    values = {
        "gamma": draw.gamma(3, 100, 50_001),
        "normal": draw.normal(0, 1e-3, 50_000),
        "constant": np.full(5000, -7.25),
        "halves": np.repeat([-1.0, 1.0], 3000),
        "whole": draw.integers(-1024, 3000, 50_000),
    }[kind]
    for dtype in (np.float32, np.int16)[: 2 if kind == "whole" else 1]:
        one = values.astype(dtype)
        np.testing.assert_array_equal(percentiles(in_pieces(one, 999), PERCENTILES), np.percentile(one, PERCENTILES))


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_statistics_of_a_large_volume_are_those_of_a_small_one(monkeypatch, dtype) -> None:
    draw = np.random.default_rng(0)
    values, mask = draw.normal(100, 400, (9, 30, 40)).astype(dtype), draw.random((9, 30, 40)) < 0.3
    for chosen in (None, mask, np.zeros_like(mask), mask.astype(np.uint8)):
        small = intensity_statistics(values, chosen)
        with monkeypatch.context() as patch:
            patch.setattr(scale, "LARGE", 1)
            patch.setattr("voxlate.images.spool.RUN_VOXELS", 2500)
            large = intensity_statistics(values, chosen)
        for one, other in ((small.foreground, large.foreground), (small.all, large.all)):
            assert one.percentiles == other.percentiles
            assert (one.mean, one.sd) == pytest.approx((other.mean, other.sd), rel=1e-13)
        assert (small.slice_low, small.slice_high) == (large.slice_low, large.slice_high)
