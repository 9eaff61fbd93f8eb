"""What the tests of executors share: workers that find the jobs of the tests, and a Ray cluster."""

import multiprocessing
import multiprocessing.forkserver
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

LOADED = [
    "__main__",
    "torch",
    "voxlate.checks.cohort_examination",
    "voxlate.evaluation.scoring.evaluate",
    "voxlate.evaluation.calibrate",
]


@pytest.fixture(scope="session", autouse=True)
def _found_by_workers() -> Iterator[None]:
    """Workers import the jobs of the tests by name; what takes long is imported once, by the process that they fork from."""
    with pytest.MonkeyPatch.context() as patch:
        before = os.environ.get("PYTHONPATH", "")
        here = str(Path(__file__).parent)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [here, before])))
        multiprocessing.set_forkserver_preload(LOADED)
        multiprocessing.forkserver.ensure_running()
        yield


@pytest.fixture(scope="session")
def ray_address(_found_by_workers) -> Iterator[str]:
    """The address of a Ray cluster of this machine with two CPUs."""
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'voxlate[ray]')")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        yield cluster.address
        cluster.shutdown()
