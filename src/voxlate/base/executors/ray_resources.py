"""The CPUs and GPUs of a Ray worker, so that every worker fits on a node of the cluster."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CPUS_WITH_NETWORK = 4  # of a worker: its network or GPU, reading, and writing


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    cpus: int
    gpus: int = 0


@dataclass(frozen=True)
class Resources:
    """The number of workers, and what Ray reserves for each."""

    workers: int
    cpus: int
    gpus: float = 0


def nodes_of(stated: Iterable[Mapping[str, Any]]) -> list[Node]:
    """The nodes that are alive, from what `ray.nodes()` states."""
    resources = [node["Resources"] for node in stated if node["Alive"]]
    return [Node(int(own.get("CPU", 0)), int(own.get("GPU", 0))) for own in resources]


def resources_for(
    nodes: Sequence[Node], cases: int, wanted: int | None, cpus: int, gpu: bool
) -> Resources:
    """The workers of a job: as many as wanted, or else as fit, and no more than cases.

    cpus: most that a worker can use. gpu: whether workers share the GPUs, if there are any. Workers that are wanted
    and do not fit wait until the cluster has a node for them.
    """
    with_gpu = [node for node in nodes if node.gpus] if gpu else []
    if with_gpu:
        return _on_gpus(with_gpu, cases, wanted, cpus)
    largest = max((node.cpus for node in nodes), default=1)
    most = max(1, min(cpus, largest))
    workers = max(1, min(cases, wanted or _room(nodes, most)))
    fitting = [count for count in range(1, most + 1) if _room(nodes, count) >= workers]
    return Resources(workers, max(fitting, default=1))


def _on_gpus(nodes: Sequence[Node], cases: int, wanted: int | None, cpus: int) -> Resources:
    """Workers that share the GPUs evenly, each with the CPUs that are there for it on every node with GPUs."""
    gpus = sum(node.gpus for node in nodes)
    workers = max(1, min(cases, wanted or gpus))
    on_each = -(-workers // gpus)
    room = min(node.cpus // (node.gpus * on_each) for node in nodes)
    return Resources(workers, max(1, min(cpus, room)), 1 / on_each)


def _room(nodes: Sequence[Node], cpus: int) -> int:
    """The number of workers with so many CPUs that fit on the nodes."""
    return sum(node.cpus // cpus for node in nodes)
