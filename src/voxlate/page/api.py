"""What the pages answer to programs, which ask with Accept: application/json; /openapi.json states it.

A program takes the way of a browser: it enters with the token, keeps the cookie, sends the Origin of the server with its
forms, and follows their redirects to the page of a job.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

JSON = "application/json"
OPENAPI = "/openapi.json"


@dataclass(frozen=True)
class Refused:
    """Why a request was refused: one sentence."""

    error: str


@dataclass(frozen=True)
class Entered:
    """The token was right; the cookie of the response is the session."""

    entered: bool = True


@dataclass(frozen=True)
class Said:
    """A warning: its grade (note, caution, do not trust) and its sentence."""

    grade: str
    text: str


@dataclass(frozen=True)
class ModelFit:
    """Whether a model takes the uploaded scans: why_not is empty where it does.

    used: the place of each scan by modality; targets: modalities that would be synthesised; answers: mean, sample.
    """

    label: str
    why_not: str
    used: Mapping[str, str]
    targets: list[str]
    answers: list[str]
    warnings: list[Said]


@dataclass(frozen=True)
class JobState:
    """A job: kind (check, synthesise), state (queued, running, done, failed, cancelled), and what it has found.

    percent, left: of a running job; why: of a failed one. fits: of a check, the best first. images, files: addresses by
    name, of the images as synth writes them (also NAME_low and NAME_high), and of the report and the DICOM series.
    expected: sentences on the error; use: the verdict in one sentence.
    """

    job: str
    url: str
    kind: str
    title: str
    state: str
    percent: int | None = None
    left: str = ""
    why: str = ""
    fits: list[ModelFit] = field(default_factory=list)
    images: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    warnings: list[Said] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    use: str = ""


@dataclass(frozen=True)
class Listed:
    """The labels of the models, and all jobs."""

    models: list[str]
    jobs: list[JobState]


def wants_json(request: Request) -> bool:
    """Whether a program asks, which reads no page."""
    return JSON in request.headers.get("accept", "")


def stated_fits(found: Mapping[str, Any]) -> list[ModelFit]:
    """The models of a finished check."""
    return [
        ModelFit(
            fit["label"],
            fit["why_not"],
            fit["used"],
            [*fit["targets"]],
            [*fit["answers"]],
            said_of(fit["warnings"]),
        )
        for fit in found.get("fits", ())
    ]


def said_of(warnings: Any) -> list[Said]:
    """Warnings as pairs of grade and sentence."""
    return [Said(grade or "note", text) for grade, text in warnings]


def form(kind: str, required: str = "", **fields: Mapping[str, Any]) -> dict[str, Any]:
    """The form of a request for openapi.json; fields: their schemas by name."""
    schema: dict[str, Any] = {"type": "object", "properties": fields}
    if required:
        schema["required"] = [required]
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}}


_TEXT = {"content": {"text/plain": {"schema": {"type": "string"}}}}
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refused, "description": "What was expected and found, in one sentence"},
    401: {**_TEXT, "description": "No session: enter with the token first"},
    403: {**_TEXT, "description": "A form without the Origin of this server"},
    404: {"model": Refused, "description": "There is no such job or file"},
    422: {"model": Refused, "description": "A form without a field that it must have"},
    429: {**_TEXT, "description": "Too many requests in a minute"},
}


def answers(model: type | None = None, **more: Any) -> dict[str, Any]:
    """The responses of an address for openapi.json: what it answers, and its refusals."""
    own = {"model": model, "description": (model.__doc__ or "").split("\n")[0]} if model else more
    return {"responses": {200: own, **REFUSALS}}
