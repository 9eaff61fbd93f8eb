"""The predicted cost of a step on another machine, whose operations are counted on this one.

The prediction is crude, because kernels of small networks reach very different shares of a GPU's peak. As in every
planned training, the steps are therefore corrected while it trains.
"""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from voxlate.options.option import SIZES
from voxlate.system.errors import BadInput

# A number outside a word, and without sign, exponent or comma; the hyphen of 'A100-80GB' is no sign.
NUMBER = r"(?<![\w.])(?<!(?<!\w)[-+])(?<!\de[-+])(?<!\d,)(\d+\.?\d*|\.\d+)"
SIZE = re.compile(rf"{NUMBER}\s*([kmgt]?)i?b", re.IGNORECASE)
RATE = re.compile(rf"{NUMBER}\s*([tp])flop/?s?", re.IGNORECASE)
MEMORIES = (100 * 2**20, 2.0**50)  # bytes, the range of GPUs
PEAKS = (1e10, 1e18)  # operations per second, the range of GPUs
RATES = {"t": 1e12, "p": 1e15}

# Convolutions of these sizes are assumed to reach this share of the stated peak.
REACHED = 0.25
# Starting one operation from Python is assumed to take this time for any size.
KERNEL_SECONDS = 8e-6
CONTEXT_BYTES = 600 * 2**20  # assumed memory of a GPU's driver and libraries
# Factor of the counted memory, because convolutions need workspace and allocations have gaps.
WORKSPACE = 1.3


@dataclass(frozen=True)
class Elsewhere:
    """Another machine as the user describes it: memory in bytes, peak operations per second in bfloat16."""

    memory_bytes: float
    flops: float

    def __str__(self) -> str:
        return f"{self.memory_bytes / 2**30:g} GB and {self.flops / 1e12:g} TFLOPS"

    def seconds(self, cost: "Cost") -> float:
        """Predicted time of a step."""
        return cost.flops / (REACHED * self.flops) + cost.kernels * KERNEL_SECONDS

    def memory(self, cost: "Cost") -> float:
        """Predicted peak of memory in bytes; this is an upper estimate, because it is counted in float32."""
        return CONTEXT_BYTES + WORKSPACE * (cost.state_bytes + cost.saved_bytes)


@dataclass(frozen=True)
class Cost:
    """The cost of a training step.

    flops: floating-point operations; kernels: operations started; state_bytes: weights, gradients and moments;
    saved_bytes: tensors kept for the backward pass.
    """

    flops: float
    kernels: int
    state_bytes: float
    saved_bytes: float

    def of_batch(self, batch: int) -> "Cost":
        """The cost of a step with this number of items, if this object is the cost of one item."""
        return Cost(self.flops * batch, self.kernels, self.state_bytes, self.saved_bytes * batch)


def machine_of(text: str) -> Elsewhere:
    """The machine of a text such as "24GB, 80 TFLOPS"; raises BadInput if a number is absent or beyond any GPU."""
    size = SIZE.search(text)
    rate = RATE.search(text)
    if size is None or rate is None or not float(size[1]) or not float(rate[1]):
        raise BadInput(
            f"--plan-for: expected a GPU's memory and its peak in bfloat16, such as '24GB, 80 TFLOPS', found {text!r}. The GPU's datasheet states both."
        )
    memory_bytes = float(size[1]) * SIZES[size[2].lower()]
    flops = float(rate[1]) * RATES[rate[2].lower()]
    if not (MEMORIES[0] <= memory_bytes <= MEMORIES[1] and PEAKS[0] <= flops <= PEAKS[1]):
        raise BadInput(
            f"--plan-for: expected a GPU of 100 MB to 1 PB and 0.01 TFLOPS to 1000 PFLOPS, such as '24GB, 80 TFLOPS', found {text!r}. Check the units."
        )
    return Elsewhere(memory_bytes, flops)


@dataclass
class _Kernels(TorchDispatchMode):
    """Counts the operations that are started, except for those that only view a tensor."""

    started: int = field(default=0)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.started += not func.is_view
        return func(*args, **(kwargs or {}))


@contextmanager
def _count_saved() -> Iterator[Callable[[], int]]:
    """Count the bytes of the tensors that are kept for backward passes; each storage counts once."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        """Count a tensor as it is kept."""
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(kept.values())


def count(step: Callable[[], object], parameters: int, copies: int) -> Cost:
    """Run a step once and count its cost.

    parameters: number of the method's parameters; copies: how many copies of them a training holds in float32
    (weights, gradients, moments, average).
    """
    kernels = _Kernels()
    flops = FlopCounterMode(display=False)
    with _count_saved() as saved, kernels, flops:
        step()
    weights = 4.0 * parameters
    total = float(flops.get_total_flops())
    if not math.isfinite(total) or total <= 0:
        raise BadInput(
            f"--plan-for: expected operations that can be counted, found {total:g} in a step of this network. Plan on the machine that trains, without --plan-for."
        )
    return Cost(total, kernels.started, weights * copies, max(saved() - weights, 0.0))
