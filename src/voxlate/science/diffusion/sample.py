"""Sampling from noise to image: its settings, the one function that runs a sampler, and windows of long volumes."""

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from voxlate.base.config import Importable, look_up, setting, settings
from voxlate.base.devices import move_like
from voxlate.base.errors import BadInput
from voxlate.science.diffusion import samplers
from voxlate.science.diffusion.prediction import reschedule
from voxlate.science.diffusion.samplers import Denoise, Draw, Sampler, Traits, traits_of
from voxlate.science.diffusion.schedules import AnySchedule, Schedule
from voxlate.science.diffusion.times import GridName, grid

# every function of that module that states its traits is a sampler by its own name
SAMPLERS: dict[str, Sampler] = {
    name: function for name, function in vars(samplers).items() if hasattr(function, "traits")
}

# Noise of this sigma/alpha is half a grey level of 256 when data are in [−1, 1]. More of it must be denoised, and
# stepping must come down to it first: one denoising of more flattens what the data leave open (by 4 % of the spread
# of the data in the tests, for a schedule as steep at 0 as a sigmoid from 0).
FAINT = 0.005


@settings
class Windows:
    """Windows of slices (axis D) that a volume is denoised in."""

    size: Annotated[int, setting("Number of slices of a window.", ge=1)] = 16
    overlap: Annotated[
        int, setting("Least number of slices that neighbouring windows share.", ge=0)
    ] = 4

    def __post_init__(self) -> None:
        if self.overlap >= self.size:
            raise BadInput(
                f"synth.windows: expected an overlap below the size, found {self.overlap} and {self.size}. Lower it."
            )

    def slices(self, depth: int) -> list[slice]:
        """The windows of a volume, evenly spread: the first begins with it, the last ends with it."""
        left = max(0, depth - self.size)
        gaps = -(-left // (self.size - self.overlap))
        starts = [left * number // max(1, gaps) for number in range(gaps + 1)]
        return [slice(start, min(start + self.size, depth)) for start in starts]


@settings
class SamplerSettings:
    """How images are sampled: `synth = { sampler = "ddim", steps = 32, eta = 0.0 }`.

    `steps` counts the times at which the network denoises. Some samplers denoise more than once at each of them, and
    some choose their own times: see `evaluations`.
    """

    sampler: Annotated[
        str,
        Importable(),
        setting(
            "Sampler that steps from noise to image: a name of the package, or 'module:function' for one of your own."
        ),
    ] = "ddim"
    steps: Annotated[int, setting("Number of times at which the network denoises.", ge=1)] = 32
    eta: Annotated[
        float, setting("DDIM noise level: 0 is deterministic, 1 equals DDPM.", ge=0, le=1)
    ] = 0.0
    r: Annotated[
        float,
        setting(
            "Length of the Langevin steps of predictor_corrector, twice the 'snr' of Song et al. 2021.",
            gt=0,
            lt=1,
        ),
    ] = 0.32
    correctors: Annotated[
        int,
        setting("Number of Langevin steps of predictor_corrector at each time.", ge=1),
    ] = 1
    rtol: Annotated[float, setting("Largest relative error of one step of rk45.", gt=0)] = 1e-5
    atol: Annotated[float, setting("Largest absolute error of one step of rk45.", gt=0)] = 1e-5
    schedule: Annotated[
        AnySchedule | None,
        setting("Noise schedule of sampling; unset: the schedule of the training."),
    ] = None
    grid: Annotated[
        GridName | None,
        setting(
            "Spacing of the times; unset: the sampler's own ('log_snr' for dpmpp_2m, 't' for others). A schedule that is steep at time 0 needs 'log_snr'."
        ),
    ] = None
    windows: Annotated[
        Windows | None,
        setting(
            "Overlapping windows of slices in which a volume is denoised; unset: the whole volume."
        ),
    ] = None
    start: Annotated[
        float,
        setting(
            "Time at which sampling starts; below 1 it keeps part of an initial image.", gt=0, le=1
        ),
    ] = 1.0
    end: Annotated[
        float | None,
        setting(
            "Time at which stepping ends; unset: the sampler's own (0 for ddim and ddpm, start/steps for euler_maruyama and predictor_corrector, at most 0.001 for others).",
            ge=0,
            lt=1,
        ),
    ] = None
    close: Annotated[
        bool | None,
        setting(
            "Whether the network denoises the last state once more; unset: where noise is left in it. With false the result is x(end) itself, as in the ODE of paper 002."
        ),
    ] = None

    keep_states: Annotated[
        int,
        setting(
            "Number of states of the reverse process that synthesis writes, the image included; 0: none.",
            ge=0,
        ),
    ] = 0

    def __post_init__(self) -> None:
        check_sampler_name(self.sampler, "synth.sampler")
        if self.keep_states > self.steps + 1:
            raise BadInput(
                f"synth.keep_states: expected at most {self.steps + 1} states of {self.steps} steps, found {self.keep_states}. Lower it, or raise steps."
            )
        if self.eta and "eta" not in self.traits.options:
            raise BadInput(
                f'synth.eta: expected 0 for a sampler without this option, found {self.eta} with "{self.sampler}". Drop eta, or choose ddim.'
            )

    @property
    def function(self) -> Sampler:
        """The sampler; raises BadInput where one of the user's own cannot be imported."""
        return look_up(self.sampler, SAMPLERS)

    @property
    def traits(self) -> Traits:
        """What the sampler states about itself."""
        return traits_of(self.function)

    @property
    def options(self) -> dict[str, float]:
        """The settings that are arguments of the sampler."""
        return {name: getattr(self, name) for name in self.traits.options}

    @property
    def evaluations(self) -> float:
        """Network evaluations for one image; infinite where the sampler chooses its own steps."""
        each = self.traits.evaluations
        return self.steps * (each(self.options) if callable(each) else each)

    def times(self, schedule: Schedule) -> Tensor:
        """The falling times to step through; a closing denoising, where there is one, is the last of `steps`."""
        steps = self.steps - self.closes(schedule)
        if steps == 0 and self.evaluations < math.inf:
            return torch.tensor([self.start], dtype=torch.float64)
        return grid(
            self.grid or self.traits.grid, schedule, max(1, steps), self.start, self._end(schedule)
        )

    def closes(self, schedule: Schedule) -> bool:
        """Whether the network denoises the last state once more: as asked, else where noise is left in it."""
        if self.close is not None:
            return self.close
        end = self._end(schedule)
        alpha, sigma = schedule(torch.tensor(end))
        return end > 0 or float(sigma / alpha) > FAINT

    def _end(self, schedule: Schedule) -> float:
        if self.end is not None:
            return self.end
        if self.traits.end == "image":
            return 0.0
        if (
            self.traits.end == "one_step_early"
        ):  # a shorter closing step lets g²·dt/sigma² grow above 2, which diverges
            return self.start / self.steps
        return min(1e-3, max(0.0, float(schedule.t(torch.tensor(-2 * math.log(FAINT))))))


def check_sampler_name(name: str, key: str) -> None:
    """Raise BadInput where a recipe's key names neither a sampler of the package nor a function."""
    if name not in SAMPLERS and ":" not in name:
        raise BadInput(
            f'{key}: expected one of {", ".join(SAMPLERS)}, or "module:function", found {name!r}. Change it.'
        )


def with_known(x: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    """x where the mask is 1, `known`, bit for bit, where it is 0; mask broadcasts to x."""
    return torch.where(mask > 0, x, known)


def denoiser_in_mask(denoise: Denoise, known: Tensor, mask: Tensor) -> Denoise:
    """A denoiser of a state that is 0 outside the mask, whose network sees `known` there.

    With x, x0 and noise all 0 outside, every sampler's update leaves 0 there, and norms over a state count the inside
    only; so no sampler needs to know of masks.
    """
    nothing = torch.zeros_like(known)

    def _denoise(x: Tensor, t: Tensor) -> Tensor:
        return with_known(denoise(with_known(x, known, mask), t), nothing, mask)

    return _denoise


def keeping(denoise: Denoise, schedule: Schedule, times: Tensor, kept: list[Tensor]) -> Denoise:
    """A denoiser that keeps the states it is given at some falling times: the last one at each time.

    Where a sampler steps over a time, it is the first one after it. States are divided by sqrt(alpha² + sigma²), so that
    noise has the variance 1 in every schedule.
    """

    def _denoise(x: Tensor, t: Tensor) -> Tensor:
        number = int((times >= t[0]).sum())
        if len(kept) < number or t[0] in times:
            state = x / float(torch.stack(schedule(t[0])).norm())
            kept[number - 1 :] = [state] * max(1, number - len(kept))
        return denoise(x, t)

    return _denoise


def sample(
    sampling: SamplerSettings,
    denoise: Denoise,
    trained: Schedule,
    noise: Draw,
    known: Tensor,
    mask: Tensor | None = None,
    initial: Tensor | None = None,
    states: list[Tensor] | None = None,
) -> Tensor:
    """Draw images [B, C, D, H, W] like `known`, which they equal bit for bit where the mask is 0.

    denoise, trained: what was trained, and its schedule; `sampling.schedule` may differ.
    initial: the image that sampling starts from, noised to `sampling.start`; without it the start is noise alone.
    mask: 1 where to synthesise, broadcasts to known; None: everywhere, and only the shape of known matters.
    states: gets `sampling.keep_states` states from noise to image, evenly spread over the steps (see `keeping`).
    """
    mask = torch.ones_like(known) if mask is None else mask
    check_sampler_fits(sampling, trained)
    denoise = denoiser_in_mask(denoise, known, mask)
    schedule = trained
    if sampling.schedule is not None:
        denoise = reschedule(denoise, trained, sampling.schedule)
        schedule = sampling.schedule
    nothing = torch.zeros_like(known)
    times = sampling.times(schedule)
    alpha, sigma = schedule(times[0])
    if states is not None:
        parts = sampling.keep_states - 1
        numbers = [sampling.steps * part // parts for part in range(parts)]
        denoise = keeping(denoise, schedule, times[numbers], states)

    def _draw(x: Tensor) -> Tensor:
        return with_known(noise(x), nothing, mask)

    if initial is None:
        x = float(schedule.start_std(times[0])) * _draw(known)
    else:
        x = float(alpha) * with_known(initial, nothing, mask) + float(sigma) * _draw(known)
    x = partial(sampling.function, **sampling.options)(denoise, schedule, x, times, _draw)
    if not isinstance(x, Tensor) or x.shape != known.shape:
        raise BadInput(
            f"synth.sampler: expected a tensor {list(known.shape)} from {sampling.sampler}, found {type(x).__name__} {list(getattr(x, 'shape', []))}. Return the state as it came."
        )
    x = denoise(x, times[-1].expand(len(x))) if sampling.closes(schedule) else x
    x = with_known(x, known, mask)
    if states is not None:
        states += [x] * (sampling.keep_states - len(states))
    return x


def check_sampler_fits(sampling: SamplerSettings, trained: Schedule) -> None:
    """Raise BadInput where the last explicit step turns the noise that is left into over 3 times as much, negated."""
    if sampling.traits.end != "one_step_early":
        return
    schedule = sampling.schedule or trained
    last = sampling.times(schedule)[-2:]
    _, sigma = schedule(last)
    share = -last.diff() * (schedule.g2(last) / sigma**2 - schedule.log_alpha_drift(last))[:-1]
    if (share > 4).any():
        kind = getattr(schedule, "kind", type(schedule).__name__)
        raise BadInput(
            f"synth.sampler: expected one that fits the {kind} schedule, found {sampling.sampler}, whose {sampling.steps} steps to time {float(last[-1]):g} overshoot. Raise steps or end, or choose another one."
        )


def denoise_windows(
    denoise_for: Callable[[slice], Denoise], depth: int, windows: Windows
) -> Denoise:
    """The denoiser of states [B, C, D, H, W] that averages the x0 of windows where they overlap, at every call.

    denoise_for: the denoiser of some slices. All windows are at the same time t of one state, so every sampler works
    as on the whole volume, and seams cannot appear.
    """
    # of each slice, in how many windows it was up to this one
    counts = torch.zeros(depth, 1, 1)
    parts = []
    for part in windows.slices(depth):
        counts[part] += 1
        parts.append((part, denoise_for(part), counts[part].clone()))

    def _denoise(x: Tensor, t: Tensor) -> Tensor:
        mean = torch.zeros_like(x)
        for part, inner, count in parts:
            # a running mean, so that windows which agree give what they agree on, bit for bit
            change = (inner(x[:, :, part], t) - mean[:, :, part]) / move_like(count, x)
            mean[:, :, part] = mean[:, :, part] + change
        return mean

    return _denoise
