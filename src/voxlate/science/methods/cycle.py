"""CycleGAN: two generators that invert each other, and a critic of the images of each; learns without pairs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from voxlate.base.config import setting, settings
from voxlate.base.errors import BadInput
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Draws, Noise
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.methods.method import (
    Losses,
    Method,
    MethodSettings,
    Problem,
    StageSettings,
    Task,
    require,
    with_total,
)
from voxlate.science.methods.opponent import AnyCritic, discriminator_loss, generator_loss
from voxlate.science.methods.regression import Regression, RegressionSettings
from voxlate.science.nets.critic import Critic
from voxlate.science.nets.interface import Channels, NetSettings

DIRECTIONS = ("to_target", "to_source")


@settings
class CycleSettings(MethodSettings):
    """A forward and a backward generator and two critics, from sources and targets of different patients (CycleGAN)."""

    needs_pairs: ClassVar[bool] = False
    takes_opponent: ClassVar[bool] = False
    is_stochastic: ClassVar[bool] = False
    kind: Literal["cycle"] = "cycle"
    gan_loss: Annotated[
        Literal["least_squares", "cross_entropy"],
        setting("Adversarial loss of critics and generators."),
    ] = "least_squares"
    critic: Annotated[AnyCritic, setting("Network of each of the two critics.")] = Critic(
        widths=(64, 128, 256, 512), norm="instance", output="patches"
    )
    cycle: Annotated[
        float,
        setting(
            "Weight, in each direction, of the distance between an image and its copy after both generators.",
            ge=0,
        ),
    ] = 10.0
    identity: Annotated[
        float,
        setting(
            "Weight of the distance between an image and the output of the generator that should not change it; 0: no such term.",
            ge=0,
        ),
    ] = 0.0
    history: Annotated[
        int,
        setting(
            "Number of earlier outputs kept for each direction, some of which a critic sees again; 0: none.",
            ge=0,
        ),
    ] = 50
    distance: Annotated[
        RegressionSettings,
        setting("Distance between images, stated as for a regression."),
    ] = RegressionSettings(loss="l1", reduction="all")

    @property
    def turns(self) -> Mapping[str, int]:
        """A step of the critics, then one of the generators."""
        return {"critics": 1, "generators": 1}

    def build(self, net: NetSettings, task: Task, channels: Channels) -> "Cycle":
        """The method with fresh weights."""
        forward = replace(channels, state=0, noisy=False)
        targets = {f"target{number}": 1 for number in range(channels.out)}
        backward = Channels(images=targets, out=sum(channels.images.values()))
        return Cycle(self, net.build(forward), net.build(backward), task, forward)

    def check(self, stage: StageSettings, where: str) -> None:
        """Raise BadInput where the stage's task or data do not fit."""
        super().check(stage, where)
        if stage.task.completes or stage.task.needs:
            raise BadInput(
                f"{where}: expected task.kind 'translate' for method.kind = 'cycle', found another. Change it."
            )
        if stage.data.allow_missing:
            raise BadInput(
                f"{where}: expected data.allow_missing = false for method.kind = 'cycle', whose critics would take missing images for true ones, found true. Set it to false."
            )
        sources = len(stage.data.source) * (1 + 2 * stage.data.stack)
        targets = len(stage.data.target)
        if self.identity and sources != targets:
            raise BadInput(
                f"{where}: expected as many source as target channels for method.identity, found {sources} and {targets}. Set it to 0."
            )


class Cycle(Method):
    """The forward generator synthesises targets from sources, the backward one sources from targets.

    Source and target are of different patients: each direction has a mask of its own, and a synthesised image
    has the mask of its input. Source: Zhu et al. 2017 (ICCV), eq. 1 to 3, sec. 4.
    """

    task: Task

    def __init__(
        self,
        options: CycleSettings,
        forward: nn.Module,
        backward: nn.Module,
        task: Task,
        channels: Channels,
    ):
        super().__init__()
        self.turns = options.turns
        self.options = options
        self.task = task
        nets = dict(zip(DIRECTIONS, (forward, backward)))
        outputs = dict(zip(DIRECTIONS, (channels.out, channels.joined)))
        self.generators = nn.ModuleDict(
            {name: Regression(options.distance, net, task) for name, net in nets.items()}
        )
        self.critics = nn.ModuleDict(
            {name: options.critic.build(channels=count) for name, count in outputs.items()}
        )
        self.histories = {name: History(options.history) for name in DIRECTIONS}

    @property
    def net(self) -> nn.Module:  # type: ignore[override]
        """The network that synthesises targets."""
        return self.generator("to_target").net

    def generator(self, direction: str) -> Regression:
        """The generator of one of DIRECTIONS."""
        return self.generators[direction]  # type: ignore[return-value]

    def part_of(self, turn: str) -> nn.Module:
        """The critics or the generators."""
        return self.critics if turn == "critics" else self.generators

    def loss(self, turn: str, batch: Batch, noise: Noise, progress: float = 1.0) -> Losses:
        """The loss of the critics or of the generators."""
        inputs = {
            "to_target": replace(batch, target=None, target_mask=None),
            "to_source": _swap_sides(batch),
        }
        return (
            self._critics_loss(inputs, noise)
            if turn == "critics"
            else self._generators_loss(inputs)
        )

    def _generators_loss(self, inputs: Mapping[str, Batch]) -> Losses:
        parts = {}
        for here, other in zip(DIRECTIONS, reversed(DIRECTIONS)):
            problem, synthesised = self._make(here, inputs[here])
            again = self._make(other, replace(inputs[here], source=synthesised, source_names=()))[1]
            parts[f"gan_{here}"] = generator_loss(
                self.critics[here], self.options.gan_loss, synthesised
            )
            parts[f"cycle_{here}"] = self.options.cycle * self._distance(again, problem)
            if self.options.identity:
                own, same = self._make(here, inputs[other])
                parts[f"identity_{here}"] = self.options.identity * self._distance(same, own)
        return with_total(parts)

    def _critics_loss(self, inputs: Mapping[str, Batch], noise: Noise) -> Losses:
        parts: Losses = {}
        for here, other in zip(DIRECTIONS, reversed(DIRECTIONS)):
            with torch.no_grad():
                synthesised = self._make(here, inputs[here])[1]
                problem = self.task.pose(inputs[other])
                true = self.task.restore(problem.inputs.joined, problem)
            synthesised = (
                self.histories[here].swap(synthesised, noise) if self.training else synthesised
            )
            losses = discriminator_loss(
                self.critics[here], self.options.gan_loss, true, synthesised
            )
            parts |= {f"{name}_{here}": value for name, value in losses.items()}
        return {"total": parts["gan_to_target"] + parts["gan_to_source"], **parts}

    def _make(self, direction: str, inputs: Batch) -> tuple[Problem, Tensor]:
        """The problem as posed, and its synthesised image: background outside the mask where the task says inside."""
        problem = self.task.pose(inputs)
        return problem, self.task.restore(self.generator(direction).run(problem).image, problem)

    def _distance(self, image: Tensor, problem: Problem) -> Tensor:
        """How far an image is from what the problem gave, on its mask."""
        return self.generator("to_target").compare(
            image, replace(problem, x0=problem.inputs.joined)
        )["total"]

    def synthesise(self, batch: Batch, noise: Draws, sampling: SamplerSettings) -> Tensor:
        """The targets of a batch."""
        return self.generator("to_target").synthesise(batch, noise, sampling)

    def training_state(self) -> dict[str, Tensor]:
        """The earlier outputs that critics may see again."""
        return {
            name: torch.stack(history.images)
            for name, history in self.histories.items()
            if history.images
        }

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `training_state` gave."""
        for name, history in self.histories.items():
            history.images = list(state[name]) if name in state else []


class History:
    """Earlier outputs: once there are `size`, every other new one is exchanged for one of them, which it replaces.

    Source: Shrivastava et al. 2017, sec. 2.3, in the form of Zhu et al. 2017, sec. 4.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def swap(self, synthesised: Tensor, noise: Noise) -> Tensor:
        """What a critic sees in place of new images [B, C, D, H, W]: the images themselves, or earlier ones."""
        if self.size == 0:
            return synthesised
        old = noise.uniform() < 0.5
        places = noise.integers(self.size)
        seen = []
        for image, is_old, place in zip(synthesised, old.tolist(), places.tolist()):
            if len(self.images) < self.size:
                self.images.append(image.clone())
            elif is_old:
                image, self.images[place] = self.images[place], image.clone()
            seen.append(image)
        return torch.stack(seen)


def _swap_sides(batch: Batch) -> Batch:
    """The batch with its targets as sources."""
    target = require(batch.target)
    mask = batch.mask if batch.target_mask is None else batch.target_mask
    present = torch.ones(target.shape[:2], dtype=torch.bool, device=target.device)
    return Batch(source=target, mask=mask, present=present, item=batch.item)
