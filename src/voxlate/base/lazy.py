"""What is imported when it is first used: names of packages, as the stub beside `__init__.py` lists them, and providers."""

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

# implementations of a wing that lower wings load by name: name -> "module:name"
PROVIDERS = dict[str, str]()


def names_of_stub(package: str, init: str) -> tuple[Callable[[str], Any], list[str]]:
    """The `__getattr__` of a package, and the names that its stub imports. Type checkers read the same stub."""
    stub = Path(init).with_suffix(".pyi")
    imports = ast.parse(stub.read_text(encoding="utf-8")).body
    homes = {
        alias.name: f"{statement.module}"
        for statement in imports
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }

    def get(name: str) -> Any:
        """Import a name such as `voxlate.load` on first use."""
        if name in homes:
            return getattr(importlib.import_module(homes[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, list(homes)
