"""Imports point downward only."""

import ast
import re
from pathlib import Path

from sources import files, imported_files, imported_names, nodes

# The wings that a wing may import beside itself, from the ground up.
ALL_BUT_PAGE = (
    "base", "scans", "checks", "anatomy", "synthesis", "science", "training", "evaluation", "clinic", "exchange",
    "commands",
)  # fmt: skip
LEAVES = {"anatomy", "clinic", "exchange", "page"}  # without which all but commands work
WORK = ("base", "scans", "checks", "synthesis", "science", "training", "evaluation")
MAY_IMPORT = {
    "base": (),
    "scans": ("base",),
    "checks": ("base", "scans"),
    "anatomy": ("base", "scans"),
    "synthesis": ("base", "scans", "checks"),
    "science": ("base",),
    "training": WORK[:5],
    "evaluation": WORK[:6],
    "clinic": WORK,
    "exchange": WORK,
    "commands": ALL_BUT_PAGE[:-1],
    "page": ALL_BUT_PAGE,
}


def _modules() -> list[Path]:
    return [path for path in files() if path.name != "__init__.py"]


def _folders(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_names(path)} - {"__version__"}


def test_the_package_is_twelve_wings():
    assert {path.parts[0] for path in files() if len(path.parts) > 1} == set(MAY_IMPORT)


def test_wings_import_only_what_lies_below_them():
    for path in _modules():
        wing = path.parts[0]
        if wing in MAY_IMPORT:
            wrong = (_folders(path) & MAY_IMPORT.keys()) - {wing, *MAY_IMPORT[wing]}
            assert not wrong, path


def test_no_text_names_a_module_of_a_leaf_but_in_itself_and_in_what_imports_leaves():
    """Kinds and homes are imported by their names."""
    for path in _modules():
        wing = path.parts[0]
        if wing in WORK:
            texts = {node.value for node in nodes(path) if isinstance(node, ast.Constant)}
            named = re.findall(r"\bvoxlate\.(\w+)", " ".join(map(str, texts)))
            assert not LEAVES & {*named}, path


def test_no_modules_import_each_other_in_a_circle():
    imports = {path: imported_files(path) for path in _modules()}
    while leaves := {path for path, others in imports.items() if not others & imports.keys()}:
        imports = {path: others for path, others in imports.items() if path not in leaves}
    assert not imports, f"in or above a circle: {sorted(map(str, imports))}"
