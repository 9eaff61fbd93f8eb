"""What a held-back case teaches: voxels of its images with their truth, kept until a calibration is done."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxlate.data.case import LABEL, MASK, PreparedCase, digest, prepare_case
from voxlate.data.layout import laid_out
from voxlate.data.presets import CaseFiles
from voxlate.errors import BadInput
from voxlate.images.grid import Volume, oriented, same_grid
from voxlate.images.intensity import Scale
from voxlate.images.io import content_hash, read_volume
from voxlate.records import Record, Shape, checksum, write_tensors
from voxlate.scoring.provenance import recorded_splits
from voxlate.synthesis.calls import PatchProgress
from voxlate.synthesis.inputs import preparation_for
from voxlate.synthesis.intervals import OutputGrid, output_grid_of, patches_in, sources_of
from voxlate.synthesis.model import Model
from voxlate.training.run import DIGITS
from voxlate.trust.calibration import BODY, Prediction
from voxlate.trust.features import number_of_features, voxel_features
from voxlate.trust.fit import Evidence
from voxlate.trust.out_of_distribution import EXTENTS, Patches, number_of_patch_features
from voxlate.trust.regions import parts_of

Array = NDArray[np.float32]

KEPT = 30_000  # voxels of a case's body that are kept: the share outside is known to 0.2 % from them
AIR = 3_000  # and of what is around it, which teaches that air is sure
PATCHES = ".patches"  # before the names of a case's patches, as no modality begins


class Trained(BadInput):
    """A patient of the training among those that it is not to have seen."""


@dataclass(frozen=True)
class _Truth:
    """The true images and label maps [D, H, W] of a case on the voxels of its images, and the scales of the former."""

    volumes: dict[str, Volume]
    scales: dict[str, Scale]
    labels: dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Collector:
    """Takes from held-back cases what a calibration of a model learns from.

    texts: rules of regions, by target and name; alpha: share of a patient's voxels that may lie outside intervals.
    """

    model: Model
    texts: Mapping[str, Mapping[str, str]]
    alpha: float
    seed: int
    warn: Callable[[str], None]

    @property
    def folder(self) -> Path:
        """Where what cases teach is kept until the calibration is done."""
        return self.model.calibration_file.with_suffix(".parts")

    def contents(self, case: CaseFiles) -> dict[str, str]:
        """What the files of a case hold that a calibration depends on."""
        files = {**self._files(case), **{f"label {name}": place for name, place in case.labels.items()}}
        return {name: content_hash(place) for name, place in sorted(files.items())}

    def evidence(
        self, case: CaseFiles, content: Mapping[str, str], progress: PatchProgress
    ) -> tuple[dict[str, Evidence], Patches]:
        """What a case teaches, by target, and what its scans show; kept in a file until the calibration is done."""
        model = self.model
        way = (model.header["weights_hash"], model.plan_of_synthesis, self.alpha, self.seed, content, self.texts, KEPT)
        kept = self.folder / f"{case.case}.{hashlib.sha256(repr(way).encode()).hexdigest()[:16]}.safetensors"
        arrays = self._kept(kept)
        if arrays is None:
            arrays = dict(_flat(self._draw(case, progress)))
            write_tensors(kept, arrays, {"sha256": checksum("", arrays)})
        found = _nested(arrays)
        patches = Patches(**found.pop(PATCHES))
        return {name: Evidence(case.case, case.patient or case.case, **one) for name, one in found.items()}, patches

    def _kept(self, path: Path) -> dict[str, np.ndarray] | None:
        """What an earlier, stopped calibration kept of a case; None where there is nothing whole."""
        if not path.is_file():
            return None
        recipe = self.model.recipe
        try:
            with Record(path, "what a case teaches", "It is made again.").tensors() as file:
                wanted = kept_shapes(file.shapes, self.texts, len(recipe.data.source), recipe.synth.samples)
                arrays = file.read(wanted)
                return arrays if file.text("sha256") == checksum("", arrays) else None
        except BadInput:
            return None

    def _files(self, case: CaseFiles) -> dict[str, Path]:
        """The scans of a case that the model is given or makes, and its mask where the model is given one."""
        wanted = [*self.model.recipe.data.source, *self.model.recipe.data.target]
        if lacking := [name for name in wanted if name not in case.files]:
            raise BadInput(f"{case.case}: expected {' and '.join(wanted)}, found no {' and no '.join(lacking)}.")
        mask = {MASK: case.mask} if case.mask and MASK in self.model.scan_names else {}
        return {**{name: case.files[name] for name in wanted}, **mask}

    def _draw(self, case: CaseFiles, progress: PatchProgress) -> dict[str, Mapping[str, Any]]:
        """Arrays of an Evidence of each target, of the case's images and its truth, and of the scans' Patches."""
        model = self.model
        scans = {name: read_volume(path, name) for name, path in self._files(case).items()}
        maps = {name: read_volume(path, name) for name, path in case.labels.items()}
        ready = model.ready({name: one for name, one in scans.items() if name in model.scan_names}, case.case)
        output_grid = output_grid_of(ready.prepared, model.recipe.data.axes, model.header["units"])
        scans.pop(MASK, None)
        truth = self._truth(case.case, scans, maps, output_grid)
        images, _ = model.draw(ready, self.seed, progress, self.alpha)
        sources = sources_of(model.recipe, ready.prepared)
        given = [output_grid.seen(one) for one in sources]
        chooser = np.random.default_rng([self.seed, *case.case.encode()])
        found = dict[str, Mapping[str, Any]]()
        for name, one in images.items():
            found[name] = self._sampled(name, one.image.each(output_grid.seen), truth, given, chooser)
        return {**found, PATCHES: vars(patches_in(model.recipe, ready.prepared, sources))}

    def _truth(
        self, case: str, scans: Mapping[str, Volume], maps: Mapping[str, Volume], output_grid: OutputGrid
    ) -> _Truth:
        """The truth as its file has it, which is what evaluate compares with; moved only where its grid is another."""
        recipe, data = self.model.recipe, self.model.recipe.data
        preparation = preparation_for(self.model.header, {name: scans[name] for name in data.source})
        whole = prepare_case(case, scans, preparation, labels=maps, masked=False)
        self._refuse_training(whole)
        prepared = laid_out(whole, data.axes)
        moved = {name for name, one in prepared.header.registered.items() if one.kept != "none"}

        def on_output_grid(own: Volume, values: NDArray[np.generic], order: Literal[0, 1]) -> Volume:
            """The file itself where it has the image's voxels, and registration did not move it."""
            turned = oriented(own, data.axes[::-1])
            ours = output_grid.laid(output_grid.written(values, own.modality, own.unit, order))
            return turned if own.modality not in moved and same_grid(turned.grid, ours.grid) else ours

        volumes, scales = dict[str, Volume](), dict[str, Scale]()
        for name in data.target:
            statistics = prepared.header.statistics[name]
            if statistics.blank:
                raise BadInput(f"{case}: expected {name} to show something, found the same value everywhere.")
            volumes[name] = on_output_grid(scans[name], prepared.arrays[name][:], 1)
            scales[name] = recipe.intensity[name].scale(statistics)
        labels = {name: on_output_grid(one, prepared.arrays[LABEL + name][:], 0).data[0] for name, one in maps.items()}
        return _Truth(volumes, scales, labels)

    def _refuse_training(self, prepared: PreparedCase) -> None:
        """Raise BadInput where a case was in the training, by what its prepared scans hold."""
        case, known = prepared.header.case, set(self.model.header.get("training_voxels", ()))
        if known & {digest(one[:])[:DIGITS] for one in prepared.arrays.values()}:
            raise Trained(
                f"calibrate: expected patients that training did not see, found {case}, which was in it (by the voxels "
                "of its scans): errors there are smaller than of a new patient. Give --split val, or another cohort."
            )
        if case in recorded_splits([self.folder.parent]).get("train", []):
            self.warn(f"{case} has the name of a training case and other voxels: it counts as another patient.")

    def _sampled(
        self, name: str, image: Prediction, truth: _Truth, sources: Sequence[Array], chooser: np.random.Generator
    ) -> dict[str, Any]:
        """Voxels of a case, drawn evenly from the body that its image or its truth shows, and a few from around it."""
        volume, spec, texts = truth.volumes[name], self.model.recipe.intensity[name], self.texts[name]
        scale = Scale(*self.model.header["target_scales"][name])
        made = Volume(scale.inverse(image.values)[None], volume.affine, volume.unit, name)
        of_truth, of_made = parts_of(texts, volume, truth.labels), parts_of(texts, made)
        known = volume.data[0].astype(np.float32)
        shown = (of_truth[BODY] | of_made[BODY]).ravel()
        parts = [np.flatnonzero(shown), np.flatnonzero(~shown)]
        drawn = [chooser.permutation(part)[:most] for part, most in zip(parts, (KEPT, AIR))]
        places = np.sort(np.concatenate(drawn))

        def at(values: np.ndarray) -> Any:
            return values.reshape(-1, *values.shape[3:])[places]

        sampled = image.each(at)
        return {
            "features": at(voxel_features(image.values, sources, image.sd)),
            "truth": at(truth.scales[name].forward(known) if spec.window else truth.scales[name].of(known)),
            "made": sampled.values,  # the key of version 0.6
            "sd": sampled.sd,
            "low": sampled.low,
            "high": sampled.high,
            "truth_parts": {part: at(mask) for part, mask in of_truth.items()},
            "made_parts": {part: at(mask) for part, mask in of_made.items()},
        }


def kept_shapes(
    found: Mapping[str, tuple[tuple[int, ...], str]], texts: Mapping[str, Iterable[str]], sources: int, samples: int
) -> dict[str, Shape]:
    """What the arrays of a case's file must be; found: those that are there; texts: the regions of each target."""
    shapes = {
        f"{PATCHES}/features": Shape((None, number_of_patch_features(sources))),
        f"{PATCHES}/size": Shape((EXTENTS,)),
        f"{PATCHES}/grain": Shape((EXTENTS,)),
    }
    patches, _ = found.get(f"{PATCHES}/features", ((0,), ""))
    shapes[f"{PATCHES}/places"] = Shape((patches[0] if patches else 0, 3), ("I32",), low=0)
    for name, regions in texts.items():
        lengths, _ = found.get(f"{name}/made", ((0,), ""))
        voxels = lengths[0] if lengths else 0
        shapes[f"{name}/features"] = Shape((voxels, number_of_features(sources, samples > 1)))
        of_samples = ("sd", "low", "high") if samples > 1 else ()
        for key in ("made", "truth", *of_samples):
            shapes[f"{name}/{key}"] = Shape((voxels,))
        for parts in ("truth_parts", "made_parts"):
            keys = [f"{name}/{parts}/{region}" for region in (BODY, *regions)]
            there = [key for number, key in enumerate(keys) if number == 0 or key in found]
            shapes |= dict.fromkeys(there, Shape((voxels,), ("BOOL",), 0, 1))
    return shapes


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of tables in tables, each by its path."""
    for name, one in tree.items():
        if isinstance(one, Mapping):
            yield from _flat(one, f"{above}{name}/")
        elif one is not None:
            yield f"{above}{name}", np.ascontiguousarray(one)


def _nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The tables that `_flat` was given."""
    tree: dict[str, Any] = {}
    for path, one in arrays.items():
        *above, name = path.split("/")
        inner = tree
        for key in above:
            inner = inner.setdefault(key, {})
        inner[name] = one
    return tree
