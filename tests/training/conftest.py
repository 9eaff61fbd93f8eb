"""Tiny recipes with changes, their trainings, a tiny recipe of two stages, and a tiny starter."""

import shutil

import pytest

from starter_pack import pack
from voxlate.training import recipe
from voxlate.training.starters import names
from voxlate.training.train import train

TWO_STAGES = """
title = "tiny in two stages"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20], augment = { flip_lr = 0.5, rotate_degrees = 10 } }
intensity = { t1 = { kind = "percentile" }, t2 = { kind = "percentile" } }
task = { kind = "residual" }
method = { kind = "diffusion" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, middle_attention = false, dropout = 0.1 }
train = { steps = 8, batch = 2, ema = 0.9, workers = 0, validate_every = 6, validation_items = 2, log_every = 1 }
synth = { sampler = "ddim", steps = 2 }
[[stages]]
name = "predictor"
method = { kind = "regression", ssim = 0.2 }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 5, batch = 2, optimiser = { kind = "muon" }, workers = 0, validate_every = 0, validation_items = 2, log_every = 1 }
"""


def reader(path):
    """A function that reads a recipe with changes: of train by their names, others by their keys."""

    def read(others=None, **changes):
        changes = {f"train.{key}": str(value) for key, value in changes.items()}
        return recipe.read(str(path), changes | (others or {}))

    return read


@pytest.fixture
def read_tiny(tiny):
    """read_tiny({"net.width": "4"}, steps=5): the recipe `tiny` with changes."""
    return reader(tiny)


@pytest.fixture
def fit(prepared, tmp_path):
    """fit(recipe, "run"): the run tmp_path/run, trained on `prepared`."""

    def fit(made, name="run", **options):
        return train(made, prepared, tmp_path / name, device="cpu", **options)

    return fit


@pytest.fixture(scope="session")
def two_stages(tmp_path_factory):
    """The recipe of two stages."""
    path = tmp_path_factory.mktemp("two_stages") / "two.toml"
    path.write_text(TWO_STAGES)
    return path


@pytest.fixture(scope="session")
def read_two(two_stages):
    """read_two(steps=5): the recipe of two stages with changes."""
    return reader(two_stages)


@pytest.fixture(scope="session")
def two_staged_once(read_two, prepared_once, tmp_path_factory):
    """A training of the recipe of two stages that nothing disturbed; no test changes it."""
    return train(read_two(), prepared_once, tmp_path_factory.mktemp("whole") / "run", device="cpu")


@pytest.fixture(scope="session")
def packed_once(tmp_path_factory):
    """The folder of the starters that `install` copies, each packed once in a process."""
    return tmp_path_factory.mktemp("packed")


@pytest.fixture
def install(run, packed_once, tmp_path, monkeypatch):
    """Packs a training of seconds as the only installed starter; gives its folder."""
    monkeypatch.setattr(names, "FOLDER", tmp_path / "installed")

    def write(**options):
        stated = {
            "trained_on": "synthetic heads only",
            "accepts": {"t1": ["t1", "t1w", "pd"]},
            "stripped": False,
            "spacing_mm": (1.0, 2.0),
            "limits": ["It was trained for seconds."],
        }
        folder, packed = tmp_path / "installed/tiny", packed_once / f"{options}" / "tiny"
        if folder.exists():
            pack(run, folder, **(stated | options))
            return folder
        if not packed.exists():
            pack(run, packed, **(stated | options))
        return shutil.copytree(packed, folder)

    return write


@pytest.fixture
def starter(install):
    """The folder of the only installed starter."""
    return install()
