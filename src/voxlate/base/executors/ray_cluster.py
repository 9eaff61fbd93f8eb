"""Workers on a Ray cluster: each case is a call, for which Ray finds a process with the CPUs and the GPU that it needs."""

import os
import pickle
import re
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import QUIET, Case, Context, Job, Outcomes
from voxlate.base.executors.pool import Answer, Opened, say_crowded, work_through
from voxlate.base.messages import Say
from voxlate.base.optional import optional_package

CONNECTING_SECONDS = 10.0
LOCAL = "local"  # Ray's name for a new cluster of this machine
CPUS_WITH_NETWORK = 4  # of a worker: its network or GPU, reading, and writing


@dataclass(frozen=True)
class RayExecutor:
    """Works on cases on a Ray cluster.

    address: of the cluster, None for RAY_ADDRESS or else a new cluster of this machine; workers: None for as many as the
    cluster has room for; threads: of torch in each; gpu: whether a network may use a GPU; say: is called where a network
    computes on fewer CPUs than `threads`.
    """

    address: str | None
    workers: int | None
    threads: int
    gpu: bool
    say: Say

    def run(self, job: Job, cases: Sequence[Case], context: Context = QUIET) -> Outcomes:
        """See Executor.run; progress within a case is not reported."""
        ray = _connect(self.address)
        try:
            most = max(CPUS_WITH_NETWORK, self.threads) if job.uses_network else 1
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            workers, cpus, gpus = room(nodes, self.workers, most, job.uses_network and self.gpu)
            if job.uses_network and not gpus:
                say_crowded(self.threads, cpus, self.say)
            settings = (ray.put(ray.cloudpickle.dumps(job)), self.threads, os.getcwd())
            actors = ray.remote(_Worker).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0)

            def make(size: int) -> _Actors:
                """A pool of actors."""
                return _Actors(ray, [actors.remote(*settings) for _ in range(size)])

            yield from work_through(make, workers, cases, context.warn)
        finally:
            ray.shutdown()


def room(
    nodes: Sequence[dict[str, float]], wanted: int | None, most: int, gpu: bool
) -> tuple[int, int, float]:
    """The number of workers, as many as wanted or else as fit, and the CPUs and the share of a GPU of each.

    nodes: the resources of the cluster's machines; most: CPUs that a worker can use. A worker fits on the smallest
    machine that it may be on; workers that are wanted and do not fit wait until the cluster has room for them.
    """
    cpus_of = [int(node.get("CPU", 0)) for node in nodes]
    gpus_of = [int(node.get("GPU", 0)) for node in nodes]
    if gpu and any(gpus_of):
        workers = wanted or sum(gpus_of)
        each = -(-workers // sum(gpus_of))
        least = min(cpus // (gpus * each) for cpus, gpus in zip(cpus_of, gpus_of) if gpus)
        return workers, max(1, min(most, least)), 1 / each
    cpus = max(1, min(most, max(cpus_of, default=1)))
    while cpus > 1 and wanted and sum(own // cpus for own in cpus_of) < wanted:
        cpus -= 1
    return wanted or max(1, sum(own // cpus for own in cpus_of)), cpus, 0.0


def _connect(address: str | None) -> Any:
    """The module ray, which is connected to a cluster; raises BadInput if Ray or the cluster is absent."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no statistics leave the machine
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # no GPU for workers without
    ray = optional_package("ray", "ray", "--executor ray", "the package ray")
    # Without an address Ray would look for a cluster of an earlier session, which may have ended.
    chosen = address or os.environ.get("RAY_ADDRESS") or LOCAL
    _check_reachable(chosen)
    arguments = {"include_dashboard": False} if chosen == LOCAL else {}
    try:
        ray.init(address=chosen, log_to_driver=False, logging_level="ERROR", **arguments)
    except Exception as error:  # Ray raises plain ones, too
        raise _unreachable(chosen, error) from error
    return ray


def _check_reachable(address: str) -> None:
    """Raise BadInput where no process listens at HOST:PORT, for which Ray would wait many minutes."""
    # Ray takes for auto the latest cluster which was started on this machine
    latest = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    is_latest = address == "auto" and latest.is_file()
    place = latest.read_text(encoding="utf-8").strip() if is_latest else address
    parts = re.fullmatch(r"(?:ray://)?([^:]+):(\d{1,5})", place)
    if parts is None:
        return
    try:
        socket.create_connection((parts[1], int(parts[2])), CONNECTING_SECONDS).close()
    except OSError as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> BadInput:
    found = " ".join(str(error).split()) or type(error).__name__
    return BadInput(
        f"--address: expected a Ray cluster at {address}, found none ({found}). Check ray status, or start one by ray start --head."
    )


class _Actors:
    """A pool of actors, of which each has one case at a time."""

    def __init__(self, ray: Any, actors: Sequence[Any]):
        self.ray, self.actors = ray, actors
        self.died = ray.exceptions.RayError
        self.busy = dict[int, Future[Answer]]()  # by the number of the actor

    def submit(self, case: Any) -> Future[Answer]:
        """See Pool.submit."""
        numbers = range(len(self.actors))
        free = next(one for one in numbers if one not in self.busy or self.busy[one].done())
        call = self.actors[free].answer.remote(self.ray.cloudpickle.dumps(case))
        self.busy[free] = call.future()
        return self.busy[free]

    def close(self) -> None:
        """Kill the actors."""
        for actor in self.actors:
            self.ray.kill(actor)


class _Worker:
    """The worker in the process of an actor."""

    def __init__(self, *settings: Any):
        self.opened = Opened(*settings)

    def answer(self, case: bytes) -> Answer:
        """See Opened.answer."""
        return self.opened.answer(pickle.loads(case))
