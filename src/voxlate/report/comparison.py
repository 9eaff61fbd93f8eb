"""One offline page that shows several methods: their table, and their pictures of the same cases in one window."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxlate.files import write_text
from voxlate.report import case_pictures
from voxlate.report.html import json_in, render, views_in
from voxlate.scoring.compare_table import caption, lines_of
from voxlate.scoring.metric_catalogue import METRICS, cell

MOST_CASES = 4
WIDE = 7  # columns that fit beside each other; more stand in rows of about equal length
CELL_SCORES = ("mae", "ssim_2d")
ROLES = {"synthesis": "image", "error": "− truth", "spread": "sd"}


def write_page(document: Mapping[str, Any], path: Path | str) -> None:
    """Write the page of a comparison (see compare.compare) as one HTML file."""
    write_text(path, render("comparison.html", _context(document)))


def _context(document: Mapping[str, Any]) -> dict[str, Any]:
    names = list(document["methods"])
    targets = ", ".join(document["modalities"])
    cases = _cases(document) if document["answer"] == "synthesis" else []
    return {
        "kind": "Comparison",
        "folder": f"{document['answer']} of {len(names)} methods",
        "title": f"{targets}: {', '.join(names[:-1])} and {names[-1]}" if len(names) < 5 else f"{targets} side by side",
        "tables": _tables(document),
        "caption": caption(document),
        "cases": cases,
        "cases_total": max(part["cases"] for part in document["modalities"].values()),
    }


def _tables(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table a modality, a row a method; what the syntheses took stands in the first."""
    lines = lines_of(document)
    shared, found = lines.pop("", []), []
    for number, (modality, mine) in enumerate(lines.items()):
        shown = [*mine, *shared] if number == 0 else mine
        rows = [
            {"name": name, "path": place, "cells": [line.cells[place_of] for line in shown]}
            for place_of, (name, place) in enumerate(document["methods"].items())
        ]
        found.append({"modality": modality, "head": [(line.label, line.unit) for line in shown], "rows": rows})
    return found


def _cases(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A few cases of each modality, evenly from the lowest to the highest error (mean of the methods)."""
    places = {name: Path(place) for name, place in document["methods"].items()}
    folders = {name: place if place.is_dir() else place.parent for name, place in places.items()}
    scores = {name: json_in(folder / "metrics.json") for name, folder in folders.items()}
    found = []
    for modality in document["modalities"]:
        rows = {name: _rows(one, modality) for name, one in scores.items()}
        chosen = _spread_over(rows)
        views = {case: _views(case, modality, folders, scores) for case, _ in chosen}
        looks = case_pictures.looks_for([view for mine in views.values() for view in mine.values()])
        unit = document["modalities"][modality]["unit"]
        for case, rank in chosen:
            if views[case]:
                found.append(_shown(views[case], looks, {name: rows[name][case] for name in views[case]}, unit, rank))
    return found


def _rows(scores: Mapping[str, Any], modality: str) -> dict[str, Mapping[str, Any]]:
    return {row["case"]: row for row in scores["cases"] if (row["modality"], row["answer"]) == (modality, "synthesis")}


def _spread_over(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[tuple[str, str]]:
    cases = list(next(iter(rows.values())))
    error = {case: sum(mine[case].get("mae") or 0.0 for mine in rows.values()) for case in cases}
    order, last = sorted(cases, key=lambda case: error[case]), len(cases) - 1
    count = min(MOST_CASES, len(order))
    picks = [round(number * last / (count - 1)) for number in range(count)] if count > 1 else [0]
    ends = {0: " (lowest)", last: " (highest)"} if last else {}
    return [(order[n], f"error rank {n + 1} of {len(order)}{ends.get(n, '')}") for n in picks]


def _views(
    case: str, modality: str, folders: Mapping[str, Path], scores: Mapping[str, Mapping[str, Any]]
) -> dict[str, case_pictures.CaseViews]:
    """By method, axial slices only; the sources with the first one."""
    found: dict[str, case_pictures.CaseViews] = {}
    for name, folder in folders.items():
        made = views_in(folder, scores[name], case, modality, sources=not found)
        if made is not None:
            found[name] = replace(made, views=tuple(map(_axial, made.views)))
    return found


def _axial(view: case_pictures.View) -> case_pictures.View:
    return replace(view, slices={"axial": view.slices["axial"]})


def _shown(
    views: Mapping[str, case_pictures.CaseViews],
    looks: Mapping[tuple[str, str], case_pictures.Look],
    rows: Mapping[str, Mapping[str, Any]],
    unit: str,
    rank: str,
) -> dict[str, Any]:
    """Source and truth, then a column a method: its image, its error and its spread, in looks that all share."""
    tiles = {name: case_pictures.tiles_of(one, looks) for name, one in views.items()}
    first, *_ = tiles.values()
    given = [tile for tile in first if tile.role in ("source", "truth")]
    columns = [
        {"role": tile.role, "name": tile.name, "notes": [], "pictures": [("", tile)], "bars": [("", tile.look)]}
        for tile in given
    ]
    for name, mine in tiles.items():
        made = [(ROLES[tile.role], tile) for tile in mine if tile.role in ROLES]
        columns.append({"role": "", "name": name, "notes": _notes(rows[name], unit), "pictures": made, "bars": []})
    # all methods share their bars: below the truth, where there is room
    legend = {
        tile.role: (ROLES[tile.role], tile.look) for mine in tiles.values() for tile in mine if tile.role in ROLES
    }
    holder = next((column for column in columns if column["role"] == "truth"), columns[len(given)])
    holder["bars"] = list(legend.values())
    one = next(iter(views.values()))
    abreast = math.ceil(len(columns) / math.ceil(len(columns) / WIDE))
    named = {"case": one.case, "modality": one.modality, "grid": str(one.grid), "rank": rank}
    return {**named, "columns": columns, "abreast": abreast}


def _notes(row: Mapping[str, Any], unit: str) -> list[str]:
    shown: Sequence[Any] = [metric for metric in METRICS if metric.key in CELL_SCORES]
    values = [(metric, row.get(metric.key)) for metric in shown]
    return [
        f"{metric.label} {cell({'mean': value, 'sd': None, 'ci95': None}, metric)} {metric.unit_for(unit)}".strip()
        for metric, value in values
        if value is not None
    ]
