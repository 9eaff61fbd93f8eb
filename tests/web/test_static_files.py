"""Files that the page serves: vendored libraries as published, and colours that can be read."""

import hashlib
import re
from pathlib import Path

import pytest

import voxlate

STATIC = Path(voxlate.__file__).parent / "web" / "static"
VENDORED = ("htmx.min.js", "niivue.umd.js")


@pytest.mark.parametrize("name", VENDORED)
def test_a_vendored_library_is_the_published_file_that_the_readme_names(name):
    rows = (STATIC / "README.md").read_text().splitlines()
    row = next(row for row in rows if row.startswith(f"| `{name}`"))
    stated = re.search(r"`([0-9a-f]{64})`", row)
    assert stated is not None
    assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == stated[1]


@pytest.mark.parametrize("name", VENDORED)
def test_a_vendored_library_comes_with_its_licence(name):
    licence = STATIC / "licences" / f"{name.split('.')[0]}.txt"
    assert "SOFTWARE IS PROVIDED" in licence.read_text()
