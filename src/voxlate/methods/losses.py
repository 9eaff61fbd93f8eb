"""Structural similarity as a loss: structure, which a mean absolute error does not count."""

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS, SIGMA, STRIDE = 5, 1.5, 3  # windows overlap by 8 of 11 pixels, so every third one says nearly all, for a ninth
K1, K2, RANGE = 0.01, 0.03, 2.0  # network units span 2


def dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    """1 − mean SSIM of each item's slices, [B], of images [B, C, D, H, W] in [-1, 1], at least 11 × 11.

    Source: Wang et al. 2004, eq. 13, with a Gaussian window of 11 pixels, sigma 1.5.
    """
    items = len(a)
    a, b = (x.float().transpose(1, 2).flatten(0, 2).unsqueeze(1) + RANGE / 2 for x in (a, b))
    with torch.autocast(a.device.type, enabled=False):  # variances are small differences: bfloat16 would lose them
        mean_a, mean_b, aa, bb, ab = _window(torch.cat([a, b, a * a, b * b, a * b], dim=1)).unbind(1)
    variances = (aa - mean_a**2).clamp(min=0) + (bb - mean_b**2).clamp(min=0)
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * (ab - mean_a * mean_b) + c2) / (variances + c2)
    return 1 - (luminance * structure).reshape(items, -1).mean(1)


def _window(x: Tensor) -> Tensor:
    """Gaussian-weighted means of [N, C, H, W], inside the image only."""
    place = torch.arange(-RADIUS, RADIUS + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-(place**2) / (2 * SIGMA**2))
    kernel = (weights / weights.sum()).expand(x.shape[1], 1, -1)
    x = F.conv2d(x, kernel.unsqueeze(-1), stride=(STRIDE, 1), groups=x.shape[1])
    return F.conv2d(x, kernel.unsqueeze(-2), stride=(1, STRIDE), groups=x.shape[1])
