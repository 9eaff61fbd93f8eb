"""Small networks that predict the widths of intervals from the features of a voxel."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.system.arrays import Float32
from voxlate.system.records import Shape

Array = Float32
Learned = Literal["learned", "difficulty"]

BATCH = 2048
LEARNING_RATE = 4e-3
AT_ONCE = 1 << 18  # voxels in one prediction
LEAST = 1e-4  # divisor of features and errors
LARGEST = 1e4  # size of a weight: networks with such weights predict finite values
NARROWEST = 1e-3  # of the network's range of 2: no interval is narrower before it is scaled


@dataclass(frozen=True)
class WidthSettings:
    """The training of a network of widths: its hidden layers, outputs and steps; least: is added to each width."""

    hidden: tuple[int, ...]
    outputs: int
    steps: int
    least: float


SETTINGS: dict[Learned, WidthSettings] = {
    "learned": WidthSettings((48, 48), outputs=2, steps=800, least=NARROWEST),
    "difficulty": WidthSettings((32,), outputs=1, steps=800, least=0.02),
}


@dataclass(frozen=True)
class Widths:
    """A network of widths, the mean and spread of its features, the unit of its outputs, and what is added to them."""

    net: nn.Sequential
    centre: Tensor
    spread: Tensor
    unit: Tensor
    least: Tensor

    def predict(self, features: Array) -> Array:
        """How far the truth may be below and above the image, [2, …] in network units; features: [..., F]."""
        flat = torch.from_numpy(np.ascontiguousarray(features)).flatten(0, -2)
        with torch.inference_mode():
            widths = torch.cat([self.widths(part) for part in flat.split(AT_ONCE)])
        both_sides: Array = widths.expand(-1, 2).T.reshape(2, *features.shape[:-1]).numpy()
        return both_sides

    def widths(self, features: Tensor) -> Tensor:
        """The outputs [N, 1 or 2] for features [N, F]."""
        standardised = (features - self.centre) / self.spread
        return F.softplus(self.net(standardised)) * self.unit + self.least

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """All tensors, by names that begin with a prefix."""
        tensors = {
            "centre": self.centre,
            "spread": self.spread,
            "unit": self.unit,
            "least": self.least,
        }
        tensors |= self.net.state_dict()
        return {f"{prefix}.{name}": tensor.contiguous() for name, tensor in tensors.items()}


def widths_shapes(method: Learned, features: int) -> dict[str, Shape]:
    """The shapes of the tensors of a network of widths with so many features."""
    sizes = [features, *SETTINGS[method].hidden, SETTINGS[method].outputs]
    shapes = dict[str, Shape]()
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        shapes[f"{2 * number}.weight"] = Shape((outputs, inputs), low=-LARGEST, high=LARGEST)
        shapes[f"{2 * number}.bias"] = Shape((outputs,), low=-LARGEST, high=LARGEST)
    shapes["centre"] = Shape((features,), low=-(LARGEST**2), high=LARGEST**2)
    shapes["spread"] = Shape((features,), low=LEAST / 2, high=LARGEST**2)
    shapes["unit"] = Shape((), low=LEAST / 2, high=LARGEST**2)
    shapes["least"] = Shape((), low=0, high=1)
    return shapes


def widths_from(tensors: Mapping[str, Tensor], prefix: str) -> Widths:
    """The network from the tensors of `Widths.tensors`."""
    start = f"{prefix}."
    own = {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }
    centre, spread, unit, least = (own.pop(name) for name in ("centre", "spread", "unit", "least"))
    biases = [tensor for name, tensor in sorted(own.items()) if name.endswith("bias")]
    net = _network([len(centre), *map(len, biases)])
    net.load_state_dict(own)
    return Widths(net, centre, spread, unit, least)


def fit_widths(
    method: Learned,
    features: Array,
    errors: Array,
    weights: Array,
    alpha: float,
    seed: int = 0,
) -> Widths:
    """Learn the quantiles alpha / 2 and 1 - alpha / 2 of errors (truth less image), or their mean size.

    features [N, F], errors [N], weights [N] of voxels in the loss. Quantile regression, `learned`: Koenker and Bassett
    1978; as the shape of conformal intervals: Romano, Patterson and Candès 2019. The mean size, `difficulty`, on both
    sides: Lei et al. 2018, sec. 5.2 (locally weighted conformal inference).
    """
    settings = SETTINGS[method]
    all_features = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    all_errors = torch.from_numpy(np.ascontiguousarray(errors, np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _network([all_features.shape[1], *settings.hidden, settings.outputs])
    spread = all_features.std(0).clamp_min(LEAST)
    unit = all_errors.abs().mean().clamp_min(LEAST)
    model = Widths(net, all_features.mean(0), spread, unit, torch.tensor(settings.least))
    optimiser = torch.optim.Adam(net.parameters(), LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    for chosen in _batches(
        torch.from_numpy(np.ascontiguousarray(weights, np.float32)), settings.steps, seed
    ):
        widths = model.widths(all_features[chosen])
        error = all_errors[chosen]
        if method == "learned":
            loss = _interval_score(widths, error, alpha)
        else:
            size = error.abs() + settings.least
            loss = (widths[:, 0] - size) ** 2 / unit
        optimiser.zero_grad()
        (loss / unit).mean().backward()
        optimiser.step()
        schedule.step()
    net.requires_grad_(False)
    return model


def _interval_score(widths: Tensor, error: Tensor, alpha: float) -> Tensor:
    """The interval score (Winkler 1972) of the widths [N, 2] below and above, times alpha / 2: both pinball losses."""
    below, above = widths.T
    return alpha / 2 * (below + above) + F.relu(-below - error) + F.relu(error - above)


def _batches(weights: Tensor, steps: int, seed: int) -> Tensor:
    """Indices [steps, BATCH] of voxels, sampled with probabilities that are proportional to the weights."""
    ends = weights.double().cumsum(0)
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(steps, BATCH, generator=generator, dtype=torch.float64) * ends[-1]
    return torch.searchsorted(ends, positions, right=True).clamp_max(len(weights) - 1)


def _network(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
