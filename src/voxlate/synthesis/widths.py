"""The small networks that predict the widths of intervals from the features of a voxel, in NumPy.

evaluation/intervals/width_training.py trains them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from voxlate.base.array_types import Float32
from voxlate.base.records import Shape
from voxlate.synthesis.voxel_features import NARROWEST, VOXELS_OF_WIDTHS

LEAST_DIVISOR = 1e-4  # divisor of features and errors
LARGEST = 1e4  # size of a value: networks with such weights predict finite values
LOWEST = {
    "spread": LEAST_DIVISOR / 2,
    "unit": LEAST_DIVISOR / 2,
    "least": 0.0,
}  # of the values of these arrays


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


@dataclass(frozen=True)
class Widths:
    """A network of widths.

    arrays: by the names that torch gives them: "0.weight" [outputs, inputs], "0.bias", "2.weight", …; `centre` and
    `spread` of the features [F]; `unit` of its outputs, and what is added to them, `least`.
    """

    arrays: Mapping[str, np.ndarray]

    @property
    def features(self) -> int:
        """The number of features of a voxel."""
        return len(self.arrays["centre"])

    def predict(self, features: Float32) -> Float32:
        """How far the truth may be below and above the image, [2, …] in network units; features: [..., F]."""
        flat = features.reshape(-1, features.shape[-1])
        starts = range(0, len(flat), VOXELS_OF_WIDTHS)
        parts = [self._widths(flat[start : start + VOXELS_OF_WIDTHS]) for start in starts]
        widths = np.concatenate(parts).T
        both = np.broadcast_to(widths, (2, widths.shape[1]))
        return both.reshape(2, *features.shape[:-1])

    def _widths(self, features: Float32) -> Float32:
        """The outputs [N, 1 or 2] for features [N, F]."""
        arrays = self.arrays
        hidden = (features - arrays["centre"]) / arrays["spread"]
        layers = sorted(int(name.split(".")[0]) for name in arrays if name.endswith(".weight"))
        for layer in layers:
            hidden = hidden @ arrays[f"{layer}.weight"].T + arrays[f"{layer}.bias"]
            if layer != layers[-1]:
                hidden = hidden / (1 + np.exp(-hidden))  # SiLU
        positive = np.logaddexp(np.float32(0), hidden)  # softplus
        return np.asarray(positive * arrays["unit"] + arrays["least"], np.float32)


def widths_shapes(method: str, features: int) -> dict[str, Shape]:
    """The shapes of the arrays of a network of widths with so many features."""
    settings = SETTINGS[method]
    lengths: dict[str, tuple[int, ...]] = {"centre": (features,), "spread": (features,)}
    lengths |= {"unit": (), "least": ()}
    sizes = (features, *settings.hidden, settings.outputs)
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        layer = 2 * number  # an activation stands between two layers
        lengths |= {f"{layer}.weight": (outputs, inputs), f"{layer}.bias": (outputs,)}
    return {
        name: Shape(shape, low=LOWEST.get(name, -LARGEST), high=LARGEST)
        for name, shape in lengths.items()
    }
