"""Synthesis with a model folder, without torch: the path of synthesis.model for one graph."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.files import (
    HIGH,
    LOW,
    STD,
    SYNTHETIC,
    UNCALIBRATED,
    UNFAMILIAR,
    read_json,
    write_json,
)
from voxlate.base.messages import Message, message
from voxlate.evaluation.intervals.calibration import Calibration, Prediction
from voxlate.exchange.model_file import Carried, read_model
from voxlate.exchange.onnx_network import OnnxNetwork, open_network
from voxlate.exchange.widths import ArrayWidths
from voxlate.scans.cases.case import MASK
from voxlate.scans.formats.io import content_hash, has_content, write_volume
from voxlate.scans.formats.nifti import description_of
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import Scale
from voxlate.synthesis.brightness import SynthesisedImage, in_physical_units, with_peak
from voxlate.synthesis.empty import (
    empty_slices,
    find_empty_slices,
    measures_all_slices,
    unused_slices,
)
from voxlate.synthesis.inputs import (
    CaseInputs,
    Scan,
    by_accepted_names,
    by_name,
    check_names,
    contents_of,
    prepare_inputs,
    targets_for,
)
from voxlate.synthesis.intervals import (
    CaseIntervals,
    case_intervals,
    find_output_grid,
    may_have_intervals,
    notes_on_starter,
)
from voxlate.synthesis.planes import sample_planes
from voxlate.synthesis.progress import PatchProgress, no_report

PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Result:
    """The images of a case by the name of their files, what is stated of them, and warnings.

    files: the synthesised images, and their maps (_low, _high, _unfamiliar, _std).
    """

    files: Mapping[str, Volume]
    provenance: Mapping[str, Any]
    warnings: tuple[Message, ...]

    def save(self, folder: Path | str, ending: str = ".nii.gz") -> list[Path]:
        """Write FOLDER/<name>.nii.gz and provenance.json; returns the paths of the images.

        Images that this function wrote before of the same model and scans are replaced or removed. Raises BadInput where
        the folder has other ones, or a file of one of these names.
        """
        folder = Path(folder)
        paths = [folder / f"{name}{ending}" for name in self.files]
        old = self._earlier_files(folder, [path.name for path in paths])
        for path, volume in zip(paths, self.files.values()):
            write_volume(path, volume, description_of(path.name))
        for path in old:
            path.unlink()
        listed = {path.name: content_hash(path) for path in paths}
        write_json(folder / PROVENANCE, {**self.provenance, "files": listed})
        return paths

    def _earlier_files(self, folder: Path, names: Sequence[str]) -> list[Path]:
        """The unchanged files of an earlier synthesis that have none of these names."""
        listed = check_earlier(folder, self.provenance)
        for name in names:
            path = folder / name
            if path.exists() and not has_content(path, listed.get(name, "")):
                raise BadInput(
                    f"{path}: expected no file of this name that voxlate-run did not write, found one: is it the scan itself, or was it changed? Choose another folder."
                )
        return [
            folder / name
            for name, content in listed.items()
            if name not in names and has_content(folder / name, content)
        ]


def check_earlier(folder: Path, provenance: Mapping[str, Any]) -> Mapping[str, str]:
    """The hashes of the files of an earlier synthesis in a folder; raises BadInput unless it has these entries, too.

    provenance: entries of "model" and, where it is known, "voxels" of the scans.
    """
    path = folder / PROVENANCE
    if not path.is_file():
        return {}
    stated = read_json(path)
    for key in ("model", "voxels"):
        own = provenance.get(key)
        if not isinstance(stated, dict) or (own is not None and stated.get(key) != own):
            raise BadInput(
                f"{folder}: expected a new folder, or one with images of the same model and scans, found images of another one ({key} in {PROVENANCE} differs). Choose another folder."
            )
    files = stated.get("files")
    return files if isinstance(files, dict) else {}


@dataclass(frozen=True)
class CarriedModel:
    """A model folder whose self-test has passed on this machine."""

    carried: Carried
    network: OnnxNetwork = field(repr=False)

    @property
    def entry(self) -> dict[str, str]:
        """The entry of a provenance."""
        stated = self.carried.description
        return {"title": stated.name, "sha256": stated.files[stated.graph.file]}

    def synthesise(
        self,
        scans: Mapping[str, Scan] | Scan,
        *,
        case: str = "case",
        seed: int = 0,
        progress: PatchProgress = no_report,
        intervals: bool = True,
    ) -> Result:
        """Synthesise the targets from scans {modality: scan}, or from one scan of a model with one source.

        A scan is a path, a Volume, a nibabel image, or a pair of an array [x, y, z] and its affine. A scan named "mask"
        replaces the mask that would be computed. Raises BadInput where scans do not fit the model.
        """
        description = self.carried.description
        recipe: Any = description.recipe  # it has what synthesis reads of a recipe
        header = description.weights
        own, notes = by_accepted_names(by_name(scans, recipe.data.source), description.accepts)
        known = self._known(own, case)
        notes += [
            message("unused-scan", f"{name} is not read by this model.")
            for name in own.keys() - known.keys()
        ]
        anatomy = self.carried.anatomy
        targets = targets_for(recipe, known)
        begun = time.monotonic()
        inputs = prepare_inputs(recipe, header, known, case, anatomy, targets)
        grid = find_output_grid(inputs.prepared, recipe.data.axes, header["units"])
        calibration = self._calibration(known) if intervals else None
        found = find_empty_slices(recipe, inputs.prepared)
        unused = np.zeros_like(found.which)
        scales = {name: self._scale(name) for name in recipe.data.target}
        if not measures_all_slices(recipe, scales, calibration):
            unused = unused_slices(found.which, grid.slices_per_step)
        predictions, calls = sample_planes(
            lambda _: self.network, recipe, inputs, seed, progress, unused
        )
        by_target = dict(zip(recipe.data.target, predictions))
        images = {name: self._in_physical_units(name, by_target[name], inputs) for name in targets}
        ends = case_intervals(calibration, recipe, inputs.prepared, images, grid, unused)
        empty = empty_slices(recipe, header, inputs.prepared, anatomy, images, found)
        images = empty.fill(images)
        volumes = grid.images({name: image.values for name, image in images.items()})
        ends = empty.close_intervals(ends, volumes, grid)
        mark = SYNTHETIC if recipe.task.completes else ""
        spread = STD if ends.low else UNCALIBRATED
        shape = inputs.prepared.header.shape
        maps: dict[str, Mapping[str, Volume]] = {
            "": volumes,
            LOW: ends.low,
            HIGH: ends.high,
            spread: grid.images({name: image.physical_sd for name, image in images.items()}),
            UNFAMILIAR: grid.images(dict.fromkeys(images, ends.distance_map(shape))),
        }
        files = {
            f"{mark}{name}{end}": volume
            for end, some in maps.items()
            for name, volume in some.items()
        }
        warnings, bounds = self._warnings(inputs, images, ends, empty.messages, known)
        warnings = [*notes, *warnings]
        provenance = {
            "made_by": description.made_by,
            "notice": description.notice,
            "model": self.entry,
            "weights": description.graph.weights,
            "case": case,
            "seed": seed,
            "seconds": round(time.monotonic() - begun, 3),
            "network_calls": calls,
            "units": header["units"],
            "inputs": contents_of(inputs.files),
            "voxels": inputs.key,
            "prepared": inputs.preparation,
            "bounds": bounds,
            "empty": empty.entry,
            "calibration": None if calibration is None else calibration.entry,
            "familiar": None if ends.verdict is None else ends.verdict.entry,
            "warnings": [note.table for note in warnings],
        }
        stated = {key: value for key, value in provenance.items() if value not in (None, {}, [])}
        return Result(files, stated, tuple(warnings))

    def _known(self, scans: Mapping[str, Scan], case: str) -> dict[str, Scan]:
        """The scans that the model reads; raises BadInput where modalities are missing or unknown."""
        description = self.carried.description
        recipe: Any = description.recipe
        check_names(recipe, description.accepts, scans, case)
        read = (*recipe.data.source, MASK) if recipe.needs_mask else recipe.data.source
        return {name: scans[name] for name in read if name in scans}

    @cached_property
    def _stated_calibration(self) -> Calibration | None:
        stated = self.carried.description.calibration
        if stated is None:
            return None
        widths: dict[str, Any] = {}
        for name in stated.header.targets:
            if tensors := self.carried.part(f"widths.{name}"):
                widths[name] = ArrayWidths(tensors)
        return Calibration(stated.header, widths, self.carried.references, stated.hash)

    def _calibration(self, scans: Mapping[str, Scan]) -> Calibration | None:
        """The calibration, where it holds for a case."""
        recipe: Any = self.carried.description.recipe
        return self._stated_calibration if may_have_intervals(recipe, scans) else None

    def _scale(self, name: str) -> Scale:
        return Scale(*self.carried.description.weights["target_scales"][name])

    def _in_physical_units(
        self, name: str, prediction: Prediction, inputs: CaseInputs
    ) -> SynthesisedImage:
        """A prediction in physical units; its bright end is corrected where the recipe asks for it."""
        recipe: Any = self.carried.description.recipe
        header = self.carried.description.weights
        image = in_physical_units(prediction, self._scale(name))
        if not recipe.synth.peaks:
            return image
        affine = np.array(inputs.prepared.header.affine)
        volume = Volume(image.values[None], affine, header["units"][name], name)
        return with_peak(image, volume, recipe, header)

    def _warnings(
        self,
        inputs: CaseInputs,
        images: Mapping[str, SynthesisedImage],
        ends: CaseIntervals,
        empty: list[Message] | Any,
        scans: Mapping[str, Scan],
    ) -> tuple[list[Message], Mapping[str, Any]]:
        """All messages on a case, and the bounds of its errors, which do not hold for scans that are very different."""
        warnings = list(inputs.warnings)
        if self.carried.anatomy is None:
            text = "The model has no anatomy of its training: orientation and field of view of scans are not checked."
            warnings.append(message("unchecked", text))
        for name, image in images.items():
            warnings += [] if image.move is None else image.move.check(name)
        bounds, messages = ends.stated(warnings)
        warnings += messages
        if self._stated_calibration is not None and self._calibration(scans) is None:
            text = "No intervals: the model is calibrated for one missing modality, and this case lacks more."
            warnings.append(message("no-intervals", text))
        starter = self.carried.description.weights.get("starter")
        if starter is not None:
            notes = notes_on_starter(starter, self._calibration(scans))
            warnings += [message(code, text) for code, text in notes]
        return [*warnings, *empty], bounds


def load(folder: Path | str, threads: int | None = None) -> CarriedModel:
    """Open MODEL/: its hashes are compared and its self-test is computed; raises BadInput where something differs."""
    carried = read_model(folder)
    return CarriedModel(carried, open_network(carried, threads))
