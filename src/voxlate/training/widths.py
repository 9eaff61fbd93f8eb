"""The small networks that predict the widths of intervals from the features of a voxel."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.arrays import Float32
from voxlate.base.records import Shape
from voxlate.checks.patch_features import NARROWEST, VOXELS_OF_WIDTHS

Array = Float32

LEAST_DIVISOR = 1e-4  # divisor of features and errors
LARGEST = 1e4  # size of a value: networks with such weights predict finite values
LOWEST = {
    "spread": LEAST_DIVISOR / 2,
    "unit": LEAST_DIVISOR / 2,
    "least": 0.0,
}  # of the values of these tensors


@dataclass(frozen=True)
class WidthSettings:
    """The training of a network of widths: its hidden layers, outputs and steps; least: is added to each width."""

    hidden: tuple[int, ...]
    outputs: int
    steps: int
    least: float


SETTINGS: dict[str, WidthSettings] = {
    "learned": WidthSettings((48, 48), outputs=2, steps=1600, least=NARROWEST),
    "difficulty": WidthSettings((32,), outputs=1, steps=800, least=0.02),
}


class Widths(nn.Sequential):
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

    def predict(self, features: Array) -> Array:
        """How far the truth may be below and above the image, [2, …] in network units; features: [..., F]."""
        flat = torch.from_numpy(features).flatten(0, -2)
        with torch.inference_mode():
            widths = torch.cat([self(part) for part in flat.split(VOXELS_OF_WIDTHS)])
        return widths.expand(-1, 2).T.reshape(2, *features.shape[:-1]).numpy()


def widths_shapes(method: str, features: int) -> dict[str, Shape]:
    """The shapes of the tensors of a network of widths with so many features."""
    with torch.device("meta"):
        tensors = Widths(method, features).state_dict()
    return {
        name: Shape(tensor.shape, low=LOWEST.get(name, -LARGEST), high=LARGEST)
        for name, tensor in tensors.items()
    }


def read_widths(method: str, tensors: Mapping[str, Tensor]) -> Widths:
    """The network with these tensors, which are on the CPU."""
    widths = Widths(method, len(tensors["centre"]))
    widths.load_state_dict(tensors)
    return widths.requires_grad_(False)
