"""Nobody gets in: the token, the session, names of hosts, the origin of forms, and headers."""

import os
import re
import subprocess
import sys
from pathlib import Path

from paging import BASE, TOKEN

import voxlate
from refusals import refuses
from rows import every_row, slow
from voxlate.clinic.share_options import ServeOptions
from voxlate.page.access import CONTENT_POLICY
from voxlate.page.jobs import Jobs
from voxlate.page.server import check_server, label_runs, serve

PATHS = "/ /uploads/20260101-000000-0123456789ab /jobs/x /jobs/x/out/y /docs /openapi.json"
TEMPLATES = Path(voxlate.__file__).parent / "page" / "templates"


def test_the_token_alone_lets_browsers_in(page):
    made = page()
    for token in ("", "another", "ä" * 20, TOKEN[:-1]):
        stranger = made.stranger()
        assert stranger.get("/enter", params={"token": token}).status_code == 403
        assert stranger.get("/").status_code == 401
    for _ in range(2):
        browser = made.stranger()
        answer = browser.get("/enter", params={"token": TOKEN})
        assert answer.status_code == 200
        assert re.search(r"; HttpOnly; Path=/; SameSite=strict$", answer.headers["set-cookie"])
        assert TOKEN not in answer.text
        assert TOKEN not in answer.headers["set-cookie"]
        assert browser.get("/").status_code == 200


def test_nothing_but_styles_and_scripts_is_shown_without_a_session(page):
    made = page()
    stranger = made.stranger()
    for path in PATHS.split():
        assert stranger.get(path).status_code == 401, path
        assert stranger.get(path, headers={"cookie": "voxlate_8765=guess"}).status_code == 401
        assert stranger.post(path, headers={"origin": BASE}, content=b"x").status_code == 401
    assert stranger.get("/static/page.css").status_code == 200
    assert [made.get(path).status_code for path in ("/docs", "/redoc")] == [404] * 2


OTHER_HOSTS = ("evil.example", "127.0.0.1.evil.example:8765", "", "a@b[", "10.0.0.1")
OWN_HOSTS = ("127.0.0.1:8765", "localhost:8765", "Page.Example.org")


def test_other_host_names_are_refused_whatever_the_cookie_says_and_own_ones_accepted(page):
    client = page(names=("page.example.org",)).client
    for path, hosts, code in (("/", OTHER_HOSTS, 421), ("/static/page.css", OWN_HOSTS, 200)):
        for host in hosts:
            assert client.get(path, headers={"host": host}).status_code == code, host


def test_a_form_of_another_origin_is_refused(page):
    client = page().client
    del client.headers["origin"]
    others = ("null", "http://evil.example", "http://127.0.0.1:9999", f"{BASE}.evil.example")
    for origin in (None, *others, "[", "file://", BASE):
        headers = {} if origin is None else {"origin": origin}
        answer = client.post("/jobs/x/delete", headers=headers)
        assert answer.status_code == (404 if origin == BASE else 403), origin


HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
}


def test_every_response_has_the_security_headers(page, monkeypatch):
    made = page()
    stranger = made.stranger()
    answers = [made.get(path) for path in ("/", "/nothing", "/static/page.css")]
    answers += [
        made.post("/uploads", content=b"x"),
        stranger.get("/"),
        stranger.get("/", headers={"host": "evil.example"}),
    ]
    with monkeypatch.context() as fault:
        fault.setattr(Jobs, "all", None)
        answers.append(made.get("/"))
    assert answers[-1].status_code == 500
    for answer in answers:
        assert {**answer.headers}.items() >= HEADERS.items()
    assert made.get("/").headers["cache-control"] == "no-store"


def test_a_browser_asks_whether_a_script_has_changed_and_gets_it_only_then(page):
    made = page()
    first = made.get("/static/viewer.js")
    for etag, code, content in (
        (first.headers["etag"], 304, b""),
        ('"another"', 200, first.content),
    ):
        answer = made.get("/static/viewer.js", headers={"if-none-match": etag})
        assert (answer.status_code, answer.content) == (code, content)
        assert answer.headers["cache-control"] == "private, no-cache"


@every_row("template", sorted(TEMPLATES.glob("*.html")))
def test_no_template_has_inline_code_or_names_another_host(template):
    text = template.read_text()
    assert not re.search(r"<script(?![^>]* src=\"/static/)", text)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", text)


def test_a_request_without_a_length_is_refused(page):
    assert page().post("/jobs/x/delete", content=iter([b"place=x"])).status_code == 413


@every_row(
    "options, named",
    [
        ({"host": "10.0.0.5"}, "--token-file FILE"),
        ({"host": "0.0.0.0", "token_file": "x" * 16}, "--name NAME"),
        ({"token_file": "short"}, "at least 16"),
        ({"runs": ["nowhere"]}, "nowhere"),
        ({"runs": []}, "no starter"),
    ],
)
def test_options_that_would_let_others_in_or_serve_nothing_are_refused(tmp_path, options, named):
    if text := options.get("token_file"):
        file = tmp_path / "token"
        file.touch(0o600)
        file.write_text(text)
        options = {**options, "token_file": file}
    with refuses(named):
        serve(**{"runs": [tmp_path], **options})


@slow
def test_the_server_starts_without_torch():
    """It shows what the processes of jobs wrote, and holds no network."""
    text = "import sys, voxlate.page.app, voxlate.page.server; print('torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "False\n"


def test_the_printed_address_has_a_new_token_each_time(tmp_path):
    one, other = (check_server([tmp_path], ServeOptions()) for _ in range(2))
    assert one.address.startswith("http://127.0.0.1:8765/enter?token=")
    assert one.token != other.token
    assert len(one.token) >= 32


def test_runs_of_one_name_have_different_labels(tmp_path):
    runs = label_runs([str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run"), "starter:x"])
    assert list(runs) == ["run", "run (2)", "starter:x"]


def test_a_token_is_read_from_a_file_of_its_owner_alone_and_never_from_the_command_line(
    typed, tmp_path, monkeypatch
):
    served = []
    monkeypatch.setattr("voxlate.page.app.run_server", served.append)
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    answer = typed("serve . --data data --token-file token --host 0.0.0.0 --name ward")
    assert "not encrypted" in answer.out
    assert served[0].token == TOKEN
    assert served[0].address.startswith("http://ward:8765/")
    assert "--token-file" in typed(f"serve . --data data --token '{TOKEN}'").refusal
    if os.name == "posix":
        file.chmod(0o640)
        said = typed("serve . --data data --token-file token").err
        assert "found a file that others may read" in said
    monkeypatch.setattr("voxlate.page.server.PACKAGES", ["no_such_package"])
    assert "voxlate[serve]" in typed("serve . --data data").refusal
    assert len(served) == 1
