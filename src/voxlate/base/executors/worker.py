"""A worker: opens a job once, and works on cases. Local processes and Ray actors run this same code."""

import os
import pickle
import platform
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import Context, Cost, Job, Outcome, Turn, Work
from voxlate.base.executors.schedule import Answer, Numbered
from voxlate.base.messages import Message, Say, message

SLOTS_WITH_NETWORK = 3  # cases at a time: one is read, one is in the network, one is written


def say_crowded(threads: int, cores: int, say: Say) -> None:
    """Say that a network on CPUs has more threads in a worker than the worker has cores.

    The workers have as many threads as this process, because a CPU's rounding depends on their number.
    """
    if threads > cores:
        text = f"Each worker computes with {threads} threads on {cores} of the machine's cores, because images then have the bits of one process. OMP_NUM_THREADS={cores} is faster and changes rounding."
        say(message("threads", text, threads=threads, cores=cores))


class CaseWorker:
    """Works on cases, several of which may run in threads at the same time.

    number: of the worker, in costs; job: pickled; threads: of torch; folder: from which relative paths of cases start;
    on_gpu: whether its network computes on the only GPU that it sees.
    """

    def __init__(self, number: int, job: bytes, threads: int, folder: str, on_gpu: bool):
        self.number = number
        self.on_gpu = on_gpu
        place = f"GPU {os.environ.get('CUDA_VISIBLE_DEVICES')}" if on_gpu else f"worker {number}"
        self.device = f"{platform.node()}, {place}"
        self.lock = threading.Lock()
        self.settings = (job, threads, folder)
        self.work: Work | None = None
        self.slots = 1
        self.running = dict[Future[Outcome], int]()

    def advance(self, numbered: Numbered | None) -> Answer:
        """See Worker.advance."""
        if self.work is None:
            try:
                self.work = self._open(*self.settings)
            except Exception as error:
                return sendable(error)
            self.threads = ThreadPoolExecutor(self.slots)
        if numbered is not None:
            number, case = numbered
            self.running[self.threads.submit(self.outcome, case)] = number
        if not self.running or (numbered is not None and len(self.running) < self.slots):
            return []
        done = wait(self.running, return_when=FIRST_COMPLETED).done
        return [(self.running.pop(future), future.result()) for future in done]

    def _open(self, job: bytes, threads: int, folder: str) -> Work:
        _enter(folder)
        # Threads that wait leave the core to other workers; it is read when torch is imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        command_job: Job = pickle.loads(job)
        if command_job.uses_network:
            import torch  # heavy, and other jobs do not need it

            torch.set_num_threads(threads)
            self.slots = SLOTS_WITH_NETWORK
        return command_job.open()

    def outcome(self, case: Any) -> Outcome:
        """The outcome of a case; an error of any kind is the error of this case alone."""
        said = list[Message]()
        turn = Turn(self.lock)
        began = time.monotonic()
        result, error = None, None
        assert self.work is not None  # it was opened before the first case
        try:
            result = self.work(case, Context(turn, warn=said.append))
        except Exception as raised:
            error = sendable(raised)
        ended = time.monotonic()
        cost = Cost(self.number, self.device, self.on_gpu, began, ended, tuple(turn.times))
        return Outcome(result, error, tuple(said), cost)


def _enter(folder: str) -> None:
    """Enter the folder of the command, from which relative paths start; raises BadInput where it does not exist."""
    if not Path(folder).is_dir():
        raise BadInput(
            f"{folder}: expected this folder on every machine of the cluster, because paths are relative to it, found none on one of them. Start the command in a shared folder."
        )
    os.chdir(folder)


def sendable(error: Exception) -> Exception:
    """The error, if it can be sent between processes with its text, or else one with its type and text in a sentence."""
    try:
        same = pickle.loads(pickle.dumps(error))
        if type(same) is type(error) and str(same) == str(error):
            return error
    except Exception:  # pickle raises errors of any type
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")
