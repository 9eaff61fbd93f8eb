"""The work of a synthesis: its images, their DICOM series, the report and what the page shows."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from voxlate.base.errors import BadInput, plural
from voxlate.base.files import read_json
from voxlate.base.messages import message, read_messages, shorten
from voxlate.commands.api import images
from voxlate.commands.api.exports import export
from voxlate.commands.api.progress import Reporter
from voxlate.evaluation.intervals.summary import bound_lines, error_lines
from voxlate.evaluation.reports.page import lead, report
from voxlate.page.jobs import DICOM_ZIP, JOB, OUT, REPORT, Asked, Json, places_of, scans_of
from voxlate.page.model_check import absolute_inputs, card_of
from voxlate.page.views import write_views
from voxlate.page.words import for_page
from voxlate.scans.formats.dicom import is_dicom_folder
from voxlate.scans.formats.io import location_of
from voxlate.synthesis.provenance import provenance_of, source_paths
from voxlate.synthesis.synth_options import SynthOptions
from voxlate.training.load import load

VERDICTS = {"worse": "Do not trust", "unclear": "Caution"}
NO_INTERVALS = "No intervals: the run is calibrated for other settings. Leave the settings of the sampling empty for those of the calibration."


def synthesise(folder: Path, request: Asked, reporter: Reporter) -> Json:
    """Synthesise the images of a case, then write the DICOM series and the report."""
    options = SynthOptions(**request["options"])
    model = load(request["run"], options.device, answer=options.answer)
    try:
        model.with_options(**options.keys).calibration()
    except BadInput as error:  # intervals hold for the settings of their calibration alone
        is_chosen = any(value is not None for value in options.keys.values())
        text = NO_INTERVALS if is_chosen else f"No intervals: {error}"
        reporter.say(message("no-intervals", text))
        options = replace(options, intervals=False)
    inputs = absolute_inputs(request["inputs"], scans_of(folder, request))
    done = images.synthesise(model, inputs, folder / OUT, options, progress=reporter)
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
    shown, more = shorten(warnings)
    if more:
        missing.append(f"{plural(more, 'further note')} in the report.")
    synthesised = [view for view in views if view["role"] == "synthesis"]
    found = {
        "case": case.name,
        "images": [*stated["images"]],
        "views": views,
        "warnings": [{"grade": said.grade, "text": said.on_page} for said in shown],
        "expected": [*bound_lines([case])],
        "missing": missing,
        "settings": [*_settings(request, stated)],
        "card": card_of(model),
        "verdict": VERDICTS.get(outcome, "Done"),
        "summary": summary,
        "windows": {view["name"]: (view["low"], view["high"]) for view in synthesised},
        "small": synthesised[0]["small"],
    }
    return {key: for_page(value, places) for key, value in found.items()}


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


def _settings(request: Asked, stated: Asked) -> Iterator[tuple[str, str]]:
    """The settings with which images were synthesised, as their provenance states them."""
    synth = stated.get("synth", {})
    model = stated.get("model", {})
    samples = synth.get("samples", 1)
    sharpness = synth.get("sharpness", 1.0)
    prediction = "sharp (one sample)" if samples == 1 else f"mean of {samples} samples"
    if sharpness < 1:
        prediction = f"sharpness {sharpness:g}, between the mean (0) and a sample (1)"
    drawn = {
        "prediction": prediction,
        "samples": samples,
        "steps": synth.get("steps") if request.get("has_steps", True) else None,
        "seed": stated.get("seed"),
    }
    facts = {
        "model": f"{request['label']}: {model.get('title', '')}",
        **({"prediction": "mean"} if request["answer"] == "mean" or not sharpness else drawn),
        "weights": model.get("weights"),
        "voxlate": stated.get("voxlate"),
        "computed on": stated.get("device"),
    }
    for name, value in facts.items():
        if value is not None:
            yield name, str(value)
