"""The networks of intervals' widths without torch (evaluation/intervals/widths.py states what they are)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from voxlate.base.arrays import Float32
from voxlate.checks.patch_features import VOXELS_OF_WIDTHS


@dataclass(frozen=True)
class ArrayWidths:
    """A network of widths by the names of its tensors in torch: "0.weight", "0.bias", "2.weight", …, "centre", …"""

    tensors: Mapping[str, np.ndarray]

    def predict(self, features: Float32) -> Float32:
        """How far the truth may be below and above the image, [2, …] in network units; features: [..., F]."""
        flat = features.reshape(-1, features.shape[-1])
        parts = [
            self._part(flat[k : k + VOXELS_OF_WIDTHS])
            for k in range(0, len(flat), VOXELS_OF_WIDTHS)
        ]
        widths = np.concatenate(parts).T
        both = np.broadcast_to(widths, (2, widths.shape[1]))
        return both.reshape(2, *features.shape[:-1])

    def _part(self, features: Float32) -> Float32:
        tensors = self.tensors
        hidden = (features - tensors["centre"]) / tensors["spread"]
        layers = sorted(int(name.split(".")[0]) for name in tensors if name.endswith(".weight"))
        for layer in layers:
            hidden = hidden @ tensors[f"{layer}.weight"].T + tensors[f"{layer}.bias"]
            if layer != layers[-1]:  # SiLU
                hidden = hidden / (1 + np.exp(-hidden))
        positive = np.logaddexp(np.float32(0), hidden)  # softplus
        return np.asarray(positive * tensors["unit"] + tensors["least"], np.float32)
