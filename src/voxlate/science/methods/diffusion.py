"""The diffusion model: a network, a schedule, a prediction and a task; every paper here is a choice of these four."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from voxlate.base.config import setting, settings
from voxlate.base.devices import move_like, with_doubles
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Draws, Noise
from voxlate.science.diffusion.objective import (
    AnyWeight,
    MinSnr,
    Reduction,
    mean_in_mask,
    means_in_mask,
)
from voxlate.science.diffusion.prediction import Kind, denoiser, diffuse, per_item, target, to_x0
from voxlate.science.diffusion.sample import (
    SamplerSettings,
    check_sampler_fits,
    denoise_windows,
    sample,
    with_known,
)
from voxlate.science.diffusion.samplers import Denoise
from voxlate.science.diffusion.schedules import AnySchedule, Schedule, ShiftedCosine
from voxlate.science.diffusion.times import AnyTimes, UniformTimes
from voxlate.science.methods.method import (
    Attempt,
    Losses,
    Method,
    MethodSettings,
    Problem,
    Task,
    pair_of,
    require,
)
from voxlate.science.nets.interface import Channels, NetSettings, Output


@settings
class DiffusionSettings(MethodSettings):
    """Denoises from pure noise to the target, given the source."""

    weighs: ClassVar[bool] = True
    iterates: ClassVar[bool] = True
    kind: Literal["diffusion"] = "diffusion"
    schedule: Annotated[AnySchedule, setting("Noise schedule of the training.")] = ShiftedCosine()
    prediction: Annotated[Kind, setting("Quantity that the network predicts.")] = "v"
    weight: Annotated[AnyWeight, setting("Weight of the loss as a function of the log-SNR.")] = (
        MinSnr()
    )
    times: Annotated[AnyTimes, setting("Distribution of the training times.")] = UniformTimes()
    clip: Annotated[
        tuple[float, float] | None,
        setting("Range to which denoised states are clipped; unset: they are not clipped."),
    ] = None
    scaled_input: Annotated[
        bool,
        setting(
            "Whether the network gets the state divided by sqrt(alpha^2 + sigma^2), so that its variance is 1 in exploding schedules, too (c_in of Karras et al. 2022, table 1)."
        ),
    ] = False
    loss: Annotated[
        Literal["l2", "l1"], setting("Distance between the prediction and its target.")
    ] = "l2"
    reduction: Reduction = "mask"

    def build(self, net: NetSettings, task: Task, channels: Channels) -> "Diffusion":
        """The method with fresh weights."""
        method = Diffusion(self, net.build(channels), task, channels.state)
        method.pair_channels = (channels.state, sum(channels.images.values()))
        return method

    def check_sampler(self, sampling: SamplerSettings) -> None:
        """Raise BadInput where the sampler does not fit the schedule."""
        check_sampler_fits(sampling, self.schedule)


class Sampled(Method):
    """A method whose network is evaluated at every step of a sampler, which draws the task's state from noise."""

    task: Task

    def __init__(self, options: MethodSettings, net: nn.Module, task: Task, state_channels: int):
        super().__init__()
        self.turns = options.turns
        self.options = options
        self.net = net
        self.task = task
        self.state_channels = state_channels

    def draw(
        self,
        batch: Batch,
        denoiser_of: Callable[[Problem], Denoise],
        schedule: Schedule,
        noise: Draws,
        sampling: SamplerSettings,
    ) -> Tensor:
        """One sample of each item, in windows of slices where `sampling` says so; its states follow as channels."""
        problem = self.task.pose(batch)
        mask = problem.mask
        nothing = mask.new_zeros(len(mask), self.state_channels, *mask.shape[2:])
        known = nothing if problem.known is None else problem.known.expand_as(nothing)
        # a start below 1 begins at a state of 0, noised: for a residual that is the predictor's own image
        initial = nothing if sampling.start < 1 else None
        if sampling.windows is None:
            denoise = denoiser_of(problem)
        else:
            denoise = denoise_windows(
                lambda part: denoiser_of(problem.part(part)), mask.shape[2], sampling.windows
            )
        states: list[Tensor] = []
        x0 = sample(sampling, denoise, schedule, noise, known, mask, initial, states)
        return torch.cat([self.task.restore(x, problem) for x in (x0, *states)], dim=1)


class Diffusion(Sampled):
    """Noises x_t = alpha·x0 + sigma·eps inside the task's mask, learns to denoise it, and samples."""

    options: DiffusionSettings

    def attempt(self, batch: Batch, noise: Noise, progress: float = 1.0) -> Attempt:
        """The denoised state of a batch at random times, and its losses."""
        problem = self.task.pose(batch, noise, progress).with_weight(batch.weight)
        x0 = require(problem.x0)
        schedule = self.options.schedule
        kind = self.options.prediction
        t = self.options.times(noise.uniform(), schedule)
        alpha, sigma = schedule(t)
        eps = noise(x0)
        x_t = diffuse(x0, eps, alpha, sigma)
        if problem.known is not None:
            x_t = with_known(x_t, problem.known, problem.mask)
        out = self._run(problem, x_t, move_like(schedule.log_snr(t), x0))

        def _losses() -> Losses:
            error = out - target(x0, eps, alpha, sigma, kind)
            error = error.square() if self.options.loss == "l2" else error.abs()
            weight = move_like(self.options.weight(alpha, sigma, kind), x0)
            fit = (weight * mean_in_mask(error, problem.loss_mask, self.options.reduction)).mean()
            extra = means_in_mask(problem.errors, problem.loss_mask, self.options.reduction)
            return {"total": fit + sum(extra.values()), "diffusion": fit, **extra}

        return Attempt(
            _losses, lambda: pair_of(problem, to_x0(out, x_t, alpha, sigma, kind), self.task)
        )

    @torch.no_grad()
    def synthesise(self, batch: Batch, noise: Draws, sampling: SamplerSettings) -> Tensor:
        """One sample of each item."""
        return self.draw(batch, self._denoiser, self.options.schedule, noise, sampling)

    def _denoiser(self, problem: Problem) -> Denoise:
        options = self.options
        network = partial(self._run, problem)
        return denoiser(network, options.schedule, options.prediction, options.clip)

    def _run(self, problem: Problem, x_t: Tensor, log_snr: Tensor) -> Tensor:
        """The network's output, float32."""
        if self.options.scaled_input:
            schedule = self.options.schedule
            alpha, sigma = schedule(schedule.t(with_doubles(log_snr)))
            size = per_item((alpha**2 + sigma**2).sqrt(), x_t)
            x_t = torch.where(problem.mask > 0, x_t / size, x_t)  # what is known stays as it is
        output: Output = self.net(replace(problem.inputs, state=x_t, log_snr=log_snr))
        return output.image.float()
