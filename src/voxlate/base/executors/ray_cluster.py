"""Workers that are actors of a Ray cluster.

Each worker is an actor that holds its CPUs and its GPU, and a call of it brings one case. Ray's scheduler therefore
places as many actors as there are workers, and calls go from this process to the actors directly, whatever their number.
"""

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
from voxlate.base.executors.ray_resources import CPUS_WITH_NETWORK, nodes_of, resources_for
from voxlate.base.executors.schedule import Answer, Numbered, schedule_cases
from voxlate.base.executors.worker import CaseWorker, say_crowded
from voxlate.base.messages import Say
from voxlate.base.optional import optional_package

CONNECTING_SECONDS = 10.0
LOCAL = "local"  # Ray's name for a new cluster of this machine


@dataclass(frozen=True)
class RayExecutor:
    """Works on cases in actors of a Ray cluster.

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
            gpu = job.uses_network and self.gpu
            each = resources_for(nodes_of(ray.nodes()), len(cases), self.workers, most, gpu)
            if job.uses_network and not each.gpus:
                say_crowded(self.threads, each.cpus, self.say)
            content = ray.put(ray.cloudpickle.dumps(job))
            settings = (content, self.threads, os.getcwd(), each.gpus > 0)
            actors = ray.remote(_RayWorker).options(
                num_cpus=each.cpus, num_gpus=each.gpus, max_restarts=0
            )

            def hire(number: int) -> _Actor:
                return _Actor(ray, actors.remote(number, *settings))

            died = ray.exceptions.RayError
            yield from schedule_cases(hire, each.workers, cases, context.warn, died)
        finally:
            ray.shutdown()


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


@dataclass(frozen=True)
class _Actor:
    """A worker that is an actor."""

    ray: Any
    actor: Any

    def advance(self, numbered: Numbered | None) -> Future[Answer]:
        """See Worker.advance."""
        call = self.actor.advance.remote(self.ray.cloudpickle.dumps(numbered))
        future: Future[Answer] = call.future()
        return future

    def close(self) -> None:
        """Kill the actor."""
        self.ray.kill(self.actor)


class _RayWorker:
    """The worker in the process of an actor."""

    def __init__(self, *settings: Any):
        self.worker = CaseWorker(*settings)

    def advance(self, numbered: bytes) -> Answer:
        """See Worker.advance."""
        return self.worker.advance(pickle.loads(numbered))
