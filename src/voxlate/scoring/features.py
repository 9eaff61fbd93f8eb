"""Feature vectors of pictures for distances between sets of them: by a ViT, or by a filter bank without download.

A distance on the ViT's vectors is the Fréchet distance (FD) of the field. A distance on the filter bank's vectors is
called texture distance, because its numbers have another scale and meaning.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from scipy.ndimage import zoom
from torch import Tensor
from torch.nn import functional

from voxlate.system.arrays import Float32, Float64
from voxlate.system.errors import BadInput

VIT = "google/vit-base-patch16-224-in21k"  # ViT-B/16 trained on ImageNet-21k, the paper's
SIDE = 256  # side of the paper's pictures, which have 16 x 16 patches
BATCH = 16
SCALES = 4
ANGLES = 4
LEVELS = 8
GREY_STEP = 1 / 256  # amplitudes below one step of an 8 bit picture hardly count
REACH = 4  # half size of the filters in standard deviations

Pictures = Float32
Vectors = Float64


class Features(Protocol):
    """A map from pictures [N, H, W] in [0, 1] to vectors [N, dimensions]."""

    @property
    def name(self) -> str:
        """The name, with the weights if there are any."""

    @property
    def kind(self) -> Literal["fd", "texture"]:
        """Whether distances are Fréchet distances of the field, or texture distances."""

    @property
    def resize(self) -> str:
        """How pictures are resized."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    def __call__(self, pictures: Pictures) -> Vectors: ...


def features_for(name: str | Path) -> Features:
    """The features called "texture" (built in), "vit" (from the hub or its cache), or those of a ViT in a folder."""
    if name == "texture":
        return Texture()
    if name == "vit":
        return load_vit(VIT)
    if Path(name).is_dir():
        return load_vit(str(name))
    raise BadInput(
        f"features: expected texture, vit or a folder with a ViT's config.json and model.safetensors, found {name}. Choose one of these."
    )


@dataclass(frozen=True)
class Texture:
    """Built-in features: strength of edges and lines at four scales and angles, and the grey levels; 44 numbers.

    At scales of 1, 2, 4 and 8 pixels the picture is filtered by derivatives of a Gaussian of first order (edges) and
    second order (lines), steered to 0, 45, 90 and 135 degrees. Each of these 32 responses gives log(1 + mean |response|
    / grey step), each scale log(1 + RMS of its gradient / grey step), and 8 triangular grey levels give the root of
    their share. Weights are formulas and not learned. Source of the steering: Freeman and Adelson 1991, table III.
    """

    name: str = "texture (built in: Gaussian derivatives at 4 scales and 4 angles, 8 grey levels)"
    kind: Literal["texture"] = "texture"
    resize: str = "none (each slice at its own pixels)"
    dimensions: int = SCALES * (2 * ANGLES + 1) + LEVELS

    @torch.no_grad()
    def __call__(self, pictures: Pictures) -> Vectors:
        vectors = [self._describe(torch.from_numpy(batch)[:, None]) for batch in _batches(pictures)]
        return torch.cat(vectors).double().numpy()

    def _describe(self, image: Tensor) -> Tensor:
        """[N, 1, H, W] -> [N, dimensions]."""
        centres = torch.linspace(0, 1, LEVELS)[:, None, None]
        distances = (image - centres).abs() * (LEVELS - 1)
        shares = (1 - distances).clamp(min=0).mean((2, 3))
        parts = [shares.sqrt()]
        for _ in range(SCALES):
            responses, gradient = _responses(image)
            strength = responses.abs().mean((2, 3))
            slope = gradient.square().sum(1).mean((1, 2)).sqrt()[:, None]
            parts.append(torch.log1p(strength / GREY_STEP))
            parts.append(torch.log1p(slope / GREY_STEP))
            image = _half(image)
        return torch.cat(parts, 1)


def _responses(image: Tensor) -> tuple[Tensor, Tensor]:
    """Edges and lines at all angles [N, 2 * ANGLES, H, W], and the gradient [N, 2, H, W], for sigma = 1 pixel."""
    smooth, first, second = _gaussian_derivatives(image)
    dx = _separable(image, smooth, first)
    dy = _separable(image, first, smooth)
    dxx = _separable(image, smooth, second)
    dyy = _separable(image, second, smooth)
    dxy = _separable(image, first, first)
    steered = []
    for number in range(ANGLES):
        cos = math.cos(math.pi * number / ANGLES)
        sin = math.sin(math.pi * number / ANGLES)
        steered.append(cos * dx + sin * dy)
        steered.append(cos * cos * dxx + 2 * cos * sin * dxy + sin * sin * dyy)
    return torch.cat(steered, 1), torch.cat([dx, dy], 1)


def _gaussian_derivatives(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A Gaussian of sigma 1 and its derivatives as filters: exact on constants, ramps and parabolas."""
    x = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    smooth = torch.exp(-x.square() / 2)
    smooth = smooth / smooth.sum()
    first = x * smooth / (x.square() * smooth).sum()
    second = (x.square() - (x.square() * smooth).sum()) * smooth
    second = 2 * second / (x.square() * second).sum()
    return smooth.to(like), first.to(like), second.to(like)


def _separable(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Correlate [N, 1, H, W] with a filter along the rows and a filter along the columns; edges are repeated."""
    padded = functional.pad(image, (REACH, REACH, REACH, REACH), mode="replicate")
    filtered = functional.conv2d(padded, rows.view(1, 1, -1, 1))
    return functional.conv2d(filtered, columns.view(1, 1, 1, -1))


def _half(image: Tensor) -> Tensor:
    """Every second pixel of the picture after the Gaussian; a single row or column stays."""
    smooth = _gaussian_derivatives(image)[0]
    return _separable(image, smooth, smooth)[..., ::2, ::2]


@dataclass(frozen=True)
class Vit:
    """The class token of a vision transformer after its last norm, for pictures of 256 x 256 with grey in [0, 1].

    Grey is repeated to three channels without further normalisation. Pictures of another size are resized by cubic
    splines, without keeping the aspect ratio. Source: the TOF-to-CTA paper's Fréchet distance.
    """

    model: Any
    name: str
    dimensions: int
    kind: Literal["fd"] = "fd"
    resize: str = f"{SIDE}×{SIDE} by cubic splines"

    @torch.no_grad()
    def __call__(self, pictures: Pictures) -> Vectors:
        vectors = []
        for batch in _batches(pictures):
            pixels = torch.from_numpy(np.stack([_stretch(picture) for picture in batch]))
            pixels = pixels[:, None].expand(-1, 3, -1, -1).to(self.model.device)
            vectors.append(self.model(pixels).last_hidden_state[:, 0].cpu().double())
        return torch.cat(vectors).numpy()


def load_vit(where: str) -> Vit:
    """A ViT from a folder or the hub (safetensors only), with its position embedding resized linearly to 256 x 256."""
    try:
        from transformers import ViTModel
        from transformers.utils import logging
    except ImportError as error:
        raise BadInput(
            "features: expected the package transformers for a ViT, found none. Install it with pip install 'voxlate[features]', or choose texture."
        ) from error
    _check_kind(where)
    logging.disable_progress_bar()  # it would break our own progress bar
    verbosity = logging.get_verbosity()
    # The pooling layer of the published file is not needed.
    logging.set_verbosity_error()
    try:
        stored, info = ViTModel.from_pretrained(
            where,
            add_pooling_layer=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # the loader raises a dozen types, all due to the files
        raise BadInput(_no_vit(where, f"none ({type(error).__name__})")) from error
    finally:
        logging.set_verbosity(verbosity)
    if info["missing_keys"]:
        raise BadInput(_no_vit(where, f"weights without {min(info['missing_keys'])}"))
    state = stored.state_dict()
    config = stored.config
    positions = "embeddings.position_embeddings"
    state[positions] = stretch_positions(state[positions], SIDE // int(config.patch_size))
    name = f"ViT {Path(where).name if Path(where).is_dir() else where} (weights {digest(stored)})"
    config.image_size = SIDE
    model = ViTModel(config, add_pooling_layer=False)
    model.load_state_dict(state)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Vit(model.eval().float().to(device), name, int(config.hidden_size))


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


def _check_kind(where: str) -> None:
    path = Path(where) / "config.json"
    if not Path(where).is_dir():
        return
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(_no_vit(where, "no config.json that can be read")) from error
    if kind != "vit":
        raise BadInput(_no_vit(where, f"a model of type {kind!r}"))


def _no_vit(where: str, found: str) -> str:
    place = "" if Path(where).is_dir() else " there or in the local cache"
    return f"{where}: expected a ViT's config.json and model.safetensors{place}, found {found}. Download {VIT} and pass its folder, or choose texture."


def _batches(pictures: Pictures) -> Iterator[Pictures]:
    whole = np.ascontiguousarray(pictures, np.float32)
    for start in range(0, len(whole), BATCH):
        yield whole[start : start + BATCH]


def _stretch(picture: Pictures) -> Pictures:
    """Cubic zoom to SIDE x SIDE, corners staying corners; splines overshoot, so the values are clipped again."""
    if picture.shape == (SIDE, SIDE):
        return picture
    factors = [SIDE / size for size in picture.shape]
    return np.clip(zoom(picture, factors, order=3), 0, 1).astype(np.float32)
