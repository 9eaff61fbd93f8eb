"""The errors of a model and of naive baselines on the same validation items, in the voxels that `evaluate` scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from torch import Tensor

from voxlate.base.array_types import Float32
from voxlate.base.messages import UNOWNED
from voxlate.scans.cases.case import CANONICAL, reorder_axes
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.images.grid import Grid, Volume
from voxlate.scans.images.intensity import Scale
from voxlate.scans.images.ranges import NETWORK_RANGE, mask_for, normalise_by
from voxlate.scans.images.tiling import Triple
from voxlate.science.batch import Batch
from voxlate.synthesis.patch import overlap
from voxlate.training.batches.batches import Places
from voxlate.training.batches.patches import DataSettings, IntensityMaps, training_cases
from voxlate.training.naive import Baselines, fit_cohort
from voxlate.training.recipe import FullStage, Recipe, ranges_of
from voxlate.training.run import Run
from voxlate.training.validate import find_targets, in_pairs, validation_places, validation_split
from voxlate.training.verdict import SYNTHESIS, UNOWNED_CLAUSE, Verdict, verdict_on


@dataclass
class ItemErrors:
    """Mean absolute errors of items by target and answer (the model or a baseline) on the same voxels.

    They are in the unit of a window, or else of 255, as `evaluate` states them. baselines: those that `evaluate` scores;
    places: case and start of each item in the order of `add`; scales: those of the targets' images. A target
    that was an input of the model does not count, nor does an item without a voxel to be scored.
    """

    baselines: Baselines
    cohort: Cohort
    data: DataSettings
    intensity: IntensityMaps
    places: Places
    scales: Mapping[str, Scale]
    count: int = 0
    errors: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # the items of a case follow one another
        self.scored_part = lru_cache(len(self.data.target))(self._scored_part)

    def add(self, batch: Batch, given: Batch, image: Tensor) -> None:
        """Measure a batch; given: the input of the model; image: its prediction."""
        assert batch.target is not None
        size: Triple = (*batch.target.shape[2:],)
        for item in range(len(batch)):
            case, start = self.places[self.count]
            label = str(self.count)
            self.count += 1
            sources = self._sources(given, item, case, start)
            for place in find_targets(batch, item):
                name = batch.target_names[place]
                if name in sources:
                    continue
                body, whole_mean = self.scored_part(case, name)
                inside, mean = (_cut(whole, start, size) for whole in (body, whole_mean))
                if not inside.any():
                    continue
                truth, prediction = (_array(of[item, place]) for of in (batch.target, image))
                naive = self.baselines.images_of_values(name, sources)
                if name in self.baselines.means:
                    naive["mean image"] = mean
                answers = {key: self._in_network_units(name, one) for key, one in naive.items()}
                for answer, values in {SYNTHESIS: prediction, **answers}.items():
                    apart = np.abs(values - truth)[inside > 0]
                    error = float(apart.mean(dtype=np.float64)) * self.unit(name)[1]
                    self.errors.setdefault(name, {}).setdefault(answer, {})[label] = error

    def unit(self, target: str) -> tuple[str, float]:
        """The unit of a target's errors, and how many of it a network unit is."""
        if self.intensity[target].window:
            return self.cohort.units[target], self.scales[target].half
        return NETWORK_RANGE.unit, NETWORK_RANGE.width / 2

    def _sources(self, given: Batch, item: int, case: str, start: Triple) -> dict[str, Float32]:
        """The sources of an item on their scored ranges; in a stack, these are its own slices, which come first."""
        header = self.cohort.header(case, self.data.axes)
        numbers = start[0] + np.arange(given.source.shape[2])
        slices = numbers.clip(0, header.shape[0] - 1).tolist()
        sources = {}
        for name, shown, values in zip(given.source_names, given.present[item], given.source[item]):
            if not shown or name not in self.baselines.ranges:
                continue
            statistics = header.statistics[name]
            scales = [self.intensity[name].scale(statistics, number) for number in slices]
            stored = np.stack([one.inverse(part) for one, part in zip(scales, _array(values))])
            scale = self.baselines.ranges[name]
            sources[name] = (
                normalise_by(statistics, stored) if scale.own else scale.normalise(stored, None)
            )
        return sources

    def _scored_part(self, case: str, target: str) -> tuple[Float32, Float32]:
        """The voxels of a case that count, as 1, and its mean image, with the axes of the items."""
        prepared = self.cohort.case(case)
        header = prepared.header
        inside = np.ones(header.shape, np.float32)
        if mask_for(self.cohort.units[target]) == "body":
            inside = prepared.outline(target).astype(np.float32)
        mean = inside
        if target in self.baselines.means:
            grid = Grid(header.shape, np.array(header.affine))
            mean = self.baselines.mean_image(target, grid).data[0]
        axes = self.data.axes
        return reorder_axes(inside, CANONICAL, axes), reorder_axes(mean, CANONICAL, axes)

    def _in_network_units(self, target: str, image: Float32) -> Float32:
        """A baseline's image on the scored range in network units."""
        volume = Volume(image[None], np.eye(4), "", target)  # its place does not matter
        return self.scales[target].forward(self.baselines.in_own_unit(volume).data[0])


def _array(values: Tensor) -> Float32:
    return values.detach().cpu().float().numpy()


def _cut(image: Float32, start: Triple, size: Triple) -> Float32:
    """The part of a whole image that an item shows, with 0 beyond its ends."""
    part = np.zeros(size, np.float32)
    in_part, in_image = overlap(start, size, [(0, length) for length in image.shape])
    part[in_part] = image[in_image]
    return part


def begin_errors(run: Run, recipe: Recipe, stage: FullStage, cohort: Cohort) -> ItemErrors:
    """The errors of a stage's validation items before any is added, with the baselines of its run."""
    data = stage.data
    baselines = Baselines.load(run.naive)
    if not {*data.source, *data.target} <= baselines.ranges.keys():
        baselines = fit_cohort(cohort, data.source, data.target, ranges_of(recipe))
    maps = recipe.intensity
    places = validation_places(stage, cohort)
    cases = training_cases(cohort, data)
    scales = {name: cohort.target_scale(maps[name], name, cases) for name in data.target}
    return ItemErrors(baselines, cohort, in_pairs(stage), maps, places, scales)


def verdicts_on(errors: ItemErrors, stage: FullStage) -> list[Verdict]:
    """The verdict on each target of a stage by its last validation."""
    cohort = errors.cohort
    drawn = ", one sample each" if stage.method.iterates else ""
    known = validation_split(cohort) == "train"
    clause = "these are training items, because there is no validation patient" if known else ""
    if any(warning.code == UNOWNED for warning in cohort.warnings):
        clause = clause or UNOWNED_CLAUSE
    patients = {entry.case: entry.patient for entry in cohort.cases}
    of_items = {str(number): patients[case] for number, (case, _) in enumerate(errors.places)}
    verdicts = []
    for name, of_target in errors.errors.items():
        unit, _ = errors.unit(name)
        where = f" on validation items{drawn}"
        verdicts.append(verdict_on(name, of_target, of_items, unit, where, clause))
    return verdicts
