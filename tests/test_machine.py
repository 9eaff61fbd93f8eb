"""What differs from one system to another: locks, names, memory and workers where POSIX's own calls are absent."""

import errno
import multiprocessing
import os
import subprocess
import sys
from unittest.mock import Mock

import psutil
import pytest

from refusals import refuses
from rows import every_row
from scans import touch
from voxlate.base import files, machine
from voxlate.base.errors import CannotWrite
from voxlate.base.files import (
    LOCK,
    WRITING,
    lock,
    relative_to,
    safe_name,
    whole_folder,
    write_json,
    write_text,
)


def test_the_cores_that_a_process_may_use_count_and_all_where_no_affinity_is_known(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3}, raising=False)
    assert machine.cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    for count, cores in ((12, 12), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert machine.cores() == cores
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert machine.load_average() == 0, "without a load average nothing is taken to run"


def test_the_peak_holds_what_this_process_holds():
    held = bytearray(100 * 2**20)
    assert machine.peak_memory() > len(held)


def test_a_lock_leaves_no_file_and_one_that_a_dead_process_left_blocks_nobody(tmp_path):
    dead = subprocess.Popen([sys.executable, "-S", "-c", ""])
    dead.wait()
    (tmp_path / LOCK).write_text(f"{dead.pid}\n{os.uname().nodename}\n")
    with lock(tmp_path):
        assert (tmp_path / LOCK).exists()
    assert list(tmp_path.iterdir()) == []


def started(script):
    """A process of a script, and the first line that it printed."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", script], **pipes)
    assert process.stdout is not None
    return process, process.stdout.readline()


def end(process):
    process.kill()
    process.wait()


def test_a_lock_goes_with_its_process_even_if_that_is_killed(tmp_path):
    line = f"from voxlate.base.files import lock; held = lock({str(tmp_path)!r}); held.__enter__(); print(1, flush=True)"
    holder, said = started(f"{line}; input()")
    assert said == "1\n"
    with refuses("found one that does"), lock(tmp_path):
        pass
    end(holder)
    with lock(tmp_path), refuses("found one that does"), lock(tmp_path):
        pass


def test_a_lock_removes_what_killed_processes_left(tmp_path):
    touch(tmp_path, f"case/{WRITING}1-series/0001.dcm", f"{WRITING}2-t1.nii.gz", "case/t2.nii.gz")
    with lock(tmp_path):
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [LOCK, "t2.nii.gz"]
    assert list(tmp_path.iterdir()) == [tmp_path / "case"]


@every_row(
    "code, found",
    [(errno.ENOSPC, "No space"), (errno.EROFS, "Read-only")],
)
def test_a_folder_appears_whole_or_not_at_all(tmp_path, monkeypatch, code, found):
    def fill():
        with whole_folder(tmp_path / "series") as new:
            (new / "0001.dcm").touch()
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "free_disk", lambda _: 0)  # of either disk
    with refuses(f"found '{found}"):
        fill()
    assert list(tmp_path.iterdir()) == []
    with whole_folder(tmp_path / "to" / "series") as new:
        (new / "0001.dcm").write_text("a")
        assert [path.name[: len(WRITING)] for path in (tmp_path / "to").iterdir()] == [WRITING]
    assert [path.name for path in (tmp_path / "to").rglob("*")] == ["series", "0001.dcm"]


def test_what_fails_in_a_locked_folder_is_not_taken_for_a_lock(tmp_path):
    with pytest.raises(BlockingIOError), lock(tmp_path):
        raise BlockingIOError


@every_row("name", ["case1.", ".a", "a b", ""])
def test_a_name_that_a_system_forbids_is_refused_and_others_are_kept(name):
    with refuses("here: expected a name"):
        safe_name(name, "here")
    for other in ("con1", "a.nul", "com", "lpt10", "P.1-a_b", "Müller"):
        assert safe_name(other, "here") == other


def test_a_place_is_written_with_slashes_and_whole_where_no_path_leads_to_it(tmp_path, monkeypatch):
    assert relative_to(tmp_path / "run", tmp_path / "a" / "b") == "../a/b"
    other_drive = ValueError("path is on mount 'D:', start on mount 'C:'")
    monkeypatch.setattr(os.path, "relpath", Mock(side_effect=other_drive))
    assert relative_to(tmp_path / "run", tmp_path / "a" / "b") == (tmp_path / "a" / "b").as_posix()


def test_a_file_that_another_program_has_open_is_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "scores.json"
    path.write_text("old")
    in_use = PermissionError(13, "Access is denied", "new", None, "old")
    monkeypatch.setattr(files.os, "replace", Mock(side_effect=in_use))
    with pytest.raises(CannotWrite):
        write_text(path, "new")
    assert [*tmp_path.iterdir()] == [path]


def test_text_has_the_same_line_ends_on_every_system(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "linesep", "\r\n")
    write_json(tmp_path / "a.json", {"text": "ß"})
    for path in tmp_path.iterdir():
        assert b"\r" not in path.read_bytes()
    assert "ß".encode() in (tmp_path / "a.json").read_bytes()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_that_is_spawned_ends_with_its_parent(method):
    script = (
        "import multiprocessing, os, time\nfrom concurrent.futures import ProcessPoolExecutor\n"
        "from voxlate.base.machine import begin_worker\n"
        f"pool = ProcessPoolExecutor(1, multiprocessing.get_context({method!r}), begin_worker)\n"
        "print(pool.submit(os.getpid).result(), flush=True)\npool.submit(time.sleep, 60)\ntime.sleep(60)\n"
    )
    if method not in multiprocessing.get_all_start_methods() or not hasattr(os, "fork"):
        pytest.skip(f"this system cannot start processes by {method}")
    parent, number = started(script)
    worker = psutil.Process(int(number))
    end(parent)
    gone, _ = psutil.wait_procs([worker], timeout=10)
    assert gone
