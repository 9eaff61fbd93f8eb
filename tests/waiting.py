"""Waiting for what other threads and processes do, and a port for them."""

import socket
import time


def until(holds, seconds=60):
    """Waits until a condition holds."""
    over = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < over
        time.sleep(0.02)


def free_port():
    """A port of this machine on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
