"""Models of random weights and a scan, small enough to export in a test."""

from typing import Any

import numpy as np
import torch

from stand_ins import model_of, recipe_of
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.model import Model

NET = {
    "kind": "unet",
    "width": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "groups": 4,
    "middle_attention": False,
    "zero_init": False,
}
SHALLOW = {**NET, "multipliers": [1]}  # a graph holds such a network once for each step
WINDOW = {"kind": "window", "low": 0, "high": 1000}
PERCENTILE = {"kind": "percentile", "floor": 0.0}
RESIDUAL = {
    "net": SHALLOW,
    "task": {"kind": "residual", "predictor": "mean"},
    "stages": [{"name": "mean", "method": {"kind": "regression"}, "net": SHALLOW, "train": {}}],
}
KINDS: dict[str, dict[str, Any]] = {
    "slices, their neighbours and the mirror image": {
        "data": {"stack": 1},
        "method": {"kind": "regression", "leak": 0.1},
        "synth": {"mirror": True},
    },
    "three planes": {"data": {"planes": "all"}},
    "a flow from the mean": {
        **RESIDUAL,
        "method": {"kind": "flow"},
        "synth": {"steps": 1},
    },
    "halfway from the mean to a sample": {
        **RESIDUAL,
        "method": {"kind": "flow"},
        "synth": {"steps": 1, "sharpness": 0.5},
    },
    "a diffusion of the residual, with noise at each step": {
        **RESIDUAL,
        "method": {"kind": "diffusion"},
        "synth": {"sampler": "ddim", "steps": 2, "eta": 1.0, "samples": 2},
    },
    "a completion": {
        "data": {"source": ["t1", "t2"], "target": ["t1", "t2"]},
        "task": {"kind": "complete"},
    },
    "a latent diffusion": {
        "net": SHALLOW,
        "method": {"kind": "diffusion"},
        "task": {"kind": "latent"},
        "stages": [
            {
                "name": "autoencoder",
                "method": {"kind": "autoencoding"},
                "net": {"kind": "kl_autoencoder", "width": 8, "groups": 4},
                "train": {},
            }
        ],
        "synth": {"sampler": "ddim", "steps": 1, "windows": {"size": 4, "overlap": 2}},
    },
    "volumes": {
        "data": {"patch": [4, 16, 16]},
        "net": {**NET, "volumetric": True},
    },
}


def tiny_model(kind: str) -> Model:
    """A model of random weights."""
    stated = {"net": NET, **KINDS[kind]}
    data = {"source": ["t1"], "target": ["t2"], "patch": [1, 24, 20], **stated.pop("data", {})}
    recipe = recipe_of(data, {"t1": PERCENTILE, "t2": WINDOW}, title=kind, **stated)
    torch.manual_seed(0)
    method = recipe.build().eval()
    scales = {name: [0.0, 1000.0] for name in data["target"]}
    units = {"t1": "a.u.", "t2": "a.u."}
    model = model_of(method, recipe, units, target_scales=scales, weights_hash="0" * 16)
    return model.with_options(precision="float32")


def head(axes: str = "RAS") -> Volume:
    """A bright ball with texture in air, 22 x 26 pixels of 8 mm."""
    z, y, x = np.mgrid[:7, :26, :22]
    ball = (z - 3) ** 2 / 16 + (y - 13) ** 2 / 100 + (x - 11) ** 2 / 70 < 1
    texture = np.random.default_rng(0).normal(600, 100, ball.shape)
    data = np.where(ball, texture, 0)[None].astype(np.float32)
    signs = [1.0 if letter in "RAS" else -1.0 for letter in axes]
    return Volume(data, np.diag([*(8 * np.array(signs)), 1.0]), "a.u.", "t1")
