"""Workers, which are processes of this machine or actors of a Ray cluster, and the executor that a command asks for.

Each worker has one case at a time. One that ends is replaced, and its case fails.
"""

import multiprocessing
import os
import pickle
import re
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from voxlate.base.errors import BadInput, Stopped
from voxlate.base.executors.case_work import (
    QUIET,
    Case,
    Context,
    Executor,
    InProcess,
    Job,
    Outcome,
    Outcomes,
    Work,
    WorkerDied,
)
from voxlate.base.machine import begin_worker, cores, interrupts_held
from voxlate.base.messages import Message, Say
from voxlate.base.option import ExecutorOptions
from voxlate.base.optional import optional_package

ENDED = "expected a worker that finishes this case, found that it ended (most often its memory is exhausted). Run the same command again with fewer --workers or more memory."
CONNECTING_SECONDS = 10.0
LOCAL = "local"  # Ray's name for a new cluster of this machine
Answer = Outcome | Exception
"""The outcome of a case, or the error that opening the job raised."""


def choose_executor(options: ExecutorOptions, device: str | None = None) -> Executor:
    """The executor that the options state, by default this process.

    device: of the command's networks, None where the workers need none. Workers have as many threads as this process,
    because a CPU's rounding depends on their number.
    """
    if options.executor is None and options.workers is None:
        return InProcess()
    threads, gpus, several = 1, 0, device in ("auto", "cuda")
    if device is not None:
        import torch  # heavy

        threads = torch.get_num_threads()
        gpus = torch.cuda.device_count() if several and torch.cuda.is_available() else 0
    if options.executor == "ray":
        return RayExecutor(options.workers, threads, several)
    if device is None:
        return LocalExecutor(options.workers or cores())
    return LocalExecutor(options.workers or max(1, gpus), threads, gpus)


@dataclass(frozen=True)
class Worker:
    """A process that opens the job once, and works on one case after the other.

    submit: begins a case; close: ends the process at once; ended: the error of a case whose process ended.
    """

    submit: Callable[[Any], Future[Answer]]
    close: Callable[[], None]
    ended: type[Exception] = BrokenExecutor


def work_through(
    make: Callable[[int], Worker], count: int, cases: Sequence[Any], warn: Say
) -> Outcomes:
    """The number and outcome of each case in the order in which they finish, by at most `count` workers.

    make: a worker by its place, 0 to count - 1. No case is taken from `cases` before a worker is free for it. All workers
    end with the iterator.
    """
    waiting = deque(range(len(cases)))
    workers = dict[int, Worker]()  # by place
    free = {*range(min(count, len(cases)))}
    running = dict[Future[Answer], tuple[int, int]]()  # place and case
    try:
        while waiting or running:
            while waiting and free:
                place, number = free.pop(), waiting.popleft()
                if place not in workers:
                    workers[place] = make(place)
                running[workers[place].submit(cases[number])] = place, number
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                place, number = running.pop(future)
                free.add(place)
                try:
                    answer = future.result()
                except workers[place].ended:
                    workers.pop(place).close()
                    answer = Outcome(error=WorkerDied(ENDED))
                if isinstance(answer, Exception):
                    raise answer
                for said in answer.messages:
                    warn(said)
                yield number, answer
    finally:
        for worker in workers.values():
            worker.close()


class Opened:
    """A job in the process of a worker.

    job: pickled; threads: of torch; folder: from which relative paths of cases start.
    """

    def __init__(self, job: bytes, threads: int, folder: str):
        self.settings = (job, threads, folder)
        self.work: Work | None = None

    def answer(self, case: Any) -> Answer:
        """The outcome of a case; an error of any kind is the error of this case alone."""
        if self.work is None:
            try:
                self.work = _open(*self.settings)
            except Exception as error:
                return _sendable(error)
        said = list[Message]()
        try:
            return Outcome(self.work(case, Context(warn=said.append)), messages=tuple(said))
        except Exception as error:
            return Outcome(error=_sendable(error), messages=tuple(said))


def _open(job: bytes, threads: int, folder: str) -> Work:
    """The work of a job; raises OSError where the folder of the command does not exist."""
    os.chdir(folder)
    # Threads that wait leave the core to other workers; it is read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command_job: Job = pickle.loads(job)
    if command_job.uses_network:
        import torch  # heavy, and other jobs do not need it

        torch.set_num_threads(threads)
    return command_job.open()


def _sendable(error: Exception) -> Exception:
    """The error, or one with its type and text where it may be of a type that cannot be sent between processes."""
    is_plain = isinstance(error, BadInput | OSError | Stopped)
    return error if is_plain else RuntimeError(f"{type(error).__name__}: {error}")


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

        needs_script = b"__main__" in settings[0]

        def make(place: int) -> Worker:
            """A worker, which has a GPU if there is one."""
            gpu = place % self.gpus if self.gpus else None
            return _process(
                ProcessPoolExecutor(1, processes, _begin, (gpu, *settings)), needs_script
            )

        yield from work_through(make, self.workers, cases, context.warn)


def _process(pool: ProcessPoolExecutor, needs_script: bool) -> Worker:
    """A worker that is the process of a pool. needs_script: whether the job is one of the user's script."""

    def submit(case: Any) -> Future[Answer]:
        """Begin a case."""
        # the process starts here, and knows no handler yet
        with interrupts_held(), nullcontext() if needs_script else _without_script():
            try:
                return pool.submit(_answer, case)
            except BrokenExecutor as error:  # it was killed as it waited
                broken = Future[Answer]()
                broken.set_exception(error)
                return broken

    def close() -> None:
        """Kill the process, which `shutdown` alone would let finish its case."""
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(cancel_futures=True)

    return Worker(submit, close)


@contextmanager
def _without_script() -> Iterator[None]:
    """Where processes start that do not run the user's script again, which may call voxlate outside of any guard."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


_opened: Opened  # of this process


def _begin(gpu: int | None, *settings: Any) -> None:
    """Begin the process of a worker."""
    global _opened
    begin_worker()
    if gpu is not None:
        # the name of the GPU among those that the environment lets this process use
        allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        os.environ["CUDA_VISIBLE_DEVICES"] = allowed[gpu] if gpu < len(allowed) else str(gpu)
    _opened = Opened(*settings)


def _answer(case: Any) -> Answer:
    return _opened.answer(case)


@dataclass(frozen=True)
class RayExecutor:
    """Works on cases on a Ray cluster, which finds a machine for each worker.

    workers: None for as many as the cluster has room for; threads: of torch in each; gpu: whether a network may use a GPU.
    """

    workers: int | None
    threads: int
    gpu: bool

    def run(self, job: Job, cases: Sequence[Case], context: Context = QUIET) -> Outcomes:
        """See Executor.run; progress within a case is not reported."""
        ray = _connect()
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            workers, gpus = room(nodes, self.workers, job.uses_network, self.gpu)
            settings = (ray.put(ray.cloudpickle.dumps(job)), self.threads, os.getcwd())
            actors = ray.remote(Opened).options(
                num_cpus=1, num_gpus=gpus, max_restarts=0, scheduling_strategy="SPREAD"
            )

            def make(_: int) -> Worker:
                """A worker that is an actor."""
                actor = actors.remote(*settings)

                def submit(case: Any) -> Future[Answer]:
                    begun: Future[Answer] = actor.answer.remote(case).future()
                    return begun

                def close() -> None:
                    ray.kill(actor)

                return Worker(submit, close, ray.exceptions.RayError)

            yield from work_through(make, workers, cases, context.warn)
        finally:
            ray.shutdown()


def room(
    nodes: Sequence[dict[str, float]], wanted: int | None, uses_network: bool, gpu: bool
) -> tuple[int, int]:
    """The number of workers and the GPUs of each: one for each GPU, else each machine where a network computes, else each core."""
    cores, gpus = (sum(int(node.get(kind, 0)) for node in nodes) for kind in ("CPU", "GPU"))
    if uses_network and gpu and gpus:
        return min(wanted or gpus, gpus), 1
    usual = len(nodes) if uses_network else cores
    return max(1, min(wanted or usual, cores)), 0


def _connect() -> Any:
    """The module ray, connected to the cluster of RAY_ADDRESS or to a new one; raises BadInput if Ray or the cluster is absent."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no statistics leave the machine
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # no GPU for workers without
    ray = optional_package("ray", "ray", "--executor ray", "the package ray")
    # Without an address Ray would look for a cluster of an earlier session, which may have ended.
    chosen = os.environ.get("RAY_ADDRESS") or LOCAL
    arguments = {"include_dashboard": False} if chosen == LOCAL else {}
    try:
        _reach(chosen)
        ray.init(address=chosen, log_to_driver=False, logging_level="ERROR", **arguments)
    except Exception as error:  # Ray raises plain ones, too
        found = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(
            f"RAY_ADDRESS: expected a Ray cluster at {chosen}, found none ({found}). Check ray status, or start one by ray start --head."
        ) from error
    return ray


def _reach(address: str) -> None:
    """Raise OSError where no process listens at HOST:PORT, for which Ray would wait many minutes."""
    if parts := re.fullmatch(r"(?:ray://)?([^:]+):(\d{1,5})", address):
        socket.create_connection((parts[1], int(parts[2])), CONNECTING_SECONDS).close()
