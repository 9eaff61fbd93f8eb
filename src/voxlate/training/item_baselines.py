"""The errors of a model and of naive baselines on the same validation items, in network units."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from voxlate.base.messages import UNOWNED
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.ranges import Range
from voxlate.science.batch import Batch
from voxlate.training.batches.batches import validation_batches
from voxlate.training.naive import Baselines, Sums
from voxlate.training.recipe import FullStage, Recipe
from voxlate.training.validate import (
    find_targets,
    has_pairs,
    in_pairs,
    validation_places,
    validation_split,
)
from voxlate.training.verdict import SYNTHESIS, UNOWNED_CLAUSE, Verdict, verdict_on

ITEMS = 32  # training items for the fit of baselines
UNIT = "network units"
SCALE = Range(-1.0, 1.0, UNIT, "the ends of intensity maps")


@dataclass
class ItemErrors:
    """Mean absolute errors of items by target and answer (the model or a baseline) on the same voxels.

    baselines: of training items (see `fit_items`); patients: the patient of each item in the order of `add`. A target
    that was an input of the model does not count.
    """

    baselines: Baselines
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
                prediction = _volume(image[item, batch.target_names.index(name)], name)
                images = self.baselines.images(name, sources, truth.grid)
                for answer, values in {SYNTHESIS: prediction.data[0], **images}.items():
                    error = float(np.mean(np.abs(values - truth.data[0]), dtype=np.float64))
                    self.errors.setdefault(name, {}).setdefault(answer, {})[label] = error


def fit_items(
    batches: Iterable[Batch], sources: Sequence[str], targets: Sequence[str]
) -> Baselines:
    """Learn the naive baselines from training items; without any, only those that need no training remain."""
    sums = Sums(dict.fromkeys([*sources, *targets], SCALE), sources, targets)
    for batch in batches:
        for item in range(len(batch)):
            sums.add({**_sources(batch, item), **_targets(batch, item)})
    return sums.baselines()


def _sources(batch: Batch, item: int) -> dict[str, Volume]:
    """The sources of an item; in a stack, these are its own slices, which come first."""
    present = batch.present[item].tolist()
    return {
        name: _volume(batch.source[item, place], name)
        for place, name in enumerate(batch.source_names)
        if present[place]
    }


def _targets(batch: Batch, item: int) -> dict[str, Volume]:
    assert batch.target is not None
    names = [(place, batch.target_names[place]) for place in find_targets(batch, item)]
    return {name: _volume(batch.target[item, place], name) for place, name in names}


def _volume(values: Tensor, name: str) -> Volume:
    """An image [D, H, W] of an item, at a place that does not matter."""
    return Volume(values[None].detach().cpu().float().numpy(), np.eye(4), UNIT, name)


def begin_errors(recipe: Recipe, stage: FullStage, cohort: Cohort) -> ItemErrors:
    """Fit the baselines to training items similar to those of the validation, which `ItemErrors.add` then takes."""
    training: Iterable[Batch] = ()
    if has_pairs(stage, cohort, "train"):
        training = validation_batches(
            cohort, in_pairs(stage), recipe.intensity, split="train", batch=1, limit=ITEMS
        )
    baselines = fit_items(training, stage.data.source, stage.data.target)
    patients = {entry.case: entry.patient for entry in cohort.cases}
    places = validation_places(stage, cohort)
    return ItemErrors(baselines, [patients[case] for case, _ in places])


def verdicts_on(errors: ItemErrors, stage: FullStage, cohort: Cohort) -> list[Verdict]:
    """The verdict on each target of a stage by its last validation."""
    drawn = ", one sample each" if stage.method.iterates else ""
    where = f"on {errors.count} validation items{drawn} (voxlate evaluate scores whole images)"
    known = validation_split(cohort) == "train"
    clause = "these are training items, because there is no validation patient" if known else ""
    if any(warning.code == UNOWNED for warning in cohort.warnings):
        clause = clause or UNOWNED_CLAUSE
    patients = {str(number): patient for number, patient in enumerate(errors.patients)}
    return [
        verdict_on(name, of_target, patients, UNIT, where, clause)
        for name, of_target in errors.errors.items()
    ]
