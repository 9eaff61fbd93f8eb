"""The page of several methods: their table, and their pictures of the same cases on the same colour scales."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxlate.files import write_text
from voxlate.report.page import json_in, render, score_texts
from voxlate.report.pictures import (
    CaseImages,
    ColourScale,
    Column,
    Scales,
    column_of,
    evenly,
    pictures_of,
    read_case,
    shared_scales,
)
from voxlate.scoring.compare import comparison_tables, rows_of

MOST_CASES = 4
WIDEST = 7  # columns that fit next to each other; more stand in rows of about equal length
CASE_SCORES = ("mae", "ssim_2d")
LABELS = {"synthesis": "image", "error": "− truth", "spread": "sd"}
ALL_METHODS = (
    "Axial slices through the middle. Images, errors (image − truth) and standard deviations (sd) share one colour "
    "scale each over all methods and cases."
)


def write_page(document: Mapping[str, Any], path: Path | str) -> None:
    """Write the page of a comparison (see compare.compare) as one HTML file."""
    names = list(document["methods"])
    targets = ", ".join(document["modalities"])
    listed = f"{targets}: {', '.join(names[:-1])} and {names[-1]}"
    context = {
        "kind": "Comparison",
        "folder": f"{document['answer']} of {len(names)} methods",
        "title": listed if len(names) < 5 else f"{targets} of {len(names)} methods",
        "tables": comparison_tables(document),
        "paths": document["methods"],
        "cases": _cases(document) if document["answer"] == "synthesis" else [],
        "cases_total": max(part["cases"] for part in document["modalities"].values()),
        "scales": ALL_METHODS,
    }
    write_text(path, render(context))


def _cases(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A few cases of each modality, evenly from the lowest to the highest error (mean of the methods)."""
    paths = {name: Path(path) for name, path in document["methods"].items()}
    folders = {name: path if path.is_dir() else path.parent for name, path in paths.items()}
    scores = {name: json_in(folder / "metrics.json") for name, folder in folders.items()}
    found = []
    for modality, part in document["modalities"].items():
        rows = {name: rows_of(one, modality) for name, one in scores.items()}
        error = {case: sum(mine[case].get("mae") or 0.0 for mine in rows.values()) for case in rows[next(iter(rows))]}
        chosen = evenly(sorted(error, key=lambda case: error[case]), MOST_CASES)
        read = {
            case: {name: read_case(folders[name], scores[name], case, modality, axial_only=True) for name in folders}
            for case, _ in chosen
        }
        there = {case: {name: one for name, one in mine.items() if one} for case, mine in read.items()}
        scales = shared_scales([one for mine in there.values() for one in mine.values()])
        for case, rank in chosen:
            if there[case]:
                mine = {name: rows[name][case] for name in there[case]}
                columns = _columns(there[case], scales, mine, part["unit"])
                grid = str(next(iter(there[case].values())).grid)
                in_a_row = math.ceil(len(columns) / math.ceil(len(columns) / WIDEST))
                found.append({"case": case, "facts": [modality, grid, rank], "columns": columns, "in_a_row": in_a_row})
    return found


def _columns(
    methods: Mapping[str, CaseImages], scales: Scales, rows: Mapping[str, Mapping[str, Any]], unit: str
) -> list[Column]:
    """Sources and truth, then a column a method: its image, its error and its spread."""
    first = next(iter(methods.values()))
    columns = [column_of(first, one, scales) for one in first.images if one.role in ("source", "truth")]
    bars: dict[str, tuple[str, ColourScale]] = {}
    for name, case in methods.items():
        made = [image for image in case.images if image.role in LABELS]
        pictures = [one for image in made for one in pictures_of(case, image, scales, name, LABELS[image.role])]
        notes = [f"{label} {value}" for label, value in score_texts(rows[name], CASE_SCORES, unit)]
        columns.append(Column("", name, pictures, [], notes))
        bars |= {one.role: (LABELS[one.role], one.scale or scales[case.modality, one.role]) for one in made}
    # all methods share their bars: below the truth, where there is room
    holder = next((n for n, one in enumerate(columns) if one.role == "truth"), len(columns) - len(methods))
    columns[holder] = replace(columns[holder], bars=list(bars.values()))
    return columns
