"""The scores of one image: truth, image and naive baselines on the truth's grid, and all scores of each."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from voxlate.base.array_types import Bool
from voxlate.base.errors import BadInput
from voxlate.base.messages import read_messages, worst_grade
from voxlate.checks.truths import Sketch, other_size, sketch_of
from voxlate.evaluation.scoring.distances import Vectors, slices_of, textures
from voxlate.evaluation.scoring.metrics import (
    SCOPED,
    ImagePair,
    Score,
    correlation,
    image_scores,
    mean_inside,
    region_scores,
)
from voxlate.evaluation.scoring.scored_images import Item, is_changed
from voxlate.evaluation.scoring.scored_truth import Alignment, Rules, Truth, read_canonical
from voxlate.scans.formats.io import is_there
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.midline import midline_grid
from voxlate.scans.images.ranges import WHOLE_MASK, Ends
from voxlate.scans.images.units import SHOW_ANATOMY, unit_of
from voxlate.training.naive import Baselines
from voxlate.training.verdict import SYNTHESIS

Functions = Mapping[str, Score]

EFFORT = ("seconds_per_slice", "network_calls")  # entries of a case's provenance
TRUTH = "truth"


@dataclass(frozen=True)
class Row:
    """The scores by key of one method (the synthesis, or a naive baseline) for one modality of one case.

    slices: number of the case's slices; grade: of the messages on the image.
    """

    case: str
    patient: str
    modality: str
    method: str
    scores: Mapping[str, float]
    slices: int = 0
    grade: str = ""


@dataclass(frozen=True)
class ScoredItem:
    """The rows of a synthesis and its naive baselines, with a note on the alignment.

    truth: what shows whether it is that of the image; shown: the share of the scored voxels that the image shows. There
    are no rows where the truth is so large or small that it does not lie on the image. vectors: of the slices of the truth
    and of each method. window: the HU that a picture's black and white show, of an image that is compared with one.
    """

    rows: list[Row]
    note: str
    truth: Sketch
    shown: float = 1.0
    vectors: dict[str, Vectors] = field(default_factory=dict)
    window: Ends | None = None


def score_item(item: Item, rules: Rules, functions: Functions) -> ScoredItem:
    """Score an image of a case and the naive baselines; raises BadInput if that is impossible.

    functions: by key, of metrics beside those of the catalogue.
    """
    truth = Truth(item, rules, read_canonical(item.synthesis, item.modality))
    sketch = _sketch(truth)
    if not rules.asked.any_truth and (sketch.other_size or sketch.low == sketch.high):
        return ScoredItem([], "", sketch)  # nothing of the truth can be scored
    window = truth.picture_window if truth.windowed else None
    scored = ScoredItem([], _note(truth), sketch, truth.shown, window=window)
    head = (item.case.case, item.case.patient, item.modality)
    features = textures if rules.asked.features == "texture" else rules.asked.features
    for method, volume in {SYNTHESIS: truth.synthesis, **_naive_images(truth)}.items():
        ours = truth.on_range(volume)
        pair = ImagePair(truth.values, ours, rules.scale, truth.inside, rules.asked.ssim_from)
        scores = _score(truth, volume, pair, functions)
        grade = ""
        if method == SYNTHESIS:
            scores |= _interval_scores(truth, pair) | _stated(truth)
            grade = worst_grade(read_messages(item.provenance)) or ""
        scored.rows.append(Row(*head, method, scores, len(ours), grade))
        for name, values in ((method, ours), (TRUTH, pair.truth)):
            if features is not None and name not in scored.vectors:
                scored.vectors[name] = features(slices_of(values, pair, rules.axes))
    return scored


def _stated(truth: Truth) -> dict[str, float]:
    """What the image's provenance states of its effort, a latent model's autoencoder and its samples, and their mean deviation."""
    item = truth.item
    numbers = {key: item.provenance.get(key) for key in EFFORT}
    numbers["autoencoder"] = item.provenance.get("bound", {}).get(item.modality)
    numbers["samples"] = item.provenance.get("synth", {}).get("samples")
    if item.std is not None:
        std = truth.alignment.apply(read_canonical(item.std, item.modality)).data[0]
        gain = truth.rules.scale.gain(truth.synthesis.data[0], truth.body)
        spread = std * np.float32(truth.gain) / gain
        numbers["std"] = mean_inside(spread, truth.inside)
    return {key: float(number) for key, number in numbers.items() if number is not None}


def _sketch(truth: Truth) -> Sketch:
    """What shows whether a truth is that of an image, which is as it was stored."""
    item, scan, image = truth.item, truth.scan, truth.stored
    unit = item.provenance.get("units", {}).get(item.modality, scan.unit)
    on_truth = source = None
    if not other_size(scan.grid, image.grid):
        # where the body of a truth ends is to be judged, too
        mask = None if truth.rules.mask == "body" else truth.mask
        on_truth = _where_covered(truth.alignment, image, scan, mask)
        source = _source_on(truth)
    own_unit = scan.unit if truth.windowed else unit
    return sketch_of(scan, on_truth, source, image.grid, item.case.patient, own_unit)


def _source_on(truth: Truth) -> Volume | None:
    """The first source that the image was made of, on the truth's grid; None where none is stated or there any more."""
    for name, path in truth.item.inputs.items():
        if unit_of(name) not in SHOW_ANATOMY or not is_there(path):
            continue
        with contextlib.suppress(BadInput):  # of a registered scan whose transform is lost
            scan = read_canonical(path, name)
            return _where_covered(truth.alignment_from(scan.grid, name), scan, truth.scan)
    return None


def _where_covered(
    alignment: Alignment, image: Volume, truth: Volume, mask: Bool | None = None
) -> Volume:
    """An image on the truth's grid, its lowest value where it ends and outside a mask."""
    values = alignment.apply(image).data[0]
    for inside in (alignment.coverage(image.grid), mask):
        if inside is not None:
            values = np.where(inside, values, values.min())
    return replace(image, data=values[None], affine=truth.affine)


def _note(truth: Truth) -> str:
    """A note on the alignment of the image and on its faults."""
    item = truth.item
    parts = [truth.alignment.note]
    if truth.windowed and truth.window is not None:
        ends = f"{truth.window.low:g} to {truth.window.high:g} HU"
        parts.append(
            f"its HU are compared with a picture, whose black to white are taken as {ends}"
        )
    if is_changed(item.synthesis, item.provenance):
        parts.append("it was changed after synth wrote it")
    if item.interval is not None and item.interval.changed:
        parts.append("its intervals were changed after synth wrote them, and are not scored")
    if truth.shown < 1:
        parts.append(
            f"{1 - truth.shown:.1%} of the scored voxels are outside the image and do not count"
        )
    return "; ".join(filter(None, [*parts, *map(str, truth.volume.guesses)]))


def _score(truth: Truth, image: Volume, pair: ImagePair, functions: Functions) -> dict[str, float]:
    """The scores of one image of a case where the mask is, in each region and in the whole image.

    pair: its values and the truth's on the range.
    """
    scores = image_scores(pair) | {key: function(pair) for key, function in functions.items()}
    spacing_mm = truth.volume.grid.spacing_mm
    for region, inside in truth.regions:
        of_image = region.modality == truth.item.modality
        overlap = truth.select(region, image) if of_image else None
        scores |= region_scores(region, inside, pair.truth, pair.synthesis, overlap, spacing_mm)
    if truth.rules.mask != WHOLE_MASK:
        whole = replace(pair, inside=truth.coverage)
        found = image_scores(whole)
        found |= {key: functions[key](whole) for key in SCOPED if key in functions}
        scores |= {f"{WHOLE_MASK}.{key}": found[key] for key in SCOPED if key in found}
    return scores


def _interval_scores(truth: Truth, pair: ImagePair) -> dict[str, float]:
    """Coverage of the truth and mean width of a synthesis's intervals, in the body and each region; none of changed ones."""
    interval = truth.item.interval
    if interval is None or interval.changed:
        return {}
    ends = []
    for path in (interval.low, interval.high):
        end = truth.convert(read_canonical(path, truth.item.modality), truth.window)
        ends.append(truth.on_range(truth.alignment.apply(end), truth.synthesis))
    scores = dict[str, float]()
    parts = [("", truth.frame)] + [(f"{one.name}.", part) for one, part in truth.regions]
    for place, inside in parts:
        low, high, true = (values[inside] for values in (*ends, pair.truth))
        held = (true >= low - 1e-6) & (true <= high + 1e-6)
        scores |= {
            f"{place}coverage": mean_inside(held),
            f"{place}interval": mean_inside(high - low),
        }
    error = np.abs(pair.truth - pair.synthesis)[truth.frame]
    scores["interval_r"] = correlation((ends[1] - ends[0])[truth.frame], error)
    # The bound is in physical units and applies to the error in the body.
    in_body = truth.rules.mask in (WHOLE_MASK, "body") and not truth.rules.scale.own
    if interval.bound is not None and in_body and truth.window is None and error.size:
        scores["mae_bound"] = interval.bound
        scores["mae_bound_held"] = float(error.mean() <= interval.bound)
    return scores


def _naive_images(truth: Truth) -> dict[str, Volume]:
    """The images of the naive baselines by name in the scored unit, but for those of scans whose transform is lost.

    Without baselines of a training, as of a starter: copies of the sources that are in the unit of the truth.
    """
    item, target = truth.item, truth.item.modality
    baselines = item.baselines
    files = {name: path for name, path in item.case.files.items() if name != target}
    # A model may call the cohort's scans by other names.
    used = {path.resolve() for path in item.inputs.values()}
    here = {name: path for name, path in files.items() if path.resolve() in used}
    inputs = here or item.inputs
    if baselines is not None:
        inputs = item.inputs | here or files
    sources = dict[str, Volume]()
    for name, path in inputs.items():
        known = baselines is None or (name, target) in baselines.tables
        if known and name != target and is_there(path):
            with contextlib.suppress(BadInput):
                sources[name] = truth.read(path, name)
    if baselines is None:
        copies = {name: scan for name, scan in sources.items() if scan.unit == truth.scan.unit}
        return {
            f"copy of {name}": truth.convert(scan, truth.window) for name, scan in copies.items()
        }
    images = {}
    if target in baselines.means and baselines.fixed in ("", target, *files, *inputs):
        with contextlib.suppress(BadInput):
            images["mean image"] = _mean_image(truth, baselines, files | inputs)
    for name, values in baselines.images(target, sources, truth.volume.grid).items():
        images[name] = replace(truth.scan, data=values[None])
    if truth.rules.scale.own:  # they are stored in shares of a peak, as they are scored
        return images
    own = {name: baselines.in_own_unit(image) for name, image in images.items()}
    return {name: truth.convert(image, truth.window) for name, image in own.items()}


def _mean_image(truth: Truth, baselines: Baselines, files: Mapping[str, Path]) -> Volume:
    """The mean image on the truth's grid; it fills the grid of the scan that defines the grid of prepared cases."""
    modality = truth.item.modality
    fixed = baselines.fixed or modality
    scan, alignment = truth.volume, Alignment(truth.volume.grid)
    if fixed != modality:
        scan = read_canonical(files[fixed], fixed)
        alignment = truth.alignment_from(scan.grid, fixed)
    box = midline_grid(scan) if baselines.align else scan.grid
    return alignment.apply(baselines.mean_image(modality, box))
