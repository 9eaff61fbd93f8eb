"""Imports point downward only."""

import ast
from pathlib import Path

import pytest

import voxlate

ROOT = Path(voxlate.__file__).parent

# A module may import modules of lower levels and of its own package; diffusion, images and nets do not know each other.
LEVELS = {
    "errors": 0, "memory": 0, "files": 1, "config": 1, "batch": 1,
    "diffusion": 2, "images": 2, "nets": 2,
    "measures": 1, "significance": 1, "features": 3, "lpips": 3, "frechet": 3, "regions": 4, "distances": 4,
    "metrics": 3, "methods": 3, "data": 3, "ranges": 3, "pictures": 3, "optimise": 3,
    "trivial": 4, "charts": 4, "gallery": 5,
    "recipe_text": 2, "stopping": 2, "recipe": 4, "build": 5, "inputs": 6,
    "run": 6, "keys": 6, "journal": 6, "validate": 6,
    "train": 7, "synthesise": 7, "imports": 7, "scores": 7, "judge": 8, "compare_table": 8, "compare": 9, "evaluate": 9,
    "cases": 8, "info": 8, "likelihood": 7,
    "progress": 1, "options": 1, "panels": 10, "pages": 10, "report": 11, "side_by_side": 11, "demo": 12,
    "commands": 13, "cli": 14, "__main__": 15,
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
    assert len(path.read_text().splitlines()) <= 300
