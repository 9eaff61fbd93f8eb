"""When a training has learned what it can: a rule on the losses of its epochs, and the losses themselves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from voxlate.config import settings


@settings
class Stop:
    """Ends a training early, once an epoch's loss is no longer `gain` below the mean of those before it.

    Source: Lyu & Wang 2022 (arXiv 2209.12104), sec. III: 100 epochs, window of 20, 1 %.
    """

    after_epochs: Annotated[int, Field(ge=1, description="epochs that are trained in any case")] = 100
    window: Annotated[
        int, Field(ge=1, description="epochs before the last one, whose mean loss it is held against")
    ] = 20
    gain: Annotated[float, Field(ge=0, lt=1, description="share by which the loss must lie below that mean")] = 0.01

    def reached(self, losses: Sequence[float]) -> bool:
        """Whether training ends after these epochs; what is not a number never ends it."""
        if len(losses) < max(self.after_epochs, self.window + 1):
            return False
        return losses[-1] > (1 - self.gain) * self._before(losses)

    def sentence(self, losses: Sequence[float], step: int) -> str:
        """Why it ended, for the log."""
        before = "loss of the epoch" if self.window == 1 else f"mean loss of the {self.window} epochs"
        return (
            f"ended at step {step} by train.stop: the loss of epoch {len(losses)}, {losses[-1]:.4g}, is not "
            f"{100 * self.gain:.3g} % below the {before} before, {self._before(losses):.4g}."
        )

    def _before(self, losses: Sequence[float]) -> float:
        return sum(losses[-1 - self.window : -1]) / self.window


@dataclass
class Epochs:
    """Mean loss of each epoch so far, and the sum of the one that runs; part of a training's state.

    steps: of an epoch; 0 where nobody asks for its loss.
    """

    steps: int
    losses: list[float] = field(default_factory=list)
    running: Tensor | None = None
    count: int = 0

    def note(self, loss: Tensor) -> bool:
        """Add a step's loss; returns whether that ended an epoch. Only then is the device waited for."""
        if not self.steps:
            return False
        loss = loss.detach().double()
        self.running = loss if self.running is None else self.running + loss
        self.count += 1
        if self.count < self.steps:
            return False
        self.losses.append(float(self.running) / self.count)
        self.running, self.count = None, 0
        return True

    def state(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {"losses": list(self.losses), "running": self.running, "count": self.count}

    def take_up(self, state: dict[str, Any]) -> None:
        self.losses, self.count, self.running = list(state["losses"]), state["count"], state["running"]
