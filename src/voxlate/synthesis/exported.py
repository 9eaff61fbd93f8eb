"""MODEL/: an exported model, which is synthesised with by onnxruntime: an ONNX graph, arrays, and model.json around them.

model.json states the SHA-256 of each other file and its own. network.onnx takes float32 arrays `source`
[B, channels, D, H, W] and, where the graph uses them, `mask` [B, 1, D, H, W], `present` [B, channels] (bool) and
`noise` [draws, B, noise channels, D, H, W]; it gives `image` [B, targets, D, H, W], all in network units.
arrays.safetensors holds what is compared and what intervals are computed from (see `Carried`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.earlier import ANY, without_retired
from voxlate.base.errors import BadInput
from voxlate.base.files import read_json, sha256_of
from voxlate.base.records import Digest, FileName, Record, Text
from voxlate.scans.cases.case import map_arrays
from voxlate.synthesis.calibration import Calibration, Header, Widths
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.model import Model
from voxlate.synthesis.network import Graph, open_network
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


@dataclass(frozen=True)
class CarriedCalibration:
    """The intervals of a calibration: its header without its cases, and the hash of the calibration's file."""

    header: Header
    hash: Text


@dataclass(frozen=True)
class Description:
    """The content of model.json, as `voxlate.export_model` returns it.

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
        >>> description = voxlate.export_model("RUN", "MODEL", licence="apache-2.0")
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


@dataclass(frozen=True)
class Carried:
    """A model folder whose files agree with model.json.

    arrays: by name: "selftest.source", ".mask", ".present", ".noise", ".image"; "anatomy.NAME"; "widths.TARGET.TENSOR".
    """

    folder: Path
    description: Description
    arrays: Mapping[str, np.ndarray] = field(repr=False)

    def part(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names begin with a prefix, without it."""
        start = f"{prefix}."
        return {
            name.removeprefix(start): array
            for name, array in self.arrays.items()
            if name.startswith(start)
        }


def is_exported(path: Path | str) -> bool:
    """Whether a path is a folder that `voxlate export` wrote a model in."""
    return (Path(path) / DESCRIPTION).is_file()


def load_exported(folder: Path | str) -> Model:
    """Open MODEL/: its hashes are compared and its self-test is computed; raises BadInput where something differs."""
    carried = read_model(folder)
    stated = carried.description
    network = open_network(
        carried.folder / stated.graph.file,
        stated.graph,
        stated.files[stated.graph.file],
        {"exported_by": stated.made_by, "notice": stated.notice},
        carried.part("selftest"),
    )
    anatomy = None
    if stated.anatomy is not None:
        anatomy = KnownScans.read(stated.anatomy, carried.part("anatomy"))
    calibrations = None
    if stated.calibration is not None:
        header = stated.calibration.header
        parts = {name: carried.part(f"widths.{name}") for name in header.targets}
        widths = {name: Widths(arrays) for name, arrays in parts.items() if arrays}
        calibrations = Calibration(header, widths, stated.calibration.hash)
    return Model(stated.facts, network, carried.folder, anatomy, calibrations)


def read_model(folder: Path | str) -> Carried:
    """Read MODEL/ and compare its files with their hashes; raises BadInput, and nothing of it has been run then."""
    folder = Path(folder)
    path = folder / DESCRIPTION
    if not path.is_file():
        raise BadInput(
            f"{folder}: expected a model that voxlate export wrote, found no {DESCRIPTION} in it. Check the path."
        )
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
    return Carried(folder, description, map_arrays(folder / ARRAYS))
