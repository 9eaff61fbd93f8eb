"""One forward pass from source to target: the honest floor under every diffusion model."""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from voxlate.batch import Batch
from voxlate.config import settings
from voxlate.diffusion.noise import Noise
from voxlate.diffusion.objective import masked_mean
from voxlate.diffusion.sample import SamplerSettings
from voxlate.methods.problem import Problem, Task


@settings
class RegressionSettings:
    """Predicts the target (or the missing channels) directly."""

    turns: ClassVar[Mapping[str, int]] = {"net": 1}
    kind: Literal["regression"] = "regression"
    loss: Annotated[Literal["l1", "mse"], Field(description="what is minimised inside the mask")] = "l1"
    reduction: Annotated[
        Literal["mask", "all"], Field(description="mean over the mask, or over all voxels")
    ] = "mask"


class Regression(nn.Module):
    """A network that is asked once; it ignores noise and time."""

    def __init__(self, options: RegressionSettings, net: nn.Module, task: Task, known_in_state: bool = False):
        super().__init__()
        self.turns: Mapping[str, int] = options.turns
        self.options, self.net, self.task, self.known_in_state = options, net, task, known_in_state

    def forward(self, turn: str, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        return self.loss(turn, batch, noise)

    def loss(self, turn: str, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        problem = self.task.pose(batch, noise)
        assert problem.x0 is not None
        error = self._ask(problem).float() - problem.x0
        error = error.abs() if self.options.loss == "l1" else error.square()
        fit = masked_mean(error, problem.mask, self.options.reduction).mean()
        return {"total": fit + sum(problem.losses.values()), **problem.losses}

    def predict(self, batch: Batch) -> Tensor:
        """Images [B, T, D, H, W] in network units, with gradients where they are enabled."""
        problem = self.task.pose(batch)
        return self.task.restore(self._ask(problem).float(), problem)

    @torch.no_grad()
    def synthesise(self, batch: Batch, noise: Noise, how: SamplerSettings) -> Tensor:
        return self.predict(batch)

    def trained(self, turn: str) -> Iterator[nn.Parameter]:
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def _ask(self, problem: Problem) -> Tensor:
        state = problem.known if self.known_in_state else None
        return self.net(state, problem.condition, None)
