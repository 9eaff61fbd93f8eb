"""What is to be generated, and by which rules: the roles that tasks and methods play."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import Tensor, nn

from voxlate.batch import Batch, Condition
from voxlate.diffusion.noise import Noise
from voxlate.diffusion.sample import SamplerSettings


@dataclass(frozen=True)
class Problem:
    """A batch as a method sees it.

    mask: [B, 1 or C, D, H, W] on the state's own grid, 1 where the state may be noisy and the loss counts; known:
    [B, 1 or C, D, H, W], what the state holds elsewhere (None: nothing is known, the mask is 1 everywhere); x0:
    [B, C, D, H, W], the clean state, in training only; base: [B, T, D, H, W], the image that a residual is added to;
    size: height and width of the image where the state's are not the same; errors: of each voxel, [B, C, D, H, W], that
    posing the problem itself adds to the loss, averaged as the method averages its own.
    """

    condition: Condition
    mask: Tensor
    known: Tensor | None = None
    x0: Tensor | None = None
    base: Tensor | None = None
    size: tuple[int, int] | None = None
    errors: Mapping[str, Tensor] = field(default_factory=dict)

    def slices(self, part: slice) -> "Problem":
        """The problem of some slices of each item, as far as a network's input and its mask go."""
        images, features = self.condition.images, self.condition.features
        condition = replace(
            self.condition,
            images=None if images is None else images[:, :, part],
            features=tuple(feature[:, :, part] for feature in features),
        )
        return replace(self, condition=condition, mask=self.mask[:, :, part])


@dataclass(frozen=True)
class Channels:
    """How many channels a task's network sees and gives."""

    state: int
    condition: int
    code: int = 0
    known_in_state: bool = False  # the state carries known voxels, so a regression must see it too
    features: tuple[int, ...] = ()  # of the maps in Condition.features


class Task(Protocol):
    """Turns batches into problems and solutions into images."""

    def channels(self, sources: int, targets: int) -> Channels: ...

    def pose(self, batch: Batch, noise: Noise | None = None) -> Problem:
        """With noise: a training problem from batch.target; without: an inference problem, which never looks at it."""
        ...

    def restore(self, x0: Tensor, problem: Problem) -> Tensor:
        """The image [B, T, D, H, W] that a clean state stands for."""
        ...


class Method(nn.Module, ABC):
    """Learns by turns (a GAN has two, everything else one) and synthesises; a module, so it moves and saves as one."""

    turns: Mapping[str, int]
    net: nn.Module

    def forward(self, turn: str, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """The loss: a wrapper for several processes synchronises gradients only through forward."""
        return self.loss(turn, batch, noise)

    @abstractmethod
    def loss(self, turn: str, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """'total' is what the turn minimises; the other entries are for the log."""

    @abstractmethod
    def synthesise(self, batch: Batch, noise: Noise, how: SamplerSettings) -> Tensor:
        """Images [B, T, D, H, W] in network units; the batch needs no target."""

    def memory(self) -> dict[str, Tensor]:
        """What a training must know to go on, besides weights and optimisers; nothing of it matters at inference."""
        return {}

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        """Take up what `memory` gave."""

    def trained(self, turn: str) -> Iterator[nn.Parameter]:
        """The parameters that a turn updates."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)
