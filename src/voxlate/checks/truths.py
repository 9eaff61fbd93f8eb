"""Whether truths can be those of their images: the unit, the place, the values and the patient of each.

A truth is doubted by the rows that a cohort's scans are asked (limits.toml): by its own values, by its source, and by the
other truths, never by the error of its image alone: a bad model is no reason to doubt a truth. Where the image shows the
same, as after a training on such truths, nothing is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.linalg import norm
from scipy import ndimage

from voxlate.base.array_types import Bool, Float32, Float64
from voxlate.base.errors import first_of, plural
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, codes, message
from voxlate.base.slabs import least_and_most
from voxlate.checks.check_table import Kind, Measured, ask
from voxlate.checks.cohort_outliers import finding_messages
from voxlate.checks.pairs import Pairs, Scans
from voxlate.checks.quality_checks import slice_numbers
from voxlate.checks.scan_numbers import (
    TINY,
    numbers_of,
    odd_scans,
    soft_and_background,
)
from voxlate.checks.thumbnail import best_flip, coarse, pair_similarity, thumbnails, unit
from voxlate.scans.images.grid import Grid, Volume, canonical_view
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.units import SHOW_ANATOMY
from voxlate.scans.images.volume_statistics import Statistics, distribution

LEFT_OUT = "It is left out; --any-truth keeps it."
KEPT = "It counts all the same (--any-truth)."
NO_AIR_HU = -500.0  # air is below, all tissue but lung above
DARK = 10.0  # percentile of a truth, below which is air wherever the scan has any
FILLED = 0.25  # of the largest plane of a body: ends of it are not looked at
EMPTIED = 0.1  # of a body's plane, below which a truth has none there
# Similarity, below which there is none: noise has 0.001, CTs of a mirrored phantom 0.07.
OF_NOISE = 0.01
REACH = 2  # cells by which an image is moved against its truth
IN_COMMON = 0.5  # correlation, from which it says where an image lies
NEARLY_ALL = (0.1, 0.9)  # quantiles of cases
AS_IT_LIES = 1.1  # times, from which an image fits a truth better than a turned one
# Values beyond are no tissue and no air; larger metal objects are not in patients.
PADDED_HU = -1100.0, 4095.0
BLURS = 0.0, 0.3, 0.4, 0.5, 0.6, 0.8  # standard deviations in cells: a copy may have been smoothed
FEWEST_SLICES = 8  # below, truths are pictures or a few slices
# Times by which the field of view of a truth may be longer than that of its image, and where both have as many voxels.
OTHER_SIZE, OTHER_VOXELS = 20.0, 1.2
BRIGHT = 99.5  # percentile of the values of a truth and of its image


@dataclass(frozen=True, eq=False)
class Sketch:
    """A truth, its image and a source in few cells [D, H, W] of one grid, with what the truth's voxels show.

    image, source: NaN where they do not cover the truth; empty where there are none. spacing_mm, image_mm: [3] of the
    truth and of its image; cell_mm: [3] of cells; other_size: [1], see `other_size`; ends: [2], the lowest and the highest value of the truth;
    stack: the numbers of its slices, each [1].
    """

    truth: Float32
    image: Float32
    source: Float32
    spacing_mm: Float32
    image_mm: Float32
    cell_mm: Float32
    other_size: Float32
    ends: Float32
    stack: Mapping[str, Float64] = field(default_factory=dict)

    @property
    def statistics(self) -> Statistics:
        """The statistics of the truth, with its own ends."""
        everything = distribution(self.truth)
        low, high = self.ends.tolist()
        everything = replace(everything, percentiles=(low, *everything.percentiles[1:-1], high))
        return Statistics(everything, everything, (), ())

    @property
    def thumbnails(self) -> Scans:
        """The thumbnails of the truth, the image and the source that are there."""
        scans = {"truth": self.truth, "image": self.image, "source": self.source}
        arrays = {
            name: np.where(np.isfinite(scan), scan, np.nanmin(scan))
            for name, scan in scans.items()
            if np.isfinite(scan).any()
        }
        return thumbnails(arrays, "truth", self.cell_mm.tolist())


@dataclass(frozen=True)
class SketchedTruth:
    """The sketch of one truth: its patient, its unit, and that of its image.

    other: the case from whose scan the image was made, if not its own; foreign: whether other software made the image, so
    that the source is a scan beside the truth.
    """

    patient: str
    unit: str
    image_unit: str
    sketch: Sketch
    other: str = ""
    foreign: bool = False


@dataclass(frozen=True)
class Fault:
    """Why a truth cannot be that of its image; found: what was found, or nothing beyond the kind."""

    kind: Kind
    found: str


def sketch_of(
    truth: Volume,
    image: Float32 | None,
    source: Float32 | None,
    image_grid: Grid,
) -> Sketch:
    """The sketch of a truth.

    image, source: [D, H, W] on the truth's grid, NaN where they do not count; image_grid: the grid that the image has of
    its own.
    """
    values = truth.data[0]
    cells, steps = coarse(values)
    stack = slice_numbers(canonical_view(truth))
    nothing = np.zeros((0, 0, 0), np.float32)
    return Sketch(
        cells,
        nothing if image is None else coarse(image)[0],
        nothing if source is None else coarse(source)[0],
        np.array(truth.grid.spacing_mm, np.float32),
        np.array(image_grid.spacing_mm, np.float32),
        np.multiply(truth.grid.spacing_mm, steps).astype(np.float32),
        np.array([other_size(truth.grid, image_grid)], np.float32),
        np.array(least_and_most(values), np.float32),
        {name: np.array([number]) for name, number in stack.items()},
    )


def other_size(truth: Grid, image: Grid) -> float:
    """How many times as long as that of its image the field of view of a truth is, where it cannot be so, as in micrometres; else 0.

    By the mean sides of slices.
    """
    side, usual = (
        np.sqrt(np.prod(np.multiply(grid.shape, grid.spacing_mm)[1:])) for grid in (truth, image)
    )
    times = float(side / usual)
    most = OTHER_VOXELS if truth.shape == image.shape else OTHER_SIZE
    return 0.0 if 1 / most < times < most else times


def judge(
    truths: Mapping[str, SketchedTruth], name: str = "truth"
) -> tuple[dict[str, Fault], list[Message]]:
    """The truths of a modality that cannot be those of their images, with their faults; and messages on others."""
    faults = {label: fault for label, truth in truths.items() if (fault := _own_fault(truth))}
    compared = {label: truth for label, truth in truths.items() if label not in faults}
    scans = {label: truth.sketch.thumbnails for label, truth in compared.items()}
    numbers = {label: _numbers(truth, scans[label]) for label, truth in compared.items()}
    # a picture has little to compare, and a scan beside a truth may be the wrong one: the image must say the same
    doubtful = {
        label: truth
        for label, truth in compared.items()
        if truth.foreign or len(truth.sketch.truth) < FEWEST_SLICES
    }
    with_images = _pairs_of(doubtful, scans, "image", numbers)
    with_sources = _pairs_of(compared, scans, "source", numbers)
    findings = [*odd_scans({"truth": numbers})]
    named = {(finding.case, "truth") for finding in findings if finding.row.fault}
    of_image = {finding.case for finding in with_images.findings(named)}
    flips = {label: _flip(shown) for label, shown in scans.items() if "image" in shown}
    for finding in with_sources.findings(named):
        times, _ = flips.get(finding.case, (1.0, ""))
        # as its image, because training had the same difference
        lies_so = finding.code == "turned-scan" and AS_IT_LIES * times < 1
        if not lies_so and (finding.case not in doubtful or finding.case in of_image):
            findings.append(replace(finding, partner="source"))
    for finding in findings:
        if kind := finding.row.fault:
            faults[finding.case] = Fault(kind, finding.numbers)
    odd = [replace(finding, name=name) for finding in findings if finding.case not in faults]
    stacks = list[Message]()
    for label, truth in compared.items():
        slices = {key: number.item() for key, number in truth.sketch.stack.items()}
        for said in ask("order", slices, name):
            if said.grade == "do not trust":
                why = said.text.removesuffix(codes()[said.code].action).rstrip(" .")
                faults[label] = Fault("slices", why)
            else:
                stacks.append(said.on(label))
        stacks += [said.on(label) for said in ask("slices", slices, name)]
    # what nearly all have in common is no error of a single place
    offsets = {label: _offset_mm(compared[label].sketch) for label in flips}
    common_mm = np.clip(0, *np.quantile([*offsets.values()] or [np.zeros(3)], NEARLY_ALL, axis=0))
    rests = {label: numbers[label]["rest"] for label in flips}
    places = []
    for label, (times, how) in flips.items():
        if label in faults:
            continue
        sketch = compared[label].sketch
        others = [rest for other, rest in rests.items() if other != label and np.isfinite(rest)]
        placed: Measured = {
            **numbers[label],
            "cases": len(flips),
            "rest_times": rests[label] / max(np.median(others), TINY) if len(others) > 1 else 1.0,
            "flip": times,
            "how": how,
            "apart": float(norm(_away(sketch))),
            "offset": float(norm(common_mm / sketch.cell_mm)),
            "offset_mm": float(norm(common_mm)),
            "alone": float(norm((offsets[label] - common_mm) / sketch.cell_mm)),
            "alone_mm": float(norm(offsets[label] - common_mm)),
        }
        places += [said.on(label) for said in ask("place", placed, name)]
    return faults, [*finding_messages(odd, {name: len(truths)}), *stacks, *places]


def _pairs_of(
    truths: Mapping[str, SketchedTruth],
    scans: Mapping[str, Scans],
    of: Literal["source", "image"],
    numbers: Mapping[str, dict[str, float]],
) -> Pairs:
    """Truths beside their sources, or their images; what a pair shows of a truth is added to its numbers."""

    def of_pair(label: str) -> Scans:
        """The thumbnails of a truth, and of its source or image."""
        return {name: scan for name, scan in scans[label].items() if name in ("truth", of)}

    units = {truth.unit for truth in truths.values()}
    patients = {label: truth.patient for label, truth in truths.items()}
    unasked = (of, "truth") if "HU" in units else (of,)
    maps = () if units <= {*SHOW_ANATOMY} else ("truth",)
    pairs = Pairs(patients, "truth", of_pair, unasked, maps)
    for label in truths:
        numbers[label].update(pairs.measure(label, pairs.thumbnails(label)).get("truth", {}))
    return pairs


def _flip(scans: Scans) -> tuple[float, str]:
    """How many times as similar a truth and its image are after flips, and after which."""
    pair = scans["truth"], scans["image"]
    flipped, how = best_flip(*pair)
    return flipped / max(pair_similarity(*pair), OF_NOISE), how


def _own_fault(truth: SketchedTruth) -> Fault | None:
    """The fault that a truth shows by its size, its image and its unit."""
    sketch = truth.sketch
    if times := sketch.other_size.item():
        own, of_image = (
            "×".join(f"{mm:.3g}" for mm in side) for side in (sketch.spacing_mm, sketch.image_mm)
        )
        return Fault(
            "spacing",
            f"{own} mm and {of_image} mm (z, y, x), a field of view {times:.3g} times as long as that of the image",
        )
    if truth.other:
        return Fault("patient", f"an image that was made of the scan of {truth.other}")
    if truth.unit != truth.image_unit:
        return Fault("unit", f"{truth.unit} where its image is in {truth.image_unit}")
    return None


def _numbers(truth: SketchedTruth, scans: Scans) -> dict[str, float]:
    """The numbers of a truth, and those of its image at the same places: soft_image, background_image, dark_below.

    rest: the variation of the image's steps from column to column that the truth does not have, as a share of the truth's,
    where a blur of the image makes it least;
    filled: the share of the body in its source, or else its image, where it has a value of no tissue; empty_planes: the
    share of planes without it where the bodies of its image, and of a source, go on; dark_below: how far the image goes on below
    where the truth is darkest, and nowhere else; bright_above: how far above where the truth is brightest; differs: the
    largest difference of both, as a share of the truth's range.
    """
    sketch = truth.sketch
    mm = sketch.spacing_mm.tolist()
    scan = scans.get("truth")
    image = scans.get("image")
    source = scans.get("source", image)
    numbers = dict(numbers_of("", truth.unit, sketch.statistics, mm, scan, source))
    numbers["map"] = truth.unit not in SHOW_ANATOMY
    numbers["slices"] = len(sketch.truth)
    if scan is None:  # too small to show a body
        return numbers
    if source is not None:
        inside = scan.values[source.body]
        impossible = inside != inside.clip(*PADDED_HU)
        numbers["filled"] = float(impossible.mean()) if inside.size else 0.0
    bodies = [other.body for other in (source, image) if other is not None]
    numbers["empty_planes"] = min((_empty_planes(body, scan.body) for body in bodies), default=0.0)
    if image is not None:
        known = np.isfinite(np.diff(sketch.image))
        length = norm(np.diff(sketch.truth)[known])
        whole = np.where(np.isfinite(sketch.image), sketch.image, sketch.truth)
        rests = (
            norm(np.diff(ndimage.gaussian_filter(whole, cells) - sketch.truth)[known])
            for cells in BLURS
        )
        ends = np.nanpercentile(np.abs([sketch.image, sketch.truth]), BRIGHT, axis=(1, 2, 3))
        numbers |= {
            "rest": float(min(rests) / length) if length else np.inf,
            "bright_image": ends[0],
            "bright_truth": ends[1],
            "bright_times": ends.max() / max(ends.min(), TINY),
        }
        for key, of_image in soft_and_background(image).items():
            numbers[f"{key}_from_image"] = abs(numbers[key] - of_image)
        known = np.isfinite(sketch.image)
        values = sketch.truth[known]
        shown = sketch.image[known]
        dark, bright = np.percentile(values, [DARK, 100 - DARK])
        of_dark = float(np.median(shown[values <= dark]))
        of_bright = float(np.median(shown[values >= bright]))
        most = float(values.max())
        numbers |= {
            "dark_image": of_dark,
            "dark_below": min(float(dark), of_bright) - of_dark,
            "bright_above": float(np.median(shown[values >= most])) - most,
            "differs": float(np.abs(shown - values).max() / max(np.ptp(values), TINY)),
        }
    return numbers


def _empty_planes(body: Bool, truth: Bool) -> float:
    """The share of planes, along the worst axis, that a body [d, h, w] fills and a truth leaves empty."""
    shares = [0.0]
    for others in ((1, 2), (0, 2), (0, 1)):
        areas = body.sum(axis=others)
        kept = (body & truth).sum(axis=others)
        lost = (areas > FILLED * areas.max()) & (kept < EMPTIED * areas)
        shares.append(float(lost.sum()) / max(1, int((areas > 0).sum())))
    return max(shares)


def _away(sketch: Sketch) -> Float64:
    """How far the body of a CT lies from that of its image inside it [3], as shares of its size: between means of its middle half, which no table moves."""
    truth = Volume(sketch.truth[None], np.diag([*sketch.cell_mm[::-1], 1.0]), "HU", "ct")
    inside = foreground(truth) & np.isfinite(sketch.image)
    bodies = ((sketch.truth > NO_AIR_HU) & inside, (sketch.image > NO_AIR_HU) & inside)
    if not all(part.any() for part in bodies):
        return np.zeros(3)
    places = [np.sort(np.nonzero(part)) for part in bodies]
    here, there = (
        place[:, place.shape[1] // 4 : -(place.shape[1] // 4) or None].mean(1) for place in places
    )
    size = float(bodies[0].sum() * sketch.cell_mm.prod()) ** (1 / 3)
    return (here - there) * sketch.cell_mm / size


def _offset_mm(sketch: Sketch) -> Float64:
    """How far an image lies from its truth along each axis [3], by their largest correlation; 0 where they have little in common."""
    found = np.zeros(3)
    for axis, length in enumerate(sketch.truth.shape):
        kept = np.arange(REACH, length - REACH)
        fits = dict.fromkeys(range(-REACH, REACH + 1), 0.0)
        for step in fits:
            truth = sketch.truth.take(kept, axis)
            image = sketch.image.take(kept + step, axis)
            known = np.isfinite(image)
            if known.any():
                fits[step] = float(unit(truth[known]) @ unit(image[known]))
        best = max(fits, key=fits.__getitem__)
        if fits[best] > IN_COMMON:
            before, after = (fits.get(step, 0.0) for step in (best - 1, best + 1))
            # the top of a parabola
            bend = max(2 * fits[best] - before - after, TINY)
            found[axis] = best + (after - before) / (2 * bend)
    return found * sketch.cell_mm


def fault_messages(faults: Mapping[str, Fault], of: int, then: str) -> list[Message]:
    """A message for each kind of fault, with its images; of: the number of all; then: a sentence on what follows."""
    messages = []
    for kind, labels in grouped((fault.kind, label) for label, fault in faults.items()).items():
        code = f"truth-{kind}"
        said = (faults[label].found for label in labels)
        found = next((f" ({found})" for found in said if found), "")
        at_fault = "A HEADER" if kind == "spacing" else "THE TRUTH"
        stated = message(
            code,
            f"{at_fault} IS AT FAULT, not the model, in {len(labels)} of {plural(of, 'image')} ({first_of(labels)}): {codes()[code].meaning}{found}.",
            images=len(labels),
        )
        messages.append(replace(stated, text=f"{stated.text} {then}"))
    return messages
