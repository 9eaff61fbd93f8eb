"""The file of a calibration, RUN/calibration.<answer>.<samples>.safetensors: its place, its writing, its strict reading."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import StrictStr
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from voxlate.base.config import adapter
from voxlate.base.errors import BadInput
from voxlate.base.files import file_hash
from voxlate.base.messages import Message, message
from voxlate.base.records import Digest, Record, checksum, write_tensors
from voxlate.scans.formats.format import KeptByFile
from voxlate.synthesis.calibration import (
    Calibration,
    Header,
    Widths,
)
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.model import Model
from voxlate.training.recipe.text import first_change, stored_options


@dataclass(frozen=True)
class RunCalibrations:
    """The calibrations in a run's folder, one for each type of answer and number of samples."""

    folder: Path

    def file(self, facts: ModelFacts) -> Path:
        """RUN/calibration.<answer>.<samples>.safetensors, whether it exists or not."""
        return self.folder / f"calibration.{facts.answer}.{facts.synth.samples}.safetensors"

    def find(self, facts: ModelFacts) -> Calibration | None:
        """The calibration of images by these facts; None where the run has none, or a starter's is of other options.

        Raises BadInput where it belongs to other weights or other options.
        """
        path = self.file(facts)
        if not path.is_file():
            return None
        calibration = _read_once(path)
        stated = calibration.header
        if stated.weights != facts.weights_hash:
            raise self._mismatch(
                f"these weights ({facts.weights_hash}), found one of others ({stated.weights})"
            )
        change = first_change(without_precision(stated.synth), without_precision(facts.options))
        if change and stated.widened is not None:
            return None  # it came with the model: nobody fitted it for other images
        if change:
            raise self._mismatch(f"images drawn as these are, found one of others ({change})")
        return calibration

    def messages(self, facts: ModelFacts) -> list[Message]:
        """A message where the run is calibrated for another answer or number of samples only."""
        others = sorted(self.folder.glob("calibration.*.safetensors"))
        if not others or self.file(facts).is_file():
            return []
        pairs = (file.name.split(".")[1:3] for file in others)
        options = " or ".join(f"--answer {answer} --samples {count}" for answer, count in pairs)
        text = f"No intervals: the run is calibrated for {options}. Give these, or run voxlate calibrate with the options of synth."
        return [message("no-intervals", text)]

    def _mismatch(self, difference: str) -> BadInput:
        """The error of a calibration that does not belong to the images; difference: what was expected, and what found."""
        return BadInput(
            f"{self.folder}: expected a calibration of {difference}. Run voxlate calibrate again with the options of synth, change these, or go without intervals (--no-intervals)."
        )


def calibration_file(model: Model) -> Path:
    """The file of the calibration of a model's images, whether it exists or not; raises BadInput without a folder."""
    if not isinstance(model.calibrations, RunCalibrations):
        raise BadInput(
            f"{model.origin}: expected a run that is read from a folder, found an exported model, or one without a folder. Calibrate the run, and export it again."
        )
    return model.calibrations.file(model.facts)


def without_precision(options: Mapping[str, Any]) -> dict[str, Any]:
    """Synthesis options without those of rounding, whose errors are far below what a calibration states."""
    return {key: value for key, value in options.items() if key not in ("precision", "exact")}


class _Stamped(TypedDict):
    header: StrictStr
    sha256: Digest


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration with a checksum of its whole content."""
    arrays = dict[str, np.ndarray]()
    for target, widths in calibration.widths.items():
        arrays |= {f"{target}.{name}": array for name, array in widths.arrays.items()}
    text = json.dumps(adapter(Header).dump_python(calibration.header, mode="json"))
    stated = json.dumps({"header": text, "sha256": calibration_checksum(text, arrays)})
    write_tensors(path, arrays, {"calibration": stated})


def read_calibration(path: Path) -> Calibration:
    """The calibration in a file; raises BadInput where it is damaged, was changed, or is another file."""
    record = Record(path, "a calibration", "Remove it, and calibrate again.", True)
    with record.tensors() as file:
        stamped = record.parse(_Stamped, file.text("calibration"))
        text = stamped["header"]
        record.check_version(record.table(text), "made_by", "voxlate")
        header: Header = record.parse(Header, text)
        arrays = file.arrays
    record.check_checksum(stamped["sha256"], calibration_checksum(text, arrays))
    widths = {}
    for target in header.targets:
        begin = f"{target}."
        own = {name: array for name, array in arrays.items() if name.startswith(begin)}
        widths[target] = Widths({name.removeprefix(begin): own[name] for name in own})
    header = replace(header, synth=stored_options(header.synth))
    return Calibration(header, widths, file_hash(path))


def calibration_checksum(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """The checksum of a calibration, which names the types of its arrays as torch does."""
    return checksum(text, arrays, lambda name, array: f"{name}{array.shape}torch.{array.dtype}")


_read_once = KeptByFile(read_calibration, 8)
