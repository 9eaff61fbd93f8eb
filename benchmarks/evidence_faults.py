"""Faults that `make evidence` must notice, each put into the code of a row's process (evidence.py --fault NAME).

A run with one of them is a trial whose exit code has to be 1:

    python benchmarks/evidence.py --fault no-augmentation --rows 'brain-*'
    python benchmarks/evidence.py --fault permuted-starter --rows 'starter-*'
    python benchmarks/evidence.py --fault wide-intervals --rows 'intervals-*' 'starter-*'
"""

from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

import torch

from voxlate.synthesis.calibration import Calibration
from voxlate.training import weights
from voxlate.training.planning import planner, rules
from voxlate.training.starters import names

WIDER = 3.0


def leave_out_augmentation() -> None:
    """No plan augments, from random weights or from a starter."""
    choose, begin = rules.choose_augmentation, planner.begin_from

    def choose_none(draft: rules.Draft) -> None:
        choose(draft)
        draft.data["augment"] = {}

    def begin_with_none(starter: Any, draft: rules.Draft) -> None:
        begin(starter, draft)
        draft.data["augment"] = {}

    patch.object(rules, "choose_augmentation", choose_none).start()
    patch.object(planner, "begin_from", begin_with_none).start()


def permute_starters() -> None:
    """The weights of a starter are a random permutation of themselves, in each tensor."""
    fill = weights._fill

    def fill_permuted(method: Any, tensors: Mapping[str, torch.Tensor], path: Any) -> None:
        if names.FOLDER in path.parents:
            generator = torch.Generator().manual_seed(0)
            tensors = {
                name: one.flatten()[torch.randperm(one.numel(), generator=generator)].view_as(one)
                for name, one in tensors.items()
            }
        fill(method, tensors, path)

    patch.object(weights, "_fill", fill_permuted).start()


def widen_intervals() -> None:
    """Intervals are three times as wide."""
    interval = Calibration.interval

    def widened(self: Calibration, *given: Any) -> Any:
        low, high = interval(self, *given)
        middle, half = (low + high) / 2, WIDER * (high - low) / 2
        return middle - half, middle + half

    patch.object(Calibration, "interval", widened).start()


FAULTS: Mapping[str, Callable[[], None]] = {
    "no-augmentation": leave_out_augmentation,
    "permuted-starter": permute_starters,
    "wide-intervals": widen_intervals,
}
