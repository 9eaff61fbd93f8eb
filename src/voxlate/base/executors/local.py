"""Workers that are processes of this machine."""

import contextlib
import multiprocessing
import os
import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from voxlate.base.executors.job import QUIET, Case, Context, Job, Outcomes
from voxlate.base.executors.schedule import Died, Event, event_of, schedule_cases
from voxlate.base.executors.worker import CaseWorker, sendable, slots_of
from voxlate.base.machine import begin_worker, interrupts_held

ENDING_SECONDS = 5.0  # that ended processes may take to be gone


@dataclass(frozen=True)
class LocalExecutor:
    """Works on cases in processes of this machine.

    workers: their number; threads: of torch in each; gpus: of this machine, which the workers share evenly; method: how
    processes start (as multiprocessing names it), None for a method that is safe after networks were used here.
    """

    workers: int
    threads: int = 1
    gpus: int = 0
    method: str | None = None

    def run(self, job: Job, cases: Sequence[Case], context: Context = QUIET) -> Outcomes:
        """See Executor.run; progress within a case is not reported."""
        fleet = _Processes(job, min(self.workers, len(cases)), self)
        yield from schedule_cases(fleet, cases, len(cases), context.warn)


@dataclass(frozen=True)
class _Process:
    process: BaseProcess
    connection: "Connection[Any, Any]"


class _Processes:
    """The processes of one job, each with a connection that carries cases and outcomes."""

    def __init__(self, job: Job, size: int, options: LocalExecutor):
        self.size = size
        self.slots = slots_of(job)
        self.job = pickle.dumps(job)
        self.options = options
        self.context = multiprocessing.get_context(options.method or _clean_method())
        self.running = dict[int, _Process]()

    def start(self, worker: int) -> None:
        """Start a process with a connection of its own."""
        here, there = self.context.Pipe()
        gpu = worker % self.options.gpus if self.options.gpus else None
        arguments = (there, worker, self.job, self.slots, self.options.threads, os.getcwd(), gpu)
        process = self.context.Process(target=_serve, args=arguments, daemon=True)  # type: ignore[attr-defined]
        # A process that was killed as it started has not read its arguments: its connection has ended, as `wait` states.
        with interrupts_held(), contextlib.suppress(BrokenPipeError, ConnectionError, EOFError):
            process.start()  # (interrupts are held, because it knows no handler yet)
        there.close()  # or else the end of the process would not end the connection
        self.running[worker] = _Process(process, here)

    def send(self, worker: int, ticket: int, case: Any) -> None:
        """Give a case to a process."""
        with contextlib.suppress(OSError):  # of a process that has ended, which `wait` states
            self.running[worker].connection.send((ticket, case))

    def wait(self) -> list[Event]:
        """The events of the connections that have news."""
        workers = {own.connection: number for number, own in self.running.items()}
        return [_event(workers[ready], ready) for ready in wait(list(workers))]  # type: ignore[index,arg-type]

    def close(self) -> None:
        """Kill all processes, and wait until they are gone."""
        started = [own.process for own in self.running.values() if own.process.pid is not None]
        for process in started:
            process.kill()
        for process in started:
            process.join(ENDING_SECONDS)
        for own in self.running.values():
            own.connection.close()


def _clean_method() -> str:
    """The method by which processes start without the threads and GPU contexts of this one, which networks leave."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def _event(worker: int, connection: "Connection[Any, Any]") -> Event:
    try:
        ticket, content = connection.recv()
    except (EOFError, OSError):
        return Died(worker)
    return event_of(worker, ticket, content)


def _serve(
    connection: "Connection[Any, Any]",
    number: int,
    job: bytes,
    slots: int,
    threads: int,
    folder: str,
    gpu: int | None,
) -> None:
    """Work on the cases that a connection brings, until it ends; the first message states that the job is open."""
    begin_worker()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = _visible(gpu)
    sending = threading.Lock()

    def send(ticket: int | None, content: Any) -> None:
        """Answer a case, or without a ticket the opening of the job."""
        with sending:
            connection.send((ticket, content))

    try:
        worker = CaseWorker(number, job, threads, folder, gpu is not None)
    except Exception as error:
        send(None, sendable(error))
        return
    send(None, None)

    with ThreadPoolExecutor(slots) as pool, contextlib.suppress(EOFError):
        while True:
            ticket, case = connection.recv()
            pool.submit(lambda of, own: send(of, worker.outcome(own)), ticket, case)


def _visible(gpu: int) -> str:
    """The name of a GPU for CUDA: its number among those that the environment lets this process use."""
    allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return allowed[gpu] if gpu < len(allowed) else str(gpu)
