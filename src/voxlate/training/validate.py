"""Validation: loss, error, sharpness and verdict on validation cases, by the same items and the same noise every time."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from voxlate.base.array_types import Float32
from voxlate.base.errors import BadInput
from voxlate.base.items import BACKGROUND
from voxlate.base.messages import UNOWNED
from voxlate.scans.cases.case import CANONICAL, reorder_axes
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import Scale
from voxlate.scans.images.ranges import NETWORK_RANGE, mask_for
from voxlate.scans.images.tiling import Triple
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.methods.method import Method
from voxlate.synthesis.intervals import find_outside
from voxlate.synthesis.patch import overlap
from voxlate.synthesis.scan_checks import KnownScans, read_known_scans
from voxlate.training.batches.data_settings import training_cases
from voxlate.training.batches.patches import Patches, Places
from voxlate.training.naive import Baselines, fit_cohort
from voxlate.training.precision import autocast
from voxlate.training.recipe import FullStage, Recipe, Synthesis, ranges_of
from voxlate.training.run import Run
from voxlate.training.verdict import SYNTHESIS, UNOWNED_CLAUSE, Verdict, verdict_on

Measure = Callable[[Batch, Batch, Tensor], None]

# Places of an image between the mean and a sample. A network that learned for minutes leaves too much variation in its
# samples, one that learned for hours too little, so the place at which images vary as true ones is measured.
LEAST_SHARPNESS = 0.05  # below it an image is the mean, whose texture is blurred
PLACES = torch.linspace(LEAST_SHARPNESS, 1, 20).tolist()
MARGIN = 5  # pixels around the mask in which errors count
SEED = 1234  # this is no setting, so that validations of all runs have the same noise


def validation_split(cohort: Cohort) -> str:
    """The split of validation items: "val", or "train" if there are no validation cases."""
    return "val" if cohort.splits["val"] else "train"


def validation_items(recipe: Recipe, stage: FullStage, cohort: Cohort) -> list[Batch]:
    """`validation_items` items spread over the cases of the split, in batches of the recipe's `synth.batch`.

    There are none if training is unpaired and no case of the split has both sources and targets.
    """
    if (patches := paired_patches(recipe, stage, cohort)) is None:
        return []
    places = patches.even_places(stage.train.validation_items)
    return list(patches.in_batches(places, recipe.synth.batch))


def paired_patches(recipe: Recipe, stage: FullStage, cohort: Cohort) -> Patches | None:
    """The validation patches of a stage, of cases with sources and targets; None where there is no such case."""
    data = replace(stage.data, apart=False)
    try:
        return Patches(cohort, data, recipe.intensity, validation_split(cohort))
    except BadInput:
        if stage.data.apart:
            return None
        raise


def whole_slices(
    recipe: Recipe, stage: FullStage, cohort: Cohort, split: str, count: int
) -> Iterator[Batch]:
    """About `count` slices of a stage's modalities with the recipe's own size, not augmented, spread over a split.

    An autoencoder may be trained on smaller patches, but it is measured on the slices of the stages that use it.
    """
    own, depth = recipe.data, stage.data.patch[0]
    size = (depth, *own.patch[1:])
    data = replace(stage.data, patch=size, foreground=own.foreground, slices=own.slices)
    patches = Patches(cohort, data, recipe.intensity, split)
    return patches.in_batches(patches.even_places(-(-count // depth)), recipe.synth.batch)


@torch.no_grad()
def draw(
    method: Method,
    batch: Batch,
    sampling: Synthesis,
    precision: str,
    places: Sequence[float] = (1.0,),
) -> tuple[Batch, list[Tensor]]:
    """The input of the model, and its images at places on the line from the mean (0) to a sample (1), clipped as in synthesis.

    The noise is the same every time. The mean is not computed for the sample alone.
    """
    with autocast(batch.source.device, precision):
        given = method.as_at_inference(batch)
        noise = Noise(SEED, batch.item)
        sample = method.synthesise(given, noise, sampling).float().clamp(-1, 1)
        if min(places) == 1:
            return given, [sample for _ in places]
        mean = method.predictor.synthesise(given, noise, sampling).float().clamp(-1, 1)
    return given, [torch.lerp(mean, sample, place) for place in places]


@torch.no_grad()
def validate(
    method: Method,
    batches: Iterable[Batch],
    recipe: Recipe,
    stage: FullStage,
    device: torch.device,
    measure: Measure | None = None,
) -> dict[str, float]:
    """Mean loss and mean absolute error of syntheses in the mask (network units) with fixed noise.

    measure: called with each batch, the model's input, and the image. Returns {} if there are no batches.
    """
    losses, errors = [], []
    sampling = stage.validation_sampling(recipe.synth)
    place = recipe.synth.sharpness if stage.task.mean_stage is not None else 1.0
    drawn_in = recipe.synth.precision
    if drawn_in == "auto":
        drawn_in = stage.train.precision
    for batch in batches:
        batch = batch.to(device)
        with autocast(device, stage.train.precision):
            loss = method.loss([*method.turns][-1], batch, Noise(SEED, batch.item))
            losses.append(loss["total"].item())
        given, (image,) = draw(method, batch, sampling, drawn_in, (place,))
        assert batch.target is not None
        errors.append((image - batch.target).abs()[counted_voxels(batch)].mean().item())
        if measure is not None:
            measure(batch, given, image)
    if not losses:
        return {}
    return {"loss": sum(losses) / len(losses), "mae": sum(errors) / len(errors)}


def counted_voxels(batch: Batch) -> Tensor:
    """The voxels whose error counts, bool as the target: of targets that items have, near the mask, or all where that is empty.

    Images are shown up to some millimetres beyond the body of the sources; synthesis writes background farther away,
    whatever the network gives there.
    """
    assert batch.target is not None
    present = torch.ones_like(batch.target, dtype=torch.bool)
    if batch.target_present is not None:
        present &= batch.target_present[:, :, None, None, None]
    sides = (0, MARGIN, MARGIN)
    near = F.max_pool3d(batch.mask.float(), [2 * side + 1 for side in sides], 1, sides)
    inside = present & (near > 0)
    return inside if inside.any() else present


def find_targets(batch: Batch, item: int) -> list[int]:
    """The channels of the targets that an item has."""
    assert batch.target_present is not None
    return torch.nonzero(batch.target_present[item]).flatten().tolist()


@torch.no_grad()
def choose_sharpness(
    recipe: Recipe,
    stage: FullStage,
    method: Method,
    items: Iterable[Batch],
    device: torch.device,
) -> tuple[float, float] | None:
    """The least sharpness at which images have the gradient ratio that a recipe asks for (1 if none has), and their ratio.

    None if the recipe asks for no ratio, or states a sharpness of its own.
    """
    synth = recipe.synth
    if synth.gradient_ratio is None or synth.samples > 1 or synth.sharpness < 1:
        return None
    found, wanted = torch.zeros(len(PLACES)), 0.0
    for batch in items:
        batch = batch.to(device)
        _, images = draw(method, batch, synth, stage.train.precision, PLACES)
        assert batch.target is not None
        counted = counted_voxels(batch)
        wanted += _variation(batch.target, counted)
        found += torch.tensor([_variation(image, counted) for image in images])
    if not wanted or not found.isfinite().all():
        return None
    reached = (found >= synth.gradient_ratio * wanted).nonzero()
    place = int(reached[0]) if len(reached) else len(PLACES) - 1
    return round(PLACES[place], 2), float(found[place]) / wanted


def _variation(image: Tensor, counted: Tensor) -> float:
    """The sum of the differences between rows, as the score gradient_strength has it, before a background of air."""
    shown = torch.where(counted, image, BACKGROUND)
    return float(shown.diff(dim=-2).abs().sum())


@dataclass
class ItemErrors:
    """Mean absolute errors of items by target and answer (the model or a baseline), as `evaluate` scores whole cases.

    The same voxels count, and what is outside of the body becomes background as in a synthesis. Errors are in the unit of
    a window, or else of 255. baselines: those that `evaluate` scores; anatomy: the background of the training's targets;
    places: case and start of each item of the patches in the order of `add`; scales: those of the targets' images. A
    target that was an input of the model does not count, nor does an item without a voxel to be scored.
    """

    baselines: Baselines
    anatomy: KnownScans
    patches: Patches
    places: Places
    scales: Mapping[str, Scale]
    ignores_outside: bool = False
    count: int = 0
    errors: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # the items of a case follow one another
        self.part_of_case = lru_cache(len(self.patches.data.target))(self._part_of_case)

    def add(self, batch: Batch, given: Batch, image: Tensor) -> None:
        """Measure a batch; given: the input of the model; image: its prediction."""
        assert batch.target is not None
        size: Triple = (*batch.target.shape[2:],)
        for item in range(len(batch)):
            case, start = self.places[self.count]
            label = str(self.count)
            self.count += 1
            # the slices beside the own one have other names
            shown = {name for name, there in zip(given.source_names, given.present[item]) if there}
            sources = tuple(name for name in self.patches.data.source if name in shown)
            for place in find_targets(batch, item):
                name = batch.target_names[place]
                if name in sources:
                    continue
                inside, outside, naive = self.part_of_case(case, name, sources)
                counted = _cut(inside, start, size) > 0
                if not counted.any():
                    continue
                truth, prediction = (
                    of[item, place].cpu().float().numpy() for of in (batch.target, image)
                )
                filled = _cut(outside, start, size)
                answers = {key: _cut(whole, start, size) for key, whole in naive.items()}
                answers[SYNTHESIS] = np.where(np.isnan(filled), prediction, filled)
                for answer, values in answers.items():
                    apart = np.abs(values - truth)[counted]
                    error = float(apart.mean(dtype=np.float64)) * self.unit(name)[1]
                    self.errors.setdefault(name, {}).setdefault(answer, {})[label] = error

    def unit(self, target: str) -> tuple[str, float]:
        """The unit of a target's errors, and how many of it a network unit is."""
        if self.patches.intensity[target].window:
            return self.patches.cohort.units[target], self.scales[target].half
        return NETWORK_RANGE.unit, NETWORK_RANGE.width / 2

    def _part_of_case(
        self, case: str, target: str, sources: tuple[str, ...]
    ) -> tuple[Float32, Float32, dict[str, Float32]]:
        """The voxels of a case that count, as 1; its background, else NaN; its baselines: in network units and the items' axes."""
        patches, scale = self.patches, self.scales[target]
        prepared, unit = patches.cohort.case(case), patches.cohort.units[target]
        grid = prepared.header.grid
        inside = np.ones(grid.shape, np.float32)
        if mask_for(unit) == "body":
            inside = prepared.outline(target).astype(np.float32)
        outside = find_outside(prepared, sources)
        trained = self.anatomy.backgrounds.get(target)
        value = outside.value(scale, patches.intensity[target], unit, trained)
        voxels = outside.of(self.anatomy.beyond.get(target, 0), self.ignores_outside)
        background = np.where(voxels, scale.forward(np.float32(value)), np.nan).astype(np.float32)
        scans = {name: prepared.volume(name) for name in sources}
        naive = self.baselines.images(target, scans, grid)
        if target in self.baselines.means:
            naive["mean image"] = self.baselines.mean_image(target, grid).data[0]
        images = {}
        for key, values in naive.items():
            volume = self.baselines.in_own_unit(Volume(values[None], grid.affine, "", target))
            images[key] = self._lay_out(scale.forward(volume.data[0]))
        return self._lay_out(inside), self._lay_out(background), images

    def _lay_out(self, image: Float32) -> Float32:
        return reorder_axes(image, CANONICAL, self.patches.data.axes)


def _cut(image: Float32, start: Triple, size: Triple) -> Float32:
    """The part of a whole image that an item shows, with 0 beyond its ends."""
    part = np.zeros(size, np.float32)
    in_part, in_image = overlap(start, size, [(0, length) for length in image.shape])
    part[in_part] = image[in_image]
    return part


def begin_errors(run: Run, recipe: Recipe, stage: FullStage, cohort: Cohort) -> ItemErrors:
    """The errors of a stage's validation items before any is added, with the baselines of its run."""
    data, maps = stage.data, recipe.intensity
    baselines = Baselines.load(run.naive)
    if not {*data.modalities} <= baselines.ranges.keys():
        baselines = fit_cohort(cohort, data.source, data.target, ranges_of(recipe))
    patches = paired_patches(recipe, stage, cohort)
    assert patches is not None
    cases = training_cases(cohort, data)
    return ItemErrors(
        baselines,
        read_known_scans(run.anatomy),
        patches,
        patches.even_places(stage.train.validation_items),
        {name: cohort.target_scale(maps[name], name, cases) for name in data.target},
        recipe.ignores_outside,
    )


def verdicts_on(errors: ItemErrors, stage: FullStage) -> list[Verdict]:
    """The verdict on each target of a stage by its last validation."""
    cohort = errors.patches.cohort
    clause = ""
    if validation_split(cohort) == "train":
        clause = "these are training items, because there is no validation patient"
    elif any(warning.code == UNOWNED for warning in cohort.warnings):
        clause = UNOWNED_CLAUSE
    patients = {entry.case: entry.patient for entry in cohort.cases}
    of_items = {str(number): patients[case] for number, (case, _) in enumerate(errors.places)}
    where = " on validation items" + (", one sample each" if stage.method.iterates else "")
    return [
        verdict_on(name, of_target, of_items, errors.unit(name)[0], where, clause)
        for name, of_target in errors.errors.items()
    ]
