"""The time of a training by parts: waiting for data, forward pass, backward pass with the optimiser."""

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch

from voxlate.system.devices import wait_for

PARTS = {
    "data": "waiting for data",
    "forward": "forward",
    "backward": "backward and optimiser",
}


class Clock:
    """Seconds of each part of a training's steps, lap by lap.

    With CUDA and XPU, events are put in the GPU's queue and read after it has passed them, so no step waits for them, and
    "data" is the idle time of the GPU. With MPS, every lap waits for the GPU, because its events may come in the wrong
    order or never (PyTorch's pull request 196395).
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.has_queue = device.type in ("cuda", "xpu")
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.laps: deque[tuple[str, Any, Any]] = deque()
        self.last = self._mark()

    def start(self) -> None:
        """Begin a lap; the time before it belongs to no part."""
        self.last = self._mark()

    def lap(self, part: str) -> None:
        """End a lap of a part, and begin the next one."""
        begin, self.last = self.last, self._mark()
        if not self.has_queue:
            self.seconds[part] += self.last - begin
            return
        self.laps.append((part, begin, self.last))
        while self.laps and self.laps[0][2].query():
            passed, first, end = self.laps.popleft()
            self.seconds[passed] += first.elapsed_time(end) / 1000

    def _mark(self) -> Any:
        """The time in seconds, or an event in the queue of a GPU."""
        if not self.has_queue:
            wait_for(self.device)
            return time.perf_counter()
        gpus = torch.get_device_module(self.device)
        event = gpus.Event(enable_timing=True)
        event.record(gpus.current_stream(self.device))
        return event


def time_note(stage: str, parts: Mapping[str, float], seconds: float) -> str:
    """A sentence on the share of each part in a training's seconds."""
    shares = ", ".join(f"{parts[key] / seconds:.0%} {name}" for key, name in PARTS.items())
    rest = max(0.0, 1 - sum(parts.values()) / seconds)
    return (
        f"stage '{stage}': of {seconds:.3g} s, {shares}, {rest:.0%} the rest (validation, files)."
    )
