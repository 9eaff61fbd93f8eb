"""Several methods scored on the same cases: one table, with paired tests of their differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from voxlate import __version__
from voxlate.base.arrays import Float64
from voxlate.base.dataframe import dataframe
from voxlate.base.errors import BadInput, plural
from voxlate.base.files import write_json
from voxlate.base.statistics import bootstrap, holm, least_p, mean_and_sd, wilcoxon_p
from voxlate.evaluation.scoring.documents import Document, Part, Row, Table, read_scores, rows_of
from voxlate.evaluation.scoring.metrics import Metric, metrics_of
from voxlate.evaluation.scoring.scored_images import check_unchanged
from voxlate.evaluation.scoring.tables import Tables
from voxlate.evaluation.tables import comparison_tables
from voxlate.synthesis.provenance import provenance_of
from voxlate.training.verdict import SYNTHESIS

# Scores compare only if these entries agree.
MUST_AGREE = ("unit", "range", "own_peak", "mask", "ssim_padding", "ssim_from")
# The rules of these parts must agree as well, which these options state.
RULES = {"region": "--region", "scope": "--score, --slices, --crop and --seed"}
EFFORT = ("seconds_per_slice", "network_calls")  # entries of a case's provenance


@dataclass(frozen=True)
class ScoredMethod:
    """One method: a folder of syntheses with its metrics.json; answer: its images that are compared."""

    name: str
    path: Path
    document: Document
    answer: str

    def rows(self, modality: str) -> dict[str, Row]:
        """Scores by case."""
        return rows_of(self.document, modality, self.answer)

    @property
    def provenances(self) -> list[tuple[str, Document]]:
        """The case and the provenance of each synthesised image; none where naive baselines are compared."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return [
            (row["case"], provenance_of(folder, row["case"], row["modality"]))
            for row in self.document["cases"]
            if row["answer"] == self.answer == SYNTHESIS
        ]


@dataclass(frozen=True)
class Patients:
    """The cases of a modality that all methods have, and the patient of each.

    Cases of one patient are averaged first if there are several patients; otherwise each case counts by itself.
    """

    cases: list[str]
    names: list[str]

    @property
    def count(self) -> int:
        """Number of patients."""
        return len(set(self.names))

    def means(self, rows: Sequence[Mapping[str, Row]], key: str) -> tuple[Float64, int]:
        """Means over each patient's cases with a value in all rows [len(rows), patients], and the number of such cases."""
        values = np.empty((len(rows), len(self.cases)))
        for row, by_case in zip(values, rows):
            row[:] = [by_case[case].get(key) for case in self.cases]  # None becomes NaN
        groups = self.names if self.count > 1 else self.cases
        kept = np.isfinite(values).all(0)
        names, member = np.unique(np.asarray(groups)[kept], return_inverse=True)
        sums = np.array([np.bincount(member, row[kept], len(names)) for row in values])
        return sums / np.maximum(np.bincount(member, minlength=len(names)), 1), int(kept.sum())


@dataclass(frozen=True)
class Comparison:
    """Methods compared on the same cases, as `voxlate.compare` returns them.

    Args:
        document: the comparison in plain tables: the conventions, means, standard deviations and tests of each modality
            and metric, and time and settings of each method.

    Example:
        >>> import shutil, voxlate
        >>> cases = voxlate.phantom("COHORT", cases=1, size=(24, 32, 24), progress=False)
        >>> for method in ("UNET", "DDPM"):
        ...     _ = shutil.copytree("COHORT", method)
        ...     _ = voxlate.evaluate(method, "COHORT", mask="body", progress=False)
        >>> comparison = voxlate.compare(["UNET", "DDPM"])
        >>> mae = comparison.document["modalities"]["ct"]["metrics"]["mae"]
        >>> {name: result["mean"] for name, result in mae["methods"].items()}
        {'UNET': 0.0, 'DDPM': 0.0}
    """

    document: Document

    def table(self) -> Tables:
        """All scores."""
        return comparison_tables(self.document)

    def short_table(self) -> Tables:
        """The main scores."""
        return comparison_tables(self.document, "main")

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each score of each method and modality, with tests if there are any.

        An interval has two columns; n: number of compared patients (or cases).
        """
        rows = []
        for modality, part in self.document["modalities"].items():
            for score, metric in part["metrics"].items():
                shared = {key: metric[key] for key in ("label", "better", "n", "best", "reference")}
                for method, result in metric["methods"].items():
                    row = {"modality": modality, "score": score, "method": method, **shared}
                    for key, value in result.items():
                        if not key.endswith("ci95"):
                            row[key] = value
                        elif value:
                            row[f"{key}_low"], row[f"{key}_high"] = value
                    rows.append(row)
        return dataframe(rows)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def write(self, path: Path | str) -> None:
        """Write the document as JSON."""
        write_json(path, self.document)


def compare(
    folders: Sequence[Path | str],
    *,
    reference: str | None = None,
    answer: str = SYNTHESIS,
) -> Comparison:
    """Mean and sd of each method and metric, and paired Wilcoxon tests against `reference`, Holm-corrected.

    folders: folders that `evaluate` scored (each has a metrics.json); reference: name of a method, by default the best
    method of each metric; answer: "synthesis", or a naive baseline. Cases of one patient are averaged first if there
    are several patients. Raises BadInput if cases, ranges or masks differ. Source: Wilcoxon 1945; Holm 1979.
    """
    methods = _methods([Path(folder) for folder in folders], answer)
    names = [method.name for method in methods]
    if reference not in (None, *names):
        raise BadInput(
            f"--reference: expected one of {', '.join(names)}, found {reference!r}. Choose one of these."
        )
    first = methods[0].document
    modalities = list(first["modalities"])
    scopes = dict(first.get("scopes", {}))
    for method in methods[1:]:
        other = method.document
        if set(other["modalities"]) != set(modalities):
            raise BadInput(
                f"{method.path}: expected scores of {', '.join(modalities)} as in {methods[0].path}, found {', '.join(other['modalities'])}. Compare folders of the same targets."
            )
        scopes = {name: rule for name, rule in scopes.items() if name in other.get("scopes", {})}
    shared = {key: first.get(key, {}) for key in ("regions", "standard", "own_metrics")} | {
        "scopes": scopes
    }
    known = metrics_of(shared)
    aims = {each["coverage"] for one in methods for each in one.document.get("calibrations", ())}
    results = {name: _modality(name, methods, known, reference) for name in modalities}
    naive = {name: _naive(name, methods, known) for name in modalities}
    document = {
        "voxlate": __version__,
        "note": "Research software, not a medical device.",
        "answer": answer,
        "reference": reference,
        **shared,
        "coverage_aim": aims.pop() if len(aims) == 1 else None,
        "methods": {method.name: str(method.path) for method in methods},
        "trained_on": {method.name: method.document.get("trained_on", []) for method in methods},
        "effort": {method.name: _effort(method) for method in methods},
        "settings": {method.name: _settings(method) for method in methods},
        "modalities": results,
        "naive": naive if answer == SYNTHESIS else {},
    }
    return Comparison(document)


def _methods(folders: Sequence[Path], answer: str) -> list[ScoredMethod]:
    if len(folders) < 2:
        raise BadInput(
            f"compare: expected at least two scored folders, found {len(folders)}. Add another one."
        )
    methods = []
    for name, folder in zip(_names(folders), folders):
        path = folder / "metrics.json" if folder.is_dir() else folder
        if not path.is_file():
            raise BadInput(
                f"{path}: expected the scores of a folder of syntheses, found none. Run voxlate evaluate first."
            )
        document = read_scores(path)
        for modality, part in document["modalities"].items():
            if answer not in part["answers"]:
                raise BadInput(
                    f"{path}: expected scores of {answer} for {modality}, found {', '.join(part['answers'])}. Choose one of these."
                )
        check_unchanged(folder, document)
        # Scores of images that were given the truth are a bound and not those of a synthesis.
        name += " (given the truth)" if document.get("given_truth") else ""
        methods.append(ScoredMethod(name, folder, document, answer))
    return methods


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


def _modality(
    name: str,
    methods: Sequence[ScoredMethod],
    known: Mapping[str, Metric],
    reference: str | None,
) -> Table:
    """The conventions of a modality, and the result of each metric that methods have."""
    parts = [method.document["modalities"][name] for method in methods]
    rows = [method.rows(name) for method in methods]
    for method in methods[1:]:
        _check_same(name, methods[0], method)
    cases = sorted(rows[0])
    patients = Patients(cases, [rows[0][case]["patient"] for case in cases])
    results: Table = {}
    for key, metric in known.items():
        if metric.pooled:
            results |= _pool(metric, methods, parts)
            continue
        if metric.score == "lpips" and len({part["lpips"] for part in parts}) > 1:
            continue  # scores by different weights do not compare
        if key == "std":
            # A smaller standard deviation is not better, so it is not tested.
            metric = replace(metric, better="truth")
        elif not metric.in_table:
            continue
        scored = {
            method.name: by_case
            for method, by_case in zip(methods, rows)
            if any(key in row for row in by_case.values())
        }
        if scored:
            results[key] = _test(metric, scored, patients, reference)
    return {
        **{key: parts[0][key] for key in MUST_AGREE},
        "cases": len(cases),
        "patients": patients.count,
        "over": "patients" if patients.count > 1 else "cases",
        "metrics": results,
    }


def _naive(name: str, methods: Sequence[ScoredMethod], known: Mapping[str, Metric]) -> Table | None:
    """The best naive baseline of all methods by its MAE: its name, method and scores; None if there is none.

    Only baselines with all cases count. Cases of one patient are averaged first, as for methods.
    """
    cases = sorted(methods[0].rows(name))
    best: Table | None = None
    for method in methods:
        for answer in method.document["modalities"][name]["answers"]:
            rows = rows_of(method.document, name, answer)
            errors = [rows.get(case, {}).get("mae") for case in cases]
            if answer == SYNTHESIS or None in errors:
                continue
            patients = Patients(cases, [rows[case]["patient"] for case in cases])
            scores = {}
            for key, metric in known.items():
                if metric.in_table and not metric.pooled and key in set().union(*rows.values()):
                    (means,), _ = patients.means([rows], key)
                    scores[key] = mean_and_sd(means)
            if best is None or scores["mae"]["mean"] < best["metrics"]["mae"]["mean"]:
                best = {"baseline": answer, "of": method.name, "metrics": scores}
    return best


def _check_same(name: str, first: ScoredMethod, other: ScoredMethod) -> None:
    """Raise BadInput if two methods were scored with different options, or on different cases."""
    wanted, actual = (method.document["modalities"][name] for method in (first, other))
    for key in MUST_AGREE:
        if wanted[key] != actual[key]:
            raise BadInput(
                f"{other.path}: expected {name} scored with {key} {wanted[key]} as in {first.path}, found {actual[key]}. Score both with the same options."
            )
    for kind, option in RULES.items():
        rules, others = (method.document.get(f"{kind}s", {}) for method in (first, other))
        for part in rules.keys() & others.keys():
            if rules[part] != others[part]:
                raise BadInput(
                    f"{other.path}: expected the {kind} {part} to be {rules[part]} as in {first.path}, found {others[part]}. Score both with the same {option}."
                )
    cases = set(first.rows(name))
    if odd := sorted(cases ^ set(other.rows(name))):
        where = first.path if odd[0] in cases else other.path
        raise BadInput(
            f"{other.path}: expected the same cases of {name} as in {first.path}, found {plural(len(odd), 'case')} in one only ({odd[0]} in {where}). Score the same cases in both."
        )


def _test(
    metric: Metric,
    rows: Mapping[str, Mapping[str, Row]],
    patients: Patients,
    reference: str | None,
) -> Table:
    """Mean and sd of each method, and p of its difference to the reference over the shared patients.

    rows: scores by method and case. Cases of one patient are not tested: they are no sample of other patients.
    """
    values, used = patients.means(list(rows.values()), metric.key)
    size = values.shape[1]
    names = list(rows)
    summaries: list[Table] = [{**mean_and_sd(row), "ci95": None} for row in values]
    result: Table = {
        "label": metric.label,
        "better": metric.better,
        "n": size,
        "cases_used": used,
        "best": None,
        "reference": None,
        "methods": dict(zip(names, summaries)),
    }
    loss = {"lower": values, "higher": -values, "one": np.abs(values - 1)}.get(metric.better)
    if loss is None or size < 2 or len(names) < 2:
        return result
    result["best"] = names[int(loss.mean(1).argmin())]
    if patients.count < 2 or reference not in (None, *names):
        return result  # the reference may have no such score
    result["reference"] = reference or result["best"]
    to = names.index(result["reference"])
    others = [number for number in range(len(names)) if number != to]
    tests = [wilcoxon_p(loss[number], loss[to]) for number in others]
    for number, p, corrected in zip(others, tests, holm(tests)):
        differences = values[number] - values[to]
        summaries[number] |= {
            "difference": float(differences.mean()),
            "difference_ci95": bootstrap(differences, [*map(str, range(size))], seed=0),
            "p": p,
            "p_holm": corrected,
            "smallest_p": least_p(size),
            "smallest_p_holm": least_p(size, len(others)),
        }
    return result


def _pool(metric: Metric, methods: Sequence[ScoredMethod], parts: Sequence[Part]) -> Table:
    """Distances of pooled slices, if all methods have them by the same features and number of images."""
    values = {
        method.name: part["answers"][method.answer].get(metric.key)
        for method, part in zip(methods, parts)
    }
    if not all(value and value["mean"] is not None for value in values.values()):
        return {}
    features = {part["features"]["name"] for part in parts}
    counts = {value["n"] for value in values.values()}
    if len(features) > 1 or len(counts) > 1:
        return {}
    summaries = {}
    for name, value in values.items():
        summaries[name] = {key: value[key] for key in ("mean", "sd", "se", "ci95")}
    result = {
        "label": metric.label,
        "better": metric.better,
        "n": counts.pop(),
        "best": min(values, key=lambda name: values[name]["mean"]),
        "reference": None,
        "features": features.pop(),
        "methods": summaries,
    }
    return {metric.key: result}


def _settings(method: ScoredMethod) -> Table | None:
    """The run, the steps and the sharpness of a method's images; None where they are not stated, or differ."""
    settings = set()
    for _, provenance in method.provenances:
        of_synthesis = provenance.get("synth", {})
        keys = ("steps", "sharpness", "samples")
        settings.add((provenance.get("run"), "runs" in provenance, *map(of_synthesis.get, keys)))
    if len(settings) != 1:
        return None
    ((run, is_ensemble, steps, sharpness, samples),) = settings
    if run is None or is_ensemble or samples not in (None, 1):
        return None
    place = Path(run)
    if place.suffix == ".safetensors":
        if place.name != "weights.safetensors":  # of the stage that predicts the mean
            sharpness = 0.0
        place = place.parent
    sharpness = 1.0 if sharpness is None else sharpness
    return {"run": f"{place}", "sharpness": sharpness, "steps": steps if sharpness else None}


def _effort(method: ScoredMethod) -> Table | None:
    """Mean and sd of time and network calls over the cases whose provenance states them; None if there are none."""
    # Images of one case that were synthesised together count once.
    by_run: dict[tuple[Any, ...], Document] = {}
    for case, provenance in method.provenances:
        numbers = [provenance.get(key) for key in EFFORT]
        if None not in numbers:
            by_run[case, *numbers] = provenance
    runs = list(by_run.values())
    if not runs:
        return None
    return {
        **{key: mean_and_sd(np.array([float(run[key]) for run in runs])) for key in EFFORT},
        "samples": sorted({run.get("synth", {}).get("samples", 1) for run in runs}),
        "devices": sorted({run.get("device", "an unknown device") for run in runs}),
        "cases": len(runs),
    }
