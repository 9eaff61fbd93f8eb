"""A graph of ONNX as the network of a synthesis, run by onnxruntime."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from voxlate import __version__
from voxlate.base.arrays import Float32
from voxlate.base.errors import BadInput
from voxlate.base.streams import ArrayNoise
from voxlate.exchange.model_file import TOLERANCE, Carried, Graph
from voxlate.scans.formats.format import errors_as, first_line
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.network import Calls, NoiseOf
from voxlate.synthesis.patch import Patch


@dataclass(frozen=True)
class OnnxNetwork:
    """An open graph, whose file has this hash; made_by: the software that exported it."""

    graph: Graph
    session: Any
    sha256: str
    made_by: Mapping[str, str]
    notice: str
    calls: Calls = field(default_factory=Calls)

    device: ClassVar[str] = "cpu"
    device_name: ClassVar[str] = "cpu"
    precision: ClassVar[str] = "float32"

    @property
    def entry(self) -> Mapping[str, Any]:
        """The graph, and the precision in which it computes."""
        return {"graph": self.sha256, "precision": self.precision}

    @property
    def software(self) -> Mapping[str, Any]:
        """The version that computes, the software that exported the graph, and the notice that it is no medical device."""
        return {"voxlate": __version__, "exported_by": self.made_by, "notice": self.notice}

    def evaluations(self, depth: int) -> float:
        """The number of evaluations for a sample."""
        return self.graph.evaluations

    def mean(self) -> None:
        """The graph itself goes the way from the mean to the sample."""

    def with_options(
        self, facts: ModelFacts, allow_code: bool, changes: Mapping[str, Any]
    ) -> "tuple[ModelFacts, OnnxNetwork]":
        """The model itself; raises BadInput for any option."""
        for name, value in changes.items():
            if value is not None:
                raise _fixed(f"synth.{name}")
        return facts, self

    def like(
        self, facts: ModelFacts, recipe: str, allow_code: bool
    ) -> "tuple[ModelFacts, OnnxNetwork]":
        """Raises BadInput."""
        raise _fixed(recipe)

    @cached_property
    def inputs(self) -> list[str]:
        """The names of the inputs that the graph uses."""
        return [wanted.name for wanted in self.session.get_inputs()]

    def sample(self, patches: Sequence[Patch], noise: NoiseOf) -> Float32:
        """One sample of each patch in network units, [B, T, D, H, W]."""
        sources, masks = zip(*(patch.sources() for patch in patches))
        known = {
            "source": np.stack(sources),
            "mask": np.stack(masks)[:, None],
            "present": np.stack([patch.present for patch in patches]),
        }
        if self.graph.draws:
            depth, *sides = known["source"].shape[2:]
            height, width = (-(-side // self.graph.shrink) for side in sides)
            stream = ArrayNoise(noise.seed, noise.items, noise.samples, noise.tiles)
            shape = (self.graph.noise_channels, depth, height, width)
            known["noise"] = np.stack([stream.normal(shape) for _ in range(self.graph.draws)])
        given = {name: known[name] for name in self.inputs}
        image = self._one_by_one(given) if self.graph.single else self.run(given)
        self.calls.count += round(len(image) * self.graph.evaluations)
        return image

    def _one_by_one(self, given: Mapping[str, np.ndarray]) -> Float32:
        images = []
        for item in range(len(given["source"])):
            one = slice(item, item + 1)
            images.append(
                self.run(
                    {name: x[:, one] if name == "noise" else x[one] for name, x in given.items()}
                )
            )
        return np.concatenate(images)

    def run(self, inputs: Mapping[str, np.ndarray]) -> Float32:
        """The image of a graph's inputs."""
        shape = "×".join(map(str, inputs["source"].shape))
        with errors_as(
            f"{self.graph.file}: expected patches that the graph can run, found {shape}",
            "Synthesise with voxlate itself.",
        ):
            (image,) = self.session.run(["image"], dict(inputs))
        return np.asarray(image, np.float32)

    @contextlib.contextmanager
    def count(self, report: Callable[[int], None]) -> Iterator[Calls]:
        """Counts the evaluations of the network inside the block."""
        self.calls.count = 0
        yield self.calls


def _fixed(option: str) -> BadInput:
    return BadInput(
        f"{option}: expected no option of the synthesis for an exported model, whose graph holds them, found one. Export the run again with it."
    )


def open_session(path: Path, threads: int | None = None) -> Any:
    """A session of onnxruntime for a graph; its failures raise exceptions of its own kinds, and print nothing.

    threads: of the computation; default: OMP_NUM_THREADS, else as onnxruntime chooses.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    asked = threads or int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
    # each thread takes memory, whether a core is there for it or not
    options.intra_op_num_threads = min(asked, os.cpu_count() or 1)
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )


def open_network(carried: Carried, threads: int | None = None) -> OnnxNetwork:
    """Open the graph of a model, and compare its self-test with torch's; raises BadInput where it differs.

    threads: see open_session.
    """
    import onnxruntime

    stated = carried.description
    graph = stated.graph
    path = carried.folder / graph.file
    try:
        network = OnnxNetwork(
            graph,
            open_session(path, threads),
            stated.files[graph.file],
            stated.made_by,
            stated.notice,
        )
        selftest = carried.part("selftest")
        given = selftest.pop("image")
        image = network.run({name: selftest[name] for name in network.inputs})
    except Exception as error:  # onnxruntime has an exception of its own for each kind of failure
        raise BadInput(
            f"{path}: expected a graph that onnxruntime {onnxruntime.__version__} can run, found none ({first_line(error)}). Install a newer onnxruntime, or export the run again."
        ) from error
    apart = float(np.abs(image - given).max()) if image.shape == given.shape else np.inf
    most = 2 * TOLERANCE + graph.largest_loss
    if not apart <= most:
        raise BadInput(
            f"{path}: expected the image of its self-test to within {most:.2g} network units, found it {apart:.2g} away. Do not use it on this machine: install another onnxruntime, or export the run again."
        )
    return network
