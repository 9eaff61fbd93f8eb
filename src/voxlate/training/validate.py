"""Loss and error on validation cases: the same items and the same noise every time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voxlate.batch import BACKGROUND, Batch
from voxlate.batches.batches import DataSettings, batches_of, even_places, validation_batches
from voxlate.cases.layout import CANONICAL, relaid
from voxlate.cases.prepared import Cohort
from voxlate.diffusion.noise import Noise
from voxlate.images.pictures import montage
from voxlate.images.tiling import Triple
from voxlate.methods.method import Method
from voxlate.recipe import FullStage, Recipe

Measure = Callable[[Batch, Batch, Tensor], None]

SEED = 1234  # this is no setting, so that validations of all runs have the same noise


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Convolutions and products in bfloat16 if the recipe states it; all other operations stay in float32.

    precision: "float32" or "bfloat16"; training.precision replaces "auto".
    """
    assert precision != "auto"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def validation_split(cohort: Cohort) -> str:
    """The split of validation items: "val", or "train" if there are no validation cases."""
    return "val" if cohort.splits["val"] else "train"


def validation_items(recipe: Recipe, stage: FullStage, cohort: Cohort) -> list[Batch]:
    """`validation_items` items spread over the cases of the split, in batches of the recipe's `synth.batch`.

    There are none if training is unpaired and no case of the split has both sources and targets.
    """
    places = validation_places(stage, cohort)
    return list(batches_of(cohort, in_pairs(stage), recipe.intensity, places, recipe.synth.batch))


def validation_places(stage: FullStage, cohort: Cohort) -> Sequence[tuple[str, Triple]]:
    """Case and start of each validation item of a stage, in order."""
    split = validation_split(cohort)
    wanted = {*stage.data.source, *stage.data.target}
    if stage.data.apart and not any(
        wanted <= set(one.present) for one in cohort.cases if one.split == split
    ):
        return []
    return even_places(cohort, in_pairs(stage), split, stage.train.validation_items)


def in_pairs(stage: FullStage) -> DataSettings:
    """The data settings of a stage's validation: sources and targets of one case."""
    return replace(stage.data, apart=False)


def whole_slices(
    recipe: Recipe, stage: FullStage, cohort: Cohort, split: str, count: int
) -> Iterator[Batch]:
    """About `count` slices of a stage's modalities with the recipe's own size, not augmented, spread over a split.

    An autoencoder may be trained on smaller patches, but it is measured on the slices of the stages that use it.
    """
    shape = (stage.data.patch[0], *recipe.data.patch[1:])
    data = replace(
        stage.data,
        patch=shape,
        foreground=recipe.data.foreground,
        slices=recipe.data.slices,
    )
    limit = -(-count // shape[0])
    return validation_batches(
        cohort,
        data,
        recipe.intensity,
        split=split,
        batch=recipe.synth.batch,
        limit=limit,
    )


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
    """Mean loss and mean absolute error of syntheses (network units) with fixed noise; writes a picture of some items.

    measure: called with each batch, the model's input, and the image. Returns {} if there are no batches.
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
        errors.append(
            (error if batch.target_present is None else error[batch.target_present]).mean().item()
        )
        if measure is not None:
            measure(batch, given, image)
        for item in range(len(batch)):
            target = _shown_target(batch, given, item)
            rows.append(
                _row(
                    given,
                    image[item, target],
                    batch.target[item, target],
                    item,
                    stage.data,
                )
            )
            labels.append(batch.target_names[target])
    if rows:
        montage(
            rows[:6],
            [*stage.data.source, "synthesis", "truth"],
            picture,
            labels=labels[:6],
        )
    count = len(losses)
    return {"loss": sum(losses) / count, "mae": sum(errors) / count} if count else {}


def _shown_target(batch: Batch, given: Batch, item: int) -> int:
    """The first existing target of the item that was hidden from the model, or else its first existing target."""
    hidden = (batch.present & ~given.present)[item].tolist()
    names = {name for name, was_hidden in zip(batch.source_names, hidden) if was_hidden}
    present = (
        [True] * len(batch.target_names)
        if batch.target_present is None
        else batch.target_present[item].tolist()
    )
    there = [place for place, is_there in enumerate(present) if is_there]
    return next(
        (place for place in there if batch.target_names[place] in names),
        next(iter(there), 0),
    )


def _row(
    given: Batch, image: Tensor, truth: Tensor, item: int, data: DataSettings
) -> list[np.ndarray]:
    """Middle slices of one item as pictures: its sources (black if absent), its synthesis, the truth."""
    there = given.present[item, : len(data.source), None, None, None]
    sources = given.source[item, : len(data.source)].masked_fill(~there, BACKGROUND)
    volumes = [
        relaid(tensor.cpu().float().numpy(), data.axes, CANONICAL)
        for tensor in (*sources, image, truth)
    ]
    return [(volume[len(volume) // 2] + 1) / 2 for volume in volumes]
