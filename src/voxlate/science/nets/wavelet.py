"""One level of the biorthogonal 4.4 wavelet (Cohen, Daubechies and Feauveau's 9/7), periodic, as matrix products.

Both directions are computed in float32 whatever autocast says.
Taps: Cohen et al. 1992, table 6.2, as PyWavelets' bior4.4 gives them; applied as correlations.
"""

import torch
from torch import Tensor

from voxlate.science.nets.blocks import exact

A = 0.03782845550726404
B = -0.023849465019556843
C = -0.11062440441843718
D = 0.37740285561283066
E = 0.8526986790088938
P = -0.06453888262869706
Q = 0.04068941760916406
R = 0.41809227322161724
S = -0.7884856164055829
ANALYSIS = (A, B, C, D, E, D, C, B, A), (0.0, 0.0, P, Q, R, S, R, Q, P)  # low and high band
SYNTHESIS = (P, -Q, R, -S, R, -Q, P, 0.0, 0.0), (-A, B, -C, D, -E, D, -C, B, -A)


def analyse(image: Tensor) -> Tensor:
    """[N, H, W, C] -> [N, H/2, W/2, 4 C]; bands LL, HL (high along H), LH (high along W), HH, each with C channels."""
    items, height, width, channels = image.shape
    rows, columns = (_products(size, ANALYSIS, -4).to(image.device) for size in (height, width))
    with exact(image.device):
        bands = torch.einsum("kh,nhwc,lw->nklc", rows, image.float(), columns)
    bands = bands.view(items, 2, height // 2, 2, width // 2, channels)
    return bands.permute(0, 2, 4, 3, 1, 5).reshape(items, height // 2, width // 2, 4 * channels)


def synthesise(bands: Tensor) -> Tensor:
    """The inverse of `analyse`."""
    items, height, width, channels = bands.shape
    rows, columns = (
        _products(2 * size, SYNTHESIS, -3).T.contiguous().to(bands.device)
        for size in (height, width)
    )
    bands = bands.view(items, height, width, 2, 2, channels // 4).permute(0, 4, 1, 3, 2, 5)
    bands = bands.reshape(items, 2 * height, 2 * width, channels // 4)
    with exact(bands.device):
        return torch.einsum("hk,nklc,wl->nhwc", rows, bands.float(), columns)


def _products(size: int, bands: tuple[tuple[float, ...], ...], first: int) -> Tensor:
    """[size, size]: the low band's rows, then the high band's; band[k] = sum of taps[m] · x[2k + m + first]."""
    matrix = torch.zeros(size, size, dtype=torch.float64)
    place = torch.arange(size // 2)
    for number, taps in enumerate(bands):
        for tap, value in enumerate(taps):
            matrix[place + number * (size // 2), (2 * place + tap + first) % size] += value
    return matrix.float()
