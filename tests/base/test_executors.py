"""Executors: every case is worked on once, by processes or by Ray, whatever fails on the way."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess

import psutil
import pytest
from jobs import Numbers, Stages, Unopened

from refusals import refuses
from rows import every_row, slow
from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import (
    Context,
    Cost,
    InProcess,
    Outcome,
    WorkerDied,
    busy_line,
)
from voxlate.base.executors.choose import choose_executor
from voxlate.base.executors.local import LocalExecutor
from voxlate.base.executors.schedule import schedule_cases
from voxlate.base.option import ExecutorOptions

IMPORTS = "from jobs import Stages\nfrom voxlate.base.executors.local import LocalExecutor\n"


def in_case_order(outcomes):
    """All outcomes in the order of the cases, so that no result depends on which case finishes first."""
    return [outcome for _, outcome in sorted(outcomes, key=lambda one: one[0])]


@dataclass
class Imitated:
    """A worker without a process, which finishes the newest of its cases first.

    begun: numbers of the cases that it was given; held: those that it has not finished.
    """

    slots: int
    deadly: Sequence[int]
    begun: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    closed: bool = False

    def advance(self, numbered):
        answer = Future()
        if numbered is not None:
            number, case = numbered
            assert case == number + 100
            for numbers in (self.held, self.begun):
                numbers.append(number)
        if set(self.held) & set(self.deadly):
            answer.set_exception(BrokenExecutor())
        elif self.held and (numbered is None or len(self.held) == self.slots):
            answer.set_result([(self.held.pop(), Outcome("done"))])
        else:
            answer.set_result([])
        return answer

    def close(self):
        self.closed = True


@pytest.fixture
def hired():
    """The imitated workers that a test hired; all are closed at its end."""
    workers = list[Imitated]()
    yield workers
    assert all(worker.closed for worker in workers)


def finish(hired, count, size, slots, deadly=()):
    """The outcomes of cases by imitated workers."""

    def hire(_):
        hired.append(Imitated(slots, deadly))
        return hired[-1]

    return schedule_cases(hire, size, range(100, 100 + count))


def test_workers_have_a_bounded_number_of_cases_and_no_case_is_begun_early(hired):
    finished = []
    for number, outcome in finish(hired, 1000, size=3, slots=2):
        finished.append(number)
        assert outcome.result == "done"
        assert sum(len(worker.begun) for worker in hired) - len(finished) < 3 * 2
    assert sorted(finished) == list(range(1000))
    assert finished != sorted(finished)


def test_a_few_cases_are_shared_by_all_workers_and_closing_the_outcomes_ends_them(hired):
    running = finish(hired, 4, size=3, slots=3)
    next(running)
    assert sorted(len(worker.begun) for worker in hired) == [1, 1, 2]
    running.close()


def test_a_case_that_ends_two_workers_fails_and_its_neighbours_do_not(hired):
    outcomes = dict(finish(hired, 40, size=2, slots=3, deadly=(5, 17)))
    assert sorted(outcomes) == list(range(40))
    failed = {number: type(one.error) for number, one in outcomes.items() if one.error}
    assert failed == {5: WorkerDied, 17: WorkerDied}
    tries = Counter(number for worker in hired for number in worker.begun)
    assert tries[5] == tries[17] == max(tries.values()) == 2


def check_failures(executor, folder):
    """Executors must agree on these cases; two of the twelve fail, one ends every worker, one ends the first."""
    numbers, said = [*range(8), 77, 13, 14, 666], []
    outcomes = in_case_order(executor.run(Numbers(folder), numbers, Context(warn=said.append)))
    assert [one.result for one in outcomes[:9]] == [2 * number for number in numbers[:9]]
    errors = [type(one.error) for one in outcomes[9:]]
    assert errors == [BadInput, ZeroDivisionError, WorkerDied]
    assert sorted(said) == sorted(f"{number} is doubled" for number in numbers[:9])
    assert len(list(folder.glob("tried-666-*"))) == 2


def test_processes_list_failures_and_survive_killed_workers(tmp_path):
    check_failures(LocalExecutor(2), tmp_path)
    # those that ended need not be replaced
    assert 3 <= len(list(tmp_path.glob("opened-*"))) <= 5


@every_row("dies, words", [(False, "weights"), (True, "--executor")])
def test_a_job_that_cannot_be_opened_is_one_sentence(dies, words):
    with refuses(words):
        list(LocalExecutor(2).run(Unopened(dies), [1, 2]))


def test_a_script_without_a_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"{IMPORTS}print(len(list(LocalExecutor(2).run(Stages(0, 0), [0, 1]))), flush=True)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True)
    assert done.stdout.split() == [b"2"]


def test_a_worker_that_is_killed_as_it_starts_is_replaced(monkeypatch):
    begun, starts = BaseProcess.start, []

    def start(process):
        starts.append(process)
        if len(starts) == 1:
            raise BrokenPipeError
        begun(process)

    monkeypatch.setattr(BaseProcess, "start", start)
    outcomes = in_case_order(LocalExecutor(1).run(Stages(0, 0), [0, 1]))
    assert [outcome.result for outcome in outcomes] == [0, 1]
    assert len(starts) == 2


def test_reading_and_writing_overlap_with_the_network():
    outcomes = in_case_order(LocalExecutor(1).run(Stages(0.05, 0.1), range(12)))
    assert [outcome.result for outcome in outcomes] == [*range(12)]
    (share,) = re.findall(r"(\d+)%", busy_line([outcome.cost for outcome in outcomes]))
    assert 75 <= int(share) <= 100  # 50 one case after the other; a busy machine delays sleepers


def test_a_gpu_is_busy_while_any_of_its_workers_computes():
    def cost(worker, began, ended, *network):
        return Cost(worker, "node, GPU 0", True, began, ended, network)

    half = [cost(0, 0, 6, (1, 3)), cost(1, 0, 10, (2, 4), (7, 9))]
    assert re.findall(r"\d+", busy_line(half)) == ["50", "1", "2", "2"]  # %, GPU, workers, cases
    full = [*half, cost(0, 0, 10, (0.5, 9.5)), Cost(2, "node, GPU 1", True, 50, 60, ((50, 60),))]
    assert re.findall(r"\d+", busy_line(full)) == ["95", "2", "3", "4"]


def test_in_this_process_bad_input_is_an_outcome_and_another_error_is_raised(tmp_path):
    outcomes = in_case_order(InProcess().run(Numbers(tmp_path), [1, 13, 2]))
    assert [outcome.result for outcome in outcomes] == [2, None, 4]
    with pytest.raises(ZeroDivisionError):
        list(InProcess().run(Numbers(tmp_path), [14]))


def test_the_options_state_the_executor_and_its_threads():
    assert isinstance(choose_executor(ExecutorOptions()), InProcess)
    said = []
    chosen = choose_executor(ExecutorOptions(workers=3), "cpu", said.append)
    assert isinstance(chosen, LocalExecutor)
    assert (chosen.workers, chosen.threads, said) == (3, 1, [])  # the tests have one thread
    with refuses("--address"):
        choose_executor(ExecutorOptions(executor="local", address="auto"))


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
    for number, _ in LocalExecutor(2).run(Stages(0, 0.2), range(10**6)):
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
def test_ray_lists_failures_and_survives_killed_workers(ray_address, tmp_path):
    check_failures(choose_executor(ExecutorOptions(executor="ray", address=ray_address)), tmp_path)


@slow
@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto"])
def test_a_ray_cluster_that_is_not_there_is_one_sentence(address, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")  # it has ended
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    executor = choose_executor(ExecutorOptions(executor="ray", address=address))
    with refuses(f"a Ray cluster at {address}, found none"):
        list(executor.run(Unopened(dies=False), [1]))
