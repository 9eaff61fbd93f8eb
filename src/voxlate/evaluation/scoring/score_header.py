"""What metrics.json states beside the scores: the conventions of each section, the files of images, and what makes scores doubtful."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Required

from pydantic import StringConstraints
from typing_extensions import TypedDict

from voxlate.base.errors import BadInput, first_of
from voxlate.base.files import relative_to
from voxlate.base.groups import grouped
from voxlate.base.messages import UNOWNED, Message, message
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
from voxlate.evaluation.scoring.case_scores import ScoredItem
from voxlate.evaluation.scoring.distances import Vectors, describe_features, distance
from voxlate.evaluation.scoring.metrics import Direction
from voxlate.evaluation.scoring.scored_images import Item
from voxlate.evaluation.scoring.scored_truth import Rules
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.formats.io import content_hash, is_there
from voxlate.scans.images.ranges import WHOLE_MASK
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


class _OwnMetric(TypedDict):
    unit: Text
    better: Direction
    reduction: Text


class Header(TypedDict, total=False):
    """The entries of metrics.json that are read again."""

    seed: Count
    modalities: Required[dict[Name, _Part]]
    tables: Required[dict[Literal["scores.csv"], Digest]]
    without_truth: list[Text]
    not_synthesised: dict[Text, Text]
    wrong_truths: dict[Label, Text]
    truth_messages: list[StatedMessage]
    messages: list[StatedMessage]
    trained_on: list[Name]
    calibrations: list[StatedCalibration]
    calibrated_on: list[Name]
    moved: dict[Text, Text]
    given_truth: list[Name]
    images: dict[Label, Text]
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
    rules: Mapping[str, Rules],
    own: Mapping[str, Function],
    weights: "Lpips | None",
) -> Table:
    """The conventions of scores and the facts of their images; rules: by modality; own: metrics of the user; weights: of LPIPS."""
    names = section_names((item.modality, item.fold) for item in scored)
    sections = grouped(zip(names, scored))
    stated = {}
    # modalities in the order of their names, and out-of-fold cases before those of the ensemble
    for name in sorted(sections, key=lambda name: (sections[name][0].modality, ENSEMBLE in name)):
        items = sections[name]
        modality = items[0].modality
        stated[name] = {
            "modality": modality,
            **_conventions(rules[modality]),
            "lpips": weights.name if weights else None,
            **_distances(items, scored, rules[modality]),
        }
    return {
        "truth": relative_to(out, truth),
        "out_of_fold": {item.case.case: item.fold for item in scored if item.fold},
        "own_metrics": describe(own),
        **_on_images(out, scored),
        **_on_areas(rules),
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


def _conventions(rules: Rules) -> Table:
    scale = rules.scale
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
    # of each method, those of the truth and its own
    vectors = dict[str, list[tuple[Vectors, Vectors]]]()
    for item in items:
        own = scored[item].vectors
        for method in [name for name in own if name != "truth"]:
            vectors.setdefault(method, []).append((own["truth"], own[method]))
    pooled = {method: distance(features.kind, *zip(*pairs)) for method, pairs in vectors.items()}
    images = sum(len(truth) for truth, _ in vectors[SYNTHESIS])
    described = describe_features(features, rules.axes, images)
    return {"slices": slices, "features": described, "distances": pooled}


def _on_images(out: Path, scored: Scored) -> Table:
    """The entries of metrics.json on the scored images: their files, scans, runs and calibrations."""
    learned = [(item.case.case, item.provenance) for item in scored]
    calibrated = [case for case, stated in learned if stated.get(USED_FOR_CALIBRATION)]
    sources = dict[str, dict[str, str]]()
    calibrations = list[Table]()
    for item in scored:
        files = {name: relative_to(out, path) for name, path in item.inputs.items()}
        sources.setdefault(item.case.case, {}).update(files)
        if item.interval is not None:
            known = item.provenance["calibration"]
            calibration = {key: known[key] for key in CALIBRATION if key in known}
            if calibration not in calibrations:
                calibrations.append(calibration)
    truths = {item.label: item.case.files[item.modality] for item in scored}
    given = {item.modality for item in scored if item.modality in source_paths(item.provenance)}
    return {
        "trained_on": find_trained(learned),
        "calibrated_on": sorted({*calibrated}),
        "calibrations": calibrations,
        "moved": {item.label: result.note for item, result in scored.items() if result.note},
        "given_truth": sorted(given),
        "images": {item.label: content_hash(item.synthesis) for item in scored},
        "truths": {label: content_hash(file) for label, file in truths.items()},
        "shown": {item.label: round(result.shown, 4) for item, result in scored.items()},
        "truth_files": {label: relative_to(out, file) for label, file in truths.items()},
        "source_files": sources,
    }


def find_changed(item: Item) -> dict[str, str]:
    """The content of each source scan of an image that differs from the scan of this name in the truth's case."""
    changed = {}
    for name, entry in item.provenance.get("inputs", {}).items():
        path = item.case.files.get(name)
        content = entry.get("sha256")
        if content and path is not None and is_there(path) and content_hash(path) != content:
            changed[name] = content
    return changed


def _on_areas(rules: Mapping[str, Rules]) -> Table:
    """Sentences on regions and on the whole image beside a mask, and which of them nobody asked for."""
    ranges = {name: own.scale for name, own in rules.items()}
    regions = dict[str, str]()
    scopes = dict[str, str]()
    standard = dict[str, None]()
    for own in rules.values():
        mask = f"{own.mask}"
        within = {WHOLE_MASK: "body", "body": "body"}.get(mask, f"mask {mask}")
        for region in own.regions:
            regions.setdefault(region.name, region.rule(ranges, within))
        standard |= dict.fromkeys(own.standard)
        if own.mask != WHOLE_MASK:
            scopes[WHOLE_MASK] = "every voxel"
            standard[WHOLE_MASK] = None
    return {"regions": regions, "scopes": scopes, "standard": [*standard]}


def doubts_on(scored: Scored) -> Iterator[Message]:
    """Messages on what makes scores doubtful."""
    for prepared in {item.prepared for item in scored if item.prepared}:
        with suppress(BadInput):  # scores need no cohort that is damaged or gone
            yield from (one for one in open_cohort(prepared).warnings if one.code == UNOWNED)
    changed = grouped((name, item.label) for item in scored for name in find_changed(item))
    for name, labels in changed.items():
        yield message(
            "other-sources",
            f"The source {name} of {first_of(labels)} differs from the {name} next to the truth: is it the same patient?",
            images=len(labels),
        )


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
