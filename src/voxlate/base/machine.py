"""Differences between operating systems: cores, memory, folders, Ctrl-C and worker processes.

Only this file calls functions that some systems lack, and each call has a fallback.
"""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

# of NVIDIA, AMD, Intel, and of Windows below Linux
GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dri", "/dev/dxg")
STOPPED = 130  # exit code of a process that Ctrl-C ended


def cores() -> int:
    """Number of cores that this process may use; all cores if the system does not state it (macOS, Windows); one in a browser."""
    if sys.platform == "emscripten":
        return 1
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def load_average() -> float:
    """Average number of processes that ran or waited for a core in the last minute; 0 if unknown (Windows)."""
    averages = getattr(os, "getloadavg", None)
    return float(averages()[0]) if averages else 0.0


def cache_folder() -> Path:
    """The cache folder: VOXLATE_CACHE, or else voxlate in the folder of the user's caches."""
    if own := os.environ.get("VOXLATE_CACHE"):
        return Path(own)
    stated = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The standard demands that relative paths are ignored.
    return (stated if stated.is_absolute() else Path("~/.cache").expanduser()) / "voxlate"


def may_have_gpu() -> bool:
    """Whether torch has to be asked for a GPU: not on Linux without a device of one."""
    return sys.platform != "linux" or any(Path(device).exists() for device in GPUS)


def free_memory() -> float:
    """Bytes of memory that processes may still take without swapping."""
    import psutil  # the import is here and below, because a command's --help does not need it

    return float(psutil.virtual_memory().available)


def free_disk(folder: Path) -> float:
    """Bytes that may still be written in a folder, which need not exist yet."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return float(shutil.disk_usage(there).free)


def forget_peak_memory() -> None:
    """Start a new measurement of `peak_memory` (Linux)."""
    with suppress(OSError):  # by proc(5), 5 resets the peak of the process
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> float:
    """Peak memory of this process in bytes since `forget_peak_memory`; elsewhere since its start, or now."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024.0 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    import psutil

    memory = psutil.Process().memory_info()
    return float(getattr(memory, "peak_wset", memory.rss))  # Windows alone states a peak


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Defer Ctrl-C to the end of the block, where the system can (not on Windows).

    Processes that the block starts inherit this, so that Ctrl-C cannot end them before they handle it.
    """
    mask = getattr(signal, "pthread_sigmask", None)
    before = mask(signal.SIG_BLOCK, {signal.SIGINT}) if mask else None
    try:
        yield
    finally:
        if mask:
            mask(signal.SIG_SETMASK, before)


def begin_worker() -> None:
    """Start a worker process: it ends with its parent, and at Ctrl-C immediately and without a message."""
    from multiprocessing import parent_process

    if parent := parent_process():
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, lambda *_: os._exit(STOPPED))
    if mask := getattr(signal, "pthread_sigmask", None):
        mask(signal.SIG_UNBLOCK, {signal.SIGINT})


def begin_reader(_: int) -> None:
    """Start a process that reads batches; it ignores Ctrl-C, because its parent needs it until the end of the step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_after(parent: "BaseProcess") -> None:
    """End this process after another one has ended, even if it was killed."""
    parent.join()
    os._exit(STOPPED)
