"""The mean loss of each epoch of a training."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


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
