"""Kill −9 of the page at a random moment between its start and the end of a synthesis, and a restart on the same folder."""

import hashlib
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from children import Child, command_line, strays
from disturb import FAULT, SAME
from scenarios import reset
from voxlate.base.files import LOCK

TOKEN = "a token of chaos tests"
DATA = "served"
LONGEST = 120.0  # seconds until the page answers or a job ends, also on a busy machine
AFTER = 0.2  # share of the undisturbed time by which a kill may come after its end


@dataclass
class Visit:
    """What a browser does with the page, step by step, and how far it is.

    check, job: the places of the scan's check and of the synthesis, which the page answered with; image: the checksum of the downloaded image.
    """

    work: Path
    port: int
    check: str = ""
    job: str = ""
    image: str = ""

    def __post_init__(self) -> None:
        base = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=base, headers={"origin": base}, timeout=30)

    def begin(self) -> Child:
        """Start the page; it is not waited for."""
        token = self.work / "token"
        token.touch(0o600)
        token.write_text(TOKEN)
        options = (
            "--port",
            f"{self.port}",
            "--data",
            DATA,
            "--token-file",
            token.name,
            "--device",
            "cpu",
        )
        return Child(command_line(("serve", "run", *options)), self.work)

    def step(self) -> bool:
        """Do what can be done at once; whether something was missing for it."""
        try:
            return self._step()
        except httpx.HTTPError:
            return True

    def _step(self) -> bool:
        if self.client.get("/enter", params={"token": TOKEN}).status_code >= 400:
            return True
        if not self.check:
            scan = self.work / "cohort" / "case0" / "t1.nii.gz"
            files = [("files", (scan.name, scan.read_bytes()))]
            answer = self.client.post("/uploads", files=files)
            self.check = answer.headers["location"]
        if not self.job:
            asked = {"run": "run", "samples": "2"}
            answer = self.client.post(f"{self.check}/synthesise", data=asked)
            if answer.status_code != 303:
                return True
            self.job = answer.headers["location"]
        image = self.client.get(f"{self.job}/images/t2.nii.gz")
        if image.status_code != 200:
            return True
        self.image = hashlib.sha256(image.content).hexdigest()
        return False

    def finish(self, until: float) -> None:
        """Take steps until the image is there or a moment has come."""
        while time.monotonic() < until and self.step():
            time.sleep(0.02)


@dataclass(frozen=True)
class Undisturbed:
    """The image of a page that was not killed, and the seconds from its start until then."""

    image: str
    seconds: float


def undisturbed(state: Path, work: Path) -> Undisturbed:
    """One visit without a kill."""
    reset(work, state)
    visit = Visit(work, free_port())
    page = visit.begin()
    visit.finish(page.start + LONGEST)
    seconds = time.monotonic() - page.start
    page.kill()
    page.wait()
    if not visit.image:
        raise SystemExit("serve: expected an image of the page, found none")
    return Undisturbed(visit.image, seconds)


def kill_the_page(state: Path, work: Path, seen: Undisturbed, draw: np.random.Generator) -> str:
    """SIGKILL at a random moment; after a restart the same visit goes on with what the page had answered."""
    reset(work, state)
    visit = Visit(work, free_port())
    page = visit.begin()
    visit.finish(page.start + float(draw.uniform(0, (1 + AFTER) * seen.seconds)))
    page.kill()
    page.wait()
    again = visit.begin()
    visit.image = ""
    visit.finish(again.start + LONGEST)
    again.kill()
    ended = again.wait()
    if not visit.image:
        return f"{FAULT}: no image after the restart: {ended.err[-800:]}"
    if visit.image != seen.image:
        return f"{FAULT}: another image after the restart"
    if not (again.workers_are_gone() and page.workers_are_gone()):
        return f"{FAULT}: processes remain"
    left = [path for path in strays(work / DATA) if Path(path).name != LOCK]
    return f"{FAULT}: remaining files {left}" if left else SAME


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
