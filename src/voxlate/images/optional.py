"""Packages that only an extra of voxlate installs."""

import importlib
from types import ModuleType

from voxlate.system.errors import BadInput


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
        raise BadInput(
            f"{where}: expected {purpose}, found it not installed. Run pip install 'voxlate[{extra}]'{instead}."
        ) from error
