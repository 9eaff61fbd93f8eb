"""The captions below tables of scores: sentences on the content of a metrics.json."""

import math
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Literal

import numpy as np

from voxlate.base.errors import first_of, plural
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, read_messages, worst_grade
from voxlate.checks.truths import KEPT, LEFT_OUT, Fault, fault_messages
from voxlate.evaluation.lesion_counts import lesion_sentence
from voxlate.evaluation.scoring.documents import Document, Part, Row, rows_of
from voxlate.evaluation.scoring.intervals import describe_bound
from voxlate.evaluation.scoring.metrics import LPIPS, METRIC_OF, SSIM, metrics_of, scope_label
from voxlate.synthesis.calibration import describe_widening

MAE = METRIC_OF["mae"]
FEW = 4  # notes on cases that are printed without --all
WIDE = 0.6  # share of the scored range above which intervals carry hardly any information
OWN_PEAK = "Each image is divided by its own peak, so its overall brightness does not change its scores; with --units network it does."


def keys_of(document: Document) -> set[str]:
    """Keys of all metrics that have at least one value."""
    parts = document["modalities"].values()
    by_answer = chain.from_iterable(part["answers"].values() for part in parts)
    summaries = chain.from_iterable(scores.items() for scores in by_answer)
    return {key for key, summary in summaries if summary["mean"] is not None}


def caption(document: Document, which: Literal["all", "main"] = "all") -> list[str]:
    """The caption of a table: ranges, masks, numbers of cases, value of intervals, and notes on cases.

    which: "main" leaves out the conventions and origins, and all but a few notes.
    """
    rules = which == "all"
    lines = [*map(str, truth_messages(document))] if rules else []
    lines += [training_note(document), *_on_intervals(document)]
    for name, part in document["modalities"].items():
        rule, drawn = (f" ({part['range_rule']})", f"; {part['bootstrap']}") if rules else ("", "")
        lines.append(f"{range_note(name, part)}{rule}; mask: {part['mask']}{drawn}.")
    lines += _on_cases(document)
    if rules:
        lines += [*_on_metrics(document), *_on_areas(document), *_on_origins(document)]
    else:
        lines += [*_on_areas(document, document.get("standard", ())), *_on_warnings(document)]
    cases_of = grouped(
        (note.removesuffix("."), case)
        for key in ("moved", "naive_left_out")
        for case, note in document.get(key, {}).items()
    )
    notes = [f"{', '.join(cases)}: {note}." for note, cases in cases_of.items()]
    lines += notes if rules else notes[:FEW]
    more = len(notes) - FEW
    if more > 0 and not rules:
        lines.append(f"{plural(more, 'further note')} on grids and baselines: --all prints all.")
    return [*filter(None, lines)]


def _on_warnings(document: Document) -> Iterator[str]:
    """The numbers of images without truth, and of cases of which the synthesis warned."""
    if without := document.get("without_truth"):
        yield f"Without truth, not scored: {plural(len(without), 'image')}."
    warnings = document.get("scan_warnings", {}).items()
    warned = [case for case, some in warnings if worst_grade(read_messages(some)) != "note"]
    if warned:
        yield f"synth warned of {plural(len(warned), 'case')} ({first_of(warned)}): --all prints why."


def _on_cases(document: Document) -> Iterator[str]:
    """The patients that intervals describe, cases with errors far above the others, and misaligned scans."""
    for name, part in document["modalities"].items():
        if part["patients"] == 1 and part["cases"] > 1:
            yield f"{name}: one patient, so the intervals describe these cases and not other patients."
        if part["patients"] == 2:
            yield f"{name}: two patients, so the intervals carry hardly any information on other patients."
    yield from map(str, read_messages(document.get("messages", ())))
    for name, part in document["modalities"].items():
        if floors := document.get("misaligned", {}).get(name):
            yield _misalignment_note(name, floors, part["unit"], rows_of(document, name))


def _on_areas(document: Document, left_out: Collection[str] = ()) -> Iterator[str]:
    """The rules of scopes with the numbers of pictures that count, and of regions with the truth's values in them."""
    parts = document["modalities"]
    known = metrics_of(document)
    scopes, regions = (
        {name: rule for name, rule in document.get(key, {}).items() if name not in left_out}
        for key in ("scopes", "regions")
    )
    for name, rule in scopes.items():
        texts = [rule]
        for modality, part in parts.items():
            summary = part["answers"].get("synthesis", {}).get(f"{name}.mae", {})
            if counted := summary.get("pictures"):
                slices = plural(part["slices"], "slice")
                texts.append(f"{modality}: {counted['n']} of {slices} count")
        yield f"{scope_label(name)}: {'; '.join(texts)}."
    for name, rule in regions.items():
        means = []
        for part in parts.values():
            for what in ("mean", "volume", "ratio"):
                metric = known[f"{name}.truth_{what}"]
                value = part["answers"].get("synthesis", {}).get(metric.key)
                if value and value["mean"] is not None:
                    text = f"{metric.mean_text(value)} {metric.unit_for(part['unit'])}".rstrip()
                    means.append(f"truth's {what} {text} ({value['n']} cases)")
        yield f"{name}: {rule}; {', '.join(means)}."


def training_note(document: Document) -> str:
    """A sentence on the cases of a metrics.json that were in the model's training; "" if none is known."""
    cases = {row["case"] for row in document.get("cases", [])}
    return not_held_out(len(document.get("trained_on", [])), len(cases))


def not_held_out(trained: int, scored: int) -> str:
    """A sentence on scored cases that were in the training; "" if there are none."""
    if not trained:
        return ""
    cases = f"{plural(scored, 'case')} {'was' if trained == 1 else 'were'}"
    return f"{trained} of {cases} in the model's training (by name), so their scores are not held-out scores."


def truth_messages(document: Document) -> list[Message]:
    """A message for each kind of truth that cannot be that of its image, with the cases."""
    faults = {
        label: Fault(fault["kind"], fault["found"])
        for label, fault in document.get("wrong_truths", {}).items()
    }
    scored = {f"{row['case']}/{row['modality']}" for row in document["cases"]}
    then = KEPT if document.get("wrong_truths_scored") else LEFT_OUT
    return fault_messages(faults, len(scored | faults.keys()), then)


def _on_intervals(document: Document) -> Iterator[str]:
    """The value of coverage: calibration and width of the intervals, and the cases that are no test of them."""
    for calibration in document.get("calibrations", []):
        aim = f"Intervals should contain {calibration['coverage']:.0%} of a new patient's voxels inside the body"
        if widening := describe_widening(calibration):
            yield f"{aim}; they were {widening}, without a guarantee for patients."
        else:
            yield f"{aim}; they were calibrated on {calibration['patients']} patients, {describe_bound(calibration['bound'], calibration['confidence'])}."
    nominal = [calibration["coverage"] for calibration in document.get("calibrations", ())]
    metrics = metrics_of(document)
    for name, part in document["modalities"].items():
        summary = part["answers"].get("synthesis", {}).get("interval") or {}
        if (width := summary.get("mean")) is not None:
            share = width / (part["range"][1] - part["range"][0])
            if share > WIDE:
                yield f"{name}: intervals are {share:.0%} of the scored range wide, so they carry hardly any information."
            if "peak" in part["unit"]:
                yield f"{name}: coverage does not depend on each scan's gain, as all scores in arbitrary units."
        missed = []
        for key, value in part["answers"].get("synthesis", {}).items():
            high = (value.get("ci95") or (None, value["mean"]))[1]
            if nominal and key.endswith("coverage") and high is not None and high < min(nominal):
                missed.append(f"{metrics[key].label} ({value['mean']:.0%})")
        if missed:
            yield f"{name}: intervals hold less than they should in {', '.join(missed)}: do not rely on them there."
    rows = [row for row in document["cases"] if row["answer"] == "synthesis"]
    if calibrated_on := document.get("calibrated_on"):
        yield f"{len(calibrated_on)} of {len({row['case'] for row in rows})} cases were used for the calibration, so the coverage of their intervals and bounds is no test."
    lacking = sum(row.get("coverage") is None for row in rows)
    if 0 < lacking < len(rows):
        yield f"{lacking} of {len(rows)} images have no intervals and do not count in the coverage."


def _on_metrics(document: Document) -> Iterator[str]:
    """The conventions of peaks, SSIM, NMI, gradients, distances and LPIPS."""
    parts = document["modalities"].values()
    first = next(iter(parts))
    if any(part["own_peak"] for part in parts):
        yield OWN_PEAK
    keys = keys_of(document)
    windows = {"valid": "whole windows only", "same": "edges extended with zeros"}
    low = "; values measured from zero, not from the low end of the range"
    flicker = "; z: the same from slice to slice, above is flicker"
    yield f"SSIM: {SSIM}{windows[first['ssim_padding']]}{low if first['ssim_from'] == 'zero' else ''}. NMI: 64 bins. Gradient: 1 right, below blur, above noise{flicker if 'gradient_z' in keys else ''}."
    if "mae_z" in keys:
        yield "Coherence of slices (ours, no paper's): SSIM coronal and sagittal, of every fourth slice; MAE z, of differences of neighbouring slices."
    for part in parts:
        if features := part["features"]:
            kind = (
                "FD and FD∞"
                if features["kind"] == "fd"
                else "Texture distances (not FD: other features, another scale)"
            )
            few = features["images"] < features["images_for_limit"]
            needed = f" ∞ needs {features['images_for_limit']} images." if few else ""
            yield f"{kind}: features: {features['name']}; {features['dimensions']} numbers a slice; {features['images']} axial slices pooled, resize {features['resize']}; ± is the standard error (jackknife over patients, or over cases below 3 patients). The plain distance is too high with few images, so it compares only between equal numbers of images; ∞ extrapolates it.{needed}"
    if first["lpips"]:
        yield f"LPIPS: {first['lpips']}; {LPIPS}."


def _on_origins(document: Document) -> Iterator[str]:
    """Counts of lesions, the origin of baselines and bounds, images that are not scored, and warnings of single cases."""
    ours = [row for row in document["cases"] if row["answer"] == "synthesis"]
    yield from (lesion_sentence(name, ours) for name in document.get("regions", {}))
    if number := document.get("naive_cases"):
        if isinstance(number, dict):
            number = ", ".join(f"{count} ({name})" for name, count in number.items())
        yield f"Mean image, copy and intensity table: from {number} training cases."
    for name, bound in document.get("bounds", {}).items():
        yield f"{name}: the autoencoder alone reconstructs whole validation slices with an MAE of {bound:.2f} of 255 network units; a model of its latents can hardly have a lower error."
    if without := document.get("without_truth"):
        yield f"Without truth, not scored: {', '.join(without)}."
    if missing := document.get("not_synthesised"):
        yield f"Not scored: {'; '.join(f'{case} ({why})' for case, why in missing.items())}."
    for case, warnings in document.get("scan_warnings", {}).items():
        yield f"{case}: {' '.join(map(str, read_messages(warnings)))}"


def range_note(name: str, part: Part) -> str:
    """The numbers of cases and patients of a modality, and the range of its scores."""
    low, high = part["range"]
    cases = plural(part["cases"], "case")
    patients = plural(part["patients"], "patient")
    return f"{name}: {cases} of {patients}; range {low:g} to {high:g} {part['unit']}"


def _misalignment_note(name: str, floors: Part, unit: str, rows: Mapping[str, Row]) -> str:
    """The part of the error that is due to misaligned scans, over the cases with misaligned scans."""
    cases = floors["cases"]
    errors = [row.get("mae") for case, row in rows.items() if case in cases]
    error = float(np.mean([error for error in errors if error is not None] or math.nan))
    due, of = (
        f"{MAE.text(value, like=error)} {MAE.unit_for(unit)}" for value in (floors["mae"], error)
    )
    share = f"about {due} are" if floors["mae"] < error else f"nearly all ({due}) is"
    sources = ", ".join(sorted({floor["source"] for floor in cases.values()}))
    return f"{name}: {len(cases)} of {plural(len(rows), 'case')} are misaligned with {sources}, by {floors['mm']:.1f} mm on average (estimate of prepare). Of their MAE of {of}, {share} due to that: the truth differs by as much from a copy that is shifted by this distance."
