"""The same cases in other processes: nothing is lost, and the results are the same."""

import os
import signal
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from voxlate.errors import BadInput
from voxlate.executors import (
    AHEAD,
    LocalProcesses,
    RayCluster,
    _drain,
    executor_of,
)


def square(offset: int, item: int) -> int:
    if item == 3:
        raise BadInput("expected any number but 3, found 3. Choose another.")
    return item * item + offset


def kill_once(folder: Path, item: int) -> int:
    """The worker of item 2 is killed the first time."""
    mark = folder / "killed"
    if item == 2 and not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def kill_always(_: None, item: int) -> int:
    if item == 2:
        time.sleep(0.5)  # the other items end before
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def values(ended):
    return {one.item: one.result for one in ended if one.error is None}


def test_work_in_processes_gives_each_item_its_result_and_lists_the_failing_one():
    ended = list(LocalProcesses(2).each(square, 100, range(6)))
    assert values(ended) == {0: 100, 1: 101, 2: 104, 4: 116, 5: 125}
    (failed,) = [one for one in ended if one.error is not None]
    assert failed.item == 3
    assert "found 3" in str(failed.error)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_worker_loses_nothing(tmp_path):
    ended = list(LocalProcesses(2).each(kill_once, tmp_path, range(6)))
    assert sorted(one.item for one in ended) == [*range(6)]
    assert values(ended) == {item: item for item in range(6)}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_an_item_that_kills_its_worker_each_time_fails_in_one_sentence():
    ended = list(LocalProcesses(1).each(kill_always, None, [0, 1, 2]))
    assert values(ended) == {0: 0, 1: 1}
    (failed,) = [one for one in ended if one.error is not None]
    assert failed.item == 2
    assert "found it killed in 2 tries" in str(failed.error)


def test_no_more_items_are_under_way_than_workers_need():
    class Pool:
        pending = 0
        most = 0

        def submit(self, run, work, item):
            self.pending += 1
            self.most = max(self.most, self.pending)
            future = Future()
            future.set_result(item)
            return future

    pool = Pool()
    count = 0
    for _ in _drain(pool, square, [(item, 1) for item in range(1000)], 2 * AHEAD):
        pool.pending -= 1
        count += 1
    assert count == 1000
    assert pool.most == 2 * AHEAD


def test_options_name_an_executor():
    assert executor_of(None) is None
    assert executor_of("local", 3) == LocalProcesses(3)
    assert executor_of("ray", 5, "node:6379") == RayCluster("node:6379", 5)
    with pytest.raises(BadInput, match="--workers: expected --executor"):
        executor_of(None, 2)
    with pytest.raises(BadInput, match="--address: expected --executor ray"):
        executor_of("local", 2, "node:6379")


def images_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.name.endswith(".nii.gz")
    }


@pytest.fixture
def trained(voxlate, cohort, tiny, prepared, tmp_path):
    run = tmp_path / "run"
    assert voxlate("train", tiny, "--data", prepared, "--out", run).code == 0
    return run


def test_synthesis_in_processes_gives_the_same_bits_and_lists_the_case_that_fails(
    voxlate, cohort, trained, tmp_path
):
    (cohort / "case4" / "t1.nii.gz").write_bytes(b"damaged")
    here, there = tmp_path / "here", tmp_path / "there"
    plain = voxlate("synth", trained, cohort, "--out", here)
    apart = voxlate("synth", trained, cohort, "--out", there, "--executor", "local")
    assert plain.code == apart.code == 2
    assert images_of(here) == images_of(there)
    assert len(images_of(there)) == 5
    assert (here / "provenance.json").read_text() == (there / "provenance.json").read_text()
    assert apart.err.count("case4") == plain.err.count("case4")
    again = voxlate("synth", trained, cohort, "--out", there, "--executor", "local")
    assert "5 of 6 cases were made before and are kept" in again.err


@pytest.mark.slow
def test_synthesis_by_ray_gives_the_same_bits(voxlate, cohort, trained, tmp_path):
    ray = pytest.importorskip("ray")
    here, there = tmp_path / "here", tmp_path / "there"
    voxlate("synth", trained, cohort, "--out", here)
    try:
        answer = voxlate("synth", trained, cohort, "--out", there, "--executor", "ray")
        assert answer.code == 0
        assert images_of(here) == images_of(there)
    finally:
        ray.shutdown()
