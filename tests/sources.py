"""The source of the package as text and as syntax, read and parsed once for all tests that look at it."""

import ast
from functools import cache
from pathlib import Path

import voxlate

ROOT = Path(voxlate.__file__).parent


@cache
def files():
    """The files of the package, by their paths from its folder."""
    return tuple(path.relative_to(ROOT) for path in sorted(ROOT.rglob("*.py")))


@cache
def text_of(path):
    """The text of a file."""
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def nodes(path):
    """All nodes of the syntax tree of a file."""
    return tuple(ast.walk(ast.parse(text_of(path))))


@cache
def imported_names(path):
    """The modules and names of voxlate that a file imports, also inside functions and `if TYPE_CHECKING:`."""
    names = set[str]()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(name.removeprefix("voxlate.") for name in names if name.startswith("voxlate."))


@cache
def imported_files(path):
    """The other files of the package that a file imports."""
    modules = {Path(*name.split(".")).with_suffix(".py") for name in imported_names(path)}
    return frozenset((modules & {*files()}) - {path})
