"""Seeded requests to all addresses of the page: none is a fault of the server, and none states a place."""

import random
import string
from collections import Counter
from urllib.parse import quote

from paging import BASE, TOKEN, Here

from rows import slow
from voxlate.page.forms import SCHEMA

REQUESTS = 300
METHODS = (*["GET"] * 8, *["POST"] * 12, "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE")
ODD = ["", "\r\nx: y", "x" * 300, *["..", "%2e%2e", "%00", "ä", "🧠", "'\"<script>", "{{7*7}}", "-1", "1e9", "NaN", "../../etc/passwd"]]  # fmt: skip
FIELDS = sorted({"files", "name_0", "place", "token", *SCHEMA["properties"]})
TYPES = (
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=b",
    "multipart/form-data; boundary=" + "b" * 200,
    "application/json",
    "",
    "text/plain; charset=no-such",
)
HEADERS = [
    "hx-request",
    "range",
    "if-none-match",
    "accept",
    "accept-encoding",
    "x-forwarded-for",
    "content-encoding",
]
PATHS = [
    "/",
    "/enter",
    "/uploads",
    "/folders",
    "/static/page.css",
    "/static/{file}",
    "/uploads/{name}",
    "/uploads/{name}/names",
    "/uploads/{name}/synthesise",
    "/jobs/{name}",
    "/jobs/{name}/cancel",
    "/jobs/{name}/delete",
    "/jobs/{name}/{file}",
    "/jobs/{name}/images/{file}",
    "/jobs/{name}/views/{file}",
    "/jobs/{name}/{file}/{file}",
    "/{file}",
]


def odd_text(draw):
    if draw.random() < 0.6:
        return draw.choice(ODD)
    return "".join(draw.choices(string.printable, k=draw.randrange(40)))


def odd_path(draw, names):
    """An address of the page with parts that may be wrong."""
    name = draw.choice([*names, odd_text(draw)])
    file = draw.choice(["t2.nii.gz", "report.html", "dicom.zip", "result.json", odd_text(draw)])
    path = draw.choice(PATHS).replace("{name}", name).replace("{file}", file)
    return path if draw.random() < 0.9 else f"{path}?{draw.choice(FIELDS)}={odd_text(draw)}"


def odd_body(draw):
    """A body and its type; half of the bodies are forms that a browser might send."""
    kind = draw.choice(TYPES)
    fields = [(draw.choice(FIELDS), odd_text(draw)) for _ in range(draw.randrange(5))]
    if draw.random() < 0.25:
        return draw.randbytes(draw.randrange(300)), kind
    if not kind.startswith("multipart"):
        return "&".join(f"{name}={value}" for name, value in fields).encode(), kind
    parts = []
    for name, value in fields:
        file = f'; filename="{odd_text(draw)}"' if draw.random() < 0.7 else ""
        parts.append(
            f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n{value}\r\n'
        )
    return ("".join(parts) + "--b--\r\n").encode(), kind


@slow
def test_no_request_is_a_fault_of_the_server(page, run, cohort, tmp_path):
    draw = random.Random(34)
    root = tmp_path / "root"
    root.mkdir()
    made = page({"run": str(run)}, root=root, entries=10**6, queue=5000)
    made.upload(cohort / "case1" / "t1.nii.gz")
    (check,) = made.jobs.all()
    job = made.jobs.take()
    Here(made.jobs.folder(check.name))
    made.jobs.change(check.name, state="done", ended=job.started)
    made.jobs.add("synthesise", "t2", {"check": check.name, "label": "run"}, 5000)
    codes = Counter[int]()
    for number in range(REQUESTS):
        names = [one.name for one in made.jobs.all()[-5:]]
        body, kind = odd_body(draw)
        headers = {"content-type": kind, "origin": BASE}
        if draw.random() < 0.2:
            value = odd_text(draw).encode("ascii", "ignore").decode()
            headers[draw.choice(HEADERS)] = "".join(one for one in value if one.isprintable())
        method = draw.choice(METHODS)
        path = odd_path(draw, names)
        answer = made.client.request(
            method, quote(path, safe="/?=%&."), content=body, headers=headers
        )
        codes[answer.status_code] += 1
        assert answer.status_code < 500, f"request {number}: {method} {path!r} {kind} {body!r}"
        assert str(tmp_path) not in answer.text
        assert TOKEN not in answer.text
    assert {200, 303, 400, 404, 405} <= codes.keys()
    assert made.get("/").status_code == 200
