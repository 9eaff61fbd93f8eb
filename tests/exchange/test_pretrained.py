"""Autoencoders of latent diffusion as runs: the same numbers as diffusers' own module, in both published layouts."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pretrained import written
from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.exchange.pretrained import (
    Source,
    import_autoencoder,
    net_changes,
    read_autoencoder,
)
from voxlate.science.nets.interface import Channels
from voxlate.training import recipe
from voxlate.training.run import Run
from voxlate.training.weights import read_header, unfit_network

GOLDEN = {  # of diffusers 0.42.1: latents 0, 0, 0..2 and the mean of the colours at 7, 7..9, of the image below
    "kl-f4": ((0.189046, -0.308331, -0.092974), (0.628265, 0.508, -0.043801)),
    "kl-f8": ((-0.201958, 0.556286, 0.199917), (0.714665, 0.479179, 0.52374)),
}


def image() -> Tensor:
    """A grey picture of 16 x 24 pixels in [-1, 1], [1, 1, 1, 16, 24]."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    return (torch.sin(y / 3) * torch.cos(x / 4))[None, None, None]


def ours(path: Path, source: Source) -> tuple[Tensor, Tensor, Tensor]:
    """The moments of the picture's latent, and what is decoded of the mean."""
    settings, state = read_autoencoder(source, path)
    net = settings.build(Channels(images={"image": 1}, out=1)).eval()
    net.load_state_dict(state)
    with torch.no_grad():
        mean, log_variance = net.encode(image())
        return mean[:, :, 0], log_variance[:, :, 0], net.decode(mean)[:, :, 0]


WHOLE = "compvis of a whole latent diffusion"


@every_row("source, layout", [("kl-f4", "diffusers"), ("kl-f4", "compvis"), ("kl-f8", WHOLE)])
def test_imported_weights_give_what_diffusers_gave(tmp_path, source, layout):
    prefix = "first_stage_model." if "whole" in layout else ""
    mean, _, decoded = ours(
        written(tmp_path / "a.safetensors", source, layout == "diffusers", prefix), source
    )
    latents, pixels = GOLDEN[source]
    assert mean[0, 0, 0, :3].tolist() == pytest.approx(latents, abs=1e-5)
    assert decoded[0, 0, 7, 7:10].tolist() == pytest.approx(pixels, abs=1e-5)


def test_a_file_that_is_no_such_autoencoder_is_one_sentence(tmp_path):
    path = written(tmp_path / "a.safetensors", "kl-f4")
    with pytest.raises(
        BadInput,
        match=r"expected kl-f8, which halves the sides 3 times, found 2 halvings \(kl-f4\)",
    ):
        import_autoencoder("kl-f8", path, tmp_path / "run")
    state = load_file(path)
    for change, found in (
        ({"other.weight": torch.zeros(1)}, "found the unknown key 'other.weight'"),
        (
            {"quant_conv.bias": torch.zeros(5)},
            "expected 'quant_conv.bias' of the size of its neighbours",
        ),
        ({"encoder.conv_out.bias": None}, "found no key 'encoder.conv_out.bias'"),
        (
            {"post_quant_conv.weight": None},
            "expected an autoencoder in the layout of latent diffusion",
        ),
    ):
        kept = {name: one for name, one in (state | change).items() if one is not None}
        save_file(kept, tmp_path / "b.safetensors")
        with pytest.raises(BadInput, match=found.replace("(", r"\(")):
            import_autoencoder("kl-f4", tmp_path / "b.safetensors", tmp_path / "run")
    assert not (tmp_path / "run").exists()


LATENT_RECIPE = """
title = "latent"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
task = { kind = "latent" }
method = { kind = "diffusion", prediction = "x0" }
net = { kind = "unet", width = 8, multipliers = [1], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 2, batch = 2, precision = "float32", validate_every = 0, validation_items = 1 }
synth = { sampler = "ddim", steps = 2 }

[[stages]]
name = "autoencoder"
method = { kind = "autoencoding" }
net = { kind = "kl_autoencoder" }
train = { steps = 1, batch = 2, precision = "float32", validate_every = 0, validation_items = 1 }
"""


@pytest.mark.slow
def test_a_latent_recipe_takes_a_pretrained_autoencoder_in_place_of_training_its_own(
    voxlate, prepared, cohort, tmp_path
):
    path = written(tmp_path / "a.safetensors", "kl-f4")
    answer = voxlate("import", "kl-f4", path, "--out", tmp_path / "kl").done()
    changes = net_changes(Run(tmp_path / "kl"))
    assert changes in " ".join(answer.out.split())
    (tmp_path / "latent.toml").write_text(LATENT_RECIPE)
    given = ("train", tmp_path / "latent.toml", "--data", prepared, "--reuse", tmp_path / "kl")
    sets = shlex.split(changes)
    answer = voxlate(*given, "--out", tmp_path / "run", *sets).done()
    assert "stage 'autoencoder' is taken from" in answer.err
    taken = Run(tmp_path / "run").weights("autoencoder")
    own, theirs = load_file(taken), load_file(Run(tmp_path / "kl").weights())
    assert all(torch.equal(own[name], theirs[name]) for name in theirs if name != "net.scale")
    assert own["net.scale"] != theirs["net.scale"], "it is that of this cohort's latents"
    header = read_header(taken)
    assert header["imported"]["format"] == "kl-f4 (latent diffusion)"
    assert header["bound"]["t2"] > 0
    answer = voxlate(
        "synth", tmp_path / "run", cohort / "case0", "--out", tmp_path / "out", "--json"
    )
    assert json.loads(answer.out)["cases"] == ["case0"]
    autoencoder, _ = recipe.read(str(tmp_path / "latent.toml")).all_stages
    assert unfit_network(Run(tmp_path / "kl"), autoencoder) == "net.blocks is 1 there and 2 here"
