"""A comparison of methods as tables with a caption, for the terminal and the page."""

from collections.abc import Iterator, Mapping
from typing import Any

from voxlate.scoring.captions import not_held_out, range_note
from voxlate.scoring.metrics import Metric, metrics_of, scope_label
from voxlate.scoring.paired import SIGNIFICANT, least_p, too_few
from voxlate.scoring.tables import Cell, Line, Tables, is_main

NAIVE = "best naive"  # the column of the best naive baseline


def comparison_tables(document: Mapping[str, Any], everything: bool = True) -> Tables:
    """The tables of a comparison by modality; the key "" holds time and network calls.

    everything: also others than the main metrics. The best naive baseline is the last method.
    """
    names = list(document["methods"])
    known = metrics_of(document)
    naive = {name: baseline for name, baseline in document.get("naive", {}).items() if baseline}
    lines = {
        modality: [
            Line(
                known[key].label,
                known[key].unit_for(part["unit"]),
                (
                    *(_cell(result, name, known[key]) for name in names),
                    *([_naive_cell(naive.get(modality), known[key])] if naive else []),
                ),
            )
            for key, result in part["metrics"].items()
            if any(value["mean"] is not None for value in result["methods"].values())
            and (everything or is_main(known[key]))
        ]
        for modality, part in document["modalities"].items()
    }
    effort = [document["effort"][name] for name in names]
    if any(effort):
        empty = [Cell("–")] if naive else []
        lines[""] = [
            Line(
                "Time",
                "s/slice",
                (
                    *(Cell(_seconds(times) if times else "–") for times in effort),
                    *empty,
                ),
            ),
            Line(
                "Network calls",
                "× samples",
                (*(Cell(_calls(times) if times else "–") for times in effort), *empty),
            ),
        ]
    title = "Methods: mean ± sd; below, the difference to the reference (=) with its 95 % interval, and p, * below 0.05"
    methods = (*names, *([NAIVE] if naive else []))
    return Tables(title, methods, lines, _caption(document))


def _caption(document: Mapping[str, Any]) -> list[str]:
    """The caption: range, mask, tests and times."""
    scored = max(part["cases"] for part in document["modalities"].values())
    trained = {name: len(cases) for name, cases in document["trained_on"].items() if cases}
    lines = [f"{name}: {not_held_out(number, scored)}" for name, number in trained.items()]
    for name, part in document["modalities"].items():
        lines.append(
            f"{range_note(name, part)}; mask: {part['mask']}. {_reachable(document, part['patients'])}."
        )
    lines += _partial_notes(document)
    chosen = (
        document["reference"]
        or "the best of each metric (chosen by the scores, so p is slightly too small)"
    )
    lines.append(
        f"Bold: best mean. Reference: {chosen}. Wilcoxon signed-rank, two-sided, Holm over the methods of a metric; the metrics themselves are not corrected for their number. Differences: 95 % bootstrap interval of the paired mean. Pooled distances: ± standard error, no test."
    )
    lines += [
        _naive_note(name, baseline)
        for name, baseline in document.get("naive", {}).items()
        if baseline
    ]
    lines += [f"{scope_label(name)}: {rule}." for name, rule in document["scopes"].items()]
    if any("std" in part["metrics"] for part in document["modalities"].values()):
        lines.append(
            "Uncertainty: mean over the mask of the samples' standard deviation; no test, less is not better."
        )
    return lines + _caption_of_times(document["effort"])


def _reachable(document: Mapping[str, Any], size: int) -> str:
    """What tests over this number of patients can tell after correction."""
    tests = len(document["methods"]) - 1
    corrected = f" after Holm's correction for {tests} comparisons" if tests > 1 else ""
    if few := too_few(size, tests):
        return f"Which method is better cannot be told from {few}{corrected}"
    return f"Tests over {size} patients: no p is below {least_p(size, tests):.2g}{corrected}"


def _partial_notes(document: Mapping[str, Any]) -> Iterator[str]:
    """Notes on metrics that some methods lack, and on metrics with fewer cases than others."""
    known = metrics_of(document)
    names = list(document["methods"])
    lacking = dict[tuple[str, ...], list[str]]()
    fewer = dict[tuple[str, int], list[str]]()
    for modality, part in document["modalities"].items():
        for key, result in part["metrics"].items():
            absent = tuple(name for name in names if name not in result["methods"])
            if absent:
                lacking.setdefault(absent, []).append(known[key].label)
            if result.get("cases_used", part["cases"]) < part["cases"]:
                fewer.setdefault((modality, result["cases_used"]), []).append(known[key].label)
    for absent, labels in lacking.items():
        yield f"Not scored for {', '.join(absent)}: {', '.join(dict.fromkeys(labels))}."
    for (modality, used), labels in fewer.items():
        total = document["modalities"][modality]["cases"]
        yield f"{modality}: {', '.join(labels)} over {used} of {total} cases, which all methods with that score have."


def _naive_note(modality: str, baseline: Mapping[str, Any]) -> str:
    return f"{modality}: best naive baseline by its MAE: {baseline['baseline']} (scored with {baseline['of']}), no test."


def _caption_of_times(effort: Mapping[str, Any]) -> list[str]:
    devices = {name: ", ".join(times["devices"]) for name, times in effort.items() if times}
    if not devices:
        return []
    where = sorted(set(devices.values()))
    on = (
        f"on {where[0]}"
        if len(where) == 1
        else "; ".join(f"{name} on {place}" for name, place in devices.items())
    )
    beware = " Times on different devices do not compare." if len(where) > 1 else ""
    return [
        f"Time: wall clock for a slice with all its samples, mean over the cases, {on}.{beware} Network calls: evaluations of the network for one sample of a slice or patch."
    ]


def _cell(result: Mapping[str, Any], name: str, metric: Metric) -> Cell:
    value = result["methods"].get(name)
    below = "=" if result["reference"] == name else ""
    if value and "p_holm" in value:
        p = f"p {value['p_holm']:.2g}{'*' if value['p_holm'] < SIGNIFICANT else ''}"
        below = f"{_difference(value, metric)}\n{p}"
    return Cell(metric.mean_text(value), below, result["best"] == name)


def _difference(value: Mapping[str, Any], metric: Metric) -> str:
    """+4.0 (3.1…4.9): the mean paired difference and its interval."""
    size = value["mean"]
    ends = value.get("difference_ci95")
    text = f"{'+' if value['difference'] >= 0 else ''}{metric.text(value['difference'], like=size)}"
    if not ends:
        return text
    low, high = (metric.text(end, like=size) for end in ends)
    return f"{text} ({low}…{high})"


def _naive_cell(baseline: Mapping[str, Any] | None, metric: Metric) -> Cell:
    """A score of the best naive baseline; its name is printed below its MAE."""
    if baseline is None:
        return Cell("–")
    below = baseline["baseline"] if metric.key == "mae" else ""
    return Cell(metric.mean_text(baseline["metrics"].get(metric.key)), below)


def _seconds(effort: Mapping[str, Any]) -> str:
    seconds = effort["seconds_per_slice"]["mean"]
    return f"{seconds:.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _calls(effort: Mapping[str, Any]) -> str:
    calls = effort["network_calls"]["mean"]
    samples = ", ".join(map(str, effort["samples"]))
    return f"{calls:.0f}" if samples == "1" else f"{calls:.0f} × {samples}"
