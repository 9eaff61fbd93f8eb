"""The strict schema of metrics.json, and the checks that its numbers agree with each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Required

import numpy as np
from pydantic import StringConstraints
from typing_extensions import TypedDict

from voxlate.scoring.intervals import Bound
from voxlate.scoring.lesion_counts import COUNTS
from voxlate.scoring.truths import Kind
from voxlate.scoring.verdict import Verdict
from voxlate.system.files import read_json
from voxlate.system.records import (
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
    close,
)

# A label is CASE/MODALITY.
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00/\\]+/[^\x00/\\]+$", max_length=1000)]
Pair = tuple[Number, Number]
Document = Mapping[str, Any]
Part = Mapping[str, Any]  # of a modality
Row = Mapping[str, Any]
Table = dict[str, Any]
HEAD = ("case", "patient", "modality", "answer")


class _Conventions(TypedDict):
    range: Pair
    range_rule: Text
    mask: Text


class _Ssim(TypedDict, total=False):
    ssim_padding: Literal["valid", "same"]
    ssim_from: Literal["low", "zero"]
    lpips: Text | None


class _Pictures(TypedDict, total=False):
    mean: Number | None
    sd: NotNegative | None
    n: Required[Count]
    not_finite: Count


class _Summary(_Conventions, _Ssim, total=False):
    mean: Required[Number | None]
    sd: Required[NotNegative | None]
    ci95: Required[Pair | None]
    n: Required[Count]
    se: NotNegative | None
    not_finite: Count
    pictures: _Pictures
    errors: Text
    unit: Text
    better: Literal["lower", "higher", "one", "truth"]
    reduction: Text
    features: Text


class _Features(TypedDict):
    name: Text
    kind: Text
    dimensions: Several
    resize: Text
    axes: NotRequired[Text]
    values: NotRequired[Text]
    images: Count
    images_for_limit: Count
    errors: Text


class _Part(_Conventions):
    """The scores of a modality, with the conventions that they were computed with."""

    unit: Text
    own_peak: bool
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


class _Floor(TypedDict):
    source: Text
    mm: NotNegative
    mae: NotNegative


class _Floors(TypedDict):
    mm: NotNegative
    mae: NotNegative
    cases: dict[Name, _Floor]


class _WrongTruth(TypedDict, total=False):
    kind: Required[Kind]
    found: Required[Text]
    mae: Number | None


class _Document(TypedDict, total=False):
    voxlate: Text
    note: Text
    truth: Place
    split: Text | None
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
    scan_warnings: dict[Name, list[Text | StatedMessage]]
    misaligned: dict[Name, _Floors]
    bounds: dict[Name, NotNegative]
    given_truth: list[Name]
    images: dict[Label, Text]
    truth_files: dict[Label, Place]
    source_files: dict[Name, dict[Name, Place]]
    shared_masks: list[Text]
    windows: list[Text]
    regions: dict[Name, Text]
    scopes: dict[Name, Text]
    verdict: dict[Name, Verdict]
    modalities: Required[dict[Name, _Part]]
    cases: Required[list[dict[Text, Number | Text | None]]]


def read_scores(path: Path) -> Table:
    """The content of a metrics.json; raises BadInput if it is not as `evaluate` writes it."""
    record = Record(path, "scores", "Run voxlate evaluate again.")
    document: Table = read_json(path)
    record.fill(_Document, document)
    record.check(bool(document["modalities"] and document["cases"]), "no scores")
    _check_rows(record, document)
    for name, part in document["modalities"].items():
        _check_part(record, name, part, document)
    for name, part in document.get("misaligned", {}).items():
        rows = rows_of(document, name)
        errors = [rows.get(case, {}).get("mae") for case in part["cases"]]
        known = name in document["modalities"] and errors and None not in errors
        record.check(bool(known), f"misaligned cases of {name} that have no mae")
    return document


def rows_of(document: Document, modality: str, answer: str = "synthesis") -> dict[str, Row]:
    """The scores of one answer in a metrics.json, by case."""
    wanted = (modality, answer)
    rows = document.get("cases", [])
    return {row["case"]: row for row in rows if (row["modality"], row["answer"]) == wanted}


def _check_rows(record: Record, document: Document) -> None:
    """Check that each row names a case, patient, modality and answer of the document once, and else has numbers."""
    known_rows = set[tuple[str, ...]]()
    for row in document["cases"]:
        texts = {key for key, value in row.items() if isinstance(value, str)}
        record.check(
            texts == set(HEAD), f"a row whose texts are {', '.join(sorted(texts)) or 'none'}"
        )
        case = row["case"]
        record.check("/" not in case and case.strip(".") != "", f"the case {case!r:.80}")
        key = (case, row["modality"], row["answer"])
        known = document["modalities"].get(row["modality"], {}).get("answers", {})
        record.check(
            key not in known_rows and row["answer"] in known,
            f"a row of {'/'.join(key)!s:.200}, unknown or twice",
        )
        known_rows.add(key)
        for region in document.get("regions", {}):
            _check_pieces(record, region, row)


def _check_pieces(record: Record, region: str, row: Row) -> None:
    """Check that each connected piece of a region counts as kept, shrunk, erased or unseen."""
    counts = [row.get(f"{region}.{key}") or 0 for key in COUNTS]
    pieces, *fates, _ = counts
    record.check(min(counts) >= 0, f"negative counts of {region}")
    record.check(
        pieces == sum(fates), f"{pieces} pieces of {region}, of which {sum(fates)} are counted"
    )


def _check_part(record: Record, name: str, part: Part, document: Document) -> None:
    """Check that a modality's numbers of cases and patients, and its summaries, are those of its rows."""
    low, high = part["range"]
    record.check(low < high, f"a range of {name} from {low:g} to {high:g}")
    record.check(bool(part["answers"]), f"no scores of {name}")
    rows = [row for row in document["cases"] if row["modality"] == name]
    for key, what in (("cases", "case"), ("patients", "patient")):
        count = len({row[what] for row in rows})
        record.check(part[key] == count, f"{part[key]} {key} of {name}, and rows of {count}")
    for answer, summaries in part["answers"].items():
        own = rows_of(document, name, answer).values()
        record.check(bool(own), f"no rows of {name}/{answer!s:.80}")
        for key, summary in summaries.items():
            values = [row[key] for row in own if row.get(key) is not None]
            _check_summary(record, f"{name}, {answer}, {key}"[:200], summary, values)


def _check_summary(record: Record, what: str, summary: Part, finite: Sequence[float]) -> None:
    """Check that a summary's mean is that of the rows; pooled distances have no rows."""
    mean = summary["mean"]
    if ends := summary["ci95"]:
        record.check(mean is not None and ends[0] <= ends[1], f"an interval of {what} that is none")
    if finite:
        record.check(
            summary["n"] == len(finite),
            f"{summary['n']} values of {what}, and rows of {len(finite)}",
        )
        own = float(np.mean(finite))
        record.check(
            mean is not None and close(mean, own),
            f"a mean of {what} of {mean}, and of its rows of {own:g}",
        )
