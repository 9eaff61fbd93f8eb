"""Intensity maps: closed forms, and round trips as laws."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import TypeAdapter, ValidationError

from rows import every_row
from voxlate.scans.images.intensity import (
    PERCENTILES,
    Intensity,
    MinMax,
    Percentile,
    Scale,
    Window,
    distribution,
    intensity_statistics,
    typical_scale,
)

VALUES = arrays(np.float32, st.integers(1, 40), elements=st.floats(-3000, 3000, width=32))


QUICK = settings(  # a busy machine is no fault of the strategies
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)


def whole(spec: Intensity, *values_and_mask: np.ndarray) -> Scale:
    """The scale of a volume that holds these values."""
    return spec.scale(intensity_statistics(*(one.reshape(1, 1, -1) for one in values_and_mask)))


RANGES = st.tuples(st.floats(-2000, 2000), st.floats(1, 4000)).map(
    lambda r: Scale(r[0], r[0] + r[1])
)


@QUICK
@given(VALUES, RANGES)
def test_forward_and_its_inverse_follow_their_laws_for_arrays_and_tensors(x, scale):
    clipped, before = x.clip(scale.low, scale.high), x.copy()
    np.testing.assert_allclose(scale.inverse(scale.forward(x)), clipped, atol=2e-3)
    np.testing.assert_array_equal(x, before)
    y = scale.forward(np.sort(x))
    assert y.dtype == np.float32
    assert y.min() >= -1
    assert y.max() <= 1
    assert (np.diff(y) >= 0).all()
    tensor = torch.from_numpy(x)
    np.testing.assert_allclose(scale.forward(tensor).numpy(), scale.forward(x), atol=1e-6)
    np.testing.assert_allclose(
        scale.inverse(tensor).numpy(), scale.inverse(x), rtol=1e-5, atol=1e-2
    )


@QUICK
@given(VALUES)
def test_minmax_clips_nothing_and_reaches_both_ends(x):
    scale = whole(MinMax(), x)
    assert scale.low <= x.min() <= x.max() <= scale.high
    assert scale.forward(x).min() == -1
    if x.max() - x.min() > 1e-30:
        assert scale.forward(x).max() == pytest.approx(1, abs=1e-5)


def test_a_window_of_hounsfield_units():
    scale = Window(low=-50, high=350).scale(None)
    np.testing.assert_allclose(
        scale.forward(np.array([-1000, -50, 150, 350, 900], np.int16)), [-1, -1, 0, 1, 1]
    )
    assert scale.forward(np.array([1], np.int16)).dtype == np.float32
    assert scale.inverse(np.array([1.5])) == pytest.approx(450)  # beyond the range stays visible


def test_a_constant_maps_to_minus_one_and_back_to_itself():
    scale = whole(MinMax(), np.full((3, 3), 7.0, np.float32))
    np.testing.assert_array_equal(scale.forward(np.full(3, 7.0, np.float32)), -1)
    np.testing.assert_array_equal(scale.inverse(np.array([-1.0, 0.3, 1.0])), 7)
    narrow = np.array([0.0, 1e-40], np.float32)  # too narrow for float32
    np.testing.assert_array_equal(whole(MinMax(), narrow).forward(narrow), -1)


def test_percentiles_are_of_the_foreground_by_default():
    values = np.full(1001, -5, np.float32)
    values[:101] = np.arange(101)
    mask = values >= 0
    assert whole(Percentile(low=10, high=90), values, mask) == Scale(10, 90)
    assert whole(Percentile(low=10, high=99, inside="all"), values, mask).low == -5
    for everything in ((values,), (values, np.zeros_like(mask))):  # no mask, and an empty one
        assert whole(Percentile(low=0, high=100), *everything) == Scale(-5, 100)


@every_row(
    "table",
    [
        {"kind": "window", "low": 350, "high": -50},
        {"kind": "window", "low": float("-inf"), "high": 0},
        {"kind": "percentile", "low": 90, "high": 10},
        {"kind": "percentile", "low": -1},
        {"kind": "minmax", "per": "patient"},
        {"kind": "minmax", "pre": "slice"},
    ],
)
def test_a_table_that_makes_no_sense_is_refused(table):
    with pytest.raises(ValidationError):
        TypeAdapter(Intensity).validate_python(table)


def test_percentiles_between_stored_ones_are_interpolated():
    ramp = distribution(np.arange(10001, dtype=np.float32))  # percentile p of a ramp is 100 p
    assert [ramp.at(p) for p in PERCENTILES] == pytest.approx(
        [100 * p for p in PERCENTILES], abs=1e-3
    )
    assert ramp.at(37.25) == pytest.approx(3725, abs=1e-2)


def test_the_typical_scale_is_the_median_over_cases_and_a_window_is_itself():
    ramp = np.linspace(0, 1, 1000).reshape(10, 10, 10)
    cases = [intensity_statistics(top * ramp) for top in (1.0, 3.0, 100.0)]
    assert typical_scale(MinMax(per="volume"), cases) == Scale(0, 3)
    assert typical_scale(Window(low=-5, high=7), cases) == Scale(-5, 7)
