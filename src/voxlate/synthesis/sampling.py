"""Drawing the images of a prepared case: a few slices or one patch at a time, in network units."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from voxlate.batch import BACKGROUND, Batch, stable_id
from voxlate.data.batches import collate
from voxlate.data.case import PreparedCase, resize_case
from voxlate.data.patches import read_patch
from voxlate.diffusion.noise import Noise, Tile
from voxlate.errors import BadInput
from voxlate.images.tiling import (
    Blend,
    SlicePlan,
    Triple,
    Whole,
    fit_to_mask,
    varied_slices,
    whole_slices,
    whole_volume,
    zoomed,
)
from voxlate.recipe import Synthesis
from voxlate.synthesis.calls import PatchProgress, count_calls, no_report
from voxlate.training.validate import autocast
from voxlate.trust.calibration import Prediction

if TYPE_CHECKING:
    from voxlate.synthesis.model import Model


def draw(
    model: "Model",
    prepared: PreparedCase,
    key: str,
    seed: int,
    progress: PatchProgress,
    outer: float | None,
) -> tuple[list[Prediction], float]:
    """The targets of a case, and evaluations of the network for each sample of a slice or patch.

    Of several samples an image is the mean. Noise goes by the seed and the key of the scans. outer: of the samples, the
    quantiles outer / 2 and 1 - outer / 2 are wanted, too.
    """
    synth, data = model.recipe.synth, model.recipe.data
    plan, prepared = _plan(model, prepared)
    starts, count = plan.starts(), len(data.target)
    outer = outer if synth.samples > 1 else None
    empty = [BACKGROUND, *[0.0] * (synth.samples > 1), *[BACKGROUND] * 2 * (outer is not None)]  # as _moments gives
    blend = Blend(plan.output_tiling, np.repeat(empty, count).tolist())
    with count_calls(model.method.net, _progress_in_windows(model, plan, progress)) as calls:
        size = 1 if synth.exact else synth.batch
        for begin in range(0, len(starts), size):
            chosen = starts[begin : begin + size]
            places = [plan.place(start) for start in chosen]
            patches = [read_patch(prepared, data, model.recipe.intensity, *plan.patch_at(start)) for start in chosen]
            streams = [
                [_streams(synth, key, place[0] + d, prepared.header.spacing_mm[0]) for d in range(patch.item.shape[1])]
                for place, patch in zip(places, patches)
            ]
            noise = partial(Noise, seed, streams, tiles=_noise_tiles(plan, chosen))
            for place, image in zip(places, _moments(model, collate(patches), noise, plan, outer)):
                blend.add(image, place)
            if synth.windows is None:
                progress(begin + len(chosen), len(starts))
    done = blend.result()
    parts = done.reshape(-1, count, *done.shape[1:])  # mean, standard deviation, two quantiles
    for part in parts[:2]:
        _check_finite(prepared.header.case, part)
    return [Prediction(*parts[:, channel]) for channel in range(count)], calls.count / max(
        1, len(starts) * synth.samples
    )


def _progress_in_windows(model: "Model", plan: SlicePlan, progress: PatchProgress) -> Callable[[int], None]:
    """Turns evaluations of the network into slices done, where a whole volume is one item; nothing elsewhere."""
    synth, depth = model.recipe.synth, plan.input_tiling.shape[0]
    if synth.windows is None:
        return no_report
    mirrored = 2 if synth.mirror else 1
    wanted = synth.evaluations * len(synth.windows.slices(depth)) * synth.samples * mirrored
    return lambda count: progress(min(depth, int(depth * count / wanted)), depth)


def _plan(model: "Model", prepared: PreparedCase) -> tuple[SlicePlan, PreparedCase]:
    """Which patches the network sees, and the case that they are read from: resized, where the options say so."""
    recipe, shape = model.recipe, prepared.header.shape
    slices = recipe.synth.slices
    if recipe.synth.windows is not None:
        if slices != Whole():
            raise BadInput(
                f"synth.windows: expected synth.slices of kind 'whole' without a crop, found {slices}. "
                "Drop one of the two."
            )
        return whole_volume(shape), prepared
    plan = slices.plan(shape, recipe.data.patch, recipe.synth.overlap)
    if slices.resize_to is not None:
        first, last = varied_slices([prepared.arrays[name][:] for name in prepared.header.present])
        plan = replace(plan, input_tiling=whole_slices((last - first, *slices.resize_to)), first=first)
        if last == first:
            return plan, prepared
        prepared = resize_case(prepared, slices.resize_to, (first, last))
    mask = prepared.mask(recipe.data.source) if recipe.ignores_outside else None
    sides = [stage.net.multiple for stage in recipe.all_stages]
    return fit_to_mask(plan, mask, max(sides), recipe.data.centred, slices.crop, recipe.data.patch[1:]), prepared


def _noise_tiles(plan: SlicePlan, starts: list[Triple]) -> list[Tile] | None:
    """Which part of the slices' noise each tile has; None for whole slices, whatever their margins."""
    (_, *plane), (_, *size) = plan.input_tiling.shape, plan.input_tiling.patch
    if all(length >= whole for length, whole in zip(size, plane)):
        return None
    return [Tile((y, x), (size[0], size[1]), (plane[0], plane[1])) for _, y, x in starts]


def _streams(synth: Synthesis, key: str, z: int, spacing_mm: float) -> dict[int, float]:
    """The noise streams that a slice draws from, with their weights; tiles of a slice share them."""
    return {stable_id(key, other, 0, 0): weight for other, weight in synth.noise.streams(z, spacing_mm).items()}


def _moments(
    model: "Model", batch: Batch, noise: Callable[[int], Noise], plan: SlicePlan, outer: float | None
) -> np.ndarray:
    """The samples' mean; of several the standard deviation (ddof = 1), too, and the quantiles that are asked for.

    [B, k T, D, H, W], k = 1, 2 or 4. Samples are kept only for quantiles.
    """
    synth: Synthesis = model.recipe.synth
    batch = batch.to(model.device)
    mean, squares, kept = torch.zeros(()), torch.zeros(()), list[Tensor]()
    for sample in range(synth.samples):
        image = _one_sample(model, batch, noise(sample), plan)
        step = image - mean
        mean = mean + step / (sample + 1)
        squares = squares + step * (image - mean)  # Welford 1962
        if outer is not None:
            kept.append(image.cpu())
    parts = [mean.cpu()]
    if synth.samples > 1:
        parts.append((squares / (synth.samples - 1)).sqrt().cpu())
    if outer is not None:
        parts += torch.quantile(torch.stack(kept), torch.tensor([outer / 2, 1 - outer / 2]), dim=0).unbind()
    return torch.cat(parts, dim=1).numpy()


def _one_sample(model: "Model", batch: Batch, noise: Noise, plan: SlicePlan) -> Tensor:
    """One sample [B, T, D, H, W] at the volume's resolution; clipped after resizing, because splines overshoot."""
    synth = model.recipe.synth
    with torch.inference_mode(), autocast(model.device, model.precision):
        image = model.method.synthesise(batch, noise, synth).float()
        if synth.mirror:
            axis = model.recipe.data.left_right
            flipped = replace(batch, source=batch.source.flip(axis), mask=batch.mask.flip(axis))
            image = (image + model.method.synthesise(flipped, noise, synth).float().flip(axis)) / 2
    image = pad(image, [-margin for margin in plan.margins], value=BACKGROUND)
    if plan.resized:
        image = torch.from_numpy(zoomed(image.cpu().numpy(), plan.output_tiling.patch[1:]))
    return image.clamp(-1, 1)


def _check_finite(case: str, image: np.ndarray) -> None:
    if not np.isfinite(image).all():
        raise BadInput(
            f"{case}: expected an image of finite values, found {int((~np.isfinite(image)).sum())} of {image.size} "
            "that are not: nothing is written. Choose another sampler or more steps, or train again."
        )
