"""What a machine's convolutions reach: the measure for whole networks in the other benchmarks."""

from collections.abc import Callable

import torch
import torch.nn.functional as F


def convolution(dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """One channels-last 128 -> 128 convolution at 256², and its GFLOP."""
    image = torch.randn(1, 128, 256, 256, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(128, 128, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)

    def convolve() -> None:
        with torch.inference_mode():
            F.conv2d(image, weight, padding=1)

    return convolve, 2 * 9 * 128 * 128 * 256 * 256 / 1e9
