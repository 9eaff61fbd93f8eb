"""Times: those that a training step draws, and those that a sampler steps through.

The settings of training times turn uniform draws u in (0, 1), [B], into times t, [B] float64, by inversion.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxlate.base.config import setting, settings
from voxlate.base.errors import BadInput
from voxlate.science.diffusion.schedules import LOG_SNR_LIMIT, LinearBetas, Schedule


@settings
class UniformTimes:
    """Every time from `low` to 1 equally likely."""

    kind: Literal["uniform"] = "uniform"
    low: Annotated[float, setting("Earliest time; scores are undefined at time 0.", ge=0, lt=1)] = (
        0.0
    )
    count: Annotated[
        int,
        setting("Number of indices of a table whose times alone are drawn; 0: any time.", ge=0),
    ] = 0

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        t = self.low + u.double() * (1.0 - self.low)
        return torch.ceil(t * self.count) / self.count if self.count else t


@settings
class EarlyHeavyTimes:
    """Times near the image are drawn up to twice as often (paper 004).

    Index i of `count` = T has the probability (2T − i) / (T·(3T + 1)/2), t = (i + 1)/T.
    """

    kind: Literal["early_heavy"] = "early_heavy"
    count: Annotated[int, setting("Number of indices of the published table.", ge=1)]

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        # Indices below i weigh 2T·i − i·(i − 1)/2 of T·(3T + 1)/2; the quadratic is solved for i.
        b = 4 * self.count + 1
        total = self.count * (3 * self.count + 1) / 2
        index = torch.floor((b - torch.sqrt(b**2 - 8 * total * u.double())) / 2)
        return (index.clamp(max=self.count - 1) + 1) / self.count


@settings
class UniformLogSnrTimes:
    """log-SNR is uniform, whatever the schedule; by default between the schedule's own limits."""

    kind: Literal["uniform_log_snr"] = "uniform_log_snr"
    low: Annotated[float, setting("Lowest log-SNR, with the most noise.")] = -LOG_SNR_LIMIT
    high: Annotated[float, setting("Highest log-SNR, with the least noise.")] = LOG_SNR_LIMIT

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        last, first = schedule.log_snr(torch.tensor([1.0, 0.0], device=u.device))
        low = last.clamp(min=self.low)
        high = first.clamp(max=self.high)
        return schedule.t(low + u.double() * (high - low))


AnyTimes = Annotated[
    UniformTimes | EarlyHeavyTimes | UniformLogSnrTimes,
    Field(discriminator="kind"),
]


GridName = Literal["t", "log_snr", "index"]


def grid(
    name: GridName, schedule: Schedule, steps: int, start: float = 1.0, end: float = 0.0
) -> Tensor:
    """steps + 1 falling times from `start` to `end`, float64 on the CPU.

    "t": even in t. "log_snr": even in log-SNR. "index": the table indices round(linspace(T − 1, 0, steps)) of a discrete schedule, then `end`.
    """
    if not 0 <= end < start <= 1:
        raise BadInput(
            f"times: expected 0 <= end < start <= 1, found start {start} and end {end}. Change one of them."
        )
    if name == "index":
        return _index_grid(schedule, steps, start, end)
    share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    limits = torch.tensor([start, end], dtype=torch.float64)
    if name == "t":
        times = start + share * (end - start)
    else:
        first, last = schedule.log_snr(limits)
        times = schedule.t(first + share * (last - first))
    times[0], times[-1] = limits
    if (times.diff() >= 0).any():
        raise BadInput(
            f'times: expected a log-SNR that falls from {start} to {end} for grid "{name}", found one that is held at its limit. Use grid "t" or another schedule.'
        )
    return times


def _index_grid(schedule: Schedule, steps: int, start: float, end: float) -> Tensor:
    if not isinstance(schedule, LinearBetas):
        found = type(schedule).__name__
        raise BadInput(
            f'times: expected a schedule of kind "linear_betas" for grid "index", found {found}. Use grid "t".'
        )
    top = round(start * schedule.count) - 1
    if not 2 <= steps <= top + 1:
        raise BadInput(
            f'times: expected 2 to {top + 1} steps for grid "index", found {steps}. Change steps.'
        )
    times = (torch.linspace(top, 0, steps, dtype=torch.float64).round() + 1) / schedule.count
    return torch.cat([times[times > end], times.new_tensor([end])])
