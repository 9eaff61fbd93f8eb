"""Whether the intensities of scans fit a model: those of a cohort the recipe's windows, of a scan the training's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxlate.base.codes import Grade
from voxlate.base.errors import BadInput, first_of
from voxlate.base.messages import Message, grade_of_distance, message
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.images.intensity import IntensityMap
from voxlate.scans.images.statistics import PERCENTILES, Distribution, Statistics

# Percentiles of a scan's foreground that are compared, in network units.
POINTS = (5, 25, 50, 75, 95)
MOST_BELOW = 0.2  # of a foreground under the floor; interpolation leaves a percent
MOST_VARIED = 3.0  # times the narrowest scale of a modality: beyond, the typical scale is a poor guess of a patient's
AIR_HU = -500.0  # at or below it, values are of air in a CT
OF_AIR = 5  # percentile of all voxels of a scan of the head; more of it is air
SOFT_TISSUE = 0.04  # of the median over air, from the first quarter of a body to its median: 0.01 to 0.02 in CT, 0.11 to 1 in 40 MR scans
BONE = 0.3  # of the same, by which the 95th percentile is above the median in CT: 0.84 or more
FEWEST_VALUES = 5  # different values among the percentiles of a scan: a label map has fewer
# Percentiles of a body: its largest vessels in a TOF, and its brightest other tissue.
VESSELS, TISSUE = 99.95, 95
# Of the first over the second: TOF has 2.25 or more (2 real scans, 13 phantoms). T1, T2, PD, FLAIR and SWI of whole heads
# have at most 1.75 (10 real heads, 13 phantoms), but T1 with contrast agent 1.94 to 2.36 (13 phantoms).
VESSELS_OF_TOF, VESSELS_OF_OTHERS = 2.1, 1.85
TOLERANCE = 0.15  # of the network's range of 2, beyond what the training cases span


def check_one_scale(headers: Sequence[CaseHeader], targets: Sequence[str], where: object) -> None:
    """Raise BadInput where some scans of a target are z-scored and others are not: images could have either scale."""
    for name in targets:
        shown = [header for header in headers if name in header.visible]
        shown = [header for header in shown if header.units[name] in ("a.u.", "grey")]
        signed = [header.case for header in shown if header.statistics[name].is_signed]
        if 0 < len(signed) < len(shown):
            raise BadInput(
                f"{where}: expected the scans of the target {name} on one scale, found {len(signed)} of {len(shown)} training cases z-scored ({first_of(signed, 3)}) and the others not, so that images would have neither scale. Give all one scale, or prepare the cohort without one kind (--exclude CASE)."
            )


def check_kind(name: str, unit: str, statistics: Statistics) -> list[Message]:
    """A message where a scan that is no CT has the values of one, or those of a label map."""
    if unit == "HU":
        return []
    everything = statistics.all
    if everything.at(OF_AIR) <= AIR_HU:
        value = everything.at(OF_AIR)
        text = f"{name}: {OF_AIR} % of the voxels are at {value:.4g} or below, as air is in a CT, while MR has no such values: is it a CT?"
        return [message("ct-values", text, value=value)]
    body = statistics.foreground
    over_air = body.at(50) - everything.at(OF_AIR)
    soft = body.at(50) - body.at(25)
    if soft < SOFT_TISSUE * over_air and body.at(95) - body.at(50) > BONE * over_air:
        text = f"{name}: a quarter of its body lies within {soft / over_air:.0%} below its median, and 5 % are far brighter, as soft tissue and bone in a shifted or scaled CT: is it a CT?"
        return [message("ct-values", text, share=soft / over_air)]
    values = sorted(set(everything.percentiles))
    if len(values) < FEWEST_VALUES:
        found = ", ".join(f"{value:.4g}" for value in values)
        text = f"{name}: almost all voxels have one of the values {found}, as those of a mask or label map have: is it a scan?"
        return [message("label-values", text)]
    return []


def check_vessels(name: str, statistics: Statistics) -> list[Message]:
    """A message where a scan that is taken as a TOF lacks its few vessels, which are far brighter than all tissue."""
    air = statistics.all.at(OF_AIR)
    vessels, tissue = (statistics.foreground.at(point) - air for point in (VESSELS, TISSUE))
    if vessels >= VESSELS_OF_TOF * tissue:
        return []
    ratio = vessels / tissue
    text = f"{name}: its brightest vessels are {ratio:.2f} times as bright as its tissue, those of a TOF {VESSELS_OF_TOF:g} times or more: is it another contrast, or does it show no large vessel?"
    grade: Grade = "do not trust" if ratio < VESSELS_OF_OTHERS else "caution"
    return [message("no-vessels", text, grade=grade, ratio=ratio)]


def check_floor(name: str, spec: IntensityMap, header: CaseHeader, where: str) -> None:
    """Raise BadInput where much of a scan is below the floor of its intensity map, and would become background."""
    floor = spec.floor
    if floor is None or name not in header.statistics:
        return
    below = share_outside(header.statistics[name].foreground, floor, np.inf)
    if below > MOST_BELOW:
        raise BadInput(
            f"{where}: expected {name} to be above {floor:g} (intensity.{name}.floor), found {below:.0%} of its foreground below: is it z-scored, or a CT? Take the original scan, leave the case out, or train with an intensity.{name} without a floor."
        )


def share_outside(values: Distribution, low: float, high: float) -> float:
    """The share of a distribution below low or above high."""
    below, above = np.interp([low, high], values.percentiles, PERCENTILES, left=0, right=100)
    return float(below if values.percentiles[0] < low else 0) / 100 + float(100 - above) / 100


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
            ranges[name] = {"low": points.min(axis=0).tolist(), "high": points.max(axis=0).tolist()}
    return ranges


def check_brightness(
    name: str,
    statistics: Statistics,
    spec: IntensityMap,
    ranges: Mapping[str, Any],
) -> list[Message]:
    """A message where a scan's statistics are outside the training cohort's range."""
    if name not in ranges:
        return []
    values = np.array([_points(statistics, spec), ranges[name]["low"], ranges[name]["high"]])
    own, lows, highs = values.clip(-1, 1)  # as network input
    beyond = np.maximum(lows - own, own - highs)
    worst = int(beyond.argmax())
    times = float(beyond[worst] / (TOLERANCE + (highs - lows)[worst] / 2))
    if times <= 1:
        return []
    scale = spec.scale(statistics)
    value, least, most = (float(scale.inverse(point)) for point in values[:, worst])
    text = f"{name}: its brightness is outside that of the training's scans: the {POINTS[worst]}th percentile of its body is {value:.4g}, theirs {least:.4g} to {most:.4g} on the same scale."
    grade = grade_of_distance(times)
    return [
        message("brightness", text, grade=grade, times=times, value=value, least=least, most=most)
    ]


def check_scales(name: str, widths: Sequence[float]) -> list[Message]:
    """A message where the widths of a modality's scale in the training cases differ by over MOST_VARIED."""
    if not widths or max(widths) <= MOST_VARIED * min(widths):
        return []
    text = f"{name}: its scale was {min(widths):.4g} to {max(widths):.4g} wide in the training cases, by scanner or gain; images take the median, so that their overall brightness is a guess."
    return [message("varied-scale", text, least=min(widths), most=max(widths))]


def _points(statistics: Statistics, spec: IntensityMap) -> list[float]:
    scale = spec.scale(statistics)
    width = max(scale.high - scale.low, 1e-37)
    return [2 * (statistics.foreground.at(point) - scale.low) / width - 1 for point in POINTS]
