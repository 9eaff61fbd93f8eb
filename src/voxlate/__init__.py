"""voxlate: turn one kind of medical scan into another. Research software, not a medical device."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxlate.api.catalogue import list_starters as list_starters
    from voxlate.api.catalogue import recipes as recipes
    from voxlate.api.cohorts import phantom as phantom
    from voxlate.api.cohorts import prepare as prepare
    from voxlate.api.cohorts import pseudonym_key as pseudonym_key
    from voxlate.api.cohorts import pseudonymise as pseudonymise
    from voxlate.api.demo import demo as demo
    from voxlate.api.facts import info as info
    from voxlate.api.images import compare as compare
    from voxlate.api.images import evaluate as evaluate
    from voxlate.api.images import export as export
    from voxlate.api.images import likelihood as likelihood
    from voxlate.api.images import listen as listen
    from voxlate.api.images import load as load
    from voxlate.api.images import report as report
    from voxlate.api.images import synthesise as synthesise
    from voxlate.api.images import synthesize as synthesize
    from voxlate.api.training import adapt as adapt
    from voxlate.api.training import calibrate as calibrate
    from voxlate.api.training import import_weights as import_weights
    from voxlate.api.training import plan as plan
    from voxlate.api.training import train as train
    from voxlate.images.grid import Volume as Volume
    from voxlate.options.calibrate import CalibrateOptions as CalibrateOptions
    from voxlate.options.evaluate import CompareOptions as CompareOptions
    from voxlate.options.evaluate import EvaluateOptions as EvaluateOptions
    from voxlate.options.evaluate import LikelihoodOptions as LikelihoodOptions
    from voxlate.options.phantom import PhantomOptions as PhantomOptions
    from voxlate.options.prepare import PrepareOptions as PrepareOptions
    from voxlate.options.share import ExportOptions as ExportOptions
    from voxlate.options.share import ListenOptions as ListenOptions
    from voxlate.options.share import ServeOptions as ServeOptions
    from voxlate.options.synthesise import SynthOptions as SynthOptions
    from voxlate.options.train import AdaptOptions as AdaptOptions
    from voxlate.options.train import ImportOptions as ImportOptions
    from voxlate.options.train import PlanOptions as PlanOptions
    from voxlate.options.train import TrainOptions as TrainOptions
    from voxlate.system.errors import BadInput as BadInput
    from voxlate.web.server import serve as serve

# torch reads this once, when it is imported
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

__version__ = "0.6.0"
# By module, what it gives to this package: each module is imported when one of its names is first used.
_HOMES = {
    "api.catalogue": ("list_starters", "recipes"),
    "api.demo": ("demo",),
    "api.facts": ("info",),
    "api.cohorts": ("phantom", "prepare", "pseudonym_key", "pseudonymise"),
    "api.images": (
        "compare",
        "evaluate",
        "export",
        "likelihood",
        "listen",
        "load",
        "report",
        "synthesise",
        "synthesize",
    ),
    "api.training": ("adapt", "calibrate", "import_weights", "plan", "train"),
    "web.server": ("serve",),
    "images.grid": ("Volume",),
    "system.errors": ("BadInput",),
    "options.calibrate": ("CalibrateOptions",),
    "options.evaluate": ("CompareOptions", "EvaluateOptions", "LikelihoodOptions"),
    "options.phantom": ("PhantomOptions",),
    "options.prepare": ("PrepareOptions",),
    "options.share": ("ExportOptions", "ListenOptions", "ServeOptions"),
    "options.synthesise": ("SynthOptions",),
    "options.train": ("AdaptOptions", "ImportOptions", "PlanOptions", "TrainOptions"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["__version__", *_MODULES]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import a function such as `voxlate.load` on first use."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"voxlate.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'voxlate' has no attribute {name!r}")
