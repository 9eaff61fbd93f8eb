"""The evaluation of a folder of syntheses and of naive baselines against the truth, with all conventions stated."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas

from voxlate.base.errors import BadInput, plural
from voxlate.base.executors.case_work import (
    Context,
    Executor,
    Progress,
    case_sentence,
    no_report,
    run_cases,
)
from voxlate.base.executors.choose import choose_executor
from voxlate.base.files import relative_to
from voxlate.base.groups import grouped
from voxlate.base.messages import UNOWNED, Message, message, read_messages
from voxlate.base.options.option import merge
from voxlate.checks.check_table import ask
from voxlate.checks.truths import KEPT, LEFT_OUT, Fault, SketchedTruth, fault_messages, judge
from voxlate.evaluation.evaluate_options import EvaluateOptions
from voxlate.evaluation.scoring.case_scores import Row, Rules, ScoredItem, score_item
from voxlate.evaluation.scoring.distances import (
    RADIOLOGICAL,
    describe_features,
    distances,
    slices_of,
)
from voxlate.evaluation.scoring.evaluators import Evaluator
from voxlate.evaluation.scoring.features import Vectors, features_for
from voxlate.evaluation.scoring.foreign_images import value_messages
from voxlate.evaluation.scoring.interval_scores import has_ends
from voxlate.evaluation.scoring.metrics import METRICS, ImagePair
from voxlate.evaluation.scoring.misregistered import NAME, RULE
from voxlate.evaluation.scoring.outliers import find_outliers
from voxlate.evaluation.scoring.own_metrics import (
    Function,
    describe,
    functions_of,
    score_by,
    without_value,
)
from voxlate.evaluation.scoring.scopes import Cut, Scope, check_pictures, filter_from, scopes_from
from voxlate.evaluation.scoring.score_frame import HEAD, Table, frame_of
from voxlate.evaluation.scoring.score_units import shows_a_window, window_of, window_sentence
from voxlate.evaluation.scoring.scored_images import (
    Item,
    add_run_files,
    find_items,
    images_in,
    items_by_modality,
    not_scored,
)
from voxlate.evaluation.scoring.scored_regions import masks_of_several, read_canonical
from voxlate.evaluation.scoring.scores import Scores
from voxlate.evaluation.scoring.truth_alignment import check_prepared
from voxlate.scans.cases.axes import CANONICAL
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.cohorts.cohort_refusals import refuse_synthetic
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.cohorts.owners import require_patients
from voxlate.scans.cohorts.split import check_known
from voxlate.scans.formats.io import content_hash, is_there, read_volume
from voxlate.scans.images.grid import return_to
from voxlate.scans.images.ranges import NETWORK_RANGE, WHOLE_MASK, Range, range_for
from voxlate.scans.images.regions import Region, regions_from
from voxlate.synthesis.provenance import (
    USED_FOR_CALIBRATION,
    provenance_of,
    run_folders,
    source_paths,
)
from voxlate.training.batches.slice_filter import SliceFilter
from voxlate.training.naive import MOST_CASES, Baselines, Case, fit
from voxlate.training.recipe.run_provenance import find_trained, splits_of_training
from voxlate.training.verdict import SYNTHESIS

if TYPE_CHECKING:
    from voxlate.science.nets.lpips import Lpips

Scored = Mapping[Item, ScoredItem]
VESSELS = re.compile("vessel|arter|vein|gef|vasc|aneurysm", re.IGNORECASE)
CALIBRATION = ("patients", "coverage", "confidence", "bound", "widened", "held")


def evaluate(
    out: Path | str,
    truth: Path | str,
    options: EvaluateOptions | None = None,
    *,
    cases: Collection[str] | None = None,
    executor: Executor | None = None,
    progress: Progress = no_report,
    **changes: Any,
) -> Scores:
    """Score OUT/<case>/<modality> against the same case of the cohort `truth`; write scores.csv and metrics.json.

    cases: the cases to score, instead of those of the split; executor: scores images, by default this process;
    changes: fields of the options, of which some take objects or mappings in Python. value_range: (low, high),
    for all or by modality; regions: rules by name, such as {"lesion": "tmax>6"}, within the mask (the body without
    one); naive, features, slices: Baselines, Features and SliceFilter, too.
    Scores are taken in the truth's unit, on its own grid, to which images of another are resampled or moved back;
    voxels that they do not cover do not count. Raises BadInput where nothing matches.
    """
    asked = merge(EvaluateOptions, options, changes)
    out = Path(out)
    truth = Path(truth)
    found = find_cohort(truth, asked)
    require_patients(found, truth)
    cohort = found.cases
    chosen = _in_split(asked.split, cohort, out) if cases is None else cases
    wanted = {case.case: case for case in cohort if case.case in chosen}
    images = find_items(out, wanted, f"{truth}" + (f", split {asked.split}" if asked.split else ""))
    items = add_run_files(images.items, asked.naive, asked.prepared)
    if not any(item.baselines for item in items):
        learned = _learn(cohort, items)
        items = [replace(item, baselines=learned) for item in items]
    for item in items:
        refuse_synthetic([item.case], {item.modality})
    ranges = {name: _range(name, some, asked) for name, some in items_by_modality(items).items()}
    rules = _rules(asked, out, items)
    of_name = {name: rules.for_modality(name, scale.unit) for name, scale in ranges.items()}
    weights = None
    if asked.lpips is not None:
        from voxlate.science.nets.lpips import load_lpips  # here, because it imports torch

        weights = load_lpips(asked.lpips)
    own = functions_of(asked.metrics, asked.allow_code)
    job = _ScoreJob(tuple(items), ranges, of_name, weights, own)
    every, failed = _score_items(job, executor or choose_executor(asked), progress)
    faults, cautions = _judge(every, cohort)
    wrong = fault_messages(faults, len(every), KEPT if asked.any_truth else LEFT_OUT)
    scored = {item: of for item, of in every.items() if asked.any_truth or item.label not in faults}
    if not scored:
        raise BadInput(" ".join(map(str, wrong)))
    rows = [*chain.from_iterable(result.rows for result in scored.values())]
    _check_areas(rules, rows)
    messages = [
        *cautions,
        *_bones(rules, rows, ranges),
        *_recognised(images.recognised),
        *_outliers(rows),
        *without_value(own, rows),
    ]
    for prepared in {item.prepared for item in items if item.prepared}:
        with suppress(BadInput):  # scores need no cohort that is damaged or gone
            messages += [one for one in open_cohort(prepared).warnings if one.code == UNOWNED]
    for item, result in scored.items():
        if not item.provenance:
            messages += value_messages(item.label, result.truth)
    header = {
        "truth": relative_to(out, truth),
        "split": asked.split,
        "seed": asked.seed,
        "without_truth": images.without_truth,
        "recognised": images.recognised,
        "not_synthesised": not_scored(out, images, wanted) | failed,
        "wrong_truths": _state_faults(every, faults),
        "truth_messages": [message.table for message in wrong],
        "own_metrics": describe(own),
        **_on_images(out, scored, rules),
        **_on_areas(of_name, ranges, rows),
        **_on_windows(scored, ranges, asked.window),
        "modalities": {
            name: {
                "unit": scale.unit,
                "range": [scale.low, scale.high],
                "range_rule": scale.rule,
                "own_peak": scale.own,
                "mask": f"{of_name[name].mask}",
                "ssim_from": asked.ssim_from,
                "lpips": weights.name if weights else None,
                **_distances(scored, name, rules),
            }
            for name, scale in ranges.items()
            if any(item.modality == name for item in scored)
        },
        "messages": [message.table for message in messages],
    }
    pictures = [
        {**dict(zip(HEAD, row.head)), **picture} for row in rows for picture in row.pictures
    ]
    table = pandas.DataFrame(pictures) if pictures else None
    scores = Scores(header, frame_of(rows, header), table)
    scores.write(out)
    return scores


def _outliers(rows: Iterable[Row]) -> list[Message]:
    """Messages on syntheses whose MAE is far above the others'."""
    ours = (row for row in rows if row.method == SYNTHESIS)
    errors = grouped((row.modality, (row.case, row.scores["mae"])) for row in ours)
    return [*chain.from_iterable(find_outliers(name, dict(of)) for name, of in errors.items())]


def _bones(rules: Rules, rows: Sequence[Row], ranges: Mapping[str, Range]) -> Iterable[Message]:
    """Messages on regions of HU above a threshold that are called vessels, and mostly hold bone."""
    for region in rules.regions:
        name = region.name
        means = [
            row.scores[f"{name}.truth_mean"]
            for row in rows
            if row.modality == region.modality
            and ranges[row.modality].unit == "HU"
            and row.scores[f"{name}.voxels"]
        ]
        if VESSELS.search(name) and region.high == math.inf and means:
            yield from ask("vessels-region", {"mean_hu": float(np.mean(means)), "region": name})


def _recognised(places: Mapping[str, str]) -> list[Message]:
    """A message on images of other software, whose cases and modalities were guessed."""
    if not places:
        return []
    label, place = next(iter(places.items()))
    return [
        message(
            "recognised",
            f"{plural(len(places), 'image')} of other software: cases and modalities by their paths ({place} is {label}).",
            images=len(places),
        )
    ]


def _learn(cohort: Iterable[CaseFiles], items: Sequence[Item]) -> Baselines | None:
    """The naive baselines by the training cases of a cohort; None without any that has all scored modalities.

    No patient with a scored image counts.
    """
    targets = [*items_by_modality(items)]
    scored = {item.case.patient for item in items}
    others = (case for case in cohort if case.split == "train" and case.patient not in scored)
    training = [case.files for case in others if case.files.keys() >= {*targets}][:MOST_CASES]
    if not training:
        return None

    def read(files: Mapping[str, Path]) -> Case:
        """The scans of a case on the grid of its first target."""
        grid = read_canonical(files[targets[0]], targets[0]).grid
        return {name: return_to(read_canonical(files[name], name), grid) for name in files}, None

    first, _ = read(training[0])
    ranges = {name: range_for(one.unit, float(one.data.max())) for name, one in first.items()}
    return fit(map(read, training), [*ranges], targets, ranges)


def _in_split(split: str | None, cases: Iterable[CaseFiles], out: Path) -> set[str]:
    """The cases of a split by their cohort's table, or by the provenance of their image, or else by the training.

    Raises BadInput if no split is known.
    """
    splits = {}
    of_training = splits_of_training(run_folders(provenance_of(out)))
    for case in cases:
        in_training = [name for name, several in of_training.items() if case.case in several]
        of_image = provenance_of(out, case.case).get("split")
        splits[case.case] = case.split or of_image or next(iter(in_training[::-1]), None)
    check_known(split, splits.values())
    return {case for case, known in splits.items() if split in (None, known)}


def _rules(asked: EvaluateOptions, out: Path, items: Sequence[Item]) -> Rules:
    """The checked options of an evaluation."""
    by_name = isinstance(asked.features, str | Path)
    features = features_for(asked.features) if by_name else asked.features
    # A model may see its slices in a layout of its own.
    axes = provenance_of(out).get("axes", CANONICAL)
    axes = RADIOLOGICAL if axes == CANONICAL else axes
    if asked.prepared is not None:
        check_prepared(asked.prepared, {item.label: item.provenance for item in items})
    regions, scopes, slices = rules_of(asked)
    return Rules(
        # These two are part of the entries below.
        replace(asked, naive=None, features=None),
        regions,
        scopes,
        Cut(slices, asked.crop, asked.seed),
        window_of(asked.window),
        features,
        axes,
    )


def rules_of(
    asked: EvaluateOptions,
) -> tuple[tuple[Region, ...], tuple[Scope | Evaluator, ...], SliceFilter | None]:
    """The regions, the scopes and the slices that count; raises BadInput for texts that name none."""
    if asked.align and NAME in (asked.regions or {}):
        raise BadInput(f"--align: expected no region named {NAME}, found one. Rename the region.")
    regions = regions_from(asked.regions)
    scopes = scopes_from(asked.scopes, asked.mask, asked.regions or ())
    slices = None if asked.slices is None else filter_from(asked.slices, asked.mask, scopes)
    return regions, scopes, slices


def _range(modality: str, items: Sequence[Item], asked: EvaluateOptions) -> Range:
    """The range of one modality by the first readable truth; pictures need the largest value of all truths."""
    given = asked.value_range
    if asked.units == "network":
        if given is not None:
            raise BadInput(
                "--units network: expected no --range, found one: the range is 0 to 255. Give one of the two."
            )
        return NETWORK_RANGE
    if isinstance(given, Mapping):
        given = given.get(modality)
    unit = ""
    largest = 0.0
    unread = []
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
    provenance = items[0].provenance
    in_window = shows_a_window(provenance, modality, unit)
    if in_window and given is not None:
        raise BadInput(
            f"--range: expected none for {modality}, whose truth is a picture that shows a window of HU, found one. Pass --window instead."
        )
    if given is not None:
        return range_for(unit, given=given, source="given by the user")
    of_recipe = provenance.get("range", {}).get(modality)
    if of_recipe is not None and not in_window:
        return range_for(unit, given=of_recipe, source="the recipe's window")
    return range_for(unit, largest if unit == "grey" else 0.0)


def _check_areas(rules: Rules, rows: Sequence[Row]) -> None:
    """Raise BadInput for a region or scope that shows nothing in any case."""
    check_pictures(rules.scopes, chain.from_iterable(row.pictures for row in rows), rules.cut)
    for region in rules.regions:
        if region.over is not None or region.tissue:
            continue
        if not any(row.scores[f"{region.name}.voxels"] for row in rows):
            raise BadInput(
                f"region {region.name}: expected voxels of {region.text} in at least one case, found none. Move the threshold, or check the mask."
            )


def _distances(scored: Scored, name: str, rules: Rules) -> Table:
    """Number of slices of a modality, what its distances of features rest on, and these distances by method."""
    of_name = [(item.case, result) for item, result in scored.items() if item.modality == name]
    slices = sum(result.rows[0].slices for _, result in of_name)
    if (features := rules.features) is None:
        return {"slices": slices, "features": None, "distances": {}}
    vectors = dict[str, dict[tuple[str, str], Vectors]]()
    for case, result in of_name:
        for method, values in result.vectors.items():
            vectors.setdefault(method, {})[case.case, case.patient] = values
    truth = vectors.pop("truth", {})
    pooled = {
        method: distances(features.kind, truth, by_case, rules.asked.seed)
        for method, by_case in vectors.items()
    }
    described = describe_features(features, rules.axes, truth)
    return {"slices": slices, "features": described, "distances": pooled}


@dataclass(frozen=True)
class _ScoreJob:
    """The scores of images, each by its number in `items`; weights: of LPIPS; own: metrics of the user by key."""

    items: tuple[Item, ...]
    ranges: Mapping[str, Range]
    rules: Mapping[str, Rules]
    weights: "Lpips | None"
    own: Mapping[str, Function]
    uses_network: bool = False

    def open(self) -> Callable[[int, Context], ScoredItem]:
        """The work on one image; the metrics' functions are made here, because they cannot be sent to a worker."""
        functions = {metric.key: metric.compute for metric in METRICS if metric.compute}
        functions |= {key: score_by(key, function) for key, function in self.own.items()}
        if (weights := self.weights) is not None:

            def lpips(pair: ImagePair) -> float:
                """Mean LPIPS over the slices that intersect the mask."""
                a, b = (slices_of(image, pair) for image in (pair.truth, pair.synthesis))
                return float(weights(a, b).mean())

            functions["lpips"] = lpips

        def score(number: int, _: Context) -> ScoredItem:
            """The scores of an image, and the feature vectors of its slices."""
            item = self.items[number]
            name = item.modality
            return score_item(item, self.ranges[name], self.rules[name], functions)

        return score


def _score_items(
    job: _ScoreJob, executor: Executor, progress: Progress
) -> tuple[dict[Item, ScoredItem], dict[str, str]]:
    """The scored images in their order, and why others cannot be scored, by <case>/<modality>.

    Raises BadInput if no image can be scored.
    """
    numbers = range(len(job.items))
    outcomes = run_cases(
        executor, job, numbers, lambda _, *counts: progress(*counts), no_report, ()
    )
    scored = {}
    failed = {}
    for item, outcome in zip(job.items, outcomes):
        if outcome.error is None:
            scored[item] = outcome.result
        else:
            failed[item.label] = case_sentence(item.label, outcome.error)
    if not scored:
        raise next(outcome.error for outcome in outcomes if outcome.error)
    return scored, failed


def _judge(scored: Scored, cohort: Sequence[CaseFiles]) -> tuple[dict[str, Fault], list[Message]]:
    """The images whose truth cannot be theirs, by <case>/<modality>, and messages on other truths.

    Of some, the truth is another case's of the cohort.
    """
    faults = dict[str, Fault]()
    cautions = list[Message]()
    for name, items in items_by_modality(scored).items():
        truths = dict[str, SketchedTruth]()
        for item in items:
            owners = (
                case.case
                for name, content in _find_changed(item).items()
                for case in cohort
                if name in case.files and content_hash(case.files[name]) == content
            )
            truths[item.label] = replace(scored[item].truth, other=next(owners, ""))
        of_name, odd = judge(truths, f"true {name}")
        faults |= of_name
        cautions += odd
    return faults, cautions


def _state_faults(scored: Scored, faults: Mapping[str, Fault]) -> dict[str, Table]:
    """The faults as entries of metrics.json, each with the MAE of the image where it was scored."""
    entries = {label: asdict(fault) for label, fault in faults.items()}
    for item, result in scored.items():
        if item.label in entries and result.rows:
            entries[item.label]["mae"] = result.rows[0].scores["mae"]
    return entries


def _on_images(out: Path, scored: Scored, rules: Rules) -> Table:
    """The entries of metrics.json on the scored images: their runs, files and scans."""
    cases = [item.case for item in scored]
    learned = [(item.case.case, item.provenance) for item in scored]
    given = {item.modality for item in scored if item.modality in source_paths(item.provenance)}
    left_out = {item.label: result.left_out for item, result in scored.items()}
    counts = {item.modality: item.baselines.cases for item in scored if item.baselines is not None}
    if counts:
        bare = [item.label for item in scored if item.baselines is None]
        left_out |= dict.fromkeys(bare, "No naive baselines: the run of this image has none.")
    truths = {item.label: item.case.files[item.modality] for item in scored}
    return {
        "trained_on": find_trained(learned),
        "calibrated_on": sorted(
            {case for case, stated in learned if stated.get(USED_FOR_CALIBRATION)}
        ),
        "naive_cases": counts,
        "moved": {item.label: result.note for item, result in scored.items() if result.note},
        "naive_left_out": {label: note for label, note in left_out.items() if note},
        "given_truth": sorted(given),
        "images": {item.label: content_hash(item.synthesis) for item in scored},
        "truths": {label: content_hash(file) for label, file in truths.items()},
        "shown": {item.label: round(result.shown, 4) for item, result in scored.items()},
        "truth_files": {label: relative_to(out, file) for label, file in truths.items()},
        "shared_masks": masks_of_several(rules.asked.mask, rules.regions, cases),
        **_on_provenance(out, scored),
    }


def _on_provenance(out: Path, items: Iterable[Item]) -> Table:
    """The entries of metrics.json that gather what the provenance of each image states."""
    calibrations = list[Table]()
    sources = dict[str, dict[str, str]]()
    warnings = dict[str, dict[Message, Table]]()
    for item in items:
        provenance = item.provenance
        case = item.case.case
        if item.interval is not None:
            known = provenance["calibration"]
            calibration = {key: known[key] for key in CALIBRATION if key in known}
            if calibration not in calibrations:
                calibrations.append(calibration)
        of_case = sources.setdefault(case, {})
        of_case |= {name: relative_to(out, path) for name, path in item.inputs.items()}
        messages = read_messages(provenance)
        for name in _find_changed(item):
            messages.append(
                message(
                    "other-sources",
                    f"Its source {name} differs from the {name} next to its truth: is it the same patient?",
                )
            )
        if item.interval is None and has_ends(item.modality, images_in(item.synthesis.parent)):
            messages.append(
                message(
                    "unstated-interval",
                    f"The interval beside its {item.modality} is not scored, because no provenance states its coverage: synthesise it again with a calibrated model.",
                )
            )
        if messages:
            warnings.setdefault(case, {}).update({warning: warning.table for warning in messages})
    return {
        "calibrations": calibrations,
        "scan_warnings": {case: [*of_case.values()] for case, of_case in warnings.items()},
        "source_files": sources,
    }


def _find_changed(item: Item) -> dict[str, str]:
    """The content of each source scan of an image that differs from the scan of this name in the truth's case."""
    changed = {}
    for name, entry in item.provenance.get("inputs", {}).items():
        path = item.case.files.get(name)
        content = entry.get("sha256")
        if content and path is not None and is_there(path) and content_hash(path) != content:
            changed[name] = content
    return changed


def _on_areas(
    rules: Mapping[str, Rules], ranges: Mapping[str, Range], rows: Sequence[Row]
) -> Table:
    """Sentences on regions and scopes, which of them nobody asked for, and how many images --align could move."""
    regions = dict[str, str]()
    scopes = dict[str, str]()
    standard = dict[str, None]()
    if any(own.asked.align for own in rules.values()):
        moved = [f"{NAME}.mm" in row.scores for row in rows if row.method == SYNTHESIS]
        scopes[NAME] = f"{RULE}; {sum(moved)} of {len(moved)} images were moved"
    for own in rules.values():
        mask = f"{own.mask}"
        within = {WHOLE_MASK: "body", "body": "body", "brain": "brain"}.get(mask, f"mask {mask}")
        for region in own.regions:
            regions.setdefault(region.name, region.rule(ranges, within))
        for scope in own.scopes:
            scopes.setdefault(scope.name, scope.rule(None if mask == WHOLE_MASK else mask, own.cut))
        standard |= dict.fromkeys(own.standard)
    return {"regions": regions, "scopes": scopes, "standard": [*standard]}


def _on_windows(
    items: Iterable[Item], ranges: Mapping[str, Range], given: Sequence[float] | None
) -> dict[str, list[str]]:
    """The entry of a sentence for each modality whose truth is a picture and whose images are in HU, if any."""
    names = {
        item.modality
        for item in items
        if shows_a_window(item.provenance, item.modality, ranges[item.modality].unit)
    }
    if names:
        return {"windows": [window_sentence(name, given) for name in sorted(names)]}
    if given is not None:
        raise BadInput(
            "--window: expected pictures (PNG) of a true CT and synthesised images in HU, found none. Drop --window."
        )
    return {}
