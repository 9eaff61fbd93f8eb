"""Calibrations and the errors that they let expect, in words."""

from collections.abc import Mapping
from math import inf
from statistics import fmean
from typing import Any

from voxlate.base.groups import grouped
from voxlate.scans.images.regions import BODY
from voxlate.synthesis.calibration import Header, describe_fit
from voxlate.synthesis.provenance import Provenance, run_folders
from voxlate.training.log_file import read_verdicts

# The meaning of a calibration's coverage by the bound that it uses over patients.
COUNTED: dict[str, str] = {
    "none": "on average over these patients, without a margin for chance",
    "normal": "with confidence {0} if patients' shares are about normal (Student's t)",
    "any": "with confidence {0}, whatever the distribution of patients' shares",
}
NOT_MEASURED = "Error not measured: no held-out patients were scored."


def sentences(header: Header) -> list[str]:
    """The coverage, and for each target the width and coverage of its intervals, by cross-validation over patients, and the bound of a case's error."""
    counted = describe_bound(header.bound, header.confidence)
    summary = [
        f"{header.patients} patients that training did not see ({len(header.cases)} cases). Intervals hold {header.coverage:.0%} of a new patient's voxels inside the body, {counted}. This holds for patients and scanners like these."
    ]
    for name, target in header.targets.items():
        found = target.compared[target.method]
        width = f"{found.width * header.halves[name]:.4g} {header.units[name]}"
        shares = [
            f"{region} {mean:.1%} ({max(low, 0):.0%}-{min(high, 1):.0%})"
            for region, (mean, low, high) in found.coverage.items()
        ]
        summary += [
            "",
            f"  {name}: intervals of {width} on average inside the body.",
            f"  Share of voxels inside, mean over patients (its 95 % interval): {', '.join(shares)}.",
            f"  Of the patient who has least, {found.least:.0%} of the voxels are inside.",
        ]
        if target.bounds.get("mae", inf) < inf:
            summary.append(
                f"  Of each new case, synth writes into provenance.json (bounds) what its body's MAE exceeds with a probability of {1 - header.coverage:.0%} at most."
            )
    return summary


def percent(share: float) -> str:
    """A share in per cent such as 90% or 99.99%, which is never rounded to 100%."""
    return f"{100 * share:.6g}%"


def describe_bound(bound: str, confidence: float) -> str:
    """A clause on the confidence of a coverage."""
    return COUNTED[bound].format(percent(confidence))


def describe_coverage(calibration: Mapping[str, Any]) -> str:
    """Sentences on what intervals should contain, and contain of each tissue; calibration: its entry in a provenance."""
    guarantee = "without a guarantee for patients"
    if "widened" not in calibration:
        bound = describe_bound(calibration["bound"], calibration["confidence"])
        guarantee = f"for patients and scanners like those of the calibration, {bound}"
    share = percent(calibration["coverage"])
    return f"Intervals should contain {share} of a new patient's voxels inside the body, {guarantee}. They were {describe_fit(calibration)}."


def error_lines(*provenances: Provenance) -> list[str]:
    """Sentences on the error of synthesised cases, with which a report, page, sheet and DICOM summary begin.

    By their intervals, as the mean over cases, else as the card of a starter or the validation of a run measured it.
    """
    by_region = grouped(
        ((name, region), error)
        for provenance in provenances
        for name, regions in provenance.get("expected", {}).items()
        for region, error in regions.items()
    )
    first = next(iter(provenances), {})
    if by_region:
        units = first.get("units", {})
        tissues_first = sorted(by_region.items(), key=lambda entry: entry[0][1] == BODY)
        means = ((name, (region, fmean(own))) for (name, region), own in tissues_first)
        how = "mean over the voxels of each tissue of the image, edges too, by the prediction intervals"
        return [
            error_line(f"Expected error of {name}", dict(regions), units.get(name, ""), how)
            for name, regions in grouped(means).items()
        ]
    if measured := first.get("measured"):
        return [f"Measured error of {name}: {'; '.join(of)}." for name, of in measured.items()]
    logs = (run / "log.jsonl" for run in run_folders(first))
    verdicts = next(filter(None, (read_verdicts(log).get("final") for log in logs)), [])
    of_validation = [
        f"Measured error of {verdict.modality}: {verdict.sentence}"
        for verdict in verdicts
        if verdict.synthesis is not None
    ]
    return of_validation or [NOT_MEASURED]


def error_line(what: str, regions: Mapping[str, float], unit: str, how: str) -> str:
    """A sentence on errors by region."""
    errors = [
        f"{region.replace('_', ' ')} {float(f'{error:.2g}'):g} {unit}".rstrip()
        for region, error in regions.items()
    ]
    return f"{what}: {', '.join(errors)} ({how})."
