"""The scores of an evaluation: one long table with a row for each value, of which all else is a group or a pivot.

OUT/scores.csv holds the table, OUT/metrics.json the conventions and facts of the evaluation beside means and verdicts.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, NotRequired

import numpy as np
import pandas
from pydantic import StringConstraints
from typing_extensions import TypedDict

from voxlate import __version__
from voxlate.base.files import lock_if_free, read_json, sha256_of, whole_file, write_json
from voxlate.base.records import (
    Count,
    Digest,
    Name,
    Number,
    Place,
    Record,
    Several,
    Share,
    StatedMessage,
    Text,
    Widening,
)
from voxlate.checks.truths import Kind
from voxlate.evaluation.scoring.case_scores import Row
from voxlate.evaluation.scoring.metrics import Direction
from voxlate.evaluation.scoring.score_frame import COLUMNS, HEAD, TEXTS, ScoreFrame, Table
from voxlate.evaluation.scoring.tables import Tables, in_html, printed, score_tables
from voxlate.synthesis.conformal import Bound
from voxlate.training.verdict import colour_lines

FILE, TABLE, PICTURES = "metrics.json", "scores.csv", "pictures.csv"

# A label is CASE/MODALITY.
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00/\\]+/[^\x00/\\]+$", max_length=1000)]


@dataclass(frozen=True, eq=False)
class Scores(ScoreFrame):
    """The scores of an evaluation, as `voxlate.evaluate` returns them.

    Args:
        header: conventions of each modality (range, mask, unit) and facts of the whole evaluation, such as the images that
            could not be scored and why.
        frame: a pandas DataFrame with a row for each value: its case, patient, modality, method (the synthesis, or a naive
            baseline), fold (of a cross-validation, the run that did not train on the case), scope, region, metric and
            unit, and the share of scored voxels whose truth is beyond the range.
        pictures: a DataFrame with a row for each slice or crop of the scopes, if there are any.

    Example:
        >>> from pathlib import Path
        >>> from voxlate.evaluation.scoring.scores import read_scores
        >>> scores = read_scores(Path("OUT/metrics.json"))  # as voxlate.evaluate returned them
        >>> errors = scores.frame[scores.frame.metric == "mae"]
        >>> {"synthesis", "copy of t1"} <= set(errors.method)
        True
        >>> scores.document()["modalities"]["t2"]["unit"]
        'a.u.'
    """

    @property
    def rows(self) -> tuple[Row, ...]:
        """The scores of each method on each case by key."""
        groups = self.keyed.groupby(HEAD, sort=False)
        return tuple(
            Row(case, patient, modality, method, dict(zip(own["key"], own["value"])))
            for (case, patient, modality, method), own in groups
        )

    def document(self) -> Table:
        """The content of metrics.json: conventions and facts, and the means and the verdict of each modality."""
        return {
            "voxlate": __version__,
            "note": "Research software, not a medical device.",
            **self.header,
            "modalities": {
                name: part | {"answers": self.means[name]} for name, part in self.parts.items()
            },
            "folds": self.folds,
            "verdict": {verdict.modality: asdict(verdict) for verdict in self.verdicts},
        }

    def table(self) -> Tables:
        """All scores of the synthesis and of every naive baseline."""
        return score_tables(self)

    def short_table(self) -> Tables:
        """The main scores of the synthesis and of the best naive baseline."""
        return score_tables(self, "main")

    def __repr__(self) -> str:
        return printed(self.short_table(), colour_lines(self.verdicts)).export_text()

    def _repr_html_(self) -> str:
        return in_html(colour_lines(self.verdicts), self.table())

    def write(self, out: Path) -> None:
        """Write OUT/metrics.json, OUT/scores.csv and, where scopes have pictures, OUT/pictures.csv."""
        tables = {TABLE: self.frame, PICTURES: self.pictures}
        digests = {}
        with lock_if_free(out):
            # The file may be from an earlier evaluation.
            (out / PICTURES).unlink(missing_ok=True)
            for name, table in tables.items():
                if table is not None:
                    with whole_file(out / name) as temporary:
                        table.to_csv(temporary, index=False)
                    digests[name] = sha256_of(out / name)
            write_json(out / FILE, self.document() | {"tables": digests})


NO_SCORES = Scores({}, pandas.DataFrame(columns=COLUMNS))


class _Features(TypedDict):
    name: Text
    kind: Text
    dimensions: Several
    resize: Text
    images: Count
    images_for_limit: Count


class _Distance(TypedDict):
    mean: Number | None
    sd: None
    ci95: None
    n: Count


class _Part(TypedDict):
    """The conventions that the scores of a section were computed with, and the distances of features by method and key."""

    modality: Text
    unit: Text
    range: tuple[Number, Number]
    range_rule: Text
    own_peak: bool
    mask: Text
    ssim_from: Literal["low", "zero"]
    lpips: Text | None
    features: _Features | None
    slices: Count
    distances: dict[Text, dict[Text, _Distance]]


class _Calibration(TypedDict):
    patients: Several
    coverage: Share
    confidence: Share
    bound: Bound
    widened: NotRequired[dict[Name, Widening]]
    held: NotRequired[dict[Name, dict[Name, Share]]]


class _WrongTruth(TypedDict):
    kind: Kind
    found: Text


class _OwnMetric(TypedDict):
    unit: Text
    better: Direction
    reduction: Text


class _Optional(TypedDict, total=False):
    without_truth: list[Text]
    not_synthesised: dict[Text, Text]
    wrong_truths: dict[Label, _WrongTruth]
    truth_messages: list[StatedMessage]
    messages: list[StatedMessage]
    trained_on: list[Name]
    out_of_fold: dict[Name, Text]
    calibrations: list[_Calibration]
    calibrated_on: list[Name]
    naive_cases: dict[Name, Several]
    moved: dict[Text, Text]
    naive_left_out: dict[Text, Text]
    scan_warnings: dict[Name, list[StatedMessage]]
    given_truth: list[Name]
    images: dict[Label, Text]
    recognised: dict[Label, Place]
    truths: dict[Label, Text]
    shown: dict[Label, Share]
    truth_files: dict[Label, Place]
    source_files: dict[Name, dict[Name, Place]]
    own_metrics: dict[Name, _OwnMetric]
    regions: dict[Name, Text]
    scopes: dict[Name, Text]
    standard: list[Text]


class _Header(_Optional):
    seed: Count
    modalities: dict[Name, _Part]
    tables: dict[Literal["scores.csv", "pictures.csv"], Digest]


def read_scores(path: Path) -> Scores:
    """The scores of a metrics.json and of the tables beside it; raises BadInput if they are not as `evaluate` wrote them.

    Each row of the table names a case, patient, modality, method and metric once.
    """
    record = Record(path, "scores", "Run voxlate evaluate again.")
    check = record.check
    header: Table = read_json(path)
    record.check_version(header, "voxlate")
    record.fill(_Header, header, others=None)
    frames = {}
    for name, digest in header["tables"].items():
        file = path.with_name(name)
        check(file.is_file(), f"no {name} beside it")
        record.check_checksum(digest, sha256_of(file))
        texts = dict.fromkeys([*HEAD, "scope"] if name == PICTURES else TEXTS, "")
        try:
            table = pandas.read_csv(
                file,
                dtype=dict.fromkeys(texts, str),
                keep_default_na=False,  # a case may be called NA
                na_values=[""],
                float_precision="round_trip",
            )
            frames[name] = table.fillna(texts)
        except ValueError as error:
            raise record.wrong(f"a {name} that cannot be read ({error})") from error
    frame = frames.get(TABLE, NO_SCORES.frame)
    check([*frame.columns] == COLUMNS and len(frame), f"no {TABLE} with its columns")
    numbers = frame[["value", "clipped"]].dtypes
    check((numbers == np.float64).all(), f"values of {TABLE} that are no numbers")
    named = frame[["case", "modality", "method", "metric"]] != ""
    check(named.all(axis=None), f"a row of {TABLE} without a name")
    check(not frame.duplicated(TEXTS).any(), f"a value of {TABLE} twice")
    for case in frame["case"].unique():
        check("/" not in case and case.strip("."), f"the case {case!r:.80}")
    scores = Scores(header, frame, frames.get(PICTURES))
    check({*scores.keyed["section"]} == {*header["modalities"]}, "modalities without scores")
    for name, part in header["modalities"].items():
        low, high = part["range"]
        check(low < high, f"a range of {name} from {low:g} to {high:g}")
        methods = {*scores.keyed["method"][scores.keyed["section"] == name]}
        check({*part["distances"]} <= methods, f"distances of {name} without scores")
    return scores
