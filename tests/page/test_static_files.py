"""Files that the page serves: vendored libraries as published."""

import hashlib
import re
from pathlib import Path

import voxlate
from rows import every_row

STATIC = Path(voxlate.__file__).parent / "page" / "static"


@every_row("name", ["htmx.min.js", "niivue.umd.js"])
def test_a_vendored_library_is_the_published_file_that_the_readme_names_with_its_licence(name):
    readme = (STATIC / "README.md").read_text()
    (stated,) = re.findall(rf"^\| `{name}`.*`([0-9a-f]{{64}})`", readme, flags=re.M)
    assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == stated
    licence = STATIC / "licences" / f"{name.split('.')[0]}.txt"
    assert "SOFTWARE IS PROVIDED" in licence.read_text()
