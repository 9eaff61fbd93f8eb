"""The strict schema of metrics.json, and the checks that its numbers agree with each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Required

import numpy as np
from pydantic import StringConstraints
from typing_extensions import TypedDict

from voxlate.scoring.captions import rows_of
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
    Text,
    close,
)

# A label is CASE/MODALITY.
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00/\\]+/[^\x00/\\]+$", max_length=1000)]
Pair = tuple[Number, Number]
HEAD = ("case", "patient", "modality", "answer")
# Tables and captions need these keys and comparisons do not, so scores written by hand may lack them.
OF_PART = {
    "range_rule",
    "mask",
    "ssim_padding",
    "ssim_from",
    "lpips",
    "features",
    "cases",
    "patients",
    "bootstrap",
}
OF_SUMMARY = {"sd", "ci95", "n"}
OF_FEATURES = {
    "name",
    "kind",
    "dimensions",
    "resize",
    "images",
    "images_for_limit",
    "errors",
}


class _Pictures(TypedDict, total=False):
    mean: Number | None
    sd: NotNegative | None
    n: Required[Count]
    not_finite: Count


class _Summary(TypedDict, total=False):
    mean: Required[Number | None]
    sd: NotNegative | None
    se: NotNegative | None
    ci95: Pair | None
    n: Count
    not_finite: Count
    pictures: _Pictures
    errors: Text
    unit: Text
    better: Literal["lower", "higher", "one", "truth"]
    reduction: Text
    range: Pair
    range_rule: Text
    mask: Text
    ssim_padding: Literal["valid", "same"]
    ssim_from: Literal["low", "zero"]
    lpips: Text | None
    features: Text


class _Features(TypedDict, total=False):
    name: Required[Text]
    kind: Text
    dimensions: Several
    resize: Text
    axes: Text
    values: Text
    images: Count
    images_for_limit: Count
    errors: Text


class _Part(TypedDict, total=False):
    """The scores of a modality, with the conventions that they were computed with."""

    unit: Required[Text]
    range: Required[Pair]
    own_peak: Required[bool]
    answers: Required[dict[Text, dict[Text, _Summary]]]
    range_rule: Text
    mask: Text
    ssim_padding: Literal["valid", "same"]
    ssim_from: Literal["low", "zero"]
    lpips: Text | None
    features: _Features | None
    cases: Several
    slices: Count
    patients: Several
    bootstrap: Text


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
    other_scales: Text
    outliers: list[Text]
    trained_on: list[Name]
    calibrations: list[_Calibration]
    calibrated_on: list[Name]
    naive_cases: Several | dict[Name, Several] | None
    moved: dict[Text, Text]
    naive_left_out: dict[Text, Text]
    scan_warnings: dict[Name, list[Text]]
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


def read_scores(path: Path, whole: bool = False) -> dict[str, Any]:
    """The content of a metrics.json; whole: with all keys that tables and captions need.

    Raises BadInput if the file is not as `evaluate` writes it.
    """
    record = Record(path, "scores", "Run voxlate evaluate again.")
    content: Any = read_json(path)
    sound = isinstance(content, dict) and {"modalities", "cases"} <= content.keys()
    record.check(sound, "other JSON")
    record.fill(_Document, content)
    document: dict[str, Any] = content
    record.check(bool(document["modalities"]) and bool(document["cases"]), "no scores")
    _check_rows(record, document)
    for name, part in document["modalities"].items():
        _check_part(record, name, part, document, whole)
    for name, part in document.get("misaligned", {}).items():
        rows = rows_of(document, name, "synthesis")
        known = (
            name in document["modalities"] and part["cases"] and part["cases"].keys() <= rows.keys()
        )
        record.check(bool(known), f"misaligned cases of {name} that have no scores")
        record.check(
            all(rows[case].get("mae") is not None for case in part["cases"]),
            f"no mae of misaligned {name}",
        )
    return document


def _check_rows(record: Record, document: Mapping[str, Any]) -> None:
    """Check that each row names a case, patient, modality and answer of the document once, and else has numbers."""
    known_rows = set[tuple[str, ...]]()
    for row in document["cases"]:
        texts = {key for key, value in row.items() if isinstance(value, str)}
        record.check(
            texts == set(HEAD),
            f"a row whose texts are {', '.join(sorted(texts)) or 'none'}",
        )
        record.check(
            "/" not in row["case"] and row["case"].strip(".") != "",
            f"the case {row['case']!r:.80}",
        )
        key = (row["case"], row["modality"], row["answer"])
        known = document["modalities"].get(row["modality"], {}).get("answers", {})
        record.check(
            key not in known_rows and row["answer"] in known,
            f"a row of {'/'.join(key)!s:.200}, unknown or twice",
        )
        known_rows.add(key)
        for region in document.get("regions", {}):
            _check_pieces(record, region, row)


def _check_pieces(record: Record, region: str, row: Mapping[str, Any]) -> None:
    """Check that each connected piece of a region counts as kept, shrunk, erased or unseen."""
    counts = {key: row.get(f"{region}.{key}") for key in COUNTS}
    record.check(
        all(count is None or count >= 0 for count in counts.values()),
        f"negative counts of {region}",
    )
    parts = [counts[key] for key in ("kept", "shrunk", "erased", "unseen")]
    if counts["pieces"] is not None or any(count is not None for count in parts):
        total = sum(count or 0 for count in parts)
        record.check(
            counts["pieces"] == total,
            f"{counts['pieces']} pieces of {region}, of which {total} are counted",
        )


def _check_part(
    record: Record,
    name: str,
    part: Mapping[str, Any],
    document: Mapping[str, Any],
    whole: bool,
) -> None:
    low, high = part["range"]
    record.check(low < high, f"a range of {name} from {low:g} to {high:g}")
    record.check(bool(part["answers"]), f"no scores of {name}")
    if whole:
        record.check(
            part.keys() >= OF_PART,
            f"no {', '.join(sorted(OF_PART - part.keys()))} of {name}",
        )
        features = part["features"]
        record.check(
            features is None or features.keys() >= OF_FEATURES,
            f"features of {name} without their conventions",
        )
    rows = [row for row in document["cases"] if row["modality"] == name]
    for key, what in (("cases", "case"), ("patients", "patient")):
        count = len({row[what] for row in rows})
        record.check(
            part.get(key, count) == count,
            f"{part.get(key)} {key} of {name}, and rows of {count}",
        )
    for answer, summaries in part["answers"].items():
        own = rows_of(document, name, answer)
        record.check(bool(own), f"no rows of {name}/{answer!s:.80}")
        for key, summary in summaries.items():
            lacking = OF_SUMMARY - summary.keys() if whole else set[str]()
            record.check(not lacking, f"no {', '.join(sorted(lacking))} of {name}, {key!s:.80}")
            _check_summary(
                record,
                f"{name}, {answer}, {key}"[:200],
                summary,
                [row.get(key) for row in own.values()],
            )


def _check_summary(
    record: Record, what: str, summary: Mapping[str, Any], values: list[float | None]
) -> None:
    """Check that a summary's mean is that of the rows; pooled distances have no rows."""
    if summary.get("ci95"):
        low, high = summary["ci95"]
        record.check(
            summary["mean"] is not None and low <= high,
            f"an interval of {what} that is none",
        )
    finite = [value for value in values if value is not None]
    if not finite:
        return
    count = summary.get("n", len(finite))
    record.check(count == len(finite), f"{count} values of {what}, and rows of {len(finite)}")
    mean = float(np.mean(finite))
    same = summary["mean"] is not None and close(summary["mean"], mean)
    record.check(same, f"a mean of {what} of {summary['mean']}, and of its rows of {mean:g}")
