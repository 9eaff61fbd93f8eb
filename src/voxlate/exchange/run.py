"""A model folder as a model of synthesis, without torch."""

from dataclasses import dataclass
from pathlib import Path

from voxlate.base.messages import Message
from voxlate.exchange.model_file import Carried, read_model
from voxlate.exchange.onnx_network import open_network
from voxlate.exchange.widths import ArrayWidths
from voxlate.synthesis.calibration import Calibration
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.model import Model


@dataclass(frozen=True)
class OneCalibration:
    """The calibration of an exported model, which was checked when it was exported."""

    calibration: Calibration

    def find(self, facts: ModelFacts) -> Calibration:
        """The calibration."""
        return self.calibration

    def messages(self, facts: ModelFacts) -> list[Message]:
        """No message."""
        return []


def load(folder: Path | str, threads: int | None = None) -> Model:
    """Open MODEL/: its hashes are compared and its self-test is computed; raises BadInput where something differs."""
    carried = read_model(folder)
    network = open_network(carried, threads)
    facts, calibration = carried.description.facts, _calibration(carried)
    calibrations = None if calibration is None else OneCalibration(calibration)
    return Model(facts, network, carried.folder, carried.anatomy, calibrations)


def _calibration(carried: Carried) -> Calibration | None:
    stated = carried.description.calibration
    if stated is None:
        return None
    parts = {name: carried.part(f"widths.{name}") for name in stated.header.targets}
    widths = {name: ArrayWidths(tensors) for name, tensors in parts.items() if tensors}
    return Calibration(stated.header, widths, carried.references, stated.hash)
