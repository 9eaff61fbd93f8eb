"""The evaluation of a folder of syntheses and of naive baselines against the truth, with all conventions stated."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from voxlate.base.config import load_object, needs_code
from voxlate.base.errors import BadInput, first_of
from voxlate.base.executors.case_work import (
    Context,
    Executor,
    Progress,
    case_sentence,
    no_report,
    run_cases,
)
from voxlate.base.executors.workers import choose_executor
from voxlate.base.files import relative_to
from voxlate.base.groups import grouped
from voxlate.base.messages import UNOWNED, Message, message
from voxlate.base.option import merge
from voxlate.checks.truths import KEPT, LEFT_OUT, Fault, fault_messages, judge
from voxlate.evaluation.evaluation_options import EvaluateOptions
from voxlate.evaluation.scoring.case_scores import TRUTH, ScoredItem, score_item
from voxlate.evaluation.scoring.distances import distance, slices_of
from voxlate.evaluation.scoring.metrics import (
    METRIC_OF,
    RADIOLOGICAL,
    TISSUES,
    Direction,
    ImagePair,
    Score,
)
from voxlate.evaluation.scoring.scored_images import (
    Item,
    add_run_files,
    find_items,
    items_by_modality,
)
from voxlate.evaluation.scoring.scored_truth import Rules, shows_a_window
from voxlate.evaluation.scoring.scores import Scores, Table, frame_of, section_names
from voxlate.scans.cases.case import CANONICAL
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.cohorts.files_below import refuse_synthetic
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.cohorts.owners import require_patients
from voxlate.scans.cohorts.split import check_known
from voxlate.scans.formats.io import content_hash, is_there, read_volume
from voxlate.scans.images.ranges import NETWORK_RANGE, WHOLE_MASK, Range, mask_for, range_for
from voxlate.scans.images.regions import regions_from, tissue_regions
from voxlate.synthesis.provenance import (
    USED_FOR_CALIBRATION,
    provenance_of,
    run_folders,
    source_paths,
)
from voxlate.training.recipe.run_provenance import data_of_training, find_trained

if TYPE_CHECKING:
    from voxlate.science.nets.lpips import Lpips

Function = Callable[..., float]  # a metric of the user
Scored = Mapping[Item, ScoredItem]
BETTER: tuple[Direction, ...] = get_args(Direction)


def evaluate(
    out: Path | str,
    truth: Path | str,
    options: EvaluateOptions | None = None,
    *,
    cases: Collection[str] | None = None,
    progress: Progress = no_report,
    **changes: Any,
) -> Scores:
    """Score OUT/<case>/<modality> against the same case of the cohort `truth`; write scores.csv and metrics.json.

    cases: the cases to score, instead of those of the split; changes: fields of the options, of which some take objects or
    mappings in Python. value_range: (low, high), for all or by modality; regions: rules by name, such as
    {"lesion": "tmax>6"}, within the mask (the body without one); naive: Baselines, too.
    Scores are taken in the truth's unit, on its own grid, to which images of another are resampled or moved back;
    voxels that they do not cover do not count. Raises BadInput where nothing matches.
    """
    asked = merge(EvaluateOptions, options, changes)
    out = Path(out)
    truth = Path(truth)
    found = find_cohort(truth, asked)
    require_patients(found)
    place = f"{truth}, split {asked.split}" if asked.split else f"{truth}"
    images = find_items(out, _cases_to_score(found.cases, asked, out, cases), place)
    for item in images.items:
        refuse_synthetic([item.case], {item.modality})
    items = add_run_files(images.items, asked.naive, asked.prepared)
    job = _job(out, items, asked)
    every, failed = _score_items(job, choose_executor(asked), progress)

    faults, cautions = _judge(every)
    wrong = fault_messages(faults, len(every), KEPT if asked.any_truth else LEFT_OUT)
    left_out = {} if asked.any_truth else faults
    scored = {item: result for item, result in every.items() if item.label not in left_out}
    if not scored:
        raise BadInput(" ".join(map(str, wrong)))
    rows = [*chain.from_iterable(result.rows for result in scored.values())]
    for region in regions_from(asked.regions):
        if not region.tissue and not any(row.scores[f"{region.name}.voxels"] for row in rows):
            raise BadInput(
                f"region {region.name}: expected voxels of {region.text} in at least one case, found none. Move the threshold, or check the mask."
            )
    header = {
        "split": asked.split,
        "without_truth": images.without_truth,
        "not_synthesised": images.refused | failed,
        **_header(out, truth, scored, job),
        "wrong_truths": {label: f"{one.kind}: {one.found}" for label, one in faults.items()},
        "truth_messages": [said.table for said in wrong],
        "messages": [said.table for said in [*cautions, *_doubts_on(scored)]],
    }
    scores = Scores(header, frame_of(rows, header))
    scores.write(out)
    return scores


def _cases_to_score(
    cohort: Sequence[CaseFiles], asked: EvaluateOptions, out: Path, cases: Collection[str] | None
) -> dict[str, CaseFiles]:
    """The given cases, or those of the split by the cohort's table, the provenance of their image, or the training.

    Raises BadInput if no split is known.
    """
    if cases is not None:
        return {case.case: case for case in cohort if case.case in cases}
    of_training = data_of_training(run_folders(provenance_of(out))).get("splits", {})
    in_training = {case: name for name, several in of_training.items() for case in several}
    splits = {
        case.case: case.split
        or provenance_of(out, case.case).get("split")
        or in_training.get(case.case)
        for case in cohort
    }
    check_known(asked.split, splits.values())
    return {case.case: case for case in cohort if asked.split in (None, splits[case.case])}


def functions_of(given: Sequence[str | Function], allow_code: bool) -> dict[str, Function]:
    """The functions by the keys of their scores; raises BadInput for names without --allow-code, or that are taken."""
    functions = {}
    for one in given:
        if isinstance(one, str):
            if not allow_code:
                raise BadInput(needs_code([one]))
            one = load_object(one)
        key = getattr(one, "__name__", "")
        better = getattr(one, "better", "lower")
        is_free = key.isidentifier() and key not in METRIC_OF and key not in functions
        if not (callable(one) and is_free and better in BETTER):
            raise BadInput(
                f"--metrics: expected a function with a name of its own, whose attribute better is one of {', '.join(BETTER)}, found {key or one!r} ({better}). Change it."
            )
        functions[key] = one
    return functions


def score_by(key: str, function: Function) -> Score:
    """The score of a pair by a user's function of truth, synthesis and mask, each [D, H, W]; raises BadInput where it fails."""

    def score(pair: ImagePair) -> float:
        inside = np.ones(pair.truth.shape, bool) if pair.inside is None else pair.inside
        # copies, because a function may write into its arguments
        copies = (pair.truth.copy(), pair.synthesis.copy(), inside.copy())
        try:
            return float(function(*copies))
        except Exception as error:
            raise BadInput(
                f"--metrics {key}: expected a number from the function, found {type(error).__name__}: {error}. Mend the function."
            ) from error

    return score


@dataclass(frozen=True)
class _ScoreJob:
    """The scores of images, each by its number in `items`; weights: of LPIPS; own: metrics of the user by key."""

    items: Sequence[Item]
    rules: Mapping[str, Rules]
    weights: "Lpips | None"
    own: Mapping[str, Function]
    uses_network: bool = False

    def open(self) -> Callable[[int, Context], ScoredItem]:
        """The work on one image; the metrics' functions are made here, because they cannot be sent to a worker."""
        functions = {key: score_by(key, function) for key, function in self.own.items()}
        if (weights := self.weights) is not None:

            def lpips(pair: ImagePair) -> float:
                """Mean LPIPS over the slices that intersect the mask."""
                a, b = (slices_of(image, pair) for image in (pair.truth, pair.synthesis))
                return float(weights(a, b).mean())

            functions["lpips"] = lpips

        def score(number: int, _: Context) -> ScoredItem:
            """The scores of an image, and the feature vectors of its slices."""
            item = self.items[number]
            return score_item(item, self.rules[item.modality], functions)

        return score


def _job(out: Path, items: Sequence[Item], asked: EvaluateOptions) -> _ScoreJob:
    """The scores to compute: images, the range and the rules of each modality, and functions."""
    regions = regions_from(asked.regions)
    names = {region.name for region in regions}
    if WHOLE_MASK in names:
        raise BadInput(
            f"--regions: expected no region of the name {WHOLE_MASK}, which is every voxel, found one. Rename the region."
        )
    if asked.prepared is not None:
        open_cohort(asked.prepared)  # raises BadInput where there is none
    # A model may see its slices in a layout of its own.
    axes = provenance_of(out).get("axes", CANONICAL)
    rules = {}
    for name, some in items_by_modality(items).items():
        scale = _range(name, some, asked)
        of_unit = tissue_regions(name) if scale.unit == "HU" else []
        tissues = [one for one in of_unit if one.name in TISSUES and one.name not in names]
        rules[name] = Rules(
            asked,
            (*regions, *tissues),
            RADIOLOGICAL if axes == CANONICAL else axes,
            scale,
            asked.mask or mask_for(scale.unit),
            tuple(tissue.name for tissue in tissues),
        )
    weights = None
    if asked.lpips is not None:
        from voxlate.science.nets.lpips import load_lpips  # here, because it imports torch

        weights = load_lpips(asked.lpips)
    return _ScoreJob(items, rules, weights, functions_of(asked.metrics, asked.allow_code))


def _range(modality: str, items: Sequence[Item], asked: EvaluateOptions) -> Range:
    """The range of one modality by the first readable truth; pictures need the largest value of all truths."""
    given = asked.value_range
    if asked.units == "network":
        if given is not None:
            raise BadInput(
                "--units network: expected no --value-range, found one: the range is 0 to 255. Give one of the two."
            )
        return NETWORK_RANGE
    unit, largest = "", 0.0
    for item in items:
        if unit not in ("", "grey"):
            break
        with suppress(BadInput):  # raised again when this image is scored
            truth = read_volume(item.case.files[modality], modality)
            unit, largest = truth.unit, max(largest, float(truth.data.max()))
    unit = unit or read_volume(items[0].case.files[modality], modality).unit
    provenance = items[0].provenance
    ends = given.get(modality) if isinstance(given, Mapping) else given
    source = "given by the user"
    in_window = shows_a_window(provenance, modality, unit)
    if in_window and ends is not None:
        raise BadInput(
            f"--value-range: expected none for {modality}, whose truth is a picture that shows a window of HU, found one. Drop --value-range."
        )
    if ends is None and not in_window:
        ends, source = provenance.get("range", {}).get(modality), "the recipe's window"
    return range_for(unit, largest if unit == "grey" else 0.0, ends, source)


def _score_items(
    job: _ScoreJob, executor: Executor, progress: Progress
) -> tuple[Scored, dict[str, str]]:
    """The scored images in their order, and why others cannot be scored, by <case>/<modality>.

    Raises BadInput if no image can be scored.
    """

    def count(_: str, done: int, of: int) -> None:
        progress(done, of)

    outcomes = run_cases(executor, job, range(len(job.items)), count, no_report, ())
    pairs = [*zip(job.items, outcomes)]
    scored = {item: outcome.result for item, outcome in pairs if outcome.error is None}
    errors = {item.label: outcome.error for item, outcome in pairs if outcome.error}
    if not scored:
        raise next(iter(errors.values()))
    return scored, {label: case_sentence(label, error) for label, error in errors.items()}


def _judge(scored: Scored) -> tuple[dict[str, Fault], list[Message]]:
    """The images whose truth cannot be theirs, by <case>/<modality>, and messages on other truths."""
    faults = dict[str, Fault]()
    cautions = list[Message]()
    for name, items in items_by_modality(scored).items():
        truths = {item.label: scored[item].truth for item in items}
        of_name, odd = judge(truths, f"true {name}")
        faults |= of_name
        cautions += odd
    return faults, cautions


def _header(out: Path, truth: Path, scored: Scored, job: _ScoreJob) -> Table:
    """What metrics.json states beside the scores: their conventions, and the facts of their images."""
    trained = find_trained((item.case.case, item.provenance) for item in scored)
    names = section_names((item.modality, item.fold, item.case.case in trained) for item in scored)
    sections = grouped(zip(names, scored))
    stated = {}
    # modalities in the order of their names, and out-of-fold cases first
    for name in sorted(
        sections, key=lambda name: (sections[name][0].modality, not sections[name][0].fold, name)
    ):
        items = sections[name]
        modality = items[0].modality
        stated[name] = _conventions(job.rules[modality], [scored[item] for item in items])
        lpips = job.weights.name if job.weights else None
        stated[name] |= {"modality": modality, "lpips": lpips}
    regions = dict[str, str]()
    standard = dict[str, None]()
    ranges = {name: of.scale for name, of in job.rules.items()}
    masks = {f"{of.mask}" for of in job.rules.values()} - {WHOLE_MASK}
    for of in job.rules.values():
        mask = f"{of.mask}"
        within = "body" if mask in (WHOLE_MASK, "body") else f"mask {mask}"
        for region in of.regions:
            regions.setdefault(region.name, region.rule(ranges, within))
        standard |= dict.fromkeys(of.standard)
    return {
        "truth": relative_to(out, truth),
        "trained_on": trained,
        "out_of_fold": {item.case.case: item.fold for item in scored if item.fold},
        "own_metrics": {key: _describe(function) for key, function in job.own.items()},
        **_on_images(out, scored),
        "regions": regions,
        "scopes": {WHOLE_MASK: "every voxel"} if masks else {},
        "standard": [*standard, *([WHOLE_MASK] if masks else [])],
        "modalities": stated,
    }


def _conventions(rules: Rules, results: Sequence[ScoredItem]) -> Table:
    """How a section is scored, its number of slices, and the distances of their features by method."""
    scale = rules.scale
    # of each method, those of the truth and its own
    pairs = grouped(
        (method, (one.vectors[TRUTH], vectors))
        for one in results
        for method, vectors in one.vectors.items()
        if method != TRUTH
    )
    given = rules.asked.features
    name = getattr(given, "__name__", given)
    key = "texture_distance" if given == "texture" else "fd"
    return {
        "unit": scale.unit,
        "range": [scale.low, scale.high],
        "range_rule": scale.rule,
        "own_peak": scale.own,
        "mask": f"{rules.mask}",
        "ssim_from": rules.asked.ssim_from,
        "slices": sum(one.rows[0].slices for one in results),
        "features": {"name": name, "axes": rules.axes} if pairs else None,
        "distances": {method: distance(key, own) for method, own in pairs.items()},
    }


def _on_images(out: Path, scored: Scored) -> Table:
    """The entries of metrics.json on the scored images: their files, scans, runs and calibrations."""
    sources = dict[str, dict[str, str]]()
    for item in scored:
        files = {name: relative_to(out, path) for name, path in item.inputs.items()}
        sources.setdefault(item.case.case, {}).update(files)
    calibrated = {item.case.case for item in scored if item.provenance.get(USED_FOR_CALIBRATION)}
    given = {item.modality for item in scored if item.modality in source_paths(item.provenance)}
    truths = {item.label: item.case.files[item.modality] for item in scored}
    return {
        "calibrated_on": sorted(calibrated),
        "nominal_coverage": min(
            (item.interval.coverage for item in scored if item.interval), default=0
        ),
        "windows": {item.label: result.window for item, result in scored.items() if result.window},
        "moved": {item.label: result.note for item, result in scored.items() if result.note},
        "given_truth": sorted(given),
        "images": {item.label: content_hash(item.synthesis) for item in scored},
        "truths": {label: content_hash(file) for label, file in truths.items()},
        "shown": {item.label: round(result.shown, 4) for item, result in scored.items()},
        "truth_files": {label: relative_to(out, file) for label, file in truths.items()},
        "source_files": sources,
    }


def _other_sources(item: Item) -> Iterator[str]:
    """The source scans of an image whose content differs from that of the scan of this name in the truth's case."""
    for name, entry in item.provenance.get("inputs", {}).items():
        path = item.case.files.get(name)
        content = entry.get("sha256")
        if content and path is not None and is_there(path) and content_hash(path) != content:
            yield name


def _doubts_on(scored: Scored) -> Iterator[Message]:
    """Messages on what makes scores doubtful."""
    for prepared in {item.prepared for item in scored if item.prepared}:
        with suppress(BadInput):  # scores need no cohort that is damaged or gone
            yield from (one for one in open_cohort(prepared).warnings if one.code == UNOWNED)
    others = grouped((name, item.label) for item in scored for name in _other_sources(item))
    for name, labels in others.items():
        yield message(
            "other-sources",
            f"The source {name} of {first_of(labels)} differs from the {name} next to the truth: is it the same patient?",
            images=len(labels),
        )


def _describe(function: Function) -> dict[str, str]:
    """What metrics.json states on a metric of the user: its unit, in which direction it is better, and what it says of itself."""
    return {
        "unit": f"{getattr(function, 'unit', '')}",
        "better": getattr(function, "better", "lower"),
        "reduction": (function.__doc__ or "").strip().partition("\n")[0] or "of the user",
    }
