"""The application: the pages with their access checks, the worker on jobs, and the server that runs them."""

import os
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import jinja2
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from voxlate import __version__
from voxlate.base.errors import BadInput
from voxlate.base.files import lock
from voxlate.page import pages
from voxlate.page.access import HEADERS, guard
from voxlate.page.api import OPENAPI
from voxlate.page.jobs import Jobs, NoSuchJob
from voxlate.page.page_settings import Settings
from voxlate.page.pages import NO_PAGE, Site, site_of
from voxlate.page.work import Start, Worker, start_process

JOIN_SECONDS = 10.0
GRACE_SECONDS = 3  # for requests in progress when the server ends
UNPROCESSABLE = 422
FOR_OWNER = (
    0o077  # the umask of the server and of its jobs: uploads and results are for their owner alone
)


def create_app(settings: Settings, start: Start | None = start_process) -> FastAPI:
    """The application of a server. start: starts the process of a job; None where no job is worked on (in tests)."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("voxlate.page", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    jobs = Jobs(settings.data)
    stop = threading.Event()
    work: Callable[[], object] = stop.wait
    if start is not None:
        work = Worker(jobs, start, stop, settings.keep_hours * 3600).run

    @asynccontextmanager
    async def run_worker(_: FastAPI) -> AsyncIterator[None]:
        """Run the worker; at the end it stops."""
        umask = os.umask(FOR_OWNER)
        jobs.begin()
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(JOIN_SECONDS)
            os.umask(umask)

    app = FastAPI(
        lifespan=run_worker,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=OPENAPI,
        title="voxlate",
        version=__version__,
        description="Research software, not a medical device.",
    )
    app.state.site = Site(settings, jobs, templates)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(packages=[("voxlate.page", "static")]), name="static")
    _add_errors(app)
    app.middleware("http")(guard)
    return app


def _add_errors(app: FastAPI) -> None:
    """Errors as pages with one sentence."""

    @app.exception_handler(BadInput)
    def bad_input(request: Request, error: BadInput) -> Response:
        """404 for a job that there is not, 400 for other refusals."""
        status = 404 if isinstance(error, NoSuchJob) else 400
        return site_of(request).error(request, status, f"{error}")

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: Any) -> Response:
        """An address that does not exist, that does not take the method, or that lacks a field."""
        status = getattr(error, "status_code", UNPROCESSABLE)
        sentence = "request: expected one that this page offers, found another. Go to the list."
        return site_of(request).error(request, status, NO_PAGE if status == 404 else sentence)

    @app.exception_handler(Exception)
    def fault(request: Request, error: Exception) -> Response:
        """A fault of voxlate, whose page does not pass the guard."""
        said = f"This should not happen: {type(error).__name__}. The terminal of the server shows where."
        page = site_of(request).error(request, 500, said)
        page.headers.update(HEADERS)
        return page


def run_server(settings: Settings) -> None:
    """Serve the page until the process is asked to end; raises BadInput where the port is in use."""
    listening = _listen(settings.host, settings.port)
    with lock(settings.data), listening:
        tempfile.tempdir = (
            f"{settings.data}"  # the forms of uploads, on the disk whose room is checked
        )
        options: dict[str, Any] = {
            "log_level": "warning",
            "access_log": False,  # addresses hold names of jobs, and the token
            "server_header": False,
            "proxy_headers": False,
            "timeout_graceful_shutdown": GRACE_SECONDS,
        }
        config = uvicorn.Config(create_app(settings), **options)
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the port of an address."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise BadInput(
            f"{host}:{port}: expected a free port of this machine, found '{error.strerror}'. Choose another --port or --host."
        ) from error
