"""With its input scaled, an exploding schedule is a variance-preserving one in other units."""

import torch
from calling import batch_of
from torch import Tensor, nn

from voxlate.science.batch import Batch
from voxlate.science.diffusion.objective import Uniform
from voxlate.science.diffusion.prediction import diffuse
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


def batch(items: int = 3) -> Batch:
    draw = torch.Generator().manual_seed(1)
    source, target = torch.randn(2, items, 1, 1, 8, 8, generator=draw)
    return batch_of(source, target)


def test_the_same_noise_in_either_schedule_is_the_same_question():
    log_snr = torch.tensor([-4.0, 0.0, 3.0])
    x0, eps = torch.randn(2, 3, 1, 1, 8, 8)
    answers = []
    for schedule, scaled in ((ExponentialVE(), True), (Cosine(), False)):
        each, t = method(schedule, scaled), schedule.t(log_snr)
        x_t = diffuse(x0, eps, *schedule(t))
        answers.append(each._denoiser(each.task.pose(batch()))(x_t, t))
    torch.testing.assert_close(*answers, atol=1e-5, rtol=1e-5)


def test_what_is_known_is_not_scaled():
    exploding, x = method(ExponentialVE(), True), torch.randn(3, 1, 1, 8, 8)
    problem = exploding.task.pose(batch())
    problem.mask[..., :2] = 0
    exploding._run(problem, x, torch.full((3,), -4.0))
    (seen,) = exploding.net.seen
    assert torch.equal(seen[..., :2], x[..., :2])
    assert (seen[..., 2:].abs() < x[..., 2:].abs()).all()
