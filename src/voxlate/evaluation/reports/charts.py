"""Charts of a report: curves of a training, and scores of patients and regions."""

import base64
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pandas import DataFrame, Series

from voxlate.base.array_types import AnyArray
from voxlate.evaluation.scoring.scores import Scores
from voxlate.training.verdict import SYNTHESIS, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 560, 280  # pixels of a chart
POINTS = 100  # of a curve, so that noise of single steps does not hide its course
# They are seen on the light and on the dark page.
COLOURS = ("#1f9aa0", "#d9762f", "#7f7bd6", "#b3a02c", "#c85f8e", "#7aa552")
FAINT = "#8a949e"
DASHED: dict[str, Any] = {"color": FAINT, "linewidth": 1, "linestyle": (0, (4, 4))}
LIMITS = 1.96  # standard deviations of the differences: limits of agreement, Bland and Altman 1986
FEWEST = 3  # patients or cases of a chart

Chart = dict[str, Any]  # its title, the name of each colour, and its picture


def curve_chart(curves: Sequence[Series], title: str) -> Chart:
    """A chart with a line for each curve over steps, on a log scale if positive values span more than a decade.

    A point of a long curve is the mean of neighbouring steps.
    """
    chart, axes = _empty_chart()
    for number, curve in enumerate(curves):
        steps, values = (_thin(axis.to_numpy()) for axis in (curve.index, curve))
        axes.plot(steps, values, color=_colour(number), linewidth=2)
    low, high = axes.dataLim.intervaly
    axes.margins(x=0, y=0.08)
    if low > 0 and high / low > 10:
        axes.set_yscale("log")
    return _drawn(chart, title, [f"{curve.name}, last {curve.iloc[-1]:.4g}" for curve in curves])


def score_charts(scores: Scores) -> list[Chart]:
    """Charts of each section: errors of patients, agreement of the means of regions, and coverage by region."""
    charts = []
    for verdict in scores.verdicts:
        charts += [
            *_patients(verdict, scores),
            *_agreement(verdict, scores),
            *_coverage(verdict.modality, scores),
        ]
    return charts


def _patients(verdict: Verdict, scores: Scores) -> Iterator[Chart]:
    """The MAE of each patient over that of the best naive baseline; below the diagonal the synthesis is the better one."""
    errors = scores.errors(verdict.modality)
    naive = errors.get(str(verdict.baseline), {})
    both = DataFrame({"naive": naive, "ours": errors.get(SYNTHESIS, {})}).dropna()
    means = both.groupby(scores.patients.__getitem__).mean()
    if len(means) < FEWEST:
        return
    chart, axes = _empty_chart()
    axes.plot(means["naive"], means["ours"], "o", color=_colour(0), markersize=7)
    ends = [means.to_numpy().min(), means.to_numpy().max()]
    axes.plot(ends, ends, **DASHED)
    title = (
        f"{verdict.modality}: MAE of each patient ({verdict.unit}) over that of {verdict.baseline}"
    )
    yield _drawn(chart, title, ["synthesis; dashed: equal errors"])


def _agreement(verdict: Verdict, scores: Scores) -> Iterator[Chart]:
    """Bland and Altman's plot of the mean value of each region: image − truth over the mean of both, a point a case."""
    table = scores.by_case(verdict.modality)
    chart, axes = _empty_chart()
    names = list[str]()
    for region in scores.header.get("regions", ()):
        keys = [f"{region}.mean", f"{region}.truth_mean"]
        ours, truth = table.reindex(columns=keys).dropna().to_numpy().T
        if len(ours) < FEWEST:
            continue
        difference = ours - truth
        axes.plot((ours + truth) / 2, difference, "o", color=_colour(len(names)), markersize=6)
        bias = float(difference.mean())
        half = LIMITS * float(difference.std(ddof=1))
        limits = f"limits {bias - half:+.3g} to {bias + half:+.3g}"
        names.append(f"{region.replace('_', ' ')}: bias {bias:+.3g}, {limits}")
    if names:
        axes.axhline(0, **DASHED)
        title = f"{verdict.modality}: Bland–Altman of region means ({verdict.unit}), image − truth over their mean"
        yield _drawn(chart, title, names)


def _coverage(name: str, scores: Scores) -> Iterator[Chart]:
    """The coverage of the intervals in the body and in each region, with its 95 % interval, beside the nominal one."""
    nominal = scores.header.get("nominal_coverage")
    means = scores.means[name].get(SYNTHESIS, {})
    keys = {"all voxels": "coverage"}
    for region in scores.header.get("regions", ()):
        keys[region.replace("_", " ")] = f"{region}.coverage"
    shown = {region: means[key] for region, key in keys.items() if means.get(key, {}).get("n")}
    if not nominal or not shown:
        return
    chart, axes = _empty_chart()
    for place, value in enumerate(shown.values()):
        ends = np.array(value["ci95"] or [value["mean"]])
        axes.plot([place] * len(ends), 100 * ends, color=_colour(0), linewidth=2)
        axes.plot(place, 100 * value["mean"], "o", color=_colour(0), markersize=7)
    axes.axhline(100 * nominal, **DASHED)
    axes.margins(x=0.08)
    axes.set_xticks(range(len(shown)), [*shown])
    title = f"{name}: share of voxels within the intervals (%), by tissue"
    yield _drawn(chart, title, [f"mean and 95 % interval; dashed: nominal {nominal:.0%}"])


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _empty_chart() -> "tuple[Figure, Axes]":
    """A chart without a frame."""
    from matplotlib.figure import Figure  # slow to import, and only needed where there are charts

    chart = Figure(figsize=(WIDTH / 72, HEIGHT / 72), layout="constrained")
    axes = chart.add_subplot(frame_on=False)
    axes.tick_params(length=0, colors=FAINT, labelsize=12)
    axes.grid(axis="y", color=FAINT, alpha=0.3, linewidth=1)
    return chart, axes


def _drawn(chart: "Figure", title: str, names: Sequence[str]) -> Chart:
    """A chart for the page: an SVG as an image, in which nothing of the page's own style holds."""
    from matplotlib import rc_context

    file = io.BytesIO()
    # names of markers are drawn at random without a salt, and one report would differ from the next
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        chart.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    content = base64.b64encode(file.getvalue()).decode()
    lines = [(name, _colour(number)) for number, name in enumerate(names)]
    return {"title": title, "lines": lines, "uri": f"data:image/svg+xml;base64,{content}"}


def _thin(values: AnyArray) -> AnyArray:
    """At most POINTS means of neighbouring values."""
    return np.array([part.mean() for part in np.array_split(values, min(POINTS, len(values)))])
