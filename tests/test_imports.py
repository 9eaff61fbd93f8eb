"""Imports point downward only."""

import ast
from pathlib import Path

import voxlate

ROOT = Path(voxlate.__file__).parent

# A folder may import folders of lower levels and itself; diffusion, images and nets do not know each other.
LEVELS = {
    "system": 0, "options": 1, "batch": 2, "diffusion": 3, "images": 3, "nets": 3, "starters": 3, "formats": 4, "methods": 4,
    "executors": 4, "pacs": 5, "phantoms": 5, "cohorts": 5, "cases": 6, "batches": 7, "recipe": 8, "scoring": 9,
    "training": 10, "planning": 11, "trust": 11, "synthesis": 12, "delivery": 13, "reports": 14, "api": 15,
    "web": 16, "cli": 17, "__main__": 18,
}  # fmt: skip


def _modules() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if path.name != "__init__.py"]


def _part(dotted: str) -> str:
    return dotted.split(".")[1] if "." in dotted else ""


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("voxlate"):
            named = (
                {f"voxlate.{alias.name}" for alias in node.names}
                if node.module == "voxlate"
                else {node.module}
            )
            found |= {_part(name) for name in named}
        elif isinstance(node, ast.Import):
            found |= {_part(alias.name) for alias in node.names if alias.name.startswith("voxlate")}
    return found - {"", "__version__"}


def test_every_module_imports_only_what_lies_below_it():
    violations = []
    for path in _modules():
        here = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for other in sorted(_imports(path) - {here}):
            if LEVELS[other] >= LEVELS[here]:
                name = path.relative_to(ROOT)
                violations.append(
                    f"{name} (level {LEVELS[here]}) imports {other} (level {LEVELS[other]})"
                )
    assert not violations, "\n".join(violations)


def test_no_module_of_the_diffusion_core_imports_images_or_networks():
    allowed = {"diffusion", "system", "batch"}
    violations = [
        f"{path.name} imports {other}"
        for path in sorted((ROOT / "diffusion").glob("*.py"))
        for other in sorted(_imports(path) - allowed)
    ]
    assert not violations, "\n".join(violations)


def _imported_modules(path: Path) -> set[Path]:
    """The files of voxlate that a file imports, also inside functions and `if TYPE_CHECKING:`."""
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    files = {
        ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py")
        for name in names
        if name.startswith("voxlate.")
    }
    return {file for file in files if file.is_file()} - {path}


def test_no_modules_import_each_other_in_a_circle():
    imports = {path: _imported_modules(path) for path in _modules()}
    while leaves := {path for path, others in imports.items() if not others & imports.keys()}:
        imports = {path: others for path, others in imports.items() if path not in leaves}
    assert not imports, (
        f"in or above a circle: {sorted(str(path.relative_to(ROOT)) for path in imports)}"
    )
