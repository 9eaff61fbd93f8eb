"""How alike the noise of neighbouring slices is: correlations with closed forms, and what must not matter."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refusals import refuses
from rows import every_row
from voxlate.base.config import fill
from voxlate.base.items import stable_id
from voxlate.base.streams import Correlated, Independent, Shared
from voxlate.science.diffusion.noise import SynthesisNoise

VOXELS = 40_000
ERROR = 4.5 / VOXELS**0.5  # of a sample correlation; 4.5 standard errors


def items(kind, depth=12):
    """The slices of a volume as synthesis names them."""
    return [
        {stable_id("case", other, 0, 0): weight for other, weight in kind.streams(z, 3.0).items()}
        for z in range(depth)
    ]


def expected(kind, distance, spacing_mm=3.0):
    one, other = kind.streams(0, spacing_mm), kind.streams(distance, spacing_mm)
    return sum(weight * other.get(z, 0.0) for z, weight in one.items())


def assert_correlated(draw, kind):
    """The slices of a draw correlate as their weights say."""
    depth = range(len(draw))
    wanted = torch.tensor([[expected(kind, abs(i - j)) for i in depth] for j in depth])
    assert (torch.corrcoef(draw.flatten(1)) - wanted).abs().max() < ERROR


@given(st.integers(-20, 20), st.floats(0.2, 12), st.floats(1e-300, 60))
def test_weights_of_every_strategy_leave_the_noise_standard_normal(z, spacing_mm, length_mm):
    for kind in (Independent(), Shared(), Correlated(length_mm=length_mm)):
        weights = kind.streams(z, spacing_mm).values()
        assert sum(weight**2 for weight in weights) == pytest.approx(1, abs=1e-12)


@every_row("n", [1, 3, 5, 9])
def test_neighbours_correlate_by_the_most_that_a_sum_over_so_many_slices_can(n):
    """cos(pi / (n + 1)) is the largest eigenvalue of the path of n slices, half its adjacency matrix."""
    found = expected(Correlated(length_mm=3.0 * (n + 1) * (1 - 1e-12)), 1)
    assert found == pytest.approx(math.cos(math.pi / (n + 1)), abs=1e-9)


@given(st.floats(0.05, 1.2))
def test_correlation_over_fine_slices_is_that_of_half_a_cosine_with_itself(share):
    """Its overlap with itself at u lengths: (1 - u) cos(pi u) + sin(pi u) / pi, and 0 from one length on."""
    spacing_mm, length_mm = 0.02, 20.0
    distance = round(share * length_mm / spacing_mm)
    u = distance * spacing_mm / length_mm
    curve = (1 - u) * math.cos(math.pi * u) + math.sin(math.pi * u) / math.pi if u < 1 else 0.0
    assert expected(Correlated(length_mm=length_mm), distance, spacing_mm) == pytest.approx(
        curve, abs=1e-4
    )


@every_row("kind", [Independent(), Shared(), Correlated(length_mm=12.0)])
def test_draws_have_the_correlation_that_the_weights_say_at_every_draw(kind):
    noise = SynthesisNoise(0, items(kind))
    draws = [noise.normal((1, 1, 200, 200)).flatten(1) for _ in range(3)]
    for draw in draws:
        assert (draw.mean(1).abs() < ERROR).all()
        assert ((draw.std(1) - 1).abs() < ERROR / 2**0.5).all()
        assert ((draw**4).mean(1) - 3).abs().max() < ERROR * 96**0.5
        assert_correlated(draw, kind)
    assert torch.corrcoef(torch.cat([draw[:1] for draw in draws])).triu(1).abs().max() < ERROR


def test_independent_slices_draw_the_streams_that_plain_ids_start():
    """So a recipe without the key gives the images it always gave."""
    plain = SynthesisNoise(3, [stable_id("case", z, 0, 0) for z in range(12)], 2)
    assert torch.equal(
        SynthesisNoise(3, items(Independent()), 2).normal((4, 50)), plain.normal((4, 50))
    )


@every_row("length_mm", [0, -3, math.inf, 1e9])
def test_an_invalid_correlation_length_is_refused(length_mm):
    with refuses("length_mm"):
        fill(Correlated, {"length_mm": length_mm}, "synthesis options")
