"""The queue: one job at a time, removed and failed jobs, old ones, and a server that is killed."""

import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
from paging import TOKEN, free_port, until

from refusals import refuses
from voxlate.page.jobs import Jobs
from voxlate.page.work import Worker, writes_progress


@pytest.fixture
def jobs(tmp_path):
    return Jobs(tmp_path / "data")


def waiting(jobs, count=1):
    """The names of new jobs that wait."""
    made = [jobs.add("synthesise", f"job {k}", {}, jobs.reserve()) for k in range(count)]
    return [job.name for job in made]


def script(text):
    """Starts a process that runs a Python text in place of a job's work; FOLDER is the job's folder."""

    def start(folder):
        code = f"FOLDER = {str(folder)!r}\n{text}"
        return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)

    return start


def worked(jobs, start, met):
    """A worker works until a condition holds, in at most 20 seconds."""
    stop = threading.Event()
    worker = Worker(jobs, start, stop, 3600)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        until(met, seconds=20)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


DONE = "import json; open(FOLDER + '/outcome.json', 'w').write(json.dumps({'why': ''}))"


def test_jobs_are_worked_on_one_at_a_time_in_their_order_whatever_the_disk_and_one_of_them_do(
    jobs, monkeypatch
):
    names = waiting(jobs, 3)
    most = 0
    monkeypatch.setattr("voxlate.page.work.RETRY_SECONDS", 0.05)
    whole, faults = Jobs.take, [OSError(28, "No space left on device")]

    def take(self):
        if faults:
            raise faults.pop()
        return whole(self)

    def finished():
        nonlocal most
        states = [job.state for job in jobs.all()]
        most = max(most, states.count("running"))
        return states == ["failed", "done", "done"]

    monkeypatch.setattr(Jobs, "take", take)
    dies = f"import os, signal\nif {names[0]!r} in FOLDER: os.kill(os.getpid(), signal.SIGKILL)\n"
    worked(jobs, script(dies + DONE), finished)
    assert most == 1
    ends = [jobs.read(name).ended for name in names]
    assert ends == sorted(ends)
    assert "(exit code -9)" in jobs.read(names[0]).why


def test_a_removed_job_ends_its_process_and_leaves_nothing(jobs, tmp_path):
    (name,) = waiting(jobs)
    mark = tmp_path / "pid"
    mark.touch()
    text = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def gone():
        number = mark.read_text()
        if number and name in jobs:
            jobs.remove(name)
        return number and not psutil.pid_exists(int(number))

    worked(jobs, script(text), gone)
    assert not [*jobs.root.iterdir()]


def test_a_server_ends_its_job_and_the_next_goes_on_with_all_that_is_whole(jobs):
    running, done, damaged, old = waiting(jobs, 4)
    worked(
        jobs, script("import time; time.sleep(60)"), lambda: jobs.read(running).state == "running"
    )
    jobs.end(done)
    (jobs.folder(damaged) / "job.json").write_text('{"name": ')
    jobs.change(old, version="0.0")
    unfinished = jobs.reserve()
    again = Jobs(jobs.root.parent)
    again.begin()
    assert [(job.name, job.state) for job in again.all()] == [(running, "queued"), (done, "done")]
    assert not any((again.root / name).exists() for name in (damaged, old, unfinished.name))


def test_old_jobs_are_removed(jobs):
    old, new, waits = waiting(jobs, 3)
    now = time.time()
    for name, ended in ((old, now - 100), (new, now - 1)):
        jobs.change(name, state="done", ended=ended)
    jobs.remove_old(50, now)
    assert [job.name for job in jobs.all()] == [new, waits]
    assert not (jobs.root / old).exists()


def test_the_page_shows_progress_and_a_way_to_cancel(page, monkeypatch):
    made = page()
    folder = made.jobs.reserve()
    name = made.jobs.add("synthesise", "ct of scan", {"check": "gone"}, folder).name
    made.jobs.take()
    monkeypatch.setattr(time, "monotonic", iter((10, 20)).__next__)
    step = writes_progress(folder)
    step("slices", 1, 8)
    step("slices", 2, 8)
    monkeypatch.undo()
    for place in ("/", f"/jobs/{name}"):
        text = made.get(place).text
        assert "Synthesising, 25 %, about 60 s left" in text
        assert f'action="/jobs/{name}/delete"' in text
    made.jobs.end(name, "why")
    assert "HX-Refresh" not in made.get(f"/jobs/{name}").headers
    ended = made.get(f"/jobs/{name}", headers={"hx-request": "true"})
    assert ended.headers["HX-Refresh"] == "true"
    assert made.post(f"/jobs/{name}/delete").status_code == 303
    assert made.get(f"/jobs/{name}").status_code == 404


def test_a_data_folder_and_a_port_belong_to_one_server(tmp_path):
    from voxlate.base.files import lock
    from voxlate.page.app import run_server
    from voxlate.page.page_settings import Settings

    settings = Settings({}, tmp_path / "data", TOKEN, port=free_port())
    with lock(settings.data), refuses("no other voxlate"):
        run_server(settings)
    with (
        socket.create_server(("127.0.0.1", settings.port)),
        refuses("a free port"),
    ):
        run_server(settings)
