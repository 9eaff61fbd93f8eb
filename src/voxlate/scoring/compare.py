"""Several methods scored on the same cases, side by side, with paired tests of their differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlate import __version__
from voxlate.errors import BadInput
from voxlate.files import read_json, write_json
from voxlate.scoring.compare_table import Tables
from voxlate.scoring.metric_catalogue import Metric, is_aside, measured
from voxlate.scoring.score_case import provenance_of
from voxlate.scoring.significance import holm, wilcoxon_p
from voxlate.scoring.tables import count

SAME = ("unit", "range", "own_peak", "mask", "ssim_padding", "ssim_from")  # what must agree for numbers to compare
EFFORT = ("seconds_per_slice", "network_calls")  # what the provenance of a case says that its synthesis took


@dataclass(frozen=True)
class Method:
    """One folder of syntheses with its metrics.json."""

    name: str
    path: Path
    document: Mapping[str, Any]
    answer: str

    def rows(self, modality: str) -> dict[str, Mapping[str, Any]]:
        """Scores by case."""
        rows = [row for row in self.document["cases"] if (row["modality"], row["answer"]) == (modality, self.answer)]
        return {row["case"]: row for row in rows}


@dataclass(frozen=True)
class Comparison:
    """The table of methods as a document: JSON for programs, `table` for people."""

    document: Mapping[str, Any]

    def table(self) -> Tables:
        return Tables(self.document)

    def write(self, path: Path | str) -> None:
        write_json(path, self.document)


def compare(
    folders: Sequence[Path | str],
    *,
    names: Sequence[str] | None = None,
    reference: str | None = None,
    answer: str = "synthesis",
) -> Comparison:
    """Mean and sd of each method and metric, and paired Wilcoxon tests against `reference`, Holm-corrected.

    folders: what `evaluate` scored (each holds a metrics.json); names: what to call them, else the folders' names.
    reference: a name; by default the best method of each metric. answer: "synthesis", or a trivial one.
    Several cases of one patient are averaged first, where there are several patients.
    Raises BadInput where cases, ranges or masks differ. Source: Wilcoxon 1945; Holm 1979.
    """
    methods = _methods([Path(folder) for folder in folders], names, answer)
    if reference is not None and reference not in [method.name for method in methods]:
        known = ", ".join(method.name for method in methods)
        raise BadInput(f"--reference: expected one of {known}, found {reference!r}. Choose one of these.")
    modalities = list(methods[0].document["modalities"])
    for other in methods[1:]:
        if set(other.document["modalities"]) != set(modalities):
            found = ", ".join(other.document["modalities"])
            raise BadInput(
                f"{other.path}: expected scores of {', '.join(modalities)} as in {methods[0].path}, found {found}. "
                "Compare folders of the same targets."
            )
    return Comparison(
        {
            "voxlate": __version__,
            "note": "Research software, not a medical device.",
            "answer": answer,
            "reference": reference,
            "regions": methods[0].document.get("regions", {}),
            "methods": {method.name: str(method.path) for method in methods},
            "effort": {method.name: _effort(method) for method in methods},
            "modalities": {name: _modality(name, methods, reference) for name in modalities},
        }
    )


def _methods(folders: Sequence[Path], names: Sequence[str] | None, answer: str) -> list[Method]:
    if len(folders) < 2:
        raise BadInput(f"compare: expected at least two scored folders, found {len(folders)}. Add another one.")
    called = list(names) if names else _names(folders)
    if len(called) != len(folders) or len(set(called)) != len(called):
        raise BadInput(
            f"compare: expected {len(folders)} different names, found {', '.join(called)}. Give one a folder."
        )
    return [Method(name, folder, _document(folder, answer), answer) for name, folder in zip(called, folders)]


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell all folders apart."""
    paths = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def _document(folder: Path, answer: str) -> Mapping[str, Any]:
    path = folder / "metrics.json" if folder.is_dir() else folder
    if not path.is_file():
        raise BadInput(f"{path}: expected the scores of a folder of syntheses, found none. Run voxlate evaluate first.")
    document = read_json(path)
    if not isinstance(document, dict) or not {"modalities", "cases"} <= document.keys():
        raise BadInput(f"{path}: expected what voxlate evaluate writes, found other JSON. Run voxlate evaluate.")
    for name, part in document["modalities"].items():
        if answer not in part["answers"]:
            known = ", ".join(part["answers"])
            raise BadInput(f"{path}: expected scores of {answer} for {name}, found {known}. Choose one of these.")
    return document


def _modality(name: str, methods: Sequence[Method], reference: str | None) -> dict[str, Any]:
    parts = [method.document["modalities"][name] for method in methods]
    rows = [method.rows(name) for method in methods]
    for method in methods[1:]:
        _check(name, methods[0], method)
    cases = sorted(rows[0])
    patients = [rows[0][case]["patient"] for case in cases]
    over = "patients" if len(set(patients)) > 1 else "cases"
    groups = patients if over == "patients" else cases
    found: dict[str, Any] = {}
    for metric in measured(methods[0].document):
        if metric.pooled:
            found |= _pooled(metric, methods, parts)
            continue
        if metric.key == "lpips" and len({part.get("lpips") for part in parts}) > 1:
            continue  # other weights, other numbers
        having = [k for k, by_case in enumerate(rows) if all(metric.key in row for row in by_case.values())]
        if metric.key == "std" and having:
            metric = replace(metric, better="truth")  # less is not better, so nothing is tested
        elif is_aside(metric) or len(having) < len(rows):
            continue
        values = np.array([[_number(rows[k][case][metric.key]) for case in cases] for k in having])
        found[metric.key] = _tested(metric, [methods[k] for k in having], *_by_group(values, groups), reference)
    stated = {key: parts[0].get(key) for key in SAME}
    return {**stated, "cases": len(cases), "patients": len(set(patients)), "over": over, "metrics": found}


def _check(name: str, first: Method, other: Method) -> None:
    wanted, found = (method.document["modalities"][name] for method in (first, other))
    for key in SAME:
        if wanted.get(key) != found.get(key):
            raise BadInput(
                f"{other.path}: expected {name} scored with {key} {wanted.get(key)} as in {first.path}, "
                f"found {found.get(key)}. Score both with the same options."
            )
    rules, others = (method.document.get("regions", {}) for method in (first, other))
    for region in rules.keys() & others.keys():
        if rules[region] != others[region]:
            raise BadInput(
                f"{other.path}: expected the region {region} to be {rules[region]} as in {first.path}, "
                f"found {others[region]}. Score both with the same --region."
            )
    cases = set(first.rows(name))
    odd = sorted(cases ^ set(other.rows(name)))
    if odd:
        where = first.path if odd[0] in cases else other.path
        raise BadInput(
            f"{other.path}: expected the same cases of {name} as in {first.path}, "
            f"found {count(len(odd), 'case')} in one only ({odd[0]} in {where}). Score the same cases in both."
        )


def _by_group(values: NDArray[np.float64], groups: Sequence[str]) -> tuple[NDArray[np.float64], int]:
    """Means over the cases of each patient [methods, patients] of cases that every method has a value for; how many."""
    kept = np.isfinite(values).all(0)
    names, member = np.unique(np.asarray(groups)[kept], return_inverse=True)
    sums = np.array([np.bincount(member, row[kept], len(names)) for row in values])
    return sums / np.maximum(np.bincount(member, minlength=len(names)), 1), int(kept.sum())


def _tested(
    metric: Metric, methods: Sequence[Method], values: NDArray[np.float64], used: int, reference: str | None
) -> dict[str, Any]:
    """Mean and sd of each method, and p of its difference to the reference over all that every method has."""
    size = values.shape[1]
    names = [method.name for method in methods]
    loss = {"lower": values, "higher": -values, "one": np.abs(values - 1)}.get(metric.better)
    summaries: dict[str, dict[str, Any]] = {
        name: {
            "mean": float(row.mean()) if size else None,
            "sd": float(row.std(ddof=1)) if size > 1 else None,
            "ci95": None,
        }
        for name, row in zip(names, values)
    }
    found: dict[str, Any] = {
        "label": metric.label,
        "better": metric.better,
        "n": size,
        "cases_used": used,
        "best": None,
        "reference": None,
        "methods": summaries,
    }
    if loss is None or size < 2:
        return found
    found["best"] = names[int(loss.mean(1).argmin())]
    found["reference"] = reference or found["best"]
    to = names.index(found["reference"])
    others = [number for number in range(len(names)) if number != to]
    tests = [wilcoxon_p(loss[number], loss[to]) for number in others]
    for number, p, corrected in zip(others, tests, holm(tests)):
        summaries[names[number]] |= {
            "difference": float((values[number] - values[to]).mean()),
            "p": p,
            "p_holm": corrected,
            "smallest_p": 2.0 ** (1 - size),
        }
    return found


def _pooled(metric: Metric, methods: Sequence[Method], parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Distances of pooled slices, where all methods have them by the same features and of as many images."""
    values = [part["answers"][method.answer].get(metric.key) for method, part in zip(methods, parts)]
    if not all(value and value["mean"] is not None for value in values):
        return {}
    if len({(part["features"]["name"], value["n"]) for part, value in zip(parts, values)}) > 1:
        return {}
    summaries = {
        method.name: {"mean": value["mean"], "sd": None, "se": value["se"], "ci95": None}
        for method, value in zip(methods, values)
    }
    best = min(summaries, key=lambda name: summaries[name]["mean"])
    shared = {"label": metric.label, "better": metric.better, "n": values[0]["n"], "best": best, "reference": None}
    return {metric.key: {**shared, "features": parts[0]["features"]["name"], "methods": summaries}}


def _effort(method: Method) -> dict[str, Any] | None:
    """Mean and sd of what the cases took, over those whose provenance says it; None where none does."""
    folder = method.path if method.path.is_dir() else method.path.parent
    names = sorted({row["case"] for row in method.document["cases"]}) if method.answer == "synthesis" else []
    said = [one for name in names if all(key in (one := provenance_of(folder, name)) for key in EFFORT)]
    if not said:
        return None
    values = {key: np.array([float(one[key]) for one in said]) for key in EFFORT}
    spreads = {key: float(row.std(ddof=1)) if len(said) > 1 else None for key, row in values.items()}
    return {
        **{key: {"mean": float(row.mean()), "sd": spreads[key]} for key, row in values.items()},
        "samples": sorted({one.get("synth", {}).get("samples", 1) for one in said}),
        "devices": sorted({one.get("device", "an unknown device") for one in said}),
        "cases": len(said),
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
