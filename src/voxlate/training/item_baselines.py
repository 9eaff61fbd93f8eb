"""The errors of a model and of naive baselines on the same validation items, in network units."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxlate.batch import Batch
from voxlate.batches.batches import validation_batches
from voxlate.cases.prepared import Cohort
from voxlate.recipe import FullStage, Recipe
from voxlate.scoring.verdict import SYNTHESIS, Verdict, verdict_on
from voxlate.system.arrays import Float32, Float64
from voxlate.training.validate import (
    has_pairs,
    in_pairs,
    present_targets,
    validation_places,
    validation_split,
)

ITEMS = 32  # training items for the fit of baselines
VOXELS = 20_000  # voxels of each item, about 2,500 values for each bin of a table
BINS = 256
UNIT = "network units"

Values = Float32


@dataclass(frozen=True)
class Table:
    """The mean value of a target by the bin of a source between `low` and `high`."""

    low: float
    high: float
    means: Values

    def image(self, source: Values) -> Values:
        """The image that the table makes of a source."""
        return self.means[_bins(source, self.low, self.high)]


@dataclass(frozen=True)
class ItemBaselines:
    """Naive baselines in network units, fitted to training items: copies, intensity tables, least squares."""

    tables: Mapping[tuple[str, str], Table]
    products: Mapping[tuple[str, ...], Float64]

    def images(self, target: str, sources: Mapping[str, Values]) -> dict[str, Values]:
        """The image of each baseline of a target; sources: those of the item, without the target itself."""
        images = dict[str, Values]()
        several = len(sources) > 1
        for name, values in sources.items():
            images[f"copy of {name}"] = values
            if (name, target) in self.tables:
                label = "intensity table" + (f" of {name}" if several else "")
                images[label] = self.tables[name, target].image(values)
        names = sorted(sources)
        key = (*names, target)
        if several and key in self.products:
            *weights, constant = self.products[key]
            fitted = sum(weight * sources[name] for weight, name in zip(weights, names))
            images["least squares"] = np.asarray(fitted + constant, np.float32)
        return images


def fit_items(batches: Iterable[Batch]) -> ItemBaselines:
    """Fit the baselines to training items; a voxel counts for the modalities of its item."""
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
    values = {name: np.concatenate(parts) for name, parts in columns.items()}
    tables = dict[tuple[str, str], Table]()
    products = dict[tuple[str, ...], Float64]()
    for target in values:
        for source in values.keys() - {target}:
            if table := _table(values[source], values[target]):
                tables[source, target] = table
        products |= _least_squares_maps(values, target)
    return ItemBaselines(tables, products)


def _table(source: Values, target: Values) -> Table | None:
    both = np.isfinite(source) & np.isfinite(target)
    if not both.any():
        return None
    low = float(source[both].min())
    high = float(source[both].max())
    bins = _bins(source[both], low, high)
    counts = np.bincount(bins, minlength=BINS)
    sums = np.bincount(bins, target[both], BINS)
    known = np.flatnonzero(counts)
    means = np.interp(np.arange(BINS), known, sums[known] / counts[known])
    return Table(low, high, means.astype(np.float32))


def _bins(values: Values, low: float, high: float) -> NDArray[np.intp]:
    width = max(high - low, 1e-6)
    return np.clip((values - low) * (BINS / width), 0, BINS - 1).astype(np.intp)


def _least_squares_maps(
    values: Mapping[str, Values], target: str
) -> dict[tuple[str, ...], Float64]:
    """Weights of all other modalities and of 1 that predict a target, if some voxels have all of them."""
    names = sorted(values.keys() - {target})
    rows = np.stack([values[name] for name in (*names, target)]).astype(np.float64)
    *sources, truth = rows[:, np.isfinite(rows).all(0)]
    if len(names) < 2 or not truth.size:
        return {}
    matrix = np.stack([*sources, np.ones_like(truth)], 1)
    return {(*names, target): np.linalg.lstsq(matrix, truth, rcond=1e-9)[0]}


def _sources(batch: Batch, item: int) -> dict[str, Values]:
    """The sources of an item; in a stack, these are its own slices, which come first."""
    present = torch.nonzero(batch.present[item]).flatten().tolist()
    names = batch.source_names
    return {names[k]: _array(batch.source[item, k]) for k in present if k < len(names)}


def _targets(batch: Batch, item: int) -> dict[str, Values]:
    assert batch.target is not None
    places = present_targets(batch, item)
    return {batch.target_names[k]: _array(batch.target[item, k]) for k in places}


def _array(values: Tensor) -> Values:
    return values.detach().cpu().float().numpy()


@dataclass
class ItemErrors:
    """Mean absolute errors of items by target and answer (the model or a baseline) on the same voxels.

    patients: the patient of each item in the order of `add`. A target that was an input of the model does not count.
    """

    baselines: ItemBaselines
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
                answers = {SYNTHESIS: prediction, **self.baselines.images(name, sources)}
                for answer, values in answers.items():
                    error = float(np.mean(np.abs(values - truth), dtype=np.float64))
                    self.errors.setdefault(name, {}).setdefault(answer, {})[label] = error


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
    return ItemErrors(fit_items(training), [patients[case] for case, _ in places])


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
