"""Models that complete what a case lacks."""

import pytest

from voxlate.training import recipe
from voxlate.training.train import train

COMPLETE = """
title = "tiny completion"
data = { source = ["t1", "t2"], target = ["t1", "t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
task = { kind = "complete" }
method = { kind = "diffusion" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 4, batch = 2, validate_every = 0 }
synth = { sampler = "ddim", steps = 2 }
"""


@pytest.fixture
def synth(voxlate, out):
    """synth(run, cohort, …): what `voxlate synth` says, which writes `out`."""
    return lambda *words: voxlate("synth", *words, "--out", out)


@pytest.fixture
def changed(once, prepared, tiny, tmp_path):
    """changed("name", changes): a run of the recipe `tiny` with changes, trained once in a process."""

    def fit(name, changes=None, data=prepared):
        made, out = recipe.read(str(tiny), changes), tmp_path / name
        by = lambda: train(made, data, out, device="cpu")  # noqa: E731
        return once(f"{name} {changes}", data, out, by)

    return fit


@pytest.fixture
def completing(trained):
    """A tiny run that makes t1 or t2, whichever is missing."""
    return trained("done", COMPLETE)


LATENT = """
title = "tiny latent"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
task = { kind = "latent" }
method = { kind = "diffusion" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 1, batch = 2, validate_every = 0 }
synth = { sampler = "ddim", steps = 2 }

[[stages]]
name = "autoencoder"
method = { kind = "autoencoding" }
net = { kind = "kl_autoencoder", width = 8, multipliers = [1, 2], blocks = 1, groups = 4 }
train = { steps = 1, batch = 2, validate_every = 0 }
"""


@pytest.fixture
def latent(trained):
    """A tiny diffusion of the latents of its own autoencoder."""
    return trained("latent", LATENT)


RESIDUAL = """
title = "tiny residual"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
task = { kind = "residual", predictor = "base" }
method = { kind = "diffusion" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 2, batch = 2, validate_every = 0 }
synth = { sampler = "ddim", steps = 2 }
[[stages]]
name = "base"
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 2, batch = 2, validate_every = 0 }
"""


@pytest.fixture
def residual(trained):
    """A tiny diffusion of the residual of the mean of its predictor."""
    return trained("residual", RESIDUAL)
