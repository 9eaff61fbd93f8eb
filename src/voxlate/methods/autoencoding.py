"""Learns the latent space that `Latent` works in."""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxlate.batch import Batch
from voxlate.config import kind_of, settings
from voxlate.diffusion.noise import Noise
from voxlate.diffusion.sample import SamplerSettings
from voxlate.errors import BadInput
from voxlate.methods.method import Attempt, Losses, Method, MethodSettings, Pair, StageSettings, Task, required
from voxlate.nets.autoencoder import AutoencoderNet
from voxlate.nets.interface import Channels, NetSettings


@settings
class AutoencodingSettings(MethodSettings):
    """Reconstructs every modality, one channel at a time, through a narrow Gaussian latent (Zhu et al. 2023, 2.1)."""

    makes_targets: ClassVar[bool] = False
    kind: Literal["autoencoding"] = "autoencoding"
    kl_weight: Annotated[
        float, Field(ge=0, description="weight of the KL term, summed over the latent, against L1 summed over pixels")
    ] = 1e-6
    gradient_weight: Annotated[
        float, Field(ge=0, description="weight of the L1 distance between neighbouring-pixel differences")
    ] = 0.1

    def build(self, net: NetSettings, task: Task, channels: Channels) -> "Autoencoding":
        return Autoencoding(self, net.build(Channels(images={"image": 1}, out=1)))  # type: ignore[arg-type]  # see `check`

    def check(self, stage: StageSettings, where: str) -> None:
        if not stage.net.autoencodes:
            raise BadInput(
                f"{where}, stage '{stage.name}': expected net.kind 'kl_autoencoder', found '{kind_of(stage.net)}'. "
                "Change it."
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
        images = torch.cat([batch.source, required(batch.target)], dim=1)
        exists, channels = _exists(batch).flatten(), images.shape[1]
        x = images.flatten(0, 1).unsqueeze(1)[exists]
        mean, log_variance = (moment.float() for moment in self.net.encode(x))
        shape = (channels, *mean.shape[1:])
        z = mean + noise.normal(shape).to(mean.device).flatten(0, 1)[exists] * (0.5 * log_variance).exp()
        height, width = x.shape[-2:]
        restored = self.net.decode(z, (height, width)).float()

        def losses() -> Losses:
            fit = (restored - x).abs().mean()
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum() / x.numel()
            edges = sum((restored.diff(dim=axis) - x.diff(dim=axis)).abs().mean() for axis in (-1, -2))
            whole = fit + self.options.kl_weight * kl + self.options.gradient_weight * edges
            return {"total": whole, "l1": fit, "kl": kl, "edges": torch.as_tensor(edges)}

        return Attempt(losses, lambda: Pair(x, restored))

    @torch.no_grad()
    def synthesise(self, batch: Batch, noise: Noise, sampling: SamplerSettings) -> Tensor:
        target = required(batch.target)
        mean, _ = self.net.encode(target.flatten(0, 1).unsqueeze(1))
        height, width = target.shape[-2:]
        return self.net.decode(mean, (height, width)).float().unflatten(0, (len(batch), -1)).flatten(1, 2)

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> None:
        """Set the latent's scale to 1 over the spread of the targets' latents (Rombach et al. 2022, sec. G)."""
        latents = []
        for batch in batches:
            exists = _exists(batch)[:, batch.source.shape[1] :].flatten()
            targets = required(batch.target).flatten(0, 1).unsqueeze(1)[exists]
            latents.append(self.net.encode(targets)[0].float())
        self.net.scale.fill_(1 / torch.cat(latents).std().item())


def _exists(batch: Batch) -> Tensor:
    """Which of the sources, then of the targets, there are: [B, S + T] bool."""
    targets = batch.target_present
    if targets is None:
        targets = batch.present.new_ones(required(batch.target).shape[:2])
    return torch.cat([batch.present, targets], dim=1)
