"""Several methods scored on the same cases: one table, with paired tests of their differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlate import __version__
from voxlate.errors import BadInput
from voxlate.files import write_json
from voxlate.scoring.documents import read_scores
from voxlate.scoring.items import check_unchanged
from voxlate.scoring.metrics import Metric, metrics_of, scope_label
from voxlate.scoring.provenance import provenance_of
from voxlate.scoring.tables import Cell, Line, Tables, mean_and_sd
from voxlate.scoring.words import not_held_out, plural, range_note, rows_of

MUST_AGREE = ("unit", "range", "own_peak", "mask", "ssim_padding", "ssim_from")  # for scores to compare
EFFORT = ("seconds_per_slice", "network_calls")  # entries of a case's provenance
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class ScoredMethod:
    """One method: a folder of syntheses with its metrics.json, and which of its answers is compared."""

    name: str
    path: Path
    document: Mapping[str, Any]
    answer: str

    def rows(self, modality: str) -> dict[str, Mapping[str, Any]]:
        """Scores by case."""
        return rows_of(self.document, modality, self.answer)


@dataclass(frozen=True)
class Comparison:
    """The table of methods as a document: JSON for programs, `table` for people."""

    document: Mapping[str, Any]

    def table(self) -> Tables:
        return comparison_tables(self.document)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def write(self, path: Path | str) -> None:
        write_json(path, self.document)


def compare(folders: Sequence[Path | str], *, reference: str | None = None, answer: str = "synthesis") -> Comparison:
    """Mean and sd of each method and metric, and paired Wilcoxon tests against `reference`, Holm-corrected.

    folders: what `evaluate` scored (each holds a metrics.json).
    reference: a name; by default the best method of each metric. answer: "synthesis", or a naive baseline.
    Several cases of one patient are averaged first, where there are several patients.
    Raises BadInput where cases, ranges or masks differ. Source: Wilcoxon 1945; Holm 1979.
    """
    methods = _methods([Path(folder) for folder in folders], answer)
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
            "scopes": {
                name: rule
                for name, rule in methods[0].document.get("scopes", {}).items()
                if all(name in method.document.get("scopes", {}) for method in methods)
            },
            "methods": {method.name: str(method.path) for method in methods},
            "trained_on": {method.name: method.document.get("trained_on", []) for method in methods},
            "effort": {method.name: _effort(method) for method in methods},
            "modalities": {name: _modality(name, methods, reference) for name in modalities},
        }
    )


def _methods(folders: Sequence[Path], answer: str) -> list[ScoredMethod]:
    if len(folders) < 2:
        raise BadInput(f"compare: expected at least two scored folders, found {len(folders)}. Add another one.")
    documents = [_document(folder, answer) for folder in folders]
    given = [" (given the truth)" if one.get("given_truth") else "" for one in documents]  # a bound, no synthesis
    names = [f"{name}{note}" for name, note in zip(_names(folders), given)]
    return [ScoredMethod(*one, answer) for one in zip(names, folders, documents)]


def _names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as make all of them different."""
    paths = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise BadInput(f"compare: expected different folders, found one twice in {', '.join(map(str, folders))}. Drop it.")


def _document(folder: Path, answer: str) -> Mapping[str, Any]:
    path = folder / "metrics.json" if folder.is_dir() else folder
    if not path.is_file():
        raise BadInput(f"{path}: expected the scores of a folder of syntheses, found none. Run voxlate evaluate first.")
    document = read_scores(path)
    for name, part in document["modalities"].items():
        if answer not in part["answers"]:
            known = ", ".join(part["answers"])
            raise BadInput(f"{path}: expected scores of {answer} for {name}, found {known}. Choose one of these.")
    check_unchanged(folder, document)
    return document


def _modality(name: str, methods: Sequence[ScoredMethod], reference: str | None) -> dict[str, Any]:
    parts = [method.document["modalities"][name] for method in methods]
    rows = [method.rows(name) for method in methods]
    for method in methods[1:]:
        _check(name, methods[0], method)
    cases = sorted(rows[0])
    patients = [rows[0][case]["patient"] for case in cases]
    over = "patients" if len(set(patients)) > 1 else "cases"
    groups = patients if over == "patients" else cases
    found: dict[str, Any] = {}
    for key, metric in metrics_of(methods[0].document).items():
        if metric.pooled:
            found |= _pooled(metric, methods, parts)
            continue
        if metric.score == "lpips" and len({part.get("lpips") for part in parts}) > 1:
            continue  # other weights, other numbers
        having = [k for k, by_case in enumerate(rows) if all(key in row for row in by_case.values())]
        if key == "std" and having:
            metric = replace(metric, better="truth")  # less is not better, so nothing is tested
        elif not metric.in_table or len(having) < len(rows):
            continue
        values = np.array([[rows[k][case][key] for case in cases] for k in having], np.float64)  # null becomes NaN
        found[key] = _tested(metric, [methods[k] for k in having], *_by_group(values, groups), reference)
    stated = {key: parts[0].get(key) for key in MUST_AGREE}
    return {**stated, "cases": len(cases), "patients": len(set(patients)), "over": over, "metrics": found}


def _check(name: str, first: ScoredMethod, other: ScoredMethod) -> None:
    """Raise BadInput where two methods were scored with different options, or on different cases."""
    wanted, found = (method.document["modalities"][name] for method in (first, other))
    for key in MUST_AGREE:
        if wanted.get(key) != found.get(key):
            raise BadInput(
                f"{other.path}: expected {name} scored with {key} {wanted.get(key)} as in {first.path}, "
                f"found {found.get(key)}. Score both with the same options."
            )
    for kind, option in (("regions", "--region"), ("scopes", "--score, --slices, --crop and --seed")):
        rules, others = (method.document.get(kind, {}) for method in (first, other))
        for part in rules.keys() & others.keys():
            if rules[part] != others[part]:
                raise BadInput(
                    f"{other.path}: expected the {kind.removesuffix('s')} {part} to be {rules[part]} as in "
                    f"{first.path}, found {others[part]}. Score both with the same {option}."
                )
    cases = set(first.rows(name))
    odd = sorted(cases ^ set(other.rows(name)))
    if odd:
        where = first.path if odd[0] in cases else other.path
        raise BadInput(
            f"{other.path}: expected the same cases of {name} as in {first.path}, "
            f"found {plural(len(odd), 'case')} in one only ({odd[0]} in {where}). Score the same cases in both."
        )


def _by_group(values: NDArray[np.float64], groups: Sequence[str]) -> tuple[NDArray[np.float64], int]:
    """Means over the cases of each patient [methods, patients] of cases that every method has a value for; how many."""
    kept = np.isfinite(values).all(0)
    names, member = np.unique(np.asarray(groups)[kept], return_inverse=True)
    sums = np.array([np.bincount(member, row[kept], len(names)) for row in values])
    return sums / np.maximum(np.bincount(member, minlength=len(names)), 1), int(kept.sum())


def _tested(
    metric: Metric, methods: Sequence[ScoredMethod], values: NDArray[np.float64], used: int, reference: str | None
) -> dict[str, Any]:
    """Mean and sd of each method, and p of its difference to the reference over all that every method has."""
    size = values.shape[1]
    names = [method.name for method in methods]
    loss = {"lower": values, "higher": -values, "one": np.abs(values - 1)}.get(metric.better)
    summaries: dict[str, dict[str, Any]] = {
        name: {**mean_and_sd(row), "ci95": None} for name, row in zip(names, values)
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


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: the k-th smallest of m times m - k + 1, never falling, at most 1.

    Source: Holm 1979.
    """
    order = np.argsort(p_values)
    scaled = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(value) for value in corrected]


def wilcoxon_p(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Two-sided p of the signed-rank test of paired values; 1 where no pair differs. Exact up to 50 untied pairs."""
    from scipy.stats import wilcoxon

    if not np.any(a != b):
        return 1.0
    return float(wilcoxon(a, b).pvalue)


def _pooled(metric: Metric, methods: Sequence[ScoredMethod], parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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


def _effort(method: ScoredMethod) -> dict[str, Any] | None:
    """Mean and sd of time and network calls over the cases whose provenance states them; None where none does."""
    folder = method.path if method.path.is_dir() else method.path.parent
    rows = [row for row in method.document["cases"] if row["answer"] == method.answer == "synthesis"]
    made = [(row["case"], provenance_of(folder, row["case"], row["modality"])) for row in rows]
    whole = [(case, one) for case, one in made if all(key in one for key in EFFORT)]
    stated = list({(case, *(one[key] for key in EFFORT)): one for case, one in whole}.values())  # images made at once
    if not stated:
        return None
    return {
        **{key: mean_and_sd(np.array([float(one[key]) for one in stated])) for key in EFFORT},
        "samples": sorted({one.get("synth", {}).get("samples", 1) for one in stated}),
        "devices": sorted({one.get("device", "an unknown device") for one in stated}),
        "cases": len(stated),
    }


def comparison_tables(document: Mapping[str, Any]) -> Tables:
    """The metrics of each modality, and under "" time and network calls of all of them."""
    names = list(document["methods"])
    known = metrics_of(document)
    lines = {
        modality: [
            Line(known[key].label, known[key].unit_for(part["unit"]), tuple(_cell(one, n, known[key]) for n in names))
            for key, one in part["metrics"].items()
            if any(value["mean"] is not None for value in one["methods"].values())
        ]
        for modality, part in document["modalities"].items()
    }
    effort = [document["effort"][name] for name in names]
    if any(effort):
        lines[""] = [
            Line("Time", "s/slice", tuple(Cell(_seconds(one) if one else "–") for one in effort)),
            Line("Network calls", "× samples", tuple(Cell(_calls(one) if one else "–") for one in effort)),
        ]
    title = "Methods: mean ± sd; below, p of the paired difference to the reference (=), * where below 0.05"
    return Tables(title, tuple(names), lines, _caption(document))


def _caption(document: Mapping[str, Any]) -> list[str]:
    """Range, mask, tests and times, in words."""
    scored = max(part["cases"] for part in document["modalities"].values())
    trained = {name: len(cases) for name, cases in document["trained_on"].items() if cases}
    lines = [f"{name}: {not_held_out(number, scored)}" for name, number in trained.items()]
    for name, part in document["modalities"].items():
        size = part[part["over"]]
        lines.append(
            f"{range_note(name, part)}; mask: {part['mask']}. Tests over {plural(size, part['over'][:-1])}: "
            f"no p lies below {2.0 ** (1 - size):.2g}."
        )
        if part["over"] == "cases":
            lines.append(f"{name}: one patient, so nothing is said of other patients.")
    chosen = document["reference"] or "the best of each metric (chosen after the fact, so p is a little too small)"
    lines.append(
        f"Bold: best mean. Reference: {chosen}. Wilcoxon signed-rank, two-sided, Holm over the methods of a metric; "
        "the metrics themselves are not corrected for their number. Pooled distances: ± standard error, no test."
    )
    lines += [f"{scope_label(name)}: {rule}." for name, rule in document["scopes"].items()]
    if any("std" in part["metrics"] for part in document["modalities"].values()):
        lines.append("Uncertainty: mean over the mask of the samples' standard deviation; no test, less is not better.")
    return lines + _caption_of_times(document["effort"])


def _caption_of_times(effort: Mapping[str, Any]) -> list[str]:
    devices = {name: ", ".join(one["devices"]) for name, one in effort.items() if one}
    if not devices:
        return []
    where = sorted(set(devices.values()))
    on = f"on {where[0]}" if len(where) == 1 else "; ".join(f"{name} on {place}" for name, place in devices.items())
    beware = " Times on different devices do not compare." if len(where) > 1 else ""
    return [
        f"Time: wall clock for a slice with all its samples, mean over the cases, {on}.{beware} "
        "Network calls: evaluations of the network for one sample of a slice or patch."
    ]


def _cell(found: Mapping[str, Any], name: str, metric: Metric) -> Cell:
    value = found["methods"].get(name)
    below = "=" if found["reference"] == name else ""
    if value and "p_holm" in value:
        below = f"p {value['p_holm']:.2g}{'*' if value['p_holm'] < SIGNIFICANT else ''}"
    return Cell(metric.mean_text(value), below, found["best"] == name)


def _seconds(effort: Mapping[str, Any]) -> str:
    seconds = effort["seconds_per_slice"]["mean"]
    return f"{seconds:.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _calls(effort: Mapping[str, Any]) -> str:
    calls = effort["network_calls"]["mean"]
    samples = ", ".join(map(str, effort["samples"]))
    return f"{calls:.0f}" if samples == "1" else f"{calls:.0f} × {samples}"
