"""The page of a comparison: the table of methods, and pictures of the same cases on the same colour scales."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from voxlate.base.files import write_text
from voxlate.base.groups import grouped
from voxlate.evaluation.compare import comparison_tables
from voxlate.evaluation.reports.case_pictures import sections_of
from voxlate.evaluation.reports.curves import Point, plane_chart
from voxlate.evaluation.reports.page import render, scores_in
from voxlate.evaluation.scoring.metrics import METRIC_OF

MOST_CASES = 4
# Scores that tell how far a method's images differ in distribution, and the score of the truth itself.
OF_DISTRIBUTION = {"gradient_strength": 1.0, "fd": 0.0, "texture_distance": 0.0}
PLANE = "A line joins the images of one model: from its mean prediction by sharpness to its samples, then by fewer steps. The dashed line is the score of the truth, whose error is 0."
SCALES = "Axial, coronal and sagittal slices through the middle. Images, errors (image − truth) and standard deviations (sd) each have one colour scale for all methods and cases."


def write_page(document: Mapping[str, Any], path: Path | str) -> None:
    """Write the page of a comparison (see compare.compare) as one HTML file."""
    names = list(document["methods"])
    modalities = document["modalities"]
    targets = ", ".join(modalities)
    methods = {}
    for name, place in document["methods"].items():
        folder = Path(place) if Path(place).is_dir() else Path(place).parent
        methods[name] = (folder, scores_in(folder))
    pictured = document["answer"] == "synthesis"
    context = {
        "kind": "Comparison",
        "folder": f"{document['answer']} of {len(names)} methods",
        "title": f"{targets}: {', '.join(names[:-1])} and {names[-1]}"
        if len(names) < 5
        else f"{targets}, compared",
        "tables": comparison_tables(document),
        "paths": document["methods"],
        "cases": sections_of(methods, MOST_CASES * len(modalities)) if pictured else [],
        "charts": list(plane_charts(document)),
        "charts_title": "Error and distribution",
        "charts_note": PLANE,
        "cases_total": max(part["cases"] for part in modalities.values()),
        "scales": SCALES,
    }
    write_text(path, render(context))


def plane_charts(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A chart for each modality and score of the distribution, over the MAE, where at least two methods have both."""
    for modality, part in document["modalities"].items():
        scores = part["metrics"]
        for key, ideal in OF_DISTRIBUTION.items():
            points = dict[str, tuple[float, float]]()
            for name in document["methods"] if {"mae", key} <= scores.keys() else ():
                x, y = (
                    (scores[one]["methods"].get(name) or {}).get("mean") for one in ("mae", key)
                )
                if x is not None and y is not None:
                    points[name] = (x, y)
            if len(points) < 2:
                continue
            curves = _curves(document.get("settings", {}), points)
            unit = METRIC_OF["mae"].unit_for(part["unit"])
            title = f"{modality}: {METRIC_OF[key].label} over MAE ({unit})"
            svg = plane_chart(list(curves.values()), title, ideal)
            yield {"title": title, "names": list(curves), "svg": svg}


def _curves(
    settings: Mapping[str, Any], points: Mapping[str, tuple[float, float]]
) -> dict[str, list[Point]]:
    """The points of each model in the order of its dial; methods whose settings are not stated stay alone."""
    members = grouped(((settings.get(name) or {"run": name})["run"], name) for name in points)
    has_unique_names = len({Path(run).name for run in members}) == len(members)

    def along_dial(name: str) -> tuple[float, int]:
        """The place on the dial: from the mean to samples, then to fewer steps."""
        return settings[name]["sharpness"], -(settings[name]["steps"] or 0)

    curves = {}
    for run, names in members.items():
        if len(names) == 1:
            curves[names[0]] = [Point(*points[names[0]])]
            continue
        label = Path(run).name if has_unique_names else run
        curves[label] = [
            Point(*points[name], _setting(settings[name])) for name in sorted(names, key=along_dial)
        ]
    return curves


def _setting(setting: Mapping[str, Any]) -> str:
    """The setting of a point, such as mean, 8 steps, 0.5."""
    if not setting["sharpness"]:
        return "mean"
    if setting["sharpness"] < 1:
        return f"{setting['sharpness']:g}"
    steps = setting["steps"]
    return f"{steps} step{'' if steps == 1 else 's'}" if steps else "sample"
