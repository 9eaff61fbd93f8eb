"""Noise schedules: t in [0, 1] -> (alpha, sigma) of x_t = alpha·x0 + sigma·eps; t = 0 is the image, t = 1 noise.

A schedule states its log-SNR, 2·log(alpha / sigma), which falls, and its path, which turns that into (alpha, sigma);
the rest follows, so that a new one is three lines. Times are few (one an item), so everything here is float64 on the
device of t, by default the CPU.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, ClassVar, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from voxlate.base.config import Importable, setting, settings
from voxlate.base.errors import BadInput

# Networks never see a log-SNR outside ±20. At −20, alpha is 4.5e-5: small, but x0 can still be divided out.
# At the clean end only the number that networks see is limited; sigma itself may reach 0: t = 0 is exactly the image.
LOG_SNR_LIMIT = 20.0
FIRST_TIME = 1e-9  # derivatives at t = 0 are taken here: log_snr is infinite at 0 for most schedules, g² is not


def variance_preserving(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha² + sigma² = 1."""
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


def variance_exploding(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha = 1."""
    return torch.ones_like(log_snr), torch.exp(-log_snr / 2)


def straight(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha + sigma = 1."""
    return torch.sigmoid(log_snr / 2), torch.sigmoid(-log_snr / 2)


T = TypeVar("T")  # a tensor, or several
Path = Literal["preserving", "exploding", "straight"]
_PATHS = {"preserving": variance_preserving, "exploding": variance_exploding, "straight": straight}


class Schedule(ABC):
    """What follows from a falling log-SNR and a path; t and log_snr of any shape, float64 out.

    Example:
        >>> import torch
        >>> from voxlate.science.diffusion.schedules import Cosine
        >>> alpha, sigma = Cosine()(torch.tensor([0.5]))
        >>> torch.allclose(alpha**2 + sigma**2, torch.ones(1).double())
        True
    """

    path: ClassVar[Path] = "preserving"

    @abstractmethod
    def _log_snr(self, t: Tensor) -> Tensor:
        """The schedule's own formula; may be infinite at both ends."""

    def _floor(self, t: Tensor) -> Tensor:
        return self._log_snr(t.double()).clamp(min=-LOG_SNR_LIMIT)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return _PATHS[self.path](self._floor(t))

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha² / sigma²) at t [B]."""
        return self._floor(t).clamp(max=LOG_SNR_LIMIT)

    def t(self, log_snr: Tensor) -> Tensor:
        """By bisection; schedules with a closed form use that."""
        log_snr = log_snr.double()
        low = torch.zeros_like(log_snr)
        high = torch.ones_like(log_snr)
        for _ in range(80):  # 53 bits, and as many again for times near 0
            middle = (low + high) / 2
            early = self._log_snr(middle) > log_snr
            low = torch.where(early, middle, low)
            high = torch.where(early, high, middle)
        return high

    def log_alpha_drift(self, t: Tensor) -> Tensor:
        """f = d log alpha / dt of the forward process dx = f·x·dt + g·dw."""
        return with_slope(lambda u: self(u)[0].log(), t)[1]

    def g2(self, t: Tensor) -> Tensor:
        """g² = −sigma²·d log_snr/dt (Kingma et al. 2021, eq. 20, holds for every alpha)."""
        return -(self(t.double().clamp(min=FIRST_TIME))[1] ** 2) * with_slope(self._floor, t)[1]

    def start_std(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise that sampling starts from.

        1 for variance preserving (as published, even where alpha(1) is not 0), else sigma.
        """
        alpha, sigma = self(t)
        return torch.hypot(alpha, sigma) if self.path == "preserving" else sigma


def with_slope(f: Callable[[Tensor], T], t: Tensor) -> tuple[T, T]:
    """f(t) and its derivative by t, float64; where the log-SNR is held at its limit that is 0."""
    with torch.inference_mode(False):
        t = t.double().clone().clamp(min=FIRST_TIME)
        value, slope = torch.func.jvp(f, (t,), (torch.ones_like(t),))[:2]
    return value, slope


@settings
class Cosine(Schedule):
    """log_snr = −2·log tan(a + t·(b − a)), exactly ±log_snr_max at the ends (Hoogeboom et al. 2023; paper 001)."""

    kind: Literal["cosine"] = "cosine"
    log_snr_max: Annotated[
        float,
        setting(
            "Log-SNR at t = 0, before any shift; at t = 1 it is minus this number.",
            gt=0,
            le=LOG_SNR_LIMIT,
        ),
    ] = 15.0

    @property
    def shift(self) -> float:
        """By which the log-SNR is moved."""
        return 0.0

    @property
    def _first_angle(self) -> float:
        return math.atan(math.exp(-self.log_snr_max / 2))

    def _log_snr(self, t: Tensor) -> Tensor:
        a = self._first_angle
        # b = pi/2 − a. Each half from its own end: tan is exact near 0 and loses digits near pi/2.
        early = t < 0.5
        angle = a + torch.where(early, t, 1 - t) * (math.pi / 2 - 2 * a)
        return torch.where(early, -2.0, 2.0) * torch.log(torch.tan(angle)) + self.shift

    def t(self, log_snr: Tensor) -> Tensor:
        """The time of a log-SNR."""
        a = self._first_angle
        angle = torch.atan(torch.exp((self.shift - log_snr.double()) / 2))
        return ((angle - a) / (math.pi / 2 - 2 * a)).clamp(0, 1)


@settings
class ShiftedCosine(Cosine):
    """The cosine schedule with 2·log(reference / size) added, so that large images get more noise.

    Source: Hoogeboom et al. 2023, eq. 3 (simple diffusion, reference 64); the figure of paper 001 has 32.
    """

    kind: Literal["shifted_cosine"] = "shifted_cosine"  # type: ignore[assignment]
    size: Annotated[float, setting("Side of the images in pixels.", gt=0)] = 256.0
    reference: Annotated[
        float,
        setting("Side in pixels for which the plain cosine schedule is right.", gt=0),
    ] = 64.0

    @property
    def shift(self) -> float:
        """By which the log-SNR of the cosine is moved."""
        return 2 * math.log(self.reference / self.size)


@settings
class Sigmoid(Schedule):
    """alpha² = g(t), a sigmoid of start + t·(end − start), rescaled to 1 at t = 0 and 0 at t = 1.

    Source: Jabri et al. 2023 (appendix B), Chen 2023 (algorithm 1). `power = "alpha"` takes g as alpha, as the
    figure of paper 001 does.
    """

    kind: Literal["sigmoid"] = "sigmoid"
    start: Annotated[float, setting("Argument of the sigmoid at t = 0, times tau.")] = -3.0
    end: Annotated[float, setting("Argument of the sigmoid at t = 1, times tau.")] = 3.0
    tau: Annotated[
        float,
        setting(
            "Temperature of the sigmoid: a large one is nearly linear, a small one is steep.", gt=0
        ),
    ] = 1.0
    power: Annotated[
        Literal["alpha2", "alpha"],
        setting("Quantity that the curve gives: alpha² or alpha."),
    ] = "alpha2"

    def __post_init__(self) -> None:
        if self.start == self.end:
            raise BadInput(
                f"sigmoid schedule: expected start and end to differ, found {self.start} twice. Change one."
            )

    def _log_snr(self, t: Tensor) -> Tensor:
        # sigmoid(p) − sigmoid(q) = sigmoid(p)·sigmoid(−q)·(1 − e^(q − p)): no digits are lost where both are nearly 1.
        first, last = (
            torch.tensor([self.start, self.end], dtype=t.dtype, device=t.device) / self.tau
        )
        u = first + t * (last - first)
        log_range = logsigmoid(last) + logsigmoid(-first) + _log_gap(first - last)
        log_g = logsigmoid(last) + logsigmoid(-u) + _log_gap((t - 1) * (last - first)) - log_range
        log_rest = (
            logsigmoid(u) + logsigmoid(-first) + _log_gap(-t * (last - first)) - log_range
        )  # log(1 − g)
        if self.power == "alpha2":
            return log_g - log_rest
        return 2 * log_g - log_rest - torch.log1p(torch.exp(log_g))  # log g²/(1 − g²)


def _log_gap(x: Tensor) -> Tensor:
    """log |1 − e^x|."""
    return torch.log(torch.abs(torch.expm1(x)))


@settings
class LinearBetas(Schedule):
    """The betas of a discrete DDPM, which grow evenly, or whose square roots do.

    Index i of `count` is t = (i + 1) / count, t = 0 the image itself. alpha² is the running product of 1 − beta; between two
    indices log_snr is linear, before the first sigma² is.
    Source: Ho et al. 2020; spacing "sqrt" is the "scaled linear" of latent diffusion (Rombach et al. 2022).
    """

    kind: Literal["linear_betas"] = "linear_betas"
    first: Annotated[float, setting("Beta of index 0.", gt=0, lt=1)] = 1e-4
    last: Annotated[float, setting("Beta of the last index.", gt=0, lt=1)] = 0.02
    count: Annotated[int, setting("Number of betas, T.", ge=2)] = 1000
    spacing: Annotated[
        Literal["linear", "sqrt"],
        setting("Whether beta grows evenly, or its square root."),
    ] = "linear"

    def _log_snr(self, t: Tensor) -> Tensor:
        table = _table(self).to(t.device)
        place = t * self.count - 1
        index = place.detach().floor().clamp(0, self.count - 2).long()
        inside = table[index] + (place - index) * (table[index + 1] - table[index])
        first = torch.sigmoid(-table[0])  # the variance at index 0, its beta
        variance = torch.minimum(first * t * self.count, first)
        return torch.where(place < 0, torch.log1p(-variance) - torch.log(variance), inside)


@lru_cache
def _table(schedule: LinearBetas) -> Tensor:
    """Log-SNR of each index, float64 [count]; has values also where models are built without theirs (meta)."""
    power = 2.0 if schedule.spacing == "sqrt" else 1.0
    first, last = schedule.first ** (1 / power), schedule.last ** (1 / power)
    with torch.device("cpu"):
        betas = torch.linspace(first, last, schedule.count, dtype=torch.float64) ** power
        log_alpha2 = torch.log1p(-betas).cumsum(0)
        return log_alpha2 - torch.log(-torch.expm1(log_alpha2))


@settings
class LinearVP(Schedule):
    """Continuous linear betas: alpha² = exp(−B), B = t·first + t²·(last − first)/2 (Song et al. 2021, eq. 33)."""

    kind: Literal["linear_vp"] = "linear_vp"
    first: Annotated[float, setting("Beta at t = 0.", gt=0)] = 0.1
    last: Annotated[float, setting("Beta at t = 1.", gt=0)] = 20.0

    def _log_snr(self, t: Tensor) -> Tensor:
        return -torch.log(torch.expm1(t * self.first + t**2 * (self.last - self.first) / 2))

    def t(self, log_snr: Tensor) -> Tensor:
        """The time of a log-SNR."""
        b = softplus(-log_snr.double())
        return 2 * b / (self.first + torch.sqrt(self.first**2 + 2 * (self.last - self.first) * b))


@settings
class ExponentialVE(Schedule):
    """dx = base^t dw: g = base^t and sigma² = (base^(2t) − 1) / (2·log base) (Song's tutorial; paper 002, base 25)."""

    kind: Literal["exponential_ve"] = "exponential_ve"
    base: Annotated[float, setting("Diffusion coefficient g at t = 1.", gt=1)] = 25.0
    path: ClassVar[Path] = "exploding"

    def _log_snr(self, t: Tensor) -> Tensor:
        rate = 2 * math.log(self.base)
        return -torch.log(torch.expm1(rate * t) / rate)

    def t(self, log_snr: Tensor) -> Tensor:
        """The time of a log-SNR."""
        rate = 2 * math.log(self.base)
        return torch.log1p(rate * torch.exp(-log_snr.double())) / rate


@settings
class FlowMatching(Schedule):
    """The straight line alpha = 1 − t, sigma = t (Lipman et al. 2023; Liu et al. 2023).

    Times within 4.5e-5 of 1 are held there (see LOG_SNR_LIMIT).
    """

    kind: Literal["flow"] = "flow"
    path: ClassVar[Path] = "straight"

    def _log_snr(self, t: Tensor) -> Tensor:
        return 2 * (torch.log1p(-t) - torch.log(t))

    def t(self, log_snr: Tensor) -> Tensor:
        """The time of a log-SNR."""
        return torch.sigmoid(-log_snr.double() / 2)


AnySchedule = Annotated[
    Cosine | ShiftedCosine | Sigmoid | LinearBetas | LinearVP | ExponentialVE | FlowMatching,
    Field(discriminator="kind"),
    Importable(),
]
