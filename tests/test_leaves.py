"""The package without one of its leaves: the other wings, which do not name it, work as before."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rows import slow
from sources import ROOT
from test_imports import ALL_BUT_PAGE

HERE = Path(__file__).parent
NAMING_LEAVES = ("commands", "page")
QUICK = (
    "base/test_ray_resources.py",
    "scans/test_grid.py",
    "science/test_schedules.py",
    "synthesis/test_planes.py",
    "training/test_train.py",
    "evaluation/test_distances.py",
)


def _draws(path: Path) -> bool:
    """Whether the scans of a test are phantoms."""
    text = path.read_text(encoding="utf-8")
    # both modules import anatomy
    return "voxlate.anatomy" in text or "from brains" in text or "from starter_intervals" in text


@slow
@pytest.mark.parametrize("leaf", ["anatomy", "clinic", "exchange", "page"])
def test_without_a_leaf_the_other_wings_are_imported_and_their_tests_pass(leaf, tmp_path):
    ignored = shutil.ignore_patterns("__pycache__")
    copy = shutil.copytree(ROOT, tmp_path / "voxlate", ignore=ignored)
    shutil.rmtree(copy / leaf)
    wings = [wing for wing in ALL_BUT_PAGE if wing not in (leaf, *NAMING_LEAVES)]
    modules = [
        ".".join(path.relative_to(tmp_path).with_suffix("").parts)
        for wing in wings
        for path in sorted((copy / wing).rglob("*.py"))
        if path.name != "__init__.py"
    ]
    places = [tmp_path, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}

    def run(*arguments):
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    run("-c", f"import importlib\nfor name in {modules}: importlib.import_module(name)")
    test = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    tests = [path for wing in wings for path in sorted((HERE / wing).glob("test_*.py"))]
    # phantoms are the scans of many tests
    run(*test, "--collect-only", *(path for path in tests if leaf != "anatomy" or not _draws(path)))
    run(*test, *(HERE / name for name in QUICK))
