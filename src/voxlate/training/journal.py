"""log.jsonl and TensorBoard: what a training said of itself, without gaps or repeats after a restart."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from voxlate.files import write_text
from voxlate.recipe import Training

Progress = Callable[[str, int, int, Mapping[str, float]], None]
"""Called after every step with the stage's name, steps done, steps in all, and the numbers last logged."""


class Journal:
    """Writes a line every `log_every` steps and every validation; forgets lines after the step it starts from."""

    def __init__(
        self, log: Path, stage: str, options: Training, step: int, seconds: float, main: bool, progress: Progress | None
    ):
        self.log, self.stage, self.options, self.main, self.progress = log, stage, options, main, progress
        self.begun = time.monotonic() - seconds
        self.before = (step, seconds)
        self.latest: dict[str, float] = {}
        self.board = None
        if main:
            self._forget_after(step)
            self.board = SummaryWriter(str(log.parent / "tensorboard" / stage), purge_step=step)

    def note(self, step: int, losses: Mapping[str, Mapping[str, Tensor]]) -> float:
        """Log a step if it is one to log; returns the seconds trained so far."""
        seconds = time.monotonic() - self.begun
        if self.main and (step % self.options.log_every == 0 or step == self.options.steps):
            steps, passed = step - self.before[0], seconds - self.before[1]
            rate = self.options.optimiser.lr * self.options.optimiser.factor(step - 1, self.options.steps)
            common = {"lr": rate, "items_per_s": steps * self.options.batch / max(passed, 1e-9)}
            for turn, parts in losses.items():
                values = {name: float(value) for name, value in parts.items()}
                self._write(
                    {"stage": self.stage, "step": step, "turn": turn, "loss": values, **common, "seconds": seconds}
                )
                self._draw({**{f"{turn}/{name}": value for name, value in values.items()}, **common}, step)
                self.latest = {**self.latest, "loss": values["total"], "items_per_s": common["items_per_s"]}
            self.before = (step, seconds)
        if self.progress and self.main:
            self.progress(self.stage, step, self.options.steps, self.latest)
        return seconds

    def validated(self, step: int, scores: Mapping[str, float]) -> float:
        """Log a validation; returns the seconds trained so far."""
        seconds = time.monotonic() - self.begun
        self._write({"stage": self.stage, "step": step, "validation": dict(scores), "seconds": seconds})
        self._draw({f"validation/{name}": value for name, value in scores.items()}, step)
        self.latest = {**self.latest, **scores}
        self.before = (step, seconds)
        return seconds

    def ended(self, step: int, sentence: str) -> None:
        """Log in one sentence why the training ended before its last step."""
        self._write({"stage": self.stage, "step": step, "ended": sentence})
        if self.progress:
            self.progress(self.stage, step, step, self.latest)

    def _write(self, line: Mapping[str, object]) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _draw(self, values: Mapping[str, float], step: int) -> None:
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
            self.board.flush()

    def _forget_after(self, step: int) -> None:
        """A killed run logged steps that it never saved; it does them again, so their lines go."""
        if not self.log.exists():
            return
        kept = []
        for text in self.log.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:  # the line that the kill cut short
                continue
            if line["stage"] != self.stage or line["step"] <= step:
                kept.append(text)
        write_text(self.log, "".join(f"{text}\n" for text in kept))
