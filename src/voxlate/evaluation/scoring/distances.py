"""Distances between the slices of all syntheses and of all truths, pooled over the cases: Fréchet distances of their features.

The texture distance has vectors of a filter bank, whose numbers have another scale and meaning than the FD of the field,
for which the user gives a learned network. Of few images it is too high: its expectation decreases towards the true value as 1/N, at a rate
that depends on the model, so distances of different N do not compare (Chong and Forsyth 2020).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.ndimage import correlate1d

from voxlate.base.array_types import Float32, Float64
from voxlate.evaluation.scoring.metrics import RADIOLOGICAL, ImagePair
from voxlate.scans.cases.case import CANONICAL, reorder_axes

# The filter bank: scales, angles and grey levels, and the half size of its filters in standard deviations.
SCALES = 4
ANGLES = 4
LEVELS = 8
REACH = 4
GREY_STEP = 1 / 256  # amplitudes below one step of an 8 bit picture hardly count

Pictures = Float32
Vectors = Float64


def distance(key: str, pairs: Sequence[tuple[Vectors, Vectors]]) -> dict[str, Any]:
    """The distance of the slices of syntheses to those of their truths by its key, with the number of images; {} of a single slice.

    pairs: the vectors of each case, of its truth and of its synthesis.
    """
    a, b = map(np.concatenate, zip(*pairs))
    if len(a) < 2:
        return {}
    value = frechet(a, b)
    mean = value if math.isfinite(value) else None
    return {key: {"mean": mean, "sd": None, "ci95": None, "n": len(a), "not_finite": 0}}


def slices_of(values: Float32, pair: ImagePair, axes: str = RADIOLOGICAL) -> Float32:
    """Axial slices [N, H, W] in [0, 1] of one image of a pair, by default in radiological orientation.

    values: [D, H, W], mapped to the range. Slices outside the mask are left out.
    """
    grey = np.clip((values - pair.scale.low) / pair.scale.width, 0, 1).astype(np.float32)
    if pair.inside is not None:
        grey = np.where(pair.inside, grey, np.float32(0))[pair.inside.any((1, 2))]
    return np.ascontiguousarray(reorder_axes(grey, CANONICAL, axes))


def frechet(a: Vectors, b: Vectors) -> float:
    """Fréchet distance of two sets of features [N, F] and [M, F] (N and M may be below F).

    |mean_a - mean_b|² + tr(C_a + C_b - 2 (C_a C_b)^½) with unbiased covariances C.
    Too high on average with few images.
    Source: Dowson and Landau 1982; Heusel et al. 2017, eq. 6.
    """
    a, b = (np.asarray(vectors, np.float64) for vectors in (a, b))
    gap = a.mean(0) - b.mean(0)
    root_a = _root(a)
    root_b = _root(b)
    # C_a C_b has the eigenvalues of (R_a R_bᵀ)(R_a R_bᵀ)ᵀ, so the trace of its root is the sum of singular values.
    # Unlike a matrix square root this never meets a negative or complex eigenvalue, and needs no term on the diagonal.
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    traces = np.vdot(root_a, root_a) + np.vdot(root_b, root_b)
    return max(0.0, float(gap @ gap) + float(traces - 2 * cross))


def _root(vectors: Vectors) -> Vectors:
    """A matrix R [min(N, F), F] with RᵀR the unbiased covariance; exact also where the covariance is singular."""
    centred = (vectors - vectors.mean(0)) / np.sqrt(len(vectors) - 1)
    if len(centred) <= centred.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"))


def _filters() -> list[Float64]:
    """A Gaussian of sigma 1 and its two derivatives: exact on constants, ramps and parabolas."""
    x = np.arange(-REACH, REACH + 1, dtype=np.float64)
    smooth = np.exp(-(x**2) / 2)
    smooth = smooth / smooth.sum()
    first = x * smooth / (x**2 * smooth).sum()
    second = (x**2 - (x**2 * smooth).sum()) * smooth
    return [smooth, first, 2 * second / (x**2 * second).sum()]


FILTERS = _filters()


def derivative(picture: Float64, rows: int, columns: int) -> Float64:
    """The derivative of these orders of a picture [H, W] after a Gaussian of sigma 1 pixel; edges are repeated."""
    filtered = correlate1d(picture, FILTERS[rows], 0, mode="nearest")
    return np.asarray(correlate1d(filtered, FILTERS[columns], 1, mode="nearest"))


def responses(picture: Float64) -> list[Float64]:
    """Edges and lines of a picture [H, W] at each angle, by derivatives of first and second order.

    Source of the steering: Freeman and Adelson 1991, table III.
    """
    dx, dy, dxx, dyy, dxy = (
        derivative(picture, *order) for order in ((0, 1), (1, 0), (0, 2), (2, 0), (1, 1))
    )
    steered = []
    for angle in np.pi * np.arange(ANGLES) / ANGLES:
        cos = np.cos(angle)
        sin = np.sin(angle)
        steered.append(cos * dx + sin * dy)
        steered.append(cos * cos * dxx + 2 * cos * sin * dxy + sin * sin * dyy)
    return steered


def _describe(picture: Pictures) -> Vectors:
    """Strength of edges and lines at four scales and angles, and the grey levels of a picture [H, W]: 44 numbers.

    At scales of 1, 2, 4 and 8 pixels the picture is filtered by derivatives of a Gaussian of first order (edges) and
    second order (lines), steered to 0, 45, 90 and 135 degrees. Each of these 32 responses gives log(1 + mean |response|
    / grey step), each scale log(1 + RMS of its gradient / grey step), and 8 triangular grey levels give the root of
    their share. Weights are formulas and not learned.
    """
    image = picture.astype(np.float64)
    centres = np.linspace(0, 1, LEVELS)[:, None, None]
    shares = np.clip(1 - np.abs(image - centres) * (LEVELS - 1), 0, None).mean((1, 2))
    parts = [np.sqrt(shares)]
    for _ in range(SCALES):
        edges = responses(image)
        strengths = [np.abs(response).mean() for response in edges]
        # Edges at 0 and 90 degrees are the gradient.
        slope = np.sqrt((edges[0] ** 2 + edges[ANGLES] ** 2).mean())
        parts.append(np.log1p(np.array([*strengths, slope]) / GREY_STEP))
        image = derivative(image, 0, 0)[::2, ::2]
    return np.concatenate(parts)


def textures(pictures: Pictures) -> Vectors:
    """The vectors [N, 44] of pictures [N, H, W] in [0, 1]."""
    return np.stack([_describe(picture) for picture in pictures])
