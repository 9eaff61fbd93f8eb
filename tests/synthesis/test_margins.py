"""The margins of whole slices: the mid-plane in the middle, and no more than the mask's box."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from refusals import refuses
from rows import every_row
from stand_ins import model_of
from voxlate.scans.images.grid import Volume
from voxlate.science.diffusion.noise import SynthesisNoise
from voxlate.synthesis import inputs
from voxlate.training import torch_network as network
from voxlate.training.recipe import from_dict

INSIDE = {"inside": True, "strip": True}
NET = {"kind": "unet", "width": 8, "blocks": 1, "groups": 4}
RECIPE = {
    "title": "narrow MRDPM",
    "data": {"source": ["ncct"], "target": ["tmax"], "patch": [1, 64, 64], "centred": True},
    "intensity": {
        "ncct": {"kind": "window", "low": 0, "high": 80},
        "tmax": {"kind": "window", "low": 0, "high": 30},
    },
    "task": {"kind": "residual", "asymmetry": True, "see_base": False, "scale": 2.0, **INSIDE},
    "method": {"kind": "diffusion", "prediction": "x0"},
    "net": {**NET, "multipliers": [1, 2, 2], "head_width": 8, "resampling": "block"},
    "train": {"precision": "float32"},
    "synth": {"steps": 2, "batch": 2},
    "stages": [
        {
            "name": "predictor",
            "task": {"kind": "translate", **INSIDE},
            "method": {"kind": "regression"},
            "net": {"kind": "bran", "width": 4, "stages": 5, "hidden": 4, "tanh": False},
            "train": {"precision": "float32"},
        }
    ],
}


def shaken(net):
    """Weights that are not 0 anywhere; every kernel its own mirror image, so that networks treat left as right."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                module.weight.copy_((module.weight + module.weight.flip(-1)) / 2)
    return net


def model(**synth):
    torch.manual_seed(0)
    recipe = from_dict({**RECIPE, "synth": {**RECIPE["synth"], **synth}}, "here")
    return model_of(shaken(recipe.build().eval()), recipe, {"tmax": "s"})


def head(width, height=56):
    """HU [D, H, W] of an ellipsoid with texture about the middle column; air in the first and last slice."""
    x = np.abs(np.arange(width) - (width - 1) / 2)
    y, z = np.arange(height) - height / 2 + 3, np.arange(5) - 2
    inside = (x / 20) ** 2 + (y[:, None] / 16) ** 2 + (z[:, None, None] / 1.9) ** 2 < 1
    texture = np.random.default_rng(1).normal(40, 20, (5, height, 48))
    middle = (width - 48) // 2
    wide = np.zeros(inside.shape)
    wide[..., middle : middle + 48] = texture
    return np.where(inside, wide, -1000).astype(np.float32)


def scan(data):
    return {"ncct": Volume(data[None], np.diag([3.0, 3.0, 5.0, 1.0]), "HU", "ncct")}


def made(data, of):
    return of.synthesise(scan(data)).volume.data[0]


@pytest.fixture(autouse=True)
def same_noise_for_all_patients(monkeypatch):
    monkeypatch.setattr(inputs, "_voxels_key", lambda scans: "key")


class Turned(SynthesisNoise):
    """The mirror image of every draw."""

    def normal(self, shape):
        return super().normal(shape).flip(-1)


WHOLE, RESIZED = {"kind": "whole"}, {"kind": "resized", "size": [56, 80]}


@every_row("width, slices", [(48, WHOLE), (64, WHOLE), (100, WHOLE), (86, RESIZED)])
def test_the_mirrored_patient_is_drawn_as_the_mirror_image(monkeypatch, width, slices):
    """Narrower than the patch, equal and wider; kernels are symmetric and the noise is mirrored with the patient."""
    drawn, data = model(slices=slices), head(width)
    straight = made(data, drawn)
    monkeypatch.setattr(network, "SynthesisNoise", Turned)
    turned = turned_back(data, drawn)
    assert straight[straight > 0].std() > 0.5
    assert_allclose(turned, straight, atol=0.02)
    shifted = np.roll(turned, 1, axis=-1)  # what a mirror one column aside would give
    assert np.abs(shifted - straight).max() > 1


def turned_back(data, of):
    """The image of the mirrored patient, mirrored."""
    return made(np.ascontiguousarray(data[..., ::-1]), of)[..., ::-1]


def test_an_odd_width_is_drawn_as_if_it_had_one_more_column_on_the_left():
    """An even grid has no middle column: the mid-plane lies half a voxel to its right, as in training."""
    drawn, data = model(), head(93)
    wider = np.concatenate([np.full_like(data[..., :1], -1000), data], axis=-1)
    assert_allclose(made(data, drawn), made(wider, drawn)[..., 1:], atol=1e-4)


def shapes_seen(of):
    """A list of the shapes [B, H, W] of what the network makes."""
    seen = []
    of.network.method.net.register_forward_hook(
        lambda _, __, out: seen.append((len(out.image), *out.image.shape[-2:]))
    )
    return seen


def test_slices_without_mask_are_not_drawn_and_are_the_lowest_value():
    drawn = model()
    seen = shapes_seen(drawn)
    result = drawn.synthesise(scan(head(64)), samples=2)
    assert sum(count for count, *_ in seen) == 3 * 2 * 2  # slices with a head, steps, samples
    for volume in (result.volume, result.std["tmax"]):
        assert (volume.data[0, [0, -1]] == 0).all()
    assert result.provenance["network_calls"] == 3  # with that of the mean


def test_an_empty_mask_gives_the_lowest_value_everywhere(monkeypatch):
    monkeypatch.setattr(inputs, "foreground", lambda volume: np.zeros(volume.grid.shape, bool))
    assert (made(head(64), model()) == 0).all()


@every_row(
    "data, words",
    [
        ({"centred": False}, "data.centred = true"),
        ({"patch": [1, 64, 72]}, "multiple of 16 columns"),
        ({"patch": [4, 64, 64]}, "one slice"),
        ({"augment": {"rotate_degrees": 5}}, "data.augment.*rotate_degrees.*data.centred"),
        ({"augment": {"elastic_mm": 2}}, "data.augment.*elastic_mm.*data.centred"),
    ],
)
def test_data_that_move_the_mid_plane_are_refused_before_training(data, words):
    values = {**RECIPE["data"], "augment": {"flip_lr": 0.5, "scale": 0.1, "stretch": 0.1}}
    assert from_dict({**RECIPE, "data": values}, "here").data.centred, "these keep it"
    with refuses(words):
        from_dict({**RECIPE, "data": {**values, **data}}, "here")
