"""Feature vectors of pictures for distances between sets of them: by a ViT, or by a filter bank without download.

A distance on the ViT's vectors is the Fréchet distance (FD) of the field. A distance on the filter bank's vectors is
called texture distance, because its numbers have another scale and meaning.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.ndimage import correlate1d, zoom
from torch import Tensor
from torch.nn import functional

from voxlate.base.arrays import Float32, Float64
from voxlate.base.errors import BadInput
from voxlate.science.nets import vit

SIDE = 256  # side of the paper's pictures, which have 16 x 16 patches
BATCH = 16
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
    """The features called "texture" (built in), "vit" (from the hub or its cache), or those of a ViT in a folder."""
    if name == "texture":
        return TEXTURE
    if name == "vit":
        return load_vit(vit.VIT)  # the paper's
    if Path(name).is_dir():
        return load_vit(str(name))
    raise BadInput(
        f"features: expected texture, vit or a folder with a ViT's config.json and model.safetensors, found {name}. Choose one of these."
    )


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


@torch.no_grad()
def class_tokens(model: Any, pictures: Pictures) -> Vectors:
    """The class token of a vision transformer after its last norm, for pictures of 256 x 256 with grey in [0, 1].

    Grey is repeated to three channels without further normalisation. Pictures of another size are resized by cubic
    splines, without keeping the aspect ratio. Source: the TOF-to-CTA paper's Fréchet distance.
    """
    vectors = []
    for start in range(0, len(pictures), BATCH):
        batch = np.stack([_stretch(picture) for picture in pictures[start : start + BATCH]])
        pixels = torch.from_numpy(batch)[:, None].expand(-1, 3, -1, -1).to(model.device)
        vectors.append(model(pixels).last_hidden_state[:, 0].cpu().double())
    return torch.cat(vectors).numpy()


def _stretch(picture: Pictures) -> Pictures:
    """Cubic zoom to SIDE x SIDE, corners staying corners; splines overshoot, so the values are clipped again."""
    if picture.shape == (SIDE, SIDE):
        return picture
    factors = [SIDE / size for size in picture.shape]
    return np.clip(zoom(picture, factors, order=3), 0, 1).astype(np.float32)


def load_vit(where: str) -> Features:
    """A ViT from a folder or the hub (safetensors only), with its position embedding resized linearly to 256 x 256."""
    stored = vit.load_vit(where)
    state = stored.state_dict()
    config = stored.config
    positions = "embeddings.position_embeddings"
    state[positions] = stretch_positions(state[positions], SIDE // int(config.patch_size))
    name = f"ViT {Path(where).name if Path(where).is_dir() else where} (weights {digest(stored)})"
    config.image_size = SIDE
    model = type(stored)(config, add_pooling_layer=False)
    model.load_state_dict(state)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    compute = partial(class_tokens, model.eval().float().to(device))
    return Features(name, "fd", f"{SIDE}×{SIDE} by cubic splines", int(config.hidden_size), compute)


def stretch_positions(positions: Tensor, side: int) -> Tensor:
    """Position embedding [1, 1 + n², F] of the class token and n x n patches for side x side patches.

    Linear, the corners staying corners, as `scipy.ndimage.zoom(order=1)`.
    """
    count = math.isqrt(positions.shape[1] - 1)
    grid = positions[:, 1:].reshape(1, count, count, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, (side, side), mode="bilinear", align_corners=True)
    return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], 1)


def digest(model: torch.nn.Module) -> str:
    """The first 12 hex digits of a SHA-256 of all weights, which does not depend on their names."""
    arrays = [tensor.detach().cpu().contiguous().numpy() for tensor in model.state_dict().values()]
    parts = [hashlib.sha256(array).digest() for array in arrays]
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()[:12]
