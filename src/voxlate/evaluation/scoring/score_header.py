"""What metrics.json states beside the scores: the conventions of each section, the files of images, and what makes scores doubtful."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Required

import numpy as np
from pydantic import StringConstraints
from typing_extensions import TypedDict

from voxlate.base.errors import BadInput, first_of, plural
from voxlate.base.files import relative_to
from voxlate.base.groups import grouped
from voxlate.base.messages import UNOWNED, Message, message, read_messages
from voxlate.base.records import (
    Count,
    Digest,
    Name,
    Number,
    Place,
    Several,
    Share,
    StatedMessage,
    Text,
)
from voxlate.checks.check_table import exact_messages
from voxlate.checks.truths import Kind
from voxlate.evaluation.scoring.case_scores import Row, Rules, ScoredItem
from voxlate.evaluation.scoring.distances import Vectors, describe_features, distances
from voxlate.evaluation.scoring.interval_scores import has_ends
from voxlate.evaluation.scoring.metrics import Direction
from voxlate.evaluation.scoring.scopes import CROPS, SCOPES
from voxlate.evaluation.scoring.score_units import shows_a_window, window_sentence
from voxlate.evaluation.scoring.scored_images import Item, images_in
from voxlate.evaluation.scoring.scored_regions import masks_of_several
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.formats.io import content_hash, is_there
from voxlate.scans.images.ranges import WHOLE_MASK, Range
from voxlate.synthesis.provenance import USED_FOR_CALIBRATION, StatedCalibration, source_paths
from voxlate.training.recipe.run_provenance import find_trained
from voxlate.training.verdict import SYNTHESIS

if TYPE_CHECKING:
    from voxlate.science.nets.lpips import Lpips

Function = Callable[..., float]  # a metric of the user
Document = Mapping[str, Any]
Table = dict[str, Any]
Scored = Mapping[Item, ScoredItem]
CALIBRATION = ("patients", "coverage", "confidence", "bound", "widened", "held")
# The images of a cross-validation: by the runs that did not train on the case, or by all runs.
OUT_OF_FOLD, ENSEMBLE = "out of fold", "ensemble"
FEWEST_CASES = 4  # cases, below which a median says little
# Times the median error, and median absolute deviations above it: a truth that was blurred by 6 mm has 1.84 and 15, one that
# was turned by 5° 1.78 and 14 (4 heads each); of 62 evaluations with ordinary truths none has both (slices: 2.4 and 11).
TIMES, DEVIATIONS = 1.7, 12.0

# A label is CASE/MODALITY.
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00/\\]+/[^\x00/\\]+$", max_length=1000)]


class _Features(TypedDict):
    name: Text
    dimensions: Several
    images: Count


class _Distance(TypedDict):
    mean: Number | None
    n: Count


class _Part(TypedDict):
    """The conventions that the scores of a section were computed with, and the distances of features by method and key."""

    modality: Text
    unit: Text
    range: tuple[Number, Number]
    range_rule: Text
    own_peak: bool
    mask: Text
    ssim_from: Literal["low", "zero"]
    lpips: Text | None
    features: _Features | None
    slices: Count
    distances: dict[Text, dict[Text, _Distance]]


class _WrongTruth(TypedDict):
    kind: Kind
    found: Text


class _OwnMetric(TypedDict):
    unit: Text
    better: Direction
    reduction: Text


class Header(TypedDict, total=False):
    """The entries of metrics.json that are read again."""

    seed: Required[Count]
    modalities: Required[dict[Name, _Part]]
    tables: Required[dict[Literal["scores.csv"], Digest]]
    without_truth: list[Text]
    not_synthesised: dict[Text, Text]
    wrong_truths: dict[Label, _WrongTruth]
    truth_messages: list[StatedMessage]
    messages: list[StatedMessage]
    trained_on: list[Name]
    out_of_fold: dict[Name, Text]
    calibrations: list[StatedCalibration]
    calibrated_on: list[Name]
    naive_cases: dict[Name, Several]
    moved: dict[Text, Text]
    naive_left_out: dict[Text, Text]
    scan_warnings: dict[Name, list[StatedMessage]]
    given_truth: list[Name]
    images: dict[Label, Text]
    recognised: dict[Label, Place]
    truths: dict[Label, Text]
    shown: dict[Label, Share]
    truth_files: dict[Label, Place]
    source_files: dict[Name, dict[Name, Place]]
    own_metrics: dict[Name, _OwnMetric]
    regions: dict[Name, Text]
    scopes: dict[Name, Text]
    standard: list[Text]


def header_of(
    out: Path,
    truth: Path,
    scored: Scored,
    ranges: Mapping[str, Range],
    rules: Mapping[str, Rules],
    own: Mapping[str, Function],
    weights: "Lpips | None",
) -> Table:
    """The conventions of scores and the facts of their images; rules: by modality; own: metrics of the user; weights: of LPIPS."""
    asked = next(iter(rules.values())).asked
    names = section_names((item.modality, item.fold) for item in scored)
    sections = grouped(zip(names, scored))
    stated = {}
    # modalities in the order of their names, and out-of-fold cases before those of the ensemble
    for name in sorted(sections, key=lambda name: (sections[name][0].modality, ENSEMBLE in name)):
        items = sections[name]
        modality = items[0].modality
        stated[name] = {
            "modality": modality,
            **_conventions(ranges[modality], rules[modality]),
            "lpips": weights.name if weights else None,
            **_distances(items, scored, rules[modality]),
        }
    return {
        "truth": relative_to(out, truth),
        "out_of_fold": {item.case.case: item.fold for item in scored if item.fold},
        "own_metrics": describe(own),
        **_on_images(out, scored, next(iter(rules.values()))),
        **_on_provenance(out, scored),
        **_on_areas(rules, ranges),
        **_on_windows(scored, ranges, asked.window),
        "modalities": stated,
    }


def section_names(images: Iterable[tuple[str, str]]) -> list[str]:
    """The section of each image by its modality and fold: the modality, unless some of its images have a fold and some none."""
    images = [*images]
    with_fold = {modality for modality, fold in images if fold}
    without = {modality for modality, fold in images if not fold}
    apart = with_fold & without
    return [
        f"{modality}, {OUT_OF_FOLD if fold else ENSEMBLE}" if modality in apart else modality
        for modality, fold in images
    ]


def _conventions(scale: Range, rules: Rules) -> Table:
    return {
        "unit": scale.unit,
        "range": [scale.low, scale.high],
        "range_rule": scale.rule,
        "own_peak": scale.own,
        "mask": f"{rules.mask}",
        "ssim_from": rules.asked.ssim_from,
    }


def _distances(items: Sequence[Item], scored: Scored, rules: Rules) -> Table:
    """Number of slices of a section, what its distances of features rest on, and these distances by method."""
    slices = sum(scored[item].rows[0].slices for item in items)
    if (features := rules.features) is None:
        return {"slices": slices, "features": None, "distances": {}}
    vectors = dict[str, dict[tuple[str, str], Vectors]]()
    for item in items:
        for method, values in scored[item].vectors.items():
            vectors.setdefault(method, {})[item.case.case, item.case.patient] = values
    truth = vectors.pop("truth", {})
    pooled = {
        method: distances(features.kind, truth, by_case) for method, by_case in vectors.items()
    }
    described = describe_features(features, rules.axes, truth)
    return {"slices": slices, "features": described, "distances": pooled}


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
        "shared_masks": masks_of_several(rules.asked.mask, rules.asked_regions, cases),
    }


def _on_provenance(out: Path, items: Iterable[Item]) -> Table:
    """The entries of metrics.json that gather what the provenance of each image states."""
    calibrations = list[Table]()
    sources = dict[str, dict[str, str]]()
    warnings = dict[str, dict[Message, Table]]()
    for item in items:
        case = item.case.case
        if item.interval is not None:
            known = item.provenance["calibration"]
            calibration = {key: known[key] for key in CALIBRATION if key in known}
            if calibration not in calibrations:
                calibrations.append(calibration)
        of_case = sources.setdefault(case, {})
        of_case |= {name: relative_to(out, path) for name, path in item.inputs.items()}
        if messages := [*read_messages(item.provenance), *_doubts(item)]:
            warnings.setdefault(case, {}).update({warning: warning.table for warning in messages})
    return {
        "calibrations": calibrations,
        "scan_warnings": {case: [*of_case.values()] for case, of_case in warnings.items()},
        "source_files": sources,
    }


def _doubts(item: Item) -> Iterable[Message]:
    """Messages on sources that differ from those beside the truth, and on intervals without provenance."""
    for name in find_changed(item):
        yield message(
            "other-sources",
            f"Its source {name} differs from the {name} next to its truth: is it the same patient?",
        )
    if item.interval is None and has_ends(item.modality, images_in(item.synthesis.parent)):
        yield message(
            "unstated-interval",
            f"The interval beside its {item.modality} is not scored, because no provenance states its coverage: synthesise it again with a calibrated model.",
        )


def find_changed(item: Item) -> dict[str, str]:
    """The content of each source scan of an image that differs from the scan of this name in the truth's case."""
    changed = {}
    for name, entry in item.provenance.get("inputs", {}).items():
        path = item.case.files.get(name)
        content = entry.get("sha256")
        if content and path is not None and is_there(path) and content_hash(path) != content:
            changed[name] = content
    return changed


def _on_areas(rules: Mapping[str, Rules], ranges: Mapping[str, Range]) -> Table:
    """Sentences on regions and scopes, and which of them nobody asked for."""
    regions = dict[str, str]()
    scopes = dict[str, str]()
    standard = dict[str, None]()
    for own in rules.values():
        mask = f"{own.mask}"
        within = {WHOLE_MASK: "body", "body": "body", "brain": "brain"}.get(mask, f"mask {mask}")
        for region in own.regions:
            regions.setdefault(region.name, region.rule(ranges, within))
        for scope in own.scopes:
            scopes[scope] = own.crops.rule() if scope == CROPS else SCOPES[scope]
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


def doubts_on(
    scored: Mapping[Item, ScoredItem],
    rows: Sequence[Row],
    own: Collection[str],
    recognised: Mapping[str, str],
) -> Iterator[Message]:
    """Messages on what makes scores doubtful: outliers, values, and unknown patients.

    own: keys of metrics of the user; recognised: the path of each image of other software.
    """
    if recognised:
        label, place = next(iter(recognised.items()))
        yield message(
            "recognised",
            f"{plural(len(recognised), 'image')} of other software: cases and modalities by their paths ({place} is {label}).",
            images=len(recognised),
        )
    ours = (row for row in rows if row.method == SYNTHESIS)
    errors = grouped((row.modality, (row.case, row.scores["mae"])) for row in ours)
    for name, of_cases in errors.items():
        yield from find_outliers(name, dict(of_cases))
    yield from without_value(own, rows)
    for prepared in {item.prepared for item in scored if item.prepared}:
        with suppress(BadInput):  # scores need no cohort that is damaged or gone
            yield from (one for one in open_cohort(prepared).warnings if one.code == UNOWNED)
    for item, result in scored.items():
        if not item.provenance and result.truth.unit == "HU":  # a CT of other software
            for said in exact_messages(result.truth.image, "HU", "synthetic CT"):
                yield said.on(item.label)


def find_outliers(name: str, errors: Mapping[str, float]) -> list[Message]:
    """A message on the cases whose error of the image `name` is far above the median; errors: by case."""
    if len(errors) < FEWEST_CASES:
        return []
    values = np.array([*errors.values()])
    median = float(np.median(values))
    spread = float(np.median(np.abs(values - median)))
    least = max(TIMES * median, median + DEVIATIONS * spread)
    odd = {case: error / median for case, error in errors.items() if error > least > 0}
    if not odd:
        return []
    worst = sorted(odd, key=lambda case: -odd[case])
    return [
        message(
            "large-error",
            f"{name}: {len(odd)} of {len(errors)} cases with an error of up to {odd[worst[0]]:.1f} times the median ({first_of(worst, 3)}): is the truth, the image or the patient wrong? They count all the same.",
            cases=len(odd),
            times=odd[worst[0]],
        )
    ]


def without_value(functions: Collection[str], rows: Iterable[Row]) -> list[Message]:
    """A message on each metric whose score of some image, also in a region or scope, is no finite number."""
    failing = grouped(
        (end, f"{row.method} of {row.case}/{row.modality}")
        for row in rows
        for key, value in row.scores.items()
        if (end := key.rpartition(".")[2]) in functions and not math.isfinite(value)
    )
    return [
        message(
            "not-finite",
            f"--metrics {key} gave no finite number {plural(len(where), 'time')}: {first_of([*dict.fromkeys(where)])}.",
            values=len(where),
        )
        for key, where in failing.items()
    ]


def describe(functions: Mapping[str, Function]) -> dict[str, dict[str, str]]:
    """What metrics.json states on each: its unit, in which direction it is better, and what it says of itself."""
    return {
        key: {
            "unit": f"{getattr(function, 'unit', '')}",
            "better": getattr(function, "better", "lower"),
            "reduction": (function.__doc__ or "").strip().partition("\n")[0] or "of the user",
        }
        for key, function in functions.items()
    }
