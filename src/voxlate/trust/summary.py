"""A calibration in words and numbers, for the terminal and for programs."""

from typing import Any

from voxlate.scoring.intervals import counted_as, percent
from voxlate.trust.calibration import WAYS, Header, Target
from voxlate.trust.conformal import least_patients, least_provable

SKEWED = 3  # times the share that may be outside, from which a patient is far from the others


def table(header: Header) -> list[dict[str, Any]]:
    """A row for each target and way: its mean width in physical units, and coverage by region with its interval."""
    return [
        {
            "target": name,
            "way": way,
            "chosen": way == target.way,
            "scale": one.scale,
            "width": one.width * header.halves[name],
            "unit": header.units[name],
            "coverage": {
                part: {"mean": mean, "interval": [low, high]} for part, (mean, low, high) in one.coverage.items()
            },
        }
        for name, target in header.targets.items()
        for way, one in target.compared.items()
    ]


def sentences(header: Header) -> list[str]:
    """What was done, how the ways of intervals compare, and what so many patients can prove."""
    count, level = header.patients, header.coverage
    counted = counted_as(header.bound, header.confidence)
    found = [
        f"{count} patients that training did not see ({len(header.cases)} cases). Intervals hold {level:.0%} of a new "
        f"patient's voxels inside the body, {counted}: of patients like these, from scanners like these."
    ]
    for name, target in header.targets.items():
        found += ["", *_rows(name, target, header), *_of_bounds(name, target, header)]
    proved = least_provable(count, header.confidence)
    found += [
        "",
        f"Without any assumption {count} patients can prove a coverage of {1 - proved:.0%} at best with confidence "
        f"{percent(header.confidence)} (1 - {1 - header.confidence:g}^(1/{count}) may be outside: {proved:.1%}).",
    ]
    return found


def _rows(name: str, target: Target, header: Header) -> list[str]:
    """The ways, narrowest first, each patient left out of what was fitted."""
    parts = target.compared[target.way].coverage
    lines = [f"  {name:24}{'width':>12}" + "".join(f"{part:>22}" for part in parts)]
    for way, one in sorted(target.compared.items(), key=lambda pair: pair[1].width):
        cells = "".join(f"{_share(*one.coverage[part]):>22}" for part in parts)
        mark = "*" if way == target.way else " "
        width = f"{one.width * header.halves[name]:.4g} {header.units[name]}"
        lines.append(f"{mark} {way:24}{width:>12}{cells}")
    if target.regions:
        lines.append(f"  Regions: {', '.join(target.regions.values())}.")
    lines.append(f"  * taken: {WAYS[target.way]}. Shares of voxels inside: mean over patients (its 95 % interval).")
    least, outside = target.compared[target.way].least, 1 - header.coverage
    lines.append(f"  Of the patient who has least, {least:.0%} of the voxels are inside.")
    if header.bound == "normal" and 1 - least > SKEWED * outside:
        lines[-1] += " SHARES ARE FAR FROM NORMAL, and Student's t promises too much then: see --bound any."
    return lines


def _share(mean: float, low: float, high: float) -> str:
    return f"{mean:.1%} ({max(low, 0):.0%}-{min(high, 1):.0%})"


def _of_bounds(name: str, target: Target, header: Header) -> list[str]:
    """What is bounded for a case, or why not."""
    level, enough = header.coverage, least_patients(header.coverage)
    finite = [key for key, factor in target.bounds.items() if factor < float("inf")]
    if not finite:
        return [
            f"  No bound of a case's own error: a {level:.0%} bound needs at least {enough} patients (n / (n + 1) must "
            f"reach {level:g}), found {header.patients}."
        ]
    means = [key for key in finite if key != "mae"]
    also = f" and the error of its mean in {', '.join(means)}" if means else ""
    return [
        f"  Of each new case, synth writes into provenance.json (bounds) what its body's MAE{also} exceed with "
        f"a probability of {1 - level:.0%} at most."
    ]
