"""Several methods scored on the same cases: one table, with paired tests of their differences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
from pandas import DataFrame

from voxlate import __version__
from voxlate.base.errors import BadInput, plural
from voxlate.base.files import whole_file, write_json, write_text
from voxlate.base.groups import grouped
from voxlate.base.statistics import (
    SIGNIFICANT,
    bootstrap,
    holm,
    least_p,
    mean_and_sd,
    patients_needed,
    wilcoxon_p,
)
from voxlate.evaluation.scoring.case_scores import EFFORT
from voxlate.evaluation.scoring.metrics import ABSENT, Metric, metrics_of
from voxlate.evaluation.scoring.score_header import Document, Table
from voxlate.evaluation.scoring.scored_images import check_unchanged
from voxlate.evaluation.scoring.scores import FILE, Scores, by_patient, read_scores
from voxlate.evaluation.scoring.tables import (
    NO_SCORE,
    Cell,
    Part,
    Tables,
    fold_lines,
    has_gap,
    is_main,
    metric_lines,
    not_held_out,
    printed,
    range_note,
)
from voxlate.synthesis.provenance import provenance_of
from voxlate.training.verdict import SYNTHESIS

NAIVE = "best naive"  # the column of the best naive baseline
TITLE = "Methods: mean ± sd; below, the difference to the reference (=) with its 95 % interval, and p, * below 0.05"
LEAST_APART = 0.02  # of the shares of scored voxels that two images show, from which their scores do not compare
# Scores compare only if these entries agree.
MUST_AGREE = ("unit", "range", "own_peak", "mask", "ssim_from")
# The rules of these parts must agree as well, which these options state.
RULES = {"region": "--regions", "scope": "--scopes"}
LATEX = str.maketrans(
    {
        "%": r"\%",
        "_": r"\_",
        "&": r"\&",
        "#": r"\#",
        "$": r"\$",
        "±": r"$\pm$",
        "²": "$^2$",
        "–": "--",
    }
)


@dataclass(frozen=True)
class ScoredMethod:
    """One method: a folder of syntheses with its scores."""

    name: str
    path: Path
    scores: Scores

    @property
    def devices(self) -> list[str]:
        """The devices on which its images were synthesised."""
        folder = self.path if self.path.is_dir() else self.path.parent
        labels = (label.split("/") for label in self.scores.labels)
        stated = (provenance_of(folder, case, name).get("device") for case, name in labels)
        return sorted({device for device in stated if device})


@dataclass(frozen=True)
class Comparison:
    """Methods compared on the same cases, as `voxlate.compare` returns them.

    Args:
        document: the comparison in plain tables: the conventions, means, standard deviations and tests of each modality
            and metric, and time and settings of each method.

    Example:
        >>> import shutil, voxlate
        >>> _ = shutil.copytree("OUT", "AGAIN")  # both were scored
        >>> comparison = voxlate.compare(["OUT", "AGAIN"])
        >>> mae = comparison.document["modalities"]["t2"]["metrics"]["mae"]
        >>> mae["methods"]["OUT"]["mean"] == mae["methods"]["AGAIN"]["mean"]
        True
    """

    document: Document

    def table(self) -> Tables:
        """All scores."""
        return comparison_tables(self.document)

    def short_table(self) -> Tables:
        """The main scores."""
        return comparison_tables(self.document, "main")

    def to_frame(self) -> DataFrame:
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
        return DataFrame(rows)

    def __repr__(self) -> str:
        return printed(self.short_table()).export_text()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def write(self, path: Path | str) -> None:
        """Write the table of all scores as .csv, that of the main scores as .tex (LaTeX, booktabs), or all as JSON."""
        path = Path(path)
        if path.suffix == ".csv":
            with whole_file(path) as temporary:
                self.to_frame().to_csv(temporary, index=False)
        elif path.suffix == ".tex":
            head = "".join(f"% {line}\n" for line in _caption(self.document))
            spread = "% ±: standard deviation over patients, of one patient over cases\n"
            write_text(path, head + spread + latex_of(self.short_table()))
        else:
            write_json(path, self.document)


def compare(
    folders: Sequence[Path | str],
    *,
    reference: str | None = None,
) -> Comparison:
    """Mean and sd of each method and metric, and paired Wilcoxon tests against `reference`, Holm-corrected.

    folders: folders that `evaluate` scored (each has a metrics.json); reference: name of a method, by default the best
    method of each metric. Cases of one patient are averaged first if there are several patients. Raises BadInput if
    cases, ranges or masks differ. Source: Wilcoxon 1945; Holm 1979.
    """
    methods = _methods([Path(folder) for folder in folders])
    names = [method.name for method in methods]
    if reference not in (None, *names):
        raise BadInput(
            f"--reference: expected one of {', '.join(names)}, found {reference!r}. Choose one of these."
        )
    first = methods[0]
    headers = {method.name: method.scores.header for method in methods}
    modalities = first.scores.parts.keys()
    for method in methods[1:]:
        others = method.scores.parts.keys()
        if others != modalities:
            raise BadInput(
                f"{method.path}: expected scores of {', '.join(modalities)} as in {first.path}, found {', '.join(others)}. Compare folders of the same targets."
            )
    shared = {key: first.scores.header.get(key, {}) for key in ("standard", "own_metrics")}
    left_out = dict[str, list[str]]()
    for key in "regions", "scopes":
        having = grouped((area, name) for name, of in headers.items() for area in of.get(key, {}))
        left_out |= {area: some for area, some in having.items() if some != names}
        rules = first.scores.header.get(key, {})
        shared[key] = {area: rules[area] for area, some in having.items() if some == names}
    known = metrics_of(shared)
    document = {
        "voxlate": __version__,
        "note": "Research software, not a medical device.",
        "reference": reference,
        **shared,
        "left_out": left_out,
        "methods": {method.name: str(method.path) for method in methods},
        "folds": {method.name: fold_lines(method.scores) for method in methods},
        "trained_on": {name: of.get("trained_on", []) for name, of in headers.items()},
        "devices": {method.name: method.devices for method in methods},
        "modalities": {name: _modality(name, methods, known, reference) for name in modalities},
        "naive": {name: _naive(name, methods) for name in modalities},
    }
    return Comparison(document)


def _methods(folders: Sequence[Path]) -> list[ScoredMethod]:
    if not folders:
        raise BadInput("compare: expected scored folders, found none. Name one or more.")
    methods = []
    for name, folder in zip(_names(folders), folders):
        path = folder / FILE if folder.is_dir() else folder
        if not path.is_file():
            raise BadInput(
                f"{path}: expected the scores of a folder of syntheses, found none. Run voxlate evaluate first."
            )
        scores = read_scores(path)
        check_unchanged(folder, scores.header)
        # Scores of images that were given the truth are a bound and not those of a synthesis.
        name += " (given the truth)" if scores.header.get("given_truth") else ""
        methods.append(ScoredMethod(name, folder, scores))
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
    parts = [method.scores.parts[name] for method in methods]
    tables = {method.name: method.scores.by_case(name) for method in methods}
    for method in methods[1:]:
        _check_same(name, methods[0], method)
    patients = methods[0].scores.patients
    results: Table = {}
    for key, metric in known.items():
        if metric.pooled:
            results |= _pool(name, metric, methods)
            continue
        if metric.score == "lpips" and len({part["lpips"] for part in parts}) > 1:
            continue  # scores by different weights do not compare
        if not metric.in_table:
            continue
        scored = {method: table[key] for method, table in tables.items() if key in table}
        if scored:
            results[key] = _test(metric, DataFrame(scored), patients, reference)
    return {
        **{key: parts[0][key] for key in (*MUST_AGREE, "cases", "patients")},
        "over": "patients" if parts[0]["patients"] > 1 else "cases",
        "metrics": results,
    }


def _naive(name: str, methods: Sequence[ScoredMethod]) -> Table | None:
    """The best naive baseline of all methods by its MAE: its name, method and scores; None if none has all cases."""
    found = list[Table]()
    for method in methods:
        (verdict,) = (one for one in method.scores.verdicts if one.modality == name)
        means = method.scores.means[name].get(verdict.baseline or "", {})
        if means and means["mae"]["n"] == method.scores.parts[name]["cases"]:
            found.append({"baseline": verdict.baseline, "of": method.name, "metrics": means})
    return min(found, key=lambda one: one["metrics"]["mae"]["mean"], default=None)


def _check_same(name: str, first: ScoredMethod, other: ScoredMethod) -> None:
    """Raise BadInput if two methods were scored with different options, or on different cases, truths or voxels."""
    both = (first.scores, other.scores)

    def refuse(expected: object, found: object, advice: str) -> NoReturn:
        raise BadInput(
            f"{other.path}: expected {name} with {expected} as in {first.path}, found {found}. {advice}."
        )

    wanted, actual = (scores.parts[name] for scores in both)
    for key in MUST_AGREE:
        if wanted[key] != actual[key]:
            refuse(
                f"{key} {wanted[key]}",
                actual[key],
                "Score both with the same options (--value-range, --mask, --units)",
            )
    for kind, option in RULES.items():
        rules, others = (scores.header.get(f"{kind}s", {}) for scores in both)
        for part in rules.keys() & others.keys():
            if rules[part] != others[part]:
                expected = f"the {kind} {part}: {rules[part]}"
                refuse(expected, others[part], f"Score both with the same {option}")
    cases, others = ({*scores.by_case(name).index} for scores in both)
    if odd := sorted(cases ^ others):
        found = f"{plural(len(odd), 'case')} in one only ({odd[0]})"
        refuse("the same cases", found, "Score the same cases in both")
    truths, others = (scores.header.get("truths", {}) for scores in both)
    if changed := sorted(label for label in truths if others.get(label) != truths[label]):
        refuse("the truths", f"another one of {changed[0]}", "Score both against one cohort")
    shown, others = (scores.header.get("shown", {}) for scores in both)
    apart = sorted(label for label in shown if abs(shown[label] - others[label]) > LEAST_APART)
    if apart:
        label = apart[0]
        found = f"{others[label]:.0%} of {label} in the image, and {shown[label]:.0%} there"
        refuse("images of the same voxels", found, "Score both with a --mask of what both show")


def _test(
    metric: Metric, scores: DataFrame, patients: Mapping[str, str], reference: str | None
) -> Table:
    """Mean and sd of each method, and p of its difference to the reference over the shared patients.

    scores: by case, a column for each method. Cases of one patient are not tested: they are no sample of other patients.
    """
    means = by_patient(scores, patients)
    values = means.to_numpy().T
    size = len(means)
    names = [*means.columns]
    summaries: list[Table] = [{**mean_and_sd(row), "ci95": None} for row in values]
    result: Table = {
        "label": metric.label,
        "better": metric.better,
        "n": size,
        "cases_used": int(np.isfinite(scores).all(axis=1).sum()),
        "best": None,
        "reference": None,
        "methods": dict(zip(names, summaries)),
    }
    loss = {"lower": values, "higher": -values, "one": np.abs(values - 1)}.get(metric.better)
    if loss is None or size < 2 or len(names) < 2:
        return result
    result["best"] = names[int(loss.mean(1).argmin())]
    if len({patients[case] for case in scores.index}) < 2 or reference not in (None, *names):
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


def _pool(name: str, metric: Metric, methods: Sequence[ScoredMethod]) -> Table:
    """Distances of pooled slices, if all methods have them by the same features and number of images."""
    values = {
        method.name: method.scores.means[name][SYNTHESIS].get(metric.key, {}) for method in methods
    }
    features, *others = (method.scores.parts[name]["features"] for method in methods)
    counts = {value.get("n") for value in values.values()}
    absent = any(value.get("mean") is None for value in values.values())
    if absent or len(counts) > 1 or any(other["name"] != features["name"] for other in others):
        return {}
    result = {
        "label": metric.label,
        "better": metric.better,
        "n": counts.pop(),
        "best": min(values, key=lambda method: values[method]["mean"]),
        "reference": None,
        "features": features["name"],
        "methods": {
            method: {key: value[key] for key in ("mean", "sd", "ci95")}
            for method, value in values.items()
        },
    }
    return {metric.key: result}


def comparison_tables(document: Document, which: Literal["all", "main"] = "all") -> Tables:
    """The tables of a comparison by modality, of all or of the main metrics with time and network calls.

    The best naive baseline is the last method.
    """
    names = tuple(document["methods"])
    naive = {name: baseline for name, baseline in document.get("naive", {}).items() if baseline}

    def cells(modality: str, metric: Metric) -> Iterator[Cell]:
        """The score of each method and of the best baseline."""
        result = document["modalities"][modality]["metrics"].get(metric.key)
        shown = which == "all" or metric.key in EFFORT or is_main(metric, document["standard"])
        if result is None or not shown:
            return
        if all(value["mean"] is None for value in result["methods"].values()):
            return
        cases = document["modalities"][modality]["cases"]
        for name in names:
            yield _cell(result, name, metric, cases)
        if naive:
            yield _naive_cell(naive.get(modality), metric)

    lines = metric_lines(document, cells)
    above = [f"{name}: {line}" for name, of in document["folds"].items() for line in of]
    columns = (*names, NAIVE) if naive else names
    legend = [NO_SCORE] if has_gap(lines) else []
    return Tables(TITLE, columns, lines, [*_caption(document), *legend], above)


def _caption(document: Document) -> Iterator[str]:
    """The caption: range, mask, tests and times."""
    parts = document["modalities"]
    # of a cross-validation, out-of-fold cases and those of the ensemble are two parts
    sizes = grouped((name.partition(", ")[0], part["cases"]) for name, part in parts.items())
    scored = max(map(sum, sizes.values()))
    for name, cases in document["trained_on"].items():
        if cases:
            yield f"{name}: {not_held_out(len(cases), scored)}"
    for name, part in parts.items():
        yield f"{range_note(name, part)}; mask: {part['mask']}. {_reachable(document, part['patients'])}."
    chosen = document["reference"] or "the best of each metric"
    yield f"Bold: best mean. Reference: {chosen}. p: Wilcoxon signed-rank test over patients, two-sided, Holm over the methods of a metric. Differences: 95 % bootstrap interval of the paired mean."
    for name, baseline in document.get("naive", {}).items():
        if baseline:
            yield f"{name}: best naive baseline by its MAE: {baseline['baseline']} (scored with {baseline['of']}), no test."
    for name, rule in document["scopes"].items():
        if name not in document["standard"]:
            yield f"{name}: {rule}."
    for name, having in document["left_out"].items():
        yield f"{name}: not compared, because it is scored in {', '.join(having)} alone (--regions, --scopes)."
    devices = {name: ", ".join(of) for name, of in document["devices"].items() if of}
    if len({*devices.values()}) > 1:
        on = "; ".join(f"{name} on {device}" for name, device in devices.items())
        yield f"Times on different devices do not compare: {on}."


def _reachable(document: Document, size: int) -> str:
    """What tests over this number of patients can tell after correction."""
    tests = len(document["methods"]) - 1
    if not tests:
        return "One method, no test"
    corrected = f" after Holm's correction for {tests} comparisons" if tests > 1 else ""
    if enough := patients_needed(size, tests):
        return f"Too few patients to compare: {size}, at least {enough} are needed{corrected}"
    return f"Tests over {size} patients: no p is below {least_p(size, tests):.2g}{corrected}"


def _cell(result: Part, name: str, metric: Metric, cases: int) -> Cell:
    """The mean of a method, its difference to the reference with its interval, such as +4.0 (3.1…4.9), and fewer cases."""
    value = result["methods"].get(name)
    below = "=" if result["reference"] == name else ""
    if value and "p_holm" in value:
        p = value["p_holm"]
        ends = [value["difference"], *(value.get("difference_ci95") or ())]
        size, *interval = (metric.text(end, like=value["mean"]) for end in ends)
        sign = "+" if value["difference"] >= 0 else ""
        within = f" ({'…'.join(interval)})" if interval else ""
        below = f"{sign}{size}{within}\np {p:.2g}{'*' if p < SIGNIFICANT else ''}"
    if (used := result.get("cases_used", cases)) < cases:
        below += f"\n{used} of {plural(cases, 'case')}"
    return Cell(metric.mean_text(value), below.lstrip(), result["best"] == name)


def _naive_cell(baseline: Part | None, metric: Metric) -> Cell:
    """A score of the best naive baseline; its name is printed below its MAE."""
    if baseline is None:
        return Cell(ABSENT)
    below = baseline["baseline"] if metric.key == "mae" else ""
    return Cell(metric.mean_text(baseline["metrics"].get(metric.key)), below)


def latex_of(tables: Tables) -> str:
    """A table as LaTeX for the package booktabs: the best mean is bold, a star stands for p < 0.05."""
    rows = dict[str, list[str]]()
    for section, lines in tables.lines.items():
        if len(tables.lines) > 1:
            rows[section] = [""] * len(tables.methods)
        for line in lines:
            label = f"{line.label} [{line.unit}]" if line.unit else line.label
            # labels of several sections may be equal, and pandas keeps the order of rows
            rows[f"{section}\n{label}"] = [_latex_cell(cell) for cell in line.cells]
    frame = DataFrame.from_dict(rows, orient="index", columns=[*tables.methods])
    frame.index = [name.rpartition("\n")[2].translate(LATEX) for name in frame.index]
    frame.columns = [name.translate(LATEX) for name in frame.columns]
    return frame.to_latex(column_format="l" + "r" * len(tables.methods), escape=False)


def _latex_cell(cell: Cell) -> str:
    text = cell.text.translate(LATEX)
    if cell.bold:
        text = rf"\textbf{{{text}}}"
    return text + ("$^*$" if cell.below.endswith("*") else "")
