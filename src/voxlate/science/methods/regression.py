"""One forward pass from source to target: the reference for every diffusion model; and its losses.

Beside losses of voxels there are structural similarity, and those of what a network gives besides its image
(`Output.extras`). A loss of an extra takes the extra, the problem, the batch's labels and how a method averages; it gives [B].
"""

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from voxlate.base.config import Importable, look_up, setting, settings
from voxlate.base.errors import BadInput
from voxlate.base.similarity import RADIUS, SIGMA, ssim_map
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Draws, Noise
from voxlate.science.diffusion.prediction import Reduction, mean_in_mask, means_in_mask
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.methods.method import (
    Attempt,
    Losses,
    Method,
    MethodSettings,
    Problem,
    StageSettings,
    Task,
    pair_of,
    require,
    with_total,
)
from voxlate.science.nets.interface import Channels, NetSettings, Output, modality_images

LOSSES = {
    "l1": partial(F.l1_loss, reduction="none"),
    "mse": partial(F.mse_loss, reduction="none"),
}


@settings
class RegressionSettings(MethodSettings):
    """Predicts the target (or the missing channels) directly."""

    predicts: ClassVar[bool] = True
    weighs: ClassVar[bool] = True
    is_stochastic: ClassVar[bool] = False
    kind: Literal["regression"] = "regression"
    loss: Annotated[
        Literal["l1", "mse"],
        Importable(),
        setting(
            "Loss inside the mask, or 'module:function', which takes image and truth and returns a value for each voxel."
        ),
    ] = "l1"
    ssim: Annotated[
        float,
        setting("Weight of an additional loss 1 - SSIM, with windows of 11 pixels.", ge=0),
    ] = 0.0
    windows: Annotated[
        dict[str, tuple[float, float]],
        setting(
            "Additional losses within windows of network units, by name, each in shares of its width: { brain = [-0.333, -0.28] } counts a grey value of brain like one of bone."
        ),
    ] = field(default_factory=dict)
    borders: Annotated[
        dict[str, tuple[float, float, float]],
        setting(
            "Additional losses 1 - Dice of what lies above a level, by name, as [level, width, weight] in network units: { bone = [-0.1667, 0.0333, 0.1] }. The border is as soft as the width, and a negative one takes what lies below the level."
        ),
    ] = field(default_factory=dict)
    gradient: Annotated[
        float, setting("Weight of an additional L1 loss of differences between pixels.", ge=0)
    ] = 0.0
    leak: Annotated[
        float,
        setting(
            "Slope of the output outside of [-1, 1], the range of images; below 1 the network's own values may overshoot.",
            ge=0,
            le=1,
        ),
    ] = 1.0
    reduction: Reduction = "mask"
    extras: Annotated[
        dict[str, Annotated[float, Field(ge=0)]],
        setting("Weight of the loss of each auxiliary output of the network, by its name."),
    ] = field(default_factory=dict)

    def check(self, stage: StageSettings, where: str) -> None:
        """Raise BadInput where the loss does not fit the stage."""
        super().check(stage, where)
        if (self.ssim or self.leak < 1) and stage.task.state_range != (-1, 1):
            raise BadInput(
                f"{where}: expected task.range = [-1, 1] for method.ssim and method.leak, found {list(stage.task.state_range)}. Drop one of the two."
            )
        for name, (low, high) in self.windows.items():
            if not -1 <= low < high <= 1:
                raise BadInput(
                    f"{where}: expected method.windows.{name} as [low, high] with low < high in network units (-1 to 1, the ends of the target's intensity map), found {[low, high]}. Change it."
                )
        for name, (_, width, _) in self.borders.items():
            if width == 0:
                raise BadInput(
                    f"{where}: expected a width other than 0 in method.borders.{name}, found 0. Change it."
                )
        if unknown := [
            name for name in self.extras if name not in stage.net.extras or name not in EXTRA_LOSSES
        ]:
            raise BadInput(
                f"{where}: expected method.extras of {', '.join(stage.net.extras) or 'none'}, which the network gives, found '{unknown[0]}'. Drop it."
            )
        if "segmentation" in self.extras and len(stage.data.labels) != 1:
            raise BadInput(
                f"{where}: expected one label map in data.labels for method.extras.segmentation, found {stage.data.labels or 'none'}. Set data.labels, or drop it."
            )

    def build(self, net: NetSettings, task: Task, channels: Channels) -> "Regression":
        """The method with fresh weights."""
        state = channels.state if task.known_in_state else 0
        method = Regression(self, net.build(replace(channels, state=state, noisy=False)), task)
        method.pair_channels = (channels.out, sum(channels.images.values()))
        method.feature_channels = net.feature_channels
        return method


class Regression(Method):
    """A network that is evaluated once, without noise and time."""

    task: Task
    feature_channels: tuple[int, ...] = ()

    def __init__(self, options: RegressionSettings, net: nn.Module, task: Task):
        super().__init__()
        self.turns = options.turns
        self.options = options
        self.net = net
        self.task = task
        self.error = look_up(options.loss, LOSSES)

    def attempt(self, batch: Batch, noise: Noise, progress: float = 1.0) -> Attempt:
        """The predicted image of a batch, and its losses."""
        problem = self.task.pose(batch, noise, progress).with_weight(batch.weight)
        output = self.run(problem, tuple(self.options.extras))
        image = output.image

        def _losses() -> Losses:
            terms = self.compare(image, problem)
            for name, weight in self.options.extras.items():
                loss = EXTRA_LOSSES[name](
                    output.extras[name], problem, batch.labels, self.options.reduction
                )
                terms[name] = weight * loss.mean()
                terms["total"] = terms["total"] + terms[name]
            return terms

        return Attempt(_losses, lambda: pair_of(problem, image, self.task))

    def compare(self, image: Tensor, problem: Problem) -> Losses:
        """How far an image [B, C, D, H, W] is from the truth."""
        x0 = require(problem.x0)
        present = problem.where_present(image)
        errors = {self.options.loss: self.error(image, x0), **problem.errors}
        for name, window in self.options.windows.items():
            errors[f"windows.{name}"] = self.error(
                in_window(image, *window), in_window(x0, *window)
            )
        if self.options.gradient:
            errors["gradient"] = self.options.gradient * slope_error(image, x0)
        terms = means_in_mask(errors, problem.loss_mask, self.options.reduction)
        for name, (level, width, weight) in self.options.borders.items():
            inside, true = (torch.sigmoid((x - level) / width) for x in (image, x0))
            terms[f"borders.{name}"] = weight * overlap_loss(inside, true, problem.loss_mask)
        if self.options.ssim:
            terms["ssim"] = self.options.ssim * dissimilarity(present, x0).mean()
        return with_total(terms)

    def predict(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Images [B, T, D, H, W] in network units and the network's feature maps, with gradients where enabled."""
        problem = self.task.pose(batch)
        output = self.run(problem)
        return self.task.restore(output.image, problem), tuple(output.extras.get("features", ()))

    @torch.no_grad()
    def synthesise(self, batch: Batch, noise: Draws, sampling: SamplerSettings) -> Tensor:
        """The predicted image of each item."""
        problem = self.task.pose(batch)
        return self.task.restore(self.run(problem).image, problem)

    def run(self, problem: Problem, extras: tuple[str, ...] = ()) -> Output:
        """The network's output, its image in float32; extras: names of further results that are asked for."""
        state = problem.known if self.task.known_in_state else None
        output: Output = self.net(replace(problem.inputs, state=state, extras=extras))
        image = output.image.float()
        return replace(
            output, image=image if self.options.leak == 1 else leaky(image, self.options.leak)
        )


def in_window(x: Tensor, low: float, high: float) -> Tensor:
    """x clipped to a window, which becomes [-1, 1]."""
    return (x.clamp(low, high) - low) * (2 / (high - low)) - 1


def overlap_loss(inside: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """1 - Dice of two soft masks in another one, over the whole batch, since a slice may show nothing."""
    shared = (inside * true * mask).sum()
    both = ((inside + true) * mask).sum()
    return 1 - (2 * shared + 1) / (both + 1)


def slope_error(image: Tensor, x0: Tensor) -> Tensor:
    """How far differences between neighbouring pixels are from the true ones, for each voxel; 0 at the first row and column."""
    off = image - x0
    rows = F.pad(off[..., 1:, :] - off[..., :-1, :], (0, 0, 1, 0))
    columns = F.pad(off[..., 1:] - off[..., :-1], (1, 0))
    return rows.abs() + columns.abs()


def leaky(x: Tensor, slope: float) -> Tensor:
    """x within [-1, 1]; beyond it the slope is `slope`."""
    return torch.lerp(x.clamp(-1, 1), x, slope)


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


EXTRA_LOSSES: Mapping[str, ExtraLoss] = {
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
