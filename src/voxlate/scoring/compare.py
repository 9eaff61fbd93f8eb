"""Several methods scored on the same cases: one table, with paired tests of their differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlate import __version__
from voxlate.scoring.captions import rows_of
from voxlate.scoring.comparison_tables import comparison_tables
from voxlate.scoring.documents import read_scores
from voxlate.scoring.metrics import Metric, metrics_of
from voxlate.scoring.paired import holm, least_p, wilcoxon_p
from voxlate.scoring.provenance import provenance_of
from voxlate.scoring.resampling import bootstrap, mean_and_sd
from voxlate.scoring.scored_images import check_unchanged
from voxlate.scoring.tables import Tables
from voxlate.scoring.verdict import SYNTHESIS
from voxlate.system.dataframe import dataframe
from voxlate.system.errors import BadInput, plural
from voxlate.system.files import write_json

# Scores compare only if these entries agree.
MUST_AGREE = ("unit", "range", "own_peak", "mask", "ssim_padding", "ssim_from")
EFFORT = ("seconds_per_slice", "network_calls")  # entries of a case's provenance


@dataclass(frozen=True)
class ScoredMethod:
    """One method: a folder of syntheses with its metrics.json; answer: its images that are compared."""

    name: str
    path: Path
    document: Mapping[str, Any]
    answer: str

    def rows(self, modality: str) -> dict[str, Mapping[str, Any]]:
        """Scores by case."""
        return rows_of(self.document, modality, self.answer)


@dataclass(frozen=True)
class Comparison:
    """The comparison of methods as a document in plain tables; `table` prints it."""

    document: Mapping[str, Any]

    def table(self) -> Tables:
        """All scores."""
        return comparison_tables(self.document)

    def short_table(self) -> Tables:
        """The main scores."""
        return comparison_tables(self.document, everything=False)

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each score of each method and modality, with tests if there are any."""
        return dataframe(
            {
                "modality": modality,
                "score": score,
                "method": method,
                **_flat(metric, result),
            }
            for modality, part in self.document["modalities"].items()
            for score, metric in part["metrics"].items()
            for method, result in metric["methods"].items()
        )

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def write(self, path: Path | str) -> None:
        write_json(path, self.document)


def _flat(metric: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a method's score; an interval has two columns; n: number of compared patients (or cases)."""
    flat = {"label": metric["label"], "better": metric["better"], "n": metric["n"]}
    for key, value in result.items():
        if key.endswith("ci95"):
            flat |= {f"{key}_low": value[0], f"{key}_high": value[1]} if value else {}
        else:
            flat[key] = value
    return {**flat, "best": metric["best"], "reference": metric["reference"]}


def compare(
    folders: Sequence[Path | str],
    *,
    reference: str | None = None,
    answer: str = "synthesis",
) -> Comparison:
    """Mean and sd of each method and metric, and paired Wilcoxon tests against `reference`, Holm-corrected.

    folders: folders that `evaluate` scored (each has a metrics.json); reference: name of a method, by default the best
    method of each metric; answer: "synthesis", or a naive baseline. Cases of one patient are averaged first if there
    are several patients. Raises BadInput if cases, ranges or masks differ. Source: Wilcoxon 1945; Holm 1979.
    """
    methods = _methods([Path(folder) for folder in folders], answer)
    if reference is not None and reference not in [method.name for method in methods]:
        known = ", ".join(method.name for method in methods)
        raise BadInput(
            f"--reference: expected one of {known}, found {reference!r}. Choose one of these."
        )
    modalities = list(methods[0].document["modalities"])
    for other in methods[1:]:
        if set(other.document["modalities"]) != set(modalities):
            others = ", ".join(other.document["modalities"])
            raise BadInput(
                f"{other.path}: expected scores of {', '.join(modalities)} as in {methods[0].path}, found {others}. Compare folders of the same targets."
            )
    first = methods[0].document
    scopes = dict(first.get("scopes", {}))
    for method in methods:
        scopes = {
            name: rule for name, rule in scopes.items() if name in method.document.get("scopes", {})
        }
    shared = {"regions": first.get("regions", {}), "scopes": scopes}
    catalogue = metrics_of(shared)
    return Comparison(
        {
            "voxlate": __version__,
            "note": "Research software, not a medical device.",
            "answer": answer,
            "reference": reference,
            **shared,
            "methods": {method.name: str(method.path) for method in methods},
            "trained_on": {
                method.name: method.document.get("trained_on", []) for method in methods
            },
            "effort": {method.name: _effort(method) for method in methods},
            "modalities": {
                name: _modality(name, methods, catalogue, reference) for name in modalities
            },
            "naive": {name: _naive(name, methods, catalogue) for name in modalities}
            if answer == SYNTHESIS
            else {},
        }
    )


def _methods(folders: Sequence[Path], answer: str) -> list[ScoredMethod]:
    if len(folders) < 2:
        raise BadInput(
            f"compare: expected at least two scored folders, found {len(folders)}. Add another one."
        )
    documents = [_document(folder, answer) for folder in folders]
    # Such scores are a bound and not those of a synthesis.
    given = [" (given the truth)" if document.get("given_truth") else "" for document in documents]
    names = [f"{name}{note}" for name, note in zip(_names(folders), given)]
    return [ScoredMethod(*method, answer) for method in zip(names, folders, documents)]


def _names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as are needed to distinguish them."""
    paths = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise BadInput(
        f"compare: expected different folders, found one twice in {', '.join(map(str, folders))}. Drop it."
    )


def _document(folder: Path, answer: str) -> Mapping[str, Any]:
    path = folder / "metrics.json" if folder.is_dir() else folder
    if not path.is_file():
        raise BadInput(
            f"{path}: expected the scores of a folder of syntheses, found none. Run voxlate evaluate first."
        )
    document = read_scores(path)
    for name, part in document["modalities"].items():
        if answer not in part["answers"]:
            known = ", ".join(part["answers"])
            raise BadInput(
                f"{path}: expected scores of {answer} for {name}, found {known}. Choose one of these."
            )
    check_unchanged(folder, document)
    return document


def _modality(
    name: str,
    methods: Sequence[ScoredMethod],
    known: Mapping[str, Metric],
    reference: str | None,
) -> dict[str, Any]:
    parts = [method.document["modalities"][name] for method in methods]
    rows = [method.rows(name) for method in methods]
    for method in methods[1:]:
        _check(name, methods[0], method)
    cases = sorted(rows[0])
    patients = [rows[0][case]["patient"] for case in cases]
    over = "patients" if len(set(patients)) > 1 else "cases"
    groups = patients if over == "patients" else cases
    results: dict[str, Any] = {}
    for key, metric in known.items():
        if metric.pooled:
            results |= _pooled(metric, methods, parts)
            continue
        if metric.score == "lpips" and len({part.get("lpips") for part in parts}) > 1:
            continue  # scores by different weights do not compare
        having = [
            k for k, by_case in enumerate(rows) if any(key in row for row in by_case.values())
        ]
        if key == "std":
            # A smaller standard deviation is not better, so it is not tested.
            metric = replace(metric, better="truth")
        elif not metric.in_table:
            continue
        if not having:
            continue
        # None becomes NaN
        values = np.array([[rows[k][case].get(key) for case in cases] for k in having], np.float64)
        results[key] = _tested(
            metric,
            [methods[k] for k in having],
            *_by_group(values, groups),
            reference,
            len(set(patients)),
        )
    stated = {key: parts[0].get(key) for key in MUST_AGREE}
    return {
        **stated,
        "cases": len(cases),
        "patients": len(set(patients)),
        "over": over,
        "metrics": results,
    }


def _naive(
    name: str, methods: Sequence[ScoredMethod], known: Mapping[str, Metric]
) -> dict[str, Any] | None:
    """The best naive baseline of all methods by its MAE: its name, method and scores; None if there is none.

    Only baselines with all cases count. Cases of one patient are averaged first, as for methods.
    """
    cases = sorted(methods[0].rows(name))
    baselines = list[tuple[float, ScoredMethod, str]]()
    for method in methods:
        for answer in method.document["modalities"][name]["answers"]:
            rows = rows_of(method.document, name, answer)
            values = [rows[case].get("mae") if case in rows else None for case in cases]
            if answer != SYNTHESIS and None not in values:
                baselines.append(
                    (
                        _mean_of(method, name, answer, "mae", cases)["mean"],
                        method,
                        answer,
                    )
                )
    if not baselines:
        return None
    _, method, answer = min(baselines, key=lambda baseline: baseline[0])
    own = rows_of(method.document, name, answer).values()
    scored = {key for row in own for key in row}
    keys = [
        key
        for key, metric in known.items()
        if metric.in_table and not metric.pooled and key in scored
    ]
    scores = {key: _mean_of(method, name, answer, key, cases) for key in keys}
    return {"baseline": answer, "of": method.name, "metrics": scores}


def _mean_of(
    method: ScoredMethod, name: str, answer: str, key: str, cases: Sequence[str]
) -> dict[str, Any]:
    """Mean and sd over patients of a score of one answer."""
    rows = rows_of(method.document, name, answer)
    patients = [rows[case]["patient"] for case in cases]
    groups = patients if len(set(patients)) > 1 else cases
    by_case = [rows[case].get(key) for case in cases]
    values, _ = _by_group(np.array([by_case], np.float64), groups)
    return mean_and_sd(values[0])


def _check(name: str, first: ScoredMethod, other: ScoredMethod) -> None:
    """Raise BadInput if two methods were scored with different options, or on different cases."""
    wanted, actual = (method.document["modalities"][name] for method in (first, other))
    for key in MUST_AGREE:
        if wanted.get(key) != actual.get(key):
            raise BadInput(
                f"{other.path}: expected {name} scored with {key} {wanted.get(key)} as in {first.path}, found {actual.get(key)}. Score both with the same options."
            )
    for kind, option in (
        ("regions", "--region"),
        ("scopes", "--score, --slices, --crop and --seed"),
    ):
        rules, others = (method.document.get(kind, {}) for method in (first, other))
        for part in rules.keys() & others.keys():
            if rules[part] != others[part]:
                raise BadInput(
                    f"{other.path}: expected the {kind.removesuffix('s')} {part} to be {rules[part]} as in {first.path}, found {others[part]}. Score both with the same {option}."
                )
    cases = set(first.rows(name))
    odd = sorted(cases ^ set(other.rows(name)))
    if odd:
        where = first.path if odd[0] in cases else other.path
        raise BadInput(
            f"{other.path}: expected the same cases of {name} as in {first.path}, found {plural(len(odd), 'case')} in one only ({odd[0]} in {where}). Score the same cases in both."
        )


def _by_group(
    values: NDArray[np.float64], groups: Sequence[str]
) -> tuple[NDArray[np.float64], int]:
    """Means over the cases of each patient [methods, patients], and the number of cases with values of all methods."""
    kept = np.isfinite(values).all(0)
    names, member = np.unique(np.asarray(groups)[kept], return_inverse=True)
    sums = np.array([np.bincount(member, row[kept], len(names)) for row in values])
    return sums / np.maximum(np.bincount(member, minlength=len(names)), 1), int(kept.sum())


def _tested(
    metric: Metric,
    methods: Sequence[ScoredMethod],
    values: NDArray[np.float64],
    used: int,
    reference: str | None,
    patients: int,
) -> dict[str, Any]:
    """Mean and sd of each method, and p of its difference to the reference over the shared patients.

    Cases of one patient are not tested: they are no sample of other patients.
    """
    size = values.shape[1]
    names = [method.name for method in methods]
    loss = {"lower": values, "higher": -values, "one": np.abs(values - 1)}.get(metric.better)
    summaries: dict[str, dict[str, Any]] = {
        name: {**mean_and_sd(row), "ci95": None} for name, row in zip(names, values)
    }
    result: dict[str, Any] = {
        "label": metric.label,
        "better": metric.better,
        "n": size,
        "cases_used": used,
        "best": None,
        "reference": None,
        "methods": summaries,
    }
    if loss is None or size < 2 or len(names) < 2:
        return result
    result["best"] = names[int(loss.mean(1).argmin())]
    if patients < 2 or (reference is not None and reference not in names):
        return result  # the reference may have no such score
    result["reference"] = reference or result["best"]
    to = names.index(result["reference"])
    others = [number for number in range(len(names)) if number != to]
    tests = [wilcoxon_p(loss[number], loss[to]) for number in others]
    for number, p, corrected in zip(others, tests, holm(tests)):
        differences = values[number] - values[to]
        interval = bootstrap(differences, [str(place) for place in range(size)], seed=0)
        summaries[names[number]] |= {
            "difference": float(differences.mean()),
            "difference_ci95": None if interval is None else list(interval),
            "p": p,
            "p_holm": corrected,
            "smallest_p": 2.0 ** (1 - size),
            "smallest_p_holm": least_p(size, len(others)),
        }
    return result


def _pooled(
    metric: Metric, methods: Sequence[ScoredMethod], parts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Distances of pooled slices, if all methods have them by the same features and number of images."""
    values = [
        part["answers"][method.answer].get(metric.key) for method, part in zip(methods, parts)
    ]
    if not all(value and value["mean"] is not None for value in values):
        return {}
    features = {part["features"]["name"] for part in parts}
    counts = {value["n"] for value in values}
    if len(features) > 1 or len(counts) > 1:
        return {}
    summaries = {
        method.name: {
            "mean": value["mean"],
            "sd": None,
            "se": value["se"],
            "ci95": None,
        }
        for method, value in zip(methods, values)
    }
    best = min(summaries, key=lambda name: summaries[name]["mean"])
    shared = {
        "label": metric.label,
        "better": metric.better,
        "n": values[0]["n"],
        "best": best,
        "reference": None,
    }
    return {
        metric.key: {
            **shared,
            "features": parts[0]["features"]["name"],
            "methods": summaries,
        }
    }


def _effort(method: ScoredMethod) -> dict[str, Any] | None:
    """Mean and sd of time and network calls over the cases whose provenance states them; None if there are none."""
    folder = method.path if method.path.is_dir() else method.path.parent
    rows = [
        row for row in method.document["cases"] if row["answer"] == method.answer == "synthesis"
    ]
    provenances = [
        (row["case"], provenance_of(folder, row["case"], row["modality"])) for row in rows
    ]
    # Images of one case that were synthesised together count once.
    by_run: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for case, provenance in provenances:
        if all(key in provenance for key in EFFORT):
            by_run[case, *(provenance[key] for key in EFFORT)] = provenance
    stated = list(by_run.values())
    if not stated:
        return None
    return {
        **{
            key: mean_and_sd(np.array([float(provenance[key]) for provenance in stated]))
            for key in EFFORT
        },
        "samples": sorted({provenance.get("synth", {}).get("samples", 1) for provenance in stated}),
        "devices": sorted({provenance.get("device", "an unknown device") for provenance in stated}),
        "cases": len(stated),
    }
