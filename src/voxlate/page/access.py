"""Who may use the page: host names, the origin of forms, the session, and the headers of every response."""

import hmac
import re
from collections.abc import Awaitable, Callable

from fastapi import Request, Response

from voxlate.page.page_settings import Settings
from voxlate.page.pages import site_of

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


async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer a request, or refuse it, and add the headers that the response does not have."""
    site = site_of(request)
    refusal = why_refused(request, site.settings)
    response = site.error(request, *refusal) if refusal else await answer(request)
    if request.scope["path"].startswith(STATIC):
        response.headers.setdefault("cache-control", STATIC_CACHE)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def why_refused(request: Request, settings: Settings) -> tuple[int, str] | None:
    """The status and one sentence for a request that may not pass; None for any other."""
    headers = request.headers
    host = headers.get("host", "")
    if re.sub(r":\d+$", "", host).lower() not in settings.host_names:
        return (
            421,
            "host: expected a name of this server, found another. Use the printed URL.",
        )
    is_writing = request.method not in READING
    if is_writing and headers.get("origin") not in (f"http://{host}", f"https://{host}"):
        return (
            403,
            "origin: expected a form of this page, found another. Use the page itself.",
        )
    session = request.cookies.get(settings.cookie, "")
    is_in = hmac.compare_digest(session.encode(), settings.session.encode())
    if not is_in and not request.scope["path"].startswith((ENTER, STATIC)):
        return (
            401,
            "session: expected a browser that the token let in, found another. Open the address that the server printed.",
        )
    length = headers.get("content-length", "")
    most = settings.upload_bytes
    if is_writing and not (length.isdecimal() and int(length[:20]) <= most):
        return (
            413,
            f"request: expected a stated length of at most {most} bytes, found another. Choose fewer files.",
        )
    return None
