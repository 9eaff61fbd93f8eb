"""Several methods scored on the same cases: one table, with paired tests of their differences."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from pandas import DataFrame

from voxlate import __version__
from voxlate.base.array_types import AnyArray
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
    Cell,
    Tables,
    Which,
    fold_lines,
    is_main,
    not_held_out,
    printed,
    range_note,
    tables_of,
)
from voxlate.training.verdict import SYNTHESIS

NAIVE = "best naive"  # the column of the best naive baseline
TITLE = "Methods: mean ± sd; below, the difference to the reference (=) with its 95 % interval, and p, * below 0.05"
LEAST_APART = 0.02  # of the shares of scored voxels that two images show, from which their scores do not compare
# Scores compare only if these entries of a section agree.
MUST_AGREE = ("unit", "range", "own_peak", "mask", "ssim_from")
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
Methods = Mapping[str, Scores]  # by name


@dataclass(frozen=True)
class Comparison:
    """Methods compared on the same cases, as `voxlate.compare` returns them.

    Args:
        document: the comparison in plain values: the conventions of each modality, and `results`, with a row for each
            score of each method, its mean and standard deviation, and its test against the reference.

    Example:
        >>> import shutil, voxlate
        >>> _ = shutil.copytree("OUT", "AGAIN")  # both were scored
        >>> results = voxlate.compare(["OUT", "AGAIN"]).frame
        >>> of_mae = results[results.score == "mae"].set_index("method")["mean"]
        >>> bool(of_mae["OUT"] == of_mae["AGAIN"])
        True
    """

    document: Document

    @cached_property
    def frame(self) -> DataFrame:
        """The results as a pandas DataFrame; n: number of compared patients (or cases)."""
        return DataFrame(self.document["results"])

    def table(self) -> Tables:
        """All scores."""
        return comparison_tables(self.document)

    def short_table(self) -> Tables:
        """The main scores."""
        return comparison_tables(self.document, "main")

    def __repr__(self) -> str:
        return printed(self.short_table()).export_text()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def write(self, path: Path | str) -> None:
        """Write the table of all scores as .csv, that of the main scores as .tex (LaTeX, booktabs), or all as JSON."""
        path = Path(path)
        if path.suffix == ".csv":
            with whole_file(path) as temporary:
                self.frame.to_csv(temporary, index=False)
        elif path.suffix == ".tex":
            head = "".join(f"% {line}\n" for line in _caption(self.document))
            spread = "% ±: standard deviation over patients, of one patient over cases; *: p < 0.05; --out FILE.csv has all p and intervals\n"
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
    cases, ranges, masks or regions differ. Source: Wilcoxon 1945; Holm 1979.
    """
    paths = [Path(folder) for folder in folders]
    scored = [_read(path) for path in paths]
    names = [
        # scores of images that were given the truth are a bound and not those of a synthesis
        f"{name} (given the truth)" if scores.header.get("given_truth") else name
        for name, scores in zip(_names(paths), scored)
    ]
    if reference not in (None, *names):
        raise BadInput(
            f"--reference: expected one of {', '.join(names)}, found {reference!r}. Choose one of these."
        )
    for path, other in zip(paths, scored):
        _check_same(paths[0], scored[0], path, other)
    methods = dict(zip(names, scored))
    first = scored[0]
    areas = ("standard", "own_metrics", "scopes", "regions")
    shared = {key: first.header.get(key, {}) for key in areas}
    conventions = (*MUST_AGREE, "cases", "patients")
    document = {
        "voxlate": __version__,
        "note": "Research software, not a medical device.",
        "reference": reference,
        **shared,
        "methods": dict(zip(names, map(str, paths))),
        "folds": {name: fold_lines(scores) for name, scores in methods.items()},
        "verdicts": {
            name: [f"{one.modality}: {one}" for one in scores.verdicts if one.outcome == "worse"]
            for name, scores in methods.items()
        },
        "trained_on": {name: one.header.get("trained_on", []) for name, one in methods.items()},
        "modalities": {
            name: {key: part[key] for key in conventions} for name, part in first.parts.items()
        },
        "results": [
            row
            for section in first.parts
            for row in _results(section, methods, metrics_of(shared).values(), reference)
        ],
    }
    return Comparison(document)


def _read(folder: Path) -> Scores:
    """The scores of a folder, or of its metrics.json; raises BadInput if there are none, or if its images have changed."""
    path = folder / FILE if folder.is_dir() else folder
    if not path.is_file():
        raise BadInput(
            f"{path}: expected the scores of a folder of syntheses, found none. Run voxlate evaluate first."
        )
    scores = read_scores(path)
    check_unchanged(folder, scores.header)
    return scores


def _names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as are needed to distinguish them."""
    paths = [folder.resolve().parts for folder in folders]
    if not paths:
        raise BadInput("compare: expected scored folders, found none. Name one or more.")
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise BadInput(
        f"compare: expected different folders, found one twice in {', '.join(map(str, folders))}. Drop it."
    )


def _check_same(first: Path, wanted: Scores, other: Path, found: Scores) -> None:
    """Raise BadInput if two methods were scored with different options, or on different cases, truths or voxels."""
    expected, actual = _conditions(wanted), _conditions(found)
    for what in {**expected, **actual}:
        a, b = expected.get(what), actual.get(what)
        if a == b:
            continue
        if None in (a, b):
            lacking = first if a is None else other
            raise BadInput(
                f"{lacking}: expected the same cases, regions and scores in all folders, found none of the {what}. Compare folders with the same cases and options."
            )
        raise BadInput(
            f"{other}: expected the {what} as in {first} ({a}), found {b}. Score both with the same options (--value-range, --mask, --regions), cases and cohort."
        )
    shown, others = (scores.header.get("shown", {}) for scores in (wanted, found))
    for label, share in shown.items():
        if abs(share - others[label]) > LEAST_APART:
            raise BadInput(
                f"{other}: expected {label} to show the voxels that it shows in {first} ({share:.0%}), found {others[label]:.0%}. Score both with a --mask of what both show."
            )


def _conditions(scores: Scores) -> dict[str, object]:
    """What two methods must share, by name, so that their scores compare."""
    header = scores.header
    stated: dict[str, object] = {}
    for name, part in scores.parts.items():
        stated |= {f"{key} of {name}": part[key] for key in MUST_AGREE}
        stated |= {f"case {case} of {name}": "scored" for case in scores.by_case(name).index}
    stated |= {f"rule of {area}": rule for area, rule in header["regions"].items()}
    truths = header.get("truths", {})
    return stated | {f"truth of {label}": digest for label, digest in truths.items()}


def _results(
    section: str, methods: Methods, metrics: Iterable[Metric], reference: str | None
) -> Iterator[Table]:
    """A row for each score of a section and each method that has it, and for the best naive baseline."""
    tables = {method: scores.by_case(section) for method, scores in methods.items()}
    patients = next(iter(methods.values())).patients
    weights = {scores.parts[section]["lpips"] for scores in methods.values()}
    naive = _best_baseline(section, methods)
    for metric in metrics:
        scored = {
            method: table[metric.key] for method, table in tables.items() if metric.key in table
        }
        if metric.pooled:
            rows = _pooled(section, metric, methods)
        elif not scored or not metric.in_table or (metric.score == "lpips" and len(weights) > 1):
            continue  # scores by different weights of LPIPS do not compare
        else:
            rows = _tested(metric, DataFrame(scored), patients, reference)
        if rows and naive:
            mean = naive["means"].get(metric.key, {"mean": None, "sd": None})
            about = {key: naive[key] for key in ("baseline", "of")}
            rows.append({"method": NAIVE, "mean": mean["mean"], "sd": mean["sd"], **about})
        rows = _with_best(metric, rows)
        about = {"modality": section, "score": metric.key}
        about |= {"label": metric.label, "better": metric.better}
        yield from (about | row for row in rows)


def _loss(metric: Metric, means: AnyArray) -> AnyArray | None:
    """What is least for the best of several means; None if no value is better than another."""
    match metric.better:
        case "lower":
            return means
        case "higher":
            return -means
        case "one":
            return np.abs(means - 1)
    return None


def _with_best(metric: Metric, rows: list[Table]) -> list[Table]:
    """The rows of one score, each with the name of the best mean; the naive baseline is one of them."""
    scored = [row for row in rows if row["mean"] is not None]
    loss = _loss(metric, np.array([row["mean"] for row in scored]))
    if loss is None or not scored:
        return rows
    best = scored[int(loss.argmin())]["method"]
    return [row | {"best": best} for row in rows]


def _best_baseline(section: str, methods: Methods) -> Table | None:
    """The best naive baseline of all methods by its MAE: its name, method and scores; None if none has all cases."""
    found = list[Table]()
    for method, scores in methods.items():
        (verdict,) = (one for one in scores.verdicts if one.modality == section)
        means = scores.means[section].get(verdict.baseline or "", {})
        if means and means["mae"]["n"] == scores.parts[section]["cases"]:
            found.append({"baseline": verdict.baseline, "of": method, "means": means})
    return min(found, key=lambda one: one["means"]["mae"]["mean"], default=None)


def _tested(
    metric: Metric, scores: DataFrame, patients: Mapping[str, str], reference: str | None
) -> list[Table]:
    """Mean and sd of each method, and p of its difference to the reference over the shared patients.

    scores: by case, a column for each method. Cases of one patient are not tested: they are no sample of other patients.
    """
    means = by_patient(scores, patients)
    values = means.to_numpy().T
    size = len(means)
    names = [*means.columns]
    used = int(np.isfinite(scores).all(axis=1).sum())
    rows: list[Table] = [
        {"method": name, **mean_and_sd(own), "n": size, "cases": used}
        for name, own in zip(names, values)
    ]
    loss = _loss(metric, values)
    if loss is None or size < 2 or len(names) < 2:
        return rows
    best = names[int(loss.mean(1).argmin())]
    is_sample = len({patients[case] for case in scores.index}) > 1
    to = reference or best
    for row in rows:
        row["reference"] = to if is_sample and to in names else None
    if rows[0]["reference"] is None:
        return rows
    first = names.index(to)
    others = [number for number in range(len(names)) if number != first]
    tests = [wilcoxon_p(loss[number], loss[first]) for number in others]
    for number, p, corrected in zip(others, tests, holm(tests)):
        differences = values[number] - values[first]
        ends = bootstrap(differences, [*map(str, range(size))], seed=0) or (None, None)
        rows[number] |= {
            "difference": float(differences.mean()),
            "difference_ci95_low": ends[0],
            "difference_ci95_high": ends[1],
            "p": p,
            "p_holm": corrected,
        }
    return rows


def _pooled(section: str, metric: Metric, methods: Methods) -> list[Table]:
    """Distances of pooled slices, if all methods have them by the same features and number of images."""
    rows = list[Table]()
    rests_on = set[tuple[str, int]]()
    for method, scores in methods.items():
        value = scores.means[section][SYNTHESIS].get(metric.key)
        if value is None or value["mean"] is None:
            return []
        rests_on.add((scores.parts[section]["features"]["name"], value["n"]))
        rows.append({"method": method, "mean": value["mean"], "sd": None, "n": value["n"]})
    if len(rests_on) > 1:
        return []
    return rows


def comparison_tables(document: Document, which: Which = "all") -> Tables:
    """The tables of a comparison by modality, of all or of the main metrics with time and network calls.

    The best naive baseline is the last method.
    """
    results = grouped(((row["modality"], row["score"]), row) for row in document["results"])
    columns = tuple(document["methods"])
    if any(row["method"] == NAIVE for row in document["results"]):
        columns = (*columns, NAIVE)

    def cells(modality: str, metric: Metric) -> Iterator[Cell]:
        """The score of each method and of the best baseline."""
        rows = {row["method"]: row for row in results.get((modality, metric.key), ())}
        shown = which == "all" or metric.key in EFFORT or is_main(metric, document["standard"])
        if shown and any(row["mean"] is not None for row in rows.values()):
            for name in columns:
                yield _cell(rows.get(name), metric, document["modalities"][modality]["cases"])

    above = [f"{name}: {line}" for name, of in document["folds"].items() for line in of]
    units = {name: part["unit"] for name, part in document["modalities"].items()}
    metrics = metrics_of(document).values()
    methods = dict.fromkeys(units, columns)
    return tables_of(TITLE, methods, units, metrics, cells, _caption(document), above)


def _caption(document: Document) -> Iterator[str]:
    """The caption: range, mask, tests and times."""
    parts = document["modalities"]
    # of a cross-validation, out-of-fold cases and those of the ensemble are two parts
    sizes = grouped((name.partition(", ")[0], part["cases"]) for name, part in parts.items())
    scored = max(map(sum, sizes.values()))
    for name, cases in document["trained_on"].items():
        if cases:
            yield f"{name}: {not_held_out(len(cases), scored)}"
    for name, sentences in document["verdicts"].items():
        yield from (f"{name}: {sentence}" for sentence in sentences)
    for name, part in parts.items():
        yield f"{range_note(name, part)}; mask: {part['mask']}. {_reachable(document, part['patients'])}."
    chosen = document["reference"] or "the best of each metric"
    yield f"Bold: best mean. Reference: {chosen}. p: Wilcoxon signed-rank test over patients, two-sided, Holm over the methods of a metric. Differences: 95 % bootstrap interval of the paired mean."
    for row in document["results"]:
        if row["method"] == NAIVE and row["score"] == "mae":
            yield f"{row['modality']}: best naive baseline by its MAE: {row['baseline']} (scored with {row['of']}), no test."


def _reachable(document: Document, size: int) -> str:
    """What tests over this number of patients can tell after correction."""
    tests = len(document["methods"]) - 1
    if not tests:
        return "One method, no test"
    corrected = f" after Holm's correction for {tests} comparisons" if tests > 1 else ""
    if enough := patients_needed(size, tests):
        return f"Too few patients to compare: {size}, at least {enough} are needed{corrected}"
    return f"Tests over {size} patients: no p is below {least_p(size, tests):.2g}{corrected}"


def _cell(row: Table | None, metric: Metric, cases: int) -> Cell:
    """The mean of a method, its difference to the reference with its interval, such as +4.0 (3.1…4.9), and fewer cases."""
    if row is None:
        return Cell(ABSENT)
    below = []
    if row["method"] == row.get("reference"):
        below.append("=")
    if "p_holm" in row:
        keys = ("difference", "difference_ci95_low", "difference_ci95_high")
        size, *ends = (
            metric.text(row[key], like=row["mean"]) for key in keys if row[key] is not None
        )
        sign = "+" if row["difference"] > 0 else ""
        within = f" ({'…'.join(ends)})" if ends else ""
        p = row["p_holm"]
        below += [f"{sign}{size}{within}", f"p {p:.2g}{'*' if p < SIGNIFICANT else ''}"]
    if (used := row.get("cases", cases)) < cases:
        below.append(f"{used} of {plural(cases, 'case')}")
    if metric.key == "mae" and "baseline" in row:
        below.append(row["baseline"])
    return Cell(metric.mean_text(row), "\n".join(below), row.get("best") == row["method"])


def latex_of(tables: Tables) -> str:
    """A table as LaTeX for the package booktabs: the best mean is bold, a star stands for p < 0.05."""
    columns = [name.translate(LATEX) for name in next(iter(tables.methods.values()))]
    labels = list[str]()
    rows = list[list[str]]()
    for section, lines in tables.lines.items():
        if len(tables.lines) > 1:
            labels.append(section.translate(LATEX))
            rows.append([""] * len(columns))
        for line in lines:
            label = f"{line.label} [{line.unit}]" if line.unit else line.label
            labels.append(label.translate(LATEX))
            rows.append([_latex_cell(cell) for cell in line.cells])
    frame = DataFrame(rows, index=labels, columns=columns)
    return frame.to_latex(column_format="l" + "r" * len(columns), escape=False)


def _latex_cell(cell: Cell) -> str:
    text = cell.text.translate(LATEX)
    if cell.bold:
        text = rf"\textbf{{{text}}}"
    return text + ("$^*$" if cell.below.endswith("*") else "")
