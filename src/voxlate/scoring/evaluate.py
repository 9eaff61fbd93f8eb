"""Score a folder of syntheses against the truth, beside the trivial answers, and say how each number was made."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlate import __version__
from voxlate.data.find import CaseFiles, find_cases
from voxlate.data.naive import Trivial
from voxlate.errors import BadInput
from voxlate.images.ranges import Range, range_for
from voxlate.images.volume import read_volume
from voxlate.scoring import metrics
from voxlate.scoring.distances import Pool
from voxlate.scoring.features import Features, features_for
from voxlate.scoring.lpips import load_lpips
from voxlate.scoring.regions import regions_from
from voxlate.scoring.score_case import How, Item, Origin, inputs_of, provenance_of, score_item
from voxlate.scoring.tables import Choices, Row, Scores

SUFFIXES = (".nii.gz", ".nii", ".mha", ".tif", ".tiff", ".png")
Progress = Callable[[int, int, str], None]


def evaluate(
    out: Path | str,
    truth: Path | str,
    *,
    mask: str | Path | None = None,
    value_range: Mapping[str, Sequence[float]] | Sequence[float] | None = None,
    trivial: Trivial | Path | str | None = None,
    split: str | None = None,
    pattern: str | None = None,
    manifest: Path | None = None,
    preset: str | None = None,
    padding: metrics.Padding = "valid",
    ssim_from: Origin = "low",
    features: str | Path | Features | None = None,
    lpips: Path | str | None = None,
    regions: Mapping[str, str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Scores:
    """Score OUT/<case>/<modality> against the same case of the cohort `truth`; write metrics.csv and metrics.json.

    mask: None for the whole image, "body" or "brain" (found in the truth), "cohort" (the cohort's own mask files),
    or a file (`{case}` in its path stands for the case). value_range: (low, high), for all or by modality.
    trivial: the trivial answers, or their file; by default those of the run that OUT's provenance names.
    ssim_from: SSIM measures values from the "low" end of the range, or from "zero" (the TOF-to-CTA paper's way).
    features: "texture" (built in), "vit", or a ViT's folder, for distances between all slices of truth and synthesis.
    lpips: a safetensors file with the weights of LPIPS (v0.1, AlexNet), which is then scored too.
    regions: parts scored by themselves, by name: "cta>150" or a mask file, within the mask (the body without one);
    "tmax>6" with its volume, and the mismatch ratio of two such parts as "lesion/core".
    Scores are taken in the truth's unit, on its own grid. Raises BadInput where grids differ or nothing matches.
    """
    out, truth = Path(out), Path(truth)
    found = find_cases(truth, pattern, manifest, preset)
    items, without = _items(out, {case.case: case for case in found if split is None or case.split == split})
    if not items:
        where = f"{truth}" + (f", split {split}" if split else "")
        raise BadInput(
            f"{out}: expected <case>/<modality>.nii.gz with the names of the cases in {where}, found none that match. "
            "Check the two folders and the names of the modalities."
        )
    ranges = {name: _range(name, items, out, value_range) for name in sorted({item.modality for item in items})}
    judged = load_lpips(lpips) if lpips is not None else None
    parts = regions_from(regions)
    how = How(out, mask, _trivial(trivial, out), padding, ssim_from, parts, _pool(features, seed), judged)
    rows: list[Row] = []
    for number, item in enumerate(items):
        if progress:
            progress(number, len(items), item.case.case)
        rows += score_item(item, ranges[item.modality], how)
    if progress:
        progress(len(items), len(items), "")
    for region in how.regions:
        if region.over is None and not any(row.scores[f"{region.name}.voxels"] for row in rows):
            raise BadInput(
                f"region {region.name}: expected voxels of {region.text} in at least one case, found none. "
                "Move the threshold, or check the mask."
            )
    within = str(mask or "body") if mask in (None, "body", "brain") else f"mask {mask}"
    choices = Choices(
        truth=str(truth),
        mask="whole image" if mask is None else str(mask),
        padding=padding,
        ssim_from=ssim_from,
        regions={region.name: region.rule(ranges, within) for region in how.regions},
        features={name: how.pool.stated(name) for name in ranges} if how.pool else {},
        lpips=how.lpips.name if how.lpips else None,
        split=split,
        seed=seed,
        ranges=ranges,
        trivial_cases=how.trivial.cases if how.trivial else None,
        without_truth=tuple(without),
        files={f"{item.case.case}/{item.modality}": str(item.case.files[item.modality]) for item in items},
        sources={item.case.case: {k: str(v) for k, v in inputs_of(out, item.case).items()} for item in items},
        version=__version__,
    )
    scores = Scores(tuple(rows), choices, _distances(rows, how.pool))
    scores.write(out)
    return scores


def _items(out: Path, cases: Mapping[str, CaseFiles]) -> tuple[list[Item], list[str]]:
    """What can be scored, and the names in OUT that have no truth."""
    if not out.is_dir():
        raise BadInput(f"{out}: expected the folder that `voxlate synth` wrote, found none. Check the path.")
    items, without = [], []
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        images = _images(folder)
        for modality, path in images.items():
            if modality.endswith("_std") and modality.removesuffix("_std") in images:
                continue
            case = cases.get(folder.name)
            if case is None or modality not in case.files:
                without.append(f"{folder.name}/{modality}")
                continue
            items.append(Item(case, modality, path, images.get(f"{modality}_std")))
    return items, without


def _images(folder: Path) -> dict[str, Path]:
    """Image files by modality; where a name exists in several formats the one that loses least."""
    images: dict[str, Path] = {}
    for suffix in reversed(SUFFIXES):
        images |= {path.name.removesuffix(suffix): path for path in folder.glob(f"*{suffix}")}
    return dict(sorted(images.items()))


def _range(modality: str, items: Sequence[Item], out: Path, given: Any) -> Range:
    mine = [item for item in items if item.modality == modality]
    first = read_volume(mine[0].case.files[modality], modality)
    if isinstance(given, Mapping):
        given = given.get(modality)
    if given is not None:
        return range_for(first.unit, given=given, source="given by the user")
    named = provenance_of(out, mine[0].case.case).get("range", {}).get(modality)
    if named is not None:
        return range_for(first.unit, given=named, source="the recipe's window")
    pictures = (read_volume(item.case.files[modality], modality) for item in mine if first.unit == "grey")
    return range_for(first.unit, max((float(picture.data.max()) for picture in pictures), default=0.0))


def _trivial(given: Trivial | Path | str | None, out: Path) -> Trivial | None:
    if isinstance(given, Trivial):
        return given
    if given is not None:
        return Trivial.load(given)
    run = provenance_of(out).get("run")  # the run's folder, or a weights file in it
    places = [Path(run), Path(run).parent] if isinstance(run, str) else []
    stored = [place / "trivial.safetensors" for place in places if (place / "trivial.safetensors").is_file()]
    return Trivial.load(stored[0]) if stored else None


def _pool(features: str | Path | Features | None, seed: int) -> Pool | None:
    if features is None:
        return None
    return Pool(features_for(features) if isinstance(features, str | Path) else features, seed)


def _distances(rows: Sequence[Row], pool: Pool | None) -> dict[str, dict[str, Any]]:
    """By modality and answer."""
    pairs = dict.fromkeys((row.modality, row.answer) for row in rows) if pool else {}
    found: dict[str, dict[str, Any]] = {modality: {} for modality, _ in pairs}
    for modality, answer in pairs:
        assert pool is not None
        found[modality][answer] = pool.distances(modality, answer)
    return found
