"""Structural similarity as a loss: structure, which a mean absolute error does not count."""

import torch
import torch.nn.functional as F
from torch import Tensor

from voxlate.base.similarity import RADIUS, SIGMA, ssim_map

# windows overlap by 8 of 11 pixels, so every third is enough; network units span 2
STRIDE = 3
RANGE = 2.0


def dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    """1 − mean SSIM of each item's slices, [B], of images [B, C, D, H, W] in [-1, 1], at least 11 × 11."""
    items = len(a)
    a, b = (x.float().transpose(1, 2).flatten(0, 2).unsqueeze(1) + RANGE / 2 for x in (a, b))
    with torch.autocast(
        a.device.type, enabled=False
    ):  # variances are small differences: bfloat16 would lose them
        return 1 - ssim_map(a, b, RANGE, _window_mean).reshape(items, -1).mean(1)


def _window_mean(x: Tensor) -> Tensor:
    """Gaussian-weighted means of [N, 1, H, W], inside the image only, at every third row and column."""
    place = torch.arange(-RADIUS, RADIUS + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-(place**2) / (2 * SIGMA**2))
    kernel = (weights / weights.sum()).view(1, 1, -1)
    return F.conv2d(
        F.conv2d(x, kernel.unsqueeze(-1), stride=(STRIDE, 1)),
        kernel.unsqueeze(-2),
        stride=(1, STRIDE),
    )
