"""Whether scans have the scale that a model is made for: a cohort the recipe's windows, a scan the training's range."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxlate.data.case import CaseHeader
from voxlate.data.grades import advice
from voxlate.errors import BadInput
from voxlate.images.intensity import IntensityMap
from voxlate.images.statistics import PERCENTILES, Distribution, Statistics

POINTS = (5, 25, 50, 75, 95)  # percentiles of a scan's foreground that are compared, in network units
NARROWEST = 0.02  # share of a window that the middle 98 % of a body must fill: in other units it is a flat grey
MOST_BELOW = 0.2  # of a foreground under the floor; interpolation leaves a percent
MOST_VARIED = 3.0  # times the narrowest scale of a modality: beyond, the typical one says little of a patient's own
TOLERANCE = 0.15  # of the network's range of 2, beyond what the training cases span


def check_windows(
    headers: Sequence[CaseHeader], intensity: Mapping[str, IntensityMap], where: object, bodies: bool = True
) -> None:
    """Raise BadInput where a recipe's window clips or flattens what it is given; medians over the training cases.

    Each volume by itself where its map has a floor: one below it (z-scored, say) would lose all that lies there.
    bodies: whether more of them counts than a mask, whose statistics are not known here.
    """
    for name, spec in intensity.items():
        found = [header.statistics[name].foreground for header in headers if name in header.statistics]
        for header in headers:
            check_floor(name, spec, header, f"{where}: {header.case}")
        if spec.window is None or not found:
            continue
        low, high = spec.window
        clipped = float(np.median([_clipped(one, low, high) for one in found]))
        width = float(np.median([min(one.at(99), high) - max(one.at(1), low) for one in found])) / (high - low)
        seen = f"{np.median([one.at(1) for one in found]):.4g} to {np.median([one.at(99) for one in found]):.4g}"
        window = f"the window {low:g} to {high:g} of intensity.{name}"
        if bodies and clipped > spec.clips:
            raise BadInput(
                f"{where}: expected {window} to hold the scans' bodies ({seen} from the 1st to the 99th percentile), "
                f"found {clipped:.0%} of their voxels outside, of at most {spec.clips:.0%}. Are the scans in the "
                f"recipe's unit? Change the window, or intensity.{name}.clips if it is meant."
            )
        if width < NARROWEST:
            raise BadInput(
                f"{where}: expected the scans' bodies to fill {window}, found {max(width, 0):.1%} filled ({seen}): "
                "are the scans in the recipe's unit? Change the window."
            )


def check_floor(name: str, spec: IntensityMap, header: CaseHeader, where: str) -> None:
    """Raise BadInput where much of a scan lies below the floor of its intensity map, and would be background."""
    floor = spec.floor
    if floor is None or name not in header.statistics:
        return
    below = _clipped(header.statistics[name].foreground, floor, np.inf)
    if below > MOST_BELOW:
        raise BadInput(
            f"{where}: expected {name} to lie above {floor:g} (intensity.{name}.floor), found {below:.0%} of its "
            "foreground below: is it z-scored, or a CT? Take the scan as it was before, leave the case out, or train "
            f"with an intensity.{name} without a floor."
        )


def _clipped(one: Distribution, low: float, high: float) -> float:
    """The share of a distribution below low or above high."""
    below, above = np.interp([low, high], one.percentiles, PERCENTILES, left=0, right=100)
    return float(below if one.percentiles[0] < low else 0) / 100 + float(100 - above) / 100


def training_ranges(headers: Sequence[CaseHeader], intensity: Mapping[str, IntensityMap]) -> dict[str, Any]:
    """What POINTS span over training cases, by modality, in network units: {"t1": {"low": [...], "high": [...]}}."""
    ranges = {}
    for name, spec in intensity.items():
        points = [_points(header.statistics[name], spec) for header in headers if name in header.statistics]
        if points:
            ranges[name] = {"low": np.min(points, axis=0).tolist(), "high": np.max(points, axis=0).tolist()}
    return ranges


def unfamiliar(name: str, statistics: Statistics, spec: IntensityMap, ranges: Mapping[str, Any]) -> str:
    """A sentence where a scan's statistics lie outside the training cohort's; '' where they do not."""
    if name not in ranges:
        return ""
    low, high = np.array(ranges[name]["low"]), np.array(ranges[name]["high"])
    here = np.array(_points(statistics, spec))
    lows, highs, own = (one.clip(-1, 1) for one in (low, high, here))  # as networks see them
    beyond = np.maximum(lows - own, own - highs)
    worst = int(beyond.argmax())
    times = float(beyond[worst] / (TOLERANCE + (highs - lows)[worst] / 2))
    if times <= 1:
        return ""
    scale = spec.scale(statistics)
    value, least, most = (float(scale.inverse(one)) for one in np.array([here, low, high])[:, worst])
    return (
        f"{name}: the {POINTS[worst]}th percentile of its foreground is {value:.4g}, where that of the training cases "
        f"was {least:.4g} to {most:.4g} on the same scale, so {times:.1f} times as far outside as is tolerated: "
        f"another scanner, unit or part of the body? {advice(times)}"
    )


def varied_level(name: str, widths: Sequence[float]) -> str:
    """A sentence where the widths of a modality's scale in the training cases differ by over MOST_VARIED; else ''."""
    if not widths or max(widths) <= MOST_VARIED * min(widths):
        return ""
    return (
        f"{name}: its scale was {min(widths):.4g} to {max(widths):.4g} wide in the training cases, by scanner or gain; "
        "images take the median, so that their overall brightness is a guess."
    )


def _points(statistics: Statistics, spec: IntensityMap) -> list[float]:
    scale = spec.scale(statistics)
    width = max(scale.high - scale.low, 1e-37)
    return [2 * (statistics.foreground.at(point) - scale.low) / width - 1 for point in POINTS]
