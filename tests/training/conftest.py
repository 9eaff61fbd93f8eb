"""A tiny recipe of two stages and its training, for tests of stopping and going on, and a tiny starter."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from starter_pack import pack
from voxlate.training import recipe
from voxlate.training.run import Run
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
train = { steps = 5, batch = 2, workers = 0, validate_every = 0, validation_items = 2, log_every = 1 }
"""


@pytest.fixture(scope="session")
def two_stages(tmp_path_factory) -> Path:
    """The recipe of two stages."""
    path = tmp_path_factory.mktemp("two_stages") / "two.toml"
    path.write_text(TWO_STAGES)
    return path


@pytest.fixture(scope="session")
def read_two(two_stages) -> Callable[..., recipe.Recipe]:
    """read_two(more="[5]"): the recipe of two stages with changes of train."""

    def read(**changes):
        return recipe.read(
            str(two_stages), {f"train.{key}": str(value) for key, value in changes.items()}
        )

    return read


@pytest.fixture(scope="session")
def two_staged_once(read_two, prepared_once, tmp_path_factory) -> Run:
    """A training of the recipe of two stages that nothing disturbed; no test changes it."""
    return train(read_two(), prepared_once, tmp_path_factory.mktemp("whole") / "run", device="cpu")


@pytest.fixture
def two_staged(two_staged_once, prepared, tmp_path) -> Run:
    """The same training, next to its prepared cohort, for tests that change it."""
    return Run(shutil.copytree(two_staged_once.folder, tmp_path / "run"))


@pytest.fixture(scope="session")
def packed_once(tmp_path_factory) -> Path:
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
        folder, packed = tmp_path / "installed" / "tiny", packed_once / f"{options}" / "tiny"
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
