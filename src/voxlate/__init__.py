"""voxlate: turn one kind of medical scan into another. Research software, not a medical device."""

import os
from pathlib import Path

from voxlate.base.optional import PROVIDERS, names_of_stub

# torch reads this once, when it is imported
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

# here, because each process that uses a part of the package imports this file first
PROVIDERS["data.physics"] = "voxlate.anatomy.physics:PhysicsSettings"
PROVIDERS["contrasts"] = "voxlate.anatomy.drawn:Drawn"

__version__ = "0.7.0"
__getattr__, _names = names_of_stub(__name__, str(Path(__file__).with_name("names.py")))
__all__ = ["__version__", *_names]


def __dir__() -> list[str]:
    return __all__
