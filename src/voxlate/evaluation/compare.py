"""Several methods scored on the same cases: one table, with paired tests of their differences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pandas import DataFrame, Series

from voxlate.base.array_types import AnyArray
from voxlate.base.errors import BadInput, plural
from voxlate.base.files import whole_file, write_text
from voxlate.base.statistics import (
    SIGNIFICANT,
    bootstrap,
    holm,
    mean_and_sd,
    patients_needed,
    wilcoxon_p,
)
from voxlate.evaluation.scoring.case_scores import EFFORT
from voxlate.evaluation.scoring.metrics import ABSENT, Metric
from voxlate.evaluation.scoring.scored_images import check_unchanged
from voxlate.evaluation.scoring.scores import (
    FILE,
    IN_TRAINING,
    Document,
    Scores,
    Table,
    by_patient,
    read_scores,
)
from voxlate.evaluation.scoring.tables import (
    Cell,
    Line,
    Tables,
    Which,
    fold_lines,
    printed,
    range_note,
    shown_metrics,
    training_note,
)
from voxlate.training.verdict import SYNTHESIS

NAIVE = "best naive"  # the column of the best naive baseline
TITLE = "Methods: mean ± sd; below, the difference to the reference (=) with its 95 % interval, and p, * below 0.05"
LEAST_APART = 0.02  # of the shares of scored voxels that two images show, from which their scores do not compare
# Scores compare only if these entries of a section agree.
MUST_AGREE = ("unit", "range", "own_peak", "mask", "ssim_from", "lpips")
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
KEYS = ["modality", "score"]  # of the rows of one score
COUNTS = ("n", "cases")  # columns of whole numbers, which a naive baseline lacks
Methods = Mapping[str, Scores]  # by name


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods compared on the same cases, as `voxlate.compare` returns them.

    Args:
        folders: the scored folders by the name of the method.
        methods: their scores.
        reference: the method against which the others are tested; None: the best one of each score.
        frame: a pandas DataFrame with a row for each score of each method: its mean and standard deviation over n patients
            (or cases), and its test against the reference.

    Example:
        >>> import shutil, voxlate
        >>> _ = shutil.copytree("OUT", "AGAIN")  # both were scored
        >>> results = voxlate.compare(["OUT", "AGAIN"]).frame
        >>> of_mae = results[results.score == "mae"].set_index("method")["mean"]
        >>> bool(of_mae["OUT"] == of_mae["AGAIN"])
        True
    """

    folders: Mapping[str, Path]
    methods: Methods
    reference: str | None
    frame: DataFrame

    @property
    def scores(self) -> Scores:
        """The scores of the first method, whose cases and conventions are those of all."""
        return next(iter(self.methods.values()))

    @property
    def document(self) -> Document:
        """The comparison in plain values."""
        rows = (row.dropna().to_dict() for _, row in self.frame.iterrows())
        return {"methods": self.folders, "reference": self.reference, "results": [*rows]}

    def table(self, which: Which = "all") -> Tables:
        """All scores, or the main ones with time and network calls; the best naive baseline is the last method."""
        columns = [*self.methods]
        if NAIVE in {*self.frame["method"]}:
            columns.append(NAIVE)
        rows_of = {key: own.set_index("method") for key, own in self.frame.groupby(KEYS)}
        scores = self.scores
        lines = {}
        for section, part in scores.parts.items():
            lines[section] = list[Line]()
            shown = {metric.key for metric in shown_metrics(scores, section, which)} | {*EFFORT}
            for key, metric in scores.metrics.items():
                if key in shown and (section, key) in rows_of:
                    rows = rows_of[section, key].reindex(columns)
                    cells = [_cell(row, metric, part["cases"]) for _, row in rows.iterrows()]
                    lines[section].append(Line(metric.label, metric.unit_for(part["unit"]), cells))
        above = [
            f"{name}: {line}" for name, own in self.methods.items() for line in fold_lines(own)
        ]
        return Tables(TITLE, dict.fromkeys(lines, columns), lines, [*self._caption()], above)

    def _caption(self) -> Iterator[str]:
        """The caption: range, mask, tests, and what restricts the scores of each method."""
        for name, scores in self.methods.items():
            if trained := training_note(scores):
                yield f"{name}: {trained}"
            for verdict in scores.verdicts:
                if verdict.outcome == "worse":
                    yield f"{name}: {verdict.modality}: {verdict}"
        for name, part in self.scores.parts.items():
            yield f"{range_note(name, part)}; mask: {part['mask']}."
            tests = len(self.methods) - 1
            if tests and (enough := patients_needed(part["patients"], tests)):
                yield f"{name}: too few patients to compare: {part['patients']}, at least {enough} are needed."
        chosen = self.reference or "the best of each metric"
        yield f"Bold: best mean. Reference: {chosen}. p: Wilcoxon signed-rank test over patients, two-sided, Holm over the methods of a metric. Differences: 95 % bootstrap interval of the paired mean."
        naive = self.frame[(self.frame["method"] == NAIVE) & (self.frame["score"] == "mae")]
        for row in naive.itertuples():
            yield f"{row.modality}: best naive baseline by its MAE: {row.baseline}, no test."

    def __repr__(self) -> str:
        return printed(self.table("main")).export_text()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def write(self, path: Path | str) -> None:
        """Write the table of the main scores as .tex (LaTeX, booktabs), or else that of all scores as CSV."""
        if Path(path).suffix == ".tex":
            head = "".join(f"% {line}\n" for line in self._caption())
            spread = "% ±: standard deviation over patients, of one patient over cases; *: p < 0.05; --out FILE.csv has all p and intervals\n"
            write_text(path, head + spread + latex_of(self.table("main")))
            return
        with whole_file(path) as temporary:
            self.frame.to_csv(temporary, index=False)


def compare(folders: Sequence[Path | str], *, reference: str | None = None) -> Comparison:
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
    rows = [row for section in scored[0].parts for row in _results(section, methods, reference)]
    frame = DataFrame(rows)
    frame = frame.astype({name: "Int64" for name in COUNTS if name in frame})
    return Comparison(dict(zip(names, paths)), methods, reference, frame)


def _read(folder: Path) -> Scores:
    """The scores of a folder; raises BadInput if there are none, or if its images have changed."""
    path = folder / FILE
    if not path.is_file():
        raise BadInput(
            f"{path}: expected the scores of a folder of syntheses, found none. Run voxlate evaluate first."
        )
    scores = read_scores(path)
    check_unchanged(folder, scores.header)
    return scores


def _names(folders: Sequence[Path]) -> list[str]:
    """The names of folders, or their paths where two have one name; raises BadInput for one that is there twice."""
    paths = [folder.resolve() for folder in folders]
    if not 0 < len(paths) == len({*paths}):
        raise BadInput(
            f"compare: expected one or more different folders that are scored, found none, or one twice, in {', '.join(map(str, folders))!r}. Name each once."
        )
    names = [path.name for path in paths]
    return names if len({*names}) == len(names) else [str(folder) for folder in folders]


def _check_same(first: Path, wanted: Scores, other: Path, found: Scores) -> None:
    """Raise BadInput if two methods were scored with different options, or on different cases, truths or voxels."""
    expected, actual = _conditions(wanted), _conditions(found)
    others = found.header.get("shown", {})
    for label, share in wanted.header.get("shown", {}).items():
        if abs(share - others.get(label, share)) > LEAST_APART:
            what = f"share of the scored voxels that {label} shows"
            expected[what], actual[what] = share, others[label]
    for what in {**expected, **actual}:
        a, b = expected.get(what, "none"), actual.get(what, "none")
        if a != b:
            raise BadInput(
                f"{other}: expected the {what} as in {first} ({a}), found {b}. Score both with the same options (--value-range, --mask, --regions, --features, --lpips), cases and cohort."
            )


def _conditions(scores: Scores) -> dict[str, object]:
    """What two methods must share, by name, so that their scores compare."""
    header = scores.header
    stated: dict[str, object] = {}
    for name, part in scores.parts.items():
        stated |= {f"{key} of {name}": part[key] for key in MUST_AGREE}
        stated[f"features of {name}"] = (part["features"] or {}).get("name")
        stated |= {f"case {case} of {name}": "scored" for case in scores.by_case(name).index}
    stated |= {f"rule of {area}": rule for area, rule in header["regions"].items()}
    return stated | {f"truth of {label}": one for label, one in header.get("truths", {}).items()}


def _results(section: str, methods: Methods, reference: str | None) -> Iterator[Table]:
    """A row for each score of a section and each method that has it, and for the best naive baseline."""
    tables = {method: scores.by_case(section) for method, scores in methods.items()}
    first = next(iter(methods.values()))
    naive = _best_baseline(section, methods)
    for key, metric in first.metrics.items():
        columns = {method: table[key] for method, table in tables.items() if key in table}
        rows = list[Table]()
        if metric.pooled:
            for method, scores in methods.items():
                if value := scores.means[section][SYNTHESIS].get(key):
                    rows.append({"method": method, "mean": value["mean"], "n": value["n"]})
        elif columns and metric.in_table:
            rows = _tested(metric, DataFrame(columns), first.patients, reference)
        if rows and naive:
            baseline, means = naive
            mean = means.get(key, {"mean": None, "sd": None})
            row = {"mean": mean["mean"], "sd": mean["sd"], "baseline": baseline}
            rows.append({"method": NAIVE, **row})
        scored = [row for row in rows if row["mean"] is not None]
        loss = _loss(metric, np.array([row["mean"] for row in scored]))
        best = {}
        if scored and loss is not None:
            best = {"best": scored[int(loss.argmin())]["method"]}
        for row in rows if scored else ():
            yield {"modality": section, "score": key, **row, **best}


def _loss(metric: Metric, means: AnyArray) -> AnyArray | None:
    """What is least for the best of several means; None if no value is better than another."""
    losses = {"lower": means, "higher": -means, "one": np.abs(means - 1)}
    return losses.get(metric.better)


def _best_baseline(section: str, methods: Methods) -> tuple[str, Table] | None:
    """The best naive baseline of all cases by its MAE, and its means; None if there is none."""
    found = dict[str, Table]()
    for scores in methods.values():
        for name, means in scores.means[section].items():
            if name != SYNTHESIS and means["mae"]["n"] == scores.parts[section]["cases"]:
                found.setdefault(name, means)
    return min(found.items(), key=lambda one: one[1]["mae"]["mean"], default=None)


def _tested(
    metric: Metric, scores: DataFrame, patients: Mapping[str, str], reference: str | None
) -> list[Table]:
    """Mean and sd of each method, and p of its difference to the reference over the shared patients.

    scores: by case, a column for each method. Cases of one patient are not tested: they are no sample of other patients.
    """
    means = by_patient(scores, patients)
    size = len(means)
    used = int(np.isfinite(scores).all(axis=1).sum())
    rows: list[Table] = [
        {"method": name, **mean_and_sd(own.to_numpy()), "n": size, "cases": used}
        for name, own in means.items()
    ]
    values = means.to_numpy().T
    names = [*means.columns]
    loss = _loss(metric, values)
    is_sample = len({patients[case] for case in scores.index}) > 1
    if loss is None or size < 2 or len(names) < 2 or not is_sample:
        return rows
    to = reference or names[int(loss.mean(1).argmin())]
    if to not in names:
        return rows
    first = names.index(to)
    others = [number for number in range(len(names)) if number != first]
    tests = [wilcoxon_p(loss[number], loss[first]) for number in others]
    rows[first]["reference"] = to
    for number, p, corrected in zip(others, tests, holm(tests)):
        differences = values[number] - values[first]
        ends = bootstrap(differences, [*map(str, range(size))], seed=0) or (None, None)
        rows[number] |= {
            "reference": to,
            "difference": float(differences.mean()),
            "difference_ci95_low": ends[0],
            "difference_ci95_high": ends[1],
            "p": p,
            "p_holm": corrected,
        }
    return rows


def _cell(row: Series, metric: Metric, cases: int) -> Cell:
    """The mean of a method, its difference to the reference with its interval, such as +4.0 (3.1…4.9), and fewer cases."""
    stated = row.dropna()
    if "mean" not in stated:
        return Cell(ABSENT)
    below = []
    if row.name == stated.get("reference"):
        below.append("=")
    if "p_holm" in stated:
        keys = ("difference", "difference_ci95_low", "difference_ci95_high")
        size, *ends = (metric.text(stated[key], stated["mean"]) for key in keys if key in stated)
        sign = "+" if stated["difference"] > 0 else ""
        within = f" ({'…'.join(ends)})" if ends else ""
        p = stated["p_holm"]
        below += [f"{sign}{size}{within}", f"p {p:.2g}{'*' if p < SIGNIFICANT else ''}"]
    if (used := int(stated.get("cases", cases))) < cases:
        below.append(f"{used} of {plural(cases, 'case')}")
    if metric.key == "mae" and "baseline" in stated:
        below.append(stated["baseline"])
    text = metric.mean_text({"sd": None, **stated})
    return Cell(text, "\n".join(below), stated.get("best") == row.name)


def latex_of(tables: Tables) -> str:
    """A table as LaTeX for the package booktabs: the best mean is bold, a star stands for p < 0.05.

    Cases of the training are left out, because a paper shows scores of others.
    """
    columns = [name.translate(LATEX) for name in next(iter(tables.methods.values()))]
    labels = list[str]()
    rows = list[list[str]]()
    held_out = {name: own for name, own in tables.lines.items() if not name.endswith(IN_TRAINING)}
    for section, lines in held_out.items():
        if len(held_out) > 1:
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
