"""The captions below tables of scores: sentences on what the scores rest on."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from voxlate.base.errors import first_of, plural
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, read_messages, summarise, worst_grade
from voxlate.base.statistics import RESAMPLES
from voxlate.evaluation.lesion_counts import lesion_sentence
from voxlate.evaluation.scoring.interval_scores import describe_coverage
from voxlate.evaluation.scoring.metrics import LPIPS, SSIM, scope_label
from voxlate.evaluation.scoring.score_frame import ScoreFrame
from voxlate.training.verdict import SYNTHESIS

Part = Mapping[str, Any]  # of a modality

FEW = 4  # notes on cases that are printed without --all
WIDE = 0.6  # share of the scored range above which intervals carry hardly any information
OWN_PEAK = "Each image is divided by its own peak, so its overall brightness does not change its scores; with --units network it does."


def caption(scores: ScoreFrame, which: Literal["all", "main"] = "all") -> list[str]:
    """The caption of a table: ranges, masks, numbers of cases, value of intervals, and notes on cases.

    which: "main" leaves out the conventions and origins, and all but a few notes.
    """
    rules = which == "all"
    header = scores.header
    lines = [*map(str, truth_messages(scores))] if rules else []
    lines += [training_note(scores), *_on_intervals(scores)]
    for name, part in scores.parts.items():
        rule = drawn = ""
        if rules:
            over = "patients" if part["patients"] > 1 else "cases"
            rule = f" ({part['range_rule']})"
            drawn = f"; 95 % percentile interval, {RESAMPLES} resamples over {over}, seed {header['seed']}"
        lines.append(f"{range_note(name, part)}{rule}; mask: {part['mask']}{drawn}.")
    lines += _on_cases(scores)
    if rules:
        lines += [*_on_metrics(scores), *_on_areas(scores), *_on_origins(scores)]
    else:
        lines += [*_on_areas(scores, header.get("standard", ())), *_on_warnings(header)]
    cases_of = grouped(
        (note.removesuffix("."), case)
        for key in ("moved", "naive_left_out")
        for case, note in header.get(key, {}).items()
    )
    notes = [f"{', '.join(cases)}: {note}." for note, cases in cases_of.items()]
    lines += notes if rules else notes[:FEW]
    more = len(notes) - FEW
    if more > 0 and not rules:
        lines.append(f"{plural(more, 'further note')} on grids and baselines: --all prints all.")
    return [*filter(None, lines)]


def _on_warnings(header: Part) -> Iterator[str]:
    """The numbers of images without truth, and of cases of which the synthesis warned."""
    if without := header.get("without_truth"):
        yield f"Without truth, not scored: {plural(len(without), 'image')}."
    warnings = header.get("scan_warnings", {})
    warned = [case for case in warnings if worst_grade(read_messages(warnings, case)) != "note"]
    if warned:
        yield f"synth warned of {plural(len(warned), 'case')} ({first_of(warned)}): --all prints why."


def _on_cases(scores: ScoreFrame) -> Iterator[str]:
    """The patients that intervals describe, clipped truths, and cases with large errors."""
    for name, part in scores.parts.items():
        if part["patients"] == 1 and part["cases"] > 1:
            yield f"{name}: one patient, so the intervals describe these cases and not other patients."
        if part["patients"] == 2:
            yield f"{name}: two patients, so the intervals carry hardly any information on other patients."
        clipped = scores.frame["clipped"][scores.frame["modality"] == name]
        if (most := clipped.max()) > 0:
            yield f"{name}: up to {most:.1%} of a case's scored voxels have a truth beyond the range by more than 2 % of it, and are clipped."
    yield from map(str, summarise(read_messages(scores.header, "messages")))


def _on_areas(scores: ScoreFrame, left_out: Collection[str] = ()) -> Iterator[str]:
    """The rules of scopes with the numbers of pictures that count, and of regions with the truth's values in them."""
    scopes, regions = (
        {name: rule for name, rule in scores.header.get(key, {}).items() if name not in left_out}
        for key in ("scopes", "regions")
    )
    ours = {name: scores.means[name].get(SYNTHESIS, {}) for name in scores.parts}
    for name, rule in scopes.items():
        texts = [rule]
        for modality, means in ours.items():
            if counted := means.get(f"{name}.mae", {}).get("pictures"):
                slices = plural(scores.parts[modality]["slices"], "slice")
                texts.append(f"{modality}: {counted['n']} of {slices} count")
        yield f"{scope_label(name)}: {'; '.join(texts)}."
    for name, rule in regions.items():
        texts = []
        for modality, means in ours.items():
            for what in "mean", "volume", "ratio":
                metric = scores.metrics[f"{name}.truth_{what}"]
                value = means.get(metric.key)
                if value and value["mean"] is not None:
                    unit = metric.unit_for(scores.parts[modality]["unit"])
                    text = f"{metric.mean_text(value)} {unit}".rstrip()
                    texts.append(f"truth's {what} {text} ({value['n']} cases)")
        yield f"{name}: {rule}; {', '.join(texts)}."


def training_note(scores: ScoreFrame) -> str:
    """A sentence on the scored cases that were in the model's training; "" if none is known."""
    return not_held_out(len(scores.header.get("trained_on", [])), len(scores.patients))


def not_held_out(trained: int, scored: int) -> str:
    """A sentence on scored cases that were in the training; "" if there are none."""
    if not trained:
        return ""
    cases = f"{plural(scored, 'case')} {'was' if trained == 1 else 'were'}"
    return f"{trained} of {cases} in the model's training (by name), so their scores are not held-out scores."


def truth_messages(scores: ScoreFrame) -> list[Message]:
    """A message for each kind of truth that cannot be that of its image, with the cases."""
    return read_messages(scores.header, "truth_messages")


def _on_intervals(scores: ScoreFrame) -> Iterator[str]:
    """The value of coverage: calibration and width of the intervals, and the cases that are no test of them."""
    calibrations = scores.header.get("calibrations", [])
    yield from map(describe_coverage, calibrations)
    least = min((calibration["coverage"] for calibration in calibrations), default=0.0)
    images = with_intervals = 0
    for name, part in scores.parts.items():
        ours = scores.means[name].get(SYNTHESIS, {})
        images += part["cases"]
        with_intervals += ours.get("coverage", {"n": 0})["n"]
        if (width := ours.get("interval", {}).get("mean")) is not None:
            share = width / (part["range"][1] - part["range"][0])
            if share > WIDE:
                yield f"{name}: intervals are {share:.0%} of the scored range wide, so they carry hardly any information."
            if "peak" in part["unit"]:
                yield f"{name}: coverage does not depend on each scan's gain, as all scores in arbitrary units."
        missed = []
        for key, value in ours.items():
            high = (value["ci95"] or (None, value["mean"]))[1]
            if key.endswith("coverage") and high is not None and high < least:
                missed.append(f"{scores.metrics[key].label} ({value['mean']:.0%})")
        codes = [said.code for said in read_messages(scores.header, "messages")]
        if missed and 2 * codes.count("truth-apart") <= images:
            yield f"{name}: intervals hold less than they should in {', '.join(missed)}: do not rely on them there."
    if calibrated_on := scores.header.get("calibrated_on"):
        yield f"{len(calibrated_on)} of {len(scores.patients)} cases were used for the calibration, so the coverage of their intervals and bounds is no test."
    if 0 < with_intervals < images:
        yield f"{images - with_intervals} of {images} images have no intervals and do not count in the coverage."


def _on_metrics(scores: ScoreFrame) -> Iterator[str]:
    """The conventions of peaks, SSIM, NMI, gradients, distances and LPIPS."""
    parts = scores.parts.values()
    first = next(iter(parts))
    if any(part["own_peak"] for part in parts):
        yield OWN_PEAK
    low = "; values measured from zero, not from the low end of the range"
    flicker = "; z: the same from slice to slice, above is flicker"
    yield f"SSIM: {SSIM}whole windows only{low if first['ssim_from'] == 'zero' else ''}. NMI: 64 bins. Gradient: 1 right, below blur, above noise{flicker if 'gradient_z' in scores.known else ''}."
    if "mae_z" in scores.known:
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


def _on_origins(scores: ScoreFrame) -> Iterator[str]:
    """Counts of lesions, the origin of baselines and bounds, images that are not scored, and warnings of single cases."""
    header = scores.header
    for name in header.get("regions", {}):
        for modality in scores.parts:
            yield lesion_sentence(name, scores.by_case(modality), scores.patients)
    if numbers := header.get("naive_cases"):
        counts = ", ".join(f"{count} ({name})" for name, count in numbers.items())
        yield f"Mean image, copy and intensity table: from {counts} training cases."
    if without := header.get("without_truth"):
        yield f"Without truth, not scored: {', '.join(without)}."
    if missing := not_scored_texts(header.get("not_synthesised", {})):
        yield f"Not scored: {'; '.join(missing)}."
    warnings = header.get("scan_warnings", {})
    for case in warnings:
        yield f"{case}: {' '.join(map(str, read_messages(warnings, case)))}"


def not_scored_texts(reasons: Mapping[str, str]) -> list[str]:
    """Each reason against a score with the cases or images that have it, of many the first and their number."""
    texts = []
    for why, names in grouped((why, name) for name, why in reasons.items()).items():
        count = f"{len(names)} of them: " if len(names) > 1 else ""
        texts.append(f"{first_of(names)} ({count}{why})")
    return texts


def range_note(name: str, part: Part) -> str:
    """The numbers of cases and patients of a modality, and the range of its scores."""
    low, high = part["range"]
    cases = plural(part["cases"], "case")
    patients = plural(part["patients"], "patient")
    return f"{name}: {cases} of {patients}; range {low:g} to {high:g} {part['unit']}"
