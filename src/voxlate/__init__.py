"""voxlate: turn one kind of medical scan into another. Research software, not a medical device."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxlate.cli.api import (
        adapt,
        calibrate,
        compare,
        demo,
        evaluate,
        export,
        import_weights,
        info,
        likelihood,
        list_starters,
        listen,
        load,
        phantom,
        plan,
        prepare,
        pseudonym_key,
        pseudonymise,
        recipes,
        report,
        serve,
        synthesise,
        train,
    )

# torch reads this once, when it is imported
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

__version__ = "0.6.0"
__all__ = [
    "__version__",
    "adapt",
    "calibrate",
    "compare",
    "demo",
    "evaluate",
    "export",
    "import_weights",
    "info",
    "likelihood",
    "list_starters",
    "listen",
    "load",
    "phantom",
    "plan",
    "prepare",
    "pseudonym_key",
    "pseudonymise",
    "recipes",
    "report",
    "serve",
    "synthesise",
    "train",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import a function such as `voxlate.load` on first use."""
    if name == "load":  # it needs no imports of training
        from voxlate.cli.arguments import checked
        from voxlate.synthesis.model import load

        return checked(load)
    if name in __all__:
        from voxlate.cli import api

        return getattr(api, name)
    raise AttributeError(f"module 'voxlate' has no attribute {name!r}")
