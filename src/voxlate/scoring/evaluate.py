"""Scores a folder of syntheses, and the naive baselines, against the truth, and states how each number was made."""

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from voxlate.data.find import find_cohort
from voxlate.data.layout import CANONICAL, Axes
from voxlate.data.lists import known_patients
from voxlate.data.naive import Baselines
from voxlate.data.slice_filter import SliceFilter
from voxlate.errors import BadInput
from voxlate.images.grid import Grid, same_grid
from voxlate.images.mask import foreground
from voxlate.images.ranges import Range, range_for
from voxlate.images.volume import Volume, content_hash, is_there, read_volume
from voxlate.nets.lpips import Lpips, load_lpips
from voxlate.scoring.alignment import Move, check_prepared, find_move
from voxlate.scoring.distances import RADIOLOGICAL, Pool, slices_of
from voxlate.scoring.features import Features, features_for
from voxlate.scoring.intervals import Interval, interval_scores, region_coverage
from voxlate.scoring.items import Item, find_items, items_by_modality, not_scored
from voxlate.scoring.ledger import ledger
from voxlate.scoring.metrics import METRICS, ImagePair, Padding, SsimOrigin, correlation, seam
from voxlate.scoring.misaligned import Floor, estimate_for, floor_of, misaligned_part
from voxlate.scoring.naive import naive_images, scored_as
from voxlate.scoring.network_units import RANGE, NetworkUnits, network_units
from voxlate.scoring.provenance import TAUGHT, provenance_of, stated_inputs, trained_on, window_borders
from voxlate.scoring.regions import (
    MaskArray,
    Region,
    find_region,
    mask_of,
    masks_of_several,
    ratio_scores,
    read_canonical,
    region_scores,
    regions_from,
    thresholded,
)
from voxlate.scoring.runs import OfRun, bounds, naive_cases, of_runs, stated_warnings
from voxlate.scoring.scopes import (
    CROP,
    Counted,
    Cut,
    Scope,
    check_pictures,
    counted,
    filter_from,
    scope_scores,
    scopes_from,
)
from voxlate.scoring.tables import Row, Scores

Progress = Callable[[int, int, str], None]
Units = Literal["own", "network"]


@dataclass(frozen=True)
class Options:
    """The options of an evaluation, checked and loaded."""

    mask: str | Path | None
    of_run: Mapping[Item, OfRun]
    padding: Padding
    ssim_from: SsimOrigin
    regions: tuple[Region, ...]
    pool: Pool | None
    lpips: Lpips | None
    scopes: tuple[Scope, ...]
    cut: Cut
    units: Units


@dataclass(frozen=True)
class Truth:
    """The true image of one item on the scored range, its mask (`inside`), and its regions within `frame`.

    counted: what its scopes need, where there are any. borders: slices at which windows of the synthesis begin or end.
    """

    volume: Volume
    values: NDArray[np.float32]
    scale: Range
    body: MaskArray | None
    inside: MaskArray | None
    frame: MaskArray | None
    regions: tuple[tuple[Region, MaskArray], ...]
    move: Move
    counted: Counted | None
    borders: list[int]


def evaluate(
    out: Path | str,
    truth: Path | str,
    *,
    mask: str | Path | None = None,
    value_range: Mapping[str, Sequence[float]] | Sequence[float] | None = None,
    naive: Baselines | Path | str | None = None,
    split: str | None = None,
    cases: Collection[str] | None = None,
    pattern: str | None = None,
    manifest: Path | None = None,
    preset: str | None = None,
    patients: Path | None = None,
    allow_outside: bool = False,
    padding: Padding = "valid",
    ssim_from: SsimOrigin = "low",
    features: str | Path | Features | None = None,
    lpips: Path | str | None = None,
    prepared: Path | None = None,
    regions: Mapping[str, str] | None = None,
    scopes: Sequence[str] = (),
    slices: SliceFilter | str | None = None,
    crop: int = CROP,
    seed: int = 0,
    units: Units = "own",
    progress: Progress | None = None,
) -> Scores:
    """Score OUT/<case>/<modality> against the same case of the cohort `truth`; write metrics.csv and metrics.json.

    mask: None for the whole image, "body" or "brain" (found in the truth), "cohort" (the cohort's own mask files),
    or a file (`{case}` in its path stands for the case). value_range: (low, high), for all or by modality.
    naive: the naive baselines, or their file; by default those of the run that each image's provenance names.
    cases: the only cases to score, where not the cohort decides which are in the split.
    ssim_from: SSIM measures values from the "low" end of the range, or from "zero" (the TOF-to-CTA paper's way).
    features: "texture" (built in), "vit", or a ViT's folder, for distances between all slices of truth and synthesis.
    lpips: a safetensors file with the weights of LPIPS (v0.1, AlexNet), which is then scored too.
    regions: parts scored by themselves, by name: "cta>150" or a mask file, within the mask (the body without one);
    "tmax>6" with its volume, and the mismatch ratio of two such parts as "lesion/core".
    scopes: the same scores of something else, too (docs/scores.md): "whole", "both_masked", "slices", "crops",
    "both_masked.slices", …; slices: a filter of the slices that count there, as a recipe's data.slices (or its text);
    units: "own" divides each image in arbitrary units by its own peak; "network" is what networks gave and were given
    in training, on 0 to 255. crop: pixels a side of crops. seed: of crops, intervals and distances.
    prepared: the prepared cohort that keeps the transforms of registered scans (default: the one of an image's run).
    Scores are taken in the truth's unit, on its own grid, to which images of another are resampled or moved back;
    voxels that they do not cover do not count. Raises BadInput where nothing matches.
    """
    out, truth = Path(out), Path(truth)
    found = find_cohort(truth, pattern, manifest, preset, allow_outside=allow_outside, patients=patients).cases
    known_patients(found, truth)
    asked = {case.case for case in found if split is None or case.split == split} if cases is None else set(cases)
    wanted = {case.case: case for case in found if case.case in asked}
    images = find_items(out, wanted, f"{truth}" + (f", split {split}" if split else ""))
    if units == "network" and value_range is not None:
        raise BadInput("--units network: expected no --range, found one: the range is 0 to 255. Give one of the two.")
    ranges = {
        name: RANGE if units == "network" else _range(mine, value_range)
        for name, mine in items_by_modality(images.items).items()
    }
    weights = load_lpips(lpips) if lpips is not None else None
    pool = None
    if features is not None:
        chosen = features_for(features) if isinstance(features, str | Path) else features
        pool = Pool(chosen, seed, _picture_axes(out))
    if prepared is not None:
        check_prepared(prepared, {_label(item): item.made for item in images.items})
    parts, wider = regions_from(regions), scopes_from(scopes, mask, regions or ())
    if slices is not None and not any(scope.pictures for scope in wider):
        raise BadInput("--slices: expected a --score of slices or crops, found none. Add --score slices.")
    cut = Cut(filter_from(slices, mask) if isinstance(slices, str) else slices, crop, seed)
    of_run = of_runs(images.items, naive, prepared)
    options = Options(mask, of_run, padding, ssim_from, parts, pool, weights, wider, cut, units)
    scored = _score_items(images.items, ranges, options, progress)
    rows, items = [row for one in scored.by_item.values() for row in one.rows], list(scored.by_item)
    _check_regions(options.regions, rows)
    check_pictures(options.scopes, (one for row in rows for one in row.pictures), cut)
    within = str(mask or "body") if mask in (None, "body", "brain") else f"mask {mask}"
    header = {
        "truth": _seen_from(out, truth),
        "split": split,
        "trained_on": trained_on((item.case.case, item.made) for item in items),
        "calibrations": _calibrations(items),
        "calibrated_on": sorted({item.case.case for item in items if item.made.get(TAUGHT)}),
        "naive_cases": naive_cases(of_run),
        "without_truth": images.without_truth,
        "not_synthesised": not_scored(out, images, wanted) | scored.failed,
        "moved": {_label(item): one.note for item, one in scored.by_item.items() if one.note},
        "naive_left_out": {_label(item): one.left_out for item, one in scored.by_item.items() if one.left_out},
        "scan_warnings": stated_warnings(items),
        "misaligned": misaligned_part(
            {(item.modality, item.case.case): one.floor for item, one in scored.by_item.items() if one.floor}
        ),
        "bounds": bounds(items),
        "given_truth": sorted({item.modality for item in items if item.modality in stated_inputs(item.made)}),
        "images": {_label(item): content_hash(item.synthesis) for item in items},
        "truth_files": {_label(item): _seen_from(out, item.case.files[item.modality]) for item in items},
        "source_files": _source_files(out, items),
        "shared_masks": masks_of_several(mask, parts, [item.case for item in items]),
        "regions": {region.name: region.rule(ranges, within) for region in options.regions},
        "scopes": {scope.name: scope.rule(None if mask is None else str(mask), cut) for scope in options.scopes},
    }
    choices = {
        "mask": "whole image" if mask is None else str(mask),
        "ssim_padding": padding,
        "ssim_from": ssim_from,
        "lpips": weights.name if weights else None,
    }
    stated = {name: pool.stated(name) for name in ranges} if pool else {}
    scores = Scores(tuple(rows), header, choices, ranges, seed, stated, _distances(rows, pool))
    scores.write(out)
    return scores


def _calibrations(items: Iterable[Item]) -> list[dict[str, Any]]:
    """By how many patients the intervals were learned, and how these were counted."""
    found = [{key: stated.get(key) for key in ("patients", "coverage", "confidence", "bound")}
             for item in items if item.interval is not None and (stated := item.made.get("calibration"))]  # fmt: skip
    return [one for number, one in enumerate(found) if one not in found[:number]]


def _label(item: Item) -> str:
    return f"{item.case.case}/{item.modality}"


def _seen_from(out: Path, path: Path) -> str:
    """A path relative to OUT: scores hold no absolute path, and move with both."""
    return os.path.relpath(path.absolute(), out.resolve())


def _range(items: Sequence[Item], given: Any) -> Range:
    """The range of one modality, from the first truth that can be read; of pictures the largest value of all."""
    modality, unit, largest, unread = items[0].modality, "", 0.0, list[BadInput]()
    for item in items:
        try:
            truth = read_volume(item.case.files[modality], modality)
        except BadInput as error:  # said again where this item is scored
            unread.append(error)
            continue
        unit, largest = truth.unit, max(largest, float(truth.data.max()))
        if unit != "grey":
            break
    if not unit:
        raise unread[0]
    if isinstance(given, Mapping):
        given = given.get(modality)
    if given is not None:
        return range_for(unit, given=given, source="given by the user")
    named = items[0].made.get("range", {}).get(modality)
    if named is not None:
        return range_for(unit, given=named, source="the recipe's window")
    return range_for(unit, largest if unit == "grey" else 0.0)


def _picture_axes(out: Path) -> str:
    """How slices lie in the pictures for distances: as in the model's input, where that has a layout of its own."""
    stated = str(provenance_of(out).get("axes", CANONICAL))
    return stated if stated in get_args(Axes) and stated != CANONICAL else RADIOLOGICAL


def _check_regions(regions: Sequence[Region], rows: Sequence[Row]) -> None:
    for region in regions:
        if region.over is None and not any(row.scores[f"{region.name}.voxels"] for row in rows):
            raise BadInput(
                f"region {region.name}: expected voxels of {region.text} in at least one case, found none. "
                "Move the threshold, or check the mask."
            )


def _distances(rows: Sequence[Row], pool: Pool | None) -> dict[str, dict[str, Any]]:
    """Distances by modality and answer (the synthesis, or a naive baseline)."""
    found: dict[str, dict[str, Any]] = {}
    for modality, answer in dict.fromkeys((row.modality, row.answer) for row in rows) if pool else ():
        found.setdefault(modality, {})[answer] = pool.distances(modality, answer) if pool else {}
    return found


@dataclass(frozen=True)
class ScoredItem:
    """The row of a synthesis and of each naive baseline, how the image came to the truth's grid, and what is absent.

    floor: what the scans' lying apart costs, where they do.
    """

    rows: list[Row]
    note: str
    left_out: str
    floor: Floor | None


@dataclass(frozen=True)
class ScoredItems:
    """What was scored, and by <case>/<modality> why it could not be."""

    by_item: dict[Item, ScoredItem]
    failed: dict[str, str]


def _score_items(
    items: Sequence[Item], ranges: Mapping[str, Range], options: Options, progress: Progress | None
) -> ScoredItems:
    """Score each item; one that cannot be is listed, and raises BadInput where no other can be scored either."""
    scored, failed = dict[Item, ScoredItem](), dict[str, BadInput]()
    for number, item in enumerate(items):
        if progress:
            progress(number, len(items), item.case.case)
        try:
            scored[item] = _score_item(item, ranges[item.modality], options)
        except BadInput as error:
            failed[_label(item)] = error
    if failed and not scored:
        raise next(iter(failed.values()))
    if progress:
        progress(len(items), len(items), "")
    return ScoredItems(scored, {label: str(error) for label, error in failed.items()})


def _score_item(item: Item, scale: Range, options: Options) -> ScoredItem:
    image = read_canonical(item.synthesis, item.modality)
    std = None if item.std is None else read_canonical(item.std, item.modality)
    case = item.case.case
    own = network_units(item.made, item.modality, case) if options.units == "network" else None
    image, std = (image, std) if own is None else (own.synthesis(image), None if std is None else own.spread(std))
    truth, share = _truth(item, scale, options, image.grid, own)
    synthesis = truth.move.move(image)
    head = (item.case.case, item.case.patient, item.modality)
    if options.pool:
        pictures = slices_of(truth.values, scale, truth.inside, options.pool.axes)
        options.pool.add(item.modality, "truth", *head[:2], pictures)
    scored, of_pictures = _scores(item, "synthesis", synthesis, truth, options)
    changed = item.interval is not None and item.interval.changed
    if item.interval is not None and not changed:
        of_body = options.mask in (None, "body")
        scored |= _interval_scores(item.interval, item.modality, synthesis, truth, scale, own, of_body)
    if std is not None:
        spread = truth.move.move(std).data[0] / scale.gain(synthesis.data[0], truth.body)
        error = np.abs(scale.normalise(synthesis.data[0], truth.body) - truth.values)
        scored["std"] = float(np.mean(spread if truth.inside is None else spread[truth.inside], dtype=np.float64))
        scored["std_error_r"] = correlation(spread, error, truth.inside)
        for region, part in truth.regions:
            scored[f"{region.name}.std"] = float(np.mean(spread[part], dtype=np.float64)) if part.any() else math.nan
    depth = len(truth.values)
    rows = [Row(*head, "synthesis", scored, depth, of_pictures)]
    naive, left_out = _naive_images(item, truth, image.grid, options)
    for name, volume in naive.items():
        baselines = options.of_run[item].baselines
        assert baselines is not None
        shown = scored_as(volume, baselines, scale, own)
        if shown is None:
            left_out.append(f"No {name}: a run of an earlier version, which states no unit for --range.")
            continue
        scored, of_pictures = _scores(item, name, shown, truth, options)
        rows.append(Row(*head, name, scored, depth, of_pictures))
    note = truth.move.note
    if changed:
        note += "; its intervals are other files than synth wrote, and are not scored"
    if share:
        note += f"; {share:.1%} of the scored voxels lie outside it and do not count"
    note = "; ".join(filter(None, [note, *truth.volume.guesses]))
    return ScoredItem(rows, note, " ".join(left_out), _floor(item, truth, options))


def _interval_scores(
    interval: Interval,
    modality: str,
    synthesis: Volume,
    truth: Truth,
    scale: Range,
    own: NetworkUnits | None,
    of_body: bool,
) -> dict[str, float]:
    """Scores of a synthesis's intervals, scaled as it is itself; of_body: whether the body is what counts."""
    ends = [read_canonical(path, modality) for path in (interval.low, interval.high)]
    ends = ends if own is None else [own.synthesis(one) for one in ends]
    moved = [truth.move.move(one).data[0] for one in ends]
    made = scale.normalise(synthesis.data[0], truth.body)
    low, high = (scale.alike(one, synthesis.data[0], truth.body) for one in moved)
    assert truth.frame is not None
    found = interval_scores(interval, low, high, made, truth.values, truth.frame)
    if own is not None or scale.own or not of_body:  # the bound is in physical units, and of the body's error
        found = {key: value for key, value in found.items() if not key.startswith("mae_bound")}
    for region, part in truth.regions:
        found |= {f"{region.name}.{key}": one for key, one in region_coverage(low, high, truth.values, part).items()}
    return found


def _floor(item: Item, truth: Truth, options: Options) -> Floor | None:
    sources = _inputs_of(item) or {name for name in item.case.files if name != item.modality}
    estimate = estimate_for(options.of_run[item].prepared, item.case.case, item.modality, sources)
    spacing_mm = truth.volume.grid.spacing_mm
    return None if estimate is None else floor_of(truth.values, truth.inside, spacing_mm, estimate)


def _naive_images(item: Item, truth: Truth, image: Grid, options: Options) -> tuple[dict[str, Volume], list[str]]:
    """The naive baselines of a case, and a sentence for each that could not be made; image: the synthesis's grid."""
    baselines, prepared = options.of_run[item].baselines, options.of_run[item].prepared
    if baselines is None:
        others = any(one.baselines for one in options.of_run.values())
        return {}, ["No naive baselines: the run of this image has none."] if others else []
    if baselines.fixed is None and truth.move.transform is None and same_grid(image, truth.volume.grid):
        baselines = replace(baselines, fixed="")  # nothing was moved, so that the mean lies as its target

    def move_from(grid: Grid, frame: str) -> Move:
        return find_move(truth.volume, grid, item.made, prepared, item.case.case, frame)

    files = {name: path for name, path in item.case.files.items() if name != item.modality}
    return naive_images(baselines, truth.volume, move_from, files, _inputs_of(item) or files)


def _truth(item: Item, scale: Range, options: Options, image: Grid, units: NetworkUnits | None) -> tuple[Truth, float]:
    """The truth of an image on a grid, and the share of what is to be scored that the image does not cover."""
    volume = read_canonical(item.case.files[item.modality], item.modality)
    inside = mask_of(options.mask, volume, item.case)
    framed = inside is None and (options.regions or item.interval is not None)
    outline = foreground(volume) if scale.own or framed else None
    volume = volume if units is None else units.truth(volume)
    move = find_move(volume, image, item.made, options.of_run[item].prepared, item.case.case)
    body = outline if scale.own else None
    covered, share = move.covered(image), 0.0
    covered = None if covered is None or covered.all() else covered
    if covered is not None:
        asked = np.ones(covered.shape, bool) if inside is None else inside
        share = float((asked & ~covered).sum() / asked.sum())
        inside = asked & covered
        if not inside.any():
            raise BadInput(
                f"{item.synthesis}: expected it to overlap {volume.origin} in space, found nothing of it there. Check "
                "that both are of one patient and one frame, or pass --prepared."
            )
    frame = outline if inside is None else inside
    regions = []
    if frame is not None:
        parts = [region for region in options.regions if region.over is None]
        regions = [(region, find_region(region, volume, scale, body, item.case, frame)) for region in parts]
    values = scale.normalise(volume.data[0], body)
    needs = None
    if options.scopes:
        image_of = _filter_images(item, volume, move, options)
        needs = counted(volume.data[0], inside, covered, options.mask is not None, options.cut.slices, image_of)
    as_made = move.transform is None and same_grid(image, volume.grid)
    borders = window_borders(item.made, len(values)) if as_made else []
    return Truth(volume, values, scale, body, inside, frame, tuple(regions), move, needs, borders), share


def _filter_images(item: Item, truth: Volume, move: Move, options: Options) -> Callable[[str], NDArray[np.float32]]:
    """Images of a case by modality, on the truth's grid, for a filter of slices."""

    def image_of(name: str) -> NDArray[np.float32]:
        if name == item.modality:
            return truth.data[0]
        files = {**_inputs_of(item), **item.case.files}
        if name not in files:
            raise BadInput(
                f"--slices: expected a modality of {item.case.case} ({', '.join(sorted(files))}) or mask, "
                f"found {name}. Choose one of these."
            )
        return move.move(read_canonical(files[name], name)).data[0]

    return image_of


def _scores(
    item: Item, answer: str, volume: Volume, truth: Truth, options: Options
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """All scores of one image of a case, and those of its pictures; its slices go into the pool."""
    values = truth.scale.normalise(volume.data[0], truth.body)
    if options.pool:
        slices = slices_of(values, truth.scale, truth.inside, options.pool.axes)
        options.pool.add(item.modality, answer, item.case.case, item.case.patient, slices)
    pair = ImagePair(truth.values, values, truth.scale, truth.inside, options.padding, options.ssim_from)
    scored = {metric.key: metric.compute(pair) for metric in METRICS if metric.compute}
    if truth.borders:
        scored["seam"] = seam(truth.values, values, truth.borders, truth.inside)
    if options.lpips:
        pictures = [slices_of(one, truth.scale, truth.inside) for one in (truth.values, values)]
        scored["lpips"] = float(options.lpips(*pictures).mean())
    voxel_ml = float(np.prod(truth.volume.grid.spacing_mm)) / 1000
    for region, inside in truth.regions:
        overlap = None
        if region.modality == item.modality and truth.frame is not None:
            overlap = region.select(thresholded(volume, truth.scale, truth.body), truth.frame)
        scored |= region_scores(region.name, inside, truth.values, values, overlap, voxel_ml, truth.scale)
        pieces = ledger(inside, truth.values, values, overlap)
        scored |= {f"{region.name}.{key}": count for key, count in pieces.items()}
    for ratio in options.regions:
        if ratio.over is not None:
            scored |= ratio_scores(ratio.name, ratio.over, scored)
    of_pictures: list[dict[str, Any]] = []
    for scope in options.scopes:
        assert truth.counted is not None
        means, own = scope_scores(scope, pair, truth.counted, options.cut, options.lpips)
        scored |= means
        of_pictures += own
    return scored, of_pictures


def _inputs_of(item: Item) -> dict[str, Path]:
    """The scans a synthesis was made from: as its provenance says, else as the cohort has them."""
    stated = stated_inputs(item.made).items()
    return {name: path if is_there(path) else item.case.files.get(name, path) for name, path in stated}


def _source_files(out: Path, items: Sequence[Item]) -> dict[str, dict[str, str]]:
    """The scans that any image of a case was made from, by case."""
    found = dict[str, dict[str, str]]()
    for item in items:
        mine = {name: _seen_from(out, path) for name, path in _inputs_of(item).items()}
        found[item.case.case] = found.get(item.case.case, {}) | mine
    return found
