"""The errors of a model and of naive baselines on the same validation items, in network units."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from voxlate.batch import Batch
from voxlate.batches.batches import validation_batches
from voxlate.cases.prepared import Cohort
from voxlate.recipe import FullStage, Recipe
from voxlate.scoring.verdict import SYNTHESIS, Verdict, verdict_on
from voxlate.system.arrays import Float32
from voxlate.training.validate import (
    find_targets,
    has_pairs,
    in_pairs,
    validation_places,
    validation_split,
)

ITEMS = 32  # training items for the fit of baselines
VOXELS = 20_000  # voxels of each item, about 2,500 values for each bin of a table
BINS = 256
UNIT = "network units"

Values = Float32


@dataclass
class ItemErrors:
    """Mean absolute errors of items by target and answer (the model or a baseline) on the same voxels.

    samples: values of training items, to which the baselines are fitted (see `sample_items`); patients: the patient of
    each item in the order of `add`. A target that was an input of the model does not count.
    """

    samples: Mapping[str, Values]
    patients: Sequence[str]
    count: int = 0
    errors: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def add(self, batch: Batch, given: Batch, image: Tensor) -> None:
        """Measure a batch; given: the input of the model; image: its prediction."""
        for item in range(len(batch)):
            sources = _sources(given, item)
            label = str(self.count)
            self.count += 1
            for name, truth in _targets(batch, item).items():
                if name in sources:
                    continue
                prediction = _array(image[item, batch.target_names.index(name)])
                answers = {SYNTHESIS: prediction, **_baselines(self.samples, name, sources)}
                for answer, values in answers.items():
                    error = float(np.mean(np.abs(values - truth), dtype=np.float64))
                    self.errors.setdefault(name, {}).setdefault(answer, {})[label] = error


def sample_items(batches: Iterable[Batch]) -> dict[str, Values]:
    """About VOXELS values of each training item by modality, in one order; NaN where the item lacks it."""
    columns = dict[str, list[Values]]()
    for batch in batches:
        for item in range(len(batch)):
            there = {**_sources(batch, item), **_targets(batch, item)}
            size = next(iter(there.values())).size
            # The step is odd, so that it visits all columns of a slice.
            step = max(1, size // VOXELS) | 1
            absent = np.full(size, np.nan, np.float32)
            for name in {*batch.source_names, *batch.target_names}:
                column = there.get(name, absent).ravel()[::step]
                columns.setdefault(name, []).append(column)
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def _baselines(
    samples: Mapping[str, Values], target: str, sources: Mapping[str, Values]
) -> dict[str, Values]:
    """The image of each baseline of a target; sources: those of the item, without the target itself."""
    images = dict[str, Values]()
    names = sorted(sources)
    for name, values in sources.items():
        images[f"copy of {name}"] = values
        label = f"intensity table of {name}" if len(names) > 1 else "intensity table"
        if name in samples and target in samples:
            table = _apply_table(samples[name], samples[target], values)
            images |= {} if table is None else {label: table}
    if len(names) > 1 and {*names, target} == samples.keys():
        rows = np.stack([samples[name] for name in (*names, target)]).astype(np.float64)
        *own, truth = rows[:, np.isfinite(rows).all(0)]
        if truth.size:
            matrix = np.stack([*own, np.ones_like(truth)], 1)
            *weights, constant = np.linalg.lstsq(matrix, truth, rcond=1e-9)[0]
            fitted = sum(weight * sources[name] for weight, name in zip(weights, names))
            images["least squares"] = np.asarray(fitted + constant, np.float32)
    return images


def _apply_table(source: Values, target: Values, image: Values) -> Values | None:
    """The mean of the target's samples in the bin of each value of an image; None if no sample has both modalities."""
    both = np.isfinite(source) & np.isfinite(target)
    if not both.any():
        return None
    low = float(source[both].min())
    width = max(float(source[both].max()) - low, 1e-6)

    def _bins(values: Values) -> NDArray[np.intp]:
        return np.clip((values - low) * (BINS / width), 0, BINS - 1).astype(np.intp)

    counts = np.bincount(_bins(source[both]), minlength=BINS)
    sums = np.bincount(_bins(source[both]), target[both], BINS)
    known = np.flatnonzero(counts)
    means = np.interp(np.arange(BINS), known, sums[known] / counts[known])
    return means.astype(np.float32)[_bins(image)]


def _sources(batch: Batch, item: int) -> dict[str, Values]:
    """The sources of an item; in a stack, these are its own slices, which come first."""
    present = batch.present[item].tolist()
    return {
        name: _array(batch.source[item, place])
        for place, name in enumerate(batch.source_names)
        if present[place]
    }


def _targets(batch: Batch, item: int) -> dict[str, Values]:
    assert batch.target is not None
    places = find_targets(batch, item)
    return {batch.target_names[k]: _array(batch.target[item, k]) for k in places}


def _array(values: Tensor) -> Values:
    return values.detach().cpu().float().numpy()


def begin_errors(recipe: Recipe, stage: FullStage, cohort: Cohort) -> ItemErrors:
    """Fit the baselines to training items similar to those of the validation, which `ItemErrors.add` then takes.

    If no training case has both sources and targets, only copies remain.
    """
    training: Iterable[Batch] = ()
    if has_pairs(stage, cohort, "train"):
        training = validation_batches(
            cohort, in_pairs(stage), recipe.intensity, split="train", batch=1, limit=ITEMS
        )
    patients = {entry.case: entry.patient for entry in cohort.cases}
    places = validation_places(stage, cohort)
    return ItemErrors(sample_items(training), [patients[case] for case, _ in places])


def verdicts_on(errors: ItemErrors, stage: FullStage, cohort: Cohort) -> list[Verdict]:
    """The verdict on each target of a stage by its last validation."""
    drawn = ", one sample each" if stage.method.iterates else ""
    where = f"on {errors.count} validation items{drawn}"
    known = validation_split(cohort) == "train"
    clause = "these are training items, because there is no validation patient" if known else ""
    patients = {str(number): patient for number, patient in enumerate(errors.patients)}
    return [
        verdict_on(name, of_target, patients, UNIT, where, clause)
        for name, of_target in errors.errors.items()
    ]
