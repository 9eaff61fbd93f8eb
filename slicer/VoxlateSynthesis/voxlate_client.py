"""A client of `voxlate serve` with Python's standard library alone: for 3D Slicer and for scripts.

    client = Client("http://127.0.0.1:8765/enter?token=...")        # the address that the server printed
    result = client.synthesise({"t1.nii.gz": data}, "starter:head-mr-to-ct")
    open("ct.nii.gz", "wb").write(client.read(result["images"]["ct"]))

Research software, not a medical device. /openapi.json of the server states all addresses.
"""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

WAIT_SECONDS = 0.5  # between two looks at a job
TIMEOUT_SECONDS = 60.0
DOING = {"check": "Comparing the scan with the models", "synthesise": "Synthesising"}
Tell = Callable[[str, "int | None"], None]


class VoxlateError(Exception):
    """One sentence: what was expected and what was found."""


class Client:
    """A session with a server; address: the URL with the token, as the server printed it."""

    def __init__(self, address: str) -> None:
        try:
            parts = urllib.parse.urlsplit(address.strip())
        except ValueError:  # such as an opening bracket alone
            parts = urllib.parse.SplitResult("", "", "", "", "")
        token = urllib.parse.parse_qs(parts.query).get("token", [""])[0]
        if parts.scheme not in ("http", "https") or not parts.netloc or not token:
            raise VoxlateError(
                "address: expected what `voxlate serve` printed, http://…/enter?token=…, found another. Copy all of it."
            )
        self.base = f"{parts.scheme}://{parts.netloc}"
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        # no proxy of the environment: scans and the token go to this server and nowhere else
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)
        self._ask("/enter?" + urllib.parse.urlencode({"token": token}))

    def models(self) -> list[str]:
        """The labels of the models."""
        return self._ask("/")["models"]

    def contrasts(self) -> list[str]:
        """The names of the contrasts that a scan may have."""
        return self._ask("/")["contrasts"]

    def options(self) -> dict[str, dict[str, Any]]:
        """The options of a synthesis by name, each with its JSON schema: type, range, choices and description."""
        schemas = self._ask("/openapi.json")["components"]["schemas"]
        fields = schemas["SynthesisForm"]["properties"]
        return {name: fields[name] for name in fields if name != "run"}

    def check(
        self, files: Mapping[str, bytes], tell: Tell = lambda stage, percent: None
    ) -> dict[str, Any]:
        """Upload the scans of one case by file name (t1.nii.gz, or the files of a DICOM series), and compare them with the models."""
        line = f"voxlate-{secrets.token_hex(16)}"
        parts = []
        for name, content in files.items():
            quoted = name.replace('"', "'")
            head = f'--{line}\r\nContent-Disposition: form-data; name="files"; filename="{quoted}"\r\nContent-Type: application/octet-stream\r\n\r\n'
            parts += [head.encode(), content, b"\r\n"]
        body = b"".join([*parts, f"--{line}--\r\n".encode()])
        return self.wait(self._ask("/uploads", body, f"multipart/form-data; boundary={line}"), tell)

    def synthesise(
        self,
        files: Mapping[str, bytes],
        model: str = "",
        tell: Tell = lambda stage, percent: None,
        **options: Any,
    ) -> dict[str, Any]:
        """Check scans and synthesise the images of a model, by default of the best one that takes them.

        options: those of `options`.
        Returns the state of the finished job, with the addresses of its images, warnings and the error to expect; its
        scans are removed from the server.
        """
        checked = self.check(files, tell)
        try:
            fit = self._choose(checked, model)
            form = {"run": fit["label"], **options}
            asked = urllib.parse.urlencode(form).encode()
            result = self.wait(self._ask(f"{checked['url']}/synthesise", asked), tell)
        finally:
            with contextlib.suppress(VoxlateError):  # the error before says more
                self.delete(checked)
        known = [said for said in fit["warnings"] if said not in result["warnings"]]
        return {**result, "warnings": known + result["warnings"]}

    def wait(
        self, job: Mapping[str, Any], tell: Tell = lambda stage, percent: None
    ) -> dict[str, Any]:
        """The state of a job when it has ended; raises VoxlateError where it failed. tell: called with a sentence and percent."""
        try:
            while True:
                state = self._ask(job["url"])
                tell(f"{DOING[state['kind']]}: {state['state']}", state["percent"])
                if state["state"] not in ("queued", "running"):
                    break
                time.sleep(WAIT_SECONDS)
        except BaseException:  # also Ctrl-C: nobody waits for the job any more
            with contextlib.suppress(VoxlateError):
                self.delete(job)
            raise
        if state["state"] == "done":
            return state
        self.delete(state)
        raise VoxlateError(state["why"])

    def read(self, url: str) -> bytes:
        """The content of a file of a result, such as result["images"]["ct"]."""
        return self._open(url)

    def delete(self, job: Mapping[str, Any]) -> None:
        """Remove a job with its files from the server, also one that waits or runs."""
        self._ask(f"/jobs/{job['job']}/delete", b"")

    @staticmethod
    def _choose(checked: Mapping[str, Any], model: str) -> dict[str, Any]:
        """The fit of the model, or the best one."""
        fits = [fit for fit in checked["fits"] if model in ("", fit["label"])]
        if not fits:
            known = ", ".join(fit["label"] for fit in checked["fits"]) or "none"
            raise VoxlateError(
                f"model: expected one of the server ({known}), found {model}. Choose one of these."
            )
        if fits[0]["why_not"]:
            raise VoxlateError(f"{fits[0]['label']}: {fits[0]['why_not']}")
        return fits[0]

    def _ask(
        self, url: str, body: bytes | None = None, kind: str = "application/x-www-form-urlencoded"
    ) -> Any:
        """What a page answers as JSON, after the redirect of a form."""
        return json.loads(self._open(url, body, kind))

    def _open(self, url: str, body: bytes | None = None, kind: str = "") -> bytes:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers |= {"Content-Type": kind, "Origin": self.base}
        request = urllib.request.Request(urllib.parse.urljoin(self.base, url), body, headers)
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise VoxlateError(self._sentence(error)) from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(getattr(error, "reason", error), ConnectionRefusedError):
                raise VoxlateError(
                    f"{self.base}: expected a running `voxlate serve`, found none. Start it, and give its new address."
                ) from error
            raise VoxlateError(
                f"{self.base}: expected a whole answer within {TIMEOUT_SECONDS:g} s, found a connection that ended ({error}). Look at the terminal of the server, and try again."
            ) from error

    def _sentence(self, error: urllib.error.HTTPError) -> str:
        """The sentence of a refusal, which is JSON or plain text; never the address, which may hold the token."""
        text = error.read().decode(errors="replace").strip()
        try:
            return json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            return (
                text
                or f"{self.base}: expected an answer, found the status {error.code}. Try again."
            )
