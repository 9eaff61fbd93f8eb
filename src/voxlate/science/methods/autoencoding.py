"""Learns the latent space that `Latent` works in."""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from voxlate.base.config import kind_of, setting, settings
from voxlate.base.devices import with_doubles
from voxlate.base.errors import BadInput
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Draws, Noise
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.methods.method import (
    Attempt,
    Losses,
    Method,
    MethodSettings,
    Pair,
    StageSettings,
    Task,
    require,
)
from voxlate.science.nets.autoencoder import AutoencoderNet
from voxlate.science.nets.interface import Channels, NetSettings


@settings
class AutoencodingSettings(MethodSettings):
    """Reconstructs every modality, one channel at a time, through a narrow Gaussian latent (Zhu et al. 2023, 2.1)."""

    makes_targets: ClassVar[bool] = False
    kind: Literal["autoencoding"] = "autoencoding"
    kl_weight: Annotated[
        float,
        setting(
            "Weight of the KL term, summed over the latent, relative to the L1 distance summed over pixels.",
            ge=0,
        ),
    ] = 1e-6
    gradient_weight: Annotated[
        float,
        setting("Weight of the L1 distance between differences of neighbouring pixels.", ge=0),
    ] = 0.1

    def build(self, net: NetSettings, task: Task, channels: Channels) -> "Autoencoding":
        """The method with fresh weights; raises BadInput where the network is no autoencoder."""
        return Autoencoding(self, net.build(Channels(images={"image": 1}, out=1)))  # type: ignore[arg-type]  # see `check`

    def check(self, stage: StageSettings, where: str) -> None:
        """Raise BadInput where the stage has another network or task."""
        if not stage.net.autoencodes:
            raise BadInput(
                f"{where}, stage '{stage.name}': expected net.kind 'kl_autoencoder', found '{kind_of(stage.net)}'. Change it."
            )


class Autoencoding(Method):
    """An autoencoder and its loss; its synthesis reconstructs the target, which bounds what a latent method can do."""

    pair_channels = (1, 0)

    def __init__(self, options: AutoencodingSettings, net: AutoencoderNet):
        super().__init__()
        self.turns = options.turns
        self.options = options
        self.net: AutoencoderNet = net

    def attempt(self, batch: Batch, noise: Noise, progress: float = 1.0) -> Attempt:
        """The reconstruction of the batch's images, and its losses."""
        images = torch.cat([batch.source, require(batch.target)], dim=1)
        x, mean, log_variance, z = self._encode(images, _exists(batch), noise)
        height, width = x.shape[-2:]
        restored = self.net.decode(z, (height, width)).float()

        def _losses() -> Losses:
            fit = (restored - x).abs().mean()
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum() / x.numel()
            edges = sum(
                (restored.diff(dim=axis) - x.diff(dim=axis)).abs().mean() for axis in (-1, -2)
            )
            whole = fit + self.options.kl_weight * kl + self.options.gradient_weight * edges
            return {"total": whole, "l1": fit, "kl": kl, "edges": torch.as_tensor(edges)}

        return Attempt(_losses, lambda: Pair(x, restored))

    @torch.no_grad()
    def synthesise(self, batch: Batch, noise: Draws, sampling: SamplerSettings) -> Tensor:
        """The reconstruction of the batch's images."""
        return _reconstruct(
            self.net, batch.source if batch.target is None else batch.target
        )  # alone: its input

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> None:
        """Set the latent's scale to 1 over the standard deviation of the targets' (Rombach et al. 2022, sec. G)."""
        latents = []
        for batch in batches:
            exists = _exists(batch)[:, batch.source.shape[1] :]
            z = self._encode(require(batch.target), exists, Noise(0, batch.item))[-1]
            latents.append(with_doubles(z).double().flatten())
        self.net.scale.fill_(1 / torch.cat(latents).std(correction=0).item())

    def _encode(
        self, images: Tensor, exists: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Those of [B, M, D, H, W] that exist, each by itself, their latents' mean and log variance, and a draw."""
        x = images.flatten(0, 1).unsqueeze(1)[exists.flatten()]
        mean, log_variance = (moment.float() for moment in self.net.encode(x))
        drawn = (
            noise.normal((images.shape[1], *mean.shape[1:]))
            .to(mean.device)
            .flatten(0, 1)[exists.flatten()]
        )
        return x, mean, log_variance, mean + drawn * (0.5 * log_variance).exp()


@torch.no_grad()
def reconstruction_error(net: AutoencoderNet, batches: Iterable[Batch]) -> dict[str, float]:
    """MAE between each target modality and its reconstruction by an autoencoder, of 255; reconstructions are clipped."""
    errors = dict[str, list[Tensor]]()
    for batch in batches:
        target = require(batch.target)
        exists = _exists(batch)[:, batch.source.shape[1] :]
        error = (_reconstruct(net, target).clamp(-1, 1) - target).abs()
        for channel, name in enumerate(batch.target_names):
            errors.setdefault(name, []).extend(
                error[exists[:, channel], channel].flatten(1).mean(1)
            )
    return {
        name: torch.stack(found).mean().item() * 127.5 for name, found in errors.items() if found
    }


def _reconstruct(net: AutoencoderNet, images: Tensor) -> Tensor:
    """Images [B, M, D, H, W] after encoding and decoding each channel separately, float32."""
    mean, _ = net.encode(images.flatten(0, 1).unsqueeze(1))
    height, width = images.shape[-2:]
    return net.decode(mean, (height, width)).float().unflatten(0, (len(images), -1)).flatten(1, 2)


def _exists(batch: Batch) -> Tensor:
    """Which of the sources, then of the targets, there are: [B, S + T] bool."""
    targets = batch.target_present
    if targets is None:
        targets = batch.present.new_ones(require(batch.target).shape[:2])
    return torch.cat([batch.present, targets], dim=1)
