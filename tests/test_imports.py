"""Imports point downward only."""

import ast
from pathlib import Path

import pytest

import voxlate

ROOT = Path(voxlate.__file__).parent

# A folder may import folders of lower levels and itself; diffusion, images and nets do not know each other.
LEVELS = {
    "errors": 0, "machine": 0, "dataframe": 1, "files": 1, "config": 1, "devices": 1,
    "records": 2, "batch": 2,
    "diffusion": 3, "images": 3, "nets": 3,
    "phantoms": 4, "methods": 4, "data": 5, "recipe": 6,
    "scoring": 7, "training": 8, "trust": 8, "planning": 9, "synthesis": 9, "reports": 10, "cli": 11,
    "__main__": 12,
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
        assert _imports(path) <= {"diffusion", "config", "devices", "errors", "batch"}, path
