"""LPIPS, the learned perceptual distance of two pictures (v0.1, AlexNet), as a score.

The weights are the user's: the package contains none.
"""

import hashlib
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from voxlate.base.array_types import Float32, Float64
from voxlate.base.errors import BadInput

SMALLEST = 31  # pixels: the first convolution then gives 7, and the two poolings 3 and 1
BATCH = 8
SHIFT = (-0.030, -0.088, -0.188)  # ImageNet's colours, of values in [-1, 1]: Zhang's ScalingLayer
SCALE = (0.458, 0.448, 0.450)
TINY = 1e-10
Pictures = Float32


class Lpips(nn.Module):
    """The weighted squared distance of two pictures' unit features: mean over pixels, sum over layers.

    features: the convolutions of AlexNet (Krizhevsky et al. 2012), numbered as in torchvision, whose ReLUs give the features; lin0 to
    lin4: the weight of each channel of a ReLU, [1, C, 1, 1]. Source: Zhang et al. 2018 (CVPR), eq. 1.
    """

    name = "AlexNet v0.1"

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
        )
        for number, width in enumerate((64, 192, 384, 256, 256)):
            self.register_buffer(f"lin{number}", torch.ones(1, width, 1, 1))

    @torch.no_grad()
    def forward(self, a: Pictures, b: Pictures) -> Float64:
        """Distances [N] of grey pictures [N, H, W] in [0, 1]; grey is repeated to three channels in [-1, 1].

        Raises BadInput where the pictures are smaller than SMALLEST.
        """
        distances = [np.zeros(0)]
        for start in range(0, len(a), BATCH):
            part = slice(start, start + BATCH)
            left, right = (
                torch.from_numpy(np.ascontiguousarray(picture[part])).float()[:, None] * 2 - 1
                for picture in (a, b)
            )
            colours = (left.expand(-1, 3, -1, -1), right.expand(-1, 3, -1, -1))
            distances.append(self.layers(*colours).sum(1).cpu().double().numpy())
        return np.concatenate(distances)

    def layers(self, a: Tensor, b: Tensor) -> Tensor:
        """The share of each layer [N, 5] in the distance of colour pictures [N, 3, H, W] in [-1, 1]."""
        height, width = a.shape[-2:]
        if min(height, width) < SMALLEST:
            raise BadInput(
                f"LPIPS: expected slices of at least {SMALLEST}×{SMALLEST} pixels, found {width}×{height}. Do without LPIPS."
            )
        device = self.get_buffer("lin0").device
        shift, scale = (
            torch.tensor(values, device=device, dtype=a.dtype).view(1, 3, 1, 1)
            for values in (SHIFT, SCALE)
        )
        x, y = ((picture.to(device) - shift) / scale for picture in (a, b))
        shares: list[Tensor] = []
        for layer in self.features:
            x = layer(x)
            y = layer(y)
            if isinstance(layer, nn.ReLU):
                apart = (_unit(x) - _unit(y)).square()
                weight = self.get_buffer(f"lin{len(shares)}")
                shares.append((apart * weight).sum(1).mean((1, 2)))
        return torch.stack(shares, 1)


def _unit(features: Tensor) -> Tensor:
    """Of length 1 along the channels."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + TINY)


def load_lpips(path: Path | str) -> Lpips:
    """LPIPS with the weights of a safetensors file: features.{0,3,6,8,10}.{weight,bias} and lin0 to lin4.

    On CUDA if there is one. Raises BadInput where the file is absent, no safetensors, or has other names or shapes.
    """
    score = Lpips().requires_grad_(False)
    try:
        state = safetensors.torch.load_file(path)
        score.load_state_dict({key: state[key] for key in score.state_dict() if key in state})
    except (safetensors.SafetensorError, OSError, RuntimeError) as error:
        found = str(error).strip().splitlines()[-1].strip()
        raise BadInput(
            f"{path}: expected LPIPS weights (AlexNet v0.1) as a safetensors file, found none that fit ({found}). Check the path, or join the published files as docs/guides/importing.md shows."
        ) from error
    kept = score.state_dict()
    content = b"".join(kept[name].numpy().tobytes() for name in sorted(kept))
    score.name = f"AlexNet v0.1 (weights {hashlib.sha256(content).hexdigest()[:12]})"
    return score.to("cuda" if torch.cuda.is_available() else "cpu")
