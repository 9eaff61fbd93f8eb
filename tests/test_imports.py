"""Imports point downward only."""

import ast
from collections import Counter
from pathlib import Path

from sources import files, nodes, text_of

# A folder may import folders of lower levels and itself; diffusion, images and nets do not know each other.
LEVELS = {
    "system": 0, "options": 1, "items": 1, "batch": 2, "diffusion": 3, "images": 3, "nets": 3, "starters": 3, "formats": 4, "methods": 4,
    "executors": 4, "pacs": 5, "phantoms": 5, "cohorts": 5, "consumers": 5, "cases": 6, "batches": 7, "recipe": 8, "scoring": 9, "comparing": 10,
    "training": 10, "planning": 11, "trust": 11, "synthesis": 12, "delivery": 13, "carry": 13, "reports": 14, "api": 15,
    "web": 16, "cli": 17, "__main__": 18,
}  # fmt: skip


def _modules() -> list[Path]:
    return [path for path in files() if path.name != "__init__.py"]


def _imported_names(path: Path) -> set[str]:
    """The modules and names of voxlate that a file imports, also inside functions and `if TYPE_CHECKING:`."""
    names = set[str]()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.removeprefix("voxlate.") for name in names if name.startswith("voxlate.")}


def _folders(path: Path) -> set[str]:
    return {name.split(".")[0] for name in _imported_names(path)} - {"__version__"}


def _files(path: Path) -> set[Path]:
    found = {Path(*name.split(".")).with_suffix(".py") for name in _imported_names(path)}
    return (found & set(files())) - {path}


def test_every_module_imports_only_what_lies_below_it():
    violations = []
    for path in _modules():
        here = path.parts[0].removesuffix(".py")
        for other in sorted(_folders(path) - {here}):
            if LEVELS[other] >= LEVELS[here]:
                levels = f"level {LEVELS[here]} imports level {LEVELS[other]}"
                violations.append(f"{path} imports {other} ({levels})")
    assert not violations, "\n".join(violations)


def test_no_module_of_the_diffusion_core_imports_images_or_networks():
    allowed = {"diffusion", "system", "batch"}
    core = [path for path in _modules() if path.parts[0] == "diffusion"]
    assert core
    for path in core:
        assert _folders(path) <= allowed, path


def test_no_modules_import_each_other_in_a_circle():
    imports = {path: _files(path) for path in _modules()}
    while leaves := {path for path, others in imports.items() if not others & imports.keys()}:
        imports = {path: others for path, others in imports.items() if path not in leaves}
    assert not imports, f"in or above a circle: {sorted(map(str, imports))}"


def test_no_folder_has_more_than_4500_lines_of_code():
    lines = Counter[str]()
    for path in _modules():
        written = [line.strip() for line in text_of(path).splitlines()]
        lines[path.parts[0]] += sum(not line.startswith("#") for line in written if line)
    folder, most = lines.most_common(1)[0]
    assert most <= 4500, f"{folder} has {most} lines: give a part of it a folder of its own"
