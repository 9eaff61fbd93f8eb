"""Seeded requests to all addresses of the page: none is a fault of the server, and none states a place."""

import random
import re
import string
from collections import Counter
from urllib.parse import quote

from paging import BASE, TOKEN, Here

from rows import slow
from voxlate.page.api import SynthesisForm
from voxlate.page.pages import router

REQUESTS = 300
METHODS = ("GET", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE")
ODD = ("", "\r\nx: y", "x" * 300, "..", "%2e%2e", "%00", "ä", "🧠", "'\"<script>", "{{7*7}}", "-1")
ODD += ("1e9", "NaN", "../../etc/passwd", "t2.nii.gz", "report.html", "dicom.zip")
FIELDS = sorted({"files", "names", "token", *SynthesisForm.model_fields})
PATHS = [*(route.path for route in router.routes), "/static/{file}", "/{file}"]


def odd_text(draw):
    return draw.choice([*ODD, "".join(draw.choices(string.printable, k=draw.randrange(40)))])


def odd_request(draw, names):
    """An address of the page with parts that may be wrong, and a body that may be a form."""
    path = draw.choice(PATHS)
    for part in re.findall(r"{\w+}", path):
        path = path.replace(part, draw.choice([*names, odd_text(draw)]), 1)
    fields = {draw.choice(FIELDS): odd_text(draw) for _ in range(draw.randrange(5))}
    bodies = {
        "data": fields,
        "files": [("files", (text or "f", text)) for text in fields.values()],
        "content": draw.randbytes(draw.randrange(300)),
    }
    kind = draw.choice([*bodies])
    return draw.choice(METHODS), quote(path, safe="/?=%&."), {kind: bodies[kind]}


@slow
def test_no_request_is_a_fault_of_the_server(page, run, cohort, tmp_path):
    draw = random.Random(34)
    made = page({"run": str(run)})
    made.upload(cohort / "case1" / "t1.nii.gz")
    (check,) = made.jobs.all()
    made.jobs.take()
    Here(made.jobs.folder(check.name))
    made.jobs.end(check.name)
    made.jobs.add("synthesise", "t2", {"check": check.name}, made.jobs.reserve())
    codes = Counter[int]()
    for number in range(REQUESTS):
        names = [one.name for one in made.jobs.all()[-5:]]
        method, path, body = odd_request(draw, names)
        answer = made.client.request(method, path, headers={"origin": BASE}, **body)
        codes[answer.status_code] += 1
        assert answer.status_code < 500, f"request {number}: {method} {path!r} {body!r}"
        assert str(tmp_path) not in answer.text
        assert TOKEN not in answer.text
    assert {200, 303, 400, 404, 405} <= codes.keys()
    assert made.get("/").status_code == 200
