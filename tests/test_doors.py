"""A command is described once: Python, the command line and agents have the same commands and options."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "voxlate"
USER = """
import voxlate
voxlate.train("auto", "PREPARED", "RUN", minuts=3)
voxlate.prepare("COHORT", "PREPARED", resample="yes")
voxlate.synthesise("RUN", "COHORT", "OUT", sampels=3)
voxlate.synthesise("RUN", {"t1": "a.nii"}, Path("OUT"), samples=3, overlap=0.25, dicom="TO")
"""
MYPY = """
[mypy]
follow_imports = skip
[mypy-voxlate,voxlate.*.options.*]
follow_imports = silent
"""


def test_the_stub_of_the_package_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "release"))
    import stub

    assert stub.STUB.read_text() == stub.text(), "run python release/stub.py"
    helps = re.findall(r'""".*?"""', stub.text(), re.DOTALL)
    assert not re.search(r"--[a-z]", "".join(helps)), "no option of the command line in Python"


def test_mypy_refuses_wrong_names_and_types_of_options(tmp_path, monkeypatch):
    monkeypatch.setenv("MYPYPATH", str(SOURCE.parent))
    (tmp_path / "user.py").write_text("from pathlib import Path" + USER)
    (tmp_path / "mypy.ini").write_text(MYPY)
    words = [sys.executable, "-m", "mypy", "--no-incremental", "user.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    errors = re.findall(r"^user\.py:(\d): error", done.stdout, re.MULTILINE)
    assert errors == ["3", "4", "5"], done.stdout
