"""voxlate: turn one kind of medical scan into another. Research software, not a medical device."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxlate.synthesis.model import load as load

__version__ = "0.6.0"
__all__ = ["__version__", "load"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """`voxlate.load(run)` opens a trained model; torch is imported only then."""
    if name == "load":
        from voxlate.synthesis.model import load

        return load
    raise AttributeError(f"module 'voxlate' has no attribute {name!r}")
