"""Feature vectors of pictures for distances between sets of them, by a filter bank without download.

A distance on its vectors is called texture distance, because its numbers have another scale and meaning than the Fréchet
distance (FD) of the field, which an object of the user with a learned network gives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.ndimage import correlate1d

from voxlate.base.array_types import Float32, Float64
from voxlate.base.errors import BadInput

SCALES = 4
ANGLES = 4
LEVELS = 8
GREY_STEP = 1 / 256  # amplitudes below one step of an 8 bit picture hardly count
REACH = 4  # half size of the filters in standard deviations

Pictures = Float32
Vectors = Float64


@dataclass(frozen=True)
class Features:
    """A map from pictures [N, H, W] in [0, 1] to vectors [N, dimensions]; an object with the same attributes serves as well.

    name: with the weights if there are any; kind: whether distances are Fréchet distances of the field, or texture
    distances; resize: how pictures are resized.
    """

    name: str
    kind: Literal["fd", "texture"]
    resize: str
    dimensions: int
    compute: Callable[[Pictures], Vectors]

    def __call__(self, pictures: Pictures) -> Vectors:
        return self.compute(pictures)


def features_for(name: str | Path) -> Features:
    """The features of this name; raises BadInput for all but "texture"."""
    if name != "texture":
        raise BadInput(
            f"features: expected texture, found {name}. Choose it, or pass an object of your own in Python."
        )
    return TEXTURE


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


def _textures(pictures: Pictures) -> Vectors:
    return np.stack([_describe(picture) for picture in pictures])


TEXTURE = Features(
    "texture (built in: Gaussian derivatives at 4 scales and 4 angles, 8 grey levels)",
    "texture",
    "none (each slice at its own pixels)",
    SCALES * (2 * ANGLES + 1) + LEVELS,
    _textures,
)
