"""What the readers of all file formats share: what they give, and one sentence for what other libraries raise."""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from voxlate.errors import BadInput
from voxlate.images.grid import Grid


@dataclass(frozen=True)
class Stored:
    """What a file holds: data [D, H, W] float32, affine to RAS millimetres, and the kind that the file states.

    note: how it was taken from there; guesses: a sentence on each thing that was taken to be so and is not stated;
    not_hu: why the values cannot be Hounsfield units; as_hu: a guess that holds where they are taken for some.
    """

    data: np.ndarray
    affine: np.ndarray
    unit: str = ""
    modality: str = ""
    note: str = ""
    guesses: tuple[str, ...] = ()
    not_hu: str = ""
    as_hu: str = ""


@dataclass(frozen=True)
class DynamicScan:
    """A scan in frames, all on one grid.

    times_s: [count], seconds since the first; None where the file does not state them. planes(): all planes [H, W],
    frame by frame. read(k): frame k, counted from 0.
    """

    grid: Grid
    count: int
    times_s: np.ndarray | None
    planes: Callable[[], Iterator[np.ndarray]]
    read: Callable[[int], Stored]


def check_numbers(dtype: np.dtype, where: object) -> None:
    """Raise BadInput for voxels that are no real numbers, one a voxel."""
    if dtype.kind not in "biuf":
        raise BadInput(
            f"{where}: expected real numbers, found {dtype}. Save the magnitude of complex voxels, and colour as grey."
        )


def reason(error: BaseException) -> str:
    """The first line of an error, for a sentence."""
    lines = str(error).strip().splitlines()
    return (lines[0][:160] if lines else type(error).__name__).rstrip(".")


@contextlib.contextmanager
def errors_as(sentence: str, advice: str) -> Iterator[None]:
    """Make BadInput of whatever a library raises inside: the sentence, the error's first line in brackets, the advice.

    Readers raise all sorts of errors for damaged files, PIL even a SyntaxError.
    """
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{sentence} ({reason(error)}). {advice}") from error


def extra(module: str, name: str, where: object, purpose: str, instead: str = "") -> ModuleType:
    """A package that only the extra `name` installs; raises BadInput, with what to do, where it is absent."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BadInput(
            f"{where}: expected {purpose}, found it not installed. Run pip install 'voxlate[{name}]'{instead}."
        ) from error
