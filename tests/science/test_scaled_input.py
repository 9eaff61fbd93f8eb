"""With its input scaled, an exploding schedule is a variance-preserving one in other units."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.objective import Uniform
from voxlate.science.diffusion.schedules import Cosine, ExponentialVE
from voxlate.science.methods.diffusion import Diffusion, DiffusionSettings
from voxlate.science.methods.tasks import Translate
from voxlate.science.nets.interface import NetworkInput, Output


class Curve(nn.Module):
    """A network with an answer for every state, source and noise level."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.gain = nn.Parameter(torch.tensor(0.7))

    def forward(self, inputs: NetworkInput) -> Output:
        self.seen.append(inputs.state)
        (image,) = inputs.images.values()
        return Output(
            torch.tanh(self.gain * inputs.state + image + inputs.log_snr.view(-1, 1, 1, 1, 1) / 10)
        )


def method(schedule, scaled: bool) -> Diffusion:
    options = DiffusionSettings(
        schedule=schedule, prediction="x0", weight=Uniform(), scaled_input=scaled
    )
    return Diffusion(options, Curve(), Translate(), 1)


def batch() -> Batch:
    torch.manual_seed(0)
    source = torch.randn(3, 1, 1, 5, 4)
    ones = torch.ones(3, 1, 1, 5, 4)
    there = torch.ones(3, 1, dtype=torch.bool)
    return Batch(source, ones, there, torch.arange(3), target=source.tanh())


def test_the_same_noise_in_either_schedule_is_the_same_question():
    exploding, preserving = method(ExponentialVE(), True), method(Cosine(), False)
    problem, log_snr = exploding.task.pose(batch()), torch.tensor([-4.0, 0.0, 3.0])
    x0, eps = torch.randn(2, 3, 1, 1, 5, 4)
    answers = []
    for each in (exploding, preserving):
        t = each.options.schedule.t(log_snr)
        alpha, sigma = (value.float().view(-1, 1, 1, 1, 1) for value in each.options.schedule(t))
        answers.append(each._denoiser(problem)(alpha * x0 + sigma * eps, t))
    torch.testing.assert_close(answers[0], answers[1], atol=1e-5, rtol=1e-5)


def test_training_sees_unit_variance_however_much_noise_there_is():
    items = torch.arange(400)
    source = torch.zeros(400, 1, 1, 8, 8)
    draw = torch.Generator().manual_seed(1)
    unit = torch.randn(400, 1, 1, 8, 8, generator=draw)  # data of variance 1
    there = torch.ones(400, 1, dtype=torch.bool)
    many = Batch(source, torch.ones_like(source), there, items, target=unit)
    # E[1 + sigma²] for 25^t dw is 1 + (E[625^t] − 1)/(2 ln 25)
    for scaled, expected in ((True, 1.0), (False, 16.0)):
        exploding = method(ExponentialVE(), scaled)
        exploding.loss("net", many, Noise(0, items))
        found = exploding.net.seen[0].var().item()
        assert abs(found / expected - 1) < (0.02 if scaled else 0.15)


def test_what_is_known_is_not_scaled():
    exploding = method(ExponentialVE(), True)
    problem = exploding.task.pose(batch())
    half = problem.mask.clone()
    half[..., :2] = 0
    x = torch.randn(3, 1, 1, 5, 4)
    exploding._run(replace(problem, mask=half), x, torch.full((3,), -4.0))
    seen = exploding.net.seen[-1]
    assert torch.equal(seen[..., :2], x[..., :2])
    assert (seen[..., 2:].abs() < x[..., 2:].abs()).all()
