"""The source of the package as text and as syntax, read and parsed once for all tests that look at it."""

import ast
from functools import cache
from pathlib import Path

import voxlate

ROOT = Path(voxlate.__file__).parent


@cache
def files() -> tuple[Path, ...]:
    """The files of the package, by their paths from its folder."""
    return tuple(path.relative_to(ROOT) for path in sorted(ROOT.rglob("*.py")))


@cache
def text_of(path: Path) -> str:
    """The text of a file."""
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of the syntax tree of a file."""
    return tuple(ast.walk(ast.parse(text_of(path))))
