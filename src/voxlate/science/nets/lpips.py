"""LPIPS, the learned perceptual distance of two pictures (v0.1, AlexNet), as a score.

The weights are the user's: the package contains none.
"""

import hashlib
from dataclasses import dataclass
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


def alexnet() -> nn.Sequential:
    """The convolutions of AlexNet, numbered as in torchvision. Source: Krizhevsky et al. 2012."""
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    )


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of a weights file: those of `alexnet`, and the weights of each layer's channels."""
    net = alexnet()
    named = {f"features.{name}": tuple(value.shape) for name, value in net.state_dict().items()}
    widths = [layer.out_channels for layer in net if isinstance(layer, nn.Conv2d)]
    return named | {f"lin{number}": (1, width, 1, 1) for number, width in enumerate(widths)}


@dataclass(frozen=True, eq=False)
class Lpips:
    """The weighted squared distance of two pictures' unit features: mean over pixels, sum over layers.

    net: its ReLUs give the features; heads: the weight of each of their channels, [C].
    Source: Zhang et al. 2018 (CVPR), eq. 1.
    """

    net: nn.Sequential
    heads: tuple[Tensor, ...]
    name: str

    @torch.no_grad()
    def __call__(self, a: Pictures, b: Pictures) -> Float64:
        """Distances [N] of grey pictures [N, H, W] in [0, 1]; grey is repeated to three channels in [-1, 1].

        Raises BadInput where the pictures are smaller than SMALLEST.
        """
        distances = [np.zeros(0)]
        for start in range(0, len(a), BATCH):
            part = slice(start, start + BATCH)
            colours = [
                torch.from_numpy(np.ascontiguousarray(picture[part])).float()[:, None] * 2 - 1
                for picture in (a, b)
            ]
            left, right = (picture.expand(-1, 3, -1, -1) for picture in colours)
            distances.append(self.layers(left, right).sum(1).cpu().double().numpy())
        return np.concatenate(distances)

    def layers(self, a: Tensor, b: Tensor) -> Tensor:
        """The share of each layer [N, 5] in the distance of colour pictures [N, 3, H, W] in [-1, 1]."""
        height, width = a.shape[-2:]
        if min(height, width) < SMALLEST:
            raise BadInput(
                f"LPIPS: expected slices of at least {SMALLEST}×{SMALLEST} pixels, found {width}×{height}. Do without LPIPS."
            )
        device = self.heads[0].device
        shift, scale = (
            torch.tensor(values, device=device, dtype=a.dtype).view(1, 3, 1, 1)
            for values in (SHIFT, SCALE)
        )
        x, y = ((picture.to(device) - shift) / scale for picture in (a, b))
        shares: list[Tensor] = []
        for layer in self.net:
            x = layer(x)
            y = layer(y)
            if isinstance(layer, nn.ReLU):
                apart = (_unit(x) - _unit(y)).square()
                shares.append(
                    (apart * self.heads[len(shares)].view(1, -1, 1, 1)).sum(1).mean((1, 2))
                )
        return torch.stack(shares, 1)


def _unit(features: Tensor) -> Tensor:
    """Of length 1 along the channels."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + TINY)


def load_lpips(path: Path | str) -> Lpips:
    """LPIPS with the weights of a safetensors file: features.{0,3,6,8,10}.{weight,bias} and lin0 to lin4.

    On CUDA if there is one. Raises BadInput where the file is absent, no safetensors, or has other names or shapes.
    """
    try:
        state = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise BadInput(
            f"{path}: expected LPIPS weights (AlexNet v0.1) as a safetensors file, found none that can be read ({error}). Check the path, or convert the published files as docs/guides/importing.md shows."
        ) from error
    wanted = shapes()
    for name, shape in wanted.items():
        if name not in state or tuple(state[name].shape) != shape:
            raise BadInput(
                f"{path}: expected {name} of shape {'×'.join(map(str, shape))} (LPIPS v0.1, AlexNet), found none. Join AlexNet and the heads of LPIPS as docs/guides/importing.md shows."
            )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kept = {name: state[name].float().to(device) for name in wanted}
    digest = hashlib.sha256(
        b"".join(kept[name].cpu().numpy().tobytes() for name in sorted(kept))
    ).hexdigest()[:12]
    net = alexnet().to(device).requires_grad_(False)
    net.load_state_dict(
        {name.removeprefix("features."): kept[name] for name in kept if name.startswith("features")}
    )
    heads = tuple(kept[name].flatten() for name in kept if name.startswith("lin"))
    return Lpips(net, heads, f"AlexNet v0.1 (weights {digest})")
