"""One level of the biorthogonal 4.4 wavelet (Cohen, Daubechies and Feauveau's 9/7), periodic, as matrix products.

Taps: Cohen et al. 1992, table 6.2, as PyWavelets' bior4.4 gives them; applied as correlations.
"""

import torch
from torch import Tensor

A = 0.03782845550726404
B = -0.023849465019556843
C = -0.11062440441843718
D = 0.37740285561283066
E = 0.8526986790088938
P = -0.06453888262869706
Q = 0.04068941760916406
R = 0.41809227322161724
S = -0.7884856164055829
ANALYSIS_LOW = (A, B, C, D, E, D, C, B, A)
ANALYSIS_HIGH = (0.0, 0.0, P, Q, R, S, R, Q, P)
SYNTHESIS_LOW = (0.0, 0.0, P, -Q, R, -S, R, -Q, P)
SYNTHESIS_HIGH = (-A, B, -C, D, -E, D, -C, B, -A)


def analyse(image: Tensor) -> Tensor:
    """[N, H, W, C] -> [N, H/2, W/2, 4 C]; bands LL, HL (high along H), LH (high along W), HH, each with C channels."""
    items, height, width, channels = image.shape
    rows, columns = (_analysis(size).to(image) for size in (height, width))
    bands = torch.einsum("kh,nhwc,lw->nklc", rows, image, columns)
    bands = bands.view(items, 2, height // 2, 2, width // 2, channels)
    return bands.permute(0, 2, 4, 3, 1, 5).reshape(items, height // 2, width // 2, 4 * channels)


def synthesise(bands: Tensor) -> Tensor:
    """The inverse of `analyse`."""
    items, height, width, channels = bands.shape
    rows, columns = (_synthesis(2 * size).to(bands) for size in (height, width))
    bands = bands.view(items, height, width, 2, 2, channels // 4).permute(0, 4, 1, 3, 2, 5)
    bands = bands.reshape(items, 2 * height, 2 * width, channels // 4)
    return torch.einsum("hk,nklc,wl->nhwc", rows, bands, columns)


def _analysis(size: int) -> Tensor:
    """[size, size]: the low band's rows, then the high band's; band[k] = sum of taps[m] · x[2k + m − 4]."""
    matrix = torch.zeros(size, size, dtype=torch.float64)
    half = torch.arange(size // 2)
    for tap, (low, high) in enumerate(zip(ANALYSIS_LOW, ANALYSIS_HIGH)):
        column = (2 * half + tap - 4) % size
        matrix.index_put_((half, column), torch.tensor(low, dtype=torch.float64), accumulate=True)
        matrix.index_put_(
            (half + size // 2, column), torch.tensor(high, dtype=torch.float64), accumulate=True
        )
    return matrix.float()


def _synthesis(size: int) -> Tensor:
    """[size, size]: x[n] = sum over m, n + m odd, of taps[m] · band[(n + m − 5)/2], over both bands."""
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for tap, (low, high) in enumerate(zip(SYNTHESIS_LOW, SYNTHESIS_HIGH)):
        row = torch.arange((tap + 1) % 2, size, 2)
        column = (row + tap - 5) // 2 % (size // 2)
        matrix.index_put_((row, column), torch.tensor(low, dtype=torch.float64), accumulate=True)
        matrix.index_put_(
            (row, column + size // 2), torch.tensor(high, dtype=torch.float64), accumulate=True
        )
    return matrix.float()
