"""A regression with an opponent: a critic learns to tell its images from true ones, and it learns to be believed."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from voxlate.batch import Batch
from voxlate.config import settings
from voxlate.diffusion.noise import Noise
from voxlate.diffusion.sample import SamplerSettings
from voxlate.methods.method import Channels, Method, Problem
from voxlate.methods.regression import Regression, RegressionSettings
from voxlate.nets.critic import Critic, CriticNet

Game = Literal["wasserstein", "cross_entropy", "least_squares"]


@settings
class AdversarialSettings:
    """A regression and a critic, trained in turns."""

    kind: Literal["adversarial"] = "adversarial"
    game: Annotated[
        Game, Field(description="what is played: Wasserstein distance, cross entropy (Pix2Pix) or least squares")
    ] = "wasserstein"
    critic: Annotated[Critic, Field(description="the opponent's network")] = Critic()
    critic_turns: Annotated[int, Field(ge=1, description="the critic's steps for one of the generator")] = 5
    penalty: Annotated[
        float, Field(ge=0, description="weight of (gradient norm - 1)^2 between true and made images (WGAN-GP)")
    ] = 10.0
    weight: Annotated[float, Field(ge=0, description="weight of the critic's opinion in the generator's loss")] = 1e-3
    data: Annotated[
        RegressionSettings, Field(description="the generator's other loss, as in a regression (weight 1)")
    ] = RegressionSettings(loss="mse")

    @property
    def turns(self) -> Mapping[str, int]:
        """Steps of each turn, in order."""
        return {"critic": self.critic_turns, "generator": 1}


class Adversarial(Method):
    """Generator and critic; the generator is a whole `Regression`, which alone answers at inference.

    Source: Goodfellow et al. 2014; Gulrajani et al. 2017, eq. 3 (wasserstein); Isola et al. 2017, eq. 1 to 4.
    """

    def __init__(self, options: AdversarialSettings, generator: Regression, channels: Channels):
        super().__init__()
        self.turns: Mapping[str, int] = options.turns
        self.options, self.generator = options, generator
        self.critic: CriticNet = options.critic.build(channels=channels.state + channels.condition)

    @property
    def net(self) -> nn.Module:  # type: ignore[override]
        return self.generator.net

    def trained(self, turn: str) -> Iterator[nn.Parameter]:
        part: nn.Module = self.critic if turn == "critic" else self.generator
        return (parameter for parameter in part.parameters() if parameter.requires_grad)

    def loss(self, turn: str, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        with torch.set_grad_enabled(turn == "generator"):
            problem = self.generator.task.pose(batch, noise)
            answer = self.generator.ask(problem)
        if turn == "critic":
            return self._teach_critic(problem, answer, noise)
        opinion = unmoved(self.critic, _shown(problem, answer))
        parts = self.generator.compare(answer, problem)
        believed = self.options.weight * blame(self.options.game, opinion, true=True)
        return {**parts, "total": parts["total"] + believed, "believed": believed}

    def _teach_critic(self, problem: Problem, answer: Tensor, noise: Noise) -> dict[str, Tensor]:
        assert problem.x0 is not None
        true, made = _shown(problem, problem.x0), _shown(problem, answer)
        parts = judged(self.critic, self.options.game, true, made)
        if self.options.penalty:
            share = noise.uniform().to(true).view(-1, 1, 1, 1, 1)
            parts["penalty"] = self.options.penalty * steepness(self.critic, torch.lerp(made, true, share))
        return {"total": parts["blame"] + parts.get("penalty", torch.zeros_like(parts["blame"])), **parts}

    def synthesise(self, batch: Batch, noise: Noise, how: SamplerSettings) -> Tensor:
        return self.generator.synthesise(batch, noise, how)


def steepness(critic: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean of (||gradient of each item's answer|| - 1)^2, in float32 (Gulrajani et al. 2017, eq. 3)."""
    images = images.detach().float().requires_grad_()
    with torch.autocast(images.device.type, enabled=False), torch.enable_grad():
        answers = critic(images).flatten(1).mean(1).sum()
        (gradient,) = torch.autograd.grad(answers, images, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def _shown(problem: Problem, answer: Tensor) -> Tensor:
    """What the critic looks at: the condition, and the image inside the mask with what is known around it."""
    around = problem.known if problem.known is not None else torch.zeros_like(answer)
    image = torch.where(problem.mask > 0, answer, around)
    condition = problem.condition.images
    return image if condition is None else torch.cat([condition, image], dim=1)


def judged(critic: nn.Module, game: Game, true: Tensor, made: Tensor) -> dict[str, Tensor]:
    """What a critic pays for its opinions of true and of made images, and how far apart these lie.

    It looks at each kind by itself: batch norms over both at once would tell it which is which.
    """
    of_true, of_made = critic(true).float(), critic(made).float()
    fair = 1.0 if game == "wasserstein" else 0.5  # slows the critic (Isola et al. 2017, sec. 3.3)
    price = fair * (blame(game, of_true, true=True) + blame(game, of_made, true=False))
    return {"blame": price, "apart": (of_true.mean() - of_made.mean()).detach()}


def unmoved(critic: nn.Module, images: Tensor) -> Tensor:
    """A critic's opinion of images, float32, with gradients for the images and none for its own weights."""
    fixed = {name: weight.detach() for name, weight in critic.named_parameters()}
    opinion: Tensor = functional_call(critic, fixed, (images,)).float()
    return opinion


def blame(game: Game, opinion: Tensor, true: bool) -> Tensor:
    """What a critic pays for its opinion of images that are to pass as true, or as made."""
    if game == "wasserstein":
        return -opinion.mean() if true else opinion.mean()
    wanted = torch.full_like(opinion, float(true))
    if game == "cross_entropy":
        return F.binary_cross_entropy_with_logits(opinion, wanted)
    return F.mse_loss(opinion, wanted)
