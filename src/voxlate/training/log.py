"""The log of a training: its numbers in log.jsonl and TensorBoard, without gaps or repeats after a restart."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from voxlate.recipe.training import Training
from voxlate.scoring.verdict import Verdict
from voxlate.system.files import write_text
from voxlate.training.lines import append_line, lines_of

StepCallback = Callable[[str, int, int, Mapping[str, float]], None]
"""Called after every step with the stage's name, steps done, steps in all, and the numbers last logged."""


class Log:
    """Writes a line every `log_every` steps and every validation; removes lines after the step from which it starts."""

    def __init__(
        self,
        log: Path,
        stage: str,
        options: Training,
        step: int,
        seconds: float,
        main: bool,
        on_step: StepCallback,
    ):
        self.log = log
        self.stage = stage
        self.options = options
        self.main = main
        self.on_step = on_step
        self.begun = time.monotonic() - seconds
        self.resumed = seconds
        self.previous = (step, seconds)
        # Step and seconds after the first step since this start, which also allocates memory.
        self.warm: tuple[int, float] | None = None
        self.step_seconds = 0.0  # mean seconds of a step since then
        self.latest: dict[str, float] = {}
        self.board = None
        if main:
            self._drop_after(step)
            self.board = SummaryWriter(str(log.parent / "tensorboard" / stage), purge_step=step)

    def add_step(self, step: int, losses: Mapping[str, Mapping[str, Tensor]]) -> float:
        """Log a step if its turn has come; returns the seconds of training so far."""
        seconds = time.monotonic() - self.begun
        if self.warm is None:
            self.warm = (step, seconds)
        else:
            self.step_seconds = (seconds - self.warm[1]) / (step - self.warm[0])
        if self.main and (step % self.options.log_every == 0 or step == self.options.length):
            steps = step - self.previous[0]
            passed = seconds - self.previous[1]
            rate = self.options.rate(step - 1)
            common = {
                "lr": rate,
                "items_per_s": steps * self.options.batch / max(passed, 1e-9),
            }
            for turn, parts in losses.items():
                values = {name: float(value) for name, value in parts.items()}
                self._write(step, turn=turn, loss=values, **common, seconds=seconds)
                self._plot(
                    {
                        **{f"{turn}/{name}": value for name, value in values.items()},
                        **common,
                    },
                    step,
                )
                self.latest = {
                    **self.latest,
                    "loss": values["total"],
                    "items_per_s": common["items_per_s"],
                }
            self.previous = (step, seconds)
        if self.main:
            self.on_step(self.stage, step, self.options.length, self.latest)
        return seconds

    def add_validation(self, step: int, scores: Mapping[str, float]) -> float:
        """Log a validation; returns the seconds of training so far."""
        seconds = time.monotonic() - self.begun
        self._write(step, validation=dict(scores), seconds=seconds)
        self._plot({f"validation/{name}": value for name, value in scores.items()}, step)
        self.latest = {**self.latest, **scores}
        self.previous = (step, seconds)
        return seconds

    def add_verdicts(self, step: int, verdicts: Sequence[Verdict]) -> None:
        """Log the comparison with naive baselines on the items of the last validation."""
        self._write(step, verdict={verdict.modality: verdict.document() for verdict in verdicts})

    def add_time(self, step: int, parts: Mapping[str, float]) -> float:
        """Log the seconds of each part of the steps since the training began or resumed; returns their total time."""
        seconds = time.monotonic() - self.begun - self.resumed
        self._write(step, time={**parts, "all": seconds})
        return seconds

    def add_end(self, step: int, sentence: str) -> None:
        """Log the reason why the training ended before its last step."""
        self._write(step, ended=sentence)
        self.on_step(self.stage, step, step, self.latest)

    def add_start(self, sentence: str) -> None:
        """Log a sentence on the start of the training, such as its weights or the size of patches; "" is not logged."""
        if self.main and sentence:
            self._write(0, started=sentence)

    def _write(self, step: int, **content: object) -> None:
        append_line(self.log, {"stage": self.stage, "step": step, **content})

    def _plot(self, values: Mapping[str, float], step: int) -> None:
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
            self.board.flush()

    def _drop_after(self, step: int) -> None:
        """Remove lines of steps that a killed run logged but did not save, because it repeats those steps."""
        if not self.log.exists():
            return
        lines = lines_of(self.log)
        kept = [
            text for text, line in lines if line["stage"] != self.stage or 0 < step >= line["step"]
        ]
        write_text(self.log, "".join(f"{text}\n" for text in kept))
