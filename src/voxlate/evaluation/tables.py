"""A comparison of methods as tables with a caption, for the terminal and the page."""

from collections.abc import Callable, Iterator
from typing import Literal

from voxlate.base.statistics import SIGNIFICANT, least_p, too_few
from voxlate.evaluation.scoring.captions import not_held_out, range_note
from voxlate.evaluation.scoring.documents import Document, Part
from voxlate.evaluation.scoring.metrics import Metric, metrics_of, scope_label
from voxlate.evaluation.scoring.tables import Cell, Line, Tables, is_main, metric_lines

MAE, COVERAGE = "mae", "coverage"
RANKED = (MAE, "bone.dice", COVERAGE, "proton.error")  # of which each may prefer another method
NAIVE = "best naive"  # the column of the best naive baseline
TITLE = "Methods: mean ± sd; below, the difference to the reference (=) with its 95 % interval, and p, * below 0.05"


def comparison_tables(document: Document, which: Literal["all", "main"] = "all") -> Tables:
    """The tables of a comparison by modality, of all or of the main metrics; the key "" holds time and network calls.

    The best naive baseline is the last method.
    """
    names = tuple(document["methods"])
    naive = {name: baseline for name, baseline in document.get("naive", {}).items() if baseline}

    def cells(modality: str, part: Part, metric: Metric) -> Iterator[Cell]:
        """The score of each method and of the best baseline."""
        result = part["metrics"].get(metric.key)
        if result is None or (which == "main" and not is_main(metric, document["standard"])):
            return
        if all(value["mean"] is None for value in result["methods"].values()):
            return
        for name in names:
            yield _cell(result, name, metric)
        if naive:
            yield _naive_cell(naive.get(modality), metric)

    def effort(label: str, unit: str, text: Callable[[Part], str]) -> Line:
        """The time or the calls of each method."""
        efforts = [document["effort"][name] for name in names] + [None] * bool(naive)
        return Line(label, unit, tuple(Cell(text(one) if one else "–") for one in efforts))

    lines = metric_lines(document, cells)
    if any(document["effort"].values()):
        lines[""] = [
            effort("Time", "s/slice", _seconds),
            effort("Network calls", "× samples", _calls),
        ]
    methods = (*names, NAIVE) if naive else names
    return Tables(TITLE, methods, lines, list(_caption(document)))


def _caption(document: Document) -> Iterator[str]:
    """The caption: range, mask, tests and times."""
    parts = document["modalities"]
    scored = max(part["cases"] for part in parts.values())
    for name, cases in document["trained_on"].items():
        if cases:
            yield f"{name}: {not_held_out(len(cases), scored)}"
    for name, part in parts.items():
        yield f"{range_note(name, part)}; mask: {part['mask']}. {_reachable(document, part['patients'])}."
    yield from _partial_notes(document)
    for name, part in parts.items():
        orders = ranks(part, document.get("coverage_aim"))
        labels = {key: part["metrics"][key]["label"] for key in orders}
        if len(orders) > 1 and len({*orders.values()}) == 1:
            yield f"{name}: ranks by {', '.join(labels.values())} agree: {', '.join(orders[MAE])}."
        elif len(orders) > 1:
            by_score = (f"{labels[key]}: {', '.join(order)}" for key, order in orders.items())
            yield f"{name}: RANKS DISAGREE, best first: {'; '.join(by_score)}."
    chosen = (
        document["reference"]
        or "the best of each metric (chosen by the scores, so p is slightly too small)"
    )
    yield f"Bold: best mean. Reference: {chosen}. Wilcoxon signed-rank, two-sided, Holm over the methods of a metric; the metrics themselves are not corrected for their number. Differences: 95 % bootstrap interval of the paired mean. Pooled distances: ± standard error, no test."
    for name, baseline in document.get("naive", {}).items():
        if baseline:
            yield f"{name}: best naive baseline by its MAE: {baseline['baseline']} (scored with {baseline['of']}), no test."
    for name, rule in document["scopes"].items():
        if name not in document["standard"]:
            yield f"{scope_label(name)}: {rule}."
    if any("std" in part["metrics"] for part in parts.values()):
        yield "Uncertainty: mean over the mask of the samples' standard deviation; no test, less is not better."
    efforts = {name: effort for name, effort in document["effort"].items() if effort}
    devices = {name: ", ".join(effort["devices"]) for name, effort in efforts.items()}
    if devices:
        on, beware = f"on {next(iter(devices.values()))}", ""
        if len(set(devices.values())) > 1:
            on = "; ".join(f"{name} on {device}" for name, device in devices.items())
            beware = " Times on different devices do not compare."
        yield f"Time: wall clock for a slice with all its samples, mean over the cases, {on}.{beware} Network calls: evaluations of the network for one sample of a slice or patch."


def ranks(part: Part, coverage: float | None) -> dict[str, tuple[str, ...]]:
    """The methods of a modality, best first, by each score that all of them have; coverage: that their intervals state."""
    orders = dict[str, tuple[str, ...]]()
    for key in RANKED:
        result = part["metrics"].get(key, {"methods": {}})
        means = {name: value["mean"] for name, value in result["methods"].items()}
        of_mae = orders.get(MAE, tuple(means))
        if {*means} != {*of_mae} or None in means.values() or (key == COVERAGE and not coverage):
            continue
        if key == COVERAGE:
            means = {name: abs(mean - (coverage or 0)) for name, mean in means.items()}
        elif result["better"] == "higher":
            means = {name: -mean for name, mean in means.items()}
        if means:
            orders[key] = tuple(sorted(means, key=means.__getitem__))
    return orders


def _reachable(document: Document, size: int) -> str:
    """What tests over this number of patients can tell after correction."""
    tests = len(document["methods"]) - 1
    corrected = f" after Holm's correction for {tests} comparisons" if tests > 1 else ""
    if few := too_few(size, tests):
        return f"Which method is better cannot be told from {few}{corrected}"
    return f"Tests over {size} patients: no p is below {least_p(size, tests):.2g}{corrected}"


def _partial_notes(document: Document) -> Iterator[str]:
    """Notes on metrics with fewer cases than others."""
    known = metrics_of(document)
    for modality, part in document["modalities"].items():
        fewer = dict[int, list[str]]()
        for key, result in part["metrics"].items():
            fewer.setdefault(result.get("cases_used", part["cases"]), []).append(known[key].label)
        fewer.pop(part["cases"], None)
        for used, labels in fewer.items():
            yield f"{modality}: {', '.join(labels)} over {used} of {part['cases']} cases, which all methods with that score have."


def _cell(result: Part, name: str, metric: Metric) -> Cell:
    """The mean of a method, and its difference to the reference with its interval, such as +4.0 (3.1…4.9)."""
    value = result["methods"].get(name)
    below = "=" if result["reference"] == name else ""
    if value and "p_holm" in value:
        p = value["p_holm"]
        ends = [value["difference"], *(value.get("difference_ci95") or ())]
        size, *interval = (metric.text(end, like=value["mean"]) for end in ends)
        sign = "+" if value["difference"] >= 0 else ""
        within = f" ({'…'.join(interval)})" if interval else ""
        below = f"{sign}{size}{within}\np {p:.2g}{'*' if p < SIGNIFICANT else ''}"
    return Cell(metric.mean_text(value), below, result["best"] == name)


def _naive_cell(baseline: Part | None, metric: Metric) -> Cell:
    """A score of the best naive baseline; its name is printed below its MAE."""
    if baseline is None:
        return Cell("–")
    below = baseline["baseline"] if metric.key == "mae" else ""
    return Cell(metric.mean_text(baseline["metrics"].get(metric.key)), below)


def _seconds(effort: Part) -> str:
    seconds = effort["seconds_per_slice"]["mean"]
    return f"{seconds:.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _calls(effort: Part) -> str:
    calls = effort["network_calls"]["mean"]
    samples = ", ".join(map(str, effort["samples"]))
    return f"{calls:.0f}" if samples == "1" else f"{calls:.0f} × {samples}"
