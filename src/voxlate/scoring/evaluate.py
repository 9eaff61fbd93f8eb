"""The evaluation of a folder of syntheses and of naive baselines against the truth, with all conventions stated."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from voxlate.batches.slice_filter import SliceFilter
from voxlate.cases.layout import CANONICAL
from voxlate.cohorts.case_files import CaseFiles
from voxlate.cohorts.find import find_cohort
from voxlate.cohorts.slice_lists import require_patients
from voxlate.executors.job import Context, Executor, InProcess, Outcome, case_sentence
from voxlate.formats.io import content_hash, is_there, read_volume
from voxlate.images.ranges import Range, range_for
from voxlate.nets.lpips import Lpips, load_lpips
from voxlate.options.evaluate import EvaluateOptions
from voxlate.scoring.aligned import NAME, RULE, check_name, moved_images
from voxlate.scoring.alignment import check_prepared
from voxlate.scoring.case_scores import Options, ScoredItem, UnitsName, score_item
from voxlate.scoring.distances import RADIOLOGICAL, Pool, slices_of
from voxlate.scoring.features import features_for
from voxlate.scoring.metrics import METRICS, ImagePair, Score
from voxlate.scoring.misaligned import misaligned_part
from voxlate.scoring.network_units import RANGE
from voxlate.scoring.provenance import (
    TAUGHT,
    provenance_of,
    recorded_splits,
    run_folders,
    stated_inputs,
    trained_on,
)
from voxlate.scoring.regions import Region, masks_of_several, regions_from
from voxlate.scoring.scopes import Cut, Scope, check_pictures, filter_from, scopes_from
from voxlate.scoring.scored_images import (
    Item,
    RunFiles,
    find_items,
    items_by_modality,
    not_scored,
    run_files_of,
)
from voxlate.scoring.tables import Row, Scores
from voxlate.scoring.truths import LEFT_OUT, Fault, fault_lines, faults_of, scale_line
from voxlate.scoring.verdict import SYNTHESIS
from voxlate.scoring.windowed_pictures import assumption, shows_a_window, window_of
from voxlate.system.errors import BadInput
from voxlate.system.files import relative_to

Progress = Callable[[int, int, str], None]


def _in_split(split: str | None, cases: Iterable[CaseFiles], out: Path) -> set[str]:
    """The cases of a split by their cohort's table, or by the provenance of their image, or else by the training."""
    trained = recorded_splits(run_folders(provenance_of(out)))
    recorded = {case: name for name, several in trained.items() for case in several}

    def split_of(case: CaseFiles) -> str | None:
        stated = provenance_of(out, case.case).get("split")
        return case.split or stated or recorded.get(case.case)

    return {case.case for case in cases if split is None or split_of(case) == split}


def evaluate(
    out: Path | str,
    truth: Path | str,
    *,
    cases: Collection[str] | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Scores:
    """Score OUT/<case>/<modality> against the same case of the cohort `truth`; write metrics.csv and metrics.json.

    options: the fields of EvaluateOptions; see find.find_cohort for those of the layout.
    mask: None for the whole image, "body" or "brain" (computed from the truth), "cohort" (the cohort's mask
    files), or a file (`{case}` in its path stands for the case). value_range: (low, high), for all or by modality.
    naive: the naive baselines, or their file; by default those of the run that each image's provenance names.
    cases: the cases to score, instead of those of the split. executor: scores images, by default this process.
    ssim_from: SSIM measures values from the "low" end of the range, or from "zero" (as the TOF-to-CTA paper).
    features: "texture" (built in), "vit", or a ViT's folder, for distances between all slices of truth and synthesis.
    lpips: a safetensors file with the weights of LPIPS (v0.1, AlexNet), which is then scored too.
    regions: parts with scores of their own, by name: "cta>150" or a mask file, within the mask (the body without one);
    "tmax>6" with its volume, and the mismatch ratio of two such parts as "lesion/core".
    scopes: additional scopes of the same scores (docs/guides/comparing.md): "whole", "both_masked", "slices",
    "crops", "both_masked.slices", …; slices: a filter of the slices that count there, as a recipe's data.slices (or its
    text); units: "own" divides each image in arbitrary units by its own peak; "network" is what networks gave and were
    given in training, on 0 to 255. crop: pixels a side of crops. seed: of crops, intervals and distances.
    prepared: the prepared cohort that keeps the transforms of registered scans (default: the one of an image's run).
    Scores are taken in the truth's unit, on its own grid, to which images of another are resampled or moved back;
    voxels that they do not cover do not count. Raises BadInput where nothing matches.
    """
    asked = EvaluateOptions(**options)
    out, truth = Path(out), Path(truth)
    found = find_cohort(truth, **asked.layout).cases
    require_patients(found, truth)
    chosen = _in_split(asked.split, found, out) if cases is None else set(cases)
    wanted = {case.case: case for case in found if case.case in chosen}
    images = find_items(out, wanted, f"{truth}" + (f", split {asked.split}" if asked.split else ""))
    ranges = _ranges(images.items, asked.value_range, asked.units)
    weights = None if asked.lpips is None else load_lpips(asked.lpips)
    by_name = isinstance(asked.features, str | Path)
    features = features_for(asked.features) if by_name else asked.features
    axes = provenance_of(out).get(
        "axes", CANONICAL
    )  # of the model's input, where that has a layout of its own
    pool = (
        None
        if features is None
        else Pool(features, asked.seed, RADIOLOGICAL if axes == CANONICAL else axes)
    )
    if asked.prepared is not None:
        check_prepared(asked.prepared, {item.label: item.provenance for item in images.items})
    regions, scopes, slices = rules_of(asked)
    cut = Cut(slices, asked.crop, asked.seed)
    run_files = run_files_of(images.items, asked.naive, asked.prepared)
    rules = Options(
        asked.mask,
        run_files,
        asked.padding,
        asked.ssim_from,
        regions,
        pool,
        {},
        scopes,
        cut,
        asked.units,
        window_of(asked.window),
        asked.align,
        asked.any_truth,
    )
    job = _ScoreJob(tuple(images.items), ranges, rules, weights)
    every, failed = _score_items(job, executor or InProcess(), progress)
    faults = _faults(every, found)
    left_out = {} if asked.any_truth else faults
    scored = {item: one for item, one in every.items() if item.label not in left_out}
    if not scored:
        raise BadInput(" ".join(fault_lines(faults, len(every), LEFT_OUT)))
    if pool is not None:
        for one in scored.values():
            pool.join(one.vectors)
    rows = [row for one in scored.values() for row in one.rows]
    _check_regions(regions, rows)
    check_pictures(scopes, (one for row in rows for one in row.pictures), cut)
    header = {
        "truth": relative_to(out, truth),
        "split": asked.split,
        "without_truth": images.without_truth,
        "not_synthesised": not_scored(out, images, wanted) | failed,
        "wrong_truths": _stated_faults(every, faults),
        "wrong_truths_scored": asked.any_truth,
        "other_scales": scale_line({item.label: one.truth for item, one in scored.items()}),
        **_of_images(out, scored, rules),
        **_rules(
            rules, ranges, moved_images(row.scores for row in rows if row.answer == SYNTHESIS)
        ),
        **_windows(scored, ranges, asked.window),
    }
    choices = {
        "mask": "whole image" if asked.mask is None else str(asked.mask),
        "ssim_padding": asked.padding,
        "ssim_from": asked.ssim_from,
        "lpips": weights.name if weights else None,
    }
    stated = {name: pool.stated(name) for name in ranges} if pool else {}
    distances = {name: pool.distances(name) for name in ranges} if pool else {}
    scores = Scores(tuple(rows), header, choices, ranges, asked.seed, stated, distances)
    scores.write(out)
    return scores


def rules_of(
    asked: EvaluateOptions,
) -> tuple[tuple[Region, ...], tuple[Scope, ...], SliceFilter | None]:
    """The regions, the scopes and the slices that count; raises BadInput for texts that name none."""
    if asked.align:
        check_name(asked.regions)
    regions = regions_from(asked.regions)
    scopes = scopes_from(asked.scopes, asked.mask, asked.regions or ())
    slices = None if asked.slices is None else filter_from(asked.slices, asked.mask, scopes)
    return regions, scopes, slices


def _ranges(items: Sequence[Item], given: Any, units: UnitsName) -> dict[str, Range]:
    """The scored range of each modality."""
    if units == "network" and given is not None:
        raise BadInput(
            "--units network: expected no --range, found one: the range is 0 to 255. Give one of the two."
        )
    by_modality = items_by_modality(items).items()
    return {name: RANGE if units == "network" else _range(own, given) for name, own in by_modality}


def _functions(weights: Lpips | None) -> dict[str, Score]:
    """The functions of a pair of images, by the key of the metric."""
    known = {metric.key: metric.compute for metric in METRICS if metric.compute}
    return known if weights is None else known | {"lpips": partial(_lpips, weights)}


def _lpips(weights: Lpips, pair: ImagePair) -> float:
    """Mean LPIPS over the slices that intersect the mask."""
    return float(weights(slices_of(pair.truth, pair), slices_of(pair.synthesis, pair)).mean())


def _of_images(out: Path, scored: Mapping[Item, ScoredItem], options: Options) -> dict[str, Any]:
    """The entries of metrics.json on the scored images: their runs, files and scans."""
    items = list(scored)
    floors = {
        (item.modality, item.case.case): result.floor
        for item, result in scored.items()
        if result.floor
    }
    return {
        "trained_on": trained_on((item.case.case, item.provenance) for item in items),
        "calibrations": _calibrations(items),
        "calibrated_on": sorted({item.case.case for item in items if item.provenance.get(TAUGHT)}),
        "naive_cases": _naive_cases(options.run_files),
        "moved": {item.label: result.note for item, result in scored.items() if result.note},
        "naive_left_out": {
            item.label: result.left_out for item, result in scored.items() if result.left_out
        },
        "scan_warnings": _warnings(items),
        "misaligned": misaligned_part(floors),
        "bounds": _bounds(items),
        "given_truth": sorted(
            {item.modality for item in items if item.modality in stated_inputs(item.provenance)}
        ),
        "images": {item.label: content_hash(item.synthesis) for item in items},
        "truth_files": {
            item.label: relative_to(out, item.case.files[item.modality]) for item in items
        },
        "source_files": _source_files(out, items),
        "shared_masks": masks_of_several(
            options.mask, options.regions, [item.case for item in items]
        ),
    }


def _windows(
    items: Iterable[Item], ranges: Mapping[str, Range], given: Sequence[float] | None
) -> dict[str, list[str]]:
    """The entry of a sentence for each modality whose truth is a picture and whose images are in HU, if any."""
    window_hu = window_of(given)
    names = {
        item.modality
        for item in items
        if shows_a_window(item.provenance, item.modality, ranges[item.modality].unit)
    }
    if given is not None and not names:
        raise BadInput(
            "--window: expected pictures (PNG) of a true CT and synthesised images in HU, found none. Drop --window."
        )
    sentences = [assumption(window_hu, given is not None, name) for name in sorted(names)]
    return {"windows": sentences} if sentences else {}


def _rules(options: Options, ranges: Mapping[str, Range], moved: str) -> dict[str, Any]:
    """Sentences on regions and scopes; moved: how many images --align could move."""
    mask = None if options.mask is None else str(options.mask)
    within = (mask or "body") if mask in (None, "body", "brain") else f"mask {mask}"
    return {
        "regions": {region.name: region.rule(ranges, within) for region in options.regions},
        "scopes": {
            **({NAME: f"{RULE}; {moved}"} if options.align else {}),
            **{scope.name: scope.rule(mask, options.cut) for scope in options.scopes},
        },
    }


def _calibrations(items: Iterable[Item]) -> list[dict[str, Any]]:
    """The different calibrations of the intervals: number of patients, coverage and confidence."""
    learned = [item.provenance["calibration"] for item in items if item.interval is not None]
    stated = [
        {key: calibration.get(key) for key in ("patients", "coverage", "confidence", "bound")}
        for calibration in learned
    ]
    return [
        calibration
        for number, calibration in enumerate(stated)
        if calibration not in stated[:number]
    ]


def _range(items: Sequence[Item], given: Any) -> Range:
    """The range of one modality by the first readable truth; pictures need the largest value of all truths."""
    modality = items[0].modality
    unit = ""
    largest = 0.0
    unread = list[BadInput]()
    for item in items:
        try:
            truth = read_volume(item.case.files[modality], modality)
        except BadInput as error:  # raised again when this image is scored
            unread.append(error)
            continue
        unit = truth.unit
        largest = max(largest, float(truth.data.max()))
        if unit != "grey":
            break
    if not unit:
        raise unread[0]
    if isinstance(given, Mapping):
        given = given.get(modality)
    if shows_a_window(items[0].provenance, modality, unit):
        if given is not None:
            raise BadInput(
                f"--range: expected none for {modality}, whose truth is a picture that shows a window of HU, found one. Pass --window instead."
            )
        return range_for(unit, largest)
    if given is not None:
        return range_for(unit, given=given, source="given by the user")
    named = items[0].provenance.get("range", {}).get(modality)
    if named is not None:
        return range_for(unit, given=named, source="the recipe's window")
    return range_for(unit, largest if unit == "grey" else 0.0)


def _check_regions(regions: Sequence[Region], rows: Sequence[Row]) -> None:
    for region in regions:
        if region.over is None and not any(row.scores[f"{region.name}.voxels"] for row in rows):
            raise BadInput(
                f"region {region.name}: expected voxels of {region.text} in at least one case, found none. Move the threshold, or check the mask."
            )


@dataclass(frozen=True)
class _ScoreJob:
    """The scores of images, each by its number in `items`; weights: of LPIPS.

    The metrics' functions are not part of the options, because they cannot be sent to a worker.
    """

    items: tuple[Item, ...]
    ranges: Mapping[str, Range]
    options: Options
    weights: Lpips | None
    uses_network: bool = False

    def open(self) -> Callable[[int, Context], ScoredItem]:
        return partial(self._score, _functions(self.weights))

    def _score(self, functions: Mapping[str, Score], number: int, _: Context) -> ScoredItem:
        """The scores of an image, and the feature vectors of its slices."""
        item = self.items[number]
        pool = None if self.options.pool is None else replace(self.options.pool, vectors={})
        options = replace(self.options, functions=functions, pool=pool)
        scored = score_item(item, self.ranges[item.modality], options)
        return replace(scored, vectors={} if pool is None else pool.vectors)


def _score_items(
    job: _ScoreJob, executor: Executor, progress: Progress | None
) -> tuple[dict[Item, ScoredItem], dict[str, str]]:
    """The scored images in their order, and errors by <case>/<modality>; raises BadInput if no image can be scored."""
    items = job.items
    outcomes = dict[int, Outcome]()
    with closing(executor.run(job, range(len(items)))) as running:
        for number, outcome in running:
            if progress:
                progress(len(outcomes), len(items), items[number].case.case)
            outcomes[number] = outcome
    scored = dict[Item, ScoredItem]()
    failed = dict[str, Exception]()
    for number, item in enumerate(items):
        outcome = outcomes[number]
        if outcome.error is not None:
            failed[item.label] = outcome.error
            continue
        scored[item] = outcome.result
    if not scored:
        raise next(iter(failed.values()))
    if progress:
        progress(len(items), len(items), "")
    return scored, {label: case_sentence(label, error) for label, error in failed.items()}


def _faults(scored: Mapping[Item, ScoredItem], cohort: Sequence[CaseFiles]) -> dict[str, Fault]:
    """The images whose truth cannot be theirs, by <case>/<modality>."""
    others = _made_of_others(scored, cohort)
    faults = dict[str, Fault]()
    for items in items_by_modality([*scored]).values():
        truths = {
            item.label: replace(scored[item].truth, other=others.get(item.label, ""))
            for item in items
        }
        faults |= faults_of(truths)
    return faults


def _made_of_others(items: Iterable[Item], cohort: Sequence[CaseFiles]) -> dict[str, str]:
    """The case of the cohort from whose scan an image was made, by <case>/<modality>, where it is another one."""
    others = dict[str, str]()
    for item in items:
        for name, content in _changed_sources(item).items():
            owners = (case for case in cohort if name in case.files and case.case != item.case.case)
            same = (case.case for case in owners if content_hash(case.files[name]) == content)
            if (owner := next(same, None)) is not None:
                others[item.label] = owner
    return others


def _stated_faults(
    scored: Mapping[Item, ScoredItem], faults: Mapping[str, Fault]
) -> dict[str, dict[str, Any]]:
    """The faults as entries of metrics.json, each with the MAE of the image where it was scored."""
    stated = {label: asdict(fault) for label, fault in faults.items()}
    for item, result in scored.items():
        for row in result.rows:
            if item.label in stated and row.answer == SYNTHESIS:
                stated[item.label]["mae"] = row.flat().get("mae")
    return stated


def _source_files(out: Path, items: Sequence[Item]) -> dict[str, dict[str, str]]:
    """The source scans of all images of a case, by case."""
    files = dict[str, dict[str, str]]()
    for item in items:
        own = {name: relative_to(out, path) for name, path in item.inputs.items()}
        files.setdefault(item.case.case, {}).update(own)
    return files


def _naive_cases(run_files: Mapping[Item, RunFiles]) -> int | dict[str, int] | None:
    """Number of training cases of the naive baselines, by modality if runs differ; None without baselines."""
    counts: dict[str, int] = {}
    for item, files in run_files.items():
        if files.baselines is not None:
            counts[item.modality] = files.baselines.cases
    if len(set(counts.values())) > 1:
        return counts
    return next(iter(counts.values()), None)


def _warnings(items: Iterable[Item]) -> dict[str, list[Any]]:
    """The warnings of synth by case, and warnings of images whose sources differ from those of the truth's case."""
    warnings = dict[str, list[Any]]()
    for item in items:
        own = warnings.setdefault(item.case.case, [])
        own += [*item.provenance.get("warnings", []), *_of_others(item)]
    return {case: list(dict.fromkeys(own)) for case, own in warnings.items() if own}


def _of_others(item: Item) -> list[str]:
    """A sentence for each source scan of an image that differs from the scan of this name in the truth's case."""
    return [
        f"Its source {name} differs from the {name} next to its truth: is it the same patient?"
        for name in _changed_sources(item)
    ]


def _changed_sources(item: Item) -> dict[str, str]:
    """The content of each source scan of an image that differs from the scan of this name in the truth's case."""
    changed = dict[str, str]()
    for name, stated in item.provenance.get("inputs", {}).items():
        own = item.case.files.get(name)
        content = stated.get("sha256")
        if content and own is not None and is_there(own) and content_hash(own) != content:
            changed[name] = content
    return changed


def _bounds(items: Iterable[Item]) -> dict[str, float]:
    """MAE of the autoencoder alone in 255 network units, by target of a latent model."""
    bounds: dict[str, float] = {}
    for item in items:
        bound = item.provenance.get("bound", {}).get(item.modality)
        if bound is not None:
            bounds[item.modality] = bound
    return bounds
