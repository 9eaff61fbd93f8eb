"""The work of a synthesis: its images, their DICOM series, the report and what the page shows.

The viewer reads NIfTI files, each with its role and its display window.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.base.messages import Grade, graded, read_messages, summarise
from voxlate.commands.api import images
from voxlate.commands.api.exports import export
from voxlate.commands.api.progress import Reporter
from voxlate.evaluation.intervals.summary import error_lines, percent
from voxlate.evaluation.reports.page import lead, report
from voxlate.evaluation.scoring.scored_images import images_in, interval_of, spread_of
from voxlate.page.jobs import (
    DICOM_ZIP,
    JOB,
    OUT,
    REPORT,
    SCANS,
    VIEWS,
    Asked,
    Json,
    places_of,
)
from voxlate.page.model_check import absolute_inputs, is_calibrated, limits_of, open_model
from voxlate.page.words import for_page
from voxlate.scans.formats.dicom import is_dicom_folder
from voxlate.scans.formats.io import (
    is_there,
    location_of,
    read_volume,
    without_ending,
    write_volume,
)
from voxlate.scans.formats.nifti import MAP_DESCRIPTIONS
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.ranges import top_of, window_of
from voxlate.synthesis.provenance import ENDINGS, bound_lines, provenance_of, source_paths
from voxlate.synthesis.synth_options import SynthOptions

VERDICTS = {"worse": "Do not trust", "unclear": "Caution"}
Role = Literal["source", "synthesis", "lower", "upper", "width", "spread"]


def synthesise(folder: Path, request: Asked, reporter: Reporter) -> Json:
    """Synthesise the images of a case, then write the DICOM series and the report."""
    options = SynthOptions(**request["options"])
    model = open_model(request["run"], options.device)
    options = replace(options, intervals=is_calibrated(model))
    inputs = absolute_inputs(request["inputs"], folder / SCANS)
    done = images.synthesise(model, inputs, folder / OUT, **vars(options), progress=reporter)
    for sentence in done.left_out.values():
        raise BadInput(sentence)
    (case,) = done.folders
    stated = provenance_of(case)
    warnings = read_messages(stated)
    files = source_paths(stated)
    reporter.step("views", 0, 3)
    views = write_views(case, files, folder)
    reporter.step("views", 1, 3)
    missing = _write_dicom(folder, files)
    reporter.step("views", 2, 3)
    places = places_of(folder, request)
    places |= {str(origin): request["label"] for origin in model.origins}
    report(folder / OUT, folder / REPORT, places=places, title=read_json(folder / JOB)["title"])
    outcome, summary = lead({case.name: warnings}, errors=error_lines(stated))
    shown = summarise(said for said in warnings if not said.is_detail)
    found = {
        "case": case.name,
        "images": [*stated["images"]],
        "descriptions": _descriptions(stated["images"], [said.grade for said in warnings]),
        "views": [asdict(view) for view in views],
        "warnings": [{"grade": said.grade, "text": f"{said}"} for said in shown],
        "expected": [*bound_lines([case])],
        "missing": missing,
        "limits": limits_of(model),
        "verdict": VERDICTS.get(outcome, "Done"),
        "summary": summary,
        "windows": {view.name: (view.low, view.high) for view in views if view.role == "synthesis"},
    }
    return {key: for_page(value, places) for key, value in found.items()}


def _descriptions(files: Iterable[str], grades: Sequence[Grade]) -> dict[str, str]:
    """What each image or map shows, with the grade of the messages on it."""
    found = {}
    for name in map(without_ending, files):
        ends = (text for end, text in MAP_DESCRIPTIONS.items() if name.endswith(end))
        found[name] = graded(", ".join(["synthetic", *ends]), grades)
    return found


def _write_dicom(folder: Path, files: Mapping[str, Path]) -> list[str]:
    """Write the derived series of a result, where its source is a series; returns sentences on images without one."""
    made = (folder / DICOM_ZIP).with_suffix("")
    places = [location_of(path) for path in files.values()]
    if not any(place.is_dir() and is_dicom_folder(place) for place in places):
        return []
    try:
        # the page asks before it synthesises such a scan, and its headers say so
        exported = export(folder / OUT, made, progress=False, accept_untrusted=True)
    except BadInput as error:  # the images are there, and only their DICOM objects are not
        return [f"No DICOM: {error}"]
    shutil.make_archive(str(made), "zip", made)
    shutil.rmtree(made)
    return [told.text for told in exported.messages]


@dataclass(frozen=True)
class View:
    """An image of the viewer: its role, the values shown as black and white, and its place in the job's folder."""

    name: str
    label: str
    role: Role
    unit: str
    low: float
    high: float
    file: str


def write_views(case: Path, sources: Mapping[str, Path], folder: Path) -> list[View]:
    """Write the viewer's images of a synthesised case into a job's folder; returns them.

    sources: the scans from which it was synthesised, by modality.
    """
    (folder / VIEWS).mkdir(exist_ok=True)
    views = list[View]()

    def add(role: Role, label: str, volume: Volume, low: float, high: float) -> None:
        """Write an image; low, high: shown as black and white."""
        file = f"{VIEWS}/{len(views)}_{role}{ENDINGS[0]}"
        write_volume(folder / file, volume, f"voxlate: {role}")
        views.append(View(volume.modality, label, role, volume.unit, low, high, file))

    for name, path in sources.items():
        if is_there(path):
            volume = read_volume(path, name)
            add("source", name, volume, *window_of(volume))
    stated = provenance_of(case)
    images = images_in(case)
    for name, unit in stated["units"].items():
        if name not in images:
            continue

        def read(path: Path, name: str = name, unit: str = unit) -> Volume:
            """A map of the image, or the image itself."""
            return replace(read_volume(path, name), unit=unit)

        image = read(images[name])
        low, high = window_of(image)
        add("synthesis", f"{name}, synthesised", image, low, high)
        interval = interval_of(images, name, stated)
        if interval is not None:
            lower, upper = read(interval.low), read(interval.high)
            share = percent(interval.coverage)
            add("lower", f"lower end of the {share} interval", lower, low, high)
            add("upper", f"upper end of the {share} interval", upper, low, high)
            width = replace(upper, data=upper.data - lower.data)
            add("width", f"width of the {share} interval", width, 0.0, top_of(width, image))
        spread = spread_of(name, images)
        if spread is not None:
            volume = read(spread)
            label = "standard deviation of the samples"
            add("spread", label, volume, 0.0, top_of(volume, image))
    return views
