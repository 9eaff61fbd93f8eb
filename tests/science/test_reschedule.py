"""A model may be sampled under another schedule than it was trained with: its network goes by the log-SNR."""

import torch
from calling import batch_of
from exact import SCHEDULES, SHAPE, TWO_TISSUES, for_every, image, odd_network
from torch import nn

from rows import every_row
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.prediction import diffuse, reschedule, target, to_eps
from voxlate.science.diffusion.sample import SamplerSettings, sample
from voxlate.science.diffusion.schedules import (
    Cosine,
    ExponentialVE,
    LinearVP,
    ShiftedCosine,
    Sigmoid,
    variance_preserving,
)
from voxlate.science.methods.diffusion import Diffusion, DiffusionSettings
from voxlate.science.methods.tasks import Translate
from voxlate.science.nets.interface import NetworkInput, Output

SWAPPED = ("cosine", "sigmoid", "betas_of_002", "exponential_ve", "flow")


@for_every(trained=["betas_of_000", "flow", "exponential_ve"], schedule=SWAPPED)
def test_a_network_sees_states_as_in_training_under_another_schedule(trained, schedule):
    """alpha·x0 + sigma·eps at the same log-SNR, where training reached it; else a state of the size at the end."""
    trained, schedule = SCHEDULES[trained], SCHEDULES[schedule]
    t, end = torch.linspace(0.02, 1, 30, dtype=torch.float64), torch.tensor(1.0)
    draw = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 30, 1, 1, 2, 2, generator=draw, dtype=torch.float64)
    seen = []
    reschedule(lambda *given: seen.extend(given), trained, schedule)(
        diffuse(x0, eps, *schedule(t)), t
    )
    x, seen_t = seen
    reached = schedule.log_snr(t) >= trained.log_snr(end)
    assert reached.any()
    for found, expected in (
        (trained.log_snr(seen_t), schedule.log_snr(t)),
        (x, diffuse(x0, eps, *trained(seen_t))),
    ):
        torch.testing.assert_close(found[reached], expected[reached], rtol=0, atol=1e-8)
    if not reached.all():
        size = x[~reached].square().mean() / eps[~reached].square().mean()
        assert 0.8 < float(size / trained.start_std(end) ** 2) < 1.25


def test_known_channels_keep_their_values_under_another_schedule():
    """They are in the state as they are, not times alpha: the network must see them so under VE and VP alike."""
    known, mask = image(), torch.tensor([1.0, 0, 0, 1]).reshape(1, 4, 1, 1, 1)
    scanned = mask.expand(SHAPE) == 0

    def denoise(x, t):
        assert torch.equal(x[scanned], known[scanned])
        return odd_network(x, t)

    sampling = SamplerSettings(steps=5, schedule=LinearVP())
    made = sample(sampling, denoise, ExponentialVE(), Noise(0, [1, 2]), known, mask)
    assert torch.equal(made[scanned], known[scanned])


# The whole method, with a network that knows two tissues by the log-SNR alone


class PerfectNet(nn.Module):
    """Says v of E[x0 | x] of two tissues that the source image moves up or down."""

    def forward(self, inputs: NetworkInput) -> Output:
        x, (offset,) = inputs.state, inputs.images.values()
        alpha, sigma = variance_preserving(inputs.log_snr)
        x0 = offset + TWO_TISSUES.denoise(x - alpha.reshape(-1, 1, 1, 1, 1) * offset, alpha, sigma)
        return Output(target(x0, to_eps(x0, x, alpha, sigma), alpha, sigma, "v"))


@every_row("schedule", [None, Cosine(), Sigmoid(), ExponentialVE()])
def test_a_trained_method_draws_the_same_law_under_another_schedule(schedule):
    batch = batch_of(torch.full((2, 1, 1, 64, 64), 0.25))
    options = DiffusionSettings(schedule=ShiftedCosine())
    method = Diffusion(options, PerfectNet(), Translate(), 1)
    sampling = SamplerSettings(sampler="dpmpp_2m", steps=40, schedule=schedule)
    x = method.synthesise(batch, Noise(0, batch.item), sampling)
    chance = 4 * TWO_TISSUES.std / x.numel() ** 0.5
    assert abs(float(x.mean()) - 0.25 - TWO_TISSUES.mean) < chance + 0.01
    assert abs(float(x.std()) - TWO_TISSUES.std) < chance / 2**0.5 + 0.01
