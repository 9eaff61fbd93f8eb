"""Who may use the page: host names, the origin of forms, the session, and the headers of every response."""

import hmac
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voxlate.page.api import wants_json
from voxlate.page.page_settings import Settings

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
ENTER, STATIC = "/enter", "/static/"  # without a session
# Scripts and styles hold nothing of a patient. The browser keeps them, and asks by their ETag whether they have changed:
# after an update of voxlate, an old script beside a new page would not work.
STATIC_CACHE = "private, no-cache"
READING = ("GET", "HEAD")


@dataclass
class Access:
    """An ASGI application around another one, which refuses requests and adds headers."""

    app: ASGIApp
    settings: Settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":
            return  # the page has no web sockets
        request = Request(scope)
        app: ASGIApp = self.app

        async def send_with_headers(message: Message) -> None:
            """Add the headers that a response does not have."""
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if request.scope["path"].startswith(STATIC):
                    headers.setdefault("cache-control", STATIC_CACHE)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            check_access(request, self.settings)
        except HTTPException as refusal:
            app = PlainTextResponse(f"{refusal.detail}\n", refusal.status_code)
            if wants_json(request):
                app = JSONResponse({"error": refusal.detail}, refusal.status_code)
        await app(scope, receive, send_with_headers)


def check_access(request: Request, settings: Settings) -> None:
    """Raise HTTPException with one sentence for a request that may not pass."""
    headers = request.headers
    if _host_name(headers) not in settings.host_names:
        raise HTTPException(
            421, "host: expected a name of this server, found another. Use the printed URL."
        )
    is_writing = request.method not in READING
    host = headers.get("host")
    if is_writing and headers.get("origin") not in (f"http://{host}", f"https://{host}"):
        raise HTTPException(
            403, "origin: expected a form of this page, found another. Use the page itself."
        )
    session = request.cookies.get(settings.cookie, "")
    is_in = hmac.compare_digest(session.encode(), settings.session.encode())
    if not is_in and not request.scope["path"].startswith((ENTER, STATIC)):
        raise HTTPException(
            401,
            "session: expected a browser that the token let in, found another. Open the address that the server printed.",
        )
    length = headers.get("content-length", "")
    if is_writing and not (length.isascii() and length.isdecimal()):
        raise HTTPException(
            411, "request: expected a stated length, found none. Use the page itself."
        )
    most = settings.upload_bytes
    if is_writing and int(length[:20]) > most:
        raise HTTPException(
            413, f"request: expected at most {most} bytes, found more. Choose fewer files."
        )


def _host_name(headers: Headers) -> str:
    """The host without its port, in lower case; "" where it is not given once, or cannot be read."""
    hosts = headers.getlist("host")
    try:
        return (urlsplit(f"//{hosts[0]}").hostname or "").lower() if len(hosts) == 1 else ""
    except ValueError:
        return ""
