"""The filters of SciPy; where it is not installed (voxlate-run), those of NumPy that a synthesis needs."""

import importlib
from types import ModuleType


def _filters() -> ModuleType:
    try:
        return importlib.import_module("scipy.ndimage")
    except ModuleNotFoundError:
        return importlib.import_module("voxlate.scans.images.numpy_filters")


ndimage = _filters()
