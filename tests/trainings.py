"""What tests of trainings share: recipes of texts, the weights and the log of a run, and a progress that stops it."""

import json
import os
import signal
import tomllib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from voxlate.training.recipe import Recipe, from_dict
from voxlate.training.run import Run


def recipe_of_text(text: str) -> Recipe:
    """The recipe that a text in TOML states."""
    return from_dict(tomllib.loads(text), "here")


def weights_of(run: Run | Path, stage: str = "final") -> dict[str, Tensor]:
    """The tensors of a stage of a run."""
    return load_file(Run(getattr(run, "folder", run)).weights(stage))


def same_tensors(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether both have the same names with the same bits."""
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def same_weights(first: Run | Path, second: Run | Path, stage: str = "final") -> bool:
    """Whether a stage of two runs has the same bits."""
    return same_tensors(weights_of(first, stage), weights_of(second, stage))


def log_lines(run: Run | Path, key: str) -> list[dict]:
    """The lines of a run's log that have a key."""
    text = Run(getattr(run, "folder", run)).log.read_text()
    return [line for line in map(json.loads, text.splitlines()) if key in line]


def stop_at(*calls: int):
    """A progress whose calls of these numbers end the training by a signal."""
    seen = []

    def progress(*_):
        seen.append(1)
        if len(seen) in calls:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress
