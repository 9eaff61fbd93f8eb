"""Where a training's time goes is measured, and said, without waiting for a GPU."""

import json
import time

import pytest
import torch

from voxlate import recipe
from voxlate.batches.batches import Batches
from voxlate.training import clock as module
from voxlate.training.clock import Clock, time_note
from voxlate.training.train import train


def test_laps_add_up_by_part_and_what_lies_between_steps_is_no_part(monkeypatch):
    moments = iter(
        [0, 10, 12, 15, 21, 100, 101, 103, 107]
    )  # made, then start and three laps, twice
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(moments))
    clock = Clock(torch.device("cpu"))
    for _ in range(2):
        clock.start()
        for part in ("data", "forward", "backward"):
            clock.lap(part)
    assert clock.seconds == pytest.approx({"data": 3, "forward": 5, "backward": 10})


class Event:
    """A mark in the queue of a GPU that has come to `done` so far."""

    now, done = 0.0, 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self, stream):
        self.at = Event.now = Event.now + 500

    def query(self):
        return self.at <= Event.done

    def elapsed_time(self, end):
        assert end.query(), "an event that is not over has no time"
        return end.at - self.at


def test_on_a_gpu_marks_are_read_once_they_are_over_and_nothing_waits(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)
    clock = Clock(torch.device("cuda"))
    clock.start()
    clock.lap("data")
    clock.lap("forward")
    assert clock.seconds == {"data": 0, "forward": 0, "backward": 0}
    Event.done = Event.now  # the GPU has caught up with the host
    clock.lap("backward")
    assert clock.seconds == {"data": 0.5, "forward": 0.5, "backward": 0}
    Event.done = Event.now
    clock.start()
    clock.lap("data")
    assert clock.seconds == {"data": 0.5, "forward": 0.5, "backward": 0.5}


def test_a_training_says_where_its_time_went_and_logs_it_once(
    prepared, tiny, tmp_path, monkeypatch
):
    read, said = Batches.__getitem__, []
    monkeypatch.setattr(
        Batches, "__getitem__", lambda self, step: time.sleep(0.05) or read(self, step)
    )
    run = train(
        recipe.read(str(tiny)),
        prepared,
        tmp_path / "run",
        device="cpu",
        say=lambda one: said.append(str(one)),
    )
    lines = [json.loads(text) for text in run.log.read_text().splitlines()]
    (parts,) = [line["time"] for line in lines if "time" in line]
    assert parts["data"] >= 6 * 0.05
    assert 0 < parts["forward"] < parts["all"]
    assert sum(parts[one] for one in ("data", "forward", "backward")) <= parts["all"]
    assert sum("waiting for data" in sentence for sentence in said) == 1


def test_shares_are_of_all_seconds():
    note = time_note("final", {"data": 1.0, "forward": 3.0, "backward": 4.0}, 10.0)
    words = "10% waiting for data, 30% forward, 40% backward and optimiser, 20% the rest (validation, files)."
    assert note == f"stage 'final': of 10 s, {words}"
