"""The device of networks: its name, its memory, its limitations, and waiting for it."""

import importlib.util
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from voxlate.base import machine
from voxlate.base.errors import BadInput

# torch.compile needs one of them to run on a CPU.
COMPILERS = ("c++", "g++", "clang++", "cl")
_own = torch.get_device_module  # of a device: torch.cuda or torch.xpu
# MPS; CPUs of Linux and of Windows
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def find_device(name: str) -> torch.device:
    """The device by its name: auto (a GPU if there is one), cpu, cuda, cuda:1, mps, xpu or xpu:1.

    Raises BadInput if there is no such device.
    """
    best = torch.device("cpu")
    there = ["cpu"]
    if torch.accelerator.is_available():
        best = torch.accelerator.current_accelerator() or best
        count = torch.accelerator.device_count()
        there += [best.type, *(f"{best.type}:{number}" for number in range(count))]
    if name not in ("auto", *there):
        raise BadInput(
            f"--device: expected auto or what this machine has ({', '.join(there)}), found {name!r}. Choose one of these."
        )
    return best if name == "auto" else torch.device(name)


@contextmanager
def single_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Several threads, in each of which torch computes alone."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool
    torch.set_num_threads(threads)  # for threads that begin later; this one kept its number


def name_of(device: torch.device) -> str:
    """The model of the GPU if torch knows it, or else the type of the device."""
    if device.type in ("cuda", "xpu"):
        return str(_own(device).get_device_name(device))
    return device.type


def wait_for(device: torch.device) -> None:
    """Wait until a device has finished its queue."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def free_memory(device: torch.device) -> float:
    """Bytes of memory that are free on a device now."""
    # MPS shares the machine's memory, and uses at most a recommended part of it
    if device.type == "mps":
        left = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return float(min(max(left, 0), machine.free_memory()))
    if device.type == "cpu":
        return machine.free_memory()
    return float(_own(device).mem_get_info(device)[0])


def forget_peak_memory(device: torch.device) -> None:
    """Start a new measurement of `peak_memory`, as far as the system allows it."""
    if device.type == "mps":
        torch.mps.empty_cache()
    elif device.type != "cpu":
        _own(device).reset_peak_memory_stats(device)
    machine.forget_peak_memory()


def peak_memory(device: torch.device) -> float:
    """Peak memory in bytes since `forget_peak_memory`: that of the GPU, or of the process."""
    # MPS measures no peak, but keeps allocated memory until its cache is emptied
    if device.type == "mps":
        return float(torch.mps.driver_allocated_memory())
    if device.type == "cpu":
        return machine.peak_memory()
    return float(_own(device).max_memory_reserved(device))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error is that the memory of device or machine is exhausted."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in OUT_OF_MEMORY)


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile works here: it needs Triton on a GPU (not on Windows), and a compiler on a CPU."""
    if device.type == "cpu":
        return any(shutil.which(name) for name in COMPILERS)
    return device.type != "mps" and importlib.util.find_spec("triton") is not None


def has_doubles(device: torch.device) -> bool:
    """Whether a device computes in float64, which MPS and some XPUs do not."""
    if device.type == "xpu":
        return bool(getattr(_own(device).get_device_properties(device), "has_fp64", False))
    return device.type != "mps"


def with_doubles(x: Tensor) -> Tensor:
    """The tensor on a device that computes in float64: its own, or the CPU."""
    return x if has_doubles(x.device) else x.cpu()


def move_like(values: Tensor, like: Tensor) -> Tensor:
    """Values with the type and device of a tensor."""
    return values.to(like.dtype).to(like.device, non_blocking=may_not_wait(like.device))


def may_not_wait(device: torch.device) -> bool:
    """Whether copies to a device may be asynchronous; MPS would read values after their memory was freed.

    Source: issues 139550 and 189690 of PyTorch.
    """
    return device.type == "cuda"
