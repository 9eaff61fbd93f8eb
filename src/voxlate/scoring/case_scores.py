"""The scores of one image: truth, image and naive baselines on the truth's grid, and all scores of each."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from voxlate.cases.naive import Baselines
from voxlate.formats.io import content_hash, is_there
from voxlate.images.grid import Grid, Volume
from voxlate.images.mask import foreground
from voxlate.images.midline import midline_grid
from voxlate.images.ranges import Range
from voxlate.scoring.aligned import aligned_scores
from voxlate.scoring.alignment import Alignment, find_alignment
from voxlate.scoring.distances import Cases, Pool
from voxlate.scoring.intervals import interval_scores, is_changed, region_coverage
from voxlate.scoring.metrics import ImagePair, Padding, Score, SsimOrigin, correlation, seam
from voxlate.scoring.misaligned import Floor, estimate_for, floor_of
from voxlate.scoring.network_units import OWN, Units, network_units
from voxlate.scoring.provenance import window_borders
from voxlate.scoring.regions import (
    MaskArray,
    Region,
    find_region,
    mask_of,
    ratio_scores,
    read_canonical,
    region_scores,
    thresholded,
)
from voxlate.scoring.scopes import MASK, CountedVoxels, Cut, Scope, scope_scores
from voxlate.scoring.scored_images import Item, RunFiles
from voxlate.scoring.tables import Row
from voxlate.scoring.truths import SketchedTruth, has_other_size, shows_nothing, sketch_of
from voxlate.scoring.windowed_pictures import picture_units, shows_a_window
from voxlate.system.arrays import AnyArray, Float32
from voxlate.system.errors import BadInput

UnitsName = Literal["own", "network"]
Vectors = dict[tuple[str, str], Cases]


@dataclass(frozen=True)
class Options:
    """The checked options of an evaluation; functions: for each metric that is computed from a pair of images."""

    mask: str | Path | None
    run_files: Mapping[Item, RunFiles]
    padding: Padding
    ssim_from: SsimOrigin
    regions: tuple[Region, ...]
    pool: Pool | None
    functions: Mapping[str, Score]
    scopes: tuple[Scope, ...]
    cut: Cut
    units: UnitsName
    window_hu: tuple[float, float]
    align: bool
    any_truth: bool


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth of one image on the scored range, and the voxels that count; grid: that of the scored image."""

    item: Item
    options: Options
    scale: Range
    units: Units
    grid: Grid

    @cached_property
    def scan(self) -> Volume:
        """The truth as it was scanned, in canonical orientation."""
        return read_canonical(self.item.case.files[self.item.modality], self.item.modality)

    @cached_property
    def volume(self) -> Volume:
        """The truth in the scored unit."""
        return self.units.truth(self.scan)

    @cached_property
    def values(self) -> Float32:
        """The truth's values [D, H, W] on the scored range."""
        return self.on_range(self.volume)

    def on_range(self, image: Volume) -> Float32:
        """Values on the scored range of an image that is in the scored unit and on the truth's grid."""
        return self.scale.normalise(image.data[0], self.body)

    @cached_property
    def alignment(self) -> Alignment:
        """The alignment of the image with the truth."""
        return self.alignment_from(self.grid)

    def alignment_from(self, grid: Grid, frame: str | None = None) -> Alignment:
        """The alignment of an image on a grid, in the frame of a scan (default: that of the scored image)."""
        prepared = self.options.run_files[self.item].prepared
        return find_alignment(
            self.volume,
            grid,
            self.item.provenance,
            prepared,
            self.item.case.case,
            frame,
        )

    @cached_property
    def mask(self) -> MaskArray | None:
        return mask_of(self.options.mask, self.scan, self.item.case)

    @cached_property
    def covered(self) -> MaskArray | None:
        """The voxels that the image covers; None stands for all."""
        return self.alignment.covered(self.grid)

    @cached_property
    def inside(self) -> MaskArray | None:
        """The voxels that count: those of the mask that the image covers; None stands for all."""
        if self.covered is None:
            return self.mask
        inside = self.covered if self.mask is None else self.covered & self.mask
        if not inside.any():
            raise BadInput(
                f"{self.item.synthesis}: expected it to overlap {self.volume.origin} in space, found nothing of it there. Check that both are of one patient and one frame, or pass --prepared."
            )
        return inside

    @property
    def uncovered(self) -> float:
        """The share of the voxels to be scored that the image does not cover."""
        if self.covered is None:
            return 0.0
        absent = ~self.covered
        return float(np.mean(absent if self.mask is None else absent[self.mask]))

    @cached_property
    def outline(self) -> MaskArray:
        return foreground(self.scan)

    @property
    def body(self) -> MaskArray | None:
        """The foreground in which an image's own peak is measured, if images are divided by it."""
        return self.outline if self.scale.own else None

    @property
    def frame(self) -> MaskArray:
        """The voxels that limit regions and intervals."""
        return self.outline if self.inside is None else self.inside

    @cached_property
    def regions(self) -> list[tuple[Region, MaskArray]]:
        """The voxels of each named region; ratios of two regions have none."""
        where = (self.volume, self.scale, self.body, self.item.case, self.frame)
        placed = [region for region in self.options.regions if region.over is None]
        return [(region, find_region(region, *where)) for region in placed]

    @cached_property
    def counted(self) -> CountedVoxels:
        """The facts of the truth that scopes need."""
        options = self.options
        return CountedVoxels(
            self.volume.data[0],
            self.inside,
            self.covered,
            options.mask is not None,
            options.cut,
            self._image_of,
        )

    def _image_of(self, name: str) -> AnyArray:
        """An image of the case, or the mask, on the truth's grid, for a slice filter."""
        if name == MASK and self.mask is not None:
            return self.frame
        if name == self.item.modality:
            return self.volume.data[0]
        files = {**self.item.inputs, **self.item.case.files}
        if name not in files:
            raise BadInput(
                f"--slices: expected a modality of {self.item.case.case} ({', '.join(sorted(files))}) or mask, found {name}. Choose one of these."
            )
        return self.alignment.apply(read_canonical(files[name], name)).data[0]

    @property
    def borders(self) -> list[int]:
        """Slices at which windows of the synthesis begin or end."""
        if not self.alignment.keeps(self.grid):
            return []
        return window_borders(self.item.provenance, len(self.values))


@dataclass(frozen=True)
class ScoredItem:
    """The rows of a synthesis and its naive baselines, with a note on the alignment and on absent baselines.

    floor: the effect of misaligned scans, if they are misaligned; truth: what shows whether it is that of the image. There
    are no rows where the truth is so large or small that it does not lie on the image. vectors: of the slices' features.
    """

    rows: list[Row]
    note: str
    left_out: str
    floor: Floor | None
    truth: SketchedTruth
    vectors: Vectors = field(default_factory=dict)


def score_item(item: Item, scale: Range, options: Options) -> ScoredItem:
    """Score an image of a case and the naive baselines; raises BadInput if that is impossible."""
    case = item.case
    modality = item.modality
    units = _units_of(item, scale, options)
    stored = read_canonical(item.synthesis, modality)
    image = units.synthesis(stored)
    truth = Truth(item, options, scale, units, image.grid)
    sketched = _sketched(truth, stored)
    if not options.any_truth and shows_nothing(sketched.sketch):
        return ScoredItem([], "", "", None, sketched)
    if options.units == "network" and shows_a_window(item.provenance, modality, truth.scan.unit):
        raise BadInput(
            f"--units network: expected a truth in HU, as the image is, found the picture {truth.scan.origin}. Drop --units, and pass --window."
        )
    synthesis = truth.alignment.apply(image)
    baselines, left_out = _naive_images(truth)
    naive = {name: _in_scored_unit(one, truth) for name, one in baselines.items()}
    on_255 = _network_errors(truth, {"synthesis": synthesis, **baselines})
    rows = []
    for answer, volume in {"synthesis": synthesis, **naive}.items():
        scored, pictures = _scores(truth, answer, volume)
        if answer in on_255:
            scored["mae_network"] = on_255[answer]
        if answer == "synthesis":
            scored |= _interval_scores(truth, synthesis) | _spread_scores(truth, synthesis)
        rows.append(
            Row(
                case.case,
                case.patient,
                modality,
                answer,
                scored,
                len(truth.values),
                pictures,
            )
        )
    return ScoredItem(rows, _note(truth), " ".join(left_out), _floor(truth), sketched)


def _sketched(truth: Truth, image: Volume) -> SketchedTruth:
    """What shows whether a truth is that of an image, which is as it was stored."""
    item = truth.item
    scan = truth.scan
    unit = item.provenance.get("units", {}).get(item.modality, scan.unit)
    if shows_a_window(item.provenance, item.modality, scan.unit):
        unit = scan.unit
    if has_other_size(scan.grid, image.grid):
        sketch = sketch_of(scan, None, None, image.grid)
    else:
        on_truth = _where_covered(truth.alignment, image, truth.mask)
        sketch = sketch_of(scan, on_truth, _source_on(truth), image.grid)
    return SketchedTruth(item.case.patient or item.case.case, scan.unit, unit, sketch)


def _source_on(truth: Truth) -> Float32 | None:
    """The first source that the image was made of, on the truth's grid; None where it is not there any more."""
    for name, stated in truth.item.provenance.get("inputs", {}).items():
        path = truth.item.inputs.get(name)
        if path is None or not is_there(path) or content_hash(path) != stated.get("sha256"):
            continue
        with contextlib.suppress(BadInput):  # of a registered scan whose transform is lost
            scan = read_canonical(path, name)
            return _where_covered(truth.alignment_from(scan.grid, name), scan)
    return None


def _where_covered(alignment: Alignment, image: Volume, mask: MaskArray | None = None) -> Float32:
    """An image's values [D, H, W] on the truth's grid, NaN where it ends and outside a mask."""
    values = alignment.apply(image).data[0]
    for inside in (alignment.covered(image.grid), mask):
        if inside is not None:
            values = np.where(inside, values, np.float32(np.nan))
    return values


def _units_of(item: Item, scale: Range, options: Options) -> Units:
    """The conversions to the scored unit."""
    if options.units == "network":
        return network_units(item.provenance, item.modality, item.case.case)
    if shows_a_window(item.provenance, item.modality, scale.unit):
        return picture_units(options.window_hu, scale)
    return OWN


def _network_errors(truth: Truth, images: Mapping[str, Volume]) -> dict[str, float]:
    """MAE in network units of images in arbitrary units that are scored in shares of their own peaks.

    A wrong overall brightness counts here and not in the other scores. No errors if no provenance states the units.
    """
    item = truth.item
    if not truth.scale.own or item.modality not in item.provenance.get("network_units", {}):
        return {}
    units = network_units(item.provenance, item.modality, item.case.case)
    true_values = units.truth(truth.scan).data[0]
    errors = dict[str, float]()
    for name, image in images.items():
        known = image if name == "synthesis" else _in_physical_unit(image, truth)
        difference = np.abs(units.synthesis(known).data[0] - true_values)
        errors[name] = _mean(difference, truth.inside)
    return errors


def _note(truth: Truth) -> str:
    """A note on the alignment of the image and on its faults."""
    parts = [truth.alignment.note]
    if is_changed(truth.item.synthesis, truth.item.provenance):
        parts.append("it was changed after synth wrote it")
    if truth.item.interval is not None and truth.item.interval.changed:
        parts.append("its intervals were changed after synth wrote them, and are not scored")
    if truth.uncovered:
        parts.append(
            f"{truth.uncovered:.1%} of the scored voxels are outside the image and do not count"
        )
    return "; ".join(filter(None, [*parts, *truth.volume.guesses]))


def _floor(truth: Truth) -> Floor | None:
    item = truth.item
    sources = item.inputs or {name for name in item.case.files if name != item.modality}
    estimate = estimate_for(
        truth.options.run_files[item].prepared, item.case.case, item.modality, sources
    )
    spacing_mm = truth.volume.grid.spacing_mm
    return None if estimate is None else floor_of(truth.values, truth.inside, spacing_mm, estimate)


def _scores(
    truth: Truth, answer: str, image: Volume
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """All scores of one image of a case, and those of its pictures; its slices are added to the pool."""
    options = truth.options
    case = truth.item.case
    values = truth.on_range(image)
    pair = ImagePair(
        truth.values,
        values,
        truth.scale,
        truth.inside,
        options.padding,
        options.ssim_from,
    )
    if options.pool:
        options.pool.add(truth.item.modality, answer, (case.case, case.patient), pair)
    scored = {key: score(pair) for key, score in options.functions.items()}
    if truth.borders:
        scored["seam"] = seam(truth.values, values, truth.borders, truth.inside)
    if options.align:
        spacing_mm = truth.volume.grid.spacing_mm
        scored |= aligned_scores(pair, truth.outline, spacing_mm, options.functions)
    scored |= _in_regions(truth, image, pair)
    of_pictures: list[dict[str, Any]] = []
    for scope in options.scopes:
        means, own = scope_scores(scope, pair, truth.counted, options.functions)
        scored |= means
        of_pictures += own
    return scored, of_pictures


def _in_regions(truth: Truth, image: Volume, pair: ImagePair) -> dict[str, float]:
    """Scores in each region; pair: truth and image on the scored range."""
    scores = dict[str, float]()
    voxel_ml = float(np.prod(truth.volume.grid.spacing_mm)) / 1000
    for region, inside in truth.regions:
        overlap = None
        if region.modality == truth.item.modality:
            overlap = region.select(thresholded(image, truth.scale, truth.body), truth.frame)
        scores |= region_scores(region.name, inside, pair, overlap, voxel_ml)
    for ratio in truth.options.regions:
        if ratio.over is not None:
            scores |= ratio_scores(ratio.name, ratio.over, scores)
    return scores


def _interval_scores(truth: Truth, synthesis: Volume) -> dict[str, float]:
    """Scores of a synthesis's intervals, scaled as the synthesis."""
    interval = truth.item.interval
    units = truth.units
    scale = truth.scale
    if interval is None or interval.changed:
        return {}
    if units is not OWN or scale.own or truth.options.mask not in (None, "body"):
        # The bound is in physical units and applies to the error in the body.
        interval = replace(interval, bound=None)
    ends = [
        units.synthesis(read_canonical(path, truth.item.modality))
        for path in (interval.low, interval.high)
    ]
    aligned = [truth.alignment.apply(end).data[0] for end in ends]
    low, high = (scale.normalise_map(end, synthesis.data[0], truth.body) for end in aligned)
    scores = interval_scores(
        interval, low, high, truth.on_range(synthesis), truth.values, truth.frame
    )
    for region, part in truth.regions:
        of_region = region_coverage(low, high, truth.values, part)
        scores |= {f"{region.name}.{key}": value for key, value in of_region.items()}
    return scores


def _spread_scores(truth: Truth, synthesis: Volume) -> dict[str, float]:
    """Mean standard deviation of a synthesis's samples, and its correlation with the error."""
    if truth.item.std is None:
        return {}
    stored = read_canonical(truth.item.std, truth.item.modality)
    std = truth.alignment.apply(truth.units.spread(stored))
    spread = std.data[0] / truth.scale.gain(synthesis.data[0], truth.body)
    error = np.abs(truth.on_range(synthesis) - truth.values)
    scores = {
        "std": _mean(spread, truth.inside),
        "std_error_r": correlation(spread, error, truth.inside),
    }
    return scores | {f"{region.name}.std": _mean(spread, part) for region, part in truth.regions}


def _mean(values: Float32, inside: MaskArray | None) -> float:
    """The mean of the voxels inside, NaN if there are none."""
    counted = values if inside is None else values[inside]
    return float(np.mean(counted, dtype=np.float64)) if counted.size else math.nan


def _naive_images(truth: Truth) -> tuple[dict[str, Volume], list[str]]:
    """The images of the naive baselines by name, as they are stored, and a sentence for each that is impossible."""
    item = truth.item
    run_files = truth.options.run_files
    target = truth.item.modality
    baselines = run_files[item].baselines
    if baselines is None:
        if not any(other.baselines for other in run_files.values()):
            return {}, []
        return {}, ["No naive baselines: the run of this image has none."]
    files = {name: path for name, path in item.case.files.items() if name != target}
    inputs = item.inputs or files
    left_out = list[str]()
    images = dict[str, Volume]()
    sources = dict[str, Volume]()
    if target in baselines.means:
        try:
            images["mean image"] = _mean_image(baselines, truth, files | inputs)
        except BadInput as error:
            left_out.append(f"No mean image: {error}")
    for name, path in inputs.items():
        if (name, target) in baselines.tables and is_there(path):
            try:
                scan = read_canonical(path, name)
                sources[name] = truth.alignment_from(scan.grid, name).apply(scan)
            except BadInput as error:
                left_out.append(f"No copy and no table of {name}: {error}")
    for name, values in baselines.images(target, sources, truth.volume.grid).items():
        images[name] = replace(truth.scan, data=values[None])
    return images, left_out


def _in_scored_unit(image: Volume, truth: Truth) -> Volume:
    """A baseline in the scored unit; in arbitrary units, a baseline is stored in shares of a peak."""
    if truth.scale.own:
        return image
    return truth.units.synthesis(_in_physical_unit(image, truth))


def _in_physical_unit(image: Volume, truth: Truth) -> Volume:
    """A baseline in the unit of the target's scans; in arbitrary units, a typical peak of the training scales it."""
    baselines = truth.options.run_files[truth.item].baselines
    assert baselines is not None
    known = baselines.in_own_unit(image)
    assert known is not None  # baselines of a target state its typical peak
    return known


def _mean_image(baselines: Baselines, truth: Truth, files: dict[str, Path]) -> Volume:
    """The mean image on the truth's grid; it fills the grid of the scan that defines the grid of prepared cases."""
    fixed = baselines.fixed or truth.item.modality
    if fixed == truth.item.modality:
        scan = truth.volume
        alignment = Alignment(truth.volume.grid)
    elif fixed in files and is_there(files[fixed]):
        scan = read_canonical(files[fixed], fixed)
        alignment = truth.alignment_from(scan.grid, fixed)
    else:
        raise BadInput(
            f"expected {fixed}, whose grid it fills, found no such scan. Add it to the cohort."
        )
    box = midline_grid(scan) if baselines.align else scan.grid
    return alignment.apply(baselines.mean_image(truth.item.modality, box))
