"""The wheel alone in a fresh environment, without torch: what an installation for synthesis has (make test-wheel)."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import voxlate
from dicom_slices import write_series
from voxlate.scans.formats.io import read_volume

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parents[1]
STARTER = "starter:head-mr-to-ct"
MOST_MEGABYTES = 650  # of the environment with bytecode: SciPy, NumPy, pandas, matplotlib, onnxruntime and scikit-image are most
MOST_APART_HU = 0.5
MOST_AT_BORDERS = 5e-3  # share of voxels
MOST_OF_WIDTH = 1e-3  # of an interval
IMAGES = ("ct", "ct_low", "ct_high")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> tuple[Path, float]:
    """A virtual environment with the wheel and, after its size was measured in megabytes, the extra for DICOM out."""
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", place, ROOT]
    subprocess.run([*map(str, pip)], check=True)
    (wheel,) = place.glob("voxlate-*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
    own = place / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    install = [own / "python", "-m", "pip", "--quiet", "install", "--constraint"]
    install += [ROOT / "constraints.txt"]
    subprocess.run([*map(str, install), str(wheel)], check=True)
    files = (path for path in (place / "venv").rglob("*") if path.is_file())
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    subprocess.run([*map(str, install), f"{wheel}[dicom]"], check=True)
    return own, megabytes


@pytest.fixture(scope="session")
def environment(installed) -> Path:
    """The folder of the environment's programs."""
    return installed[0]


@pytest.fixture(scope="session")
def run(environment, tmp_path_factory) -> Run:
    """Run a command of the environment, in an empty folder."""
    folder = tmp_path_factory.mktemp("empty")

    def command(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        line = [environment / words[0], *words[1:]]
        done = subprocess.run([*map(str, line)], cwd=folder, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done

    return command


def with_torch(*words: object) -> None:
    """Run a command of this environment, which has the starters and torch."""
    subprocess.run([sys.executable, "-m", "voxlate", *map(str, words)], check=True)


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """An exported starter."""
    folder = tmp_path_factory.mktemp("exported") / "MODEL"
    with_torch("export", STARTER, "--out", folder)
    return folder


@pytest.fixture(scope="session")
def scans(tmp_path_factory) -> dict[str, Path]:
    """A whole head of thin slices, one of thick slices, and the thick one as a DICOM series."""
    found = {}
    for name, size in {"thin": (112, 112, 96), "thick": (96, 96, 34)}.items():
        cohort = tmp_path_factory.mktemp(name)
        voxlate.phantom(
            cohort, cases=1, size=size, modalities=["t1"], lesion="none", progress=False
        )
        (found[name],) = cohort.rglob("t1.nii.gz")
    found["series"] = tmp_path_factory.mktemp("series") / "T1"
    write_series(read_volume(found["thick"], "t1"), found["series"], Modality="MR")
    return found


def test_the_environment_has_no_torch_and_is_small(installed, run):
    listed = run("python", "-m", "pip", "list", "--format", "json").stdout
    names = {package["name"].lower() for package in json.loads(listed)}
    assert not names & {"torch", "accelerate", "tensorboard"}
    print(f"{installed[1]:.0f} MB")
    assert installed[1] < MOST_MEGABYTES


@pytest.mark.parametrize("name", ["thin", "thick", "series"])
@pytest.mark.parametrize("exported", [True, False])
def test_a_starter_and_its_export_give_the_image_of_torch(
    exported, name, run, model, scans, tmp_path
):
    out = tmp_path / "OUT"
    started = time.perf_counter()
    run("voxlate", "synth", model if exported else STARTER, scans[name], "--out", out)
    alone = time.perf_counter() - started
    (case,) = (path.parent for path in out.glob("*/ct.nii.gz"))
    started = time.perf_counter()
    in_torch = "--batch", 4, "--set", "precision=float32"
    with_torch("synth", STARTER, scans[name], *in_torch, "--out", tmp_path / "TORCH")
    print(f"{name}: {alone:.1f} s, with torch {time.perf_counter() - started:.1f} s")
    ours, theirs = (
        {name: read_volume(folder / f"{name}.nii.gz", "ct").data for name in IMAGES}
        for folder in (case, tmp_path / "TORCH" / case.name)
    )
    # intervals are as exact as their width allows, which the network of widths multiplies
    width = theirs["ct_high"] - theirs["ct_low"]
    most = {"ct": MOST_APART_HU} | dict.fromkeys(
        IMAGES[1:], np.maximum(MOST_APART_HU, MOST_OF_WIDTH * width)
    )
    for image in IMAGES:
        apart = np.abs(ours[image] - theirs[image])
        if image == "ct":
            assert apart.max() < 4 * MOST_APART_HU  # at single steep borders of bone
            assert (apart > MOST_APART_HU).mean() < 1e-4
        # single voxels lie on either side of a border between the groups of an interval
        assert (apart > most[image]).mean() < MOST_AT_BORDERS, image
        assert np.ptp(ours[image]) > 1000


def test_check_info_report_and_dicom_out_need_no_torch(run, model, scans, tmp_path):
    out = tmp_path / "OUT"
    assert run("voxlate", "check", model, scans["thick"]).stdout
    assert run("voxlate", "info", model).stdout
    assert run("voxlate", "info", STARTER).stdout
    run("voxlate", "synth", model, scans["series"], "--out", out)
    run("voxlate", "report", out)
    assert (out / "report.html").is_file()
    run("voxlate", "export", out, "--dicom", tmp_path / "DICOM")
    assert [*(tmp_path / "DICOM").rglob("*.dcm")]


@pytest.mark.parametrize(
    "line", ["synth starter:head-mr-to-ct SCAN --out OUT --batch 2", "train auto --data X --out Y"]
)
def test_a_command_that_needs_torch_names_its_extra(line, run):
    assert "voxlate[train]" in run("voxlate", *line.split(), code=2).stderr
