"""What a schedule is: a falling log-SNR and a path that turns it into (alpha, sigma); the rest follows."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

# Networks never see a log-SNR outside ±20. At −20, alpha is 4.5e-5: small, but x0 can still be divided out.
# At the clean end only the number shown is limited; sigma itself may reach 0, so that t = 0 is exactly the picture.
LOG_SNR_LIMIT = 20.0
FIRST_TIME = 1e-9  # derivatives at t = 0 are taken here: log_snr is infinite at 0 for most schedules, g² is not


class Schedule(Protocol):
    """What samplers, losses and networks may ask of a schedule; t and log_snr of any shape, float64 out."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]: ...
    def log_snr(self, t: Tensor) -> Tensor: ...
    def t(self, log_snr: Tensor) -> Tensor: ...
    def log_alpha_drift(self, t: Tensor) -> Tensor: ...
    def g2(self, t: Tensor) -> Tensor: ...
    def start_std(self, t: Tensor) -> Tensor: ...


def preserving(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha² + sigma² = 1."""
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


def exploding(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha = 1."""
    return torch.ones_like(log_snr), torch.exp(-log_snr / 2)


def straight(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha + sigma = 1."""
    return torch.sigmoid(log_snr / 2), torch.sigmoid(-log_snr / 2)


Path = Literal["preserving", "exploding", "straight"]
_PATHS = {"preserving": preserving, "exploding": exploding, "straight": straight}


class FromLogSnr(ABC):
    """Everything that follows from a falling log-SNR and a path."""

    path: ClassVar[Path]

    @abstractmethod
    def _log_snr(self, t: Tensor) -> Tensor:
        """The schedule's own formula; may be infinite at both ends."""

    def _floored(self, t: Tensor) -> Tensor:
        return self._log_snr(t.double()).clamp(min=-LOG_SNR_LIMIT)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return _PATHS[self.path](self._floored(t))

    def log_snr(self, t: Tensor) -> Tensor:
        return self._floored(t).clamp(max=LOG_SNR_LIMIT)

    def t(self, log_snr: Tensor) -> Tensor:
        """By bisection; schedules with a closed form use that."""
        log_snr = log_snr.double()
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        for _ in range(80):  # 53 bits, and as many again for times near 0
            middle = (low + high) / 2
            early = self._log_snr(middle) > log_snr
            low, high = torch.where(early, middle, low), torch.where(early, high, middle)
        return high

    def log_alpha_drift(self, t: Tensor) -> Tensor:
        """f = d log alpha / dt of the forward process dx = f·x·dt + g·dw."""
        return _slope(lambda u: self(u)[0].log(), t)

    def g2(self, t: Tensor) -> Tensor:
        """g² = −sigma²·d log_snr/dt (Kingma et al. 2021, eq. 20, holds for every alpha)."""
        return -(self(t.double().clamp(min=FIRST_TIME))[1] ** 2) * _slope(self._floored, t)

    def start_std(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise that sampling starts from.

        1 for variance preserving (as published, even where alpha(1) is not 0), else sigma.
        """
        alpha, sigma = self(t)
        return torch.hypot(alpha, sigma) if self.path == "preserving" else sigma


def rates(schedule: Schedule, t: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(alpha, sigma) and their derivatives by t, like t; t above 0 and not within the limit of the log-SNR."""
    with torch.inference_mode(False):
        t = t.double().clone()
        values, slopes = torch.func.jvp(schedule, (t,), (torch.ones_like(t),))[:2]
    return values, slopes


def _slope(f: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    t = t.double().clamp(min=FIRST_TIME)
    with torch.inference_mode(False):
        slope: Tensor = torch.func.jvp(f, (t.clone(),), (torch.ones_like(t),))[1]
    return slope
