"""MODEL/: an exported model, which is synthesised with by onnxruntime: an ONNX graph, arrays, and model.json around them.

model.json states the SHA-256 of each other file and its own. network.onnx takes float32 arrays `source`
[B, channels, D, H, W] and, where the graph uses them, `mask` [B, 1, D, H, W], `present` [B, channels] (bool) and
`noise` [draws, B, noise channels, D, H, W]; it gives `image` [B, targets, D, H, W], all in network units.
arrays.safetensors holds what is compared and what intervals are computed from, by name: "selftest.source", ".mask", ".present",
".noise", ".image"; "anatomy.NAME"; "widths.TARGET.TENSOR".
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from voxlate import __version__
from voxlate.base import machine
from voxlate.base.array_types import Float32
from voxlate.base.errors import BadInput
from voxlate.base.files import ANY, read_json, sha256_of, without_retired
from voxlate.base.records import Digest, FileName, Record, Several, Text
from voxlate.base.streams import Streams
from voxlate.scans.cases.case import map_arrays
from voxlate.scans.formats.format import errors_as, first_line
from voxlate.synthesis.calibration import Calibration, Header, Widths
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.model import Model
from voxlate.synthesis.patch import Patch
from voxlate.synthesis.sampling import Calls, NoiseOf
from voxlate.synthesis.scan_checks import KnownHeader, KnownScans

FORMAT = 2
# Keys of model.json that this version lacks (see without_retired).
RETIRED = {
    "anatomy.usual": ANY,
    "anatomy.quality": ANY,
    "facts.data.any_source": [],
    "facts.intensity.*.clips": ANY,
    "facts.intensity.*.medians": None,
    "facts.seen_signatures": ANY,
    "facts.synth.contrast": {},
    "facts.synth.slices.crop": None,
    **dict.fromkeys(("graph.opset", "graph.weights", "graph.mean_loss"), ANY),
}
DESCRIPTION = "model.json"
ARRAYS = "arrays.safetensors"
NETWORK = "network.onnx"
NONE: Mapping[str, Any] = MappingProxyType({})
TOLERANCE = 1e-3  # of the range of network units, 2: how far a machine may be from torch


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
class CarriedCalibration:
    """The intervals of a calibration: its header without its cases, and the hash of the calibration's file."""

    header: Header
    hash: Text


@dataclass(frozen=True)
class Description:
    """The content of model.json, as `voxlate.export` of a run returns it.

    Args:
        format: version of the format.
        made_by: versions of voxlate and of the packages.
        notice: that this is research software.
        licence: of the model.
        facts: sources, targets, units and synthesis options.
        graph: inputs and outputs of the network, and its largest difference from torch on the self-test, in network units.
        anatomy: of the training patients.
        calibration: of the intervals, None without one.
        card: what a person should know.
        files: SHA-256 by name.

    Example:
        >>> import voxlate
        >>> description = voxlate.export("RUN", out="MODEL", licence="apache-2.0")
        >>> description.licence, "network.onnx" in description.files
        ('apache-2.0', True)
    """

    format: int
    made_by: dict[Text, Text]
    notice: Text
    licence: Text
    facts: ModelFacts
    graph: Graph
    anatomy: KnownHeader | None
    calibration: CarriedCalibration | None
    card: dict[str, Any]
    files: dict[FileName, Digest]


def is_exported(path: Path | str) -> bool:
    """Whether a path is a folder that `voxlate export` wrote a model in."""
    return (Path(path) / DESCRIPTION).is_file()


def load_exported(folder: Path | str) -> Model:
    """Open MODEL/: its hashes are compared and its self-test is computed; raises BadInput where something differs."""
    folder = Path(folder)
    stated = read_model(folder)
    arrays = map_arrays(folder / ARRAYS)
    network = open_network(
        folder / stated.graph.file,
        stated.graph,
        stated.files[stated.graph.file],
        {"exported_by": stated.made_by, "notice": stated.notice},
        _part(arrays, "selftest"),
    )
    known = None
    if stated.anatomy is not None:
        known = KnownScans.read(stated.anatomy, _part(arrays, "anatomy"))
    calibration = None
    if stated.calibration is not None:
        header = stated.calibration.header
        parts = {name: _part(arrays, f"widths.{name}") for name in header.targets}
        widths = {name: Widths(part) for name, part in parts.items() if part}
        calibration = Calibration(header, widths, stated.calibration.hash)
    return Model(stated.facts, network, folder, known, calibration)


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with a prefix, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): arrays[name] for name in arrays if name.startswith(start)}


def read_model(folder: Path) -> Description:
    """Read MODEL/model.json and compare its files with their hashes; raises BadInput, and nothing of it has been run then."""
    path = folder / DESCRIPTION
    stated = read_json(path)
    found = stated.get("format") if isinstance(stated, dict) else None
    if found != FORMAT:
        raise BadInput(
            f"{path}: expected format {FORMAT}, found {found!r}. Take the version of voxlate that wrote it, or export the run again."
        )
    record = Record(path, "a model", "Export the run again.")
    record.check_version(stated, "made_by", "voxlate")
    description: Description = record.fill(Description, without_retired(stated, RETIRED))
    record.check({NETWORK, ARRAYS} <= description.files.keys(), f"no hash of {NETWORK} or {ARRAYS}")
    for name, digest in description.files.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise BadInput(
                f"{folder / name}: expected the file that {DESCRIPTION} states, found another one (its hash differs) or none. Copy the whole folder again."
            )
    return description


@dataclass(frozen=True)
class OnnxNetwork:
    """An open graph, whose file has this content and hash; it is sent to workers without its session.

    exported: the software that exported it, and the notice that it is no medical device.
    """

    graph: Graph
    content: bytes = field(repr=False)
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
        self, facts: ModelFacts, allow_code: bool, like: str | None, changes: Mapping[str, Any]
    ) -> "tuple[ModelFacts, OnnxNetwork]":
        """Raises BadInput: the graph holds the options."""
        option = like or f"synth.{next(iter(changes))}"
        raise BadInput(
            f"{option}: expected no option of the synthesis for an exported model, whose graph holds them, found one. Export the run again with it."
        )

    def open(self, threads: int) -> Any:
        """A session of so many threads."""
        return open_session(self.content, threads)

    @cached_property
    def session(self) -> Any:
        """The session that computes patches one after the other, each with all threads."""
        return self.open(threads())

    @cached_property
    def alone(self) -> Any:
        """The session that computes patches side by side, each with one thread."""
        return self.session if threads() == 1 else self.open(1)

    @property
    def inputs(self) -> list[str]:
        """The names of the inputs that the graph uses."""
        return [wanted.name for wanted in self.alone.get_inputs()]

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
        count = len(patches)
        self.calls.count += round(count * self.graph.evaluations)
        side_by_side = min(threads(), count)
        step = 1 if self.graph.single else -(-count // side_by_side)
        parts = [
            {
                name: x[:, first : first + step] if name == "noise" else x[first : first + step]
                for name, x in given.items()
            }
            for first in range(0, count, step)
        ]
        if side_by_side == 1:
            return np.concatenate([self.run(part) for part in parts])
        # equally fast, and no thread waits for another on a busy machine
        with ThreadPoolExecutor(side_by_side) as pool:
            return np.concatenate([*pool.map(partial(self.run, alone=True), parts)])

    def run(self, inputs: Mapping[str, np.ndarray], alone: bool = False) -> Float32:
        """The image of a graph's inputs; alone: with one thread."""
        session = self.alone if alone else self.session
        shape = "×".join(map(str, inputs["source"].shape))
        with errors_as(
            f"{self.graph.file}: expected patches that the graph can run, found {shape}",
            "Synthesise with the run itself.",
        ):
            (image,) = session.run(["image"], dict(inputs))
        return np.asarray(image, np.float32)

    def __reduce__(self) -> tuple[Any, ...]:
        return OnnxNetwork, (self.graph, self.content, self.sha256, self.exported)

    @contextlib.contextmanager
    def count(self) -> Iterator[Calls]:
        """Counts the evaluations of the network inside the block."""
        self.calls.count = 0
        yield self.calls


def threads() -> int:
    """OMP_NUM_THREADS (of levels such as 4,2 the first), or as many as there are cores; no more, because each takes memory."""
    asked, *_ = os.environ.get("OMP_NUM_THREADS", "").split(",")
    number = int(asked) if asked.strip().isdecimal() else 0
    return min(number or machine.cores(), os.cpu_count() or 1)


def open_session(content: bytes, threads: int, weights: Mapping[str, np.ndarray] = NONE) -> Any:
    """A session of onnxruntime for a graph, whose failures print nothing; weights: of initialisers that it does not hold."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if weights:
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        kept = [value(np.asarray(one, np.float32)) for one in weights.values()]
        options.add_external_initializers([*weights], kept)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


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
        network = OnnxNetwork(graph, path.read_bytes(), sha256, software)
        image = network.run({name: selftest[name] for name in network.inputs}, alone=True)
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
