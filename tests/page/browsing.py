"""A browser that watches what its page does, and a small server with the policy of the real one."""

import http.server
import io
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import Environment, FileSystemLoader, select_autoescape
from PIL import Image

import voxlate
from voxlate.page.access import CONTENT_POLICY

WEB = Path(voxlate.__file__).parent / "page"
TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".gz": "application/gzip",
}
PATIENCE_MS = 120_000  # a laden machine draws slowly
SOFTWARE_GL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox")


def chromium():
    """Path of an installed Chromium; skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("Chromium is not installed: apt-get install chromium")


@contextmanager
def open_browser(*flags):
    """Headless Chromium that draws WebGL on the processor."""
    program = chromium()
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=[*SOFTWARE_GL, *flags])
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page and what went wrong on it."""

    page: Any
    base: str
    errors: list[str] = field(default_factory=list)


@contextmanager
def open_page(browser, base, **options):
    """A page of its own context; errors, violated policies and requests to another host fail the test."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    watched = Watched(context.new_page(), base)

    def on_console(message):
        if message.type == "error":
            watched.errors.append(message.text)

    def on_request(request):
        if not request.url.startswith((base, f"blob:{base}", "data:")):
            watched.errors.append(request.url)

    watched.page.on("console", on_console)
    watched.page.on("pageerror", lambda error: watched.errors.append(str(error)))
    context.on("request", on_request)
    try:
        yield watched
        assert watched.errors == []
    finally:
        context.close()


def pixels(element):
    """What the screen shows of an element: [height, width, 3]."""
    element.scroll_into_view_if_needed()
    picture = Image.open(io.BytesIO(element.screenshot()))
    return np.asarray(picture.convert("RGB")).astype(int)


def after_drawing(page):
    """Waits until all that was asked for is on the screen."""
    page.evaluate(
        "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


def render(template, **variables):
    """A page of ours around a text in the language of the templates."""
    environment = Environment(
        loader=FileSystemLoader(WEB / "templates"), autoescape=select_autoescape(default=True)
    )
    source = '{% extends "base.html" %}{% block content %}' + template + "{% endblock %}"
    return environment.from_string(source).render(**variables)


Answer = tuple[int, str, bytes]


@contextmanager
def small_server(answer, folder):
    """Serves answer(method, path, body), then /static and the folder; yields the base URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, kind, content = answer(self.command, self.path, body) or self.file()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", CONTENT_POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def file(self):
            name = self.path.removeprefix("/static/")
            path = WEB / "static" / name if self.path.startswith("/static/") else folder / name[1:]
            if not path.is_file():
                return 404, "text/plain", b"not found"
            return 200, TYPES.get(path.suffix, "application/octet-stream"), path.read_bytes()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
