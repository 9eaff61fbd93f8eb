"""Workers that are actors of a Ray cluster.

Each worker is an actor that holds its CPUs and its GPU, and a call of it brings one case. Ray's scheduler therefore
places as many actors as there are workers, and calls go from this process to the actors directly, whatever their number.
"""

import os
import pickle
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.executors.job import QUIET, Case, Context, Job, Outcome, Outcomes, no_report
from voxlate.base.executors.ray_resources import CPUS_WITH_NETWORK, nodes_of, resources_for
from voxlate.base.executors.schedule import Died, Event, event_of, schedule_cases
from voxlate.base.executors.worker import CaseWorker, say_crowded, sendable, slots_of
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

    address: str | None = None
    workers: int | None = None
    threads: int = 1
    gpu: bool = True
    say: Say = no_report

    def run(self, job: Job, cases: Sequence[Case], context: Context = QUIET) -> Outcomes:
        """See Executor.run; progress within a case is not reported."""
        ray = _connect(self.address)
        try:
            fleet = _Actors(ray, job, len(cases), self)
            yield from schedule_cases(fleet, cases, len(cases), context.warn)
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
    own = {"include_dashboard": False} if chosen == LOCAL else {}
    try:
        ray.init(address=chosen, log_to_driver=False, logging_level="ERROR", **own)
    except Exception as error:  # Ray raises plain ones, too
        raise _unreachable(chosen, error) from error
    return ray


def _check_reachable(address: str) -> None:
    """Raise BadInput where no process listens at HOST:PORT, for which Ray would wait many minutes."""
    parts = re.fullmatch(r"(?:ray://)?([^:]+):(\d{1,5})", _resolve_address(address))
    if parts is None:
        return
    try:
        socket.create_connection((parts[1], int(parts[2])), CONNECTING_SECONDS).close()
    except OSError as error:
        raise _unreachable(address, error) from error


def _resolve_address(address: str) -> str:
    """The address that Ray takes for auto: that of the latest cluster which was started on this machine."""
    latest = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    if address != "auto" or not latest.is_file():
        return address
    return latest.read_text(encoding="utf-8").strip()


def _unreachable(address: str, error: Exception) -> BadInput:
    found = " ".join(str(error).split()) or type(error).__name__
    return BadInput(
        f"--address: expected a Ray cluster at {address}, found none ({found}). Check ray status, or start one by ray start --head."
    )


class _Actors:
    """The actors of one job."""

    def __init__(self, ray: Any, job: Job, cases: int, options: RayExecutor):
        self.ray = ray
        self.slots = slots_of(job)
        gpu = job.uses_network and options.gpu
        most = max(CPUS_WITH_NETWORK, options.threads) if job.uses_network else 1
        nodes = nodes_of(ray.nodes())
        self.each = resources_for(nodes, cases, options.workers, most, gpu)
        self.size = self.each.workers
        if job.uses_network and not self.each.gpus:
            say_crowded(options.threads, self.each.cpus, options.say)
        content = ray.put(ray.cloudpickle.dumps(job))
        self.arguments = (content, options.threads, os.getcwd(), self.each.gpus > 0)
        self.actors = dict[int, Any]()
        self.calls = dict[Any, tuple[int, int | None]]()  # worker and ticket; None: opening

    def start(self, worker: int) -> None:
        """Start an actor, and open the job in it."""
        options = self.ray.remote(_RayWorker).options(
            num_cpus=self.each.cpus,
            num_gpus=self.each.gpus,
            max_concurrency=self.slots,
            max_restarts=0,
        )
        self.actors[worker] = options.remote(worker, *self.arguments)
        self.calls[self.actors[worker].open.remote()] = (worker, None)

    def send(self, worker: int, ticket: int, case: Any) -> None:
        """Call the actor with a case."""
        call = self.actors[worker].outcome.remote(self.ray.cloudpickle.dumps(case))
        self.calls[call] = (worker, ticket)

    def wait(self) -> list[Event]:
        """The event of the first call that ends."""
        (call, *_), _ = self.ray.wait(list(self.calls), num_returns=1)
        worker, ticket = self.calls.pop(call)
        try:
            content = self.ray.get(call)
        except self.ray.exceptions.RayError:
            # all calls of an actor that has ended fail
            self.ray.kill(self.actors.pop(worker))
            self.calls = {call: other for call, other in self.calls.items() if other[0] != worker}
            return [Died(worker)]
        return [event_of(worker, ticket, content)]

    def close(self) -> None:
        """Kill all actors."""
        for actor in self.actors.values():
            self.ray.kill(actor)


class _RayWorker:
    """A worker as an actor; it opens its job in the first call, so that the error of that is a result."""

    def __init__(self, *settings: Any):
        self.settings = settings
        self.worker: CaseWorker | None = None

    def open(self) -> Exception | None:
        """Open the job; returns the error of that."""
        try:
            self.worker = CaseWorker(*self.settings)
        except Exception as error:
            return sendable(error)
        return None

    def outcome(self, case: bytes) -> Outcome:
        """Work on a case; Ray calls this in as many threads as the worker has slots."""
        assert self.worker is not None
        return self.worker.outcome(pickle.loads(case))
