"""The file of a calibration, RUN/calibration.<answer>.<samples>.safetensors: its place, its writing, its strict reading."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from pydantic import StrictStr
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from voxlate.base.config import adapter
from voxlate.base.errors import BadInput
from voxlate.base.messages import Message, message
from voxlate.base.records import Digest, Record, Shape, Tensors, checksum, write_tensors
from voxlate.checks.out_of_distribution import (
    ReferencePatches,
    number_of_patch_features,
    reference_shapes,
)
from voxlate.checks.patch_features import number_of_features
from voxlate.evaluation.intervals.calibration import BODY, Calibration, Header, Target
from voxlate.evaluation.intervals.widths import SETTINGS, read_widths, widths_shapes
from voxlate.evaluation.scoring.regions import regions_from
from voxlate.training.changes import first_change
from voxlate.training.recipe import Recipe
from voxlate.training.run import Run
from voxlate.training.weights import file_hash

Answer = Literal["mean", "sample"]
MEMORY = ".memory"  # begins the names of the reference patches' tensors, as no modality does


@dataclass(frozen=True)
class CalibrationPlace:
    """Where the calibration of images is: in a run's folder, by their type of answer and their number of samples."""

    folder: Path
    answer: Answer
    samples: int

    @property
    def file(self) -> Path:
        """RUN/calibration.<answer>.<samples>.safetensors, whether it exists or not."""
        return self.folder / f"calibration.{self.answer}.{self.samples}.safetensors"

    @property
    def other_samples(self) -> str:
        """The numbers of samples for which the run has a calibration of this answer, as text."""
        files = self.folder.glob(f"calibration.{self.answer}.*.safetensors")
        counts = {file.name.split(".")[2] for file in files}
        numbers = sorted(int(count) for count in counts if count.isdecimal())
        return " or ".join(map(str, numbers))

    @property
    def messages(self) -> list[Message]:
        """A message where the run is calibrated for another answer or number of samples only."""
        if self.file.is_file():
            return []
        others = self.other_samples
        if others:
            text = f"No intervals: the run is calibrated for {others} samples. Give --samples {others.split()[0]}, or run voxlate calibrate with the options of synth."
            return [message("no-intervals", text)]
        if Run(self.folder).calibrations:
            other = next(answer for answer in get_args(Answer) if answer != self.answer)
            text = f"No intervals: the run is calibrated for its {other} answer. Give --answer {other}, or run voxlate calibrate with the options of synth."
            return [message("no-intervals", text)]
        return []

    def mismatch(self, difference: str) -> BadInput:
        """The error of a calibration that does not belong to the images."""
        return BadInput(
            f"{self.folder}: expected a calibration of {difference}, found another. Run voxlate calibrate again with the options of synth, change these, or go without intervals (--no-intervals)."
        )


def find_calibration(
    place: CalibrationPlace, recipe: Recipe, header: Mapping[str, Any], options: Mapping[str, Any]
) -> Calibration | None:
    """The calibration of a run for images that are synthesised with these options; None where the run has none.

    None, too, where a starter's own belongs to other options. header: of the weights; options: as in
    `Model.synthesis_options`. Raises BadInput where it belongs to other weights or other options, or to another number
    of samples than the user asked for.
    """
    if not place.file.is_file():
        own_samples = (header["recipe"].get("synth") or {}).get("samples", 1)
        if place.samples != own_samples and place.other_samples:
            raise place.mismatch(
                f"{place.samples} samples, found one of {place.other_samples} samples"
            )
        return None
    calibration = _read_once(place.file, place.file.stat().st_mtime_ns)
    stated = calibration.header
    if stated.weights != header["weights_hash"]:
        raise place.mismatch(
            f"these weights ({header['weights_hash']}), found one of others ({stated.weights})"
        )
    change = first_change(without_precision(stated.synth), without_precision(options))
    if change and stated.widened is not None:
        return None  # it came with the model: nobody fitted it for other images
    if change:
        raise place.mismatch(f"images drawn as these are, found one of others ({change})")
    targets = recipe.data.target
    sources = len(recipe.data.source)
    references = calibration.references
    has_spread = stated.synth["samples"] > 1 or recipe.data.planes != ""
    sizes = {len(network.centre) for network in calibration.widths.values()}
    same = (
        stated.targets.keys() == set(targets)
        and stated.units == {name: header["units"][name] for name in targets}
        and sizes <= {number_of_features(sources, has_spread)}
        and (references is None or len(references.centre) == number_of_patch_features(sources))
    )
    if not same:
        raise BadInput(
            f"{place.file}: expected a calibration of {' and '.join(targets)} made of {sources} scans, found one of other images. Remove it, and calibrate again."
        )
    return calibration


def without_precision(options: Mapping[str, Any]) -> dict[str, Any]:
    """Synthesis options without those of rounding, whose errors are far below what a calibration states."""
    return {key: value for key, value in options.items() if key not in ("precision", "exact")}


@lru_cache(maxsize=8)
def _read_once(path: Path, mtime_ns: int) -> Calibration:
    """The calibration in a file; the time stamp makes a new file a new entry of the cache."""
    return read_calibration(path)


class _Stamped(TypedDict):
    header: StrictStr
    sha256: Digest


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration with a checksum of its whole content."""
    tensors = dict[str, torch.Tensor]()
    references = calibration.references
    for name, array in ({} if references is None else vars(references)).items():
        tensors[f"{MEMORY}.{name}"] = torch.from_numpy(np.ascontiguousarray(array))
    for target, widths in calibration.widths.items():
        tensors |= widths.state_dict(prefix=f"{target}.")
    text = json.dumps(adapter(Header).dump_python(calibration.header, mode="json"))
    stated = json.dumps({"header": text, "sha256": checksum(text, tensors)})
    write_tensors(path, tensors, {"calibration": stated})


def read_calibration(path: Path) -> Calibration:
    """The calibration in a file; raises BadInput where it is damaged, was changed, or is another file."""
    record = Record(path, "a calibration", "Remove it, and calibrate again.", True)
    with record.tensors("pt") as file:
        stamped = record.parse(_Stamped, file.text("calibration"))
        text = stamped["header"]
        record.check_version(record.table(text), "made_by", "voxlate")
        header: Header = record.parse(Header, text)
        _check(record, header)
        owners = _shapes(file, header)
        wanted = dict[str, Shape]()
        for owner, shapes in owners.items():
            wanted |= {f"{owner}.{name}": shape for name, shape in shapes.items()}
        tensors = {name: tensor.clone() for name, tensor in file.read(wanted).items()}
    record.check_checksum(stamped["sha256"], checksum(text, tensors))
    parts = dict[str, dict[str, torch.Tensor]]()
    for owner, shapes in owners.items():
        parts[owner] = {name: tensors[f"{owner}.{name}"] for name in shapes}
    references = None
    if header.widened is None:
        arrays = {name: tensor.numpy() for name, tensor in parts.pop(MEMORY).items()}
        references = ReferencePatches(**arrays)
        same = references.patients == header.patients
        record.check(same, f"scans of {references.patients} patients, not of {header.patients}")
    widths = {name: read_widths(header.targets[name].method, own) for name, own in parts.items()}
    return Calibration(header, widths, references, file_hash(path))


def _shapes(file: Tensors, header: Header) -> dict[str, dict[str, Shape]]:
    """The shapes of the tensors, by what they belong to: the reference patches, and each target with a learned method."""
    lengths = {name: shape for name, (shape, _) in file.shapes.items()}
    shapes = dict[str, dict[str, Shape]]()
    if header.widened is None:
        points = lengths.get(f"{MEMORY}.points", ())
        file.record.check(len(points) == 2, "no patches of known scans")
        shapes[MEMORY] = reference_shapes(points)
    for name, target in header.targets.items():
        if target.method in SETTINGS:
            features = lengths.get(f"{name}.centre", ())
            file.record.check(len(features) == 1, f"no network for {name}")
            shapes[name] = widths_shapes(target.method, features[0])
    return shapes


def _check(record: Record, header: Header) -> None:
    """Raise BadInput unless the entries of a header agree with each other."""
    names = header.targets.keys()
    kinds: dict[str, Mapping[str, Any]] = {"units": header.units, "scales": header.halves}
    if header.widened is not None:
        kinds["factors"] = header.widened
    for kind, entries in kinds.items():
        same = bool(names) and entries.keys() == names
        record.check(same, f"{kind} of {', '.join(entries) or 'nothing'}")
    patients, cases = header.patients, len(header.cases)
    samples: Any = header.synth.get("samples")
    record.check(cases >= patients, f"{patients} patients of {cases} cases")
    record.check(type(samples) is int and samples >= 1, "options of no synthesis")
    for name, target in header.targets.items():
        _check_target(record, name, target, header.coverage)


def _check_target(record: Record, name: str, target: Target, coverage: float) -> None:
    """Raise BadInput unless the entries of a target agree with each other."""
    low, high = target.ends
    scaled = target.scales.get(coverage, 0) > 0
    record.check(scaled, f"no scale of {name} for the coverage {coverage:g}")
    record.check(target.method in target.compared, f"a method of {name} that was not compared")
    record.check(low < high, f"ends of {name} from {low:g} to {high:g}")
    ascending = list(target.borders) == sorted(set(target.borders))
    whole = ascending and len(target.factors) == len(target.borders) + 1
    record.check(whole, f"groups of {name} that do not fit together")
    try:
        regions = regions_from(target.regions)
    except BadInput as error:
        raise record.wrong(f"regions of {name} that are none ({error})") from error
    plain = all(region.modality and not region.mirrored for region in regions)
    record.check(plain, f"regions of {name} that are no thresholds")
    known = {BODY, "mae", *target.regions}
    record.check(target.bounds.keys() <= known, f"bounds of {name} for other regions")
    for comparison in target.compared.values():
        record.check(comparison.coverage.keys() <= known, f"a coverage of {name} in other regions")
        for mean, low, high in comparison.coverage.values():
            sound = low <= mean <= high and not math.isnan(low)
            record.check(sound, f"a coverage of {name} outside its interval")
