"""The site that `make docs` builds: MyST pages in docs/, pages generated from the code, and the docstrings."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # for the module generate

import generate

from voxlate import __version__

project = "voxlate"
copyright = "the voxlate authors, Apache-2.0"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
include_patterns = ["*.md", "[!_]*/*.md"]
highlight_language = "bash"  # of blocks that name none
html_theme = "furo"
html_title = f"voxlate {version}"
html_show_sphinx = False
smartquotes = False  # they would turn the dashes of options into one
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "__init__, __new__"}
toc_object_entries = False
RST = re.compile(r"([\\*_|])")


def plain_docstring(
    _app: Any, what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Docstrings are plain text with code in backticks: write them so that reStructuredText shows them as they are.

    napoleon reads their sections afterwards; their lines and examples therefore stay lines.
    """
    paragraphs = "\n".join(lines).strip().split("\n\n")
    lines.clear()
    for paragraph in paragraphs:
        head, _, rest = paragraph.partition("\n")
        if head == "Returns:":
            lines += [head, "    " + escaped(" ".join(rest.split())), ""]
        elif head in ("Args:", "Raises:"):
            lines += [head, *map(escaped, rest.split("\n")), ""]
        elif head == "Example:" or ">>>" in head:
            lines += [*paragraph.split("\n"), ""]
        else:
            lines += [escaped(" ".join(paragraph.split())), ""]
    if what in ("attribute", "data", "property"):
        lines[0] = f": {lines[0]}"  # what stands before a first colon would be the type


def escaped(text: str) -> str:
    """A line or paragraph with its markup as plain text, and with its code as literals."""
    parts = text.split("`")
    shown = [
        RST.sub(r"\\\1", part) if number % 2 == 0 else f"``{part}``"
        for number, part in enumerate(parts)
    ]
    return r"\ ".join(shown)


def setup(app: Any) -> None:
    """Write the generated pages before anything is read."""
    generate.write_pages(Path(__file__).parent / "generated")
    app.connect("autodoc-process-docstring", plain_docstring, priority=400)  # before napoleon
