"""Cases on several processes or machines: the same work, wherever it runs, in the order in which it ends.

An executor takes a function and items, keeps a bounded number of them under way, and gives each item with its result or
the error that it raised. A worker that is killed loses nothing: its items begin anew once, and then count as failed.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Generic, Protocol, TypeVar

from voxlate.errors import BadInput
from voxlate.machine import begin_worker, cores, interrupts_held

C = TypeVar("C")
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

AHEAD = 2  # items under way for each worker: the next is there when one ends, and a million cases need no memory
TRIES = 2  # of an item whose worker was killed


@dataclass(frozen=True)
class Ended(Generic[I, R]):
    """An item whose work has ended, and its result; error: the sentence where it failed."""

    item: I
    result: R | None = None
    error: BadInput | None = None


class Executor(Protocol):
    """Where work runs. `work` and its results must be picklable; common: what all items share, sent once."""

    def each(
        self, work: Callable[[C, I], R], common: C, items: Sequence[I]
    ) -> Iterator[Ended[I, R]]: ...


@dataclass(frozen=True)
class LocalProcesses:
    """Processes of this machine, which share its cores."""

    workers: int

    def each(
        self, work: Callable[[C, I], R], common: C, items: Sequence[I]
    ) -> Iterator[Ended[I, R]]:
        """Do the work; processes begin anew where one was killed. Any error but BadInput ends all."""
        waiting = [(item, 1) for item in reversed(items)]
        while waiting:
            with self._pool(common) as pool:
                try:
                    yield from _drain(pool, work, waiting, self.workers * AHEAD)
                except BrokenProcessPool:
                    continue  # the items that were under way wait again
                finally:
                    pool.shutdown(wait=True, cancel_futures=True)

    def _pool(self, common: Any) -> ProcessPoolExecutor:
        threads = max(1, cores() // self.workers)
        with interrupts_held():  # a worker that starts knows no handler yet
            return ProcessPoolExecutor(
                self.workers,
                mp_context=get_context("spawn"),
                initializer=_begin,
                initargs=(common, threads),
            )


def _drain(
    pool: ProcessPoolExecutor,
    work: Callable[[C, I], R],
    waiting: list[tuple[I, int]],
    most: int,
) -> Iterator[Ended[I, R]]:
    """Give what ends, until nothing waits; items whose worker was killed wait again, the last ones of all."""
    running: dict[Future[R], tuple[I, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < most:
                item, tries = waiting.pop()
                running[pool.submit(_with_common, work, item)] = (item, tries)
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                item, _ = running[future]
                try:
                    ended = Ended(item, future.result())
                except BadInput as error:
                    ended = Ended(item, error=error)
                del running[future]
                yield ended
    except BrokenProcessPool:
        # Which item killed its worker is not known: all that were under way have one try fewer.
        for item, tries in running.values():
            if tries < TRIES:
                waiting.insert(0, (item, tries + 1))
            else:
                yield Ended(item, error=_killed(TRIES))
        raise


def _killed(tries: int) -> BadInput:
    return BadInput(
        f"expected the process of this case to finish, found it killed in {tries} tries. Check the machine's free memory, and take fewer --workers."
    )


_common: Any = None  # of this worker process


def _begin(common: Any, threads: int) -> None:
    """Begin a worker: its share of the cores, and what all items share."""
    begin_worker()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    global _common
    _common = common


def _with_common(work: Callable[[Any, I], R], item: I) -> R:
    return work(_common, item)


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster; address: of a running one (None: that of RAY_ADDRESS, or one on this machine).

    workers: tasks at a time, None as many as the cluster has GPUs for, or CPUs where it has none.
    """

    address: str | None = None
    workers: int | None = None

    def each(
        self, work: Callable[[C, I], R], common: C, items: Sequence[I]
    ) -> Iterator[Ended[I, R]]:
        """Do the work as Ray tasks, each of which Ray begins anew once where its worker or node is lost."""
        ray = _ray(self.address)
        shared = [
            ray.put(common)
        ]  # in a list, so that a worker fetches it once and not with each task
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        task = ray.remote(_on_ray).options(
            num_cpus=1,
            num_gpus=1 if gpus else 0,
            max_retries=TRIES - 1,
            retry_exceptions=False,
        )
        most = AHEAD * (self.workers or gpus or max(1, int(resources.get("CPU", 1))))
        waiting = list(reversed(items))
        running: dict[Any, I] = {}
        while waiting or running:
            while waiting and len(running) < most:
                item = waiting.pop()
                running[task.remote(work, shared, item)] = item
            (done,), _ = ray.wait([*running], num_returns=1)
            item = running.pop(done)
            try:
                result, error = ray.get(done)
            except ray.exceptions.WorkerCrashedError:
                result, error = None, _killed(TRIES)
            yield Ended(item, result, error)


def _on_ray(
    work: Callable[[Any, Any], Any], shared: list[Any], item: Any
) -> tuple[Any, BadInput | None]:
    """Work on a Ray worker; BadInput is given back, because Ray would wrap it."""
    try:
        return work(_fetched(shared[0]), item), None
    except BadInput as error:
        return None, error


@functools.lru_cache(maxsize=1)
def _fetched(shared: Any) -> Any:
    """What all items share, which each worker process fetches once."""
    import ray

    return ray.get(shared)


@functools.cache
def _ray(address: str | None) -> Any:
    try:
        import ray
    except ImportError as error:
        raise BadInput(
            "--executor: expected the package ray, found none. Install it: pip install 'voxlate[ray]'."
        ) from error
    try:
        ray.init(
            address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BadInput(
            f"--executor: expected a Ray cluster at {address or 'RAY_ADDRESS or on this machine'}, found none ({str(error).splitlines()[0]}). Check the address and that ray start ran there."
        ) from error
    return ray


def executor_of(
    name: str | None, workers: int | None = None, address: str | None = None
) -> Executor | None:
    """The executor by its name, local or ray; None where cases run in this process. Raises BadInput for unfit options."""
    if name is None:
        for flag, value in (("--workers", workers), ("--address", address)):
            if value is not None:
                raise BadInput(
                    f"{flag}: expected --executor local or ray with it, found none. Add it, or drop {flag}."
                )
        return None
    if name == "ray":
        return RayCluster(address, workers)
    if address is not None:
        raise BadInput(
            f"--address: expected --executor ray with it, found --executor {name}. Choose ray, or drop --address."
        )
    return LocalProcesses(workers or cores())
