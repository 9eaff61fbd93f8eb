"""The server under connections that never finish a request."""

import socket
import time
from contextlib import ExitStack

import httpx
import pytest
from paging import TOKEN, serving

from voxlate.page import app

HOST = "127.0.0.1"
MOST, WAITING, WAIT_SECONDS = 20, 10, 0.5


@pytest.fixture
def port(tmp_path, monkeypatch):
    """The port of a server in a thread, with low limits."""
    monkeypatch.setattr(app, "MOST_CONNECTIONS", MOST)
    monkeypatch.setattr(app, "MOST_WAITING", WAITING)
    monkeypatch.setattr(app, "WAIT_SECONDS", WAIT_SECONDS)
    with serving({}, tmp_path / "data") as address:
        yield int(address.split(":")[-1].rstrip("/"))


def opened(port, sent):
    connection = socket.create_connection((HOST, port), timeout=20)
    connection.sendall(sent)
    return connection


def seconds_until_closed(connection):
    began = time.monotonic()
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - began


def enter(port):
    return httpx.get(f"http://{HOST}:{port}/enter", params={"token": TOKEN}, timeout=10)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
def test_half_open_connections_do_not_keep_a_browser_out(port, monkeypatch, sent):
    monkeypatch.setattr(app, "WAIT_SECONDS", 60.0)
    with ExitStack() as held:
        for _ in range(MOST + 10):
            held.enter_context(opened(port, sent))
        assert enter(port).status_code == 200


def test_a_request_whose_headers_do_not_end_is_ended(port):
    with opened(port, b"GET / HTTP/1.1\r\n") as slow:
        time.sleep(WAIT_SECONDS / 2)
        slow.sendall(b"X: y\r\n")  # which does not begin the time anew
        assert seconds_until_closed(slow) < 0.9 * WAIT_SECONDS


def test_a_request_whose_body_stops_is_ended_and_one_that_goes_on_is_not(port):
    session = enter(port).headers["set-cookie"].partition(";")[0]
    place = f"{HOST}:{port}"
    lines = [
        "POST /uploads HTTP/1.1",
        f"Host: {place}",
        f"Origin: http://{place}",
        f"Cookie: {session}",
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Length: 1000",
    ]
    with opened(port, "\r\n".join([*lines, "", ""]).encode()) as upload:
        upload.sendall(b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n')
        for _ in range(4):
            time.sleep(WAIT_SECONDS / 2)
            upload.sendall(b"some")
        assert 0.5 * WAIT_SECONDS < seconds_until_closed(upload) < 10
