"""Volumes longer than memory: overlapping windows of slices, averaged at every call of the denoiser."""

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from voxlate.base.config import setting, settings
from voxlate.base.devices import move_like
from voxlate.base.errors import BadInput
from voxlate.science.diffusion.samplers import Denoise


@settings
class Windows:
    """Windows of slices (axis D) that a volume is denoised in."""

    size: Annotated[int, setting("Number of slices of a window.", ge=1)] = 16
    overlap: Annotated[
        int, setting("Least number of slices that neighbouring windows share.", ge=0)
    ] = 4

    def __post_init__(self) -> None:
        if self.overlap >= self.size:
            raise BadInput(
                f"synth.windows: expected an overlap below the size, found {self.overlap} and {self.size}. Lower it."
            )

    def slices(self, depth: int) -> list[slice]:
        """The windows of a volume, evenly spread: the first begins with it, the last ends with it."""
        left = max(0, depth - self.size)
        gaps = -(-left // (self.size - self.overlap))
        starts = [left * number // max(1, gaps) for number in range(gaps + 1)]
        return [slice(start, min(start + self.size, depth)) for start in starts]


def denoise_windows(
    denoise_for: Callable[[slice], Denoise], depth: int, windows: Windows
) -> Denoise:
    """The denoiser of states [B, C, D, H, W] that averages the x0 of windows where they overlap, at every call.

    denoise_for: the denoiser of some slices. All windows are at the same time t of one state, so every sampler works
    as on the whole volume, and seams cannot appear.
    """
    # of each slice, in how many windows it was up to this one
    counts = torch.zeros(depth, 1, 1)
    parts = []
    for part in windows.slices(depth):
        counts[part] += 1
        parts.append((part, denoise_for(part), counts[part].clone()))

    def _denoise(x: Tensor, t: Tensor) -> Tensor:
        mean = torch.zeros_like(x)
        for part, inner, count in parts:
            # a running mean, so that windows which agree give what they agree on, bit for bit
            change = (inner(x[:, :, part], t) - mean[:, :, part]) / move_like(count, x)
            mean[:, :, part] = mean[:, :, part] + change
        return mean

    return _denoise
