"""Imports point downward only."""

import ast
from pathlib import Path

import pytest

import voxlate

ROOT = Path(voxlate.__file__).parent

# A module may import modules of lower levels, and of its own package; the three packages of level 1 do not know each other.
LEVELS = {
    "errors": 0, "files": 0, "config": 0, "batch": 0,
    "diffusion": 1, "images": 1, "nets": 1,
    "metrics": 2, "methods": 2, "data": 2, "ranges": 2, "pictures": 2, "optimise": 2, "trivial": 3,
    "recipe": 4, "run": 5, "keys": 5, "journal": 5, "validate": 5,
    "train": 6, "synthesise": 6, "scores": 6, "evaluate": 7, "cases": 7, "info": 6,
    "report": 8, "demo": 9, "cli": 10, "__main__": 11,
}  # fmt: skip


def _modules() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if path.name != "__init__.py"]


def _part(dotted: str) -> str:
    return dotted.split(".")[1] if "." in dotted else ""


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("voxlate"):
            named = {f"voxlate.{alias.name}" for alias in node.names} if node.module == "voxlate" else {node.module}
            found |= {_part(name) for name in named}
        elif isinstance(node, ast.Import):
            found |= {_part(alias.name) for alias in node.names if alias.name.startswith("voxlate")}
    return found - {"", "__version__"}


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_lies_below_it(path):
    here = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for other in _imports(path) - {here}:
        assert LEVELS[other] < LEVELS[here], f"{here} (level {LEVELS[here]}) imports {other} (level {LEVELS[other]})"


def test_no_module_of_the_diffusion_core_knows_images_or_networks():
    for path in (ROOT / "diffusion").glob("*.py"):
        assert _imports(path) <= {"diffusion", "config", "errors", "batch"}, path


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_stays_small_enough_to_read(path):
    assert len(path.read_text().splitlines()) <= 280
