"""Noise belongs to items, not to batches, and neighbouring slices correlate by closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rows import every_row
from voxlate.base.items import stable_id
from voxlate.base.streams import Correlated, Independent, Tile
from voxlate.science.diffusion.noise import Noise, SynthesisNoise

ITEMS = [stable_id("case", k) for k in range(5)]


KINDS = Noise, SynthesisNoise


@given(seed=st.integers(0, 2**63 - 1), chosen=st.permutations(range(5)), count=st.integers(1, 5))
def test_draws_do_not_depend_on_batch_mates_or_order(seed, chosen, count):
    chosen = chosen[:count]

    def normal(noise):
        return noise.normal((1, 1, 5, 7))

    for kind in KINDS:
        whole, part = kind(seed, ITEMS), kind(seed, torch.tensor(ITEMS)[chosen])
        draws = [normal, lambda noise: noise.normal((2, 3))]
        if kind is Noise:
            draws = [normal, Noise.uniform, lambda noise: noise.integers(1000), *draws]
        for draw in draws:
            assert torch.equal(draw(whole)[chosen], draw(part))


def test_items_seeds_and_samples_have_streams_of_their_own():
    draws = [
        SynthesisNoise(seed, [item], samples).normal((10, 100)).flatten()
        for seed in (0, 1)
        for item in ITEMS[:3]
        for samples in (0, 1, 2)
    ]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert correlation.abs().max() < 0.15  # 4.7 standard errors of 1/sqrt(1000)
    for kind in KINDS:
        noise, first = kind(3, ITEMS), kind(3, ITEMS)
        draw = noise.normal((2, 2))
        assert torch.equal(draw, first.normal((2, 2)))
        assert not torch.equal(draw, noise.normal((2, 2)))  # a stream goes on


def test_uniform_draws_are_uniform_and_never_touch_the_ends_and_integers_take_every_value():
    noise = Noise(0, list(range(4000)))
    u = noise.uniform()
    assert u.dtype == torch.float64
    assert 0 < u.min() < u.max() < 1
    assert u.mean() == pytest.approx(0.5, abs=4 * (1 / 12 / 4000) ** 0.5)
    assert noise.integers(14).unique().tolist() == list(range(14))


# Slices


def volumes(*shape: int) -> torch.Tensor:
    """Ids of the slices of some volumes."""
    return torch.arange(math.prod(shape)).reshape(shape) + 100


@every_row("kind", KINDS)
def test_a_slab_of_slices_draws_what_the_slices_alone_draw(kind):
    slab, alone = kind(3, volumes(2, 5)), kind(3, volumes(2, 5).flatten())
    for _ in range(2):
        slices = alone.normal((2, 1, 4, 3)).unflatten(0, (2, 5))
        assert torch.equal(slab.normal((2, 5, 4, 3)), slices[:, :, :, 0].transpose(1, 2))


@every_row(
    "corners, size, image, scale",
    [(((0, 0), (0, 4), (5, 4)), (7, 6), (12, 10), 1), (((4, 4),), (8, 4), (12, 8), 2)],
)
def test_tiles_of_a_slice_or_its_latents_have_their_noise_in_their_places(
    corners, size, image, scale
):
    def draw(noise, sides):
        return noise.normal((2, 1, *(side // scale for side in sides)))

    whole = draw(SynthesisNoise(3, [[7]]), image)[0]
    tiles = [Tile(corner, size, image) for corner in corners]
    for corner, tile in zip(
        corners, draw(SynthesisNoise(3, [[7]] * len(tiles), tiles=tiles), size)
    ):
        y, x = (slice(start // scale, (start + side) // scale) for start, side in zip(corner, size))
        assert torch.equal(tile, whole[..., y, x])


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
    for kind in (Independent(), Correlated(length_mm=length_mm)):
        weights = kind.streams(z, spacing_mm).values()
        assert sum(weight**2 for weight in weights) == pytest.approx(1, abs=1e-12)


@every_row("n", [1, 3, 5, 9])
def test_neighbours_correlate_by_the_most_that_a_sum_over_so_many_slices_can(n):
    """cos(pi / (n + 1)) is the largest eigenvalue of the path of n slices, half its adjacency matrix."""
    found = expected(Correlated(length_mm=3.0 * (n + 1) * (1 - 1e-12)), 1)
    assert found == pytest.approx(math.cos(math.pi / (n + 1)), abs=1e-9)


@every_row("kind", [Independent(), Correlated(length_mm=12.0)])
def test_draws_have_the_correlation_that_the_weights_say_at_every_draw(kind):
    noise = SynthesisNoise(0, items(kind))
    draws = [noise.normal((1, 1, 200, 200)).flatten(1) for _ in range(3)]
    for draw in draws:
        assert (draw.mean(1).abs() < ERROR).all()
        assert ((draw.std(1) - 1).abs() < ERROR / 2**0.5).all()
        assert ((draw**4).mean(1) - 3).abs().max() < ERROR * 96**0.5
        assert_correlated(draw, kind)
    assert torch.corrcoef(torch.cat([draw[:1] for draw in draws])).triu(1).abs().max() < ERROR
