"""The scores as the report shows them: one panel a metric, one line an answer, with its interval."""

from collections.abc import Mapping
from typing import Any

from voxlate.report.curves import short
from voxlate.scoring.metric_catalogue import METRICS, Metric, cell, figure
from voxlate.scoring.tables import header_unit, shown_in

IN_PANELS = ("mae", "rmse", "psnr", "ssim_2d", "ssim_3d", "nmi", "gradient_strength")
HEADLINES = ("mae", "ssim_2d")
BETTER = {"lower": "lower is better", "higher": "higher is better", "one": "1 is right; below blur, above noise"}


def panels_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By modality: a headline, and the panels of its metrics."""
    return [
        {
            "modality": name,
            "headline": " ".join(headline(part["answers"], part["unit"], key) for key in HEADLINES).strip(),
            "panels": [_panel(metric, part) for metric in METRICS if metric.key in _keys(part)],
            "uncertainty": _uncertainty(part),
        }
        for name, part in document["modalities"].items()
    ]


def headline(answers: Mapping[str, Any], unit: str, key: str) -> str:
    """One honest sentence: a score of the synthesis against the best trivial answer."""
    metric = next(metric for metric in METRICS if metric.key == key)
    means = {answer: scores[key]["mean"] for answer, scores in answers.items() if key in scores}
    means = {answer: mean for answer, mean in means.items() if mean is not None}
    ours = means.pop("synthesis", None)
    if ours is None:
        return ""
    text = f"{metric.label} {figure(ours, metric)} {metric.unit_for(unit)}".strip()
    if not means:
        return f"{text}."
    best = min(means, key=lambda answer: means[answer] if metric.better == "lower" else -means[answer])
    other = f"the best trivial answer ({best}, {figure(means[best], metric)})"
    if metric.better == "lower" and means[best] > 0:
        share = 1 - ours / means[best]
        return f"{text}, {100 * abs(share):.0f} % {'below' if share >= 0 else 'above'} {other}."
    return f"{text}, {'above' if ours > means[best] else 'not above'} {other}."


def table_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The full table: head and rows of texts."""
    shown = shown_in(document)
    rows = [
        {
            "answer": answer,
            "modality": modality,
            "ours": answer == "synthesis",
            "cells": [_cell(scores.get(metric.key), metric) for metric in shown],
        }
        for modality, part in document["modalities"].items()
        for answer, scores in part["answers"].items()
    ]
    return {"head": [(metric.label, header_unit(document, metric)) for metric in shown], "rows": rows}


def _cell(value: Mapping[str, Any] | None, metric: Metric) -> tuple[str, str]:
    if not value or not value["ci95"]:
        return cell(value, metric), ""
    low, high = (figure(end, metric, like=value["mean"]) for end in value["ci95"])
    return cell(value, metric, interval=False), f"{low} to {high}"


def _keys(part: Mapping[str, Any]) -> set[str]:
    """Six panels fill the page: volumes show the 3-D similarity instead of the RMSE."""
    known = {key for scores in part["answers"].values() for key, value in scores.items() if value["mean"] is not None}
    return known & set(IN_PANELS) - {"rmse" if "ssim_3d" in known else "ssim_3d"}


def _panel(metric: Metric, part: Mapping[str, Any]) -> dict[str, Any]:
    values = {answer: scores[metric.key] for answer, scores in part["answers"].items() if metric.key in scores}
    values = {answer: value for answer, value in values.items() if value["mean"] is not None}
    low, high = _axis(metric, values)

    def place(number: float) -> float:
        return round(100 * min(max((number - low) / (high - low), 0), 1), 2)

    lines = [
        {
            "answer": answer,
            "ours": answer == "synthesis",
            "text": figure(value["mean"], metric),
            "at": place(value["mean"]),
            "interval": [place(end) for end in value["ci95"]] if value["ci95"] else None,
            "spoken": cell(value, metric),
        }
        for answer, value in values.items()
    ]
    mark = place(1.0) if metric.better == "one" else None
    ends = (short(low), short(high))
    unit = metric.unit_for(part["unit"])
    return {
        "label": metric.label,
        "unit": unit,
        "better": BETTER[metric.better],
        "lines": lines,
        "mark": mark,
        "ends": ends,
    }


def _axis(metric: Metric, values: Mapping[str, Any]) -> tuple[float, float]:
    """Where the panel's axis begins and ends: errors from 0, similarity up to 1, the rest around what is there."""
    ends = [end for value in values.values() for end in (value["ci95"] or [value["mean"]])]
    low, high = min(ends), max(ends)
    margin = (high - low) * 0.08 or abs(high) * 0.08 or 1.0
    if metric.key.startswith("ssim"):
        return min(0.0, low), 1.0
    if metric.better == "lower":
        return 0.0, high + margin
    if metric.better == "one":
        return 0.0, max(1.5, high + margin)
    return (1.0 if metric.key == "nmi" else low - margin), high + margin


def _uncertainty(part: Mapping[str, Any]) -> str:
    ours = part["answers"].get("synthesis", {})
    found = {metric.key: metric for metric in METRICS}
    if "std" not in ours or ours["std"]["mean"] is None:
        return ""
    spread = f"{figure(ours['std']['mean'], found['std'])} {part['unit']}"
    text = f"The samples of a case differ by {spread} on average (standard deviation)"
    r = ours["std_error_r"]["mean"]
    if r is None:
        return text + "."
    return text + f"; where they differ more, the error is larger with correlation {figure(r, found['std_error_r'])}."
