"""Learns the latent space that `Latent` works in."""

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxlate.batch import Batch
from voxlate.config import settings
from voxlate.diffusion.noise import Noise
from voxlate.diffusion.sample import SamplerSettings
from voxlate.methods.method import Method
from voxlate.nets.autoencoder import AutoencoderNet


@settings
class AutoencodingSettings:
    """Reconstructs every modality, one channel at a time, through a narrow Gaussian latent (Zhu et al. 2023, 2.1)."""

    turns: ClassVar[Mapping[str, int]] = {"net": 1}
    kind: Literal["autoencoding"] = "autoencoding"
    kl_weight: Annotated[
        float, Field(ge=0, description="weight of the KL term, summed over the latent, against L1 summed over pixels")
    ] = 1e-6
    gradient_weight: Annotated[
        float, Field(ge=0, description="weight of the L1 distance between neighbouring-pixel differences")
    ] = 0.1


class Autoencoding(Method):
    """An autoencoder and its loss; its synthesis is the reconstruction of the target, the bound of what follows."""

    def __init__(self, options: AutoencodingSettings, net: AutoencoderNet):
        super().__init__()
        self.turns: Mapping[str, int] = options.turns
        self.options = options
        self.net: AutoencoderNet = net

    def loss(self, turn: str, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        assert batch.target is not None
        images = torch.cat([batch.source, batch.target], dim=1)
        x, channels = images.flatten(0, 1).unsqueeze(1), images.shape[1]
        mean, log_variance = (moment.float() for moment in self.net.encode(x))
        shape = (channels, *mean.shape[1:])
        z = mean + noise.normal(shape).to(mean.device).flatten(0, 1) * (0.5 * log_variance).exp()
        height, width = x.shape[-2:]
        restored = self.net.decode(z, (height, width)).float()
        fit = (restored - x).abs().mean()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum() / x.numel()
        edges = sum((restored.diff(dim=axis) - x.diff(dim=axis)).abs().mean() for axis in (-1, -2))
        total = fit + self.options.kl_weight * kl + self.options.gradient_weight * edges
        return {"total": total, "l1": fit, "kl": kl, "edges": torch.as_tensor(edges)}

    @torch.no_grad()
    def synthesise(self, batch: Batch, noise: Noise, how: SamplerSettings) -> Tensor:
        assert batch.target is not None
        mean, _ = self.net.encode(batch.target.flatten(0, 1).unsqueeze(1))
        height, width = batch.target.shape[-2:]
        return self.net.decode(mean, (height, width)).float().unflatten(0, (len(batch), -1)).flatten(1, 2)

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> None:
        """Set the latent's scale to 1 over the spread of the targets' latents (Rombach et al. 2022, sec. G)."""
        targets = [batch.target.flatten(0, 1).unsqueeze(1) for batch in batches if batch.target is not None]
        latents = [self.net.encode(target)[0].float() for target in targets]
        self.net.scale.fill_(1 / torch.cat(latents).std().item())
