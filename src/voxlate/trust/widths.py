"""Small networks that predict, from what is seen at a voxel, how far truth lies from an image."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from voxlate.records import Shape

Array = NDArray[np.float32]
Learned = Literal["learned", "difficulty"]

BATCH, RATE = 2048, 4e-3
AT_ONCE = 1 << 18  # voxels that are predicted at a time
LEAST = 1e-4  # that features and errors are divided by
LARGEST = 1e4  # of a weight: what a network of such weights predicts is finite
NARROWEST = 1e-3  # of the network's range of 2: no interval is narrower before it is scaled


@dataclass(frozen=True)
class Lesson:
    """How a network learns: its hidden layers, outputs and steps, and what is added to what it gives."""

    hidden: tuple[int, ...]
    outputs: int
    steps: int
    least: float


LESSONS: dict[Learned, Lesson] = {
    "learned": Lesson((48, 48), outputs=2, steps=800, least=NARROWEST),
    "difficulty": Lesson((32,), outputs=1, steps=800, least=0.02),
}


@dataclass(frozen=True)
class Widths:
    """The network, what its features and errors are divided by, and what is added to each width."""

    net: nn.Sequential
    centre: Tensor
    spread: Tensor
    unit: Tensor
    least: Tensor

    def predict(self, features: Array) -> tuple[Array, Array]:
        """How far below and above an image a voxel's truth lies, in network units; features [..., F]."""
        flat = torch.from_numpy(np.ascontiguousarray(features)).flatten(0, -2)
        with torch.inference_mode():
            found = torch.cat([self._widths(part) for part in flat.split(AT_ONCE)]).expand(-1, 2)
        below, above = found.T.reshape(2, *features.shape[:-1]).numpy()
        return below, above

    def _widths(self, features: Tensor) -> Tensor:
        return F.softplus(self.net((features - self.centre) / self.spread)) * self.unit + self.least

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """All of it, by names that begin with a prefix."""
        own = {"centre": self.centre, "spread": self.spread, "unit": self.unit, "least": self.least}
        return {f"{prefix}.{name}": one.contiguous() for name, one in {**own, **self.net.state_dict()}.items()}


def widths_shapes(way: Learned, features: int) -> dict[str, Shape]:
    """What the tensors of a network of distances are, of so many features."""
    sizes = [features, *LESSONS[way].hidden, LESSONS[way].outputs]
    layers = {
        f"{2 * number}.{name}": Shape(lengths, low=-LARGEST, high=LARGEST)
        for number, (given, made) in enumerate(pairwise(sizes))
        for name, lengths in (("weight", (made, given)), ("bias", (made,)))
    }
    own = {"centre": Shape((features,), low=-(LARGEST**2), high=LARGEST**2), "least": Shape((), low=0, high=1)}
    divisors = {
        name: Shape(one, low=LEAST / 2, high=LARGEST**2) for name, one in (("spread", (features,)), ("unit", ()))
    }
    return {**layers, **own, **divisors}


def widths_from(tensors: Mapping[str, Tensor], prefix: str) -> Widths:
    """What `tensors` gave."""
    own = {name.removeprefix(f"{prefix}."): one for name, one in tensors.items() if name.startswith(f"{prefix}.")}
    centre, spread, unit, least = (own.pop(name) for name in ("centre", "spread", "unit", "least"))
    net = _network([len(centre), *(len(one) for name, one in sorted(own.items()) if name.endswith("bias"))])
    net.load_state_dict(own)
    return Widths(net, centre, spread, unit, least)


def fit_widths(way: Learned, features: Array, errors: Array, weights: Array, alpha: float, seed: int = 0) -> Widths:
    """Learn from errors (truth less image) their quantiles alpha / 2 and 1 - alpha / 2, or their mean size.

    features [N, F], errors [N], weights [N]: how much a voxel counts. Quantile regression, `learned`: Koenker and
    Bassett 1978; as the shape of conformal intervals: Romano, Patterson and Candès 2019. The mean size, `difficulty`,
    on both sides: Lei et al. 2018, sec. 5.2 (locally weighted conformal inference).
    """
    lesson = LESSONS[way]
    x, e, w = (torch.from_numpy(np.ascontiguousarray(one, np.float32)) for one in (features, errors, weights))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _network([x.shape[1], *lesson.hidden, lesson.outputs])
    scales = x.mean(0), x.std(0).clamp_min(LEAST), e.abs().mean().clamp_min(LEAST)
    widths = Widths(net, *scales, torch.tensor(lesson.least))
    optimiser = torch.optim.Adam(net.parameters(), RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, lesson.steps)
    for chosen in _drawn(w, lesson.steps, seed):
        found, error = widths._widths(x[chosen]), e[chosen]
        size = error.abs() + lesson.least
        loss = _interval_score(found, error, alpha) if way == "learned" else (found[:, 0] - size) ** 2 / widths.unit
        optimiser.zero_grad()
        (loss / widths.unit).mean().backward()
        optimiser.step()
        falling.step()
    net.requires_grad_(False)
    return widths


def _interval_score(widths: Tensor, error: Tensor, alpha: float) -> Tensor:
    """Of intervals with ends `widths` [N, 2] below and above (Winkler 1972), times alpha / 2: both pinball losses."""
    below, above = widths.T
    return alpha / 2 * (below + above) + F.relu(-below - error) + F.relu(error - above)


def _drawn(weights: Tensor, steps: int, seed: int) -> Tensor:
    """Places [steps, BATCH], drawn by weight."""
    ends = weights.double().cumsum(0)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(steps, BATCH, generator=generator, dtype=torch.float64) * ends[-1]
    return torch.searchsorted(ends, drawn, right=True).clamp_max(len(weights) - 1)


def _network(sizes: list[int]) -> nn.Sequential:
    layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.SiLU())]
    return nn.Sequential(*layers[:-1])
