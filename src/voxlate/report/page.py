"""One offline HTML page about a run or a folder of syntheses: scores, pictures, curves, recipe, provenance."""

import base64
import html
import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from voxlate.errors import BadInput
from voxlate.files import write_text
from voxlate.report import case_pictures, curves
from voxlate.report.html import json_in, render, views_in
from voxlate.report.score_panels import panels_of, table_of
from voxlate.scoring.metric_catalogue import METRICS, cell
from voxlate.scoring.tables import caption

MOST_CASES = 9
LONGEST_LIST = 12
CURVES = (
    ("loss", "Training loss", True),
    ("validation", "Validation", False),
    ("lr", "Learning rate", False),
    ("items_per_s", "Speed, items per second", True),
)


def report(path: Path | str, out: Path | str | None = None) -> Path:
    """Write the report of a RUN or an OUT folder (default: report.html inside it) and give its path.

    Everything is inside the one file: it opens without a network. Raises BadInput where the folder is neither.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise BadInput(f"{folder}: expected the folder of a run or of syntheses, found none. Check the path.")
    is_run = (folder / "recipe.toml").is_file() or (folder / "log.jsonl").is_file()
    provenance = json_in(folder / "provenance.json")
    scores = json_in(folder / "metrics.json")
    cases = [] if is_run else _cases(folder, scores)
    if not (is_run or cases or scores):
        raise BadInput(
            f"{folder}: expected a run (recipe.toml, log.jsonl) or syntheses (<case>/<modality>.nii.gz), found none. "
            "Name the folder that train or synth wrote."
        )
    run = folder if is_run else _run_of(provenance)
    recipe = _recipe(folder, run, provenance)
    target = Path(out) if out is not None else folder / "report.html"
    write_text(target, render("page.html", _context(folder, run, recipe, provenance, scores, cases)))
    return target


def _context(
    folder: Path, run: Path | None, recipe: str, provenance: dict[str, Any], scores: dict[str, Any], cases: list[Any]
) -> dict[str, Any]:
    scored = isinstance(scores.get("modalities"), dict) and bool(scores["modalities"])
    return {
        "title": _title(recipe, folder, scores),
        "kind": "Training run" if run == folder else "Synthesis",
        "folder": folder.name,
        "panels": panels_of(scores) if scored else [],
        "table": table_of(scores) if scored else None,
        "caption": caption(scores).splitlines() if scored else [],
        "plain_scores": [] if scored else list(flat(scores)),
        "cases": cases,
        "cases_total": len({row["case"] for row in scores["cases"]}) if scored else len(cases),
        "charts": _charts(run / "log.jsonl") if run else [],
        "validation": _validation(run) if run == folder and run else [],
        "recipe": toml_markup(recipe),
        "provenance": list(flat(provenance)),
    }


def _run_of(provenance: Mapping[str, Any]) -> Path | None:
    run = provenance.get("run")  # the run's folder, or a weights file in it
    places = [Path(run), Path(run).parent] if isinstance(run, str) else []
    return next((place for place in places if (place / "log.jsonl").is_file()), None)


def _recipe(folder: Path, run: Path | None, provenance: dict[str, Any]) -> str:
    """The recipe's text: from the run, or as the provenance carries it (then the provenance need not repeat it)."""
    for place in (folder, run):
        if place and (place / "recipe.toml").is_file():
            provenance.pop("recipe", None)
            return (place / "recipe.toml").read_text(encoding="utf-8")
    carried = provenance.get("recipe")
    if isinstance(carried, str) and "\n" in carried:
        return str(provenance.pop("recipe"))
    return ""


def _title(recipe: str, folder: Path, scores: Mapping[str, Any]) -> str:
    """The recipe's title, else what was made from what."""
    try:
        title = tomllib.loads(recipe).get("title")
    except tomllib.TOMLDecodeError:
        title = None
    made = ", ".join(scores.get("modalities", {}))
    sources = {name for files in scores.get("source_files", {}).values() for name in files}
    described = f"{made} from {', '.join(sorted(sources))}" if made and sources else made
    return str(title or described or folder.name)


def _charts(log: Path) -> list[dict[str, Any]]:
    found_curves = curves.curves_of(log)
    stages = list(dict.fromkeys(stage for stage, _ in found_curves))
    found = []
    for stage, (group, heading, smooth) in itertools.product(stages, CURVES):
        title = heading if len(stages) == 1 else f"{heading}, {stage}"
        drawn = [curve for curve in found_curves.get((stage, group), []) if len(curve.steps) > 1]
        # validation scores have different units: one chart each
        for part in [[curve] for curve in drawn] if group == "validation" else [drawn]:
            if part:
                names = [curve.name for curve in part]
                svg = Markup(curves.svg(part, title, smooth))  # made of numbers only
                found.append(
                    {"title": title, "names": names, "svg": svg, "last": [f"{c.values[-1]:.4g}" for c in part]}
                )
    return found


def _validation(run: Path) -> list[dict[str, str]]:
    """The newest pictures that training left in RUN/validation."""
    files = sorted((run / "validation").glob("*.png"), key=lambda path: (path.stat().st_mtime, path.name))[-4:]
    return [{"name": path.stem, "uri": _png_uri(path)} for path in reversed(files)]


def _png_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _cases(out: Path, scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = [row for row in scores.get("cases", []) if row.get("answer") == "synthesis"]
    if not rows:
        rows = [
            {"case": f.parent.name, "modality": f.name.removesuffix(".nii.gz"), "mae": None} for f in _syntheses(out)
        ]
    chosen = _spread_over(rows)
    found = [(row, rank, views_in(out, scores, row["case"], row["modality"])) for row, rank in chosen]
    there = [(row, rank, view) for row, rank, view in found if view is not None]
    looks = case_pictures.looks_for([view for *_, view in there])
    return [
        {
            "case": row["case"],
            "modality": row["modality"],
            "rank": rank,
            "grid": str(view.grid),
            "volume": "sagittal" in view.pixels,
            "scores": _scores_line(row, scores),
            "tiles": case_pictures.tiles_of(view, looks),
        }
        for row, rank, view in there
    ]


def _syntheses(out: Path) -> list[Path]:
    return [path for path in sorted(out.glob("*/*.nii.gz")) if not path.name.endswith("_std.nii.gz")]


def _spread_over(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], str]]:
    """At most MOST_CASES rows, evenly from the lowest to the highest error, and each one's rank in words."""
    order = sorted(rows, key=lambda row: (row["modality"], row.get("mae") or 0.0))
    if len(order) > MOST_CASES:
        picks = [round(number * (len(order) - 1) / (MOST_CASES - 1)) for number in range(MOST_CASES)]
    else:
        picks = list(range(len(order)))
    known = len(order) > 1 and order[0].get("mae") is not None
    ends = {0: " (lowest)", len(order) - 1: " (highest)"}
    return [(order[n], f"error rank {n + 1} of {len(order)}{ends.get(n, '')}" if known else "") for n in picks]


def _scores_line(row: Mapping[str, Any], scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    unit = scores.get("modalities", {}).get(row["modality"], {}).get("unit", "")
    shown = [metric for metric in METRICS if metric.key in ("mae", "psnr", "ssim_2d", "ssim_3d", "gradient_strength")]
    values = [(metric, row.get(metric.key)) for metric in shown]
    return [
        (metric.label, f"{cell({'mean': value, 'sd': None, 'ci95': None}, metric)} {metric.unit_for(unit)}".strip())
        for metric, value in values
        if value is not None
    ]


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested table as dotted keys and texts."""
    if isinstance(value, dict):
        return [pair for key, part in value.items() for pair in flat(part, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(value, list) and not any(isinstance(part, (dict, list)) for part in value):
        text = ", ".join(map(str, value[:LONGEST_LIST]))
        return [(prefix, text if len(value) <= LONGEST_LIST else f"{text} … ({len(value)} in all)")]
    if isinstance(value, list):
        return [pair for number, part in enumerate(value) for pair in flat(part, f"{prefix}.{number}")]
    return [(prefix, "–" if value is None else str(value))]


def toml_markup(text: str) -> Markup:
    """TOML with comments, tables, keys and strings marked for the page's style."""
    lines = []
    for line in text.strip().splitlines():
        escaped = html.escape(line, quote=False)
        if line.lstrip().startswith("#"):
            lines.append(f'<span class="comment">{escaped}</span>')
        elif line.lstrip().startswith("["):
            lines.append(f'<span class="table">{escaped}</span>')
        else:
            marked = re.sub(r'("[^"]*")', r'<span class="string">\1</span>', escaped)
            lines.append(re.sub(r"^(\s*[\w.-]+)(\s*=)", r'<span class="key">\1</span>\2', marked))
    return Markup("\n".join(lines))
