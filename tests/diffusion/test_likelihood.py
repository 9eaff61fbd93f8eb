"""Bits per dimension against closed forms and quadrature."""

import math

import pytest
import torch
from exact import GAUSS, SCHEDULES, TWO_TISSUES, Mixture
from torch import Tensor

from voxlate.diffusion.likelihood import START, bits_per_dim
from voxlate.diffusion.noise import Noise
from voxlate.diffusion.schedules import Cosine, ExponentialVE, LinearVP

every_kind = pytest.mark.parametrize(
    "schedule", [Cosine(), ExponentialVE()], ids=lambda schedule: schedule.kind
)


def images(data: Mixture, shape: tuple[int, ...]) -> Tensor:
    return data.draw(shape, torch.Generator().manual_seed(0)).double()


def exact_bits(denoise, schedule, x0: Tensor, **options) -> Tensor:
    """By the trace itself, of one voxel, two, or independent ones: what these two probes add to it cancels."""
    same, other = torch.ones_like(x0), torch.ones_like(x0)
    other[..., 0] = -1
    bits = [
        bits_per_dim(denoise, schedule, x0, lambda _, signs=signs: signs, **options)
        for signs in (same, other)
    ]
    return torch.stack(bits).mean(0)


def bits_of_a_gaussian(schedule, x: Tensor, data: Mixture) -> Tensor:
    """The start's N(0, std²) carried back along the exact map x(1) = alpha·m + (x − alpha_s·m)·growth."""
    (alpha_s, alpha), (sigma_s, sigma) = schedule(torch.tensor([START, 1.0], dtype=torch.float64))
    growth = torch.hypot(alpha * data.width, sigma) / torch.hypot(alpha_s * data.width, sigma_s)
    end = alpha * data.mean + (x - alpha_s * data.mean) * growth
    prior = torch.distributions.Normal(0.0, float(schedule.start_std(torch.tensor(1.0))))
    return -(prior.log_prob(end) + growth.log()).flatten(1).mean(1) / math.log(2)


@every_kind
def test_gaussian_images_have_the_bits_of_the_closed_form(schedule):
    x0 = images(GAUSS, (3, 1, 1, 2, 2))
    found = exact_bits(GAUSS.denoiser(schedule), schedule, x0)
    torch.testing.assert_close(found, bits_of_a_gaussian(schedule, x0, GAUSS), rtol=0, atol=1e-3)


def test_the_density_of_a_mixture_is_its_own_and_integrates_to_one():
    """In 1-D, on a grid that holds all of it: by quadrature, and point by point against the closed form."""
    x = torch.linspace(-1.6, 1.5, 125, dtype=torch.float64)
    density = 2 ** -exact_bits(TWO_TISSUES.denoiser(Cosine()), Cosine(), x.reshape(-1, 1, 1, 1, 1))
    assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=1e-3)
    components = torch.distributions.Normal(
        torch.tensor(TWO_TISSUES.means).double(), TWO_TISSUES.width
    )
    expected = components.log_prob(x[:, None]).exp() @ torch.tensor(TWO_TISSUES.shares).double()
    torch.testing.assert_close(density, expected, rtol=0.01, atol=1e-3)


def turned(schedule):
    """Of two voxels with data N(0, S), S of widths 0.5 and 0.1 along the diagonals: their slopes depend on each other.

    Returns the denoiser and S.
    """
    turn = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / math.sqrt(2)
    widths2 = torch.tensor([0.25, 0.01], dtype=torch.float64)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (value[:, None] for value in schedule(t))
        gain = alpha * widths2 / (alpha**2 * widths2 + sigma**2)
        return ((x.flatten(1) @ turn.T * gain) @ turn).reshape(x.shape)

    return denoise, turn.T @ torch.diag(widths2) @ turn


def test_voxels_that_depend_on_each_other_have_their_joint_density():
    schedule = Cosine()
    denoise, covariance = turned(schedule)
    x0 = torch.tensor([[0.1, 0.2], [-0.5, 0.3]], dtype=torch.float64)
    joint = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance)
    found = exact_bits(denoise, schedule, x0.reshape(2, 1, 1, 1, 2))
    torch.testing.assert_close(found, -joint.log_prob(x0) / 2 / math.log(2), rtol=0, atol=1e-3)


def test_random_probes_are_right_on_average():
    """The divergence's off-diagonal part enters with a random sign: some probes are off, their mean is not."""
    schedule = Cosine()
    denoise, _ = turned(schedule)
    x0 = torch.tensor([[0.1, 0.2]], dtype=torch.float64).reshape(1, 1, 1, 1, 2)
    exact = exact_bits(denoise, schedule, x0)
    probed = bits_per_dim(
        denoise, schedule, x0.expand(64, -1, -1, -1, -1), Noise(0, list(range(64)))
    )
    assert float(probed.std()) > 0.5
    assert float(probed.mean()) == pytest.approx(float(exact), abs=4 * float(probed.std()) / 8)


def test_one_probe_is_exact_where_voxels_do_not_depend_on_each_other_and_belongs_to_its_item():
    x0, schedule = images(TWO_TISSUES, (3, 1, 1, 4, 4)).float(), LinearVP()
    exact = (
        exact_bits(TWO_TISSUES.denoiser(schedule), schedule, x0.reshape(-1, 1, 1, 1, 1))
        .reshape(3, -1)
        .mean(1)
    )
    probed = bits_per_dim(TWO_TISSUES.denoiser(schedule), schedule, x0, Noise(5, [1, 2, 3]))
    alone = bits_per_dim(TWO_TISSUES.denoiser(schedule), schedule, x0[1:2], Noise(5, [2]))
    torch.testing.assert_close(probed, exact, rtol=0, atol=1e-3)
    torch.testing.assert_close(probed[1:2], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("divergence", ["exact", "probe"])
def test_what_is_outside_the_mask_is_given_and_does_not_count(divergence):
    """Of two dependent voxels the second is known: the density of the first is the conditional one."""
    schedule = Cosine()
    _, covariance = turned(schedule)
    (a, b), (_, c) = covariance.tolist()
    x0 = torch.tensor([[0.1, 0.2], [-0.2, 0.3]], dtype=torch.float64)
    width = math.sqrt(a - b**2 / c)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        """E[x0 | x_t of the first voxel, clean second voxel]; what it says of the second must not matter."""
        first, second = x.flatten(1).unbind(1)
        alpha, sigma = schedule(t)
        mean = b / c * second
        gain = alpha * width**2 / (alpha**2 * width**2 + sigma**2)
        return torch.stack([mean + gain * (first - alpha * mean), 7 * second], dim=1).reshape(
            x.shape
        )

    mask = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 1, 2)
    x0_voxels = x0.reshape(2, 1, 1, 1, 2)
    if divergence == "exact":
        found = exact_bits(denoise, schedule, x0_voxels, mask=mask)
    else:
        found = bits_per_dim(denoise, schedule, x0_voxels, Noise(0, [1, 2]), mask)
    expected = -torch.distributions.Normal(b / c * x0[:, 1], width).log_prob(x0[:, 0]) / math.log(2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1.5e-3)


def test_networks_keep_their_weights_and_get_no_gradient():
    net = torch.nn.Linear(4, 4)
    x0 = torch.zeros(1, 1, 1, 2, 2)
    with torch.no_grad():
        bits = bits_per_dim(
            lambda x, t: net(x.flatten(1)).reshape(x.shape),
            SCHEDULES["linear_vp"],
            x0,
            Noise(0, [1]),
            tolerance=1e-2,
        )
    assert bits.isfinite().all()
    assert not bits.requires_grad
    assert net.weight.grad is None
