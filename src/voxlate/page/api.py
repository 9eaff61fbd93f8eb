"""What the pages answer to programs, which ask with Accept: application/json; /openapi.json states it.

A program takes the way of a browser: it enters with the token, keeps the cookie, sends the Origin of the server with its
forms, and follows their redirects to the page of a job.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, Field
from starlette.requests import Request

from voxlate.base.messages import Grade
from voxlate.page.words import ANYWAY

JSON = "application/json"
OPENAPI = "/openapi.json"


@dataclass(frozen=True)
class Said:
    """A warning: its grade and its sentence."""

    grade: Grade
    text: str


@dataclass(frozen=True)
class Fit:
    """Whether a model can synthesise images from scans, and why not.

    target: modalities that it synthesises.
    names: modalities by which its scans may be called.
    why_not: "" where it fits.
    inputs: as `voxlate synth RUN` takes them, relative to the upload's folder.
    used: places of the scans by modality.
    targets: modalities to synthesise.
    worst: the highest grade of the warnings.
    intervals: whether the image has prediction intervals.
    limits: of a starter.
    """

    label: str
    title: str = ""
    target: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    why_not: str = ""
    inputs: tuple[str, ...] = ()
    used: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    warnings: tuple[Said, ...] = ()
    worst: Grade | None = None
    intervals: bool = False
    limits: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobState:
    """A job, and what it has found.

    kind: check or synthesise.
    state: queued, running, done or failed.
    at: when it was asked for, in the time of the machine that runs voxlate.
    stage, percent, seconds_left: how far a running job is; the numbers are None before they are known.
    why: the reason of a failure.
    fits: of a check, the best first.
    images: addresses by name, as synth writes them; also NAME_low and NAME_high.
    descriptions: what each image shows, such as the lower interval end, and its grade, for names of files and nodes.
    files: addresses of the report and the DICOM series.
    expected: sentences on the bounds of the error.
    verdict, summary: in a word and in sentences, the error of the images, and whether not to trust them.
    windows: values shown as black and white by image.
    """

    job: str
    url: str
    kind: str
    title: str
    state: str
    at: str
    stage: str = ""
    percent: int | None = None
    seconds_left: int | None = None
    why: str = ""
    fits: list[Fit] = field(default_factory=list)
    images: Mapping[str, str] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    warnings: list[Said] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    verdict: str = ""
    summary: str = ""
    windows: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class SynthesisForm(BaseModel, extra="forbid"):
    """What a synthesis is asked for: the options of `voxlate synth` that the page has.

    Settings of the sampling stay with the command line: the intervals hold for those of the calibration alone.
    """

    run: str = Field(description="Label of the model.")
    anyway: bool = Field(
        False,
        title=ANYWAY,
        description="Also synthesise a case that is graded “do not trust”.",
    )


@dataclass(frozen=True)
class Listed:
    """The labels of the models, the names of contrasts that a scan may have, and all jobs."""

    models: list[str]
    contrasts: list[str]
    jobs: list[JobState]


def wants_json(request: Request) -> bool:
    """Whether a program asks, which reads no page."""
    return JSON in request.headers.get("accept", "")


_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "properties": {"files": _FILES}, "required": ["files"]}
UPLOAD = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}}
