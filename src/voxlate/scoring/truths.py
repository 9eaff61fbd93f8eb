"""Whether truths can be those of their images: the unit, the place, the values and the patient of each.

A truth is doubted by its own values (are they possible in its unit?), by its source (is it of the same patient?) and by
the other truths of the cohort, never by the error of its image alone: a bad model is no reason to doubt a truth.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from voxlate.cases.scan_numbers import PADDING_HU
from voxlate.images.grid import Grid, Volume
from voxlate.images.mask import foreground
from voxlate.scoring.same_patient import Likeness, foreign_truths, mirrored_truths
from voxlate.system.codes import codes
from voxlate.system.errors import first_of, plural
from voxlate.system.messages import Message, message
from voxlate.system.slabs import least_and_most, spread_values

Kind = Literal["spacing", "unit", "blank", "padding", "offset", "window", "mirrored", "patient"]
Cells = NDArray[np.float32]

LEFT_OUT = "It is left out; --any-truth keeps it."
KEPT = "It counts all the same (--any-truth)."
MOST_CELLS = 40  # along the longest side of a volume
MOST_FLAT_CELLS = 64  # along the longest side of a picture
SAMPLES = 1_000_000
OTHER_SIZE = 20.0  # times: the field of view of a scan of the same region is less than this apart
TISSUE_HU = (-300.0, 400.0)  # the median of every body in a CT: fat and air cells to dense bone
FAR_HU = 500.0  # half of the usual offsets, 1000 and 1024
MOST_HU = 4095.0  # of the mean of a cell: larger metal objects are not in patients
PADDED = 0.05  # share of the body above which a truth lacks too much of it
DARK = 10.0  # percentile of a truth, below which is air wherever the scan has any
SATURATED = 1e-4  # share of a picture at white: bone that a window has cut
NO_AIR_HU = -500.0  # air is below, all tissue but lung above
APART_HU = 300.0  # between air in an image and the truth there
OTHER_SCALE = (
    10.0  # times, between the brightest values of an image in arbitrary units and of its truth
)
BRIGHT = 99.5  # percentile of these
WHITE = (1.0, 255.0)  # the ends of grey values


@dataclass(frozen=True)
class Fault:
    """Why a truth cannot be that of its image; found: what was found, to be read after "found"."""

    kind: Kind
    found: str


@dataclass(frozen=True, eq=False)
class Sketch:
    """A truth, its image and a source in few cells [D, H, W] of one grid, with what the truth's voxels show.

    image, source: NaN where they do not cover the truth; empty where there are none. cell_mm: [3]; times: [1], by how much
    the truth's field of view is longer than that of the image; ends: [4], the lowest and the highest value of the truth,
    and the share of its voxels at each.
    """

    truth: Cells
    image: Cells
    source: Cells
    cell_mm: Cells
    times: Cells
    ends: Cells

    @property
    def arrays(self) -> dict[str, Cells]:
        """All arrays by their names, from which the sketch can be built again."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


# Of the arrays of a sketch with an image and a source, as files keep them.
SKETCH_LENGTHS: dict[str, tuple[int | None, ...]] = {
    **dict.fromkeys(("truth", "image", "source"), (None, None, None)),
    "cell_mm": (3,),
    "times": (1,),
    "ends": (4,),
}


@dataclass(frozen=True)
class SketchedTruth:
    """The sketch of one truth: its patient, its unit, and that of its image; other: the case from whose scan the image was made, if not its own."""

    patient: str
    unit: str
    image_unit: str
    sketch: Sketch
    other: str = ""


def sketch_of(
    truth: Volume,
    image: Cells | None,
    source: Cells | None,
    image_grid: Grid,
) -> Sketch:
    """The sketch of a truth.

    image, source: [D, H, W] on the truth's grid, NaN where they do not count; image_grid: the grid that the image has of
    its own.
    """
    values = truth.data[0]
    spacing_mm = np.array(truth.grid.spacing_mm)
    most = MOST_CELLS if len(values) > 1 else MOST_FLAT_CELLS
    cell_mm = float((spacing_mm * values.shape).max()) / most
    blocks = np.minimum(np.maximum(np.rint(cell_mm / spacing_mm), 1), values.shape).astype(int)
    nothing = np.zeros((0, 0, 0), np.float32)
    low, high = (float(end) for end in least_and_most(values))
    sample = spread_values(values, max(1, values.size // SAMPLES))
    ends = [low, high, float((sample == low).mean()), float((sample == high).mean())]
    return Sketch(
        _cells(values, blocks),
        nothing if image is None else _cells(image, blocks),
        nothing if source is None else _cells(source, blocks),
        (spacing_mm * blocks).astype(np.float32),
        np.array([_length(truth.grid) / _length(image_grid)], np.float32),
        np.array(ends, np.float32),
    )


def has_other_size(truth: Grid, image: Grid) -> bool:
    """Whether the field of view of a truth is too large or too small for that of its image, as in micrometres."""
    return _is_other_size(_length(truth) / _length(image))


def shows_nothing(sketch: Sketch) -> bool:
    """Whether nothing of a truth can be scored: it has another size, or the same value everywhere."""
    return _is_other_size(float(sketch.times[0])) or bool(sketch.ends[0] == sketch.ends[1])


def _is_other_size(times: float) -> bool:
    return not 1 / OTHER_SIZE < times < OTHER_SIZE


def _length(grid: Grid) -> float:
    """The geometric mean of the sides of a slice of a grid, in mm."""
    _, height, width = np.array(grid.shape) * grid.spacing_mm
    return float(np.sqrt(height * width))


def _cells(values: NDArray[np.float32], blocks: NDArray[np.int_]) -> Cells:
    """Means over blocks of voxels; what remains at the ends is left out."""
    depth, height, width = blocks
    rows, columns = (values.shape[axis] // blocks[axis] for axis in (1, 2))
    planes = []
    for first in range(0, len(values) // depth * depth, depth):
        slab = values[first : first + depth, : rows * height, : columns * width]
        parts = slab.reshape(depth, rows, height, columns, width)
        planes.append(parts.mean(axis=(0, 2, 4), dtype=np.float64))
    return np.stack(planes).astype(np.float32)


def faults_of(truths: Mapping[str, SketchedTruth]) -> dict[str, Fault]:
    """The truths that cannot be those of their images, by their labels, each with its fault; truths: of one modality."""
    faults = dict[str, Fault]()
    for label, truth in truths.items():
        if (fault := _own_fault(truth)) is not None:
            faults[label] = fault
    compared = {
        label: Likeness(
            one.patient,
            one.sketch.truth,
            one.sketch.source,
            one.sketch.image,
            one.sketch.cell_mm,
        )
        for label, one in truths.items()
        if label not in faults
    }
    for label, found in mirrored_truths(compared).items():
        faults[label] = Fault("mirrored", found)
        del compared[label]
    for label, found in foreign_truths(compared).items():
        faults[label] = Fault("patient", found)
    return faults


def _own_fault(truth: SketchedTruth) -> Fault | None:
    """The fault that a truth shows without the others."""
    sketch = truth.sketch
    times = float(sketch.times[0])
    low, high, *_ = (float(end) for end in sketch.ends)
    if _is_other_size(times):
        return Fault("spacing", f"a field of view {times:.3g} times as long as that of its image")
    if truth.other:
        return Fault("patient", f"an image that was made of the scan of {truth.other}")
    if truth.unit != truth.image_unit:
        return Fault("unit", f"{truth.unit} where its image is in {truth.image_unit}")
    if low == high:
        return Fault("blank", f"{low:g} everywhere")
    if truth.unit != "HU":
        return None
    return _offset(sketch) or _padding(sketch) or _window(sketch)


def _padding(sketch: Sketch) -> Fault | None:
    """The fault of a CT that has a value of no tissue where its source, or else its image, shows the body."""
    shown, unit = (sketch.source, "a.u.") if sketch.source.size else (sketch.image, "HU")
    if not shown.size:
        return None
    known = np.isfinite(shown)
    body = _body(np.where(known, shown, shown[known].min(initial=0)), sketch, unit) & known
    filled = body & _filled(sketch)
    share = filled.sum() / max(body.sum(), 1)
    if share <= PADDED:
        return None
    value = float(np.median(sketch.truth[filled]))
    return Fault("padding", f"{value:.0f} HU in {share:.0%} of the body")


def _offset(sketch: Sketch) -> Fault | None:
    """The fault of a CT whose tissue has impossible values, unless its image has them too, as those of the training."""
    body = _body(np.clip(sketch.truth, PADDING_HU, MOST_HU), sketch, "a.u.") & ~_filled(sketch)
    tissue = float(np.median(sketch.truth[body])) if body.any() else 0.0
    if TISSUE_HU[0] <= tissue <= TISSUE_HU[1]:
        return None
    shown = f"tissue at {tissue:.0f} HU (median of the body)"
    of_image = sketch.image[body] if sketch.image.size else np.zeros(0, np.float32)
    of_image = of_image[np.isfinite(of_image)]
    if not of_image.size:
        return Fault("offset", shown)
    expected = float(np.median(of_image))
    if abs(tissue - expected) < FAR_HU:
        return None
    return Fault("offset", f"{shown}, where its image has {expected:.0f} HU")


def _window(sketch: Sketch) -> Fault | None:
    """The fault of a CT that is cut to grey values or to a window, while its image goes on below."""
    low, high, _, at_high = (float(end) for end in sketch.ends)
    values = f"{low:g} to {high:g} HU"
    known = np.isfinite(sketch.image) if sketch.image.size else np.zeros(sketch.truth.shape, bool)
    if low == 0 and high in WHITE and at_high > SATURATED:
        goes_on = not known.any() or sketch.image[known].min() < low - 1
        return Fault("window", values) if goes_on else None
    truth = sketch.truth[known]
    if not known.any() or truth.min() < NO_AIR_HU:
        return None
    dark, bright = np.percentile(truth, [DARK, 100 - DARK])
    of_dark, of_bright = (
        float(np.median(sketch.image[known][where])) for where in (truth <= dark, truth >= bright)
    )
    # An image without air, or with air in other places than the darkest ones of the truth, says nothing of the truth.
    if of_dark > NO_AIR_HU or of_dark > min(dark, of_bright) - APART_HU:
        return None
    return Fault("window", f"{values}, where its image has air ({of_dark:.0f} HU)")


def _filled(sketch: Sketch) -> NDArray[np.bool_]:
    """Where a CT has values that no tissue and no air has."""
    return np.asarray((sketch.truth < PADDING_HU) | (sketch.truth > MOST_HU))


def _body(values: Cells, sketch: Sketch, unit: str) -> NDArray[np.bool_]:
    depth, height, width = (float(length) for length in sketch.cell_mm)
    return foreground(Volume(values[None], np.diag([width, height, depth, 1.0]), unit, ""))


def check_scale(truths: Mapping[str, SketchedTruth]) -> list[Message]:
    """A message where images that are not in HU are on another scale than their truths by far."""
    apart = dict[str, tuple[float, float]]()
    for label, truth in truths.items():
        if truth.unit == "HU" or not np.isfinite(truth.sketch.image).any():
            continue
        image, real = (
            float(np.nanpercentile(np.abs(cells), BRIGHT))
            for cells in (truth.sketch.image, truth.sketch.truth)
        )
        if not real / OTHER_SCALE < image < real * OTHER_SCALE:
            apart[label] = image, real
    if not apart:
        return []
    image, real = next(iter(apart.values()))
    text = f"{len(apart)} of {plural(len(truths), 'image')} ({first_of(list(apart), 3)}) are on another scale than their truths (bright values {image:.3g} where the truth has {real:.3g}), which scores that divide by each image's own peak do not show. Were targets of several scales trained on?"
    return [message("other-scale", text, images=len(apart), image=image, truth=real)]


def fault_messages(faults: Mapping[str, Fault], of: int, then: str) -> list[Message]:
    """A message for each kind of fault, with its images; of: the number of all; then: a sentence on what follows."""
    by_kind = dict[Kind, dict[str, Fault]]()
    for label, fault in faults.items():
        by_kind.setdefault(fault.kind, {})[label] = fault
    found = list[Message]()
    for kind, alike in by_kind.items():
        code = f"truth-{kind}"
        text = f"THE TRUTH IS AT FAULT, not the model, in {len(alike)} of {plural(of, 'image')} ({first_of(list(alike))}): {codes()[code].meaning} (found {next(iter(alike.values())).found})."
        one = message(code, text, images=len(alike))
        found.append(replace(one, text=f"{one.text} {then}"))
    return found
