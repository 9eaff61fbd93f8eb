"""The scores of one image: truth, image and naive baselines on the truth's grid, and all scores of each."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from voxlate.base.array_types import Bool, Float32
from voxlate.base.errors import BadInput
from voxlate.base.messages import read_messages, worst_grade
from voxlate.checks.truths import Sketch, other_size, sketch_of
from voxlate.evaluation.scoring.distances import Vectors, slices_of
from voxlate.evaluation.scoring.interval_scores import interval_scores, is_changed, region_coverage
from voxlate.evaluation.scoring.metrics import (
    SCOPED,
    ImagePair,
    Score,
    image_scores,
    mean_inside,
)
from voxlate.evaluation.scoring.scored_images import Item
from voxlate.evaluation.scoring.scored_regions import (
    read_canonical,
    region_scores,
)
from voxlate.evaluation.scoring.scored_truth import (
    OWN,
    Alignment,
    Rules,
    Truth,
    network_units,
    picture_units,
    shows_a_window,
)
from voxlate.scans.formats.io import content_hash, is_there
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.midline import midline_grid
from voxlate.scans.images.ranges import WHOLE_MASK, picture_window
from voxlate.scans.images.regions import scale_to_peak
from voxlate.scans.images.units import SHOW_ANATOMY, unit_of
from voxlate.training.naive import Baselines
from voxlate.training.verdict import SYNTHESIS

Functions = Mapping[str, Score]

EFFORT = ("seconds_per_slice", "network_calls")  # entries of a case's provenance
CLIPPED = 0.02  # of the range, beyond which a truth is said to be clipped: padding of CT ends 24 HU below air


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
    and of each method.
    """

    rows: list[Row]
    note: str
    truth: Sketch
    shown: float = 1.0
    vectors: Mapping[str, Vectors] = field(default_factory=dict)


def score_item(item: Item, rules: Rules, functions: Functions) -> ScoredItem:
    """Score an image of a case and the naive baselines; raises BadInput if that is impossible.

    functions: by key, of metrics beside those of the catalogue.
    """
    asked = rules.asked
    scale = rules.scale
    network = asked.units == "network"
    stored = read_canonical(item.synthesis, item.modality)
    if network:
        units = network_units(item.provenance, item.modality, item.case.case)
    elif shows_a_window(item.provenance, item.modality, scale.unit):
        units = picture_units(picture_window(replace(stored, unit="HU")), scale)
    else:
        units = OWN
    image = units.synthesis(stored)
    truth = Truth(item, rules, units, image.grid)
    sketch = _sketch(truth, stored)
    if not asked.any_truth and (sketch.other_size or sketch.low == sketch.high):
        return ScoredItem([], "", sketch)  # nothing of the truth can be scored
    if network and shows_a_window(item.provenance, item.modality, truth.scan.unit):
        raise BadInput(
            f"--units network: expected a truth in HU, as the image is, found the picture {truth.scan.origin}. Drop --units."
        )
    synthesis = truth.alignment.apply(image)
    methods = {SYNTHESIS: synthesis}
    for name, stored in _naive_images(truth).items():
        # In arbitrary units, baselines are stored in shares of a peak, as they are scored.
        methods[name] = stored
        if item.baselines and not scale.own:
            methods[name] = units.synthesis(item.baselines.in_own_unit(stored))
    rows = []
    vectors = dict[str, Vectors]()
    grade = worst_grade(read_messages(item.provenance)) or ""
    for method, volume in methods.items():
        pair = ImagePair(truth.values, truth.on_range(volume), scale, truth.inside, asked.ssim_from)
        scores = _score(truth, volume, pair, functions)
        if method == SYNTHESIS:
            scores |= _interval_scores(truth, synthesis) | _spread_scores(truth, synthesis)
            scores |= _stated(item) | _clipped_share(truth)
        head = (item.case.case, item.case.patient, item.modality, method)
        own_grade = grade if method == SYNTHESIS else ""
        rows.append(Row(*head, scores, len(truth.values), own_grade))
        for name, values in ((method, pair.synthesis), ("truth", pair.truth)):
            if rules.features is not None and name not in vectors:
                vectors[name] = rules.features(slices_of(values, pair, rules.axes))
    return ScoredItem(rows, _note(truth), sketch, truth.shown, vectors)


def _stated(item: Item) -> dict[str, float]:
    """Time and network calls of a synthesis, and the error of a latent model's autoencoder, if its provenance states them."""
    stated = item.provenance
    numbers = {key: stated.get(key) for key in EFFORT}
    numbers["autoencoder"] = stated.get("bound", {}).get(item.modality)
    numbers["samples"] = stated.get("synth", {}).get("samples")
    return {key: float(number) for key, number in numbers.items() if number is not None}


def _clipped_share(truth: Truth) -> dict[str, float]:
    """The share of scored voxels whose truth is beyond the range by more than CLIPPED of it; none for shares of a peak."""
    scale = truth.scale
    if scale.own:
        return {}
    values = truth.volume.data[0]
    spare = CLIPPED * scale.width
    beyond = (values < scale.low - spare) | (values > scale.high + spare)
    return {"clipped": mean_inside(beyond, truth.inside)}


def _sketch(truth: Truth, image: Volume) -> Sketch:
    """What shows whether a truth is that of an image, which is as it was stored."""
    item = truth.item
    scan = truth.scan
    unit = item.provenance.get("units", {}).get(item.modality, scan.unit)
    if shows_a_window(item.provenance, item.modality, scan.unit):
        unit = scan.unit
    on_truth = source = None
    if not other_size(scan.grid, image.grid):
        # where the body of a truth ends is to be judged, too
        mask = None if truth.rules.mask == "body" else truth.mask
        on_truth = _where_covered(truth.alignment, image, scan, mask)
        source = _source_on(truth)
    return sketch_of(scan, on_truth, source, image.grid, item.case.patient, unit)


def _source_on(truth: Truth) -> Volume | None:
    """The first source that the image was made of, on the truth's grid; None where it is not there any more.

    Of an image of other software, the first scan beside the truth that shows anatomy.
    """
    item = truth.item
    inputs = item.provenance.get("inputs", {})
    beside = {name: path for name, path in item.case.files.items() if name != item.modality}
    for name, path in (item.inputs if item.provenance else beside).items():
        if unit_of(name) not in SHOW_ANATOMY or not is_there(path):
            continue
        if inputs and content_hash(path) != inputs[name].get("sha256"):
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
    parts = [truth.units.note, truth.alignment.note]
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
    """All scores of one image of a case; pair: its values and the truth's on the range."""
    rules = truth.rules
    item = truth.item

    def score(shown: ImagePair) -> dict[str, float]:
        """The scores of two images, and by the functions."""
        return image_scores(shown) | {key: function(shown) for key, function in functions.items()}

    scores = score(pair)
    for region, inside in truth.regions:
        overlap = None
        if region.modality == item.modality:
            overlap = region.select(scale_to_peak(image, truth.scale, truth.body), truth.frame)
        scores |= region_scores(
            region,
            inside,
            pair.truth,
            pair.synthesis,
            overlap,
            truth.volume.grid.spacing_mm,
        )
    if rules.mask != WHOLE_MASK:
        everywhere = score(replace(pair, inside=truth.coverage))
        scores |= {f"{WHOLE_MASK}.{key}": everywhere[key] for key in SCOPED if key in everywhere}
    return scores


def _interval_scores(truth: Truth, synthesis: Volume) -> dict[str, float]:
    """Scores of a synthesis's intervals, scaled as the synthesis; none of intervals that were changed."""
    interval = truth.item.interval
    scale = truth.scale
    if interval is None or interval.changed:
        return {}

    def read(path: Path) -> Float32:
        """The values of one end on the scored range."""
        end = truth.units.synthesis(read_canonical(path, truth.item.modality))
        return scale.normalise(truth.alignment.apply(end).data[0], truth.body, synthesis.data[0])

    low, high = read(interval.low), read(interval.high)
    if truth.units is not OWN or scale.own or truth.rules.mask not in (WHOLE_MASK, "body"):
        # The bound is in physical units and applies to the error in the body.
        interval = replace(interval, bound=None)
    scores = interval_scores(
        interval, low, high, truth.on_range(synthesis), truth.values, truth.frame
    )
    for region, part in truth.regions:
        scores |= region_coverage(region.name, low, high, truth.values, part)
    return scores


def _spread_scores(truth: Truth, synthesis: Volume) -> dict[str, float]:
    """Mean standard deviation of a synthesis's samples."""
    if truth.item.std is None:
        return {}
    stored = read_canonical(truth.item.std, truth.item.modality)
    std = truth.alignment.apply(truth.units.spread(stored))
    spread = std.data[0] / truth.scale.gain(synthesis.data[0], truth.body)
    return {"std": mean_inside(spread, truth.inside)}


def _naive_images(truth: Truth) -> dict[str, Volume]:
    """The images of the naive baselines by name, as they are stored, but for those of scans whose transform is lost."""
    item = truth.item
    target = item.modality
    baselines = item.baselines
    if baselines is None:
        return {}
    files = {name: path for name, path in item.case.files.items() if name != target}
    # A model may call the cohort's scans by other names.
    used = {path.resolve() for path in item.inputs.values()}
    here = {name: path for name, path in files.items() if path.resolve() in used}
    inputs = item.inputs | here or files
    images = {}
    sources = dict[str, Volume]()
    if target in baselines.means:
        with contextlib.suppress(BadInput):
            images["mean image"] = _mean_image(truth, baselines, files | inputs)
    for name, path in inputs.items():
        if (name, target) in baselines.tables and is_there(path):
            with contextlib.suppress(BadInput):
                sources[name] = truth.read(path, name)
    for name, values in baselines.images(target, sources, truth.volume.grid).items():
        images[name] = replace(truth.scan, data=values[None])
    return images


def _mean_image(truth: Truth, baselines: Baselines, files: Mapping[str, Path]) -> Volume:
    """The mean image on the truth's grid; it fills the grid of the scan that defines the grid of prepared cases."""
    target = truth.item.modality
    fixed = baselines.fixed or target
    if fixed == target:
        scan = truth.volume
        alignment = Alignment(scan.grid)
    elif fixed in files and is_there(files[fixed]):
        scan = read_canonical(files[fixed], fixed)
        alignment = truth.alignment_from(scan.grid, fixed)
    else:
        raise BadInput(
            f"expected {fixed}, whose grid it fills, found no such scan. Add it to the cohort."
        )
    box = midline_grid(scan) if baselines.align else scan.grid
    return alignment.apply(baselines.mean_image(target, box))
