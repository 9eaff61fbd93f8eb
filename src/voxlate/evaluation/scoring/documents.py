"""The strict schema of metrics.json: the entries that are read, and the checks that its numbers agree with each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from pydantic import StringConstraints
from typing_extensions import TypedDict

from voxlate.base.files import read_json
from voxlate.base.records import (
    Count,
    Name,
    NotNegative,
    Number,
    Place,
    Record,
    Several,
    Share,
    StatedMessage,
    Text,
    Widening,
    close,
)
from voxlate.checks.conformal import Bound
from voxlate.checks.truths import Kind

# A label is CASE/MODALITY.
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00/\\]+/[^\x00/\\]+$", max_length=1000)]
Pair = tuple[Number, Number]
Document = Mapping[str, Any]
Part = Mapping[str, Any]  # of a modality
Row = Mapping[str, Any]
Table = dict[str, Any]
HEAD = ("case", "patient", "modality", "answer")


class _Pictures(TypedDict):
    n: Count


class _Summary(TypedDict):
    mean: Number | None
    sd: NotNegative | None
    ci95: Pair | None
    n: Count
    se: NotRequired[NotNegative | None]
    pictures: NotRequired[_Pictures]


class _Features(TypedDict):
    name: Text
    kind: Text
    dimensions: Several
    resize: Text
    images: Count
    images_for_limit: Count


class _Part(TypedDict):
    """The scores of a modality, with the conventions that they were computed with."""

    unit: Text
    range: Pair
    range_rule: Text
    own_peak: bool
    mask: Text
    ssim_padding: Literal["valid", "same"]
    ssim_from: Literal["low", "zero"]
    lpips: Text | None
    features: _Features | None
    cases: Several
    slices: NotRequired[Count]
    patients: Several
    bootstrap: Text
    answers: dict[Text, dict[Text, _Summary]]


class _Calibration(TypedDict):
    patients: Several
    coverage: Share
    confidence: Share
    bound: Bound
    widened: NotRequired[dict[Name, Widening]]


class _Floor(TypedDict):
    source: Text


class _Floors(TypedDict):
    mm: NotNegative
    mae: NotNegative
    cases: dict[Name, _Floor]


class _WrongTruth(TypedDict):
    kind: Kind
    found: Text


class _Optional(TypedDict, total=False):
    without_truth: list[Text]
    not_synthesised: dict[Text, Text]
    wrong_truths: dict[Label, _WrongTruth]
    wrong_truths_scored: bool
    messages: list[StatedMessage]
    trained_on: list[Name]
    calibrations: list[_Calibration]
    calibrated_on: list[Name]
    naive_cases: Several | dict[Name, Several] | None
    moved: dict[Text, Text]
    naive_left_out: dict[Text, Text]
    scan_warnings: dict[Name, list[StatedMessage]]
    misaligned: dict[Name, _Floors]
    bounds: dict[Name, NotNegative]
    given_truth: list[Name]
    images: dict[Label, Text]
    truth_files: dict[Label, Place]
    source_files: dict[Name, dict[Name, Place]]
    regions: dict[Name, Text]
    scopes: dict[Name, Text]


class _Document(_Optional):
    modalities: dict[Name, _Part]
    cases: list[dict[Text, Number | Text | None]]


def read_scores(path: Path) -> Table:
    """The content of a metrics.json; raises BadInput if it is not as `evaluate` writes it.

    Each row names a case, patient, modality and answer of the document once, and else has numbers. The numbers of cases
    and patients, and all means but those of pooled distances, are those of the rows.
    """
    record = Record(path, "scores", "Run voxlate evaluate again.")
    document: Table = read_json(path)
    record.check_version(document, "voxlate")
    record.fill(_Document, document, others=None)
    groups = dict[tuple[str, str], dict[str, Row]]()
    for row in document["cases"]:
        texts = {key for key, value in row.items() if isinstance(value, str)}
        record.check(texts == set(HEAD), f"a row with the texts {', '.join(sorted(texts))}")
        case = row["case"]
        group = groups.setdefault((row["modality"], row["answer"]), {})
        is_name = "/" not in case and case.strip(".") != "" and case not in group
        record.check(is_name, f"the case {case!r:.80}, twice or no name")
        group[case] = row
    record.check(bool(groups), "no scores")
    for name, part in document["modalities"].items():
        low, high = part["range"]
        record.check(low < high, f"a range of {name} from {low:g} to {high:g}")
        answers = {answer for modality, answer in groups if modality == name}
        record.check(answers == part["answers"].keys(), f"rows and means of {name} that differ")
        rows = [row for row in document["cases"] if row["modality"] == name]
        for key in ("case", "patient"):
            count = len({row[key] for row in rows})
            record.check(part[f"{key}s"] == count, f"{count} {key}s of {name}, and another number")
        for answer, summaries in part["answers"].items():
            for key, summary in summaries.items():
                values = [row.get(key) for row in groups[name, answer].values()]
                finite = [value for value in values if value is not None]
                mean = summary["mean"]
                agrees = summary["n"] == len(finite) and mean is not None
                agrees = not finite or (agrees and close(mean, float(np.mean(finite))))
                record.check(
                    agrees,
                    f"a mean of {name}, {answer:.80}, {key:.80} that is not that of its rows",
                )
    return document


def rows_of(document: Document, modality: str, answer: str = "synthesis") -> dict[str, Row]:
    """The scores of one answer in a metrics.json, by case."""
    wanted = (modality, answer)
    rows = document.get("cases", [])
    return {row["case"]: row for row in rows if (row["modality"], row["answer"]) == wanted}
