"""Packages that only an extra of voxlate installs."""

import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from voxlate.base.errors import BadInput


def optional_package(
    module: str,
    extra: str,
    where: object,
    purpose: str,
    instead: str = "",
) -> ModuleType:
    """Import a package that the extra of this name installs; raises BadInput, with what to do, where it is absent."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # voxlate-run has neither a command line nor extras
        whole = importlib.util.find_spec("voxlate.commands.cli") is not None
        package = f"'.[{extra}]'" if whole else module.partition(".")[0]
        raise BadInput(
            f"{where}: expected {purpose}, found it not installed. Run pip install {package}{instead}."
        ) from error


@dataclass(frozen=True)
class Package:
    """A package that is imported when an attribute of it is used; the fields are those of `optional_package`."""

    module: str
    extra: str
    where: str
    purpose: str
    instead: str = ""

    def load(self) -> ModuleType:
        """The package; raises BadInput where it is absent."""
        return optional_package(self.module, self.extra, self.where, self.purpose, self.instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.load(), name)


pydicom = Package("pydicom", "dicom", "DICOM", "pydicom to read and write DICOM files")
