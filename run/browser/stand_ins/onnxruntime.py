"""onnxruntime in a browser: the part of its interface that the runner calls, computed by onnxruntime-web.

The worker gives `open_graph` and `compute` (worker.js); both are promises, for which this module waits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import js
import numpy as np
from pyodide.ffi import run_sync, to_js

__version__ = f"web {js.ort_version}"


@dataclass
class SessionOptions:
    """Options that mean nothing in a browser, where the page chooses the threads."""

    intra_op_num_threads: int = 0
    log_severity_level: int = 3


@dataclass(frozen=True)
class Wanted:
    """An input of a graph."""

    name: str


class InferenceSession:
    """An open graph."""

    def __init__(self, model: bytes, options: SessionOptions, providers: Sequence[str]) -> None:
        self._session: Any = run_sync(js.open_graph(to_js(model)))

    def get_inputs(self) -> list[Wanted]:
        """The inputs of the graph."""
        return [Wanted(name) for name in self._session.inputNames.to_py()]

    def run(self, names: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of these names."""
        given = [[name, *_parts(array)] for name, array in inputs.items()]
        outputs = run_sync(js.compute(self._session, to_js(given), to_js(list(names))))
        return [np.asarray(output.data.to_py()).reshape(output.dims.to_py()) for output in outputs]


def _parts(array: np.ndarray) -> list[Any]:
    """The type, the values and the shape of an array, as onnxruntime-web takes them."""
    kind, values = ("bool", array.view(np.uint8)) if array.dtype == bool else ("float32", array)
    return [kind, np.ascontiguousarray(values).ravel(), list(array.shape)]
