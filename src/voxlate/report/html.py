"""What the report and the comparison share: the page around them, and the pictures of a scored case."""

import datetime
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from voxlate import __version__
from voxlate.files import read_json
from voxlate.images.ranges import Range
from voxlate.images.volume import is_there
from voxlate.report import case_pictures


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill one of the package's templates; each extends base.html, which needs kind, folder and title."""
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_text),
    )
    always = {"date": datetime.date.today().isoformat(), "version": __version__}
    return environment.get_template(template).render({**always, **context})


def json_in(path: Path) -> dict[str, Any]:
    """A JSON object, or nothing where there is none."""
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def views_in(
    out: Path, scores: Mapping[str, Any], case: str, modality: str, sources: bool = True
) -> case_pictures.CaseViews | None:
    """The pictures of one synthesis in OUT, with its truth and sources where they are; None where it has gone."""
    synthesis = _image(out / case, modality)
    if synthesis is None:
        return None
    inputs = (scores.get("source_files", {}).get(case) or _inputs(out, case)) if sources else {}
    truth = scores.get("truth_files", {}).get(f"{case}/{modality}")
    part = scores.get("modalities", {}).get(modality)
    return case_pictures.views_of(
        case,
        modality,
        synthesis,
        {name: Path(path) for name, path in inputs.items() if is_there(Path(path))},
        Path(truth) if truth and is_there(Path(truth)) else None,
        _image(out / case, f"{modality}_std"),
        _scale(part) if part else None,
    )


def _text(template: str) -> str:
    return resources.files("voxlate.report").joinpath("templates", template).read_text(encoding="utf-8")


def _image(folder: Path, name: str) -> Path | None:
    return next((path for path in sorted(folder.glob(f"{name}.*")) if path.suffix != ".json"), None)


def _inputs(out: Path, case: str) -> dict[str, str]:
    stated = (json_in(out / case / "provenance.json") or json_in(out / "provenance.json")).get("inputs", {})
    return {name: entry["path"] if isinstance(entry, dict) else entry for name, entry in stated.items()}


def _scale(part: Mapping[str, Any]) -> Range:
    low, high = part["range"]
    return Range(float(low), float(high), part["unit"], part.get("range_rule", ""), part["own_peak"])
