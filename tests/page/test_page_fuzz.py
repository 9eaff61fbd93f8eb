"""Seeded requests to all addresses of the page: none is a fault of the server, and none states a place."""

import random
import string

import pytest
from paging import BASE, TOKEN, Here

from voxlate.page.forms import FORMS

REQUESTS = 300
METHODS = (*["GET"] * 8, *["POST"] * 12, "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE")
ODD = (
    "",
    "..",
    "%2e%2e",
    "%00",
    "x" * 300,
    "ä",
    "🧠",
    "'\"<script>",
    "{{7*7}}",
    "-1",
    "1e9",
    "NaN",
    "\r\nx: y",
    "../../etc/passwd",
)
FIELDS = sorted(
    {"files", "name_0", "token"}.union(*(form.schema["properties"] for form in FORMS.values()))
)
TYPES = (
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=b",
    "multipart/form-data; boundary=" + "b" * 200,
    "application/json",
    "",
    "text/plain; charset=no-such",
)
HEADERS = (
    "hx-request",
    "range",
    "if-none-match",
    "accept",
    "accept-encoding",
    "x-forwarded-for",
    "content-encoding",
)


def odd_text(draw: random.Random) -> str:
    if draw.random() < 0.6:
        return draw.choice(ODD)
    return "".join(draw.choices(string.printable, k=draw.randrange(40)))


def odd_path(draw: random.Random, names: list[str]) -> str:
    """An address of the page with parts that may be wrong."""
    name = draw.choice([*names, odd_text(draw)])
    file = draw.choice(["t2.nii.gz", "report.html", "dicom.zip", "result.json", odd_text(draw)])
    path = draw.choice(
        [
            "/", "/queue", "/enter", "/uploads", "/folders", "/static/page.css", f"/static/{file}",
            f"/uploads/{name}", f"/uploads/{name}/names", f"/uploads/{name}/synthesise", f"/jobs/{name}",
            f"/jobs/{name}/cancel", f"/jobs/{name}/delete", f"/jobs/{name}/{file}",
            f"/jobs/{name}/images/{file}", f"/jobs/{name}/views/{file}", f"/jobs/{name}/{file}/{file}", f"/{file}",
            "/training", "/training/queue", "/training/survey", "/training/prepared", "/training/plan",
            "/training/recipe", "/training/runs", "/training/further", "/training/calibrate",
            "/training/compare", "/training/picture", f"/training/jobs/{name}", f"/training/jobs/{name}/start",
            f"/training/jobs/{name}/prepare", f"/training/jobs/{name}/stop", f"/training/jobs/{name}/again",
        ]
    )  # fmt: skip
    return path if draw.random() < 0.9 else f"{path}?{draw.choice(FIELDS)}={odd_text(draw)}"


def odd_body(draw: random.Random) -> tuple[bytes, str]:
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


@pytest.mark.slow
def test_no_request_is_a_fault_of_the_server(page, run, cohort, tmp_path):
    draw = random.Random(34)
    root = tmp_path / "root"
    root.mkdir()
    made = page({"run": str(run)}, root=root, requests=10**6, entries=10**6, queue=5000)
    made.upload(cohort / "case1" / "t1.nii.gz")
    (check,) = made.jobs.all()
    job = made.jobs.take(("check",))
    Here(made.jobs.folder(check.name))
    made.jobs.change(check.name, state="done", ended=job.started)
    made.jobs.add("synthesise", "t2", {"check": check.name, "label": "run"}, 5000)
    shown = {"place": ".", "new": "", "options": {}}
    looked = {"root": str(root), "arguments": {"root": str(root)}, "options": {}, "shown": shown}
    made.jobs.add("survey", "root", looked, 5000)
    codes = dict[int, int]()
    for number in range(REQUESTS):
        names = [one.name for one in made.jobs.all()[-5:]]
        body, kind = odd_body(draw)
        headers = {"content-type": kind, "origin": BASE}
        if draw.random() < 0.2:
            value = odd_text(draw).encode("ascii", "ignore").decode()
            headers[draw.choice(HEADERS)] = "".join(one for one in value if one.isprintable())
        method = draw.choice(METHODS)
        path = odd_path(draw, names)
        answer = made.client.request(method, encoded(path), content=body, headers=headers)
        codes[answer.status_code] = codes.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, f"request {number}: {method} {path!r} {kind} {body!r}"
        assert str(tmp_path) not in answer.text
        assert TOKEN not in answer.text
    assert {200, 303, 400, 404, 405} <= codes.keys()
    assert made.get("/").status_code == 200


def encoded(path: str) -> str:
    """A path that a client can send: control characters and others are written as %XX, what is encoded stays."""
    from urllib.parse import quote

    return quote(path, safe="/?=%&.")
