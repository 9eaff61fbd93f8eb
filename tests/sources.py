"""The source of the package as syntax trees, parsed once for all tests that look at it."""

import ast
from functools import cache
from pathlib import Path

import voxlate

ROOT = Path(voxlate.__file__).parent


@cache
def trees() -> dict[Path, ast.Module]:
    """Each file of the package, by its path from the package's folder."""
    return {
        path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(ROOT.rglob("*.py"))
    }


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of a file."""
    return list(ast.walk(trees()[path]))
