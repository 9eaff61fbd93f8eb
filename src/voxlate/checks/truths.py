"""Whether truths can be those of their images: the unit, the place, the values and the patient of each.

A truth is doubted by its own values (are they possible in its unit?), by its source (is it of the same patient?) and by
the other truths of the cohort, never by the error of its image alone: a bad model is no reason to doubt a truth.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from voxlate.base.arrays import Bool, Float32
from voxlate.base.codes import codes
from voxlate.base.errors import first_of, plural
from voxlate.base.messages import Message, message
from voxlate.checks.same_patient import find_foreign, find_mirrored
from voxlate.checks.scan_numbers import PADDING_HU
from voxlate.checks.truth_sketches import Sketch, SketchedTruth
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import foreground

Kind = Literal["spacing", "unit", "blank", "padding", "offset", "window", "mirrored", "patient"]

LEFT_OUT = "It is left out; --any-truth keeps it."
KEPT = "It counts all the same (--any-truth)."
TISSUE_HU = (-300.0, 400.0)  # the median of every body in a CT: fat and air cells to dense bone
FAR_HU = 500.0  # half of the usual offsets, 1000 and 1024
MOST_HU = 4095.0  # of the mean of a cell: larger metal objects are not in patients
PADDED = 0.05  # share of the body above which a truth lacks too much of it
DARK = 10.0  # percentile of a truth, below which is air wherever the scan has any
SATURATED = 1e-4  # share of a picture at white: bone that a window has cut
NO_AIR_HU = -500.0  # air is below, all tissue but lung above
APART_HU = 300.0  # between air in an image and the truth there
# Times, between the brightest values of an image in arbitrary units and of its truth.
OTHER_SCALE = 10.0
BRIGHT = 99.5  # percentile of these
WHITE = (1.0, 255.0)  # the ends of grey values


@dataclass(frozen=True)
class Fault:
    """Why a truth cannot be that of its image; found: what was found, to be read after "found"."""

    kind: Kind
    found: str


def faults_of(truths: Mapping[str, SketchedTruth]) -> dict[str, Fault]:
    """The truths that cannot be those of their images, by their labels, each with its fault; truths: of one modality."""
    faults = dict[str, Fault]()
    for label, truth in truths.items():
        if (fault := _own_fault(truth)) is not None:
            faults[label] = fault
    compared = {label: truth for label, truth in truths.items() if label not in faults}
    for label, found in find_mirrored(compared).items():
        faults[label] = Fault("mirrored", found)
        del compared[label]
    for label, found in find_foreign(compared).items():
        faults[label] = Fault("patient", found)
    return faults


def _own_fault(truth: SketchedTruth) -> Fault | None:
    """The fault that a truth shows without the others."""
    sketch = truth.sketch
    times = float(sketch.times[0])
    low, high, *_ = (float(end) for end in sketch.ends)
    if sketch.has_other_size:
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
    filled = body & _impossible(sketch)
    share = filled.sum() / max(body.sum(), 1)
    if share <= PADDED:
        return None
    value = float(np.median(sketch.truth[filled]))
    return Fault("padding", f"{value:.0f} HU in {share:.0%} of the body")


def _offset(sketch: Sketch) -> Fault | None:
    """The fault of a CT whose tissue has impossible values, unless its image has them too, as those of the training."""
    body = _body(np.clip(sketch.truth, PADDING_HU, MOST_HU), sketch, "a.u.") & ~_impossible(sketch)
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


def _impossible(sketch: Sketch) -> Bool:
    """Where a CT has values that no tissue and no air has."""
    return np.asarray((sketch.truth < PADDING_HU) | (sketch.truth > MOST_HU))


def _body(values: Float32, sketch: Sketch, unit: str) -> Bool:
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
        stated = message(code, text, images=len(alike))
        found.append(replace(stated, text=f"{stated.text} {then}"))
    return found
