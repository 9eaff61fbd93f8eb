"""The graph of a starter: its network as onnxruntime computes it on a processor, without torch and the same on every machine.

network.onnx holds no weights: its initialisers are tensors of the weights' own file, which graph.json names, as float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.files import read_json, sha256_of
from voxlate.base.messages import NOTICE
from voxlate.base.optional import optional_package
from voxlate.base.records import Digest, FileName, Record, Text
from voxlate.scans.cases.case import map_arrays
from voxlate.synthesis.exported import NETWORK, Graph, OnnxNetwork, open_session
from voxlate.synthesis.facts import ModelFacts

GRAPH = "graph.json"
FLOAT32 = {"precision": "float32"}  # which a graph computes in, whatever is asked


@dataclass(frozen=True)
class GraphOfWeights:
    """The content of graph.json: what the graph is, its SHA-256, the hash of its weights, and their names by initialiser."""

    graph: Graph
    sha256: Digest
    weights: Text
    tensors: dict[Text, FileName]


@dataclass(frozen=True)
class RunGraph(OnnxNetwork):
    """The network of a run on a processor; other options than the run's own are torch's.

    weights: the tensors of its initialisers; origin: the run.
    """

    weights: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    origin: Path = Path()

    def open(self, threads: int) -> Any:
        """A session with the weights."""
        return open_session(self.content, threads, self.weights)

    def with_options(
        self, facts: ModelFacts, allow_code: bool, like: str | None, changes: Mapping[str, Any]
    ) -> Any:
        """The run's network in torch with other options; the graph itself for its own precision."""
        if like is None and changes == FLOAT32:
            return facts, self
        option = like or f"synth.{next(iter(changes))}"
        optional_package("torch", "train", option, "torch for other options than the model's own")
        from voxlate.training.torch_network import open_run

        opened = open_run(self.origin, self.device, allow_code, None)
        return opened.network.with_options(opened.facts, allow_code, like, changes)

    def __reduce__(self) -> tuple[Any, ...]:
        made = partial(RunGraph, weights=self.weights, origin=self.origin)
        return made, (self.graph, self.content, self.sha256, self.exported)


def has_graph(folder: Path) -> bool:
    """Whether a run has a graph beside its weights."""
    return (folder / GRAPH).is_file()


def open_run_graph(folder: Path, weights: Path, weights_hash: str) -> RunGraph:
    """The graph of a run with its weights, which have this hash; raises BadInput where the files do not fit together."""
    record = Record(folder / GRAPH, "the graph of a model", "Remove it, and torch computes.")
    stated: GraphOfWeights = record.fill(GraphOfWeights, read_json(folder / GRAPH))
    record.check(stated.weights == weights_hash, "one of other weights")
    path = folder / NETWORK
    record.check(path.is_file() and sha256_of(path) == stated.sha256, f"another {NETWORK} or none")
    arrays = map_arrays(weights)
    record.check(arrays.keys() >= {*stated.tensors.values()}, "names of other weights")
    used = {name: arrays[tensor] for name, tensor in stated.tensors.items()}
    about = {"onnxruntime": metadata.version("onnxruntime"), "notice": NOTICE}
    content = path.read_bytes()
    return RunGraph(stated.graph, content, stated.sha256, about, weights=used, origin=folder)
