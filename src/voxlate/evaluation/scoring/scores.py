"""The scores of an evaluation: one long table with a row for each value, of which all else is a group or a pivot.

OUT/scores.csv holds the table, OUT/metrics.json the conventions and facts of the evaluation beside means and verdicts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from pandas import DataFrame

from voxlate import __version__
from voxlate.base.errors import plural
from voxlate.base.files import read_json, sha256_of, whole_file, write_json
from voxlate.base.messages import UNOWNED, read_messages
from voxlate.base.records import Record
from voxlate.base.statistics import bootstrap, fixed_text, mean_and_sd
from voxlate.evaluation.scoring.case_scores import Row
from voxlate.evaluation.scoring.metrics import Metric, metrics_of
from voxlate.evaluation.scoring.tables import Tables, in_html, printed, score_tables
from voxlate.training.verdict import (
    METRIC,
    SYNTHESIS,
    UNOWNED_CLAUSE,
    Verdict,
    colour_lines,
    verdict_on,
)

Document = Mapping[str, Any]
Table = dict[str, Any]
FILE, TABLE = "metrics.json", "scores.csv"
HEAD = ["case", "patient", "modality", "method"]
TEXTS = [*HEAD, "fold", "scope", "region", "metric", "unit", "grade"]
COLUMNS = [*TEXTS, "value"]
FOLD_METRICS = ("mae", "psnr", "ssim_2d", "coverage")  # of the summary over folds
WHERE = " on whole cases"  # a training judges validation items, which are fewer voxels
# Entries of a section in metrics.json.
CONVENTIONS = {"modality", "unit", "range", "range_rule", "own_peak", "mask", "ssim_from", "lpips"}
CONVENTIONS |= {"features", "slices", "distances"}

# Of a cross-validation, the cases of an image's modality: those that one of its runs did not train on, those that all
# trained on, and others, whose image is that of all runs.
OUT_OF_FOLD, IN_TRAINING, ENSEMBLE = "out of fold", "in training", "ensemble"


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of an evaluation, as `voxlate.evaluate` returns them.

    A section is a modality, or a part of it: of a cross-validation, the cases that one of its runs did not train on,
    those that all trained on, and those of the ensemble of all runs, are sections.

    Args:
        header: conventions of each modality (range, mask, unit) and facts of the whole evaluation, such as the images that
            could not be scored and why.
        frame: a pandas DataFrame with a row for each value: its case, patient, modality, method (the synthesis, or a naive
            baseline), fold (of a cross-validation, the run that did not train on the case), scope, region, metric and
            unit, and the grade of the messages on its image ("caution", "do not trust").

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

    header: Document
    frame: DataFrame

    @cached_property
    def keyed(self) -> DataFrame:
        """The table with the key of each value, such as bone.dice, and its section."""
        frame = self.frame
        key = (frame["scope"] + frame["region"] + "." + frame["metric"]).str.removeprefix(".")
        trained = frame["case"].isin(self.header.get("trained_on", ()))
        names = section_names(zip(frame["modality"], frame["fold"], trained))
        return frame.assign(key=key, section=names)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """The metrics that these scores may have, by key."""
        return metrics_of(self.header)

    @cached_property
    def patients(self) -> dict[str, str]:
        """The patient of each case."""
        return dict(zip(self.frame["case"], self.frame["patient"]))

    @cached_property
    def labels(self) -> set[str]:
        """The scored images as CASE/MODALITY."""
        return {*(self.frame["case"] + "/" + self.frame["modality"])}

    @cached_property
    def parts(self) -> dict[str, Table]:
        """The conventions of each section, its modality, and its numbers of cases and patients."""
        facts = self.keyed.groupby("section").agg(
            modality=("modality", "first"),
            cases=("case", "nunique"),
            patients=("patient", "nunique"),
        )
        stated = self.header.get("modalities", {})
        return {name: {**part, **facts.loc[name].to_dict()} for name, part in stated.items()}

    def by_case(self, section: str, method: str = SYNTHESIS) -> DataFrame:
        """The scores of a method by case, with a column for each key."""
        keyed = self.keyed
        chosen = keyed[(keyed["section"] == section) & (keyed["method"] == method)]
        return chosen.pivot(index="case", columns="key", values="value")

    def errors(self, section: str, key: str = METRIC) -> dict[str, dict[str, float]]:
        """The finite values of a score by method and case."""
        keyed = self.keyed
        chosen = keyed[(keyed["section"] == section) & (keyed["key"] == key)]
        groups = chosen[np.isfinite(chosen["value"])].groupby("method", sort=False)
        return {method: dict(zip(own["case"], own["value"])) for method, own in groups}

    @cached_property
    def means(self) -> dict[str, dict[str, dict[str, Table]]]:
        """Mean, standard deviation and interval over patients by section, method and key; of distances over all cases at once."""
        means: dict[str, dict[str, dict[str, Table]]] = {name: {} for name in self.parts}
        groups = self.keyed.groupby(["section", "method", "key"], sort=False)
        for (name, method, key), rows in groups:
            values = by_patient(rows.set_index("case")[["value"]], self.patients)["value"]
            finite = int(np.isfinite(rows["value"]).sum())
            means[name].setdefault(method, {})[key] = {
                **mean_and_sd(values.to_numpy(np.float64)),
                "ci95": bootstrap(values.to_numpy(), values.index.tolist(), seed=0),
                "n": finite,
                "not_finite": len(rows) - finite,
                "unit": rows["unit"].iloc[0],
            }
        for name, part in self.parts.items():
            for method, pooled in part["distances"].items():
                means[name][method] |= pooled
        return means

    @cached_property
    def folds(self) -> dict[str, dict[str, Table]]:
        """Of a cross-validation, the means of each fold and their mean and standard deviation, by section and key."""
        rows = self.keyed
        chosen = rows[
            (rows["fold"] != "")
            & (rows["method"] == SYNTHESIS)
            & rows["key"].isin(FOLD_METRICS)
            & np.isfinite(rows["value"])
        ]
        folds: dict[str, dict[str, Table]] = {}
        for (name, key), own in chosen.groupby(["section", "key"], sort=False):
            by_fold = own.groupby("fold")["value"].mean()
            summary = mean_and_sd(by_fold.to_numpy()) | {"by_fold": by_fold.to_dict()}
            folds.setdefault(name, {})[key] = summary
        return folds

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The verdict on each section: whether its syntheses are better than the best naive baseline."""
        return [_verdict(name, self) for name in self.parts]

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
        """Write OUT/metrics.json and OUT/scores.csv."""
        with whole_file(out / TABLE) as temporary:
            self.frame.to_csv(temporary, index=False)
        digests = {TABLE: sha256_of(out / TABLE)}
        write_json(out / FILE, self.document() | {"tables": digests})


NO_SCORES = Scores({}, DataFrame(columns=COLUMNS))


def section_names(images: Iterable[tuple[str, str, bool]]) -> list[str]:
    """The section of each image by its modality, its fold, and whether its case was in the training.

    It is the modality, unless some of its images have a fold and some none: then they are apart.
    """
    images = [*images]
    with_fold = {modality for modality, fold, _ in images if fold}
    apart = with_fold & {modality for modality, fold, _ in images if not fold}
    names = []
    for modality, fold, trained in images:
        part = IN_TRAINING if trained else ENSEMBLE
        name = f"{modality}, {OUT_OF_FOLD if fold else part}"
        names.append(name if modality in apart else modality)
    return names


def by_patient(values: DataFrame, patients: Mapping[str, str]) -> DataFrame:
    """Means over each patient's cases that have finite values in all columns; values: by case.

    Where there is one patient alone, each case counts by itself.
    """
    kept = values[np.isfinite(values).all(axis=1)]
    if len({patients[case] for case in values.index}) < 2:
        return kept
    return kept.groupby(patients.__getitem__, sort=False).mean()


def frame_of(rows: Iterable[Row], header: Document) -> DataFrame:
    """The long table of the scores of cases."""
    metrics = metrics_of(header)
    units = {part["modality"]: part["unit"] for part in header["modalities"].values()}
    lines = []
    for row in rows:
        fold = header.get("out_of_fold", {}).get(row.case, "")
        for key, value in row.scores.items():
            area, _, name = key.rpartition(".")
            places = ("", area) if area in header["regions"] else (area, "")
            metric = metrics[key]
            unit = "share" if metric.scale != 1 else metric.unit_for(units[row.modality])
            head = (row.case, row.patient, row.modality, row.method)
            lines.append((*head, fold, *places, name, unit, row.grade, float(value)))
    return DataFrame(lines, columns=COLUMNS)


def read_scores(path: Path) -> Scores:
    """The scores of a metrics.json and of the table beside it; raises BadInput if they are not as `evaluate` wrote them.

    Its checksum says that a metrics.json is as it was written, and nobody but `evaluate` writes one.
    """
    record = Record(path, "scores", "Run voxlate evaluate again.")
    header = read_json(path)
    record.check_version(header, "voxlate")
    sections = header.get("modalities") if isinstance(header, dict) else None
    known = sections and all(part.keys() >= CONVENTIONS for part in sections.values())
    record.check(known, "another form of them")
    file = path.with_name(TABLE)
    record.check(file.is_file(), f"no {TABLE} beside it")
    record.check_checksum(header["tables"][TABLE], sha256_of(file))
    frame = pandas.read_csv(
        file,
        dtype={**dict.fromkeys(TEXTS, str), "value": float},
        keep_default_na=False,  # a case may be called NA
        na_values={"value": [""]},
        float_precision="round_trip",
    )
    return Scores(header, frame)


def _verdict(name: str, scores: Scores) -> Verdict:
    """Whether the syntheses of a section are better than the best naive baseline."""
    header, part = scores.header, scores.parts[name]
    modality, unit = part["modality"], part["unit"]
    left_out = {*header.get("wrong_truths", ())} - scores.labels
    wrong = sum(label.endswith(f"/{modality}") for label in left_out)
    none = ""
    if modality in header.get("given_truth", ()):
        none = "the truth itself was given to the model, so this is a bound and no synthesis"
    elif wrong > part["cases"]:
        none = f"most truths ({wrong} of {wrong + part['cases']}) cannot be those of their images: check the cohort"
    if none:
        return Verdict(name, "unknown", f"No result: {none}.", unit=unit)
    errors = scores.errors(name)
    clause = _doubts(modality, {*errors.get(SYNTHESIS, ())}, scores)
    stated = verdict_on(name, errors, scores.patients, unit, WHERE, clause)
    if not (worse := _worse_in(stated, scores)):
        return stated
    stated = replace(stated, worse_in=tuple(worse))
    if stated.outcome == "worse":
        return stated  # it is said of the whole
    regions = [f"{region.replace('_', ' ')} ({text})" for region, text in worse.items()]
    return replace(stated, sentence=f"{stated.sentence} Worse in {', '.join(regions)}.")


def _doubts(modality: str, cases: set[str], scores: Scores) -> str:
    """A clause on the cases of a section that say nothing of other patients; "" without any."""
    said = read_messages(scores.header, "messages")
    graded = {(one.grade, one.case.removesuffix(f"/{modality}")) for one in said}
    grave = {case for case in cases if ("do not trust", case) in graded}
    doubtful = {case for case in cases if ("caution", case) in graded} - grave
    reserves = {
        "in the training": cases & {*scores.header.get("trained_on", ())},
        "with a truth that is not to be trusted": grave,
    }
    if 2 * len(grave | doubtful) > len(cases):
        reserves["with a doubtful truth (see above)"] = doubtful
    count = plural(len(cases), "case")
    clauses = [f"{len(some)} of {count} {what}" for what, some in reserves.items() if some]
    if any(one.code == UNOWNED for one in said):
        clauses.append(UNOWNED_CLAUSE)
    return "; ".join(clauses)


def _worse_in(overall: Verdict, scores: Scores) -> dict[str, str]:
    """Regions where a synthesis is worse than the baseline that is the best one overall, with both errors."""
    worse = {}
    for region in scores.header.get("regions", ()):
        errors = scores.errors(overall.modality, f"{region}.{METRIC}")
        both = {name: errors[name] for name in (SYNTHESIS, overall.baseline) if name in errors}
        verdict = verdict_on(overall.modality, both, scores.patients, overall.unit, "")
        if verdict.outcome == "worse" and verdict.naive is not None:
            pair = (verdict.synthesis or 0.0, verdict.naive)
            texts = (fixed_text(error, verdict.naive, fits=True) for error in pair)
            worse[region] = f"{' against '.join(texts)} {overall.unit}"
    return worse
