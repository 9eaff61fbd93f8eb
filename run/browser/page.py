"""What the page asks of voxlate: open the model in /model, and synthesise the scans in /scans to /out.

Answers are JSON, because a worker of a browser passes texts; a refusal is {"error": sentence}.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, DoNotTrust
from voxlate.base.files import HIGH, LOW, SYNTHETIC
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.ranges import top_of, window_of
from voxlate.synthesis.exported import load_exported, read_model
from voxlate.synthesis.model import Model, Synthesised

MODEL, SCANS, OUT, VIEWS = (Path(f"/{name}") for name in ("model", "scans", "out", "views"))
Report = Callable[[int, int], None]
_models: list[Model] = []


def open_model() -> str:
    """Open the model and compute its self-test; what the page shows of it."""
    return _answer(_open)


def synthesise(seed: int, report: Report, anyway: bool = False) -> str:
    """Synthesise /scans/MODALITY/FILE; the written files, the views of the page, messages and provenance.

    anyway: also scans that are graded "do not trust".
    """
    return _answer(lambda: _synthesise(seed, report, anyway))


def _answer(work: Callable[[], dict[str, Any]]) -> str:
    try:
        return json.dumps(work())
    except DoNotTrust as error:
        text = str(error).replace("--anyway", "“Synthesise anyway”")
        return json.dumps({"error": text, "refused": True})
    except BadInput as error:
        return json.dumps({"error": str(error)})


def _open() -> dict[str, Any]:
    _models.clear()
    _models.append(load_exported(MODEL))
    description, facts = read_model(MODEL), _models[0].facts
    return {
        "title": facts.title,
        "notice": description.notice,
        "licence": description.licence,
        "source": facts.data.source,
        "target": facts.data.target,
        "card": description.card,
    }


def _synthesise(seed: int, report: Report, anyway: bool) -> dict[str, Any]:
    for folder in (OUT, VIEWS):
        shutil.rmtree(folder, ignore_errors=True)
    scans = {folder.name: next(folder.iterdir()) for folder in sorted(SCANS.iterdir())}
    result = _models[0].synthesise(scans, seed=seed, progress=report, anyway=anyway)
    paths = [*result.save(OUT), OUT / "provenance.json"]
    notes = [{"grade": note.grade, "text": str(note)} for note in result.warnings]
    views = [_written(number, view) for number, view in enumerate(_views(scans, result))]
    return {"files": [str(path) for path in paths], "views": views, "messages": notes}


def _views(
    scans: dict[str, Path], result: Synthesised
) -> Iterator[tuple[str, str, Volume, tuple[float, float]]]:
    """The images of the viewer: the role and the label of each, the image, and what is black and white."""
    for name, path in scans.items():
        volume = read_volume(path, name)
        yield "source", name, volume, window_of(volume)
    targets = _models[0].facts.data.target
    for name, image in result.files.items():
        target = name.removeprefix(SYNTHETIC)  # the mark of images that complete a case
        if target not in targets:
            continue  # a map of an image
        yield "synthesis", f"{target}, synthesised", image, window_of(image)
        if f"{name}{LOW}" in result.files:
            ends = [result.files[f"{name}{end}"] for end in (LOW, HIGH)]
            width = replace(image, data=ends[1].data - ends[0].data)
            yield "lower", f"lower end of the interval of {target}", ends[0], window_of(image)
            yield "upper", f"upper end of the interval of {target}", ends[1], window_of(image)
            yield "width", f"width of the interval of {target}", width, (0.0, top_of(width, image))


def _written(number: int, view: tuple[str, str, Volume, tuple[float, float]]) -> dict[str, Any]:
    role, label, volume, (low, high) = view
    path = VIEWS / f"{number}_{role}.nii.gz"
    write_volume(path, volume, f"voxlate: {role}")
    return {
        "file": str(path),
        "name": volume.modality,
        "label": label,
        "role": role,
        "unit": volume.unit,
        "low": low,
        "high": high,
    }
