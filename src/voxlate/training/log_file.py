"""RUN/log.jsonl: its lines, as a training writes them without gaps or repeats after a restart, and as reports read them."""

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired

from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from voxlate.base.files import write_text
from voxlate.base.optional import optional_package
from voxlate.base.records import Count, NotNegative, Number, Record, Text
from voxlate.training.verdict import Verdict

if TYPE_CHECKING:
    from voxlate.training.clock import Clock
    from voxlate.training.job import Job, Session
    from voxlate.training.learner import Learner

LARGEST_LOSS = 1e38  # limit of float32; infinite losses may be logged, too

Readings = dict[Text, float]


@dataclass(frozen=True)
class Curve:
    """One quantity over training steps."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


class Line(TypedDict):
    """A line: a step's losses, a validation, seconds, planned and measured cost, or a sentence."""

    stage: Text
    step: Count
    turn: NotRequired[Text]
    loss: NotRequired[Readings]
    lr: NotRequired[NotNegative]
    items_per_s: NotRequired[NotNegative]
    seconds: NotRequired[Number]
    validation: NotRequired[Readings]
    time: NotRequired[dict[Text, Number]]
    planned: NotRequired[dict[Text, Number | None]]
    took: NotRequired[dict[Text, Number | None]]
    verdict: NotRequired[dict[Text, Verdict]]
    sharpness: NotRequired[dict[Text, Number]]
    keep_start: NotRequired[dict[Text, Number]]
    started: NotRequired[Text]
    ended: NotRequired[Text]


def append_line(log: Path, line: Mapping[str, object]) -> None:
    """Add a line to log.jsonl."""
    with log.open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(line) + "\n")


def lines_of(log: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The text and content of each line, without lines that a killed run cut short; none without a log.

    Raises BadInput if a complete line is not from a training.
    """
    texts = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    for number, text in enumerate(texts, start=1):
        record = Record(f"{log}, line {number}", "a line of a training's log", "Remove it.", True)
        try:
            json.loads(text)
        except (ValueError, RecursionError):  # a crash may cut a line short
            continue
        line: dict[str, Any] = record.parse(Line, text)
        for name, value in {**line.get("loss", {}), **line.get("validation", {})}.items():
            sound = not math.isfinite(value) or abs(value) <= LARGEST_LOSS
            record.check(sound, f"{value:g} for {name:.80}")
        yield text, line


def curves_of(log: Path) -> dict[tuple[str, str], list[Curve]]:
    """The curves in a log.jsonl by stage and group ("loss", "validation", "lr", "items_per_s"), without cut lines."""
    points_of = defaultdict[tuple[str, str], dict[str, dict[float, float]]](dict)
    for _, line in lines_of(log):
        turn = line.get("turn")
        for group in ("loss", "validation", "lr", "items_per_s"):
            values = line.get(group, {})
            named = points_of[line.get("stage", ""), group]
            for name, value in (values if isinstance(values, dict) else {group: values}).items():
                label = f"{turn}: {name}" if group == "loss" and turn not in (None, "net") else name
                if math.isfinite(value):
                    # A resumed run writes some steps twice, and the later line counts.
                    named.setdefault(label, {})[line["step"]] = value
    return {
        key: [Curve(name, *zip(*sorted(own.items()))) for name, own in named.items()]
        for key, named in points_of.items()
        if named
    }


def read_verdicts(log: Path) -> dict[str, list[Verdict]]:
    """The last verdicts of each stage of a training by its log; {} without a log."""
    lines = [line for _, line in lines_of(log) if "verdict" in line]
    return {line["stage"]: [*line["verdict"].values()] for line in lines}


class Log:
    """Writes losses, validations and sentences; removes lines after the step from which it starts.

    It sets the seconds of the learner, and measures those of a step. Only the main process writes.
    """

    def __init__(self, job: "Job", session: "Session", learner: "Learner", clock: "Clock") -> None:
        self.log = session.run.log
        self.stage = job.stage.name
        self.options = job.stage.train
        self.learner = learner
        self.clock = clock
        self.main = job.accelerator.is_main_process
        self.on_step = session.progress
        self.begun = time.monotonic() - learner.seconds
        self.previous = (learner.step, learner.seconds)
        # Step and seconds after the first step since this start, which also allocates memory.
        self.warm: tuple[int, float] | None = None
        self.step_seconds = 0.0  # mean seconds of a step since then; 0 before the first
        self.latest: dict[str, float] = {}
        self.trackers: list[Any] = []
        if self.main:
            self._drop_later_lines()
            from accelerate.tracking import LOGGER_TYPE_TO_CLASS  # reports do without

            # They get numbers alone.
            board, folder = LOGGER_TYPE_TO_CLASS["tensorboard"], session.run.folder
            places = {"logging_dir": folder / "tensorboard", "purge_step": learner.step}
            self.trackers.append(board(self.stage, **places))
            if (name := session.track) is not None:
                optional_package(name, "track", "--track", f"the package {name}")
                self.trackers.append(LOGGER_TYPE_TO_CLASS[name](folder.name))
            for tracker in self.trackers:
                tracker.start()

    @property
    def seconds(self) -> float:
        """The seconds of training so far."""
        return time.monotonic() - self.begun

    def add_step(self, losses: Mapping[str, Mapping[str, Any]], writes: bool) -> None:
        """Count the seconds of a step, and report it; writes: also log its losses."""
        step = self.learner.step
        seconds = self.learner.seconds = self.seconds
        if self.warm is None:
            self.warm = (step, seconds)
        else:
            self.step_seconds = (seconds - self.warm[1]) / (step - self.warm[0])
        if not self.main:
            return
        if writes:
            before, passed = self.previous
            rate = (step - before) * self.options.batch / max(seconds - passed, 1e-9)
            common = {"lr": self.options.rate(self.clock.place(step - 1)), "items_per_s": rate}
            for turn, parts in losses.items():
                values = {name: float(value) for name, value in parts.items()}
                self.add(turn=turn, loss=values, **common, seconds=seconds)
                self._plot({f"{turn}/{name}": value for name, value in values.items()} | common)
                self.latest = {**self.latest, "loss": values["total"], "items_per_s": rate}
            self.previous = (step, seconds)
        self.on_step(self.stage, step, self.clock.length(step), self.latest)

    def add_validation(self, scores: Mapping[str, float]) -> None:
        """Log a validation."""
        seconds = self.learner.seconds = self.seconds
        self.add(validation=dict(scores), seconds=seconds)
        self._plot({f"validation/{name}": value for name, value in scores.items()})
        self.latest = {**self.latest, **scores}
        self.previous = (self.learner.step, seconds)

    def add_end(self, sentence: str) -> None:
        """Log the reason why the training ended before its last step."""
        self.add(ended=sentence)
        self.on_step(self.stage, self.learner.step, self.learner.step, self.latest)

    def add(self, **content: object) -> None:
        """Write a line; see Line."""
        append_line(self.log, {"stage": self.stage, "step": self.learner.step, **content})

    def _plot(self, values: Mapping[str, float]) -> None:
        named = {f"{self.stage}/{name}": value for name, value in values.items()}
        for tracker in self.trackers:
            tracker.log(named, self.learner.step)

    def close(self) -> None:
        """End the trackers' runs: each stage has one of its own, because its steps begin at 0."""
        for tracker in self.trackers:
            tracker.finish()

    def _drop_later_lines(self) -> None:
        """Remove lines of steps that a killed run logged but did not save, because it repeats those steps."""
        if not self.log.exists():
            return
        step = self.learner.step
        kept = [
            f"{text}\n"
            for text, line in lines_of(self.log)
            if line["stage"] != self.stage or 0 < step >= line["step"]
        ]
        write_text(self.log, "".join(kept))
