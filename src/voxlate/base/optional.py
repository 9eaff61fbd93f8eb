"""What is imported when it is first used: packages of an extra, names of a package as its stub lists them, and providers."""

import ast
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from voxlate.base.errors import BadInput

# implementations of a wing that lower wings load by name: name -> "module:name"
PROVIDERS = dict[str, str]()


@dataclass(frozen=True)
class Package:
    """A package that the extra of this name installs, and that is imported when an attribute of it is used."""

    module: str
    extra: str
    where: object
    purpose: str
    instead: str = ""

    def load(self) -> ModuleType:
        """The package; raises BadInput, with what to do, where it is absent."""
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            raise BadInput(
                f"{self.where}: expected {self.purpose}, found it not installed. Run pip install 'voxlate[{self.extra}]'{self.instead}."
            ) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.load(), name)


def optional_package(*fields: Any) -> ModuleType:
    """Import a package now; fields: those of `Package`."""
    return Package(*fields).load()


pydicom = Package("pydicom", "dicom", "DICOM", "pydicom to read and write DICOM files")


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
