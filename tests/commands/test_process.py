"""The command as a process of its own: what it prints into a pipe, and how Ctrl-C ends it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from carried import head, tiny_model
from voxlate.exchange.export import export_model
from voxlate.scans.formats.io import write_volume

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": ""}


def start(*line) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "voxlate", *map(str, line)]
    return subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a shell gives every command
    )


def commands(cohort: Path, diffusion: Path, tmp_path: Path) -> dict[str, tuple]:
    """Each command at work for long enough, by a file or folder that shows that it has begun."""
    long = ("--set", "train.steps=20000", "--device", "cpu")
    out = ("--out", tmp_path / "out")
    train = ("train", tmp_path / "tiny.toml", "--data", tmp_path / "prepared", *out, *long)
    return {
        "phantom": ("phantom", *out, "--cases", 500),
        "prepare": ("prepare", cohort, *out),
        "train": train,
        "train with readers": (*train, "--set", "train.workers=2"),
        "synth": ("synth", diffusion, cohort, *out, "--samples", 4000, "--device", "cpu"),
        "evaluate": ("evaluate", tmp_path / "images", "--truth", cohort),
    }


def wait_until_numpy_is_imported(process: subprocess.Popen[str]) -> None:
    """Ctrl-C is ours only once Python has started, which takes longer on a busy machine."""
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid)
        while process.poll() is None and not any(
            "numpy" in one.path for one in started.memory_maps()
        ):
            time.sleep(0.01)


# at work; the other pairs, while modules are imported and scans are read, are slow tests
STOPS = [("synth", 3.3)]
COMMANDS = ["phantom", "prepare", "train", "synth", "evaluate"]
PAIRS = [(name, seconds) for name in COMMANDS for seconds in (0.0, 1.0)]
PAIRS += [("train with readers", 3.3)]
FURTHER = [pytest.param(*one, marks=pytest.mark.slow) for one in PAIRS if one not in STOPS]


@pytest.mark.parametrize(("name", "seconds"), [*STOPS, *FURTHER])
def test_ctrl_c_ends_a_command_with_one_sentence_and_130(
    voxlate, cohort, diffusion, small_head, tmp_path, name, seconds
):
    if name == "prepare" and seconds:
        # so many scans take longer than that; the signal at 0.0 comes before one is read
        for number in range(6, 40):
            small_head(cohort / f"case{number}", number, shape=(80, 80, 24))
    if name == "evaluate":
        assert voxlate("synth", diffusion, cohort, "--out", tmp_path / "images").code == 0
    process = start(*commands(cohort, diffusion, tmp_path)[name])
    wait_until_numpy_is_imported(process)
    time.sleep(seconds)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=300)
    if process.returncode == 0:
        pytest.skip("it was done before the signal")
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("voxlate: stopped")
    assert err.count("voxlate: ") == 1
    assert "Traceback" not in err
    assert "\x1b" not in err, "a pipe gets plain text"


@pytest.mark.parametrize(
    ("load", "busy", "given", "expected"),
    [
        (0.1, 90.0, None, None),
        (1.4, 90.0, None, "PASSIVE"),
        (1.4, 2.0, None, None),  # what made the load has ended
        (1.4, 90.0, "ACTIVE", "ACTIVE"),
    ],
)
def test_waiting_threads_sleep_next_to_other_processes_unless_the_user_says_otherwise(
    voxlate, monkeypatch, load, busy, given, expected
):
    monkeypatch.setattr("voxlate.base.machine.load_average", lambda: load)
    monkeypatch.setattr("psutil.cpu_percent", lambda seconds: busy)
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "unset")  # so that it is restored afterwards
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    assert voxlate("phantom", "--out", "OUT", "--cases", "0").code == 2
    assert os.environ.get("OMP_WAIT_POLICY") == expected


SHOWN_MODULES = """
import sys
from voxlate.commands.cli import main
sys.argv = ["voxlate", *sys.argv[1:]]
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


def imported_by(*line, code: str = SHOWN_MODULES, **environment: str) -> set[str]:
    """The modules that a command line of its own process has imported when it ends."""
    command = [sys.executable, "-c", code, *map(str, line)]
    done = subprocess.run(
        command, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return {*done.stderr.splitlines()[-1].split()}


def test_help_recipes_and_completion_import_nothing_that_computes():
    heavy = {"torch", "numpy", "scipy", "nibabel", "matplotlib", "accelerate", "psutil"}
    heavy |= {"voxlate.training.recipe.settings"}
    for line in (["recipes"], ["train", "--help"]):
        assert not heavy & imported_by(*line), line
    words = {"COMP_WORDS": "voxlate tr", "COMP_CWORD": "1", "_VOXLATE_COMPLETE": "complete_bash"}
    assert not heavy & imported_by(**words)


def test_info_of_a_scan_imports_no_torch_and_draws_nothing(cohort):
    assert not {"torch", "matplotlib", "accelerate", "psutil"} & imported_by(
        "info", cohort / "case0" / "t1.nii.gz"
    )


def test_an_exported_model_is_checked_used_and_reported_without_torch(tmp_path):
    model, scan, out = tmp_path / "MODEL", tmp_path / "t1.nii.gz", tmp_path / "OUT"
    export_model(tiny_model("slices, their neighbours and the mirror image"), model)
    write_volume(scan, head())
    for line in (
        ["check", model, scan],
        ["synth", model, scan, "--out", out],
        ["info", model],
        ["report", out],
    ):
        assert not {"torch", "accelerate", "safetensors", "tomli_w", "tensorboard"} & imported_by(
            *line
        ), line


def test_a_starter_and_a_run_are_opened_for_a_check_without_torch(run):
    for model in ("starter:head-mr-to-ct", run):
        code = f"import sys\nfrom voxlate.training.load import load\nload('{model}', for_check=True)\nprint(*sys.modules, file=sys.stderr)"
        assert not {"torch", "accelerate", "pandas"} & imported_by(code=code)


def test_a_synthesis_imports_no_package_that_the_page_in_the_browser_lacks():
    code = "import sys, voxlate.synthesis.exported; print(*sys.modules, file=sys.stderr)"
    lacked = {"pandas", "skimage", "SimpleITK", "matplotlib", "psutil", "filelock", "rich"}
    assert not lacked & imported_by(code=code)
