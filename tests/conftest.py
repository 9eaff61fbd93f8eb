"""What every test may use."""

import gc
import hashlib
import json
import os
import pickle
import shlex
import shutil
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tests run side by side; more threads each would only fight

import torch

torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests live to the end: no pass of the garbage collector looks at them, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development scans next to the project; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(
            f"the development scans are not here (no folder '{folder.name}' next to the project)"
        )
    return folder


@pytest.fixture(scope="session", autouse=True)
def shipped_starters(tmp_path_factory):
    """The folder of the starters that come with the package; no other test sees them, and no plan begins from one."""
    from voxlate.training.starters import names

    with pytest.MonkeyPatch.context() as patch:
        shipped = names.FOLDER
        patch.setattr(names, "FOLDER", tmp_path_factory.mktemp("no_starters"))
        yield shipped


@pytest.fixture(scope="session", autouse=True)
def _shortened(tmp_path_factory):
    """Every "auto" is float32 in tests and in the commands that they start: no clock decides what they compute.

    Tests run side by side: prepare works in its own process. Pictures of validations are not compressed, no file
    waits for the disk, and the misalignment of the same two scans, which most tests of prepare have, is estimated
    once in a process.
    """
    from voxlate.scans import prepare
    from voxlate.scans.cases import case

    known = {}
    estimate = case.median_displacement

    def remember(*given):
        key = hashlib.sha256(pickle.dumps(given)).digest()
        if key not in known:
            known[key] = estimate(*given)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXLATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        # float32 kernels are the same with this limit, which hides bfloat16.
        patch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")
        patch.setattr(prepare, "MOST_WORKERS", 1)
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(case, "median_displacement", remember)
        yield


@dataclass(frozen=True)
class Answer:
    """What the command line said."""

    code: int
    out: str
    err: str

    def done(self) -> "Answer":
        """This answer, of a command that must have ended well, perhaps with an image that is not to be trusted (3)."""
        assert self.code in (0, 3), self.err
        return self

    @property
    def refusal(self) -> str:
        """The error on one line, of a command that must have refused all or left cases out."""
        assert self.code in (2, 3), self
        return self.said

    @property
    def sentence(self) -> str:
        """The one line on stderr of a command that must have refused all."""
        assert (self.code, self.err.count("\n")) == (2, 1), self
        return self.err

    @property
    def json(self) -> Any:
        """What a command says to programs."""
        return json.loads(self.out)

    @property
    def said(self) -> str:
        """What went to stderr, on one line."""
        return " ".join(self.err.split())


@pytest.fixture
def voxlate(capfd, monkeypatch):
    """Run the command line in this process: voxlate("info", path) -> Answer."""
    from voxlate.commands import cli

    def run(*arguments):
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


@pytest.fixture
def typed(voxlate, tmp_path, monkeypatch) -> Callable[[str], Answer]:
    """Run a command line as it is written, in the folder of the test: typed("info cohort") -> Answer."""

    def run(line):
        monkeypatch.chdir(tmp_path)
        return voxlate(*shlex.split(line))

    return run


@pytest.fixture
def out(tmp_path) -> Path:
    """The folder that a command is to write."""
    return tmp_path / "out"


def write_head(folder: Path, seed: int, shape=(20, 24, 6), modalities=("t1", "t2")) -> None:
    """A small made-up case: smooth blobs in an ellipsoid; t2 is a falling function of t1."""
    draw = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    inside = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 1.1) ** 2 < 1
    waves = sum(
        np.sin(draw.uniform(2, 6) * (draw.normal() * x + draw.normal() * y) + draw.uniform(0, 6))
        for _ in range(4)
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


@pytest.fixture(scope="session")
def cohort_once(tmp_path_factory) -> Path:
    """What `cohort` copies: its cases, written once in a process."""
    folder = tmp_path_factory.mktemp("cohort_once") / "cohort"
    for number in range(6):
        write_head(folder / f"case{number}", number)
    return folder


@pytest.fixture
def cohort(cohort_once, tmp_path) -> Path:
    """Six small cases with t1 and t2."""
    return shutil.copytree(cohort_once, tmp_path / "cohort")


TINY = """
title = "tiny"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 6, batch = 2, precision = "float32", workers = 0, validate_every = 3, log_every = 1 }
synth = { sampler = "ddim", steps = 2 }
"""


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A recipe for `cohort` that trains in seconds."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def prepared_once(cohort_once, tmp_path_factory) -> Path:
    """What `prepared` copies: the cases of `cohort`, prepared once in a process."""
    from preparing import prepare

    folder = tmp_path_factory.mktemp("once")
    splits = (4, 1, 1)  # a test patient, too, whom so small a cohort has only where it is asked for
    prepare(
        cohort_once, folder / "prepared", workers=0, audit=False, shares=splits
    )  # audits: tested elsewhere
    return folder / "prepared"


@pytest.fixture
def prepared(cohort, prepared_once, tmp_path) -> Path:
    """The six cases, prepared; `cohort` lies next to it."""
    return shutil.copytree(prepared_once, tmp_path / "prepared")


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """once(text, prepared, run, train): what train() writes to the folder `run`.

    A recipe's text is trained on the same cases once in a process; later tests get a copy of the run.
    """
    kept = tmp_path_factory.mktemp("trainings")

    def fill(text, prepared, run, train):
        place = (
            kept
            / hashlib.sha256(text.encode() + (prepared / "cohort.json").read_bytes()).hexdigest()
        )
        if not place.exists():
            train()
            shutil.copytree(run, place)
        elif not run.exists():
            shutil.copytree(place, run)
        return run

    return fill


@pytest.fixture
def run(once, prepared, tiny, tmp_path) -> Path:
    """A finished tiny training."""
    return _trained(once, tiny, prepared, tmp_path / "run")


@pytest.fixture
def trained(once, voxlate, prepared, tmp_path):
    """Trains a recipe's text by the command line as tmp_path/<name>.toml; gives the run, tmp_path/<name>."""

    def train(name, text):
        path, out = tmp_path / f"{name}.toml", tmp_path / name
        path.write_text(text)

        def by_command():
            voxlate("train", path, "--data", prepared, "--out", out).done()

        return once(text, prepared, out, by_command)

    return train


@pytest.fixture
def diffusion(once, prepared, tiny, tmp_path) -> Path:
    """A tiny diffusion model, trained a little."""
    path = tmp_path / "diffusion.toml"
    path.write_text(tiny.read_text().replace('kind = "regression"', 'kind = "diffusion"'))
    return _trained(once, path, prepared, tmp_path / "drun")


def _trained(once, recipe_path: Path, prepared: Path, out: Path) -> Path:
    from voxlate.training import recipe
    from voxlate.training.train import train

    made = recipe.read(str(recipe_path))
    return once(
        recipe_path.read_text(), prepared, out, lambda: train(made, prepared, out, device="cpu")
    )


@pytest.fixture
def shorten_widths(monkeypatch) -> Callable[[int, int], None]:
    """Let calibrations learn their widths in fewer steps of so many voxels."""
    from voxlate.evaluation.intervals import width_training as widths

    def shorten(steps, batch):
        for method, settings in widths.SETTINGS.items():
            monkeypatch.setitem(widths.SETTINGS, method, replace(settings, steps=steps))
        monkeypatch.setattr(widths, "BATCH", batch)

    return shorten


@pytest.fixture
def quick_widths(shorten_widths) -> None:
    """For tests of what becomes of intervals, however wide they are."""
    shorten_widths(10, 256)


@pytest.fixture
def series(tmp_path) -> Path:
    """A folder with the six slices of a series."""
    from pydicom.uid import generate_uid

    from dicom_slices import mr_slice

    folder = tmp_path / "series"
    folder.mkdir()
    study, own = generate_uid(), generate_uid()
    for number in range(6):
        path = folder / f"{number}.dcm"
        mr_slice(number, study, own).save_as(path, enforce_file_format=True)
    return folder


@pytest.fixture
def datasets(series):
    """The datasets of `series`, by the names of its files."""
    import pydicom

    return [pydicom.dcmread(path) for path in sorted(series.iterdir())]
