"""Translation learned without pairs: there and back again is where one began, and critics watch both shores."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from voxlate.batch import Batch
from voxlate.config import settings
from voxlate.diffusion.noise import Noise
from voxlate.diffusion.sample import SamplerSettings
from voxlate.errors import BadInput
from voxlate.methods.method import Channels, Method, Problem, Task
from voxlate.methods.opponent import blame, judged, unmoved
from voxlate.methods.regression import Regression, RegressionSettings
from voxlate.methods.tasks import Translate
from voxlate.nets.critic import Critic

WAYS = ("forth", "back")


@settings
class CycleSettings:
    """Two generators, there and back, and two critics, from sources and targets of different patients (CycleGAN)."""

    turns: ClassVar[Mapping[str, int]] = {"critics": 1, "generators": 1}
    kind: Literal["cycle"] = "cycle"
    game: Annotated[
        Literal["least_squares", "cross_entropy"], Field(description="what critics and generators play")
    ] = "least_squares"
    critic: Annotated[Critic, Field(description="the network of each of the two opponents")] = Critic(
        widths=(64, 128, 256, 512), norm="instance", answer="patches"
    )
    cycle: Annotated[
        float, Field(ge=0, description="weight, each way, of how an image differs that went there and back")
    ] = 10.0
    identity: Annotated[
        float, Field(ge=0, description="weight of what a generator does to an image that needs nothing; 0: none")
    ] = 0.0
    history: Annotated[
        int, Field(ge=0, description="made images kept a side, of which the critics are shown some again; 0: none")
    ] = 50
    data: Annotated[RegressionSettings, Field(description="how images are compared, as in a regression")] = (
        RegressionSettings(loss="l1", reduction="all")
    )


class Cycle(Method):
    """Forth makes targets from sources, back makes sources from targets; forth alone answers at inference.

    A target need not be of its source's body: each side is posed with a mask of its own, and what is made has the
    mask of what it was made from. Source: Zhu et al. 2017 (ICCV), eq. 1 to 3, sec. 4.
    """

    def __init__(self, options: CycleSettings, forth: nn.Module, back: nn.Module, task: Task, channels: Channels):
        super().__init__()
        sources, targets = channels.condition, channels.state
        if not isinstance(task, Translate):
            raise BadInput("task.kind: expected 'translate' for method.kind = 'cycle', found another. Change it.")
        if options.identity and sources != targets:
            raise BadInput(
                f"method.identity: expected as many source as target channels, found {sources} and {targets}. "
                "Set it to 0."
            )
        self.turns: Mapping[str, int] = options.turns
        self.options, self.task = options, task
        self.generators = nn.ModuleDict(
            {way: Regression(options.data, net, task) for way, net in zip(WAYS, (forth, back))}
        )
        self.critics = nn.ModuleDict(
            {way: options.critic.build(channels=made) for way, made in zip(WAYS, (targets, sources))}
        )
        self.histories = {way: History(options.history) for way in WAYS}

    @property
    def net(self) -> nn.Module:  # type: ignore[override]
        return self.way("forth").net

    def way(self, name: str) -> Regression:
        """The generator 'forth' or 'back'."""
        generator = self.generators[name]
        assert isinstance(generator, Regression)
        return generator

    def trained(self, turn: str) -> Iterator[nn.Parameter]:
        return (self.critics if turn == "critics" else self.generators).parameters()

    def loss(self, turn: str, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        given = {"forth": replace(batch, target=None, target_mask=None), "back": _other_side(batch)}
        return self._teach_critics(given, noise) if turn == "critics" else self._generate(given)

    def _generate(self, given: Mapping[str, Batch]) -> dict[str, Tensor]:
        parts: dict[str, Tensor] = {}
        for way, other in zip(WAYS, reversed(WAYS)):
            problem, made = self._make(way, given[way])
            again = self._make(other, replace(given[way], source=made))[1]
            opinion = unmoved(self.critics[way], made)
            parts[f"believed_{way}"] = blame(self.options.game, opinion, true=True)
            parts[f"cycle_{way}"] = self.options.cycle * self._apart(again, problem)
            if self.options.identity:
                own, same = self._make(way, given[other])
                parts[f"identity_{way}"] = self.options.identity * self._apart(same, own)
        return {"total": torch.stack(list(parts.values())).sum(), **parts}

    def _make(self, way: str, given: Batch) -> tuple[Problem, Tensor]:
        """The problem as posed, and the image made for it: background outside the mask where the task says inside."""
        problem = self.task.pose(given)
        return problem, self.task.restore(self.way(way).ask(problem), problem)

    def _apart(self, image: Tensor, problem: Problem) -> Tensor:
        """How far an image is from what the problem gave, on its mask."""
        return self.way("forth").compare(image, replace(problem, x0=problem.condition.images))["total"]

    def _teach_critics(self, given: Mapping[str, Batch], noise: Noise) -> dict[str, Tensor]:
        parts: dict[str, Tensor] = {}
        for way, other in zip(WAYS, reversed(WAYS)):
            with torch.no_grad():
                made = self._make(way, given[way])[1]
                problem = self.task.pose(given[other])
                assert problem.condition.images is not None
                true = self.task.restore(problem.condition.images, problem)
            shown = self.histories[way].swap(made, noise) if self.training else made
            parts |= {
                f"{name}_{way}": one for name, one in judged(self.critics[way], self.options.game, true, shown).items()
            }
        return {"total": parts["blame_forth"] + parts["blame_back"], **parts}

    def synthesise(self, batch: Batch, noise: Noise, how: SamplerSettings) -> Tensor:
        return self.way("forth").synthesise(batch, noise, how)

    def memory(self) -> dict[str, Tensor]:
        return {way: torch.stack(one.images) for way, one in self.histories.items() if one.images}

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        for way, one in self.histories.items():
            one.images = list(memory[way]) if way in memory else []


class History:
    """Images made earlier: once there are `size`, every other new one takes the place of one, which is shown instead.

    Source: Shrivastava et al. 2017, sec. 2.3, in the form of Zhu et al. 2017, sec. 4.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def swap(self, made: Tensor, noise: Noise) -> Tensor:
        """What is shown instead of new images [B, C, D, H, W]: the images themselves, or earlier ones."""
        if self.size == 0:
            return made
        old, places = noise.uniform() < 0.5, noise.integers(self.size)
        shown = []
        for image, is_old, place in zip(made, old.tolist(), places.tolist()):
            if len(self.images) < self.size:
                self.images.append(image.clone())
            elif is_old:
                image, self.images[place] = self.images[place], image.clone()
            shown.append(image)
        return torch.stack(shown)


def _other_side(batch: Batch) -> Batch:
    """The targets as what is given."""
    if batch.target is None:
        raise ValueError("this step needs targets; the batch has none")
    mask = batch.mask if batch.target_mask is None else batch.target_mask
    present = torch.ones(batch.target.shape[:2], dtype=torch.bool, device=batch.target.device)
    return Batch(source=batch.target, mask=mask, present=present, item=batch.item)
