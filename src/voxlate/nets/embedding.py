"""What a network is told beside its images: the noise level and a configuration code."""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from voxlate.config import settings

MAX_PERIOD = 10_000.0  # of the sinusoids: Vaswani et al. 2017, sec. 3.5
LOG_SNR_LIMIT = 40.0  # float32 cannot tell sigma from 0 beyond it, and infinity (flow matching's ends) has no sine

Of = Annotated[
    Literal["log_snr", "gamma"],
    Field(description="noise level that is embedded: log_snr, or gamma = alpha^2 = sigmoid(log_snr) of a VP schedule"),
]
Mlp = Annotated[
    int | None,
    Field(ge=0, description="width of the two layers after the features; 0: none; absent: 4 times the network's width"),
]


@settings
class Sinusoidal:
    """Sinusoids with periods up to 10000 (Ho et al. 2020)."""

    kind: Literal["sinusoidal"] = "sinusoidal"
    of: Of = "log_snr"
    scale: Annotated[
        float,
        Field(gt=0, description="factor before the sinusoids; 25 spreads log_snr from -20 to 20 over 1000 steps"),
    ] = 25.0
    size: Annotated[int | None, Field(gt=0, multiple_of=2, description="features; absent: the network's width")] = None
    mlp: Mlp = None


@settings
class Fourier:
    """Sines and cosines of fixed random frequencies (Song et al. 2021)."""

    kind: Literal["fourier"] = "fourier"
    of: Of = "log_snr"
    scale: Annotated[
        float,
        Field(gt=0, description="factor before the features; 0.05 brings log_snr from -20 to 20 to the range -1 to 1"),
    ] = 0.05
    size: Annotated[int | None, Field(gt=0, multiple_of=2, description="features; absent: the network's width")] = 256
    std: Annotated[float, Field(gt=0, description="standard deviation of the frequencies")] = 30.0
    mlp: Mlp = 0


def sinusoids(value: Tensor, size: int) -> Tensor:
    """Cosines, then sines, of value * 10000^(-i / half): [B] -> [B, size]."""
    half = size // 2
    frequency = torch.exp(torch.arange(half, device=value.device, dtype=torch.float32) * (-math.log(MAX_PERIOD) / half))
    phase = value.float()[:, None] * frequency
    return torch.cat([phase.cos(), phase.sin()], dim=1)


class FourierFeatures(nn.Module):
    """Sines, then cosines, of 2 pi W value with fixed W ~ N(0, std^2) (Tancik et al. 2020, eq. 5): [B] -> [B, size]."""

    def __init__(self, size: int, std: float) -> None:
        super().__init__()
        self.frequency: Tensor
        self.register_buffer("frequency", torch.randn(size // 2) * std)  # fixed, but saved with the weights

    def forward(self, value: Tensor) -> Tensor:
        phase = 2 * math.pi * value.float()[:, None] * self.frequency.float()
        return torch.cat([phase.sin(), phase.cos()], dim=1)


class Embedding(nn.Module):
    """What every block is told: the noise level and the configuration code, [B] and [B, K] -> [B, size]."""

    def __init__(self, time: Sinusoidal | Fourier, width: int, code_bits: int, noisy: bool) -> None:
        super().__init__()
        self.time = time
        self.features = width if time.size is None else time.size
        hidden = 4 * width if time.mlp is None else time.mlp
        self.size = (hidden or self.features) if noisy or code_bits else 0
        self.fourier = FourierFeatures(self.features, time.std) if noisy and isinstance(time, Fourier) else None
        self.level = _mlp(self.features, self.size) if noisy and hidden else None
        self.code = _mlp(code_bits, self.size) if code_bits else None
        self.noisy = noisy

    def forward(self, log_snr: Tensor | None, code: Tensor | None) -> Tensor | None:
        parts: list[Tensor] = []
        if self.noisy:
            if log_snr is None:
                raise ValueError("this network is told the noise level: give it log_snr")
            value = log_snr.float().clamp(-LOG_SNR_LIMIT, LOG_SNR_LIMIT)
            value = (value if self.time.of == "log_snr" else value.sigmoid()) * self.time.scale
            features = sinusoids(value, self.features) if self.fourier is None else self.fourier(value)
            parts.append(features if self.level is None else self.level(features))
        if self.code is not None:
            if code is None:
                raise ValueError("this network is told a configuration: give it condition.code")
            parts.append(self.code(code.float()))
        return F.silu(sum(parts[1:], parts[0])) if parts else None  # every block would start with this SiLU


def _mlp(ins: int, outs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(ins, outs), nn.SiLU(), nn.Linear(outs, outs))
