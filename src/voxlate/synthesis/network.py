"""What a network is to a synthesis: torch, a graph of ONNX that onnxruntime runs, or whatever else gives images of patches."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from voxlate import __version__
from voxlate.base.array_types import Float32
from voxlate.base.errors import BadInput
from voxlate.base.records import FileName, Several
from voxlate.base.streams import Stream, Streams, Tile
from voxlate.scans.formats.format import errors_as, first_line
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.patch import Patch

TOLERANCE = 1e-3  # of the range of network units, 2: how far a machine may be from torch


@dataclass
class Calls:
    """The number of evaluations of a network; a batch of four counts four."""

    count: int = 0


@dataclass(frozen=True)
class NoiseOf:
    """The arguments of base.streams.Streams for one sample of some patches."""

    seed: int
    items: Sequence[Sequence[Stream]]
    samples: int
    tiles: Sequence[Tile] | None

    def of(self, part: slice) -> "NoiseOf":
        """The noise of a part of the patches."""
        tiles = None if self.tiles is None else self.tiles[part]
        return replace(self, items=self.items[part], tiles=tiles)


@runtime_checkable  # as checks of options need it
class Network(Protocol):
    """What synthesises the images of patches, on which device and in which precision."""

    @property
    def device(self) -> Any: ...

    @property
    def device_name(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def entry(self) -> Mapping[str, Any]:
        """What decides its images beside the weights and the options, for the model's entry in a provenance."""
        ...

    @property
    def software(self) -> Mapping[str, Any]:
        """The entries of a provenance on the software that computes, and the notice that it is no medical device."""
        ...

    def sample(self, patches: Sequence[Patch], noise: NoiseOf) -> Float32:
        """One sample of each patch in network units, [B, T, D, H, W]; the T channels of each kept state follow."""
        ...

    def count(self) -> AbstractContextManager[Calls]:
        """Counts the evaluations of the network inside the block."""
        ...

    def mean(self) -> "tuple[ModelFacts, Network] | None":
        """The model of the mean prediction, around which this one samples; None where there is none."""
        ...

    def with_options(
        self, facts: ModelFacts, allow_code: bool, changes: Mapping[str, Any]
    ) -> "tuple[ModelFacts, Network]":
        """The model with other keys of synth; raises BadInput for those that it does not take."""
        ...

    def like(
        self, facts: ModelFacts, recipe: str, allow_code: bool
    ) -> "tuple[ModelFacts, Network]":
        """The model with the synth table of another recipe of the same method; raises BadInput for others."""
        ...


@dataclass(frozen=True)
class Graph:
    """The graph of one sample of a patch.

    single: whether it takes one item at a time; draws: arrays of noise of a sample, each of `noise_channels`, at height and width divided by `shrink`; largest_loss: by
    measurement the largest distance from torch's float32 on the self-test, in network units; evaluations: of
    the network, in one sample.
    """

    file: FileName
    single: bool
    draws: int
    noise_channels: int
    shrink: Several
    evaluations: float
    largest_loss: float


@dataclass(frozen=True)
class OnnxNetwork:
    """An open graph, whose file has this hash; exported: the software that exported it, and the notice that it is no medical device."""

    graph: Graph
    session: "Session"
    sha256: str
    exported: Mapping[str, Any]
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
        return {"voxlate": __version__, **self.exported}

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
        return [wanted.name for wanted in self.session.opened.get_inputs()]

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
            stream = Streams(noise.seed, noise.items, noise.samples, noise.tiles)
            shape = (self.graph.noise_channels, depth, height, width)
            known["noise"] = np.stack([stream.draw(shape) for _ in range(self.graph.draws)])
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
            "Synthesise with the run itself.",
        ):
            (image,) = self.session.opened.run(["image"], dict(inputs))
        return np.asarray(image, np.float32)

    @contextlib.contextmanager
    def count(self) -> Iterator[Calls]:
        """Counts the evaluations of the network inside the block."""
        self.calls.count = 0
        yield self.calls


def _fixed(option: str) -> BadInput:
    return BadInput(
        f"{option}: expected no option of the synthesis for an exported model, whose graph holds them, found one. Export the run again with it."
    )


@dataclass(frozen=True)
class Session:
    """A session of onnxruntime for the bytes of a graph, as which it is sent to workers."""

    content: bytes = field(repr=False)

    @cached_property
    def opened(self) -> Any:
        """The session, with OMP_NUM_THREADS threads, or as many as onnxruntime chooses; its failures print nothing."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        asked = int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
        # each thread takes memory, whether a core is there for it or not
        options.intra_op_num_threads = min(asked, os.cpu_count() or 1)
        options.log_severity_level = 4
        return onnxruntime.InferenceSession(
            self.content, options, providers=["CPUExecutionProvider"]
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Session, (self.content,)


def open_network(
    path: Path,
    graph: Graph,
    sha256: str,
    software: Mapping[str, Any],
    selftest: Mapping[str, np.ndarray],
) -> OnnxNetwork:
    """Open a graph, and compare its self-test with torch's image; raises BadInput where it differs.

    sha256: of the file; software: see OnnxNetwork.exported; selftest: the inputs of the graph and its `image`.
    """
    import onnxruntime

    try:
        network = OnnxNetwork(graph, Session(path.read_bytes()), sha256, software)
        image = network.run({name: selftest[name] for name in network.inputs})
    except Exception as error:  # onnxruntime has an exception of its own for each kind of failure
        raise BadInput(
            f"{path}: expected a graph that onnxruntime {onnxruntime.__version__} can run, found none ({first_line(error)}). Install a newer onnxruntime, or export the run again."
        ) from error
    given = selftest["image"]
    apart = float(np.abs(image - given).max()) if image.shape == given.shape else np.inf
    most = 2 * TOLERANCE + graph.largest_loss
    if not apart <= most:
        raise BadInput(
            f"{path}: expected the image of its self-test to within {most:.2g} network units, found it {apart:.2g} away. Do not use it on this machine: install another onnxruntime, or export the run again."
        )
    return network
