"""One pool of workers for all executors: cases are handed out one by one, and a worker that ends costs its case a second try.

A pool that lost a worker is replaced. The cases that it had are tried once more, each in a pool of its own; if that ends
as well, the case is to blame and fails.
"""

import os
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import Context, Job, Outcome, Outcomes, Work, WorkerDied
from voxlate.base.messages import Message, Say, message

MOST_BROKEN = 3  # pools that end before any of their cases is finished
NO_START = "a script must call voxlate below `if __name__ == '__main__':`"
Answer = Outcome | Exception
"""The outcome of a case, or the error that opening the job raised."""


class Pool(Protocol):
    """Workers that open a job once, and work on a case each."""

    @property
    def died(self) -> type[Exception]:
        """The error of a case whose worker ended."""

    def submit(self, case: Any) -> Future[Answer]:
        """Begin a case."""

    def close(self) -> None:
        """End all workers at once."""


def work_through(
    make: Callable[[int], Pool], size: int, cases: Sequence[Any], warn: Say
) -> Outcomes:
    """The number and outcome of each case in the order in which they finish, by pools of at most `size` workers.

    No case is taken from `cases` before a worker is free for it. All workers end with the iterator.
    """
    waiting, lost, broken = deque(range(len(cases))), deque[int](), 0
    while waiting or lost:
        again = not waiting
        numbers = deque([lost.popleft()]) if again else waiting
        count = 1 if again else min(size, len(numbers))
        running = dict[Future[Answer], int]()
        with closing(make(count)) as pool:
            died = False
            while (numbers and not died) or running:
                while numbers and len(running) < count and not died:
                    number = numbers.popleft()
                    running[pool.submit(cases[number])] = number
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    number = running.pop(future)
                    try:
                        answer = future.result()
                    except pool.died:
                        died, broken = True, broken + (not died)
                        if broken == MOST_BROKEN:
                            raise BadInput(
                                f"--executor: expected workers that start, found {broken} times one that ended before any case was finished. Give each more memory by fewer --workers; {NO_START}."
                            ) from None
                        if not again:
                            lost.append(number)
                            continue
                        answer = Outcome(error=WorkerDied(TWICE))
                    else:
                        broken = 0
                    if isinstance(answer, Exception):
                        raise answer
                    for said in answer.messages:
                        warn(said)
                    yield number, answer


TWICE = "expected a worker that finishes this case, found that two workers ended while they worked on it (most often their memory is exhausted). Run the same command again with fewer --workers or more memory."


class Opened:
    """A job in the process of a worker, which works on one case after the other.

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
                return sendable(error)
        said = list[Message]()
        try:
            return Outcome(self.work(case, Context(warn=said.append)), messages=tuple(said))
        except Exception as error:
            return Outcome(error=sendable(error), messages=tuple(said))


def _open(job: bytes, threads: int, folder: str) -> Work:
    """The work of a job; raises BadInput where the folder of the command does not exist."""
    if not Path(folder).is_dir():
        raise BadInput(
            f"{folder}: expected this folder on every machine of the cluster, because paths are relative to it, found none on one of them. Start the command in a shared folder."
        )
    os.chdir(folder)
    # Threads that wait leave the core to other workers; it is read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command_job: Job = pickle.loads(job)
    if command_job.uses_network:
        import torch  # heavy, and other jobs do not need it

        torch.set_num_threads(threads)
    return command_job.open()


def sendable(error: Exception) -> Exception:
    """The error, if it can be sent between processes with its text, or else one with its type and text in a sentence."""
    try:
        same = pickle.loads(pickle.dumps(error))
        if type(same) is type(error) and str(same) == str(error):
            return error
    except Exception:  # pickle raises errors of any type
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")


def say_crowded(threads: int, cores: int, say: Say) -> None:
    """Say that a network on CPUs has more threads in a worker than the worker has cores.

    The workers have as many threads as this process, because a CPU's rounding depends on their number.
    """
    if threads > cores:
        text = f"Each worker computes with {threads} threads on {cores} of the machine's cores, because images then have the bits of one process. OMP_NUM_THREADS={cores} is faster and changes rounding."
        say(message("threads", text, threads=threads, cores=cores))
