"""A small network that predicts, from what is seen at a voxel, how far truth lies below and above an image."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float32]

HIDDEN = 48
STEPS, BATCH, RATE = 800, 2048, 4e-3
AT_ONCE = 1 << 18  # voxels that are predicted at a time
NARROWEST = 1e-3  # of the network's range of 2: no interval is narrower before it is scaled


@dataclass(frozen=True)
class Widths:
    """The network, and what its features and errors are divided by."""

    net: nn.Sequential
    centre: Tensor
    spread: Tensor
    unit: Tensor

    def predict(self, features: Array) -> tuple[Array, Array]:
        """How far below and above an image a voxel's truth lies, in network units; features [..., F]."""
        flat = torch.from_numpy(np.ascontiguousarray(features)).flatten(0, -2)
        with torch.inference_mode():
            found = torch.cat([self._widths(part) for part in flat.split(AT_ONCE)])
        below, above = found.T.reshape(2, *features.shape[:-1]).numpy()
        return below, above

    def _widths(self, features: Tensor) -> Tensor:
        return F.softplus(self.net((features - self.centre) / self.spread)) * self.unit + NARROWEST

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """All of it, by names that begin with a prefix."""
        own = {"centre": self.centre, "spread": self.spread, "unit": self.unit}
        return {f"{prefix}.{name}": one.contiguous() for name, one in {**own, **self.net.state_dict()}.items()}


def widths_from(tensors: Mapping[str, Tensor], prefix: str) -> Widths:
    """What `tensors` gave."""
    own = {name.removeprefix(f"{prefix}."): one for name, one in tensors.items() if name.startswith(f"{prefix}.")}
    centre, spread, unit = (own.pop(name) for name in ("centre", "spread", "unit"))
    net = _network(len(centre))
    net.load_state_dict(own)
    return Widths(net, centre, spread, unit)


def fit_widths(features: Array, errors: Array, weights: Array, alpha: float, seed: int = 0) -> Widths:
    """Learn the quantiles alpha / 2 and 1 - alpha / 2 of errors (truth less image), by their pinball loss.

    features [N, F], errors [N], weights [N]: how much a voxel counts. Quantile regression: Koenker and Bassett 1978; as
    the shape of conformal intervals: Romano, Patterson and Candès 2019.
    """
    x, e, w = (torch.from_numpy(np.ascontiguousarray(one, np.float32)) for one in (features, errors, weights))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = Widths(_network(x.shape[1]), x.mean(0), x.std(0).clamp_min(1e-4), e.abs().mean().clamp_min(1e-4))
    optimiser = torch.optim.Adam(widths.net.parameters(), RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    drawn = torch.multinomial(w, STEPS * BATCH, replacement=True, generator=generator) if len(w) < 1 << 24 else None
    for step in range(STEPS):
        if drawn is None:  # more than multinomial takes
            chosen = torch.randint(len(e), (BATCH,), generator=generator)
        else:
            chosen = drawn[step * BATCH : (step + 1) * BATCH]
        below, above = widths._widths(x[chosen]).T
        outside = F.relu(-below - e[chosen]) + F.relu(e[chosen] - above)
        loss = (
            alpha / 2 * (below + above) + outside
        ) / widths.unit  # the interval score (Winkler 1972), times alpha / 2
        each = loss if drawn is not None else loss * w[chosen] / w.mean()
        optimiser.zero_grad()
        each.mean().backward()
        optimiser.step()
        falling.step()
    widths.net.requires_grad_(False)
    return widths


def _network(features: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2)
    )
