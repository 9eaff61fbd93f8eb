"""Loss and error on validation cases: the same items and the same noise every time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voxlate.batch import BACKGROUND, Batch
from voxlate.data.batches import DataSettings, batches_of, even_places, validation_batches
from voxlate.data.layout import CANONICAL, relaid
from voxlate.data.prepared import Cohort
from voxlate.diffusion.noise import Noise
from voxlate.images.pictures import montage
from voxlate.images.tiling import Triple
from voxlate.methods.method import Method
from voxlate.recipe import FullStage, Recipe

Measure = Callable[[Batch, Batch, Tensor], None]

SEED = 1234  # no setting: validations of all runs see the same noise


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Convolutions and products in bfloat16 where the recipe says so; everything else stays float32.

    precision: not "auto", which training.precision replaces.
    """
    assert precision != "auto"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def validation_split(cohort: Cohort) -> str:
    """Whose items are looked at during training: those of validation cases, of training cases where there are none."""
    return "val" if cohort.splits["val"] else "train"


def validation_items(recipe: Recipe, stage: FullStage, cohort: Cohort) -> list[Batch]:
    """`validation_items` items spread over the cases of the split, in batches of the recipe's `synth.batch`.

    None where scans lie apart and no case of the split has both sources and targets: nothing can be compared.
    """
    places = validation_places(stage, cohort)
    return list(batches_of(cohort, in_pairs(stage), recipe.intensity, places, recipe.synth.batch))


def validation_places(stage: FullStage, cohort: Cohort) -> Sequence[tuple[str, Triple]]:
    """Case and start of each validation item of a stage, in their order."""
    split = validation_split(cohort)
    wanted = {*stage.data.source, *stage.data.target}
    if stage.data.apart and not any(wanted <= set(one.present) for one in cohort.cases if one.split == split):
        return []
    return even_places(cohort, in_pairs(stage), split, stage.train.validation_items)


def in_pairs(stage: FullStage) -> DataSettings:
    """The data of a stage as it is validated: sources and targets of one case."""
    return replace(stage.data, apart=False)


def whole_slices(recipe: Recipe, stage: FullStage, cohort: Cohort, split: str, count: int) -> Iterator[Batch]:
    """Items of a stage's modalities as large as the recipe's own, not augmented, spread over a split: `count` slices.

    An autoencoder may be trained on pieces of slices; what is measured of it is for those that build on it.
    """
    shape = (stage.data.patch[0], *recipe.data.patch[1:])
    data = replace(
        stage.data,
        patch=shape,
        foreground=recipe.data.foreground,
        slices=recipe.data.slices,
    )
    limit = -(-count // shape[0])
    return validation_batches(cohort, data, recipe.intensity, split=split, batch=recipe.synth.batch, limit=limit)


@torch.no_grad()
def validate(
    method: Method,
    batches: Iterable[Batch],
    recipe: Recipe,
    stage: FullStage,
    device: torch.device,
    picture: Path,
    measure: Measure | None = None,
) -> dict[str, float]:
    """Mean loss and mean absolute error of syntheses (network units), noise fixed; writes a picture of the first.

    measure: gets each batch, what the model was given of it, and the image. Nothing where there are no batches.
    """
    losses = []
    errors = []
    sampling = stage.validation_sampling(recipe.synth)
    rows = []
    labels = []
    for batch in batches:
        batch = batch.to(device)
        with autocast(device, stage.train.precision):
            losses.append(method.validation_loss(batch, Noise(SEED, batch.item)))
        drawn_in = recipe.synth.precision
        with autocast(device, stage.train.precision if drawn_in == "auto" else drawn_in):
            given = method.as_at_inference(batch)
            image = method.synthesise(given, Noise(SEED, batch.item), sampling).float()
        assert batch.target is not None
        error = (image - batch.target).abs()
        errors.append((error if batch.target_present is None else error[batch.target_present]).mean().item())
        if measure is not None:
            measure(batch, given, image)
        for item in range(len(batch)):
            target = _shown_target(batch, given, item)
            rows.append(_row(given, image[item, target], batch.target[item, target], item, stage.data))
            labels.append(batch.target_names[target])
    if rows:
        montage(rows[:6], [*stage.data.source, "synthesis", "truth"], picture, labels=labels[:6])
    count = len(losses)
    return {"loss": sum(losses) / count, "mae": sum(errors) / count} if count else {}


def _shown_target(batch: Batch, given: Batch, item: int) -> int:
    """The first target that the item has and that was hidden from the model; where none was, the first that it has."""
    hidden = (batch.present & ~given.present)[item].tolist()
    names = {name for name, one in zip(batch.source_names, hidden) if one}
    present = [True] * len(batch.target_names) if batch.target_present is None else batch.target_present[item].tolist()
    there = [place for place, one in enumerate(present) if one]
    return next(
        (place for place in there if batch.target_names[place] in names),
        next(iter(there), 0),
    )


def _row(given: Batch, image: Tensor, truth: Tensor, item: int, data: DataSettings) -> list[np.ndarray]:
    """Middle slices of one item as pictures: its sources (black where it lacks one), its synthesis, the truth."""
    there = given.present[item, : len(data.source), None, None, None]
    sources = given.source[item, : len(data.source)].masked_fill(~there, BACKGROUND)
    volumes = [relaid(one.cpu().float().numpy(), data.axes, CANONICAL) for one in (*sources, image, truth)]
    return [(volume[len(volume) // 2] + 1) / 2 for volume in volumes]
