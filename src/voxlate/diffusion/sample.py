"""Sampling from noise to image: its settings, and the one function that runs a sampler."""

import math
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from voxlate.config import imported, settings
from voxlate.diffusion.higher_order import dpm2, dpm3, dpmpp_2m, dpmpp_2s, heun
from voxlate.diffusion.ode import rk45
from voxlate.diffusion.prediction import rescheduled
from voxlate.diffusion.samplers import (
    Denoise,
    Draw,
    Sampler,
    adjusted_ddim,
    ddim,
    ddpm,
    euler_maruyama,
    predictor_corrector,
)
from voxlate.diffusion.schedules import AnySchedule, Schedule
from voxlate.diffusion.times import GridName, grid
from voxlate.diffusion.windows import Windows
from voxlate.errors import BadInput

SAMPLERS: dict[str, Sampler] = {
    **{sampler.__name__: sampler for sampler in (ddim, ddpm, adjusted_ddim, euler_maruyama, predictor_corrector)},
    **{sampler.__name__: sampler for sampler in (dpm2, dpm3, dpmpp_2s, dpmpp_2m, heun, rk45)},
    "dpm1": ddim,  # DPM-Solver-1 is DDIM
}
EVEN_IN_LOG_SNR = ("dpm2", "dpm3", "dpmpp_2s", "dpmpp_2m")  # solvers in log-SNR

# Noise of this sigma/alpha is half a grey level of 256 when data are in [−1, 1]. More of it must be denoised, and
# stepping must come down to it first: one denoising of more flattens what the data leave open (by 4 % of the spread
# of the data in the tests, for a schedule as steep at 0 as a sigmoid from 0).
FAINT = 0.005


@settings
class SamplerSettings:
    """How images are sampled: `synth = { sampler = "ddim", steps = 32, eta = 0.0 }`.

    `steps` counts the points at which the network denoises. heun, dpm2 and dpmpp_2s do so twice at each but the
    closing one, dpm3 three times, predictor_corrector 1 + `correctors` times; rk45 finds its own points.
    """

    sampler: Annotated[
        str, Field(description='how to step from noise to image; "module:function" for one of your own')
    ] = "ddim"
    steps: Annotated[int, Field(ge=1, description="times at which the network denoises")] = 32
    eta: Annotated[float, Field(ge=0, le=1, description="share of fresh noise in ddim; 1 is ddpm")] = 0.0
    r: Annotated[
        float,
        Field(
            gt=0, lt=1, description='length of Langevin steps in predictor_corrector, twice "snr" (Song et al. 2021)'
        ),
    ] = 0.32
    correctors: Annotated[int, Field(ge=1, description="Langevin steps at each time in predictor_corrector")] = 1
    rtol: Annotated[float, Field(gt=0, description="relative error that a step of rk45 may make")] = 1e-5
    atol: Annotated[float, Field(gt=0, description="absolute error that a step of rk45 may make")] = 1e-5
    temperature: Annotated[
        float, Field(gt=0, description="factor on all noise; over 1 restores spread that a short training lost")
    ] = 1.0
    schedule: Annotated[
        AnySchedule | None, Field(description="noise over time while drawing; unset: as in training")
    ] = None
    grid: Annotated[
        GridName | None,
        Field(
            description='spacing of the times; by default "log_snr" for dpm2, dpm3, dpmpp_2s and dpmpp_2m, "t" for the '
            'others (schedules steep at 0 want "log_snr")'
        ),
    ] = None
    windows: Annotated[
        Windows | None, Field(description="denoise a volume in overlapping windows of slices; unset: whole")
    ] = None
    start: Annotated[
        float, Field(gt=0, le=1, description="time to start from; below 1 keeps part of an initial image")
    ] = 1.0
    end: Annotated[
        float | None,
        Field(
            ge=0,
            lt=1,
            description="time at which stepping stops; above 0 one denoising closes (see close); by default 0 for "
            "ddim, ddpm, dpm1 and adjusted_ddim, start/steps for euler_maruyama and predictor_corrector, 0.001 or less "
            "for others",
        ),
    ] = None

    close: Annotated[
        bool | None,
        Field(
            description="denoise the last state once more; unset: where noise is left in it. false gives x(end) itself "
            "(paper 002's ODE)"
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS and ":" not in self.sampler:
            raise BadInput(
                f'synth.sampler: expected one of {", ".join(SAMPLERS)}, or "module:function", found {self.sampler!r}. '
                "Change it."
            )
        if self.eta and self.sampler != "ddim":
            raise BadInput(
                f'synth.eta: expected 0 unless sampler = "ddim", found {self.eta} with "{self.sampler}". Drop eta.'
            )

    def times(self, schedule: Schedule) -> Tensor:
        """The falling times to step through; a closing denoising, where there is one, is the last of `steps`."""
        steps = self.steps - self.closes(schedule)
        if steps == 0 and self.sampler != "rk45":
            return torch.tensor([self.start], dtype=torch.float64)
        name: GridName = self.grid or ("log_snr" if self.sampler in EVEN_IN_LOG_SNR else "t")
        return grid(name, schedule, max(1, steps), self.start, self._end(schedule))

    def closes(self, schedule: Schedule) -> bool:
        """Whether the network denoises the last state once more: as asked, else where noise is left in it."""
        if self.close is not None:
            return self.close
        end = self._end(schedule)
        alpha, sigma = schedule(torch.tensor(end))
        return end > 0 or float(sigma / alpha) > FAINT

    def bound_sampler(self) -> Sampler:
        """The sampler with its options bound; raises BadInput where one of the user's own cannot be imported."""
        if ":" in self.sampler:
            own: Sampler = imported(self.sampler)
            return own
        options: dict[str, dict[str, float]] = {
            "ddim": {"eta": self.eta},
            "rk45": {"rtol": self.rtol, "atol": self.atol},
            "predictor_corrector": {"r": self.r, "correctors": self.correctors},
        }
        return partial(SAMPLERS[self.sampler], **options.get(self.sampler, {}))

    def _end(self, schedule: Schedule) -> float:
        if self.end is not None:
            return self.end
        if self.sampler in ("euler_maruyama", "predictor_corrector"):
            # The closing denoising is then a step as long as the others; with a shorter one the last Euler–Maruyama
            # step overshoots (g²·dt/sigma² > 2 diverges).
            return self.start / self.steps
        if self.sampler in ("ddim", "ddpm", "dpm1", "adjusted_ddim"):
            return 0.0
        return min(1e-3, max(0.0, float(schedule.t(torch.tensor(-2 * math.log(FAINT))))))


def with_known(x: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    """x where the mask is 1, `known`, bit for bit, where it is 0; mask broadcasts to x."""
    return torch.where(mask > 0, x, known)


def masked_denoiser(denoise: Denoise, known: Tensor, mask: Tensor) -> Denoise:
    """A denoiser of a state that is 0 outside the mask, whose network sees `known` there.

    With x, x0 and noise all 0 outside, every sampler's update leaves 0 there, and norms over a state count the inside
    only; so no sampler needs to know of masks.
    """
    nothing = torch.zeros_like(known)

    def masked(x: Tensor, t: Tensor) -> Tensor:
        return with_known(denoise(with_known(x, known, mask), t), nothing, mask)

    return masked


def sample(
    sampling: SamplerSettings,
    denoise: Denoise,
    trained: Schedule,
    noise: Draw,
    known: Tensor,
    mask: Tensor | None = None,
    initial: Tensor | None = None,
) -> Tensor:
    """Draw images [B, C, D, H, W] like `known`, which they equal bit for bit where the mask is 0.

    denoise, trained: what was trained, and its schedule; `sampling.schedule` may differ.
    initial: the image that sampling starts from, noised to `sampling.start`; without it the start is noise alone.
    mask: 1 where to synthesise, broadcasts to known; None: everywhere, and only the shape of known matters.
    """
    mask = torch.ones_like(known) if mask is None else mask
    check_sampler_fits(sampling, trained)
    denoise, schedule = masked_denoiser(denoise, known, mask), trained
    if sampling.schedule is not None:
        denoise, schedule = rescheduled(denoise, trained, sampling.schedule), sampling.schedule
    nothing, times = torch.zeros_like(known), sampling.times(schedule)
    alpha, sigma = schedule(times[0])

    def draw(x: Tensor) -> Tensor:
        return sampling.temperature * with_known(noise(x), nothing, mask)

    if initial is None:
        x = float(schedule.start_std(times[0])) * draw(known)
    else:
        x = float(alpha) * with_known(initial, nothing, mask) + float(sigma) * draw(known)
    x = sampling.bound_sampler()(denoise, schedule, x, times, draw)
    x = denoise(x, times[-1].expand(len(x))) if sampling.closes(schedule) else x
    return with_known(x, known, mask)


def check_sampler_fits(sampling: SamplerSettings, trained: Schedule) -> None:
    """Raise BadInput where the last explicit step turns the noise that is left into over 3 times as much, negated."""
    if sampling.sampler not in ("euler_maruyama", "predictor_corrector"):
        return
    schedule = sampling.schedule or trained
    last = sampling.times(schedule)[-2:]
    _, sigma = schedule(last)
    share = -last.diff() * (schedule.g2(last) / sigma**2 - schedule.log_alpha_drift(last))[:-1]
    if (share > 4).any():
        kind = getattr(schedule, "kind", type(schedule).__name__)
        raise BadInput(
            f"synth.sampler: expected one that fits the {kind} schedule, found {sampling.sampler}, whose "
            f"{sampling.steps} steps to time {float(last[-1]):g} overshoot. Raise steps or end, or choose another one."
        )
