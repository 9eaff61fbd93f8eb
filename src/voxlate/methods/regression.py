"""One forward pass from source to target: the honest floor under every diffusion model."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from voxlate.batch import Batch
from voxlate.config import settings
from voxlate.diffusion.noise import Noise
from voxlate.diffusion.objective import masked_mean
from voxlate.diffusion.sample import SamplerSettings
from voxlate.methods.losses import dissimilarity
from voxlate.methods.method import Method, Problem, Task


@settings
class RegressionSettings:
    """Predicts the target (or the missing channels) directly."""

    turns: ClassVar[Mapping[str, int]] = {"net": 1}
    kind: Literal["regression"] = "regression"
    loss: Annotated[Literal["l1", "mse"], Field(description="what is minimised inside the mask")] = "l1"
    ssim: Annotated[float, Field(ge=0, description="weight of 1 - SSIM (11 pixel window) beside it")] = 0.0
    leak: Annotated[
        float,
        Field(ge=0, le=1, description="slope beyond [-1, 1], where images end: below 1 a sure answer may overshoot"),
    ] = 1.0
    reduction: Annotated[Literal["mask", "all"], Field(description="mean over the mask, or over all voxels")] = "mask"


class Regression(Method):
    """A network that is asked once; it ignores noise and time."""

    def __init__(self, options: RegressionSettings, net: nn.Module, task: Task, known_in_state: bool = False):
        super().__init__()
        self.turns: Mapping[str, int] = options.turns
        self.options, self.net, self.task, self.known_in_state = options, net, task, known_in_state

    def loss(self, turn: str, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        problem = self.task.pose(batch, noise)
        return self.compare(self.ask(problem), problem)

    def compare(self, answer: Tensor, problem: Problem) -> dict[str, Tensor]:
        """How far an answer [B, C, D, H, W] is from the truth."""
        assert problem.x0 is not None
        error = answer - problem.x0
        error = error.abs() if self.options.loss == "l1" else error.square()
        errors = {self.options.loss: error, **problem.errors}
        reduction = self.options.reduction
        terms = {name: masked_mean(one, problem.mask, reduction).mean() for name, one in errors.items()}
        if self.options.ssim:
            terms["ssim"] = self.options.ssim * dissimilarity(answer, problem.x0).mean()
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def predict(self, batch: Batch) -> Tensor:
        """Images [B, T, D, H, W] in network units, with gradients where they are enabled."""
        problem = self.task.pose(batch)
        return self.task.restore(self.ask(problem), problem)

    def predict_with_features(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As `predict`, with the maps that a network such as BRAN has on its way (its `feature_channels`)."""
        problem = self.task.pose(batch)
        state = problem.known if self.known_in_state else None
        answer, features = cast(Any, self.net).with_features(state, problem.condition)
        return self.task.restore(self._within(answer), problem), features

    @torch.no_grad()
    def synthesise(self, batch: Batch, noise: Noise, how: SamplerSettings) -> Tensor:
        return self.predict(batch)

    def ask(self, problem: Problem) -> Tensor:
        """The network's answer, float32."""
        state = problem.known if self.known_in_state else None
        return self._within(self.net(state, problem.condition, None))

    def _within(self, answer: Tensor) -> Tensor:
        answer = answer.float()
        return answer if self.options.leak == 1 else leaky(answer, self.options.leak)


def leaky(x: Tensor, slope: float) -> Tensor:
    """x within [-1, 1]; what lies beyond counts `slope` times."""
    return torch.lerp(x.clamp(-1, 1), x, slope)
