"""Settings and limits of the page."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from voxlate.base.hub import address_of

GB = 2**30
LOOPBACK = ("127.0.0.1", "localhost", "::1")
WILDCARDS = ("0.0.0.0", "::", "")


@dataclass(frozen=True)
class Settings:
    """What a server offers, and to whom.

    runs: folders, weights files or starter:NAME by the label that the page shows; data: folder of uploads, jobs and
    results; token: lets browsers in; names: further host names by which browsers reach the page. upload_bytes: of one
    upload, and of the files that its archives unpack to; files: of one upload; keep_hours: after
    which uploads and results are removed.
    """

    runs: dict[str, str]
    data: Path
    token: str
    device: str = "auto"
    host: str = "127.0.0.1"
    port: int = 8765
    names: tuple[str, ...] = ()
    upload_bytes: int = 2 * GB
    files: int = 5000
    keep_hours: float = 24.0

    @property
    def host_names(self) -> frozenset[str]:
        """The names that a request may have as its host, in lower case."""
        own = LOOPBACK if self.host in LOOPBACK else (self.host,)
        return frozenset(name.lower() for name in (*own, *self.names) if name not in WILDCARDS)

    @property
    def session(self) -> str:
        """The value of the cookie of a browser that the token let in."""
        return hashlib.sha256(self.token.encode()).hexdigest()

    @property
    def address(self) -> str:
        """The URL that lets a browser in."""
        shown = next(iter(self.names), self.host)
        place = f"[{shown}]" if ":" in shown else shown
        return f"http://{place}:{self.port}/enter?token={self.token}"

    @property
    def cookie(self) -> str:
        """The name of the session's cookie; browsers send a cookie to every port of a host."""
        return f"voxlate_{self.port}"


def label_runs(runs: list[str]) -> dict[str, str]:
    """Runs by a label without their place: starter:NAME, the address on a hub or the folder's name, with a number where names are equal."""
    texts = dict[str, str]()
    for run in runs:
        place = run if run.startswith("starter:") else str(Path(run).absolute())
        if place in texts.values():
            continue
        name = run if run.startswith("starter:") else address_of(Path(place)) or Path(place).name
        label = name
        number = 1
        while label in texts:
            number += 1
            label = f"{name} ({number})"
        texts[label] = place
    return texts
