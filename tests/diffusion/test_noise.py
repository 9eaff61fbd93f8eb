"""Noise belongs to items: no batch mate, order or shape of a batch may change it."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from voxlate.batch import stable_id
from voxlate.diffusion.noise import Noise

ITEMS = [stable_id("case", k) for k in range(5)]


@given(seed=st.integers(0, 2**63 - 1), chosen=st.permutations(range(5)), count=st.integers(1, 5))
def test_draws_do_not_depend_on_batch_mates_or_order(seed, chosen, count):
    chosen = chosen[:count]
    whole, part = Noise(seed, ITEMS), Noise(seed, torch.tensor([ITEMS[k] for k in chosen]))
    for draw in (
        lambda noise: noise.normal((1, 1, 5, 7)),
        lambda noise: noise.uniform(),
        lambda noise: noise.integers(1000),
        lambda noise: noise.normal((3,)),
    ):
        assert torch.equal(draw(whole)[list(chosen)], draw(part))


def test_items_seeds_and_samples_have_streams_of_their_own():
    draws = [
        Noise(seed, [item], samples).normal((1000,))[0]
        for seed in (0, 1)
        for item in ITEMS[:3]
        for samples in (0, 1, 2)
    ]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert correlation.abs().max() < 0.15  # 4.7 standard errors of 1/sqrt(1000)


def test_the_first_sample_is_the_plain_noise_and_a_sample_starts_anew():
    noise = Noise(3, ITEMS)
    plain = Noise(3, ITEMS).normal((4,))
    noise.normal((9,))
    assert torch.equal(noise.sample(0).normal((4,)), plain)
    assert not torch.equal(noise.sample(1).normal((4,)), plain)


def test_samples_may_share_a_batch():
    together = Noise(3, [ITEMS[0]] * 2, samples=[0, 1]).normal((4,))
    apart = torch.cat([Noise(3, ITEMS[:1]).sample(k).normal((4,)) for k in (0, 1)])
    assert torch.equal(together, apart)


def test_a_stream_goes_on():
    noise = Noise(3, ITEMS)
    assert not torch.equal(noise.normal((4,)), noise.normal((4,)))


def test_normal_draws_are_standard_normal():
    x = Noise(0, ITEMS[:1]).normal((200_000,)).double()
    assert abs(float(x.mean())) < 4 / 200_000**0.5
    assert abs(float(x.std()) - 1) < 4 / 400_000**0.5
    assert abs(float((x**4).mean()) - 3) < 4 * (96 / 200_000) ** 0.5


def test_uniform_draws_are_uniform_and_never_touch_the_ends():
    u = Noise(0, list(range(4000))).uniform()
    assert u.dtype == torch.float64
    assert u.min() > 0
    assert u.max() < 1
    assert abs(float(u.mean()) - 0.5) < 4 * (1 / 12 / 4000) ** 0.5


def test_integers_take_every_value_below_the_bound():
    assert Noise(0, list(range(400))).integers(14).unique().tolist() == list(range(14))


def test_noise_like_a_state_has_its_shape_and_type():
    x = torch.zeros(5, 2, 1, 3, 3, dtype=torch.float64)
    drawn = Noise(0, ITEMS)(x)
    assert drawn.shape == x.shape
    assert drawn.dtype == x.dtype
    assert torch.equal(drawn.float(), Noise(0, ITEMS).normal((2, 1, 3, 3)))
