"""Four ways to pose a batch as a problem: translate, complete, refine a residual, work in a latent space."""

from dataclasses import replace
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from voxlate.batch import BACKGROUND, Batch, Condition
from voxlate.config import settings
from voxlate.diffusion.noise import Noise
from voxlate.methods.method import Channels, Problem
from voxlate.nets.autoencoder import AutoencoderNet

Inside = Annotated[bool, Field(description="noise and loss only inside the mask; outside nothing is synthesised")]
Strip = Annotated[bool, Field(description="sources and targets are background outside the mask (skull stripping)")]


@settings
class Translate:
    """From the source modalities to the target modalities, everywhere or inside the mask."""

    kind: Literal["translate"] = "translate"
    inside: Inside = False
    strip: Strip = False

    def channels(self, sources: int, targets: int) -> Channels:
        return Channels(state=targets, condition=sources)

    def pose(self, batch: Batch, noise: Noise | None = None) -> Problem:
        batch = stripped(batch) if self.strip else batch
        x0 = batch.target if noise is not None else None
        mask = batch.mask if self.inside else torch.ones_like(batch.mask)
        known = torch.full_like(mask, BACKGROUND) if self.inside else None
        return Problem(Condition(images=batch.source), mask, known=known, x0=x0)

    def restore(self, x0: Tensor, problem: Problem) -> Tensor:
        return x0 if problem.known is None else torch.where(problem.mask > 0, x0, problem.known)


def stripped(batch: Batch) -> Batch:
    """The batch with background outside its mask."""
    outside = batch.mask == 0
    target = None if batch.target is None else batch.target.masked_fill(outside, BACKGROUND)
    return replace(batch, source=batch.source.masked_fill(outside, BACKGROUND), target=target)


@settings
class Complete:
    """Any missing modalities from those present: sources and targets are the same list, the missing channels diffuse.

    The configuration code has a bit a modality, 1 = to synthesise; with `incomplete` as many again, 1 = absent.
    Source: Meng et al. 2022 (arXiv 2207.03430), eq. 3 and 7.
    """

    kind: Literal["complete"] = "complete"
    incomplete: Annotated[
        bool, Field(description="train on cases that lack modalities too (adds a bit a modality to the code)")
    ] = False

    def channels(self, sources: int, targets: int) -> Channels:
        return Channels(state=targets, condition=0, code=targets * (1 + self.incomplete), known_in_state=True)

    def pose(self, batch: Batch, noise: Noise | None = None) -> Problem:
        missing = ~batch.present if noise is None else draw_missing(batch.present, noise)
        absent = ~batch.present & ~missing
        bits = [missing, absent] if self.incomplete else [missing]
        images = batch.source if noise is None else _required(batch.target)
        hidden = (missing | absent)[:, :, None, None, None]
        return Problem(
            Condition(code=torch.cat(bits, dim=1).to(images.dtype)),
            mask=missing[:, :, None, None, None].to(images.dtype).expand_as(images),
            known=images.masked_fill(hidden, BACKGROUND),
            x0=None if noise is None else images,
        )

    def restore(self, x0: Tensor, problem: Problem) -> Tensor:
        return torch.where(problem.mask > 0, x0, _required(problem.known))


def draw_missing(present: Tensor, noise: Noise) -> Tensor:
    """For each item, a non-empty proper subset of the modalities present, uniform over such subsets.

    present, returned: [B, C] bool. With one modality present nothing can be left out: that one is drawn.
    """
    count = present.sum(dim=1)
    subsets = (2**count - 2).clamp(min=1)  # without the empty set and the whole set
    number = 1 + (noise.uniform().to(present.device) * subsets).long()
    position = (present.cumsum(dim=1) - 1).clamp(min=0)  # the bit of each present modality
    return present & ((number[:, None] >> position) & 1).bool()


@settings
class Residual:
    """The difference to a predictor's image, times `scale`, inside the mask or everywhere.

    Source: Whang et al. 2022 (CVPR) for the idea; Cai et al. 2024 (MICCAI), eq. 2 for the masked form.
    """

    kind: Literal["residual"] = "residual"
    predictor: Annotated[str, Field(description="name of the earlier stage that predicts the image")] = "predictor"
    scale: Annotated[float, Field(gt=0, description="residuals are multiplied by this to have a spread near 1")] = 1.0
    inside: Inside = False
    strip: Strip = False
    see_base: Annotated[bool, Field(description="the network also sees the predictor's image")] = True
    asymmetry: Annotated[
        bool,
        Field(
            description="the network is told the predictor's features and their left-right mirror images (MAP of "
            "Cai et al. 2024); the mid-plane must lie in the middle of the image"
        ),
    ] = False
    predictor_weight: Annotated[
        float, Field(ge=0, description="weight of the predictor's own L1 loss, times scale; 0 freezes the predictor")
    ] = 0.0
    predictor_steady: Annotated[
        bool, Field(description="a predictor that learns keeps its batch statistics, and drops nothing")
    ] = False
    detach: Annotated[
        bool, Field(description="the diffusion's loss does not move the predictor; else through the residual it does")
    ] = False


class Predictor(Protocol):
    """A method that predicts the image without noise (a Regression)."""

    def predict(self, batch: Batch) -> Tensor: ...

    def predict_with_features(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]: ...

    def requires_grad_(self, requires_grad: bool = True) -> Any: ...


class ResidualTask(nn.Module):
    """`Residual` with its predictor; feature_channels: of the maps that it hands on, for `asymmetry`."""

    def __init__(self, residual: Residual, predictor: Predictor, feature_channels: tuple[int, ...] = ()):
        super().__init__()
        self.residual, self.feature_channels = residual, feature_channels
        self.predictor = predictor
        predictor.requires_grad_(residual.predictor_weight > 0)

    def train(self, mode: bool = True) -> "ResidualTask":
        learns = self.residual.predictor_weight > 0 and not self.residual.predictor_steady
        return super().train(mode and learns)  # frozen means without dropout, too

    def channels(self, sources: int, targets: int) -> Channels:
        condition = sources + targets * self.residual.see_base
        return Channels(state=targets, condition=condition, features=self.feature_channels)

    def pose(self, batch: Batch, noise: Noise | None = None) -> Problem:
        training = noise is not None
        batch = stripped(batch) if self.residual.strip else batch
        with torch.set_grad_enabled(training and self.residual.predictor_weight > 0):
            base, features = self._predict(batch)
        mask = batch.mask if self.residual.inside else torch.ones_like(batch.mask)
        images = torch.cat([batch.source, base.detach()], dim=1) if self.residual.see_base else batch.source
        problem = Problem(
            Condition(images=images, features=tuple(feature.detach() for feature in features)),
            mask=mask,
            known=torch.zeros_like(base) if self.residual.inside else None,
            base=base,
        )
        return self._with_target(problem, _required(batch.target)) if training else problem

    def _predict(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        if not self.residual.asymmetry:
            return self.predictor.predict(batch).float(), ()
        base, features = self.predictor.predict_with_features(batch)
        return base.float(), features

    def _with_target(self, problem: Problem, target: Tensor) -> Problem:
        base, residual = _required(problem.base), self.residual
        errors = {}
        if residual.predictor_weight > 0:
            errors["predictor"] = residual.predictor_weight * residual.scale * (target - base).abs()
        x0 = problem.mask * (target - (base.detach() if residual.detach else base)) * residual.scale
        return replace(problem, x0=x0, errors=errors)

    def restore(self, x0: Tensor, problem: Problem) -> Tensor:
        return _required(problem.base) + problem.mask * x0 / self.residual.scale


@settings
class Latent:
    """The latent of an autoencoder instead of the image. Source: Zhu et al. 2023 (Make-A-Volume), eq. 2."""

    kind: Literal["latent"] = "latent"
    autoencoder: Annotated[str, Field(description="name of the earlier stage that trained the autoencoder")] = (
        "autoencoder"
    )


class LatentTask(nn.Module):
    """`Latent` with its frozen autoencoder of single-channel images; each modality is encoded by itself."""

    def __init__(self, autoencoder: AutoencoderNet):
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False)

    def train(self, mode: bool = True) -> "LatentTask":
        return super().train(False)

    def channels(self, sources: int, targets: int) -> Channels:
        width = self.autoencoder.net.latent
        return Channels(state=targets * width, condition=sources * width)

    @torch.no_grad()
    def pose(self, batch: Batch, noise: Noise | None = None) -> Problem:
        source, _ = self._encode(batch.source)
        x0 = None
        if noise is not None:
            mean, log_variance = self._encode(_required(batch.target))
            x0 = mean + noise.normal_like(mean) * (0.5 * log_variance).exp() * self.autoencoder.scale
        height, width = batch.source.shape[-2:]
        return Problem(Condition(images=source), torch.ones_like(source[:, :1]), x0=x0, size=(height, width))

    @torch.no_grad()
    def restore(self, x0: Tensor, problem: Problem) -> Tensor:
        width = self.autoencoder.net.latent
        latents = x0.unflatten(1, (-1, width)).flatten(0, 1) / self.autoencoder.scale
        return self.autoencoder.decode(latents, problem.size).float().unflatten(0, (x0.shape[0], -1)).flatten(1, 2)

    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled mean and unscaled log variance, [B, M·L, D, h, w], of images [B, M, D, H, W]."""
        mean, log_variance = self.autoencoder.encode(images.flatten(0, 1).unsqueeze(1))
        shape = (images.shape[0], -1)
        mean = mean.float().unflatten(0, shape).flatten(1, 2) * self.autoencoder.scale
        return mean, log_variance.float().unflatten(0, shape).flatten(1, 2)


AnyTask = Annotated[Translate | Complete | Residual | Latent, Field(discriminator="kind")]


def _required(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("this step needs a target; the batch or the problem has none")
    return value


def hide_one(batch: Batch) -> Batch:
    """A batch to complete whose items each miss one modality in turn, as at inference."""
    channel = torch.arange(len(batch), device=batch.present.device) % batch.present.shape[1]
    return replace(batch, present=batch.present & ~nn.functional.one_hot(channel, batch.present.shape[1]).bool())
