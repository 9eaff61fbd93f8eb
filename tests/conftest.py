"""What every test may use."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; more threads each would only fight

import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development scans next to the project; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"the development scans are not here (no folder '{folder.name}' next to the project)")
    return folder


@dataclass(frozen=True)
class Answer:
    """What the command line said."""

    code: int
    out: str
    err: str


@pytest.fixture
def voxlate(capfd, monkeypatch):
    """Run the command line in this process: voxlate("info", path) -> Answer."""
    from voxlate import cli

    def run(*arguments) -> Answer:
        monkeypatch.setattr(sys, "argv", ["voxlate", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capfd.readouterr()
        return Answer(code, said.out, said.err)

    return run


def write_head(folder: Path, seed: int, shape=(20, 24, 6), modalities=("t1", "t2")) -> None:
    """A small made-up case: smooth blobs in an ellipsoid; t2 is a falling function of t1."""
    draw = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    inside = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 1.1) ** 2 < 1
    waves = sum(
        np.sin(draw.uniform(2, 6) * (draw.normal() * x + draw.normal() * y) + draw.uniform(0, 6)) for _ in range(4)
    )
    t1 = inside * (600 + 100 * waves)
    images = {"t1": t1, "t2": inside * (1400 - t1), "ct": np.where(inside, t1 / 10, -1000)}
    folder.mkdir(parents=True)
    for name in modalities:
        image = nib.Nifti1Image(images[name].astype(np.float32), np.diag([-2.0, -2.0, 3.0, 1.0]))
        nib.save(image, folder / f"{name}.nii.gz")


@pytest.fixture(scope="session")
def small_head():
    """Writes one small made-up case, for cohorts that live longer than a test."""
    return write_head


@pytest.fixture
def cohort(tmp_path) -> Path:
    """Six small cases with t1 and t2."""
    for number in range(6):
        write_head(tmp_path / "cohort" / f"case{number}", number)
    return tmp_path / "cohort"


TINY = """
title = "tiny"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 6, batch = 2, precision = "float32", workers = 0, save_every = 2, validate_every = 3, log_every = 1 }
synth = { sampler = "ddim", steps = 2 }
"""


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A recipe for `cohort` that trains in seconds."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def prepared(cohort, tmp_path) -> Path:
    from voxlate.data.prepare import prepare

    prepare(cohort, tmp_path / "prepared", workers=0, audit=False)  # its half second is tested elsewhere
    return tmp_path / "prepared"


@pytest.fixture
def run(prepared, tiny, tmp_path) -> Path:
    """A finished tiny training."""
    from voxlate import recipe
    from voxlate.training.train import train

    train(recipe.read(str(tiny)), prepared, tmp_path / "run", device="cpu")
    return tmp_path / "run"


@pytest.fixture
def trained(voxlate, prepared, tmp_path):
    """Trains a recipe's text by the command line as tmp_path/<name>.toml; gives the run, tmp_path/<name>."""

    def train(name: str, text: str) -> Path:
        (tmp_path / f"{name}.toml").write_text(text)
        answer = voxlate("train", tmp_path / f"{name}.toml", "--data", prepared, "--out", tmp_path / name)
        assert answer.code == 0, answer.err
        return tmp_path / name

    return train


@pytest.fixture
def diffusion(prepared, tiny, tmp_path) -> Path:
    """A tiny diffusion model, trained a little."""
    from voxlate import recipe
    from voxlate.training.train import train

    path = tmp_path / "diffusion.toml"
    path.write_text(tiny.read_text().replace('kind = "regression"', 'kind = "diffusion"'))
    train(recipe.read(str(path)), prepared, tmp_path / "drun", device="cpu")
    return tmp_path / "drun"
