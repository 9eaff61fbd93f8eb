"""Several processes of one training: their devices, the tasks of the main process, and signals that stop them."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from voxlate.base.devices import find_device
from voxlate.base.errors import BadInput

T = TypeVar("T")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def processes(device: str) -> tuple[Accelerator, torch.device]:
    """The processes that train together, and the device of this process.

    A single process trains on the device of this name; each of several has the GPU of its launcher, or a CPU. Raises
    BadInput if there is no such device, and for several processes on MPS.
    """
    chosen = find_device(device)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and chosen.type == "mps":
        raise BadInput(
            "--device: expected GPUs or a CPU that several processes can share a training on, found mps. Start one process, or give --device cpu."
        )
    # accelerate does not choose the device of a single process, because it would take any, and later refuse another one.
    accelerator = Accelerator(cpu=chosen.type == "cpu" or not several)
    return accelerator, accelerator.device if accelerator.num_processes > 1 else chosen


def by_main(accelerator: Accelerator, do: Callable[[], T]) -> T:
    """The result of a function that the main process alone calls; all processes get it, or raise its BadInput."""
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = do()
        except BadInput as error:
            outcome[1] = error
    if accelerator.num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


@contextlib.contextmanager
def stop_signal() -> Iterator[list[int]]:
    """A list that is empty until SIGINT or SIGTERM arrives; outside the main thread it stays empty."""
    received: list[int] = []
    before = {}
    with contextlib.suppress(ValueError):  # only the main thread may listen
        for name in STOP_SIGNALS:
            before[name] = signal.signal(name, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
