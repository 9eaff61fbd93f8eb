"""What the processes of jobs write for the page, and the names of their files. This module imports nothing heavy.

The server reads these files alone, so that it starts at once and holds no network.
"""

from dataclasses import dataclass, field
from typing import Literal

from voxlate.system.codes import GRADES, Grade

CHECKED, RESULT = "checked.json", "result.json"  # of a finished check, and of a finished synthesis
OUT, VIEWS, REPORT = "out", "views", "report.html"
FOUND, PLANNED = "found.json", "planned"  # of a job of cohorts and trainings; the folder of a plan
DICOM = "dicom"  # the folder of the derived series, before it is a zip
DICOM_ZIP = f"{DICOM}.zip"
Role = Literal["source", "synthesis", "lower", "upper", "width", "spread"]
Answer = Literal["mean", "sample"]


@dataclass(frozen=True)
class Entry:
    """A file or DICOM series of an upload: its place below the upload's folder, and what it is.

    why: the reason where it cannot be read.
    """

    place: str
    title: str
    grid: str = ""
    unit: str = ""
    why: str = ""


@dataclass(frozen=True)
class Fit:
    """Whether a model can synthesise images from scans, and why not.

    inputs: as `voxlate synth RUN` takes them, relative to the upload's folder; used: places of the scans by modality;
    warnings: with their grades; answers: "mean" and "sample", as far as the model has them, those with intervals first;
    intervals: the answers that are calibrated; samples, steps: of its recipe, None where they have no effect; names:
    modalities by which its scans may be called; accepts, limits: of a starter's card.
    """

    label: str
    title: str = ""
    source: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    why_not: str = ""
    inputs: tuple[str, ...] = ()
    used: dict[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    warnings: tuple[tuple[Grade, str], ...] = ()
    answers: tuple[Answer, ...] = ()
    samples: int | None = None
    steps: int | None = None
    intervals: tuple[Answer, ...] = ()
    accepts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    limits: tuple[str, ...] = ()

    @property
    def worst(self) -> Grade:
        """The highest grade among the warnings."""
        return max((grade for grade, _ in self.warnings), key=GRADES.index, default="note")

    @property
    def rank(self) -> tuple[bool, int]:
        """Sort key: models that fit come first, those with the mildest warnings before others."""
        return bool(self.why_not), GRADES.index(self.worst)


@dataclass(frozen=True)
class Checked:
    """What a check has found. others: sentences on files that are not used; names: modalities that a scan may be called."""

    entries: tuple[Entry, ...]
    fits: tuple[Fit, ...]
    others: tuple[str, ...]
    names: tuple[str, ...]
    by_file: dict[str, str]


@dataclass(frozen=True)
class View:
    """An image of the viewer: its file below the job's views, its role, and the values shown as black and white."""

    name: str
    label: str
    file: str
    role: Role
    unit: str
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """What a synthesis has given: its images by file, warnings with their grades, and the settings that were used.

    case: the folder of the images; use: whether they can be used, as a style and a sentence; bounds: lines on the expected error; said: sentences on what is missing; accepts,
    limits: of the model, where it is a starter.
    """

    case: str
    images: tuple[str, ...]
    views: tuple[View, ...]
    warnings: tuple[tuple[Grade, str], ...]
    bounds: tuple[str, ...]
    said: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    accepts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    use: tuple[str, str] = ("unclear", "")  # a result of an earlier version has none
