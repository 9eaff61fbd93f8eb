"""The calibration that belongs to a model's images: which file of the run it is, and whether it fits."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from voxlate.recipe import Recipe
from voxlate.system.errors import BadInput
from voxlate.training.changes import first_change
from voxlate.trust.calibration import Calibration, calibration_path
from voxlate.trust.calibration_file import read_calibration

Answer = Literal["mean", "sample"]


@dataclass(frozen=True)
class CalibrationPlace:
    """Where the calibration of images is: in a run's folder, by their type of answer and their number of samples."""

    folder: Path
    answer: Answer
    samples: int

    @property
    def file(self) -> Path:
        return calibration_path(self.folder, self.answer, self.samples)

    @property
    def other_samples(self) -> str:
        """The numbers of samples for which the run has a calibration of this answer, as text."""
        files = self.folder.glob(f"calibration.{self.answer}.*.safetensors")
        counts = {file.name.split(".")[2] for file in files}
        numbers = sorted(int(count) for count in counts if count.isdecimal())
        return " or ".join(map(str, numbers))

    @property
    def warning(self) -> str:
        """A sentence where the run is calibrated for another answer or number of samples only; else ''."""
        if self.file.is_file():
            return ""
        others = self.other_samples
        if others:
            return f"No intervals: the run is calibrated for {others} samples (--samples {others.split()[0]})."
        if any(self.folder.glob("calibration.*.safetensors")):
            other = next(answer for answer in get_args(Answer) if answer != self.answer)
            return f"No intervals: the run is calibrated for its {other} answer (--answer {other})."
        return ""


def find_calibration(
    place: CalibrationPlace,
    recipe: Recipe,
    header: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Calibration | None:
    """The calibration of a run for images that are synthesised with these options; None where the run has none.

    header: of the weights; options: as in `Model.synthesis_options`. Raises BadInput where it belongs to other weights
    or other options, or to another number of samples than the user asked for.
    """
    if not place.file.is_file():
        own_samples = (header["recipe"].get("synth") or {}).get("samples", 1)
        if place.samples != own_samples and place.other_samples:
            raise _mismatch(
                place, f"{place.samples} samples, found one of {place.other_samples} samples"
            )
        return None
    calibration = _read_once(place.file, place.file.stat().st_mtime_ns)
    stated = calibration.header
    if stated.weights != header["weights_hash"]:
        raise _mismatch(
            place,
            f"these weights ({header['weights_hash']}), found one of others ({stated.weights})",
        )
    change = first_change(without_precision(stated.synth), without_precision(options))
    if change:
        raise _mismatch(place, f"images drawn as these are, found one of others ({change})")
    calibration.check(header["units"], recipe.data.target, len(recipe.data.source), place.file)
    return calibration


def _mismatch(place: CalibrationPlace, difference: str) -> BadInput:
    return BadInput(
        f"{place.folder}: expected a calibration of {difference}. Run voxlate calibrate again with the options of synth, change these, or go without intervals (--no-intervals)."
    )


def without_precision(options: Mapping[str, Any]) -> dict[str, Any]:
    """Synthesis options without the precision, because rounding errors are far below what a calibration states."""
    return {key: value for key, value in options.items() if key != "precision"}


@lru_cache(maxsize=8)
def _read_once(path: Path, mtime_ns: int) -> Calibration:
    """The calibration in a file; the time stamp makes a new file a new entry of the cache."""
    return read_calibration(path)
