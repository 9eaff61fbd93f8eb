"""What metrics.json states beside the scores: the conventions of each section, the files of images, and what makes scores doubtful."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlate.base.errors import BadInput, first_of
from voxlate.base.files import relative_to
from voxlate.base.groups import grouped
from voxlate.base.messages import UNOWNED, Message, message
from voxlate.evaluation.scoring.case_scores import TRUTH, ScoredItem
from voxlate.evaluation.scoring.distances import distance
from voxlate.evaluation.scoring.scored_images import Item
from voxlate.evaluation.scoring.scored_truth import Rules
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.formats.io import content_hash, is_there
from voxlate.scans.images.ranges import WHOLE_MASK
from voxlate.synthesis.provenance import USED_FOR_CALIBRATION, source_paths
from voxlate.training.recipe.run_provenance import find_trained

if TYPE_CHECKING:
    from voxlate.science.nets.lpips import Lpips

Function = Callable[..., float]  # a metric of the user
Document = Mapping[str, Any]
Table = dict[str, Any]
Scored = Mapping[Item, ScoredItem]
# Of a cross-validation, the cases of an image's modality: those that one of its runs did not train on, those that all
# trained on, and others, whose image is that of all runs.
OUT_OF_FOLD, IN_TRAINING, ENSEMBLE = "out of fold", "in training", "ensemble"


def header_of(
    out: Path,
    truth: Path,
    scored: Scored,
    rules: Mapping[str, Rules],
    own: Mapping[str, Function],
    weights: "Lpips | None",
) -> Table:
    """The conventions of scores and the facts of their images; rules: by modality; own: metrics of the user; weights: of LPIPS."""
    trained = find_trained((item.case.case, item.provenance) for item in scored)
    names = section_names((item.modality, item.fold, item.case.case in trained) for item in scored)
    sections = grouped(zip(names, scored))
    stated = {}
    # modalities in the order of their names, and out-of-fold cases first
    for name in sorted(
        sections, key=lambda name: (sections[name][0].modality, not sections[name][0].fold, name)
    ):
        items = sections[name]
        stated[name] = _conventions(rules[items[0].modality], [scored[item] for item in items])
        stated[name] |= {"modality": items[0].modality, "lpips": weights.name if weights else None}
    regions = dict[str, str]()
    standard = dict[str, None]()
    ranges = {name: of.scale for name, of in rules.items()}
    masks = {f"{of.mask}" for of in rules.values()} - {WHOLE_MASK}
    for of in rules.values():
        mask = f"{of.mask}"
        within = "body" if mask in (WHOLE_MASK, "body") else f"mask {mask}"
        for region in of.regions:
            regions.setdefault(region.name, region.rule(ranges, within))
        standard |= dict.fromkeys(of.standard)
    return {
        "truth": relative_to(out, truth),
        "trained_on": trained,
        "out_of_fold": {item.case.case: item.fold for item in scored if item.fold},
        "own_metrics": {key: _describe(function) for key, function in own.items()},
        **_on_images(out, scored),
        "regions": regions,
        "scopes": {WHOLE_MASK: "every voxel"} if masks else {},
        "standard": [*standard, *([WHOLE_MASK] if masks else [])],
        "modalities": stated,
    }


def section_names(images: Iterable[tuple[str, str, bool]]) -> list[str]:
    """The section of each image by its modality, its fold, and whether its case was in the training.

    It is the modality, unless some of its images have a fold and some none: then they are apart.
    """
    images = [*images]
    with_fold = {modality for modality, fold, _ in images if fold}
    apart = with_fold & {modality for modality, fold, _ in images if not fold}
    names = []
    for modality, fold, trained in images:
        part = IN_TRAINING if trained else ENSEMBLE
        name = f"{modality}, {OUT_OF_FOLD if fold else part}"
        names.append(name if modality in apart else modality)
    return names


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


def _describe(function: Function) -> dict[str, str]:
    """What metrics.json states on a metric of the user: its unit, in which direction it is better, and what it says of itself."""
    return {
        "unit": f"{getattr(function, 'unit', '')}",
        "better": getattr(function, "better", "lower"),
        "reduction": (function.__doc__ or "").strip().partition("\n")[0] or "of the user",
    }
