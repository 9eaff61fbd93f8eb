"""The training of the networks that predict the widths of intervals."""

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.array_types import Bool, Float32
from voxlate.synthesis.calibration import LARGEST, LEAST_DIVISOR, SETTINGS, Widths

Array = Float32

BATCH = 2048
LEARNING_RATE = 4e-3
LARGEST_WEIGHT = 100.0  # of a voxel of a small region, relative to other voxels
PRICE_STEP = 0.03  # of a region's log price, for all of its coverage
LOG_PRICES = (-4.0, 5.0)  # a region that the features do not show would raise its price for ever


class _Network(nn.Sequential):
    """A network of widths, the mean and spread of its features, the unit of its outputs, and what is added to them."""

    centre: Tensor
    spread: Tensor
    unit: Tensor
    least: Tensor

    def __init__(self, method: str, features: int):
        settings = SETTINGS[method]
        layers = list[nn.Module]()
        for inputs, outputs in pairwise([features, *settings.hidden, settings.outputs]):
            layers += [nn.Linear(inputs, outputs), nn.SiLU()]
        super().__init__(*layers[:-1])
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("least", torch.tensor(settings.least))

    def forward(self, features: Tensor) -> Tensor:
        """The outputs [N, 1 or 2] for features [N, F]."""
        standardised = (features - self.centre) / self.spread
        return F.softplus(super().forward(standardised)) * self.unit + self.least


def fit_widths(
    method: str,
    features: Array,
    errors: Array,
    weights: Array,
    regions: Bool,
    alpha: float,
    seed: int = 0,
) -> Widths:
    """Learn the quantiles alpha / 2 and 1 - alpha / 2 of errors (truth less image), or the square root of their mean size.

    features [N, F]; errors [N]; weights [N] of voxels; regions [N, R], of which each voxel has one or more. Quantile
    regression, `learned`: Koenker and Bassett 1978; as the shape of conformal intervals: Romano, Patterson and Candès
    2019; here with the least mean width by which every region is covered. Difficulty, `difficulty`, on both sides: the
    mean size (Lei et al. 2018, sec. 5.2, locally weighted conformal inference), of which a root varies less between
    patients.
    """
    settings = SETTINGS[method]
    all_features, all_errors, mass = (
        torch.from_numpy(np.ascontiguousarray(values, np.float32))
        for values in (features, errors, weights / weights.sum())
    )
    of_region = torch.from_numpy(regions).float()
    chances = mass * (of_region / (mass @ of_region).clamp_min(1 / LARGEST_WEIGHT)).sum(1)
    shares = mass / (chances / chances.sum())  # of voxels in the mean, after they are sampled
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _Network(method, all_features.shape[1])
    model.centre = all_features.mean(0)
    spread = all_features.std(0)
    # what never varied, such as the spread over planes in single planes, says nothing about images in which it does
    model.spread = torch.where(spread > LEAST_DIVISOR, spread, torch.tensor(LARGEST))
    model.unit = unit = all_errors.abs().mean().clamp_min(LEAST_DIVISOR)
    optimiser = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    log_prices = torch.zeros(regions.shape[1])
    for chosen in _batches(chances, settings.steps, seed):
        widths = model(all_features[chosen])
        error = all_errors[chosen]
        inside = of_region[chosen]
        share = shares[chosen]
        if method == "learned":
            outside = _outside(widths, error)
            prices = (inside @ log_prices).exp()
            loss = share * (alpha / 2 * widths.sum(1) + prices * outside)
            log_prices += PRICE_STEP * _lacking(outside == 0, inside * share[:, None], alpha)
            log_prices.clamp_(*LOG_PRICES)
        else:
            loss = (widths[:, 0] ** 2 - error.abs()) ** 2
        optimiser.zero_grad()
        (loss / unit).mean().backward()
        optimiser.step()
        schedule.step()
    return Widths({name: tensor.numpy() for name, tensor in model.state_dict().items()})


def _outside(widths: Tensor, error: Tensor) -> Tensor:
    """How far errors [N] are beyond the widths [N, 2] below and above.

    With alpha / 2 of both widths it is the interval score (Winkler 1972), times alpha / 2: both pinball losses.
    """
    below, above = widths.T
    return F.relu(-below - error) + F.relu(error - above)


def _lacking(covered: Tensor, shares: Tensor, alpha: float) -> Tensor:
    """The coverage [R] that regions lack, by their voxels' shares [N, R]; 0 for a region without any.

    It is the gradient by a region's multiplier of the mean width under the condition that the region is covered.
    """
    of_regions = shares.sum(0)
    lacking = 1 - alpha - covered.float() @ shares / of_regions.clamp_min(LEAST_DIVISOR)
    return torch.where(of_regions > 0, lacking, 0)


def _batches(weights: Tensor, steps: int, seed: int) -> Tensor:
    """Indices [steps, BATCH] of voxels, sampled with probabilities that are proportional to the weights."""
    ends = weights.double().cumsum(0)
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(steps, BATCH, generator=generator, dtype=torch.float64) * ends[-1]
    return torch.searchsorted(ends, positions, right=True).clamp_max(len(weights) - 1)
