"""The error of an image that is to be expected, and bounds of the errors of single cases, in words."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from voxlate.base.groups import grouped
from voxlate.evaluation.scoring.metrics import METRIC_OF
from voxlate.scans.images.regions import BODY
from voxlate.synthesis.provenance import Provenance, provenance_of, run_folders
from voxlate.training.log_file import read_verdicts

MOST_CASES = 12  # of more, the lowest, the median and the highest bound are printed
_text = METRIC_OF["mae"].text
NOT_MEASURED = "Error not measured: no held-out patients were scored."


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
        means = ((name, (region, fmean(own))) for (name, region), own in by_region.items())
        how = "mean, by the prediction intervals"
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
    """A sentence on errors by region, that of the body last."""
    errors = [
        f"{region.replace('_', ' ')} {float(f'{error:.2g}'):g} {unit}".rstrip()
        for region, error in sorted(regions.items(), key=lambda entry: entry[0] == BODY)
    ]
    return f"{what}: {', '.join(errors)} ({how})."


def bounds_of(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """By case and modality, the bounds that synth wrote: of the MAE inside the body and of the means of regions."""
    return {
        folder.name: bounds for folder in folders if (bounds := provenance_of(folder).get("bounds"))
    }


def bound_lines(folders: Sequence[Path]) -> Iterator[str]:
    """A line for each case, or for each modality if the cases are many; none without a calibration."""
    by_case = bounds_of(folders)
    if not by_case:
        return
    provenance = provenance_of(next(folder for folder in folders if folder.name in by_case))
    coverage = float(provenance["calibration"]["coverage"])
    units = provenance.get("units", {})
    yield f"Bounds of a case's error, each exceeded with a probability of {1 - coverage:.0%} at most:"
    cases = [*by_case]
    if len(cases) > MOST_CASES:
        cases.sort(key=lambda case: max(of.get("mae", 0.0) for of in by_case[case].values()))
        yield f"  of {len(cases)} cases, those with the lowest, the median and the highest MAE:"
        cases = [cases[place] for place in (0, len(cases) // 2, -1)]
    for case in cases:
        yield f"  {case}: {'; '.join(_texts(by_case[case], units))}"


def _texts(bounds: Mapping[str, Mapping[str, float]], units: Mapping[str, str]) -> Iterator[str]:
    for modality, values in bounds.items():
        regions = [
            f"mean of {name} {_text(value)}" for name, value in values.items() if name != "mae"
        ]
        whole = [f"MAE inside the body {_text(values['mae'])}"] if "mae" in values else []
        yield f"{modality} {', '.join([*whole, *regions])} {units.get(modality, '')}".rstrip()
