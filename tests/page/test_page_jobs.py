"""The queue: one job at a time, cancelled and failed jobs, old ones, and a server that is killed."""

import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
from paging import BASE, TOKEN, free_port, until

from refusals import refuses
from rows import slow
from voxlate.base.files import read_json, write_json
from voxlate.page.jobs import PROGRESS, Jobs
from voxlate.page.work import Worker


@pytest.fixture
def jobs(tmp_path):
    return Jobs(tmp_path / "data")


def waiting(jobs, count=1):
    """The names of new jobs that wait."""
    return [jobs.add("synthesise", f"job {number}", {}, 100).name for number in range(count)]


def script(text):
    """Starts a process that runs a Python text in place of a job's work; FOLDER is the job's folder."""

    def start(folder):
        code = f"FOLDER = {str(folder)!r}\n{text}"
        return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)

    return start


def worked(jobs, start, met):
    """A worker works until a condition holds, in at most 20 seconds."""
    stop = threading.Event()
    worker = Worker(jobs, start, stop)
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
    starts = [jobs.read(name).started for name in names]
    assert starts == sorted(starts)
    assert "(exit code -9)" in jobs.read(names[0]).why


def test_a_cancelled_job_ends_its_process(jobs, tmp_path):
    (name,) = waiting(jobs)
    mark = tmp_path / "pid"
    mark.touch()
    text = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def gone():
        number = mark.read_text()
        if number and not jobs.read(name).has_ended:
            jobs.end(name, "cancelled")
        return number and not psutil.pid_exists(int(number))

    worked(jobs, script(text), gone)
    assert jobs.read(name).state == "cancelled"


SLEEP = "import time; time.sleep(60)"


def test_a_job_that_runs_when_the_server_ends_returns_to_the_queue(jobs):
    (name,) = waiting(jobs)
    worked(jobs, script(SLEEP), lambda: jobs.read(name).state == "running")
    assert jobs.read(name).state == "queued"


def test_after_a_killed_server_running_jobs_wait_again_and_half_uploads_are_gone(jobs):
    running, done, cancelled = waiting(jobs, 3)
    assert jobs.take() == jobs.read(running)
    jobs.change(done, state="done")
    jobs.end(cancelled, "cancelled")
    half = jobs.reserve()
    (half / "scans").mkdir()
    again = Jobs(jobs.data)
    again.mend()
    assert [job.state for job in again.all()] == ["queued", "done", "cancelled"]
    assert not half.exists()


def test_old_jobs_are_removed_and_those_in_use_are_kept(jobs):
    old, used, new, waits = waiting(jobs, 4)
    now = time.time()
    for name, ended in ((old, now - 100), (used, now - 100), (new, now - 1)):
        jobs.change(name, state="done", ended=ended)
    jobs.change(waits, request={"check": used})
    assert jobs.remove_old(50, now) == [old]
    assert [job.name for job in jobs.all()] == [used, new, waits]
    with refuses("needed by another"):
        jobs.remove(used)
    jobs.end(waits, "cancelled")
    jobs.remove(used)
    assert not (jobs.root / used).exists()


def test_a_damaged_job_and_one_of_another_version_stop_nothing_and_are_removed_in_time(jobs):
    damaged, old, whole = waiting(jobs, 3)
    (jobs.folder(damaged) / "job.json").write_text('{"name": ')
    facts = read_json(jobs.folder(old) / "job.json")
    write_json(jobs.folder(old) / "job.json", facts | {"made_by": "0.1"})
    again = Jobs(jobs.data)
    again.mend()
    assert [job.name for job in again.all()] == [whole]
    assert again.take().name == whole
    assert {*again.remove_old(50, time.time() + 100)} == {damaged, old}


def test_the_page_shows_progress_time_left_and_a_way_to_cancel(page):
    made = page()
    name = made.jobs.add("synthesise", "ct of scan", {"check": "gone"}, 100).name
    made.jobs.take()
    now = time.time()
    facts = {"stage": "slices", "done": 25, "total": 100, "since": now - 10, "at": now}
    write_json(made.jobs.folder(name) / PROGRESS, facts)
    for place in ("/", f"/jobs/{name}"):
        text = made.get(place).text
        assert "Synthesising, 25 %, about 30 s left" in text.replace("29 s", "30 s")
        assert f'action="/jobs/{name}/cancel"' in text
    assert made.post(f"/jobs/{name}/cancel").headers["location"] == "/"
    assert made.jobs.read(name).state == "cancelled"
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


@slow
def test_a_server_that_is_killed_in_the_middle_of_a_synthesis_finishes_it_after_a_restart(
    diffusion, cohort, tmp_path
):
    import httpx

    port, data = free_port(), tmp_path / "data"
    base = BASE.replace("8765", str(port))
    client = httpx.Client(base_url=base, headers={"origin": base}, timeout=30)
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(f"{TOKEN}\n")

    def is_open():
        try:
            return client.get("/enter", params={"token": TOKEN})
        except httpx.HTTPError:
            return False

    def serve():
        words = f"-m voxlate serve {diffusion} --port {port} --data {data} --token-file {token}"
        process = subprocess.Popen([sys.executable, *words.split(), "--device", "cpu"])
        until(is_open)
        return process

    def read(name):
        return Jobs(data).read(name)

    process = serve()
    path = cohort / "case1" / "t1.nii.gz"
    answer = client.post("/uploads", files=[("files", (path.name, path.read_bytes()))])
    check = answer.headers["location"]
    until(lambda: read(check.split("/")[-1]).state == "done")
    asked = {"run": diffusion.name}
    name = client.post(f"{check}/synthesise", data=asked).headers["location"].split("/")[-1]
    until(lambda: read(name).state == "running")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read(name).state == "running"
    process = serve()
    until(lambda: read(name).state == "done")
    assert client.get(f"/jobs/{name}/images/t2.nii.gz").status_code == 200
    process.terminate()
    process.wait(20)
    assert read_json(data / "jobs" / name / "outcome.json")["why"] == ""
