"""Calibration data of held-out cases: voxels of their images with the truth, kept in files until a calibration ends."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxlate.cases.case import LABEL, MASK, PreparedCase, prepare_case
from voxlate.cases.layout import lay_out
from voxlate.cohorts.case_files import CaseFiles
from voxlate.formats.io import content_hash, read_volume
from voxlate.images.grid import Volume, oriented, same_grid
from voxlate.images.intensity import Scale
from voxlate.scoring.provenance import recorded_splits
from voxlate.scoring.truths import (
    SKETCH_LENGTHS,
    Sketch,
    SketchedTruth,
    has_other_size,
    sketch_of,
)
from voxlate.synthesis.inputs import preparation_for, seen_in_training
from voxlate.synthesis.intervals import OutputGrid, output_grid_of, patches_in, sources_of
from voxlate.synthesis.model import Model
from voxlate.synthesis.progress import PatchProgress
from voxlate.system.errors import BadInput
from voxlate.system.records import Record, Shape, checksum, write_tensors
from voxlate.trust.calibration import BODY, Prediction
from voxlate.trust.features import number_of_features, voxel_features
from voxlate.trust.fit import CalibrationVoxels
from voxlate.trust.out_of_distribution import EXTENTS, Patches, number_of_patch_features
from voxlate.trust.regions import region_masks

Array = NDArray[np.float32]

BODY_VOXELS = 30_000  # of a case's body that are kept: they determine the share outside to 0.2 %
AIR_VOXELS = 3_000  # of the surroundings that are kept, so that intervals of air are learned, too
SAMPLED = ("sd", "low", "high")  # arrays of a prediction from several samples
PATCHES = ".patches"  # the beginning of the names of a case's patches, as of no modality
ALL = ""  # in place of the name of a missing modality, where none is


class InTraining(BadInput):
    """A patient of the training is among the held-out patients."""


@dataclass(frozen=True)
class CaseData:
    """What a held-out case contributes: the hashes of its files, voxels and truths by target, and patches of its scans.

    A completion has patches for each modality that is left out in turn. truths: what shows whether each is that of its
    image.
    """

    patient: str
    content: Mapping[str, str]
    voxels: dict[str, CalibrationVoxels]
    patches: list[Patches]
    truths: dict[str, SketchedTruth]


@dataclass(frozen=True)
class _Truth:
    """The true images and label maps [D, H, W] of a case on the voxels of its images, and the scales of the images."""

    volumes: dict[str, Volume]
    scales: dict[str, Scale]
    labels: dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Collector:
    """Collects the calibration data of held-out cases.

    rules: of regions, by target and name; alpha: share of a patient's voxels that may be outside the intervals.
    turn: is entered while the network computes.
    """

    model: Model
    rules: Mapping[str, Mapping[str, str]]
    alpha: float
    seed: int
    warn: Callable[[str], None]
    turn: AbstractContextManager[None] = field(default_factory=nullcontext)

    @property
    def folder(self) -> Path:
        """The folder of the cases' files, until the calibration ends."""
        return self.model.calibration_file.with_suffix(".parts")

    def contents(self, case: CaseFiles) -> dict[str, str]:
        """The hashes of a case's files that a calibration depends on."""
        files = self._files(case)
        files |= {f"label {name}": path for name, path in case.labels.items()}
        return {name: content_hash(path) for name, path in sorted(files.items())}

    def collect(
        self, case: CaseFiles, content: Mapping[str, str], progress: PatchProgress
    ) -> CaseData:
        """The calibration data of a case, which are kept in a file as well."""
        model = self.model
        weights = model.header["weights_hash"]
        options = (
            weights,
            model.synthesis_options,
            self.alpha,
            self.seed,
            content,
            self.rules,
            BODY_VOXELS,
        )
        digest = hashlib.sha256(repr(options).encode()).hexdigest()[:16]
        path = self.folder / f"{case.case}.{digest}.safetensors"
        arrays = self._read(path)
        if arrays is None:
            arrays = dict(_flat(self._synthesise(case, progress)))
            write_tensors(path, arrays, {"sha256": checksum("", arrays)})
        tables = _nested(arrays)
        patches = [tables.pop(_patches_of(left_out)) for left_out in self._left_out]
        for one in patches:
            one["voxel_size"] = one.pop("grain")
        voxels = dict[str, CalibrationVoxels]()
        truths = dict[str, SketchedTruth]()
        for name, table in tables.items():
            unit = model.header["units"][name]
            sketch = Sketch(**table["sketch"])
            truths[name] = SketchedTruth(case.patient or case.case, unit, unit, sketch)
            prediction = Prediction(table["made"], *(table.get(key) for key in SAMPLED))
            voxels[name] = CalibrationVoxels(
                case.case,
                case.patient or case.case,
                table["features"],
                prediction,
                table["truth"],
                table["truth_parts"],
                table["made_parts"],
            )
        patient = case.patient or case.case
        return CaseData(patient, content, voxels, [Patches(**one) for one in patches], truths)

    def _read(self, path: Path) -> dict[str, np.ndarray] | None:
        """The arrays of a case from a stopped calibration; None where there is no sound file."""
        if not path.is_file():
            return None
        recipe = self.model.recipe
        try:
            with Record(path, "what a case teaches", "It is made again.").tensors() as file:
                shapes = kept_shapes(
                    file.shapes,
                    self.rules,
                    len(recipe.data.source),
                    recipe.synth.samples,
                    [_patches_of(left_out) for left_out in self._left_out],
                )
                arrays = file.read(shapes)
                return arrays if file.text("sha256") == checksum("", arrays) else None
        except BadInput:
            return None

    def _files(self, case: CaseFiles) -> dict[str, Path]:
        """The sources and targets of a case, and its mask where the model uses one."""
        data = self.model.recipe.data
        wanted = list(dict.fromkeys([*data.source, *data.target]))
        missing = [name for name in wanted if name not in case.files]
        if missing:
            raise BadInput(
                f"{case.case}: expected {' and '.join(wanted)}, found no {' and no '.join(missing)}."
            )
        files = {name: case.files[name] for name in wanted}
        if case.mask and MASK in self.model.scan_names:
            files[MASK] = case.mask
        return files

    @property
    def _left_out(self) -> tuple[str, ...]:
        """The modalities that are left out of a case in turn: each target of a completion, of other models none."""
        recipe = self.model.recipe
        return tuple(recipe.data.target) if recipe.task.completes else (ALL,)

    def _synthesise(self, case: CaseFiles, progress: PatchProgress) -> dict[str, Mapping[str, Any]]:
        """The arrays of a case's file: of the voxels of each target, and of the scans' patches."""
        scans = {name: read_volume(path, name) for name, path in self._files(case).items()}
        maps = {name: read_volume(path, name) for name, path in case.labels.items()}
        generator = np.random.default_rng([self.seed, *case.case.encode()])
        arrays = dict[str, Mapping[str, Any]]()
        for left_out in self._left_out:
            arrays |= self._synthesise_without(
                left_out, case.case, scans, maps, generator, progress
            )
        return arrays

    def _synthesise_without(
        self,
        left_out: str,
        case: str,
        scans: Mapping[str, Volume],
        maps: Mapping[str, Volume],
        generator: np.random.Generator,
        progress: PatchProgress,
    ) -> dict[str, Mapping[str, Any]]:
        """The arrays of the targets that are synthesised without a modality (ALL: from all sources), and of the patches."""
        model = self.model
        used = {
            name: scan
            for name, scan in scans.items()
            if name in model.scan_names and name != left_out
        }
        inputs = model.prepare(used, case)
        output_grid = output_grid_of(inputs.prepared, model.recipe.data.axes, model.header["units"])
        own = {name: scan for name, scan in scans.items() if name != MASK}
        truth = self._truth(case, own, maps, output_grid)
        with self.turn:
            images, _ = model.sample(inputs, self.seed, progress, self.alpha)
        sources = sources_of(model.recipe, inputs.prepared)
        resampled_sources = [output_grid.resampled(source) for source in sources]
        arrays = dict[str, Mapping[str, Any]]()
        for name, image in images.items():
            prediction = image.prediction.each(output_grid.resampled)
            arrays[name] = self._voxels(name, prediction, truth, resampled_sources, generator)
        patches = patches_in(model.recipe, inputs.prepared, sources)
        arrays[_patches_of(left_out)] = {
            "features": patches.features,
            "places": patches.places,
            "size": patches.size,
            "grain": patches.voxel_size,  # the names in files of version 0.6
        }
        return arrays

    def _truth(
        self,
        case: str,
        scans: Mapping[str, Volume],
        maps: Mapping[str, Volume],
        output_grid: OutputGrid,
    ) -> _Truth:
        """The truth as it is in its file, as in evaluate; resampled only where its grid is another."""
        recipe = self.model.recipe
        data = recipe.data
        for name in data.target:
            self._check_truth(case, scans[name], output_grid)
        preparation = preparation_for(
            self.model.header, recipe, {name: scans[name] for name in data.source}
        )
        whole = prepare_case(case, scans, preparation, labels=maps, masked=False)
        self._refuse_training(whole)
        prepared = lay_out(whole, data.axes)
        if not np.allclose(prepared.header.affine, output_grid.affine):
            raise BadInput(
                f"{case}: expected the same grid whichever modality is missing, found another one. Calibrate on cases whose scans share a grid."
            )
        moved = {
            name
            for name, registered in prepared.header.registered.items()
            if registered.kept != "none"
        }

        def on_output_grid(
            own: Volume,
            values: NDArray[np.generic],
            order: Literal[0, 1],
        ) -> Volume:
            """The file itself where it has the image's voxels, and registration did not move it."""
            from_file = oriented(own, data.axes[::-1])
            from_prepared = output_grid.laid(
                output_grid.written(values, own.modality, own.unit, order)
            )
            same = own.modality not in moved and same_grid(from_file.grid, from_prepared.grid)
            return from_file if same else from_prepared

        volumes = dict[str, Volume]()
        scales = dict[str, Scale]()
        for name in data.target:
            statistics = prepared.header.statistics[name]
            if statistics.blank:
                raise BadInput(
                    f"{case}: expected {name} to show something, found the same value everywhere."
                )
            volumes[name] = on_output_grid(scans[name], prepared.arrays[name][:], 1)
            scales[name] = recipe.intensity[name].scale(statistics)
        labels = dict[str, NDArray[np.generic]]()
        for name, label in maps.items():
            values = prepared.arrays[LABEL + name][:]
            labels[name] = on_output_grid(label, values, 0).data[0]
        return _Truth(volumes, scales, labels)

    def _check_truth(self, case: str, truth: Volume, output_grid: OutputGrid) -> None:
        """Raise BadInput where a truth has another unit than the model's images, or voxels of another size."""
        name = truth.modality
        unit = self.model.header["units"][name]
        if truth.unit != unit:
            raise BadInput(
                f"{case}: expected {name} in the unit of the model's images ({unit}), found {truth.unit} in {truth.origin}. Convert it, or take the original scan."
            )
        if has_other_size(truth.grid, output_grid.file):
            raise BadInput(
                f"{case}: expected {name} to show the region of its image ({output_grid.file}), found voxels of another size in {truth.origin} ({truth.grid}). Write its spacing in mm."
            )

    def _refuse_training(self, prepared: PreparedCase) -> None:
        """Raise InTraining where a scan of the case was in the training, by its voxels."""
        case = prepared.header.case
        if seen_in_training(self.model.header, prepared, prepared.arrays):
            raise InTraining(
                f"calibrate: expected patients that training did not see, found {case}, which was in it (by the voxels of its scans): errors there are smaller than of a new patient. Give --split val, or another cohort."
            )
        if case in recorded_splits([self.folder.parent]).get("train", []):
            self.warn(
                f"{case} has the name of a training case and other voxels: it counts as another patient."
            )

    def _voxels(
        self,
        name: str,
        image: Prediction,
        truth: _Truth,
        sources: Sequence[Array],
        generator: np.random.Generator,
    ) -> dict[str, Any]:
        """Random voxels of the body that the image or the truth shows, and a few of its surroundings."""
        volume = truth.volumes[name]
        spec = self.model.recipe.intensity[name]
        rules = self.rules[name]
        scale = Scale(*self.model.header["target_scales"][name])
        synthesised = Volume(scale.inverse(image.values)[None], volume.affine, volume.unit, name)
        truth_parts = region_masks(rules, volume, truth.labels)
        image_parts = region_masks(rules, synthesised)
        body = (truth_parts[BODY] | image_parts[BODY]).ravel()
        inside = generator.permutation(np.flatnonzero(body))[:BODY_VOXELS]
        outside = generator.permutation(np.flatnonzero(~body))[:AIR_VOXELS]
        places = np.sort(np.concatenate([inside, outside]))

        def at(values: np.ndarray) -> Any:
            return values.reshape(-1, *values.shape[3:])[places]

        physical = volume.data[0].astype(np.float32)
        true_scale = truth.scales[name]
        true_values = true_scale.forward(physical) if spec.window else true_scale.of(physical)
        chosen = image.each(at)
        shown = [source for source in sources if source.min() < source.max()]
        source = next(
            iter(shown), sources[0]
        )  # the others are background, where a modality is missing
        sketch = sketch_of(volume, synthesised.data[0], source, volume.grid)
        return {
            "features": at(voxel_features(image.values, sources, image.sd)),
            "truth": at(true_values),
            "made": chosen.values,  # the names in files of version 0.6
            **{key: getattr(chosen, key) for key in SAMPLED},
            "sketch": sketch.arrays,
            "truth_parts": {region: at(mask) for region, mask in truth_parts.items()},
            "made_parts": {region: at(mask) for region, mask in image_parts.items()},
        }


def _patches_of(left_out: str) -> str:
    """The name of the table of a case's patches without a modality."""
    return PATCHES if left_out == ALL else f"{PATCHES}.{left_out}"


def kept_shapes(
    found: Mapping[str, tuple[tuple[int, ...], str]],
    rules: Mapping[str, Iterable[str]],
    sources: int,
    samples: int,
    patches: Sequence[str] = (PATCHES,),
) -> dict[str, Shape]:
    """The shapes of the arrays in a case's file; found: the arrays that it has; rules: the regions of each target.

    patches: the names of its tables of patches.
    """
    shapes = dict[str, Shape]()
    for table in patches:
        shapes[f"{table}/features"] = Shape((None, number_of_patch_features(sources)))
        shapes[f"{table}/size"] = Shape((EXTENTS,))
        shapes[f"{table}/grain"] = Shape((EXTENTS,))
        lengths, _ = found.get(f"{table}/features", ((0,), ""))
        count = lengths[0] if lengths else 0
        shapes[f"{table}/places"] = Shape((count, 3), ("I32",), low=0)
    for name, regions in rules.items():
        lengths, _ = found.get(f"{name}/made", ((0,), ""))
        voxels = lengths[0] if lengths else 0
        shapes[f"{name}/features"] = Shape((voxels, number_of_features(sources, samples > 1)))
        sampled = SAMPLED if samples > 1 else ()
        for key in ("made", "truth", *sampled):
            shapes[f"{name}/{key}"] = Shape((voxels,))
        for key, lengths_of in SKETCH_LENGTHS.items():
            shapes[f"{name}/sketch/{key}"] = Shape(lengths_of)
        for parts in ("truth_parts", "made_parts"):
            keys = [f"{name}/{parts}/{region}" for region in (BODY, *regions)]
            present = [keys[0], *(key for key in keys[1:] if key in found)]
            shapes |= dict.fromkeys(present, Shape((voxels,), ("BOOL",), 0, 1))
    return shapes


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of nested tables, each with its path."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}/")
        elif value is not None:
            yield f"{above}{name}", np.ascontiguousarray(value)


def _nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The nested tables from the paths and arrays of `_flat`."""
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *above, name = path.split("/")
        inner = tree
        for key in above:
            inner = inner.setdefault(key, {})
        inner[name] = array
    return tree
