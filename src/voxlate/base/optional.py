"""Packages that only an extra of voxlate installs."""

import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from voxlate.base.errors import BadInput


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
            # voxlate-run has neither a command line nor extras
            whole = importlib.util.find_spec("voxlate.commands.cli") is not None
            package = f"'.[{self.extra}]'" if whole else self.module.partition(".")[0]
            raise BadInput(
                f"{self.where}: expected {self.purpose}, found it not installed. Run pip install {package}{self.instead}."
            ) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.load(), name)


def optional_package(*fields: Any) -> ModuleType:
    """Import a package now; fields: those of `Package`."""
    return Package(*fields).load()


pydicom = Package("pydicom", "dicom", "DICOM", "pydicom to read and write DICOM files")
