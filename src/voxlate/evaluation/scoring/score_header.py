"""What metrics.json states beside the scores: the conventions of each section, and the runs, files and scans of images."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxlate.base.errors import BadInput
from voxlate.base.files import relative_to
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, message, read_messages
from voxlate.evaluation.scoring.case_scores import Rules, ScoredItem
from voxlate.evaluation.scoring.distances import Vectors, describe_features, distances
from voxlate.evaluation.scoring.interval_scores import has_ends
from voxlate.evaluation.scoring.own_metrics import Function, describe
from voxlate.evaluation.scoring.score_frame import ENSEMBLE, Table, section_names
from voxlate.evaluation.scoring.score_units import shows_a_window, window_sentence
from voxlate.evaluation.scoring.scored_images import Item, images_in
from voxlate.evaluation.scoring.scored_regions import masks_of_several
from voxlate.scans.formats.io import content_hash, is_there
from voxlate.scans.images.ranges import WHOLE_MASK, Range
from voxlate.synthesis.provenance import USED_FOR_CALIBRATION, source_paths
from voxlate.training.recipe.run_provenance import find_trained

if TYPE_CHECKING:
    from voxlate.science.nets.lpips import Lpips

Scored = Mapping[Item, ScoredItem]
CALIBRATION = ("patients", "coverage", "confidence", "bound", "widened", "held")


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
        method: distances(features.kind, truth, by_case, rules.asked.seed)
        for method, by_case in vectors.items()
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
            scopes.setdefault(scope.name, scope.rule(own.cut))
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
