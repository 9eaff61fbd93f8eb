"""The verdicts on the syntheses of a metrics.json."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from voxlate.base.errors import plural
from voxlate.base.statistics import fixed_text
from voxlate.evaluation.scoring.metrics import METRIC_OF
from voxlate.evaluation.scoring.standard import BONE, WHOLE
from voxlate.training.verdict import METRIC, SYNTHESIS, Verdict, verdict_on

Table = Mapping[str, Any]

NETWORK_METRIC = METRIC_OF["mae_network"]  # of MR that is scored in shares of its own peak


def verdicts(document: Table) -> list[Verdict]:
    """The verdict on each modality of a metrics.json."""
    return [_of_modality(name, part, document) for name, part in document["modalities"].items()]


def _of_modality(name: str, part: Table, document: Table) -> Verdict:
    rows = [row for row in document["cases"] if row["modality"] == name]
    wrong = {label for label in document.get("wrong_truths", ()) if label.endswith(f"/{name}")}
    every = wrong | {f"{row['case']}/{name}" for row in rows}
    said = ""
    if name in document.get("given_truth", ()):
        said = "the truth itself was given to the model, so this is a bound and no synthesis"
    elif 2 * len(wrong) > len(every) and not document.get("wrong_truths_scored"):
        said = f"most truths ({len(wrong)} of {len(every)}) cannot be those of their images: check the cohort"
    if said:
        return Verdict(name, "unknown", f"no verdict: {said}", unit=part["unit"])
    own = _errors(rows, METRIC)
    patients = {row["case"]: row["patient"] for row in rows}
    cases = own.get(SYNTHESIS, {}).keys()
    clause = ""
    if trained := len(cases & set(document.get("trained_on", ()))):
        clause = f"{trained} of {plural(len(cases), 'case')} in the training, so this is no result on other patients"
    mask = part["mask"]
    where = "whole image" if mask == WHOLE else f"inside the mask {mask}"
    stated = verdict_on(name, own, patients, part["unit"], where, clause)
    if worse := dict(_worse_in(stated, rows, patients, document.get("regions", ()))):
        in_parts = ", ".join(
            f"{region.replace('_', ' ')} ({text})" for region, text in worse.items()
        )
        inside = "inside the body " if mask == WHOLE else ""
        sentence = f"{stated.sentence}; worse than it {inside}in {in_parts}"
        stated = replace(stated, sentence=sentence, worse_in=tuple(worse))
    # Training judges in network units, in which a wrong overall brightness is an error.
    on_255 = _errors(rows, NETWORK_METRIC.key)
    other = verdict_on(name, on_255, patients, NETWORK_METRIC.unit, where, clause)
    if "unknown" in (stated.outcome, other.outcome) or stated.outcome == other.outcome:
        return stated
    sentence = f"DEPENDS ON THE UNIT. With each image divided by its own peak: {stated.sentence}. In network units (0 to 255, as in training; --units network), where a wrong brightness is an error: {other.sentence}"
    return replace(stated, outcome="unclear", sentence=sentence)


def _worse_in(
    overall: Verdict, rows: Sequence[Table], patients: Mapping[str, str], regions: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Regions where a synthesis is worse than the baseline that is the best one overall, with both errors or overlaps."""
    for region in regions:
        judged = partial(_in_region, overall, rows, patients)
        error = judged(f"{region}.mae", lambda mae: mae)
        if error.outcome == "worse":
            ours, theirs = _both(error)
            texts = (fixed_text(value, theirs, fits=True) for value in (ours, theirs))
            yield region, f"{' against '.join(texts)} {overall.unit}"
        elif region == BONE:
            missed = judged(f"{region}.dice", lambda dice: 1 - dice)
            if missed.outcome == "worse":
                texts = (f"{1 - value:.3f}" for value in _both(missed))
                yield region, f"Dice {' against '.join(texts)}"


def _in_region(
    overall: Verdict,
    rows: Sequence[Table],
    patients: Mapping[str, str],
    key: str,
    error_of: Callable[[float], float],
) -> Verdict:
    """The verdict by a region's score on the synthesis and the baseline of another verdict."""
    errors = {
        answer: {case: error_of(value) for case, value in scores.items()}
        for answer, scores in _errors(rows, key).items()
        if answer in (SYNTHESIS, overall.baseline)
    }
    return verdict_on(overall.modality, errors, patients, overall.unit, key)


def _both(verdict: Verdict) -> tuple[float, float]:
    """The errors of a synthesis and of its baseline."""
    assert verdict.synthesis is not None
    assert verdict.naive is not None
    return verdict.synthesis, verdict.naive


def _errors(rows: Iterable[Table], key: str) -> dict[str, dict[str, float]]:
    """A score by answer and case."""
    errors = dict[str, dict[str, float]]()
    for row in rows:
        if row.get(key) is not None:
            errors.setdefault(row["answer"], {})[row["case"]] = row[key]
    return errors
