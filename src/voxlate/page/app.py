"""The application: the pages with their access checks, the worker on jobs, and the server that runs them.

The server ends connections whose next byte is awaited for too long, and lets them keep nobody out.
"""

import asyncio
import os
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import jinja2
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.h11_impl import H11Protocol

from voxlate import __version__
from voxlate.base.errors import BadInput, CannotWrite
from voxlate.base.files import lock
from voxlate.page import api, pages
from voxlate.page.access import Access
from voxlate.page.api import OPENAPI
from voxlate.page.jobs import Jobs, NoSuchJob
from voxlate.page.page_settings import Settings
from voxlate.page.pages import NO_PAGE, Site, site_of
from voxlate.page.uploads import Space
from voxlate.page.work import Start, Worker, clean_regularly, start_process

JOIN_SECONDS = 10.0
GRACE_SECONDS = 3  # for requests in progress when the server ends
MOST_CONNECTIONS = 200
MOST_WAITING = 100  # connections; the one that waits longest is ended for one more
WAIT_SECONDS = 20.0  # for the headers of a request, and for each part of its body
FULL = 507  # the status of a request for which the disk has no room
UNPROCESSABLE = 422
FOR_OWNER = (
    0o077  # the umask of the server and of its jobs: uploads and results are for their owner alone
)


def create_app(settings: Settings, start: Start | None = start_process) -> Access:
    """The application of a server. start: starts the process of a job; None where no job is worked on (in tests)."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("voxlate.page", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    jobs = Jobs(settings.data)
    site = Site(settings, jobs, Space(settings.limits), templates)
    stop = threading.Event()
    works = [lambda: clean_regularly(jobs, settings.limits.keep_hours * 3600, stop)]
    if start is not None:
        works.append(Worker(jobs, start, stop).run)

    @asynccontextmanager
    async def run_threads(_: FastAPI) -> AsyncIterator[None]:
        """Run the worker, and the removal of old jobs; at the end they stop."""
        umask = os.umask(FOR_OWNER)
        jobs.begin()
        threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(JOIN_SECONDS)
            os.umask(umask)

    app = FastAPI(
        lifespan=run_threads,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=OPENAPI,
        title="voxlate",
        version=__version__,
        description=f"Research software, not a medical device.{(api.__doc__ or '').partition('.')[2]}",
    )
    app.state.site = site
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(packages=[("voxlate.page", "static")]), name="static")
    _add_errors(app)
    return Access(app, settings)


def _add_errors(app: FastAPI) -> None:
    """Errors as pages with one sentence."""

    @app.exception_handler(BadInput)
    def bad_input(request: Request, error: BadInput) -> Response:
        """400, or the status of the kind of a refusal."""
        statuses = {NoSuchJob: 404, CannotWrite: FULL}
        return site_of(request).error(request, statuses.get(type(error), 400), f"{error}")

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: Any) -> Response:
        """An address that does not exist, that does not take the method, or that lacks a field."""
        status = getattr(error, "status_code", UNPROCESSABLE)
        sentence = "request: expected one that this page offers, found another. Go to the list."
        return site_of(request).error(request, status, NO_PAGE if status == 404 else sentence)

    @app.exception_handler(Exception)
    def fault(request: Request, error: Exception) -> Response:
        """A fault of voxlate."""
        said = f"This should not happen: {type(error).__name__}. The terminal of the server shows where."
        return site_of(request).error(request, 500, said)


class Connection(H11Protocol):
    """A connection of uvicorn, which limits neither their waiting nor what those that wait take from others.

    since: when the headers of a request were first awaited, or the last part of its body came.
    """

    since = 0.0
    watch: asyncio.TimerHandle

    @property
    def waits(self) -> bool:
        """Whether the headers or the body of a request are not complete."""
        cycle = self.cycle
        return cycle is None or cycle.response_complete or cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch a new connection, and end those that wait longest where there are too many."""
        super().connection_made(transport)
        self.since = self.loop.time()
        self._watch()
        waiting = [
            other
            for other in self.connections
            if isinstance(other, Connection) and other.waits and not other.transport.is_closing()
        ]
        waiting.sort(key=lambda other: other.since)
        for oldest in waiting[: max(0, len(waiting) - MOST_WAITING)]:
            oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Note that a request goes on."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self.since = self.loop.time()

    def on_response_complete(self) -> None:
        """Note that the next request is awaited."""
        super().on_response_complete()
        self.since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Watch the connection no more."""
        self.watch.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """End the connection where it has waited for too long, else look again when it may have."""
        waited = self.loop.time() - self.since if self.waits else 0.0
        if waited >= WAIT_SECONDS:
            self.transport.abort()
            return
        self.watch = self.loop.call_later(WAIT_SECONDS - waited, self._watch)


def run_server(settings: Settings) -> None:
    """Serve the page until the process is asked to end; raises BadInput where the port is in use."""
    listening = _listen(settings.host, settings.port)
    with lock(settings.data), listening, _temporary_files_in(settings.data):
        options: dict[str, Any] = {
            "http": Connection,
            "log_level": "warning",
            "access_log": False,  # addresses hold names of jobs, and the token
            "server_header": False,
            "proxy_headers": False,
            "timeout_graceful_shutdown": GRACE_SECONDS,
            "limit_concurrency": MOST_CONNECTIONS,
        }
        config = uvicorn.Config(create_app(settings), **options)
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Keep the forms of uploads on the disk whose room is checked."""
    former, tempfile.tempdir = tempfile.tempdir, f"{folder}"
    try:
        yield
    finally:
        tempfile.tempdir = former


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the port."""
    try:
        family = socket.getaddrinfo(host, port, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise BadInput(
            f"{host}:{port}: expected a free port of this machine, found '{error.strerror}'. Choose another --port or --host."
        ) from error
