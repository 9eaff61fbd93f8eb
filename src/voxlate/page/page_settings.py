"""Settings and limits of the page."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

LOCAL = ("127.0.0.1", "localhost")  # the connection is not encrypted, but stays on this machine
WILDCARDS = ("0.0.0.0", "")  # listen on all addresses of this machine


@dataclass(frozen=True)
class Settings:
    """What a server offers, and to whom.

    runs: folders, weights files or starter:NAME by the label that the page shows; data: folder of uploads, jobs and
    results; token: lets browsers in; host: the address to listen on; names: further host names by which browsers reach the
    page; upload_bytes: of one upload, also unpacked; keep_hours: after which uploads and results are removed.
    """

    runs: dict[str, str]
    data: Path
    token: str
    device: str = "auto"
    host: str = LOCAL[0]
    port: int = 8765
    names: tuple[str, ...] = ()
    upload_bytes: int = 4 * 2**30
    keep_hours: float = 24.0

    @property
    def host_names(self) -> frozenset[str]:
        """The names that a request may have as its host, in lower case."""
        return frozenset(name.lower() for name in (*LOCAL, self.host, *self.names))

    @property
    def session(self) -> str:
        """The value of the cookie of a browser that the token let in."""
        return hashlib.sha256(self.token.encode()).hexdigest()

    @property
    def address(self) -> str:
        """The URL that lets a browser in."""
        shown = self.names[0] if self.host in WILDCARDS else self.host
        return f"http://{shown}:{self.port}/enter?token={self.token}"

    @property
    def cookie(self) -> str:
        """The name of the session's cookie; browsers send a cookie to every port of a host."""
        return f"voxlate_{self.port}"
