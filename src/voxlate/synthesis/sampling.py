"""Sampling of the images of a prepared case: a few slices or one patch at a time, in network units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from voxlate.batch import BACKGROUND, Batch, stable_id
from voxlate.batches.batches import collate
from voxlate.batches.patches import read_patch
from voxlate.cases.case import PreparedCase, resize_case
from voxlate.diffusion.noise import Noise, Tile
from voxlate.images.tiling import (
    Blend,
    SlicePlan,
    Triple,
    Whole,
    fit_to_mask,
    range_of_varied_slices,
    whole_slices,
    whole_volume,
    zoom,
)
from voxlate.methods.method import Method
from voxlate.recipe import Recipe, Synthesis
from voxlate.recipe.training import Precision
from voxlate.synthesis.inputs import CaseInputs
from voxlate.synthesis.progress import PatchProgress, count_calls, no_report
from voxlate.system.arrays import Bool
from voxlate.system.errors import BadInput
from voxlate.system.slabs import map_slabs, release
from voxlate.training.precision import of_synthesis
from voxlate.training.validate import autocast
from voxlate.trust.calibration import Prediction


def sample_targets(
    method: Method,
    recipe: Recipe,
    device: torch.device,
    inputs: CaseInputs,
    seed: int,
    progress: PatchProgress,
    unused: Bool | None = None,
) -> tuple[list[Prediction], float]:
    """The targets of a case, and evaluations of the network for each sample of a slice or patch.

    The image is the mean over the samples. The seed and the key of the inputs decide the noise.
    unused: slices [D] that stay background where the network sees one slice at a time.
    """
    synth = recipe.synth
    plan, prepared = _plan_slices(recipe, inputs.prepared)
    if unused is not None and plan.input_tiling.patch[0] == 1:
        left_out = (np.flatnonzero(unused) - plan.first).tolist()
        plan = replace(plan, empty=plan.empty.union(left_out))
    network = _Network(method, recipe, device, of_synthesis(recipe, device), plan)
    starts = plan.starts()
    blend = Blend(plan.output_tiling, _background(recipe))
    with count_calls(method.net, _progress_in_windows(synth, plan, progress)) as calls:
        size = 1 if synth.exact else synth.batch
        for begin in range(0, len(starts), size):
            chosen = starts[begin : begin + size]
            patches = [
                read_patch(prepared, recipe.data, recipe.intensity, *plan.patch_at(start))
                for start in chosen
            ]
            release(*prepared.arrays.values())
            noise = _noise_of(
                synth, plan, chosen, patches, prepared.header.spacing_mm[0], inputs.key, seed
            )
            images = network.moments(collate(patches), noise)
            for start, image in zip(chosen, images):
                blend.add(image, plan.place(start))
            if synth.windows is None:
                progress(begin + len(chosen), len(starts))
    evaluations_each = calls.count / max(1, len(starts) * synth.samples)
    return _predictions(
        prepared.header.case, blend.result(), len(recipe.data.target)
    ), evaluations_each


def _background(recipe: Recipe) -> list[float]:
    """The values of voxels that no patch holds, by channel, in the order of _Network.moments."""
    values = [BACKGROUND]
    if recipe.synth.samples > 1:
        values.append(0.0)
    by_channel: list[float] = np.repeat(values, len(recipe.data.target)).tolist()
    return by_channel


def _predictions(case: str, blended: np.ndarray, targets: int) -> list[Prediction]:
    """The predictions of all targets from their moments [k T, D, H, W]; raises BadInput for values that are not finite.

    k: the mean, and of several samples the standard deviation.
    """
    parts = blended.reshape(-1, targets, *blended.shape[1:])
    for part in parts:
        _check_finite(case, part)
    return [Prediction(*parts[:, channel]) for channel in range(targets)]


def _progress_in_windows(
    synth: Synthesis,
    plan: SlicePlan,
    progress: PatchProgress,
) -> Callable[[int], None]:
    """Turns evaluations of the network into finished slices, where a whole volume is one item; nothing elsewhere."""
    if synth.windows is None:
        return no_report
    depth = plan.input_tiling.shape[0]
    mirrored = 2 if synth.mirror else 1
    expected = synth.evaluations * len(synth.windows.slices(depth)) * synth.samples * mirrored
    return lambda count: progress(min(depth, int(depth * count / expected)), depth)


def _plan_slices(recipe: Recipe, prepared: PreparedCase) -> tuple[SlicePlan, PreparedCase]:
    """The patches for the network, and the case from which they are read, resized where the options require it."""
    shape = prepared.header.shape
    slices = recipe.synth.slices
    if recipe.synth.windows is not None:
        if slices != Whole():
            raise BadInput(
                f"synth.windows: expected synth.slices of kind 'whole' without a crop, found {slices}. Drop one of the two."
            )
        return whole_volume(shape), prepared
    plan = slices.plan(shape, recipe.data.patch, recipe.synth.overlap)
    if slices.resize_to is not None:
        first, last = range_of_varied_slices(
            [prepared.arrays[name][:] for name in prepared.header.units]
        )
        plan = replace(
            plan, input_tiling=whole_slices((last - first, *slices.resize_to)), first=first
        )
        if last == first:
            return plan, prepared
        prepared = resize_case(prepared, slices.resize_to, (first, last))
    mask = prepared.mask(recipe.data.source) if recipe.ignores_outside else None
    multiple = max(stage.net.multiple for stage in recipe.all_stages)
    return fit_to_mask(
        plan, mask, multiple, recipe.data.centred, slices.crop, recipe.data.patch[1:]
    ), prepared


def _noise_of(
    synth: Synthesis,
    plan: SlicePlan,
    starts: Sequence[Triple],
    patches: Sequence[Batch],
    spacing_mm: float,
    key: str,
    seed: int,
) -> Callable[[int], Noise]:
    """The noise of some patches, by the number of the sample."""
    streams = []
    for start, patch in zip(starts, patches):
        first = plan.place(start)[0]
        depth = patch.item.shape[1]
        streams.append([_streams(synth, key, first + z, spacing_mm) for z in range(depth)])
    return partial(Noise, seed, streams, tiles=_noise_tiles(plan, starts))


def _noise_tiles(plan: SlicePlan, starts: Sequence[Triple]) -> list[Tile] | None:
    """Which part of the slices' noise each tile has; None for whole slices, whatever their margins."""
    (_, *plane), (_, *size) = plan.input_tiling.shape, plan.input_tiling.patch
    if all(length >= whole for length, whole in zip(size, plane)):
        return None
    size_yx, plane_yx = (size[0], size[1]), (plane[0], plane[1])
    return [Tile((y, x), size_yx, plane_yx) for _, y, x in starts]


def _streams(
    synth: Synthesis,
    key: str,
    z: int,
    spacing_mm: float,
) -> dict[int, float]:
    """The noise streams of a slice, with their weights; tiles of a slice share them."""
    weights = synth.noise.streams(z, spacing_mm)
    return {stable_id(key, other, 0, 0): weight for other, weight in weights.items()}


@dataclass(frozen=True)
class _Network:
    """A method with what decides one sample of a patch."""

    method: Method
    recipe: Recipe
    device: torch.device
    precision: Precision
    plan: SlicePlan

    def moments(
        self,
        batch: Batch,
        noise: Callable[[int], Noise],
    ) -> np.ndarray:
        """The mean of the samples and their standard deviation (ddof = 1): [B, k T, D, H, W], k = 1 of one sample, else 2."""
        samples = self.recipe.synth.samples
        batch = batch.to(self.device)
        mean = torch.zeros(())
        squares = torch.zeros(())
        for sample in range(samples):
            image = self.sample(batch, noise(sample))
            step = image - mean
            mean = mean + step / (sample + 1)
            squares = squares + step * (image - mean)  # Welford 1962
        parts = [mean.cpu()]
        if samples > 1:
            parts.append((squares / (samples - 1)).sqrt().cpu())
        return torch.cat(parts, dim=1).numpy()

    def sample(self, batch: Batch, noise: Noise) -> Tensor:
        """One sample [B, T, D, H, W] at the volume's resolution; clipped after resizing, because splines overshoot."""
        synth = self.recipe.synth
        with torch.inference_mode(), autocast(self.device, self.precision):
            image = self.method.synthesise(batch, noise, synth).float()
            axis = self.recipe.data.axis_lr
            if synth.mirror and batch.source.shape[axis] > 1:  # a sagittal slice is its own mirror
                flipped = replace(batch, source=batch.source.flip(axis), mask=batch.mask.flip(axis))
                mirrored = self.method.synthesise(flipped, noise, synth).float()
                image = (image + mirrored.flip(axis)) / 2
        image = pad(image, [-margin for margin in self.plan.margins], value=BACKGROUND)
        if self.plan.resized:
            image = torch.from_numpy(zoom(image.cpu().numpy(), self.plan.output_tiling.patch[1:]))
        return image.clamp(-1, 1)


def _check_finite(case: str, image: np.ndarray) -> None:
    """Raise BadInput unless the channels of an image [T, D, H, W] are finite."""
    wrong = 0
    for channel in image:
        wrong += sum(map_slabs(lambda slab: np.count_nonzero(~np.isfinite(slab)), channel))
    if wrong:
        raise BadInput(
            f"{case}: expected an image of finite values, found {wrong} of {image.size} that are not: nothing is written. Choose another sampler or more steps, or train again."
        )
