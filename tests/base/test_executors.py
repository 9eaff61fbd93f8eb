"""Executors: every case is worked on once, by processes or by Ray, whatever fails on the way."""

import os
import subprocess
import sys
import time

import psutil
import pytest
from jobs import Numbers, Unopened

from refusals import refuses
from rows import every_row, slow
from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import Context, InProcess, WorkerDied
from voxlate.base.executors.workers import (
    LocalExecutor,
    choose_executor,
    room,
)
from voxlate.base.option import ExecutorOptions

IMPORTS = "from jobs import Stages\nfrom voxlate.base.executors.workers import LocalExecutor\n"


def in_case_order(outcomes):
    """All outcomes in the order of the cases, so that no result depends on which case finishes first."""
    return [outcome for _, outcome in sorted(outcomes, key=lambda one: one[0])]


def check_failures(executor):
    """Executors must agree on these cases; two of the twelve fail, one ends its worker."""
    numbers, said = [*range(7), 666, 13, 14, 7, 8], []
    outcomes = in_case_order(executor.run(Numbers(), numbers, Context(warn=said.append)))
    errors = [type(one.error) for one in outcomes if one.error is not None]
    assert errors == [WorkerDied, BadInput, RuntimeError]
    assert [one.result for one in outcomes if one.error is None] == [*range(0, 18, 2)]
    assert sorted(said) == [f"{number} is doubled" for number in range(9)]


def test_processes_list_failures_and_survive_killed_workers():
    check_failures(LocalExecutor(2))


def test_a_job_that_cannot_be_opened_is_one_sentence_or_the_end_of_every_case():
    with refuses("weights"):
        list(LocalExecutor(2).run(Unopened(dies=False), [1, 2]))
    ended = list(LocalExecutor(2).run(Unopened(dies=True), [1, 2]))
    assert [type(outcome.error) for _, outcome in ended] == [WorkerDied] * 2


def test_a_script_without_a_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"{IMPORTS}print(len(list(LocalExecutor(2).run(Stages(0), [0, 1]))), flush=True)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True)
    assert done.stdout.split() == [b"2"]


def test_in_this_process_bad_input_is_an_outcome_and_another_error_is_raised():
    outcomes = in_case_order(InProcess().run(Numbers(), [1, 13, 2]))
    assert [outcome.result for outcome in outcomes] == [2, None, 4]
    with pytest.raises(ZeroDivisionError):
        list(InProcess().run(Numbers(), [14]))


def test_the_options_state_the_executor_and_its_threads():
    assert isinstance(choose_executor(ExecutorOptions()), InProcess)
    chosen = choose_executor(ExecutorOptions(workers=3), "cpu")
    assert isinstance(chosen, LocalExecutor)
    assert (chosen.workers, chosen.threads) == (3, 1)  # the tests have one thread


WITH_GPUS = [{"CPU": 64.0}, {"CPU": 8.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 4.0, "memory": 1e9}]


@every_row(
    "nodes, wanted, network, gpu, expected",
    [
        ([{"CPU": 16.0}], 8, True, False, (8, 0)),
        ([{"CPU": 16.0}], None, False, False, (16, 0)),
        ([], None, True, True, (1, 0)),
        (WITH_GPUS, None, True, True, (8, 1)),
        (WITH_GPUS, 99, True, True, (8, 1)),
        (WITH_GPUS, None, True, False, (3, 0)),
    ],
)
def test_ray_has_a_worker_for_each_gpu_or_machine_or_core(nodes, wanted, network, gpu, expected):
    assert room(nodes, wanted, network, gpu) == expected


def test_without_ray_a_sentence_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with refuses(r"pip install 'voxlate\[ray\]'"):
        list(choose_executor(ExecutorOptions(executor="ray")).run(Unopened(dies=False), [1]))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_the_workers_within_seconds():
    # Tests that run in the background of a shell hand down that interrupts are ignored.
    script = f"""{IMPORTS}
import signal
if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, _ in LocalExecutor(2).run(Stages(0.2), range(10**6)):
        print(number, flush=True)
"""
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.readline()
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(2)
    began = time.monotonic()
    process.wait(20)
    assert time.monotonic() - began < 10
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


@slow
def test_ray_lists_failures_and_survives_killed_workers(ray_address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    check_failures(choose_executor(ExecutorOptions(executor="ray")))


@slow
def test_a_ray_cluster_that_is_not_there_is_one_sentence(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    executor = choose_executor(ExecutorOptions(executor="ray"))
    with refuses("a Ray cluster at 127.0.0.1:1, found none"):
        list(executor.run(Unopened(dies=False), [1]))
