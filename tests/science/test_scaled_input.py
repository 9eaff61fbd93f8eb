"""With its input scaled, an exploding schedule is a variance-preserving one in other units."""

import torch
from calling import batch_of
from torch import nn

from voxlate.science.diffusion.prediction import diffuse
from voxlate.science.diffusion.schedules import Cosine, ExponentialVE
from voxlate.science.methods.diffusion import Diffusion, DiffusionSettings
from voxlate.science.methods.tasks import Translate
from voxlate.science.nets.interface import NetworkInput, Output


class Curve(nn.Module):
    """A network with an answer for every state, source and noise level."""

    def forward(self, inputs: NetworkInput) -> Output:
        (image,) = inputs.images.values()
        level = inputs.log_snr.view(-1, 1, 1, 1, 1) / 10
        return Output(torch.tanh(0.7 * inputs.state + image + level))


def test_the_same_noise_in_either_schedule_is_the_same_question():
    log_snr = torch.tensor([-4.0, 0.0, 3.0])
    source, x0, eps = torch.randn(3, 3, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    answers = []
    for schedule, scaled in ((ExponentialVE(), True), (Cosine(), False)):
        options = DiffusionSettings(schedule=schedule, prediction="x0", scaled_input=scaled)
        method, t = Diffusion(options, Curve(), Translate(), 1), schedule.t(log_snr)
        denoise = method._denoiser(method.task.pose(batch_of(source)))
        answers.append(denoise(diffuse(x0, eps, *schedule(t)), t))
    torch.testing.assert_close(*answers, atol=1e-5, rtol=1e-5)
