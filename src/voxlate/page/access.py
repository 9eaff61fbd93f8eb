"""Who may use the page: host names, the origin of forms, the session, rates, and the headers of every response."""

import time
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voxlate.page.api import wants_json
from voxlate.page.page_settings import Limits, Sessions, Settings

CONTENT_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # the font of NiiVue is a picture of this kind
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
# Of the page that computes in the browser (run/browser): WebAssembly, and images that the browser itself holds.
BROWSER_POLICY = CONTENT_POLICY.replace(
    "script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'"
).replace("connect-src 'self'", "connect-src 'self' blob:")
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # "no-referrer" would make the origin of forms "null"
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
ENTER, STATIC, UPLOAD, BROWSER = "/enter", "/static/", "/uploads", "/browser/"
BROWSER_HEADERS = {
    "content-security-policy": BROWSER_POLICY,
    "cross-origin-embedder-policy": "require-corp",  # with the opener policy: threads may share memory
}
# Scripts and styles hold nothing of a patient. The browser keeps them, and asks by their ETag whether they have changed:
# after an update of voxlate, an old script beside a new page would not work.
STATIC_CACHE = "private, no-cache"
READING = ("GET", "HEAD")
WRONG_TOKEN = 403  # the status of the response to a wrong token
MINUTE = 60.0
MOST_ADDRESSES = 10_000


@dataclass
class Rates:
    """Number of events in the last minute by a key, such as a browser's session or address."""

    most: int
    _times: dict[str, deque[float]] = field(default_factory=dict)

    def allow(self, key: str) -> bool:
        """Count an event; whether it is one of at most `most` in a minute."""
        if self.is_full(key):
            return False
        self._times[key].append(time.monotonic())
        return True

    def is_full(self, key: str) -> bool:
        """Whether there were `most` events in the last minute."""
        if len(self._times) > MOST_ADDRESSES:
            self._times.clear()
        times = self._times.setdefault(key, deque())
        while times and time.monotonic() - times[0] > MINUTE:
            times.popleft()
        return len(times) >= self.most


@dataclass
class Access:
    """An ASGI application around another one, which refuses requests and adds headers."""

    app: ASGIApp
    settings: Settings
    sessions: Sessions

    def __post_init__(self) -> None:
        self.requests = Rates(self.settings.limits.requests)
        self.entries = Rates(self.settings.limits.entries)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":
            return  # the page has no web sockets
        request = Request(scope)
        app: ASGIApp = self.app
        path = scope["path"]

        async def send_with_headers(message: Message) -> None:
            """Count a wrong token, and add the headers that a response does not have."""
            if message["type"] == "http.response.start":
                if path == ENTER and message["status"] == WRONG_TOKEN:
                    self.entries.allow(_address(request))
                headers = MutableHeaders(scope=message)
                if path.startswith((STATIC, BROWSER)):
                    headers.setdefault("cache-control", STATIC_CACHE)
                own = BROWSER_HEADERS if path.startswith(BROWSER) else {}
                for name, value in (HEADERS | own).items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(request, path)
        except HTTPException as refusal:
            app = PlainTextResponse(f"{refusal.detail}\n", refusal.status_code)
            if wants_json(request):
                app = JSONResponse({"error": refusal.detail}, refusal.status_code)
        await app(scope, receive, send_with_headers)

    def _check(self, request: Request, path: str) -> None:
        """Raise HTTPException with one sentence for a request that may not pass."""
        headers = request.headers
        address = _address(request)
        if _host_name(headers) not in self.settings.host_names:
            raise HTTPException(
                421, "host: expected a name of this server, found another. Use the printed URL."
            )
        session = request.cookies.get(self.settings.cookie, "")
        is_in = self.sessions.has(session)
        if not self.requests.allow(session if is_in else address):
            raise HTTPException(
                429, "requests: expected fewer in a minute, found too many. Wait a minute."
            )
        is_reading = request.method in READING
        if not is_reading and not _is_own_origin(headers):
            raise HTTPException(
                403, "origin: expected a form of this page, found another. Use the page itself."
            )
        if path == ENTER and self.entries.is_full(address):
            raise HTTPException(
                429, "token: expected fewer tries in a minute, found too many. Wait a minute."
            )
        if not is_in and not path.startswith((ENTER, STATIC)):
            raise HTTPException(
                401,
                "session: expected a browser that the token let in, found another. Open the address that the server printed.",
            )
        if not is_reading:
            _check_length(headers, path, self.settings.limits)


def _check_length(headers: Headers, path: str, limits: Limits) -> None:
    """Raise HTTPException for a body without a stated length, or with one above the limit."""
    length = headers.get("content-length", "")
    if "transfer-encoding" in headers or not length.isascii() or not length.isdecimal():
        raise HTTPException(
            411, "request: expected a stated length, found none. Use the page itself."
        )
    most = limits.upload_bytes if path == UPLOAD else limits.form_bytes
    if int(length[:20]) > most:
        raise HTTPException(
            413, f"request: expected at most {most} bytes, found more. Choose fewer files."
        )


def _address(request: Request) -> str:
    """The address of the browser."""
    return request.client.host if request.client else ""


def _host_name(headers: Headers) -> str:
    """The host without its port, in lower case; "" where it is not given once, or cannot be read."""
    hosts = headers.getlist("host")
    try:
        return (urlsplit(f"//{hosts[0]}").hostname or "").lower() if len(hosts) == 1 else ""
    except ValueError:
        return ""


def _is_own_origin(headers: Headers) -> bool:
    """Whether a form was sent by a page of this server: its origin has the host of the request."""
    origin = headers.get("origin")
    host = headers.get("host")
    return origin in (f"http://{host}", f"https://{host}")
