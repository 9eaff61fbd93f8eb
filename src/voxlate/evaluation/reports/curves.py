"""Training curves and planes of two scores as SVG in the page's own colours."""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from markupsafe import Markup

from voxlate.base.array_types import AnyArray
from voxlate.training.log_file import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 560  # pixels of a chart
POINTS = 400  # a curve has fewer pixels
STEPS = [1, 2, 2.5, 5, 10]  # allowed distances of ticks
# These placeholders become the page's CSS variables, which differ between its light and dark mode.
COLOURS = {f"#0000c{n}": f"--c{n}" for n in range(6)}
FAINT, RULE = "#0000d0", "#0000d1"
COLOURS |= {FAINT: "--faint", RULE: "--rule"}


def curve_chart(curves: Sequence[Curve], label: str) -> Markup:
    """A chart with a line for each curve, on a log scale if positive values span more than a decade.

    Long curves have the raw values in a faint colour, and their running mean over 1/40 of the points on top.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    chart, axes = _empty_chart(260, right=14)
    for number, curve in enumerate(curves):
        colour = f"#0000c{number % 6}"
        steps = _thin(np.array(curve.steps))
        values = _thin(np.array(curve.values))
        span = len(values) // 40
        if span > 1:
            axes.plot(steps, values, color=colour, alpha=0.28, linewidth=1)
            steps = steps[span - 1 :]
            values = np.convolve(values, np.full(span, 1 / span), "valid")
        axes.plot(steps, values, color=colour, linewidth=2, solid_joinstyle="round")
    low, high = axes.dataLim.intervaly
    axes.margins(x=0, y=0.08)
    if low > 0 and high / low > 10:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 200 else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
        if low >= 0:
            axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    return _svg(chart, axes, f"{label} over training steps")


class Point(NamedTuple):
    """A method in the plane of two scores; label: its setting, "" if it stands alone."""

    x: float
    y: float
    label: str = ""


def plane_chart(curves: Sequence[Sequence[Point]], label: str, ideal: float) -> Markup:
    """A chart with a point for each method, joined along a curve, and a dashed line at the score of the truth."""
    from matplotlib.ticker import MaxNLocator

    chart, axes = _empty_chart(300, right=52)  # room for labels
    for number, curve in enumerate(curves):
        colour = f"#0000c{number % 6}"
        xs = [point.x for point in curve]
        ys = [point.y for point in curve]
        axes.plot(xs, ys, color=colour, linewidth=2, marker="o", markersize=6)
        for point in curve:
            _write_beside(axes, point.label, (point.x, point.y), colour)
    axes.axhline(ideal, color=FAINT, linewidth=1, linestyle=(0, (4, 4)))
    axes.margins(x=0.06, y=0.1)
    _write_beside(axes, f"ideal: {ideal:g}", (axes.get_xlim()[0], ideal), FAINT)
    for axis in axes.xaxis, axes.yaxis:
        axis.set_major_locator(MaxNLocator(5, steps=STEPS))
    return _svg(chart, axes, label)


def _empty_chart(height: int, right: int) -> "tuple[Figure, Axes]":
    """A chart of so many pixels without a frame, with this margin on the right."""
    from matplotlib.figure import Figure  # slow to import, and only needed where there are curves

    chart = Figure(figsize=(WIDTH / 72, height / 72))
    box = (58 / WIDTH, 34 / height, 1 - (58 + right) / WIDTH, 1 - 48 / height)
    axes = chart.add_axes(box, frame_on=False)
    axes.tick_params(length=0, colors=FAINT, labelsize=12)
    return chart, axes


def _write_beside(axes: "Axes", text: str, place: tuple[float, float], colour: str) -> None:
    axes.annotate(text, place, xytext=(8, 5), textcoords="offset points", color=colour, fontsize=11)


def short(value: float) -> str:
    """A number for an axis, such as 12k, 0.05, 3e-05."""
    if abs(value) >= 1000:
        return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1000:g}k"
    return f"{value:.3g}"


def _svg(chart: "Figure", axes: "Axes", label: str) -> Markup:
    """An SVG for the page with a grid and short numbers, without style sheet and clip paths, in the page's colours."""
    from matplotlib import rc_context, ticker

    axes.grid(axis="y", color=RULE, linewidth=1)
    for axis in axes.xaxis, axes.yaxis:
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: short(value)))
    file = io.StringIO()
    # names of markers are drawn at random without a salt, and one report would differ from the next
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        chart.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    sheets = r"<metadata>.*?</metadata>|<defs>\s*<(style|clipPath).*?</defs>|<!--.*?-->"
    body = re.sub(rf'{sheets}| (clip-path|id)="[a-z]+[_.(][^"]*"', "", body, flags=re.S)
    for drawn, name in COLOURS.items():
        body = body.replace(drawn, f"var({name})")
    width, height = (round(72 * size) for size in chart.get_size_inches())
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        width, height, label
    )
    return head + Markup(body)  # matplotlib has escaped the texts in it


def _thin(values: AnyArray) -> AnyArray:
    """At most POINTS means of neighbouring values."""
    return np.array([part.mean() for part in np.array_split(values, min(POINTS, len(values)))])
