"""Workers that are processes of this machine."""

import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from voxlate.base.executors.case_work import QUIET, Case, Context, Job, Outcomes
from voxlate.base.executors.pool import Answer, Opened, work_through
from voxlate.base.machine import begin_worker, interrupts_held


@dataclass(frozen=True)
class LocalExecutor:
    """Works on cases in processes of this machine.

    workers: their number; threads: of torch in each; gpus: of this machine, which the workers share evenly.
    """

    workers: int
    threads: int = 1
    gpus: int = 0

    def run(self, job: Job, cases: Sequence[Case], context: Context = QUIET) -> Outcomes:
        """See Executor.run; progress within a case is not reported."""
        # Processes start without the threads and GPU contexts of this one, which networks leave.
        processes = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
        if not job.uses_network:  # with a network, torch would start in the process that is forked
            processes.set_forkserver_preload(["__main__", type(job).__module__])
        settings = (pickle.dumps(job), self.threads, os.getcwd())
        starts = nullcontext if b"__main__" in settings[0] else _without_script

        def make(size: int) -> _Processes:
            """A pool whose processes take turns with the GPUs."""
            gpus = processes.SimpleQueue()
            for number in range(size):
                gpus.put(number % self.gpus if self.gpus else None)
            return _Processes(
                ProcessPoolExecutor(size, processes, _begin, (gpus, *settings)), starts
            )

        yield from work_through(make, self.workers, cases, context.warn)


@contextmanager
def _without_script() -> Iterator[None]:
    """Where processes start that do not run the user's script again, which may call voxlate outside of any guard."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@dataclass(frozen=True)
class _Processes:
    """A pool of processes. starts: the context in which they start; a job of the user's script needs that script there."""

    pool: ProcessPoolExecutor
    starts: Callable[[], AbstractContextManager[None]]
    died: type[Exception] = BrokenExecutor

    def submit(self, case: Any) -> Future[Answer]:
        """See Pool.submit."""
        try:
            # a process starts here, and knows no handler yet
            with interrupts_held(), self.starts():
                return self.pool.submit(_answer, case)
        except (OSError, BrokenExecutor):  # a process was killed as it started, or as it waited
            broken = Future[Answer]()
            broken.set_exception(BrokenProcessPool())
            return broken

    def close(self) -> None:
        """Kill the processes, which `shutdown` alone would let finish their cases."""
        for process in list((self.pool._processes or {}).values()):
            process.kill()
        self.pool.shutdown(cancel_futures=True)


_opened: Opened  # of this process


def _begin(gpus: Any, *settings: Any) -> None:
    """Begin the process of a worker."""
    global _opened
    begin_worker()
    gpu = gpus.get()
    if gpu is not None:
        # the name of the GPU among those that the environment lets this process use
        allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        os.environ["CUDA_VISIBLE_DEVICES"] = allowed[gpu] if gpu < len(allowed) else str(gpu)
    _opened = Opened(*settings)


def _answer(case: Any) -> Answer:
    return _opened.answer(case)
