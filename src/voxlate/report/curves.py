"""Training curves as inline SVG that takes its colours from the page."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 34
POINTS = 400  # more than a curve has pixels


@dataclass(frozen=True)
class Curve:
    """One quantity over training steps."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


def curves_of(log: Path) -> dict[tuple[str, str], list[Curve]]:
    """The curves in a log.jsonl by (stage, group): "loss", "validation", "lr", "items_per_s"; broken lines left out."""
    found: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for line in _lines(log):
        step = line.get("step")
        if not isinstance(step, (int, float)):
            continue
        turn = line.get("turn")
        for group in ("loss", "validation", "lr", "items_per_s"):
            for name, value in _numbers(line.get(group), group):
                label = f"{turn}: {name}" if group == "loss" and turn not in (None, "net") else name
                found.setdefault((str(line.get("stage", "")), group), {}).setdefault(label, []).append(
                    (float(step), value)
                )
    return {key: [_curve(name, points) for name, points in curves.items()] for key, curves in found.items()}


def svg(curves: Sequence[Curve], label: str, smooth: bool = False) -> str:
    """One chart: a line a curve, log scale where the values span more than a decade and are positive.

    smooth: draw the raw values faint and their running mean over 1/40 of the points on top.
    """
    values = [value for curve in curves for value in curve.values]
    low, high, log = _extent(values)
    last = max(curve.steps[-1] for curve in curves)
    first = min(curve.steps[0] for curve in curves)

    def x(step: float) -> float:
        return LEFT + (step - first) / max(last - first, 1e-9) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        part = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        return HEIGHT - BOTTOM - min(max(part, 0.0), 1.0) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label} over training steps">']
    for tick in log_ticks(low, high) if log else ticks(low, high):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{short(tick)}</text>')
    for tick in ticks(first, last):
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{HEIGHT - 14}" text-anchor="middle">{short(tick)}</text>'
        )
    for number, curve in enumerate(curves):
        for kind, line in _lines_of(curve, smooth):
            points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in line)
            parts.append(f'<polyline class="{kind} c{number % 6}" points="{points}"/>')
    return "".join(parts) + "</svg>"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between low and high."""
    rough = (high - low) / about
    if not rough > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    start = math.ceil(low / step - 1e-9)
    return [number * step for number in range(start, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between low and high; fewer where they would crowd."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 200 else (1,)
    return [factor * 10.0**power for power in decades for factor in factors if low <= factor * 10.0**power <= high]


def short(value: float) -> str:
    """A number for an axis: 12k, 0.05, 3e-05."""
    if abs(value) >= 1000:
        return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1000:g}k"
    return f"{value:.3g}"


def _lines(log: Path) -> Iterable[Mapping[str, Any]]:
    if not log.is_file():
        return
    for text in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:  # a killed run may end in half a line
            continue
        if isinstance(line, dict):
            yield line


def _numbers(value: Any, name: str) -> Iterable[tuple[str, float]]:
    items = value.items() if isinstance(value, dict) else [(name, value)]
    for key, number in items:
        if isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number):
            yield str(key), float(number)


def _curve(name: str, points: list[tuple[float, float]]) -> Curve:
    latest = dict(points)  # a resumed run writes some steps twice; the later line counts
    steps = sorted(latest)
    return Curve(name, tuple(steps), tuple(latest[step] for step in steps))


def _extent(values: Sequence[float]) -> tuple[float, float, bool]:
    low, high = min(values), max(values)
    if low > 0 and high / low > 10:
        return low / 1.1, high * 1.1, True
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin, False


def _lines_of(curve: Curve, smooth: bool) -> list[tuple[str, list[tuple[float, float]]]]:
    steps, values = _thinned(np.array(curve.steps)), _thinned(np.array(curve.values))
    raw = list(zip(steps.tolist(), values.tolist()))
    width = len(values) // 40
    if not smooth or width < 2:
        return [("line", raw)]
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    mean = (sums[ends] - sums[starts]) / (ends - starts)
    return [("raw", raw), ("line", list(zip(steps.tolist(), mean.tolist())))]


def _thinned(values: np.ndarray) -> np.ndarray:
    """At most POINTS means of neighbouring values."""
    if len(values) <= POINTS:
        return values
    return np.array([part.mean() for part in np.array_split(values, POINTS)])
