"""The captions below tables of scores: sentences on the content of a metrics.json."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from voxlate.cases.grades import worst
from voxlate.scoring.intervals import counted_as
from voxlate.scoring.lesion_counts import lesion_sentence
from voxlate.scoring.metrics import LPIPS, SSIM, metrics_of, scope_label
from voxlate.scoring.truths import KEPT, LEFT_OUT, Fault, fault_lines
from voxlate.system.errors import first_of, plural

FEW = 4  # notes on cases that are printed without --all
WIDE = 0.6  # share of the scored range above which intervals carry hardly any information
OWN_PEAK = "Each image is divided by its own peak, so its overall brightness does not change its scores; with --units network it does."

Document = Mapping[str, Any]


def rows_of(
    document: Document, modality: str, answer: str = "synthesis"
) -> dict[str, Mapping[str, Any]]:
    """The scores in a metrics.json by case."""
    wanted = (modality, answer)
    rows = document.get("cases", [])
    return {row["case"]: row for row in rows if (row["modality"], row["answer"]) == wanted}


def keys_of(document: Document) -> set[str]:
    """Keys of all metrics that have at least one value."""
    answers = [
        scores for part in document["modalities"].values() for scores in part["answers"].values()
    ]
    return {key for scores in answers for key, value in scores.items() if value["mean"] is not None}


def caption(document: Document) -> list[str]:
    """The full caption: range, mask, window, units and numbers of cases."""
    modalities = document["modalities"]
    lines = [*truth_lines(document), held_out_note(document), *_of_intervals(document)]
    for name, part in modalities.items():
        lines.append(
            f"{range_note(name, part)} ({part['range_rule']}); mask: {part['mask']}; {part['bootstrap']}."
        )
    lines += _on_cases(document)
    if any(part["own_peak"] for part in modalities.values()):
        lines.append(OWN_PEAK)
    lines += _of_metrics(document)
    lines += _on_parts(document)
    ours = [row for row in document["cases"] if row["answer"] == "synthesis"]
    lines += [lesion_sentence(name, ours) for name in document.get("regions", {})]
    return [line for line in [*lines, *_of_cases(document)] if line]


def short_caption(document: Document) -> list[str]:
    """The short caption: range, mask, numbers of cases, value of intervals, and number of cases with warnings."""
    lines = [held_out_note(document), *_of_intervals(document)]
    lines += [
        f"{range_note(name, part)}; mask: {part['mask']}."
        for name, part in document["modalities"].items()
    ]
    lines += _on_cases(document)
    lines += _on_parts(document)
    without = document.get("without_truth")
    if without:
        lines.append(f"Without truth, not scored: {plural(len(without), 'image')}.")
    all_warnings = document.get("scan_warnings", {})
    warned = [case for case, warnings in all_warnings.items() if worst(warnings) != "note"]
    if warned:
        lines.append(
            f"synth warned of {plural(len(warned), 'case')} ({first_of(warned)}): --all prints why."
        )
    notes = list(_grouped_notes(document))
    lines += notes[:FEW]
    if len(notes) > FEW:
        lines.append(
            f"{plural(len(notes) - FEW, 'further note')} on grids and baselines: --all prints all."
        )
    return [line for line in lines if line]


def _on_cases(document: Document) -> Iterator[str]:
    """The patients that intervals describe, cases with errors far above the others, and misaligned scans."""
    for name, part in document["modalities"].items():
        if part["patients"] == 1 and part["cases"] > 1:
            yield f"{name}: one patient, so the intervals describe these cases and not other patients."
        if part["patients"] == 2:
            yield f"{name}: two patients, so the intervals carry hardly any information on other patients."
    yield from document.get("outliers", ())
    for name, part in document.get("misaligned", {}).items():
        yield _misaligned_line(name, part, document)


def _on_parts(document: Document) -> Iterator[str]:
    """The rules of scopes and regions."""
    for name, rule in document.get("scopes", {}).items():
        yield _scope_rule(name, rule, document)
    for name, rule in document.get("regions", {}).items():
        yield _region_note(name, rule, document)


def held_out_note(document: Document) -> str:
    """A sentence on the cases of a metrics.json that were in the model's training; "" if none is known."""
    cases = {row["case"] for row in document.get("cases", [])}
    return not_held_out(len(document.get("trained_on", [])), len(cases))


def not_held_out(trained: int, scored: int) -> str:
    """A sentence on scored cases that were in the training; "" if there are none."""
    if not trained:
        return ""
    cases = f"{plural(scored, 'case')} {'was' if trained == 1 else 'were'}"
    return f"{trained} of {cases} in the model's training (by name), so their scores are not held-out scores."


def truth_lines(document: Document) -> list[str]:
    """A sentence for each kind of truth that cannot be that of its image, with the cases."""
    stated = document.get("wrong_truths", {})
    kept = document.get("wrong_truths_scored", False)
    faults = {label: Fault(one["kind"], one["found"]) for label, one in stated.items()}
    scored = {(row["case"], row["modality"]) for row in document["cases"]}
    images = len(scored | {tuple(label.split("/")) for label in stated})
    return fault_lines(faults, images, KEPT if kept else LEFT_OUT)


def _of_intervals(document: Document) -> Iterator[str]:
    """The value of coverage: calibration and width of the intervals, and the cases that are no test of them."""
    for calibration in document.get("calibrations", []):
        yield (
            f"Intervals should contain {calibration['coverage']:.0%} of a new patient's voxels inside the body; they were calibrated on {calibration['patients']} patients, {counted_as(calibration['bound'], calibration['confidence'])}."
        )
    for name, part in document["modalities"].items():
        wide = (part["answers"].get("synthesis", {}).get("interval") or {}).get("mean")
        whole = part["range"][1] - part["range"][0]
        if wide is not None and wide > WIDE * whole:
            yield f"{name}: intervals are {wide / whole:.0%} of the scored range wide, so they carry hardly any information."
        if wide is not None and "peak" in part["unit"]:
            yield f"{name}: coverage does not depend on each scan's gain, as all scores in arbitrary units."
    rows = [row for row in document["cases"] if row["answer"] == "synthesis"]
    calibrated_on = document.get("calibrated_on")
    if calibrated_on:
        yield (
            f"{len(calibrated_on)} of {len({row['case'] for row in rows})} cases were used for the calibration, so the coverage of their intervals and bounds is no test."
        )
    lacking = sum(row.get("coverage") is None for row in rows)
    if 0 < lacking < len(rows):
        yield f"{lacking} of {len(rows)} images have no intervals and do not count in the coverage."


def _of_metrics(document: Document) -> Iterator[str]:
    """The conventions of SSIM, NMI, gradients, distances and LPIPS."""
    first = next(iter(document["modalities"].values()))
    keys = keys_of(document)
    windows = (
        "whole windows only" if first["ssim_padding"] == "valid" else "edges extended with zeros"
    )
    if first["ssim_from"] == "zero":
        windows += "; values measured from zero, not from the low end of the range"
    gradient = "Gradient: 1 right, below blur, above noise"
    if "gradient_z" in keys:
        gradient += "; z: the same from slice to slice, above is flicker"
    yield f"SSIM: {SSIM}{windows}. NMI: 64 bins. {gradient}."
    if "mae_z" in keys:
        yield (
            "Coherence of slices (ours, no paper's): SSIM coronal and sagittal, of every fourth slice; MAE z, of differences of neighbouring slices."
        )
    for part in document["modalities"].values():
        if part["features"]:
            yield _features_note(part["features"])
    if first["lpips"]:
        yield f"LPIPS: {first['lpips']}; {LPIPS}."


def _of_cases(document: Document) -> Iterator[str]:
    """The origin of naive baselines and bounds, and notes on single cases."""
    if number := document.get("naive_cases"):
        several = isinstance(number, dict)
        shown = (
            ", ".join(f"{count} ({name})" for name, count in number.items()) if several else number
        )
        yield f"Mean image, copy and intensity table: from {shown} training cases."
    for name, bound in document.get("bounds", {}).items():
        yield (
            f"{name}: the autoencoder alone reconstructs whole validation slices with an MAE of {bound:.2f} of 255 network units; a model of its latents can hardly have a lower error."
        )
    if document.get("without_truth"):
        yield f"Without truth, not scored: {', '.join(document['without_truth'])}."
    if missing := document.get("not_synthesised"):
        yield f"Not scored: {'; '.join(f'{case} ({why})' for case, why in missing.items())}."
    for case, warnings in document.get("scan_warnings", {}).items():
        yield f"{case}: {' '.join(warnings)}"
    yield from _grouped_notes(document)


def _grouped_notes(document: Document) -> Iterator[str]:
    """Notes on the alignment of images and on absent baselines, each with all of its cases."""
    for notes in (document.get("moved", {}), document.get("naive_left_out", {})):
        for note in dict.fromkeys(notes.values()):
            cases = [case for case, other in notes.items() if other == note]
            yield f"{', '.join(cases)}: {note.removesuffix('.')}."


def range_note(name: str, part: Mapping[str, Any]) -> str:
    """The numbers of cases and patients of a modality, and the range of its scores."""
    low, high = part["range"]
    cases = plural(part["cases"], "case")
    patients = plural(part["patients"], "patient")
    return f"{name}: {cases} of {patients}; range {low:g} to {high:g} {part['unit']}"


def _misaligned_line(modality: str, part: Mapping[str, Any], document: Document) -> str:
    """The part of the error that is due to misaligned scans, over the cases with misaligned scans."""
    metric = metrics_of(document)["mae"]
    unit = document["modalities"][modality]["unit"]
    rows = rows_of(document, modality)
    cases = part["cases"]
    error = float(np.mean([row["mae"] for case, row in rows.items() if case in cases]))
    shown, of = (
        f"{metric.text(value, like=error)} {metric.unit_for(unit)}"
        for value in (part["mae"], error)
    )
    share = f"about {shown} are" if part["mae"] < error else f"nearly all ({shown}) is"
    source = next(iter(cases.values()))["source"]
    return f"{modality}: {len(cases)} of {plural(len(rows), 'case')} are misaligned with {source}, by {part['mm']:.1f} mm on average (estimate of prepare). Of their MAE of {of}, {share} due to that: the truth differs by as much from a copy that is shifted by this distance."


def _features_note(part: Mapping[str, Any]) -> str:
    """The features of the distances, and the number of images with its effect."""
    name = (
        "FD, FD∞ and KD"
        if part["kind"] == "fd"
        else "Texture distances (not FD: other features, another scale)"
    )
    text = f"{name}: features: {part['name']}; {part['dimensions']} numbers a slice; {part['images']} axial slices pooled, resize {part['resize']}; ± is the standard error ({part['errors']}). The plain distance is too high with few images, so it compares only between equal numbers of images; ∞ extrapolates it, and the kernel distance has no such bias."
    if part["images"] < part["images_for_limit"]:
        text += f" ∞ needs {part['images_for_limit']} images."
    return text


def _scope_rule(name: str, rule: str, document: Document) -> str:
    """The rule of a scope, and the number of its pictures that count."""
    numbers = []
    for modality, part in document["modalities"].items():
        counted = part["answers"].get("synthesis", {}).get(f"{name}.mae", {}).get("pictures")
        if counted is not None:
            numbers.append(f"{modality}: {counted['n']} of {plural(part['slices'], 'slice')} count")
    return f"{scope_label(name)}: {'; '.join([rule, *numbers])}."


def _region_note(name: str, rule: str, document: Document) -> str:
    """The rule of a region, and the truth's mean, volume or ratio in it."""
    known = metrics_of(document)
    means = []
    for part in document["modalities"].values():
        for what in ("mean", "volume", "ratio"):
            metric = known[f"{name}.truth_{what}"]
            value = part["answers"].get("synthesis", {}).get(metric.key)
            if value and value["mean"] is not None:
                text = f"{metric.mean_text(value)} {metric.unit_for(part['unit'])}".rstrip()
                means.append(f"truth's {what} {text} ({value['n']} cases)")
    return f"{name}: {rule}; {', '.join(means)}."
