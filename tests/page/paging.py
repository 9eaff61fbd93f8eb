"""A page without a browser: a client that it has let in, and jobs that are done in this process."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

pytest.importorskip(
    "fastapi", reason="the page needs the extra serve: pip install 'voxlate[serve]'"
)
pytest.importorskip("python_multipart", reason="uploads need python-multipart (the extra serve)")
pytest.importorskip("httpx", reason="starlette's test client needs httpx")

import uvicorn
from starlette.testclient import TestClient

import voxlate.page.model_check  # noqa: F401  # loads torch before threads do
from voxlate.page import app
from voxlate.page.app import create_app
from voxlate.page.jobs import Jobs
from voxlate.page.page_settings import Settings
from voxlate.page.work import start_process, work
from waiting import free_port, until

BASE = "http://127.0.0.1:8765"
TOKEN = "a token of the tests"


@contextmanager
def serving(runs, data, start=start_process, **options):
    """A server in a thread, as `voxlate serve` starts it, until the block ends; yields its address.

    start: starts the work of a job; options: of Settings.
    """
    servers, run = [], uvicorn.Server.run

    def run_here(server, sockets):
        servers.append(server)
        run(server, sockets)

    settings = Settings(runs, data, TOKEN, device="cpu", port=free_port(), **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "create_app", partial(create_app, start=start))
        patch.setattr(uvicorn.Server, "run", run_here)
        thread = threading.Thread(target=app.run_server, args=(settings,))
        thread.start()
        try:
            until(lambda: servers and servers[0].started)
            yield f"http://127.0.0.1:{settings.port}/"
        finally:
            for server in servers:
                server.should_exit = True
            thread.join(20)


class Here:
    """A process of a job that does its work at once, in this process."""

    stdin = None

    def __init__(self, folder):
        work(folder)

    def poll(self):
        return 0


@dataclass(frozen=True)
class Page:
    """A running page: a client that is in, and its jobs."""

    client: TestClient
    jobs: Jobs
    app: Any

    def stranger(self, **options):
        """A client without a session."""
        return TestClient(self.app, base_url=BASE, follow_redirects=False, **options)

    @property
    def get(self):
        return self.client.get

    @property
    def post(self):
        return self.client.post

    def upload(self, *paths, **names):
        """Upload files with their own names, and contents by name; returns the response of the form."""
        files = [("files", (path.name, path.read_bytes())) for path in paths]
        files += [("files", (name, content)) for name, content in names.items()]
        return self.post("/uploads", files=files)

    def finished(self, place, seconds=60):
        """The page of a job once it has ended; its address is below the page's own."""
        until(lambda: self.jobs.read(place.rpartition("/")[2]).has_ended, seconds)
        answer = self.get(place)
        assert answer.status_code == 200, answer.text
        assert "hx-trigger" not in answer.text
        return str(answer.text)

    def checked(self, *paths, **names):
        """The address and the page of an upload once it is checked."""
        place = self.upload(*paths, **names).headers["location"]
        return place, self.finished(place)

    def synthesised(self, place, label="run", **settings):
        """The address and the page of a synthesis of an upload."""
        answer = self.post(f"{place}/synthesise", data={"run": label, **settings})
        assert answer.status_code == 303, answer.text
        address = answer.headers["location"]
        return address, self.finished(address)
