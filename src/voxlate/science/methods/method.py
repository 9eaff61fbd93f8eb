"""The roles of this package: a task poses problems, a method learns to solve them; and what their settings can do."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.errors import BadInput
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Draws, Noise
from voxlate.science.diffusion.sample import SamplerSettings, with_known
from voxlate.science.nets.autoencoder import AutoencoderNet
from voxlate.science.nets.interface import Channels, NetSettings, NetworkInput

Losses = dict[str, Tensor]
"""'total' is what is minimised; the other entries are for the log."""


@dataclass(frozen=True)
class Problem:
    """A batch as a method solves it.

    inputs: of the network, without state and noise level; mask: [B, 1 or C, D, H, W] on the state's own grid, 1 where
    the state may be noisy; known: [B, 1 or C, D, H, W], what the state holds outside the mask (None: nothing is known,
    the mask is 1 everywhere); x0: [B, C, D, H, W], the clean state, in training only; x0_present: [B, C] bool, which of
    its channels are of targets that exist (None: all); base: [B, T, D, H, W], the image that a residual is added to;
    size: height and width of the image where the state's are not the same; weight: [B, 1, D, H, W], how often a voxel
    counts in the loss (None: once); errors: of each voxel, [B, C, D, H, W], that
    posing the problem itself adds to the loss, averaged as the method averages its own.
    """

    inputs: NetworkInput
    mask: Tensor
    known: Tensor | None = None
    x0: Tensor | None = None
    x0_present: Tensor | None = None
    base: Tensor | None = None
    size: tuple[int, int] | None = None
    errors: Mapping[str, Tensor] = field(default_factory=dict)
    weight: Tensor | None = None

    def where_present(self, image: Tensor) -> Tensor:
        """The image [B, C, D, H, W] with its truth in channels whose truth is absent, so that no loss comes of them."""
        if self.x0_present is None:
            return image
        return torch.where(self.x0_present[:, :, None, None, None], image, require(self.x0))

    @property
    def loss_mask(self) -> Tensor:
        """How often voxels count in the loss: in the mask, of the targets that exist; [B, 1 or C, D, H, W]."""
        mask = (
            self.mask
            if self.x0_present is None
            else self.mask * self.x0_present[:, :, None, None, None]
        )
        return mask if self.weight is None else mask * self.weight

    def with_weight(self, weight: Tensor | None) -> "Problem":
        """The same with a weight of the image's voxels [B, 1, D, H, W], as means on the state's grid."""
        if weight is not None and weight.shape[2:] != self.mask.shape[2:]:
            weight = F.interpolate(weight, self.mask.shape[2:], mode="area")
        return replace(self, weight=weight)

    def part(self, slices: slice) -> "Problem":
        """The problem of some slices (axis D), as synthesis needs it: inputs, mask, known and base."""
        every = slice(None)
        return self._cut((every, every, slices), every)

    def items(self, chosen: Tensor) -> "Problem":
        """The problem of the items of these numbers, as synthesis needs it: inputs, mask, known and base."""
        return self._cut(chosen, chosen)

    def _cut(self, of_image: Any, of_code: Any) -> "Problem":
        """The problem at an index of images [B, C, D, H, W], and at one of codes [B, K]."""

        def _at(x: Tensor | None) -> Any:
            return None if x is None else x[of_image]

        images = {name: _at(image) for name, image in self.inputs.images.items()}
        code = self.inputs.code
        inputs = replace(
            self.inputs,
            images=images,
            features=tuple(map(_at, self.inputs.features)),
            code=None if code is None else code[of_code],
        )
        return replace(
            self, inputs=inputs, mask=_at(self.mask), known=_at(self.known), base=_at(self.base)
        )


class Task(ABC):
    """Turns batches into problems and solutions into images."""

    known_in_state: ClassVar[bool] = False
    """Whether the state carries known voxels, so that a regression must see it, too."""

    @abstractmethod
    def channels(self, sources: Sequence[str], targets: Sequence[str]) -> Channels:
        """Channels of a network that denoises the task's state; sources, targets: names of a batch's channels."""

    @abstractmethod
    def pose(self, batch: Batch, noise: Noise | None = None, progress: float = 1.0) -> Problem:
        """With noise: a training problem from batch.target; without: an inference problem, which never looks at it.

        progress: share of the training that is done, for tasks that grow harder.
        """

    @abstractmethod
    def restore(self, x0: Tensor, problem: Problem) -> Tensor:
        """The image [B, T, D, H, W] that a clean state stands for."""

    def as_at_inference(self, batch: Batch) -> Batch:
        """A validation batch as synthesis would be given it; a task that completes images hides one."""
        return batch


@dataclass(frozen=True)
class Pair:
    """What an opponent compares: true and synthesised images [B, C, D, H, W].

    context: [B, C', D, H, W], what both belong to; scanned: [B, C] bool, the channels of `synthesised` that are copies of true
    ones (None: none is).
    """

    true: Tensor
    synthesised: Tensor
    context: Tensor | None = None
    scanned: Tensor | None = None


@dataclass(frozen=True)
class Attempt:
    """A method's solution of a training batch: its own losses, and the pair for an opponent; computed when called."""

    losses: Callable[[], Losses]
    pair: Callable[[], Pair]


class Method(nn.Module, ABC):
    """Learns by turns (a GAN has two, everything else one) and synthesises; a module, so it moves and saves as one.

    turns: the steps of each, in order; the last one trains the synthesis. pair_channels: of the images of `Pair` and of their
    context, for methods that take an opponent.

    Example:
        >>> from pathlib import Path
        >>> from voxlate.training.weights import load_method
        >>> method, recipe, header = load_method(Path("RUN"))
        >>> list(method.turns), recipe.method.kind
        (['net'], 'regression')
    """

    turns: Mapping[str, int]
    net: nn.Module
    pair_channels: tuple[int, int] = (0, 0)

    def forward(self, turn: str, batch: Batch, noise: Noise, progress: float = 1.0) -> Losses:
        """The loss: a wrapper for several processes synchronises gradients only through forward."""
        return self.loss(turn, batch, noise, progress)

    def loss(self, turn: str, batch: Batch, noise: Noise, progress: float = 1.0) -> Losses:
        """What a turn minimises; progress: share of the training that is done, 0 to 1."""
        return self.attempt(batch, noise, progress).losses()

    def attempt(self, batch: Batch, noise: Noise, progress: float = 1.0) -> Attempt:
        """Solve one training batch with the weights as they are."""
        raise NotImplementedError

    @abstractmethod
    def synthesise(self, batch: Batch, noise: Draws, sampling: SamplerSettings) -> Tensor:
        """Images [B, T, D, H, W] in network units; the batch needs no target."""

    def as_at_inference(self, batch: Batch) -> Batch:
        """A validation batch as synthesis would be given it."""
        task: Task | None = getattr(self.without_opponent, "task", None)
        return batch if task is None else task.as_at_inference(batch)

    def finish(self, batches: Iterable[Batch]) -> None:
        """Set what the weights are scaled by; called once, with the validation batches, before they are saved."""

    def training_state(self) -> dict[str, Tensor]:
        """What resuming a training needs in addition to weights and optimisers; unused at inference."""
        return {}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `training_state` returned."""

    def takes_turn(self, turn: str, progress: float) -> bool:
        """Whether a turn is taken at this progress; the last turn always is."""
        return True

    def part_of(self, turn: str) -> nn.Module:
        """The part of the method that a turn trains."""
        return self

    def parameters_of(self, turn: str) -> Iterator[nn.Parameter]:
        """The parameters that a turn updates."""
        part = self.part_of(turn)
        return (parameter for parameter in part.parameters() if parameter.requires_grad)

    @property
    def autoencoder(self) -> AutoencoderNet | None:
        """The frozen autoencoder whose latents the method's task works with, if it does."""
        return getattr(getattr(self.without_opponent, "task", None), "autoencoder", None)

    @property
    def predictor(self) -> "Method":
        """The method of the mean stage, where the task has one."""
        task: Any = self.without_opponent.task
        return cast(Method, task.predictor)

    @property
    def without_opponent(self) -> "Method":
        """The part that synthesises images: the method itself, or the one that an opponent is built around."""
        return self


class StageSettings(Protocol):
    """One training of a recipe, as its settings see it when they check themselves; data: training.batches.data_settings.DataSettings."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def task(self) -> "TaskSettings":
        """How a batch becomes a problem."""

    @property
    def method(self) -> "MethodSettings":
        """What is trained."""

    @property
    def net(self) -> NetSettings:
        """Its network."""

    @property
    def data(self) -> Any:
        """The settings of its data."""


class TaskSettings:
    """Settings of a task; a task without weights of its own is its own settings (`build` gives self).

    Example:
        >>> from voxlate.science.methods.method import TaskSettings
        >>> class Mine(TaskSettings):
        ...     completes = True
        >>> task = Mine()
        >>> task.build({}) is task, task.needs
        (True, ())
    """

    completes: ClassVar[bool] = False
    """Whether sources and targets are one list, of which the task synthesises what is missing."""
    encodes: ClassVar[bool] = False
    """Whether the task works with the latents of an autoencoder, which may be kept."""

    def build(self, earlier: Mapping[str, Method]) -> Task:
        """The task, with the finished methods of the stages that it needs; by default the settings themselves."""
        return cast(Task, self)

    def check(self, stage: StageSettings, earlier: Mapping[str, StageSettings], where: str) -> None:
        """Raise BadInput where the task does not fit the rest of its stage, or the stages before it."""
        if missing := [name for name in self.needs if name not in earlier]:
            raise BadInput(
                f"{where}: expected an earlier stage '{missing[0]}', found {sorted(earlier) or 'none'}. Add the stage above it."
            )

    @property
    def inside(self) -> bool:
        """Whether nothing is synthesised outside the mask."""
        return False

    @property
    def strip(self) -> bool:
        """Whether the network sees background outside the mask."""
        return False

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the stages that the task builds on."""
        return ()

    @property
    def mean_stage(self) -> str | None:
        """The earlier stage whose image is the mean of what is drawn with this task; None where there is none."""
        return None

    @property
    def needs_mask(self) -> bool:
        """Whether the task works inside a mask, which must then be found in the sources."""
        return self.inside or self.strip

    @property
    def whole_slices(self) -> bool:
        """Whether the network must see slices whole, because it compares their left with their right."""
        return False

    @property
    def state_range(self) -> tuple[float, float]:
        """Where the state of an image begins and ends, for methods that know the range of images."""
        return -1.0, 1.0


def networks_in(method: nn.Module) -> list[Any]:
    """The networks that a sample of a method evaluates: its own, and that of a predictor in its task."""
    parts = (part for part in method.modules() if isinstance(part, Method))
    return [*dict.fromkeys(part.net for part in parts)]


class MethodSettings(ABC):
    """Settings of a method: the base of classes that a recipe names as method.kind.

    turns: its steps of each kind, in order; needs_pairs: whether source and target must be of the same patient.

    Example:
        >>> from voxlate.science.methods.regression import RegressionSettings
        >>> RegressionSettings().turns, RegressionSettings().is_stochastic
        ({'net': 1}, False)
    """

    needs_pairs: ClassVar[bool] = True
    predicts: ClassVar[bool] = False
    """Whether the method has `predict` and `feature_channels` (see methods.regression)."""
    takes_opponent: ClassVar[bool] = True
    """Whether the method has `attempt`, and one turn."""
    iterates: ClassVar[bool] = False
    """Whether synthesis evaluates the network at every step of a sampler, or once."""
    is_stochastic: ClassVar[bool] = True
    """Whether the samples of a case differ; of one forward pass without noise they do not."""
    shows_doubt: ClassVar[bool] = True
    """Whether the spread of samples is that of all images that the sources allow."""
    weighs: ClassVar[bool] = False
    """Whether voxels can count more than once in the loss (data.weigh)."""
    makes_targets: ClassVar[bool] = True
    """Whether the method synthesises targets from sources; an autoencoder only reconstructs its input."""

    @property
    def turns(self) -> Mapping[str, int]:
        """The steps of each kind, in order."""
        return {"net": 1}

    @property
    def trained_steps(self) -> tuple[int, ...]:
        """The numbers of steps that the training prepares, of methods that it prepares for some."""
        return ()

    @abstractmethod
    def build(self, net: NetSettings, task: Task, channels: Channels) -> Method:
        """The method with fresh weights; channels: of the task's state, of what it gives and of the image."""

    def check(self, stage: StageSettings, where: str) -> None:
        """Raise BadInput where the method does not fit the rest of its stage."""
        if stage.net.autoencodes:
            raise BadInput(
                f"{where}, stage '{stage.name}': expected net.kind 'unet', or another that synthesises images, for this method, found an autoencoder. Change it."
            )
        if stage.data.weigh and not self.weighs:
            raise BadInput(
                f"{where}, stage '{stage.name}': expected no data.weigh for this method, whose loss is not of voxels alone, found it. Drop it, or take method.kind = 'regression' or 'diffusion'."
            )
        if stage.data.apart and self.needs_pairs:
            raise BadInput(
                f"{where}, stage '{stage.name}': expected data.apart = false for a method that learns from pairs, found true. Set it to false, or take method.kind = 'cycle'."
            )

    def check_sampler(self, sampling: SamplerSettings) -> None:
        """Raise BadInput where these sampler settings do not fit the method."""
        return None


def channels_by_name(
    batch_names: Sequence[str], images: Tensor, prefix: str = "source"
) -> dict[str, Tensor]:
    """The channels of [B, C, D, H, W] by name; "source0", … where the batch gives no names."""
    names = batch_names or [f"{prefix}{number}" for number in range(images.shape[1])]
    return dict(zip(names, images.chunk(images.shape[1], dim=1), strict=True))


def require(value: Tensor | None) -> Tensor:
    """The tensor; raises ValueError where there is none."""
    if value is None:
        raise ValueError("this step needs a target; the batch or the problem has none")
    return value


def pair_of(problem: Problem, state: Tensor, task: Task) -> Pair:
    """The true and the synthesised state, of a residual the images; known voxels and absent targets are equal in both."""
    x0 = require(problem.x0)
    around = torch.zeros_like(x0) if problem.known is None else problem.known
    true, synthesised = (
        with_known(image, around, problem.mask) for image in (x0, problem.where_present(state))
    )
    if problem.base is not None:  # images, because a residual alone does not show what is false
        true, synthesised = (task.restore(state, problem) for state in (true, synthesised))
    images = list(problem.inputs.images.values())
    scanned = problem.mask.flatten(2).amax(2) == 0 if task.known_in_state else None
    return Pair(true, synthesised, torch.cat(images, dim=1) if images else None, scanned)


def with_total(parts: Mapping[str, Tensor]) -> Losses:
    """The parts of a loss with their sum."""
    return {"total": torch.stack(list(parts.values())).sum(), **parts}
