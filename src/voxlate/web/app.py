"""The application: the pages behind the gate, the lanes of jobs, and the server that runs them."""

import math
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import jinja2
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from voxlate.system.errors import BadInput, CannotWrite
from voxlate.system.files import lock
from voxlate.web.gate import Gate, Sessions
from voxlate.web.jobs import Jobs, Kind, NoSuchJob
from voxlate.web.lanes import Lane, Start, clean_regularly, start_process
from voxlate.web.pages import Site, router, site_of
from voxlate.web.settings import Settings
from voxlate.web.training import router as training_router
from voxlate.web.uploads import Space

JOIN_SECONDS = 10.0
GRACE_SECONDS = 3  # for requests in progress when the server ends
MOST_CONNECTIONS = 200
LANES: tuple[tuple[Kind, ...], ...] = (
    ("check",),
    ("synthesise",),
    ("survey",),
    ("prepare", "plan", "train", "calibrate", "compare"),
)  # a check takes seconds, and does not wait for a synthesis; a training takes hours, and neither waits for it
FULL = 507  # the status of a request for which the disk has no room


def create_app(settings: Settings, sessions: Sessions, start: Start | None = start_process) -> Gate:
    """The application of a server. start: starts the process of a job; None where no job is worked on (in tests)."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("voxlate.web", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    jobs = Jobs(settings.data)
    site = Site(settings, sessions, jobs, Space(settings.limits), templates)
    longest = {"check": settings.limits.check_minutes * 60}
    lanes = (
        []
        if start is None
        else [Lane(jobs, kinds, start, longest.get(kinds[0], math.inf)) for kinds in LANES]
    )

    @asynccontextmanager
    async def working(_: FastAPI) -> AsyncIterator[None]:
        settings.data.mkdir(parents=True, exist_ok=True)
        jobs.close()
        jobs.mend()
        with _threads(jobs, lanes, settings.limits.keep_hours * 3600):
            yield

    app = FastAPI(
        lifespan=working, redirect_slashes=False, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.site = site
    app.include_router(router)
    app.include_router(training_router)
    app.mount("/static", StaticFiles(packages=[("voxlate.web", "static")]), name="static")
    _add_errors(app)
    return Gate(app, settings, sessions)


@contextmanager
def _threads(jobs: Jobs, lanes: Sequence[Lane], keep_seconds: float) -> Iterator[None]:
    """Run lanes, and the removal of old jobs, in threads; at the end they stop, and running jobs return to the queue."""
    stop = threading.Event()
    works: list[Callable[[], None]] = [lambda: clean_regularly(jobs, keep_seconds, stop)]
    for lane in lanes:
        lane.stop = stop
        works.append(lane.run)
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(JOIN_SECONDS)


def _add_errors(app: FastAPI) -> None:
    """Errors as pages with one sentence."""

    @app.exception_handler(BadInput)
    def bad_input(request: Request, error: BadInput) -> Response:
        statuses = ((NoSuchJob, 404), (CannotWrite, FULL))
        status = next((one for kind, one in statuses if isinstance(error, kind)), 400)
        return site_of(request).error(status, str(error))

    @app.exception_handler(RequestValidationError)
    def bad_form(request: Request, error: RequestValidationError) -> Response:
        return site_of(request).error(
            422, "form: expected the fields of the page, found others. Use the page itself."
        )

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        sentence = "page: expected one that exists, found none. Go to the list."
        if error.status_code != 404:
            sentence = f"request: expected one that this page offers, found another ({error.detail}). Go to the list."
        return site_of(request).error(error.status_code, sentence)

    @app.exception_handler(Exception)
    def fault(request: Request, error: Exception) -> Response:
        name = type(error).__name__
        return site_of(request).error(
            500, f"This should not happen: {name}. The terminal of voxlate serve shows where."
        )


def run_server(settings: Settings, sessions: Sessions) -> None:
    """Serve the page until the process is asked to end; raises BadInput where the port is in use."""
    import uvicorn

    from voxlate.web.connections import Connection

    listening = _listening(settings.host, settings.port)
    with lock(settings.data), listening:
        options: dict[str, Any] = {
            "http": Connection,
            "log_level": "warning",
            "access_log": False,  # addresses hold names of jobs, and the token
            "server_header": False,
            "proxy_headers": False,
            "timeout_graceful_shutdown": GRACE_SECONDS,
            "limit_concurrency": MOST_CONNECTIONS,
        }
        config = uvicorn.Config(create_app(settings, sessions), **options)
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens on the port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        raise BadInput(
            f"{host}:{port}: expected a free port of this machine, found '{error.strerror}'. Choose another --port or --host."
        ) from error
    return listening
