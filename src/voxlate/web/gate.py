"""Who gets in: host names, the origin of forms, the token and the session, rates, and the headers of every response."""

import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from voxlate.web.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

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
STATIC = "/static/"
# Scripts and styles hold nothing of a patient. The browser keeps them, and asks by their ETag whether they have changed:
# after an update of voxlate, an old script beside a new page would not work.
STATIC_CACHE = b"private, no-cache"
READING = ("GET", "HEAD")
OPEN = ("/enter", STATIC)  # paths that need no session
ENTER = "/enter"
WRONG_TOKEN = 403  # the status of the answer to one
UPLOAD = "/uploads"
MINUTE = 60.0
MOST_SESSIONS = 1000
MOST_ADDRESSES = 10_000


@dataclass
class Rates:
    """Number of events in the last minute by a key, such as a browser's session or address."""

    most: int
    _times: dict[str, deque[float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def allow(self, key: str) -> bool:
        """Count an event; whether it is one of at most `most` in a minute."""
        with self._lock:
            times = self._recent(key)
            if len(times) >= self.most:
                return False
            times.append(time.monotonic())
            return True

    def is_full(self, key: str) -> bool:
        """Whether there were `most` events in the last minute."""
        with self._lock:
            return len(self._recent(key)) >= self.most

    def _recent(self, key: str) -> deque[float]:
        """The times of the events of the last minute."""
        if len(self._times) > MOST_ADDRESSES:
            self._times.clear()
        times = self._times.setdefault(key, deque())
        while times and time.monotonic() - times[0] > MINUTE:
            times.popleft()
        return times


@dataclass
class Sessions:
    """The token that lets a browser in, and the sessions of the browsers that it let in.

    reusable: whether the token stays valid, because the user chose it for several people; else the first use spends it.
    """

    token: str
    reusable: bool = False
    _open: dict[str, None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, token: str) -> str | None:
        """A new session for the right token; None for any other, and for one that is spent."""
        with self._lock:
            right = hmac.compare_digest(token.encode(), self.token.encode())
            if not right or not self.token:
                return None
            if not self.reusable:
                self.token = ""
            session = secrets.token_urlsafe(32)
            self._open[session] = None
            if len(self._open) > MOST_SESSIONS:
                del self._open[next(iter(self._open))]
            return session

    def has(self, session: str) -> bool:
        return session in self._open


@dataclass
class Gate:
    """An ASGI application around another one, which refuses requests and adds headers."""

    app: App
    settings: Settings
    sessions: Sessions

    def __post_init__(self) -> None:
        self.requests = Rates(self.settings.limits.requests)
        self.entries = Rates(self.settings.limits.entries)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if scope["path"] == ENTER and message["status"] == WRONG_TOKEN:
                    self.entries.allow(_address(scope))
                own = {name.lower() for name, _ in message["headers"]}
                added = {name.encode(): value.encode() for name, value in HEADERS.items()}
                if scope["path"].startswith(STATIC):
                    added[b"cache-control"] = STATIC_CACHE
                left = [(name, value) for name, value in added.items() if name not in own]
                message["headers"] = [*message["headers"], *left]
            await send(message)

        if scope["type"] != "http":
            return  # the page has no web sockets
        status, why = self._refusal(scope)
        if status:
            await _answer(send_with_headers, status, why)
            return
        await self.app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str]:
        """The status and the reason of a refusal; 0 and "" for a request that may pass."""
        headers = _headers(scope)
        if _host_name(headers.get("host", "")) not in self.settings.host_names:
            return 421, "host: expected a name of this server, found another. Use the printed URL."
        address, session = _address(scope), self._session(headers)
        is_in = self.sessions.has(session)
        if not self.requests.allow(session if is_in else address):
            return 429, "requests: expected fewer in a minute, found too many. Wait a minute."
        path, reading = scope["path"], scope["method"] in READING
        if not reading and not _is_own_origin(headers):
            return 403, "origin: expected a form of this page, found another. Use the page itself."
        if path == ENTER and self.entries.is_full(address):
            return 429, "token: expected fewer tries in a minute, found too many. Wait a minute."
        if not path.startswith(OPEN) and not is_in:
            return (
                401,
                "session: expected a browser that the token let in, found another. Open the URL that voxlate serve prints.",
            )
        return (0, "") if reading else self._refusal_of_body(path, headers)

    def _refusal_of_body(self, path: str, headers: dict[str, str]) -> tuple[int, str]:
        length = headers.get("content-length", "")
        if "transfer-encoding" in headers or not length.isascii() or not length.isdecimal():
            return 411, "request: expected a stated length, found none. Use the page itself."
        limits = self.settings.limits
        most = limits.upload_bytes if path == UPLOAD else limits.form_bytes
        if int(length[:20]) > most:
            return 413, f"request: expected at most {most} bytes, found more. Choose fewer files."
        return 0, ""

    def _session(self, headers: dict[str, str]) -> str:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self.settings.cookie)
        except CookieError:
            return ""
        return "" if cookie is None else cookie.value


def _address(scope: Scope) -> str:
    """The address of the browser."""
    return str((scope.get("client") or ("",))[0])


def _headers(scope: Scope) -> dict[str, str]:
    """The headers of a request; of one that is given twice the last, and no host where it is given twice."""
    found = dict[str, str]()
    hosts = 0
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        hosts += key == "host"
        found[key] = value.decode("latin-1")
    if hosts > 1:
        del found["host"]
    return found


def _host_name(host: str) -> str:
    """The name in a Host header without its port, in lower case; "" for one that cannot be read."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_own_origin(headers: dict[str, str]) -> bool:
    """Whether a form was sent by a page of this server: its origin has the host of the request."""
    try:
        origin = urlsplit(headers.get("origin", ""))
    except ValueError:
        return False
    return origin.scheme in ("http", "https") and origin.netloc == headers.get("host")


async def _answer(send: Send, status: int, why: str) -> None:
    body = f"{why}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
