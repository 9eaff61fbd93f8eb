"""Losses beside that of voxels: structural similarity, and those of what a network gives besides its image (`Output.extras`).

A loss of an extra takes the extra, the problem, the batch's labels and how a method averages; it gives [B].
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from voxlate.base.errors import BadInput
from voxlate.base.similarity import RADIUS, SIGMA, ssim_map
from voxlate.science.diffusion.objective import Reduction, mean_in_mask
from voxlate.science.methods.method import Problem, require
from voxlate.science.nets.interface import modality_images

# windows overlap by 8 of 11 pixels, so every third is enough; network units span 2
STRIDE = 3
RANGE = 2.0


def dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    """1 − mean SSIM of each item's slices, [B], of images [B, C, D, H, W] in [-1, 1], at least 11 × 11."""
    items = len(a)
    a, b = (x.float().transpose(1, 2).flatten(0, 2).unsqueeze(1) + RANGE / 2 for x in (a, b))
    with torch.autocast(
        a.device.type, enabled=False
    ):  # variances are small differences: bfloat16 would lose them
        return 1 - ssim_map(a, b, RANGE, _window_mean).reshape(items, -1).mean(1)


def _window_mean(x: Tensor) -> Tensor:
    """Gaussian-weighted means of [N, 1, H, W], inside the image only, at every third row and column."""
    place = torch.arange(-RADIUS, RADIUS + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-(place**2) / (2 * SIGMA**2))
    kernel = (weights / weights.sum()).view(1, 1, -1)
    return F.conv2d(
        F.conv2d(x, kernel.unsqueeze(-1), stride=(STRIDE, 1)),
        kernel.unsqueeze(-2),
        stride=(1, STRIDE),
    )


Extra = Tensor | tuple[Tensor, ...]
ExtraLoss = Callable[[Extra, Problem, Tensor | None, Reduction], Tensor]
SMOOTH = 1.0  # voxels added to both parts of Dice, so that an absent class that is not found counts as found


def reconstructions(
    extra: Extra, problem: Problem, labels: Tensor | None, reduction: Reduction
) -> Tensor:
    """L1 of images of the input modalities, [B, N, D, H, W], against themselves, where available."""
    images, available = _given(problem)
    return mean_in_mask(
        (_as_tensor(extra) - images).abs(), available[:, :, None, None, None], reduction
    )


def images_by_latent(
    extra: Extra, problem: Problem, labels: Tensor | None, reduction: Reduction
) -> Tensor:
    """L1 of the images, [B, C, D, H, W], that each available modality's latent gives alone, summed over these."""
    truth = require(problem.x0)
    _, available = _given(problem)
    there = truth.new_ones(truth.shape[:2]) if problem.x0_present is None else problem.x0_present
    errors = [
        mean_in_mask((image.float() - truth).abs(), there[:, :, None, None, None], reduction)
        for image in extra
    ]
    return (torch.stack(errors, dim=1) * available).sum(dim=1)


def latent_variance(
    extra: Extra, problem: Problem, labels: Tensor | None, reduction: Reduction
) -> Tensor:
    """Mean of a map of variances across latents, [B, 1, D, H, W]."""
    return _as_tensor(extra).flatten(1).mean(dim=1)


def codes(extra: Extra, problem: Problem, labels: Tensor | None, reduction: Reduction) -> Tensor:
    """L1 between two maps of codes, [B, C, …]: of the input images, and of the synthesised ones."""
    of_inputs, of_outputs = extra
    return (of_inputs.float() - of_outputs.float()).abs().flatten(1).mean(dim=1)


def segmentation(
    extra: Extra, problem: Problem, labels: Tensor | None, reduction: Reduction
) -> Tensor:
    """Cross entropy and 1 − Dice of the classes above 0, of logits [B, K, D, H, W], where there are labels.

    labels: [B, 1, D, H, W], the number of each voxel's class, -1 where there is none.
    """
    logits = _as_tensor(extra)
    wanted = require(labels)[:, 0].long()
    if (highest := int(wanted.max())) >= logits.shape[1]:
        raise BadInput(
            f"net.classes: expected more classes than the highest label, {highest}, found {logits.shape[1]}. Raise it."
        )
    known = (wanted >= 0)[:, None].float()
    entropy = mean_in_mask(
        F.cross_entropy(logits, wanted, ignore_index=-1, reduction="none")[:, None], known
    )
    chances = logits.softmax(dim=1) * known
    truth = F.one_hot(wanted.clamp(min=0), logits.shape[1]).movedim(-1, 1) * known
    both, either = (
        voxels[:, 1:].flatten(2).sum(dim=2) for voxels in (chances * truth, chances + truth)
    )
    dice = ((2 * both + SMOOTH) / (either + SMOOTH)).mean(dim=1)
    return entropy + (1 - dice) * known.flatten(1).amax(dim=1)


def modality_logits(
    extra: Extra, problem: Problem, labels: Tensor | None, reduction: Reduction
) -> Tensor:
    """Cross entropy of which modality a latent is of, [B, N, N, …], logits before places, over those available."""
    logits = _as_tensor(extra)
    _, available = _given(problem)
    each = logits.flatten(0, 1).flatten(2)  # [B * N, N, places]
    numbers = torch.arange(logits.shape[1], device=logits.device)
    kind = numbers.repeat(len(logits))[:, None].expand(-1, each.shape[2])
    entropies = F.cross_entropy(each, kind, reduction="none").mean(dim=1)
    return mean_in_mask(entropies.view(available.shape), available)


LOSSES: Mapping[str, ExtraLoss] = {
    "reconstructions": reconstructions,
    "images_by_latent": images_by_latent,
    "latent_variance": latent_variance,
    "codes": codes,
    "segmentation": segmentation,
    "modality_logits": modality_logits,
}


def _given(problem: Problem) -> tuple[Tensor, Tensor]:
    """The images of the input modalities, and which are available; see `modality_images`."""
    return modality_images(replace(problem.inputs, state=problem.known))


def _as_tensor(extra: Extra) -> Tensor:
    assert isinstance(extra, Tensor)
    return extra.float()
