"""A comparison of methods as tables with a caption, for the terminal and the page."""

from collections.abc import Iterator, Mapping
from typing import Any

from voxlate.scoring.captions import not_held_out, plural, range_note
from voxlate.scoring.metrics import Metric, metrics_of, scope_label
from voxlate.scoring.paired import SIGNIFICANT, least_p
from voxlate.scoring.tables import Cell, Line, Tables, is_main

NAIVE = "best naive"  # the column of the best naive baseline


def comparison_tables(document: Mapping[str, Any], everything: bool = True) -> Tables:
    """The metrics of each modality, and under "" time and network calls of all of them.

    everything: not only the main metrics. The best naive baseline is the last of the methods.
    """
    names = list(document["methods"])
    known = metrics_of(document)
    naive = {name: one for name, one in document.get("naive", {}).items() if one}
    lines = {
        modality: [
            Line(
                known[key].label,
                known[key].unit_for(part["unit"]),
                (
                    *(_cell(one, name, known[key]) for name in names),
                    *([_naive_cell(naive.get(modality), known[key])] if naive else []),
                ),
            )
            for key, one in part["metrics"].items()
            if any(value["mean"] is not None for value in one["methods"].values())
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
                (*(Cell(_seconds(one) if one else "–") for one in effort), *empty),
            ),
            Line(
                "Network calls",
                "× samples",
                (*(Cell(_calls(one) if one else "–") for one in effort), *empty),
            ),
        ]
    title = "Methods: mean ± sd; below, the difference to the reference (=) with its 95 % interval, and p, * below 0.05"
    methods = (*names, *([NAIVE] if naive else []))
    return Tables(title, methods, lines, _caption(document))


def _caption(document: Mapping[str, Any]) -> list[str]:
    """Range, mask, tests and times, in words."""
    scored = max(part["cases"] for part in document["modalities"].values())
    trained = {name: len(cases) for name, cases in document["trained_on"].items() if cases}
    lines = [f"{name}: {not_held_out(number, scored)}" for name, number in trained.items()]
    for name, part in document["modalities"].items():
        size = part[part["over"]]
        over = plural(size, part["over"][:-1])
        lines.append(
            f"{range_note(name, part)}; mask: {part['mask']}. Tests over {over}: {_reachable(document, size)}."
        )
        if part["over"] == "cases":
            lines.append(f"{name}: one patient, so nothing is said of other patients.")
    lines += _partial_notes(document)
    chosen = document["reference"] or "the best of each metric (chosen after the fact, so p is a little too small)"
    lines.append(
        f"Bold: best mean. Reference: {chosen}. Wilcoxon signed-rank, two-sided, Holm over the methods of a metric; the metrics themselves are not corrected for their number. Differences: 95 % bootstrap interval of the paired mean. Pooled distances: ± standard error, no test."
    )
    lines += [_naive_note(name, one) for name, one in document.get("naive", {}).items() if one]
    lines += [f"{scope_label(name)}: {rule}." for name, rule in document["scopes"].items()]
    if any("std" in part["metrics"] for part in document["modalities"].values()):
        lines.append("Uncertainty: mean over the mask of the samples' standard deviation; no test, less is not better.")
    return lines + _caption_of_times(document["effort"])


def _reachable(document: Mapping[str, Any], size: int) -> str:
    """The least p that a test of so many pairs can have once it is corrected, in words."""
    tests = len(document["methods"]) - 1
    least = least_p(size, tests)
    corrected = f" after Holm's correction for {tests} comparisons" if tests > 1 else ""
    lost = f", so that no difference can reach p < {SIGNIFICANT}" if least >= SIGNIFICANT else ""
    return f"no p lies below {least:.2g}{corrected}{lost}"


def _partial_notes(document: Mapping[str, Any]) -> Iterator[str]:
    """Which metrics some methods lack, and which are of fewer cases than the others."""
    known = metrics_of(document)
    names = list(document["methods"])
    lacking = dict[tuple[str, ...], list[str]]()
    fewer = dict[tuple[str, int], list[str]]()
    for modality, part in document["modalities"].items():
        for key, one in part["metrics"].items():
            absent = tuple(name for name in names if name not in one["methods"])
            if absent:
                lacking.setdefault(absent, []).append(known[key].label)
            if one.get("cases_used", part["cases"]) < part["cases"]:
                fewer.setdefault((modality, one["cases_used"]), []).append(known[key].label)
    for absent, labels in lacking.items():
        yield f"Not scored for {', '.join(absent)}: {', '.join(dict.fromkeys(labels))}."
    for (modality, used), labels in fewer.items():
        total = document["modalities"][modality]["cases"]
        yield f"{modality}: {', '.join(labels)} over {used} of {total} cases, which all methods with that score have."


def _naive_note(modality: str, found: Mapping[str, Any]) -> str:
    return f"{modality}: best naive baseline by its MAE: {found['baseline']} (scored with {found['of']}), no test."


def _caption_of_times(effort: Mapping[str, Any]) -> list[str]:
    devices = {name: ", ".join(one["devices"]) for name, one in effort.items() if one}
    if not devices:
        return []
    where = sorted(set(devices.values()))
    on = f"on {where[0]}" if len(where) == 1 else "; ".join(f"{name} on {place}" for name, place in devices.items())
    beware = " Times on different devices do not compare." if len(where) > 1 else ""
    return [
        f"Time: wall clock for a slice with all its samples, mean over the cases, {on}.{beware} Network calls: evaluations of the network for one sample of a slice or patch."
    ]


def _cell(found: Mapping[str, Any], name: str, metric: Metric) -> Cell:
    value = found["methods"].get(name)
    below = "=" if found["reference"] == name else ""
    if value and "p_holm" in value:
        p = f"p {value['p_holm']:.2g}{'*' if value['p_holm'] < SIGNIFICANT else ''}"
        below = f"{_difference(value, metric)}\n{p}"
    return Cell(metric.mean_text(value), below, found["best"] == name)


def _difference(value: Mapping[str, Any], metric: Metric) -> str:
    """+4.0 (3.1…4.9): the mean paired difference and its interval."""
    size = value["mean"]
    ends = value.get("difference_ci95")
    text = f"{'+' if value['difference'] >= 0 else ''}{metric.text(value['difference'], like=size)}"
    if not ends:
        return text
    low, high = (metric.text(end, like=size) for end in ends)
    return f"{text} ({low}…{high})"


def _naive_cell(found: Mapping[str, Any] | None, metric: Metric) -> Cell:
    """A score of the best naive baseline; its name stands below its MAE."""
    if found is None:
        return Cell("–")
    below = found["baseline"] if metric.key == "mae" else ""
    return Cell(metric.mean_text(found["metrics"].get(metric.key)), below)


def _seconds(effort: Mapping[str, Any]) -> str:
    seconds = effort["seconds_per_slice"]["mean"]
    return f"{seconds:.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _calls(effort: Mapping[str, Any]) -> str:
    calls = effort["network_calls"]["mean"]
    samples = ", ".join(map(str, effort["samples"]))
    return f"{calls:.0f}" if samples == "1" else f"{calls:.0f} × {samples}"
