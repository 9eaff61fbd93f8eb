"""The checker of DICOM objects from dicom3tools, where it is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

TOOL = shutil.which("dciodvfy")
needs_dciodvfy = pytest.mark.skipif(
    TOOL is None, reason="dciodvfy is not installed (Debian: dicom3tools)"
)


def errors_in(file: Path) -> list[str]:
    """The errors that dciodvfy finds in a DICOM file."""
    answer = subprocess.run([str(TOOL), str(file)], capture_output=True, text=True)
    lines = (answer.stdout + answer.stderr).splitlines()
    return [line for line in lines if "Error" in line]
