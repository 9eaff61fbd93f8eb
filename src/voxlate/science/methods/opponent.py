"""A GAN of any method: a critic learns to distinguish true from synthesised images, and the method to mislead it."""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from voxlate.base.config import Importable, setting, settings
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Draws, Noise
from voxlate.science.diffusion.prediction import mean_in_mask
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.methods.method import Losses, Method, Pair
from voxlate.science.nets.critic import Critic

GanLoss = Literal["wasserstein", "cross_entropy", "least_squares", "hinge"]
AnyCritic = Annotated[Critic, Importable()]
CRITIC = "critic"
GENERATOR = "generator"


@settings
class OpponentSettings:
    """A critic, trained in turns with the method of the stage."""

    gan_loss: Annotated[
        GanLoss,
        setting(
            "Adversarial loss: Wasserstein distance, cross entropy (as in Pix2Pix), least squares, or hinge."
        ),
    ] = "wasserstein"
    critic: Annotated[
        AnyCritic,
        setting(
            "Network of the critic. With an output for each channel, channels that are copies of scans count as true."
        ),
    ] = Critic()
    context: Annotated[
        Literal["given", "true", "none"],
        setting(
            "Additional input of the critic: the conditioning images, the true image, or none."
        ),
    ] = "given"
    critic_turns: Annotated[
        int,
        setting("Number of steps of the critic for each step of the generator.", ge=1),
    ] = 5
    penalty: Annotated[
        float,
        setting(
            "Weight of (gradient norm - 1)^2 between true and synthesised images (WGAN-GP).", ge=0
        ),
    ] = 10.0
    weight: Annotated[
        float, setting("Weight of the critic's output in the generator's loss.", ge=0)
    ] = 1e-3
    adaptive: Annotated[
        bool,
        setting(
            "Whether `weight` is multiplied by the ratio of both losses' gradients at the network's last kernel (Esser et al. 2021, eq. 7), so that it is a share of the method's own gradient."
        ),
    ] = False
    start: Annotated[
        float,
        setting("Share of the training after which the adversarial training begins.", ge=0, lt=1),
    ] = 0.0

    @property
    def turns(self) -> Mapping[str, int]:
        """Steps of each turn, in order."""
        return {CRITIC: self.critic_turns, GENERATOR: 1}

    def build(self, method: Method) -> "Opponent":
        """The method with a critic of fresh weights."""
        image, conditioning = method.pair_channels
        context = {"given": conditioning, "true": image, "none": 0}[self.context]
        if isinstance(self.critic, Critic):
            self.critic.check_channels(image)
        return Opponent(self, method, self.critic.build(channels=image + context))


class Opponent(Method):
    """A method and a critic of its images; synthesis needs the method only.

    Source: Goodfellow et al. 2014; Gulrajani et al. 2017, eq. 3 (wasserstein); Isola et al. 2017, eq. 1 to 4; Sharma
    and Hamarneh 2020, eq. 4 (a map for each channel, of which scanned ones count as true).
    """

    def __init__(self, options: OpponentSettings, generator: Method, critic: nn.Module):
        super().__init__()
        self.turns = options.turns
        self.options = options
        self.generator = generator
        self.critic = critic

    @property
    def net(self) -> nn.Module:  # type: ignore[override]
        """The network that synthesises targets."""
        return self.generator.net

    @property
    def without_opponent(self) -> Method:
        """The method without its critic."""
        return self.generator

    def part_of(self, turn: str) -> nn.Module:
        """The critic or the method."""
        return self.critic if turn == CRITIC else self.generator

    def takes_turn(self, turn: str, progress: float) -> bool:
        """Whether a turn trains at this progress."""
        return turn != CRITIC or progress >= self.options.start

    def loss(self, turn: str, batch: Batch, noise: Noise, progress: float = 1.0) -> Losses:
        """The loss of the method with its critic, or of the critic."""
        options = self.options
        with torch.set_grad_enabled(turn == GENERATOR and torch.is_grad_enabled()):
            attempt = self.generator.attempt(batch, noise, progress)
            pair = attempt.pair()
        if turn == CRITIC:
            return self._critic_loss(pair, noise)
        parts = attempt.losses()
        if progress < options.start:
            return parts
        synthesised = self._with_context(pair, pair.synthesised)
        gan = generator_loss(self.critic, options.gan_loss, synthesised, self._maps_of_scans(pair))
        if options.adaptive and gan.requires_grad:
            gan = gan * gradient_ratio(parts["total"], gan, last_kernel(self.net))
        gan = options.weight * gan
        return {**parts, "total": parts["total"] + gan, "gan": gan}

    def _critic_loss(self, pair: Pair, noise: Noise) -> Losses:
        true = self._with_context(pair, pair.true)
        synthesised = self._with_context(pair, pair.synthesised)
        parts = discriminator_loss(
            self.critic, self.options.gan_loss, true, synthesised, self._maps_of_scans(pair)
        )
        total = parts["gan"]
        if self.options.penalty:
            share = noise.uniform().to(true).view(-1, 1, 1, 1, 1)
            rounds = -(
                -len(true) // len(share)
            )  # an autoencoder has a pair for each channel of an item
            share = share.repeat(rounds, 1, 1, 1, 1)[: len(true)]
            parts["penalty"] = self.options.penalty * gradient_penalty(
                self.critic, torch.lerp(synthesised, true, share)
            )
            total = total + parts["penalty"]
        return {"total": total, **parts}

    def _maps_of_scans(self, pair: Pair) -> Tensor | None:
        """The maps that are of scanned channels, [B, K] bool, of a critic with a map for each."""
        has_maps = getattr(self.options.critic, "maps", 1) > 1  # one of the user's own has none
        return pair.scanned if has_maps else None

    def _with_context(self, pair: Pair, image: Tensor) -> Tensor:
        """What the critic sees of a pair, [B, C' + C, D, H, W]."""
        context = {"given": pair.context, "true": pair.true, "none": None}[self.options.context]
        return image if context is None else torch.cat([context, image], dim=1)

    def synthesise(self, batch: Batch, noise: Draws, sampling: SamplerSettings) -> Tensor:
        """The targets of a batch."""
        return self.generator.synthesise(batch, noise, sampling)


def last_kernel(net: nn.Module) -> nn.Parameter:
    """The weights of a network's last layer, in the order of its parameters."""
    return [weight for weight in net.parameters() if weight.requires_grad and weight.ndim > 1][-1]


def gradient_ratio(first: Tensor, second: Tensor, weight: nn.Parameter) -> Tensor:
    """The norm of one loss's gradient for a weight over another's, at most 1e4 (Esser et al. 2021, eq. 7)."""
    norm, other = (
        torch.autograd.grad(loss, weight, retain_graph=True)[0].norm() for loss in (first, second)
    )
    return (norm / (other + 1e-4)).clamp(max=1e4).detach()


def gradient_penalty(critic: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean of (||gradient of the critic's output for each item|| - 1)^2, in float32 (Gulrajani et al. 2017, eq. 3)."""
    images = images.detach().float().requires_grad_()
    with torch.autocast(images.device.type, enabled=False), torch.enable_grad():
        outputs = critic(images).flatten(1).mean(1).sum()
        (gradient,) = torch.autograd.grad(outputs, images, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def discriminator_loss(
    critic: nn.Module,
    kind: GanLoss,
    true: Tensor,
    synthesised: Tensor,
    scanned: Tensor | None = None,
) -> Losses:
    """A critic's loss on true and on synthesised images ("gan"), and how far apart its outputs lie.

    scanned: [B, K] bool, the maps of `synthesised` that count as true (None: none does). True and synthesised images pass the
    critic separately: statistics of batch norms over both would give away which is which.
    """
    of_true = critic(true).float()
    of_synthesised = critic(synthesised).float()
    half = 1.0 if kind == "wasserstein" else 0.5  # slows the critic (Isola et al. 2017, sec. 3.3)
    loss = half * (
        gan_errors(kind, of_true, 1.0).mean()
        + gan_errors(kind, of_synthesised, 0.0 if scanned is None else scanned).mean()
    )
    return {"gan": loss, "apart": (of_true.mean() - of_synthesised.mean()).detach()}


def generator_loss(
    critic: nn.Module, kind: GanLoss, synthesised: Tensor, scanned: Tensor | None = None
) -> Tensor:
    """The generator's loss on synthesised images, with gradients for the images and none for the critic's weights.

    scanned: [B, K] bool, the maps that do not count, since nothing was synthesised in their channels (None: all count).
    """
    fixed = {name: weight.detach() for name, weight in critic.named_parameters()}
    outputs = functional_call(critic, fixed, (synthesised,)).float()
    # The hinge loss has no margin here: Lim and Ye 2017, eq. 4.
    errors = -outputs if kind == "hinge" else gan_errors(kind, outputs, 1.0)
    if scanned is None:
        return errors.mean()
    return mean_in_mask(errors.flatten(2).mean(2), ~scanned).mean()


def gan_errors(kind: GanLoss, outputs: Tensor, true: float | Tensor) -> Tensor:
    """The critic's loss of each of its outputs [B, K, …] for images that are true (1) or synthesised (0).

    true: for all, or [B, K] bool.
    """
    if not isinstance(true, Tensor):
        wanted = torch.full_like(outputs, true)
    else:
        wanted = true.to(outputs).reshape(*true.shape, *[1] * (outputs.ndim - 2)).expand_as(outputs)
    if kind == "wasserstein":
        return outputs * (1 - 2 * wanted)
    if kind == "hinge":
        return F.relu(1 + outputs * (1 - 2 * wanted))
    if kind == "cross_entropy":
        return F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none")
    return F.mse_loss(outputs, wanted, reduction="none")
