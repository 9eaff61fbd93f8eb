"""One offline HTML page about a run or a folder of syntheses: scores, pictures, curves, recipe, provenance."""

import base64
import datetime
import html
import itertools
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from voxlate import __version__
from voxlate.cohorts.pseudonyms import without_names
from voxlate.recipe import text as recipe_text
from voxlate.reports.curves import calibration_chart, curve_chart, curves_of, score_chart
from voxlate.reports.pictures import sections_of, warnings_of
from voxlate.scoring.captions import training_note
from voxlate.scoring.documents import read_scores
from voxlate.scoring.metrics import LEVELS, METRIC_OF, METRICS
from voxlate.scoring.provenance import provenance_of, run_folders
from voxlate.scoring.scored_images import check_unchanged
from voxlate.scoring.tables import score_tables
from voxlate.scoring.verdict import read_verdicts, verdict_lines, verdicts
from voxlate.starters.names import is_starter
from voxlate.system.errors import BadInput
from voxlate.system.files import lock_if_free, read_json, write_text
from voxlate.training.starter import run_folder
from voxlate.trust.usability import usability

MOST_CASES = 9
MOST_PICTURES = 4  # of the validation
LONGEST_LIST = 12
HEADLINES = ("mae", "ssim_2d")
CHART_METRICS = (
    "mae",
    "rmse",
    "psnr",
    "ssim_2d",
    "ssim_3d",
    "nmi",
    "gradient_strength",
)
BETTER = {
    "lower": "lower is better",
    "higher": "higher is better",
    "one": "1 is ideal; below is blur, above is noise",
}
CURVES = (
    ("loss", "Training loss", True),
    ("validation", "Validation", False),
    ("lr", "Learning rate", False),
    ("items_per_s", "Speed, items per second", True),
)
Answer = Mapping[str, Mapping[str, Any]]  # summaries of scores by key
ALL_CASES = "Errors and standard deviations each have one colour scale for all cases."


def report(
    path: Path | str,
    out: Path | str | None = None,
    *,
    places: Mapping[str, str] | None = None,
) -> Path:
    """Write the report of a RUN or an OUT folder (default: report.html inside it) and return its path.

    The file contains everything and needs no network. places: labels of absolute paths, for a report that shows no path
    of this machine. Raises BadInput if the folder is neither of both.
    """
    if is_starter(path) and out is None:
        raise BadInput(
            f"{path}: expected a file for the report, because the package stays as it is, found none. Add --out report.html."
        )
    folder = run_folder(path)
    if not folder.is_dir():
        raise BadInput(
            f"{folder}: expected the folder of a run or of syntheses, found none. Check the path."
        )
    is_run = (folder / "recipe.toml").is_file() or (folder / "log.jsonl").is_file()
    scores = scores_in(folder)
    check_unchanged(folder, scores)
    cases = [] if is_run else sections_of({folder.name: folder}, {folder.name: scores}, MOST_CASES)
    if not (is_run or cases or scores):
        raise BadInput(
            f"{folder}: expected a run (recipe.toml, log.jsonl) or syntheses (<case>/<modality>.nii.gz), found none. Name the folder that train or synth wrote."
        )
    provenance = json_in(folder / "provenance.json")
    stated = {} if is_run else provenance_of(folder)  # its paths are absolute
    if places is not None and not is_run:
        provenance = stated
    runs = (
        [folder]
        if is_run
        else [
            folder_of_run
            for folder_of_run in run_folders(stated)
            if (folder_of_run / "log.jsonl").is_file()
        ]
    )
    run = next(iter(runs), None)
    recipe = (
        (run / "recipe.toml").read_text(encoding="utf-8")
        if run and (run / "recipe.toml").is_file()
        else ""
    )
    if recipe:
        provenance.pop("recipe", None)  # the recipe is shown as its file
    of_training = read_verdicts(folder / "log.jsonl").get("final", []) if is_run else []
    found_verdicts = verdicts(scores) if scores else of_training
    warned = {} if is_run else warnings_of(folder)
    context = {
        "use": usability(warned, found_verdicts) if warned or found_verdicts else None,
        "kind": "Training run" if is_run else "Synthesis",
        "folder": folder.name,
        "title": _title(recipe, folder, scores),
        "caution": training_note(scores),
        "verdicts": [
            (verdict.outcome, line)
            for verdict, line in zip(found_verdicts, verdict_lines(found_verdicts))
        ],
        "summaries": [_summary(name, part) for name, part in scores.get("modalities", {}).items()],
        "tables": score_tables(scores) if scores else None,
        "cases": cases,
        "cases_total": len({row["case"] for row in scores["cases"]}) if scores else len(cases),
        "charts": charts_of(run / "log.jsonl") if run else [],
        "validation": _validation(folder) if is_run else [],
        "recipe": toml_markup(recipe if places is None else without_names(recipe, places)),
        "recipe_note": _unlike_shipped(recipe),
        "provenance": flat(provenance),
    }
    return write_report(context, folder, out, places)


def write_report(
    context: Mapping[str, Any],
    folder: Path,
    out: Path | str | None,
    places: Mapping[str, str] | None = None,
) -> Path:
    """Write a page to `out`, or to report.html in the folder that it is about; returns its path."""
    page = render(context, places)
    if out is not None:
        write_text(out, page)
        return Path(out)
    with lock_if_free(folder):
        write_text(folder / "report.html", page)
    return folder / "report.html"


def render(context: Mapping[str, Any], places: Mapping[str, str] | None = None) -> str:
    """Fill the page's template; sections without an entry in the context are left out.

    places: labels of absolute paths. They replace these paths in each text before it becomes part of the page, so that
    neither the page's markup nor its pictures can be changed.
    """

    def shown(value: Any) -> Any:
        is_text = isinstance(value, str) and not isinstance(value, Markup)
        if places is None or not is_text or value.startswith("data:"):
            return value
        return without_names(value, places)

    template = (
        resources.files("voxlate.reports")
        .joinpath("templates", "page.html")
        .read_text(encoding="utf-8")
    )
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=shown
    )
    always = {
        "date": datetime.date.today().isoformat(),
        "version": __version__,
        "scales": ALL_CASES,
    }
    return environment.from_string(template).render({**always, **context})


def json_in(path: Path) -> dict[str, Any]:
    """A JSON object, or {} if there is none."""
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def scores_in(folder: Path) -> dict[str, Any]:
    """The scores of a folder; {} if there are none, or if they are from another tool."""
    path = folder / "metrics.json"
    return read_scores(path) if json_in(path).get("modalities") else {}


def _unlike_shipped(text: str) -> str:
    """A sentence on the differences between a recipe and the shipped recipe with the same head; "" if there are none."""
    heads = {name: recipe_text.head_of(name) for name in recipe_text.names()}
    name = next((name for name, head in heads.items() if head and text.startswith(head)), None)
    if name is None:
        return ""
    from voxlate import (
        recipe as recipes,
    )  # this import takes seconds, because it loads all networks

    try:
        own = dict(flat(tomllib.loads(text)))
        shipped = dict(flat(recipes.to_dict(recipes.read(name))))
    except tomllib.TOMLDecodeError:
        return ""
    # A shipped recipe with steps 0 has a length in epochs, which a run converts to steps.
    changed = [
        key
        for key in own
        if own[key] != shipped.get(key)
        and not (key.endswith("train.steps") and shipped.get(key) == "0")
    ]
    if not changed:
        return ""
    texts = [f"{key} {own[key]} ({shipped.get(key, 'not set')})" for key in changed]
    _, listed = flat(texts)[0]
    return f"Numbers in this head are of the recipe as shipped ({name}); this run differs in: {listed}."


def _title(recipe: str, folder: Path, scores: Mapping[str, Any]) -> str:
    """The recipe's title, or else the targets and sources."""
    try:
        title = tomllib.loads(recipe).get("title")
    except tomllib.TOMLDecodeError:
        title = None
    targets = ", ".join(scores.get("modalities", {}))
    sources = {name for files in scores.get("source_files", {}).values() for name in files}
    described = f"{targets} from {', '.join(sorted(sources))}" if targets and sources else targets
    return str(title or described or folder.name)


def _summary(modality: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """The headline of one modality, sentences on its uncertainty, and a chart of each main metric with all baselines."""
    unit = part["unit"]
    answers = dict[str, Answer]()
    for name, scores in part["answers"].items():
        answers[name] = {key: value for key, value in scores.items() if value["mean"] is not None}
    known = {key for scores in answers.values() for key in scores}
    own = answers.get("synthesis", {})
    # Six charts fill the page.
    keys = known & set(CHART_METRICS) - {"rmse" if "ssim_3d" in known else "ssim_3d"}
    charts = []
    for metric in [metric for metric in METRICS if metric.key in keys]:
        chart = score_chart(
            metric,
            {name: scores[metric.key] for name, scores in answers.items() if metric.key in scores},
        )
        charts.append((metric.label, metric.unit_for(unit), BETTER[metric.better], chart))
    return {
        "modality": modality,
        "headline": " ".join(headline(answers, unit, key) for key in HEADLINES).strip(),
        "uncertainty": " ".join(filter(None, [_uncertainty(own, unit), _intervals(own, unit)])),
        "charts": charts,
        "calibration": _calibration(own),
    }


def headline(answers: Mapping[str, Any], unit: str, key: str) -> str:
    """A sentence that compares a score of the synthesis with that of the best naive baseline."""
    metric = METRIC_OF[key]
    means = {answer: scores[key]["mean"] for answer, scores in answers.items() if key in scores}
    own = means.pop("synthesis", None)
    if own is None:
        return ""
    text = f"{metric.label} {metric.text(own)} {metric.unit_for(unit)}".strip()
    if not means:
        return f"{text}."
    best = min(
        means,
        key=lambda answer: means[answer] if metric.better == "lower" else -means[answer],
    )
    other = f"the best naive baseline ({best}, {metric.text(means[best])})"
    if metric.better == "lower" and means[best] > 0:
        share = 1 - own / means[best]
        return f"{text}, {100 * abs(share):.0f} % {'below' if share >= 0 else 'above'} {other}."
    return f"{text}, {'above' if own > means[best] else 'not above'} {other}."


def _uncertainty(scores: Answer, unit: str) -> str:
    """A sentence on the differences between samples."""
    if "std" not in scores:
        return ""
    spread = f"{METRIC_OF['std'].text(scores['std']['mean'])} {unit}"
    text = f"The samples of a case differ by {spread} on average (standard deviation)"
    if "std_error_r" not in scores:
        return text + "."
    r = METRIC_OF["std_error_r"].text(scores["std_error_r"]["mean"])
    return f"{text}; where they differ more, the error is larger with correlation {r}."


def _intervals(scores: Answer, unit: str) -> str:
    """A sentence on the coverage of intervals."""
    if "coverage" not in scores:
        return ""
    width = f"{METRIC_OF['interval'].text(scores['interval']['mean'])} {unit}"
    inside = METRIC_OF["coverage"].mean_text(scores["coverage"])
    text = f"Truth is within its interval in {inside} % of the body's voxels; intervals are {width} wide"
    if "mae_bound_held" not in scores:
        return text + "."
    return f"{text}; the stated bound of the MAE holds in {scores['mae_bound_held']['mean']:.0%} of the cases."


def _calibration(scores: Answer) -> Any:
    """The chart of the coverage at each nominal level; None without intervals."""
    coverage = {
        level: scores[f"coverage_{level}"] for level in LEVELS if f"coverage_{level}" in scores
    }
    return calibration_chart(coverage) if len(coverage) > 1 else None


def charts_of(log: Path) -> list[dict[str, Any]]:
    """The curves of a training: the title, the names of the lines with their last values, and the chart of each."""
    curves = curves_of(log)
    stages = list(dict.fromkeys(stage for stage, _ in curves))
    charts = []
    for stage, (group, heading, smooth) in itertools.product(stages, CURVES):
        title = heading if len(stages) == 1 else f"{heading}, {stage}"
        drawn = [curve for curve in curves.get((stage, group), []) if len(curve.steps) > 1]
        # Validation scores have different units, so each has its own chart.
        for part in [[curve] for curve in drawn] if group == "validation" else [drawn]:
            if part:
                names = [f"{curve.name}, last {curve.values[-1]:.4g}" for curve in part]
                charts.append(
                    {
                        "title": title,
                        "names": names,
                        "svg": curve_chart(part, title, smooth),
                    }
                )
    return charts


def _validation(run: Path) -> list[tuple[str, str]]:
    """Names and data URIs of the newest pictures in RUN/validation."""
    start = "data:image/png;base64,"
    return [
        (path.stem, start + base64.b64encode(path.read_bytes()).decode())
        for path in newest_pictures(run)
    ]


def newest_pictures(run: Path) -> list[Path]:
    """The newest pictures in RUN/validation, the last one first."""
    files = sorted(
        (run / "validation").glob("*.png"),
        key=lambda path: (path.stat().st_mtime, path.name),
    )
    return list(reversed(files[-MOST_PICTURES:]))


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested table as pairs of dotted key and text."""
    if isinstance(value, dict):
        return [
            pair
            for key, part in value.items()
            for pair in flat(part, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(value, list) and not any(isinstance(part, (dict, list)) for part in value):
        text = ", ".join(map(str, value[:LONGEST_LIST]))
        return [
            (
                prefix,
                text if len(value) <= LONGEST_LIST else f"{text} … ({len(value)} in all)",
            )
        ]
    if isinstance(value, list):
        return [
            pair for number, part in enumerate(value) for pair in flat(part, f"{prefix}.{number}")
        ]
    return [(prefix, "–" if value is None else str(value))]


def toml_markup(text: str) -> Markup:
    """TOML with markup of comments, tables, keys and strings for the page's style."""
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
