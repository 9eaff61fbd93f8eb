"""The flow against a Gaussian, whose velocity, steps of any size and probability flow are known in closed form."""

from collections.abc import Callable

import pytest
import torch
from calling import batch_of
from torch import Tensor, nn
from torch.testing import assert_close

from rows import every_row
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.prediction import per_item
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.methods.diffusion import Flow, FlowSettings
from voxlate.science.methods.stage_tasks import Residual, ResidualTask
from voxlate.science.methods.tasks import Translate
from voxlate.science.nets.interface import NetworkInput, Output

MEAN, STD, SIGMA_S = 0.3, 0.5, 0.8  # of x0, and of the noise at the start of the paths
SMALLEST = 1 / 8
Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]


def spread(t: Tensor) -> Tensor:
    """The standard deviation of x_t."""
    return torch.hypot((1 - t) * STD, t * SIGMA_S)


def shortcut(x: Tensor, t: Tensor, step: Tensor) -> Tensor:
    """The mean velocity of the probability flow from t to t - step, which keeps standard scores."""
    score = (x - (1 - t) * MEAN) / spread(t)
    end = t - step
    return (x - (1 - end) * MEAN - spread(end) * score) / step


def velocity(x: Tensor, t: Tensor, step: Tensor) -> Tensor:
    """E[sigma_s eps - x0 | x_t = x], whatever the step."""
    covariance = t * SIGMA_S**2 - (1 - t) * STD**2
    return covariance / spread(t) ** 2 * (x - (1 - t) * MEAN) - MEAN


class Known(nn.Module):
    """A network of known velocity, which records its times and steps."""

    def __init__(self, function: Velocity):
        super().__init__()
        self.function = function
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, inputs: NetworkInput) -> Output:
        t = torch.sigmoid(-inputs.log_snr.double() / 2)
        step = 0.5 ** (inputs.code.double() @ torch.arange(4).double())
        self.seen.append((t, step))
        x = inputs.state.double()
        return Output(self.function(x, per_item(t, x), per_item(step, x)))


def flow(function: Velocity, shortcuts: float = 0.25) -> Flow:
    options = FlowSettings(sigma_s=SIGMA_S, halvings=3, shortcuts=shortcuts)
    return Flow(options, Known(function), Translate(), 1)


def gaussian(items: int = 64) -> tuple[Batch, Noise]:
    """Items with targets of the Gaussian, and their noise."""
    draw = torch.Generator().manual_seed(1)
    target = MEAN + STD * torch.randn(items, 1, 1, 16, 16, generator=draw)
    batch = batch_of(torch.zeros_like(target), target)
    return batch, Noise(0, batch.item)


def loss(method: Flow, items: int = 64) -> float:
    return float(method.loss("net", *gaussian(items))["total"])


def test_the_exact_steps_of_a_gaussian_agree_with_their_halves_so_that_their_loss_is_0():
    assert loss(flow(shortcut, 1)) < 1e-6
    assert loss(flow(velocity, 1)) > 1e-3


def test_the_exact_velocity_has_the_least_loss_which_is_its_conditional_variance():
    _, noise = gaussian()
    noise.uniform()  # decides the step
    t = noise.uniform()
    variance = (STD * SIGMA_S / spread(t)).square().mean()
    least, off = (
        loss(flow(lambda *state, error=error: velocity(*state) + error, 0)) for error in (0.0, 0.1)
    )
    assert least == pytest.approx(float(variance), rel=0.02)
    assert off - least == pytest.approx(0.1**2, abs=2e-3)


@every_row(
    "network, steps, atol",
    [*((shortcut, steps, 1e-3) for steps in (1, 2, 4, 8)), (velocity, 256, 0.02)],
)
def test_exact_shortcuts_in_any_number_and_many_steps_of_the_exact_velocity_carry_noise_to_the_same_image(
    network, steps, atol
):
    batch, noise = gaussian(4)
    image = flow(network).synthesise(batch, noise, SamplerSettings(steps=steps))
    eps = Noise(0, batch.item)(batch.target)
    assert_close(image.float(), MEAN + STD * eps, rtol=0, atol=atol)


def test_a_share_of_the_items_learns_larger_steps_which_begin_at_multiples_of_their_size():
    method = flow(velocity)
    method.loss("net", *gaussian(400))
    (t, step), first, second = method.net.seen
    larger = step > SMALLEST
    assert larger.double().mean() == pytest.approx(0.25, abs=0.06)
    assert {*step[larger].tolist()} == {1, 1 / 2, 1 / 4}
    t, half = t[larger], step[larger] / 2
    times = t / (2 * half)
    assert_close(times, times.round(), rtol=0, atol=1e-3)
    for (start, size), expected in ((first, t), (second, t - half)):
        assert_close(size, half)
        assert_close(start, expected, rtol=0, atol=1e-4)


def test_half_steps_without_a_gradient_take_none_from_the_network_in_bfloat16():
    method, layer = flow(shortcut, shortcuts=1), nn.Linear(16, 16)
    method.net.forward = lambda inputs: Output(layer(inputs.state))
    with torch.autocast("cpu", torch.bfloat16):
        total = method.loss("net", *gaussian(4))["total"]
    total.backward()
    assert layer.weight.grad.any()


def test_the_network_sees_the_image_on_its_path_and_nothing_else():
    class Mean(nn.Module):
        """A predictor whose image is 0.5 everywhere."""

        def predict(self, batch):
            return torch.full_like(batch.source, 0.5), ()

    class Watch(nn.Module):
        def forward(self, inputs):
            self.seen = inputs
            return Output(torch.zeros_like(inputs.state))

    options, net = FlowSettings(sigma_s=SIGMA_S), Watch()
    method = Flow(options, net, ResidualTask(Residual(scale=4.0), Mean()), 1)
    batch, noise = gaussian(2)
    image = method.synthesise(batch, noise, SamplerSettings(steps=1))
    eps = Noise(0, batch.item)(batch.target)
    assert net.seen.images == {}
    assert_close(net.seen.state, 0.5 + SIGMA_S * eps / 4, rtol=0, atol=1e-3)
    assert_close(image, net.seen.state, rtol=0, atol=1e-3)  # its velocity is 0
