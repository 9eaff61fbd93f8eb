"""The page of a comparison: the table of methods, and pictures of the same cases on the same colour scales."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxlate.base.files import write_text
from voxlate.evaluation.compare import comparison_tables
from voxlate.evaluation.reports.case_pictures import sections_of
from voxlate.evaluation.reports.page import render, scores_in

MOST_CASES = 4
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
    all_names = f"{targets}: {', '.join(names[:-1])} and {names[-1]}"
    context = {
        "kind": "Comparison",
        "folder": f"{len(names)} methods",
        "title": all_names if len(names) < 5 else f"{targets}, compared",
        "tables": comparison_tables(document),
        "paths": document["methods"],
        "cases": sections_of(methods, MOST_CASES * len(modalities)),
        "cases_total": max(part["cases"] for part in modalities.values()),
        "scales": SCALES,
    }
    write_text(path, render(context))
