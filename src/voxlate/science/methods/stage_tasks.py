"""Tasks that build on an earlier stage: the residual of a predictor, and the latent of an autoencoder."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from voxlate.base.config import kind_of, setting, settings
from voxlate.base.errors import BadInput
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.methods.method import (
    Method,
    Problem,
    StageSettings,
    Task,
    TaskSettings,
    channels_by_name,
    require,
)
from voxlate.science.methods.tasks import Inside, Strip, strip_background
from voxlate.science.nets.autoencoder import AutoencoderNet
from voxlate.science.nets.interface import Channels, NetworkInput


def _check_alike(
    keys: Sequence[str], stage: StageSettings, earlier: StageSettings, where: str
) -> None:
    for key in keys:
        theirs = getattr(earlier.data, key)
        ours = getattr(stage.data, key)
        if theirs != ours:
            raise BadInput(
                f"{where}: expected data.{key} of the stage '{earlier.name}' to be {ours}, as in the stage '{stage.name}' that builds on it, found {theirs}. Make them equal."
            )


@settings
class Residual(TaskSettings):
    """The difference to a predictor's image, times `scale`, inside the mask or everywhere.

    Source: Whang et al. 2022 (CVPR) for the idea; Cai et al. 2024 (MICCAI), eq. 2 for the masked form.
    """

    kind: Literal["residual"] = "residual"
    predictor: Annotated[str, setting("Name of the earlier stage that predicts the image.")] = (
        "predictor"
    )
    scale: Annotated[
        float,
        setting("Factor on residuals, which should give them a standard deviation near 1.", gt=0),
    ] = 1.0
    inside: Inside = False
    strip: Strip = False
    see_base: Annotated[bool, setting("Whether the network also gets the predictor's image.")] = (
        True
    )
    asymmetry: Annotated[
        bool,
        setting(
            "Whether the network gets the predictor's features and their left-right mirror images (MAP of Cai et al. 2024); the mid-plane must then be in the middle of the image."
        ),
    ] = False
    predictor_weight: Annotated[
        float,
        setting(
            "Weight of the predictor's own L1 loss, times scale; 0 freezes the predictor.", ge=0
        ),
    ] = 0.0

    def build(self, earlier: Mapping[str, Method]) -> Task:
        """The task with the predictor that it needs."""
        # a copy, so that training the predictor here does not change it for other stages
        return ResidualTask(self, copy.deepcopy(earlier[self.predictor].without_opponent))

    def check(self, stage: StageSettings, earlier: Mapping[str, StageSettings], where: str) -> None:
        """Raise BadInput where the predictor does not fit."""
        predictor = earlier.get(self.predictor)
        if predictor is None or not predictor.method.predicts:
            raise BadInput(
                f"{where}: expected an earlier stage '{self.predictor}' whose method can be a predictor, found stages {sorted(earlier) or 'none'}. Add one to [[stages]], or change its method."
            )
        # images are known by their places, not by their names
        _check_alike(("source", "target", "stack", "axes", "planes"), stage, predictor, where)
        if self.asymmetry:
            self._check_asymmetry(stage, predictor, where)

    def _check_asymmetry(self, stage: StageSettings, predictor: StageSettings, where: str) -> None:
        for role, kind, net, able in (
            ("predictor", "bran", predictor.net, bool(predictor.net.feature_channels)),
            ("network", "unet", stage.net, stage.net.compares_sides),
        ):
            if not able:
                raise BadInput(
                    f"{where}: expected net.kind '{kind}' of the {role} for task.asymmetry, found '{kind_of(net)}'. Change it, or set asymmetry = false."
                )
        if not stage.data.centred:
            raise BadInput(
                f"{where}: expected data.centred = true for task.asymmetry, found false. Set it."
            )
        multiple = max(stage.net.multiple, predictor.net.multiple)
        patch = stage.data.patch
        if patch[0] > 1 or patch[2] % multiple:
            raise BadInput(
                f"{where}: expected data.patch of one slice and a multiple of {multiple} columns for task.asymmetry, found {patch}. Change it."
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """The predictor's stage."""
        return (self.predictor,)

    @property
    def mean_stage(self) -> str:
        """The predictor's stage."""
        return self.predictor

    @property
    def whole_slices(self) -> bool:
        """Whether the mid-plane must be in the middle of slices."""
        return self.asymmetry


class ResidualTask(nn.Module, Task):
    """`Residual` with its predictor, a finished method whose settings say `predicts`."""

    def __init__(self, residual: Residual, predictor: Any):
        super().__init__()
        self.residual = residual
        self.predictor = predictor
        predictor.requires_grad_(residual.predictor_weight > 0)

    def train(self, mode: bool = True) -> "ResidualTask":
        """Set the mode of all but the predictor, which stays in that of inference."""
        learns = self.residual.predictor_weight > 0
        return super().train(mode and learns)  # frozen means without dropout, too

    def channels(self, sources: Sequence[str], targets: Sequence[str]) -> Channels:
        """Sources and prediction in, the residual as the state."""
        base = {f"base_{name}": 1 for name in targets} if self.residual.see_base else {}
        features = self.predictor.feature_channels if self.residual.asymmetry else ()
        images = {**dict.fromkeys(sources, 1), **base}
        masked = self.residual.needs_mask
        return Channels(
            images, len(targets), state=len(targets), noisy=True, features=features, masked=masked
        )

    def pose(self, batch: Batch, noise: Noise | None = None, progress: float = 1.0) -> Problem:
        """The batch as a problem whose state is the residual."""
        residual = self.residual
        training = noise is not None
        batch = strip_background(batch) if residual.strip else batch
        with torch.set_grad_enabled(training and residual.predictor_weight > 0):
            base, features = self.predictor.predict(batch)
            base = base.float()
        images = channels_by_name(batch.source_names, batch.source)
        if residual.see_base:
            bases = channels_by_name(batch.target_names, base.detach(), "target")
            images |= {f"base_{name}": image for name, image in bases.items()}
        features = tuple(feature.detach() for feature in features) if residual.asymmetry else ()
        problem = Problem(
            NetworkInput(images, features=features),
            mask=batch.mask if residual.inside else torch.ones_like(batch.mask),
            known=torch.zeros_like(base) if residual.inside else None,
            base=base,
        )
        return self._with_target(problem, batch) if training else problem

    def _with_target(self, problem: Problem, batch: Batch) -> Problem:
        base = require(problem.base)
        target = require(batch.target)
        residual = self.residual
        errors = {}
        if residual.predictor_weight > 0:
            errors["predictor"] = residual.predictor_weight * residual.scale * (target - base).abs()
        x0 = problem.mask * (target - base) * residual.scale
        return replace(problem, x0=x0, errors=errors, x0_present=batch.target_present)

    def restore(self, x0: Tensor, problem: Problem) -> Tensor:
        """The prediction plus the residual."""
        return require(problem.base) + problem.mask * x0 / self.residual.scale


@settings
class Latent(TaskSettings):
    """The latent of an autoencoder instead of the image. Source: Zhu et al. 2023 (Make-A-Volume), eq. 2."""

    encodes: ClassVar[bool] = True
    kind: Literal["latent"] = "latent"
    autoencoder: Annotated[
        str, setting("Name of the earlier stage that trained the autoencoder.")
    ] = "autoencoder"

    def build(self, earlier: Mapping[str, Method]) -> Task:
        """The task with the autoencoder that it needs."""
        return LatentTask(copy.deepcopy(earlier[self.autoencoder].net))  # type: ignore[arg-type]  # see `check`

    def check(self, stage: StageSettings, earlier: Mapping[str, StageSettings], where: str) -> None:
        """Raise BadInput where the autoencoder does not fit."""
        autoencoder = earlier.get(self.autoencoder)
        if autoencoder is None or not autoencoder.net.autoencodes:
            raise BadInput(
                f"{where}: expected an earlier stage '{self.autoencoder}' that is the autoencoder, found {sorted(earlier) or 'none'}. Add it to [[stages]]."
            )
        modalities = {*autoencoder.data.source, *autoencoder.data.target}
        if unknown := [
            name for name in (*stage.data.source, *stage.data.target) if name not in modalities
        ]:
            raise BadInput(
                f"{where}: expected the stage '{self.autoencoder}' to learn all that '{stage.name}' works with, found no {unknown[0]} in its data. Add it there."
            )
        _check_alike(("axes",), stage, autoencoder, where)

    @property
    def needs(self) -> tuple[str, ...]:
        """The autoencoder's stage."""
        return (self.autoencoder,)


class LatentTask(nn.Module, Task):
    """`Latent` with its frozen autoencoder of single-channel images; each modality is encoded by itself."""

    autoencoder: AutoencoderNet

    def __init__(self, autoencoder: AutoencoderNet):
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False)

    def train(self, mode: bool = True) -> "LatentTask":
        """Set the mode of all but the autoencoder, which stays in that of inference."""
        return super().train(False)

    def channels(self, sources: Sequence[str], targets: Sequence[str]) -> Channels:
        """The latents of sources in, those of targets as the state."""
        width = self.autoencoder.net.latent
        state = len(targets) * width
        # whole slices in training: zeros around them are what the network knows in synthesis, too
        return Channels(
            images=dict.fromkeys(sources, width), state=state, out=state, noisy=True, masked=True
        )

    @torch.no_grad()
    def pose(self, batch: Batch, noise: Noise | None = None, progress: float = 1.0) -> Problem:
        """The batch as a problem on the latents' grid."""
        source, _ = self._moments(batch.source, batch.source_moments)
        names = list(channels_by_name(batch.source_names, batch.source))
        images = dict(zip(names, source.split(self.autoencoder.net.latent, dim=1), strict=True))
        height, width = batch.source.shape[-2:]
        mask = torch.ones_like(source[:, :1])
        problem = Problem(NetworkInput(images), mask, size=(height, width))
        if noise is None:
            return problem
        mean, log_variance = self._moments(require(batch.target), batch.target_moments)
        x0 = mean + noise(mean) * (0.5 * log_variance).exp() * self.autoencoder.scale
        present = batch.target_present
        if present is not None:
            present = present.repeat_interleave(self.autoencoder.net.latent, dim=1)
        return replace(problem, x0=x0, x0_present=present)

    @torch.no_grad()
    def restore(self, x0: Tensor, problem: Problem) -> Tensor:
        """The decoded image."""
        width = self.autoencoder.net.latent
        latents = x0.reshape(-1, width, *x0.shape[2:]) / self.autoencoder.scale
        image = self.autoencoder.decode(latents, problem.size).float()
        return image.reshape(x0.shape[0], -1, *image.shape[2:])

    def _moments(self, images: Tensor, cached: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scaled mean and unscaled log variance, [B, M·L, D, h, w]; images: [B, M, D, H, W]; cached: [B, M, 2 L, …]."""
        if cached is None:
            moments: Sequence[Tensor] = self.autoencoder.encode(images.flatten(0, 1).unsqueeze(1))
        else:
            moments = cached.chunk(2, dim=2)
        mean, log_variance = (
            moment.float().reshape(images.shape[0], -1, *moment.shape[-3:]) for moment in moments
        )
        return mean * self.autoencoder.scale, log_variance
