"""Vision transformers of the user's, in a folder as `transformers` writes it, for scores and for losses.

The package contains no weights. Nothing is unpickled: safetensors only.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from voxlate.base.errors import BadInput
from voxlate.science.nets.blocks import exact, to_slices

VIT = "google/vit-base-patch16-224-in21k"  # ViT-B/16 trained on ImageNet-21k
CONFIG = "config.json"
DEPTHS = (0.25, 0.5, 0.75, 1)  # of the layers that are compared where none are named


def is_vit(path: str) -> bool:
    """Whether a folder has a file of settings as `transformers` writes it."""
    return (Path(path) / CONFIG).is_file()


def load_vit(where: str) -> Any:
    """A `transformers.ViTModel` in evaluation, float32, from a folder or the hub, without its pooling layer.

    Raises BadInput where transformers is not installed, or where files are absent, of another kind, or lack weights.
    """
    try:
        from transformers import ViTModel
        from transformers.utils import logging
    except ImportError as error:
        raise BadInput(
            "features: expected the package transformers for a ViT, found none. Install it with pip install '.[features]', or do without a ViT."
        ) from error
    logging.disable_progress_bar()  # it would break our own progress bar
    verbosity = logging.get_verbosity()
    # The pooling layer of the published file is not needed.
    logging.set_verbosity_error()
    try:
        kind = "vit"
        if Path(where).is_dir():
            kind = json.loads((Path(where) / CONFIG).read_text("utf-8"))["model_type"]
        if kind != "vit":
            raise _no_vit(where, f"a model of type {kind!r}")
        model, info = ViTModel.from_pretrained(
            where, add_pooling_layer=False, use_safetensors=True, output_loading_info=True
        )
    except BadInput:
        raise
    except Exception as error:  # the loader raises a dozen types, all due to the files
        raise _no_vit(where, f"none ({type(error).__name__})") from error
    finally:
        logging.set_verbosity(verbosity)
    if info["missing_keys"]:
        raise _no_vit(where, f"weights without {min(info['missing_keys'])}")
    return model.eval().float()


def _no_vit(where: str, found: str) -> BadInput:
    place = "" if Path(where).is_dir() else " there or in the local cache"
    return BadInput(
        f"{where}: expected a ViT's config.json and model.safetensors{place}, found {found}. Download {VIT} and pass its folder, or do without a ViT."
    )


_loaded = functools.cache(load_vit)  # a training checks it before its first step


class VitFeatures:
    """The tokens that a frozen ViT gives of the slices of images, after some of its layers."""

    def __init__(self, folder: str, layers: Sequence[str], device: torch.device):
        """layers: their numbers from 1; none: those after each quarter of the depth.

        Raises BadInput where `load_vit` does, or where there is no layer of such a number.
        """
        self.model = _loaded(folder).requires_grad_(False).to(device)
        self.patch = int(self.model.config.patch_size)
        depth = int(self.model.config.num_hidden_layers)
        numbers = [f"{number}" for number in range(1, depth + 1)]
        if unknown := [name for name in layers if name not in numbers]:
            raise BadInput(
                f"method.features.layers: expected numbers from 1 to {depth} of the layers of {folder}, found '{unknown[0]}'. Choose some of these."
            )
        quarters = [max(1, round(part * depth)) for part in DEPTHS]
        self.layers = [int(name) for name in layers] or quarters

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Tokens [B*D, 1 + patches, F] of each layer, float32, of images [B, 1, D, H, W] in [-1, 1].

        Grey is repeated to three channels; sizes become the nearest multiples of the patch.
        """
        with exact(image.device):
            slices = to_slices(image.float())
            sides = [max(1, round(side / self.patch)) * self.patch for side in slices.shape[-2:]]
            pictures = functional.interpolate(slices, sides, mode="bilinear", antialias=True)
            found = self.model(
                pictures.expand(-1, 3, -1, -1),
                output_hidden_states=True,
                interpolate_pos_encoding=True,
            )
        return [found.hidden_states[layer] for layer in self.layers]
