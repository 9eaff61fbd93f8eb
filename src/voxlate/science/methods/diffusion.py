"""Methods that are sampled: the diffusion model, and flows from the mean prediction.

A diffusion is a network, a schedule, a prediction and a task; every paper here is a choice of these four.

A flow leads from the mean prediction to an image like true ones, in few steps, and sees nothing else than its own image.
The path is x_t = (1 - t) x0 + t sigma_s eps in the state of a residual, where 0 is the mean, and its velocity sigma_s
eps - x0 (rectified flow: Liu et al. 2022). The network sees the image base + x_t alone, without the sources: it then
learns a map from means to truths, which costs less error than samples given the sources do (PMRF: Ohayon, Michaeli
and Elad 2024). It also knows the size of its step, and learns to give in one step what it gives in two of half the
size (shortcut models: Frans et al. 2024), so that the same weights serve 1, 2, 4, … steps.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import kind_of, setting, settings
from voxlate.base.devices import move_like, with_doubles
from voxlate.base.errors import BadInput
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Draws, Noise
from voxlate.science.diffusion.prediction import (
    AnyWeight,
    Kind,
    MinSnr,
    Reduction,
    denoiser,
    diffuse,
    mean_in_mask,
    means_in_mask,
    per_item,
    target,
    to_x0,
)
from voxlate.science.diffusion.sample import (
    SamplerSettings,
    check_sampler_fits,
    denoise_windows,
    sample,
    with_known,
)
from voxlate.science.diffusion.samplers import Denoise
from voxlate.science.diffusion.schedules import AnySchedule, FlowMatching, Schedule, ShiftedCosine
from voxlate.science.diffusion.times import AnyTimes, UniformTimes
from voxlate.science.methods.method import (
    Attempt,
    Losses,
    Method,
    MethodSettings,
    Problem,
    StageSettings,
    Task,
    pair_of,
    require,
    with_total,
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


FLOW_SCHEDULE = FlowMatching()
FLOW_KEYS = ("steps", "windows")  # keys of the sampling that a flow has


@settings
class FlowSettings(MethodSettings):
    """Follows straight paths from the mean prediction to an image like true ones, in few steps."""

    takes_opponent: ClassVar[bool] = False
    weighs: ClassVar[bool] = True
    iterates: ClassVar[bool] = True
    shows_doubt: ClassVar[bool] = False
    kind: Literal["flow"] = "flow"
    sigma_s: Annotated[
        float,
        setting(
            "Standard deviation of the noise at the start of a path, in the state's unit.", gt=0
        ),
    ] = 0.03
    halvings: Annotated[
        int,
        setting(
            "Number of times that the step size 1 is halved; the smallest one is trained on the velocity itself.",
            ge=0,
        ),
    ] = 3
    shortcuts: Annotated[
        float,
        setting(
            "Share of the items that learn one step from two steps of half the size.", ge=0, le=1
        ),
    ] = 0.25
    times: Annotated[AnyTimes, setting("Distribution of the times of all other items.")] = (
        UniformTimes()
    )
    reduction: Reduction = "mask"

    @property
    def trained_steps(self) -> tuple[int, ...]:
        """1, 2, 4, …, up to the smallest size of a step."""
        return tuple(2**number for number in range(self.halvings + 1))

    def check(self, stage: StageSettings, where: str) -> None:
        """Raise BadInput where the stage has no mean from which paths could begin."""
        super().check(stage, where)
        if stage.task.mean_stage is None:
            raise BadInput(
                f"{where}, stage '{stage.name}': expected task.kind = 'residual' for method.kind = 'flow', whose paths begin at the mean of an earlier stage, found '{kind_of(stage.task)}'. Plan it with --mode samples, or change the method."
            )

    def build(self, net: NetSettings, task: Task, channels: Channels) -> "Flow":
        """The method with fresh weights; the step size is a part of the network's code."""
        code = channels.code + self.halvings + 1
        return Flow(self, net.build(replace(channels, images={}, code=code)), task, channels.state)

    def check_sampler(self, sampling: SamplerSettings) -> None:
        """Raise BadInput where the sampling has more than even steps."""
        for name, usual in vars(SamplerSettings()).items():
            found = getattr(sampling, name)
            if name not in FLOW_KEYS and found != usual:
                raise BadInput(
                    f"synth.{name}: expected no other key of the sampling than {', '.join(FLOW_KEYS)} for method.kind = 'flow', whose steps are even, found {found!r}. Drop it."
                )


class Flow(Sampled):
    """Learns the mean velocity of steps of several sizes, and takes even steps from noise to the target."""

    options: FlowSettings

    def loss(self, turn: str, batch: Batch, noise: Noise, progress: float = 1.0) -> Losses:
        """Squared error of the velocity, and of a share of the items that of the mean velocity of two half steps."""
        problem = self.task.pose(batch, noise, progress).with_weight(batch.weight)
        x0 = require(problem.x0)
        step, t = self._draw_steps(noise)
        start = self.options.sigma_s * noise(x0)
        x_t = torch.lerp(x0, start, per_item(t, x0))
        # with a gradient first: autocast would keep weights that it casts without one
        velocity = self._velocity(problem, x_t, t, step)
        wanted = start - x0
        longer = (step > 0.5**self.options.halvings).nonzero()[:, 0]
        if len(longer):
            place = (x_t[longer], t[longer], step[longer] / 2)
            wanted[longer] = self._two_steps(problem.items(longer), *place)
        error = (velocity - wanted).square()
        errors = {"flow": error, **problem.errors}
        return with_total(means_in_mask(errors, problem.loss_mask, self.options.reduction))

    def _draw_steps(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """The size of an item's step and the time at which it begins, [B] float64.

        Steps larger than the smallest begin at multiples of their size, as in synthesis.
        """
        halvings, shortcuts = self.options.halvings, self.options.shortcuts
        u = noise.uniform()
        number = torch.where(u < shortcuts, (u / shortcuts * halvings).floor(), halvings)
        step = 0.5**number
        u = noise.uniform()
        any_time = self.options.times(u, FLOW_SCHEDULE)
        return step, torch.where(number < halvings, (u / step).ceil() * step, any_time)

    @torch.no_grad()
    def _two_steps(self, problem: Problem, x: Tensor, t: Tensor, step: Tensor) -> Tensor:
        """The mean velocity of two steps of this size from x at t (Frans et al. 2024)."""
        first = self._velocity(problem, x, t, step)
        x = x - per_item(step, x) * first
        return (first + self._velocity(problem, x, t - step, step)) / 2

    @torch.no_grad()
    def synthesise(self, batch: Batch, noise: Draws, sampling: SamplerSettings) -> Tensor:
        """One sample of each item."""

        def _noise(x: Tensor) -> Tensor:
            return self.options.sigma_s * noise(x)

        def _denoiser(problem: Problem) -> Denoise:
            def _denoise(x: Tensor, t: Tensor) -> Tensor:
                step = torch.full_like(t, 1 / sampling.steps)
                return x - per_item(t, x) * self._velocity(problem, x, t, step)

            return _denoise

        # DDIM on a straight path takes Euler steps along the velocity
        return self.draw(batch, _denoiser, FLOW_SCHEDULE, _noise, sampling)

    def _velocity(self, problem: Problem, x: Tensor, t: Tensor, step: Tensor) -> Tensor:
        """The mean velocity of a step from x at t, float32; t, step: [B] float64."""
        numbers = torch.arange(self.options.halvings + 1)
        number = -step.log2().clamp(min=-self.options.halvings)
        # one-hot for the sizes of the training, linear between them
        code = move_like(F.relu(1 - (number[:, None] - numbers).abs()), x)
        inputs = problem.inputs
        code = code if inputs.code is None else torch.cat([inputs.code, code], dim=1)
        image = self.task.restore(x, problem)
        log_snr = move_like(FLOW_SCHEDULE.log_snr(t), x)
        seen = replace(inputs, images={}, state=image, log_snr=log_snr, code=code)
        output: Output = self.net(seen)
        return output.image.float()
