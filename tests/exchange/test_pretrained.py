"""Autoencoders of latent diffusion as runs: the same numbers as diffusers' own module."""

import shlex
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from pretrained import SMALL, written
from rows import slow
from voxlate.exchange import published
from voxlate.exchange.published import net_changes, read_autoencoder
from voxlate.science.nets.interface import Channels
from voxlate.training import recipe
from voxlate.training.run import Run
from voxlate.training.weights import read_header, unfit_network

# Of diffusers 0.42.1: latents 0, 0, 0..2 and the mean of the colours at 7, 7..9, of a grey picture.
LATENTS, PIXELS = (0.189046, -0.308331, -0.092974), (0.628265, 0.508, -0.043801)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A network of the same layout that is narrower than the published one."""
    narrow = replace(published.NETWORK, **SMALL)
    monkeypatch.setattr(published, "NETWORK", narrow)
    return narrow


def test_imported_weights_give_what_diffusers_gave(tmp_path, small):
    state = read_autoencoder(written(tmp_path / "a.safetensors"))
    net = small.build(Channels(images={"image": 1}, out=1)).eval()
    net.load_state_dict(state)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    with torch.no_grad():
        mean, _ = net.encode((torch.sin(y / 3) * torch.cos(x / 4))[None, None, None])
        decoded = net.decode(mean)
    assert mean[0, 0, 0, 0, :3].tolist() == pytest.approx(LATENTS, abs=1e-5)
    assert decoded[0, 0, 0, 7, 7:10].tolist() == pytest.approx(PIXELS, abs=1e-5)


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


@slow
def test_a_latent_recipe_takes_a_pretrained_autoencoder_in_place_of_training_its_own(
    voxlate, prepared, cohort, tmp_path
):
    path = written(tmp_path / "a.safetensors")
    answer = voxlate("import", "kl-f4", path, "--out", tmp_path / "kl").done()
    changes = net_changes(Run(tmp_path / "kl"))
    assert changes in " ".join(answer.out.split())
    (tmp_path / "latent.toml").write_text(LATENT_RECIPE)
    given = (tmp_path / "latent.toml", "--data", prepared, "--reuse", tmp_path / "kl")
    line = (*given, "--out", tmp_path / "run", *shlex.split(changes))
    answer = voxlate("train", *line).done()
    assert "stage 'autoencoder' is taken from" in answer.err
    taken = Run(tmp_path / "run").weights("autoencoder")
    own, theirs = load_file(taken), load_file(Run(tmp_path / "kl").weights())
    assert all(torch.equal(own[name], theirs[name]) for name in theirs if name != "net.scale")
    assert own["net.scale"] != theirs["net.scale"], "it is that of this cohort's latents"
    header = read_header(taken)
    assert header["imported"]["file"] == "a.safetensors"
    assert header["bound"]["t2"] > 0
    voxlate("synth", tmp_path / "run", cohort / "case0", "--out", tmp_path / "out").done()
    autoencoder, _ = recipe.read(str(tmp_path / "latent.toml")).all_stages
    assert unfit_network(Run(tmp_path / "kl"), autoencoder) == "net.blocks is 1 there and 2 here"
