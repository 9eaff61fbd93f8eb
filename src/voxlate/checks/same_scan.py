"""Whether two scans show the same patient's body in the same state, whatever was done to one of them.

Noise, mirroring, turning by 90° in the plane, shifts, crops, resampling, windows and gamma are seen through: a scan is
reduced to ranks of its intensities inside the body on a coarse grid, of which slow changes are removed. Its signature is
the magnitude of their Fourier transform, which no shift changes, averaged over mirrored frequencies and measured
against frequencies of the same length. All pairs are compared by their signatures, and the few similar ones by the
correlation of their ranks over all shifts and poses, where both bodies are. Limits are in limits.toml.
"""

import base64
import itertools

import numpy as np
from numpy.linalg import norm
from numpy.typing import NDArray
from scipy import fft, ndimage

from voxlate.base.array_types import AnyArray, Bool, Float32, Float64
from voxlate.scans.images.mask import Spacing
from voxlate.scans.images.matching import block_means

Field = Float32
Signature = NDArray[np.int8]

# Voxels of a volume's field, and of a single slice's: pictures of 96 pixels, of which 1 mm is assumed, show little more
# than an outline on voxels of 4 mm, which other heads have too.
COARSE_MM, FLAT_MM = 6.0, 2.0
SIDE, FLAT_SIDE = 48, 96  # of the grids of their Fourier transforms: larger bodies are folded
LONGEST, FLAT_LONGEST = 12, 20  # frequencies in periods of that grid
SHORTEST = 2
SLOW_MM, FLAT_SLOW_MM = 20.0, 10.0
LEAST_INSIDE, FLAT_LEAST_INSIDE = 200, 800  # voxels of a field: a smaller body shows too little
# Correlation of the signatures of pairs that are compared further: of copies 0.68 at least; those of slices with noise of
# 10 % have less in one of ten.
LEAST, LEAST_FLAT = 0.6, 0.45
OF_SIGNATURES = 0.25  # weight of the signatures' correlation beside that of the fields
STEP = 30.0  # levels of a stored signature for its standard deviation
ROWS = 1000  # of signatures that are compared with all at a time


def field_of(image: AnyArray, mask: Bool, spacing_mm: Spacing) -> Field:
    """The ranks of a scan [D, H, W] inside its body on a coarse grid, 0 outside, without slow changes; [d, h, w]."""
    coarse = COARSE_MM
    slow_mm = SLOW_MM
    least = LEAST_INSIDE
    if image.shape[0] == 1:
        coarse = FLAT_MM
        slow_mm = FLAT_SLOW_MM
        least = FLAT_LEAST_INSIDE
    factors = [max(1, min(n, int(coarse / 2 / mm))) for mm, n in zip(spacing_mm, image.shape)]
    body = mask.astype(np.float32)
    sums, weights = (block_means(part, factors) for part in (image * body, body))
    size_mm = [
        mm * factor if n > 1 else coarse for mm, factor, n in zip(spacing_mm, factors, image.shape)
    ]
    sigma = [0.5 * coarse / mm if n > 1 else 0.0 for mm, n in zip(size_mm, image.shape)]
    zooms = [mm / coarse for mm in size_mm]
    sums, weights = (
        ndimage.zoom(
            ndimage.gaussian_filter(part, sigma),
            zooms,
            order=1,
            mode="grid-constant",
            grid_mode=True,
        )
        for part in (sums, weights)
    )
    inside = weights > 0.5
    field = np.zeros(inside.shape, np.float32)
    if inside.sum() < least:
        return field
    from scipy.stats import rankdata  # takes half a second

    ranks = rankdata(np.round(sums[inside] / weights[inside], 6))
    field[inside] = (ranks - ranks.mean()) / len(ranks)
    slow = [slow_mm / coarse if n > 1 else 0.0 for n in field.shape]
    share = ndimage.gaussian_filter(inside.astype(np.float32), slow)
    field[inside] -= (ndimage.gaussian_filter(field, slow) / np.maximum(share, 1e-3))[inside]
    return field


def signature_of(field: Field) -> Signature:
    """The signature of a field: whitened logarithms of magnitudes of low frequencies; empty where it shows nothing."""
    if not field.any():
        return np.zeros(0, np.int8)
    flat = field.shape[0] == 1
    side, longest = (FLAT_SIDE, FLAT_LONGEST) if flat else (SIDE, LONGEST)
    folded = np.zeros((1 if flat else side, side, side), np.float32)
    np.add.at(folded, np.ix_(*(np.arange(n) % m for n, m in zip(field.shape, folded.shape))), field)
    magnitudes = np.abs(fft.fftn(folded))
    for axis in range(3):
        magnitudes = (magnitudes + np.roll(np.flip(magnitudes, axis), 1, axis)) / 2
    low = magnitudes[tuple(slice(0, min(n, longest + 1)) for n in magnitudes.shape)]
    length = _lengths(low.shape)
    kept = length > 0
    logs = np.log(low[kept] + 0.02 * low[kept].mean())
    shell = np.round(length[kept]).astype(int)
    white = logs - (np.bincount(shell, logs) / np.maximum(np.bincount(shell), 1))[shell]
    levels = STEP * white / max(float(white.std()), 1e-6)
    return np.clip(np.round(levels), -127, 127).astype(np.int8)


def _lengths(shape: tuple[int, ...]) -> Float64:
    """The length of each frequency in periods of the grid; 0 for those that are no part of a signature."""
    length = np.sqrt(sum(k**2 for k in np.indices(shape)))
    return np.where((length >= SHORTEST) & (length <= shape[-1] - 1), length, 0)


def as_text(signature: Signature) -> str:
    """A signature as text in a file."""
    return base64.b64encode(signature.tobytes()).decode()


def from_text(text: str) -> Signature:
    """The signature of a text that `as_text` wrote."""
    return np.frombuffer(base64.b64decode(text), np.int8)


def similar(signatures: Signature, others: Signature, least: float) -> list[tuple[float, int, int]]:
    """The pairs (correlation, row, row of others) of similar signatures [N, K] and [M, K], the most similar first."""
    columns = _unit(others).T
    alike = []
    for first in range(0, len(signatures), ROWS):
        rows = signatures[first : first + ROWS]
        like = np.maximum(
            _unit(rows) @ columns, _unit(rows[:, _quarter_turn(rows.shape[1])]) @ columns
        )
        for row, other in np.argwhere(like >= least):
            alike.append((float(like[row, other]), first + int(row), int(other)))
    return sorted(alike, key=lambda pair: (-pair[0], *pair[1:]))


def _unit(rows: Signature) -> Field:
    values = rows.astype(np.float32)
    return values / np.maximum(norm(values, axis=1, keepdims=True), 1e-6)


def _quarter_turn(count: int) -> NDArray[np.intp]:
    """The order in which the entries of a signature are those of the scan turned by 90° in its plane."""
    for shape in ((LONGEST + 1,) * 3, (1, FLAT_LONGEST + 1, FLAT_LONGEST + 1)):
        kept = _lengths(shape) > 0
        if kept.sum() == count:
            places = np.zeros(shape, np.intp)
            places[kept] = np.arange(count)
            return places.swapaxes(1, 2)[kept]
    return np.arange(count)


def correlation(field: Field, other: Field) -> float:
    """The correlation of two fields where they overlap most alike, over all shifts, mirrored and turned by 90° in the plane.

    0 where less than half of the smaller body overlaps.
    """
    length = max(*field.shape[1:], *other.shape[1:])
    depth = field.shape[0] + other.shape[0] - 1
    shape = [fft.next_fast_len(n, True) for n in (depth, 2 * length, 2 * length)]
    first = fft.rfftn(field, shape)
    both = (1, -1)
    best = 0.0
    laid = other
    place = 0
    for turned in (other, other.swapaxes(1, 2)):
        for flips in itertools.product(both if len(other) > 1 else (1,), both, both):
            posed = turned[:: flips[0], :: flips[1], :: flips[2]]
            products = fft.irfftn(first * np.conj(fft.rfftn(posed, shape)), shape)
            if (most := float(products.max())) > best:
                best = most
                laid = posed
                place = int(products.argmax())
    a, b = np.zeros((2, *shape), np.float32)
    for whole, part in ((a, field), (b, laid)):
        whole[tuple(map(slice, part.shape))] = part
    b = np.roll(b, np.unravel_index(place, shape), (0, 1, 2))
    shared = (a != 0) & (b != 0)
    if 2 * shared.sum() < min(np.count_nonzero(field), np.count_nonzero(other)):
        return 0.0
    a = a[shared]
    b = b[shared]
    return float(a @ b) / max(float(norm(a) * norm(b)), 1e-6)


def likeness(similarity: float, field: Field, other: Field) -> float:
    """How much two scans are one; similarity: the correlation of their signatures."""
    return correlation(field, other) + OF_SIGNATURES * similarity
