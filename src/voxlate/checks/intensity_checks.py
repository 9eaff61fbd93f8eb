"""Whether the intensities of scans fit a model: those of a cohort the recipe's windows, of a scan the training's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxlate.base.array_types import Float32
from voxlate.base.errors import BadInput, first_of
from voxlate.base.messages import Message
from voxlate.checks.check_table import Measured, Numbers, ask
from voxlate.checks.thumbnail import coarse
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import IntensityMap
from voxlate.scans.images.volume_statistics import PERCENTILES, Distribution, Statistics

# Percentiles of a scan's foreground that are compared, in network units.
POINTS = (5, 25, 50, 75, 95)
MOST_BELOW = 0.2  # of a foreground under the floor; interpolation leaves a percent
AIR_BELOW_HU = -500.0  # at or below it, values are of air in a CT
OF_AIR = 5  # percentile of all voxels of a scan of the head; more of it is air
MOST_NAMED = 5  # cases that an error names for --exclude
NARROWEST = (
    0.02  # share of a window that the middle 98 % of bodies fill: in other units it is a flat grey
)
TOLERANCE = 0.15  # of the network's range of 2, beyond what the training cases span


def check_one_scale(headers: Sequence[CaseHeader], targets: Sequence[str], where: object) -> None:
    """Raise BadInput where some scans of a target are z-scored and others are not: images could have either scale."""
    for name in targets:
        scans = (header for header in headers if name in header.visible)
        shown = [header for header in scans if header.units[name] in ("a.u.", "grey")]
        signed = [header.case for header in shown if header.statistics[name].is_signed]
        if 0 < len(signed) < len(shown):
            others = [header.case for header in shown if header.case not in signed]
            fewer = min(signed, others, key=len)
            named = fewer if len(fewer) <= MOST_NAMED else ["CASE"]
            options = " ".join(f"--exclude {case}" for case in named)
            raise BadInput(
                f"{where}: expected the scans of the target {name} on one scale, found {len(signed)} of {len(shown)} training cases z-scored ({first_of(signed, 3)}) and the others not, so that images would have neither scale. Give all one scale, or prepare the cohort without one kind ({options}) into another --out."
            )


def check_kind(name: str, unit: str, statistics: Statistics) -> list[Message]:
    """A message where a scan that is no CT has the values of one, or those of a label map."""
    return [] if unit == "HU" else ask("values", values_of(statistics), name)


def values_of(statistics: Statistics) -> Numbers:
    """Numbers of a scan's values: see `values` in limits.toml."""
    everything = statistics.all
    body = statistics.foreground
    air = everything.at(OF_AIR)
    median = body.at(50)
    numbers: Measured = {
        "dark": air,
        "values": len(set(everything.percentiles)),
        "low": everything.at(0),
        "high": everything.at(100),
    }
    if median > air:
        numbers["soft"] = (median - body.at(25)) / (median - air)
        numbers["bone"] = (body.at(95) - median) / (median - air)
    return numbers


def check_floor(name: str, spec: IntensityMap, header: CaseHeader, where: str) -> None:
    """Raise BadInput where much of a scan is below the floor of its intensity map, and would become background."""
    floor = spec.floor
    if floor is None or name not in header.statistics:
        return
    below = _share_below(header.statistics[name].foreground, floor)
    if below > MOST_BELOW:
        raise BadInput(
            f"{where}: expected {name} to be above {floor:g} (intensity.{name}.floor), found {below:.0%} of its foreground below: is it z-scored, inverted, or a CT? Take the scan from before, or raise its values so that air is {floor:g} and tissue above; a training may also leave the case out, or take an intensity.{name} without a floor."
        )


def check_filled(
    name: str, spec: IntensityMap, headers: Sequence[CaseHeader], where: object
) -> None:
    """Raise BadInput where bodies fill next to nothing of a window, as scans in another unit than the recipe's do."""
    bodies = [header.statistics[name].foreground for header in headers if name in header.statistics]
    if spec.window is None or not bodies:
        return
    low, high = spec.window
    firsts = [body.at(1) for body in bodies]
    lasts = [body.at(99) for body in bodies]
    widths = [min(last, high) - max(first, low) for first, last in zip(firsts, lasts)]
    filled = float(np.median(widths)) / (high - low)
    if filled < NARROWEST:
        raise BadInput(
            f"{where}: expected the scans' bodies to fill the window {low:g} to {high:g} of intensity.{name}, found {max(filled, 0):.1%} filled ({np.median(firsts):.4g} to {np.median(lasts):.4g}): are the scans in the recipe's unit? Change the window."
        )


def _share_below(values: Distribution, floor: float) -> float:
    """The share of a distribution below a value."""
    if values.percentiles[0] >= floor:
        return 0.0
    return float(np.interp(floor, values.percentiles, PERCENTILES, right=100)) / 100


def training_ranges(
    headers: Sequence[CaseHeader],
    intensity: Mapping[str, IntensityMap],
) -> dict[str, Any]:
    """The range of POINTS over training cases, by modality, in network units: {"t1": {"low": [...], "high": [...]}}."""
    ranges = {}
    for name, spec in intensity.items():
        having = [header.statistics[name] for header in headers if name in header.statistics]
        points = np.array([_points(statistics, spec) for statistics in having])
        if points.size:
            ranges[name] = {"low": points.min(0).tolist(), "high": points.max(0).tolist()}
    return ranges


def check_brightness(
    name: str,
    statistics: Statistics,
    spec: IntensityMap,
    ranges: Mapping[str, Any],
    patients: float,
) -> list[Message]:
    """A message where a scan's statistics are outside the range of a training of so many patients."""
    if name not in ranges:
        return []
    values = np.array([_points(statistics, spec), ranges[name]["low"], ranges[name]["high"]])
    own, lows, highs = values.clip(-1, 1)  # as network input
    beyond = np.maximum(lows - own, own - highs)
    worst = int(beyond.argmax())
    scale = spec.scale(statistics)
    value, least, most = (float(scale.inverse(point)) for point in values[:, worst])
    times = float(beyond[worst] / (TOLERANCE + (highs - lows)[worst] / 2))
    numbers: Numbers = {
        "times": times,
        "value": value,
        "least": least,
        "most": most,
        "patients": patients,
        "point": f"{POINTS[worst]}",
    }
    return ask("brightness", numbers, name)


def check_scales(name: str, widths: Sequence[float]) -> list[Message]:
    """A message where the widths of a modality's scale in the training cases differ much."""
    if not widths:
        return []
    return ask("scales", {"ratio": max(widths) / max(min(widths), 1e-37)}, name)


def _points(statistics: Statistics, spec: IntensityMap) -> list[float]:
    scale = spec.scale(statistics)
    width = max(scale.high - scale.low, 1e-37)
    return [2 * (statistics.foreground.at(point) - scale.low) / width - 1 for point in POINTS]


def tissue_of_ct(ct: Volume) -> dict[str, float]:
    """Numbers of the tissue of a CT: see `tissue` in limits.toml."""
    hu, _ = coarse(ct.data[0])
    high = float(hu.max())
    return {
        "ct": 1.0,
        "high": high,
        "clipped": float(np.percentile(hu, 99.9) == high),
        **tissue_numbers(hu),
    }


def tissue_numbers(hu: Float32) -> dict[str, float]:
    """Around which HU most of fat and soft tissue lies (tissue), and up to which a quarter as much (tissue_top)."""
    counts, edges = np.histogram(hu[hu != 0], np.arange(-800, 801, 10))  # 0 may be padding
    counts = np.convolve(counts, np.ones(5), "same")
    if not counts.any():
        return {}
    middles = edges[:-1] + 5
    top = middles[counts >= counts.max() / 4].max()
    return {"tissue": float(middles[counts.argmax()]), "tissue_top": float(top)}
