"""Score one synthesis, and the trivial answers beside it, against its truth."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxlate.data.find import CaseFiles
from voxlate.data.naive import Trivial, answers
from voxlate.files import read_json
from voxlate.images.grid import canonical
from voxlate.images.mask import foreground
from voxlate.images.ranges import Range
from voxlate.images.volume import Volume, is_there, read_volume
from voxlate.scoring import metrics
from voxlate.scoring.distances import Pool, slices_of
from voxlate.scoring.lpips import Lpips
from voxlate.scoring.regions import (
    Region,
    body_of,
    brought,
    find_region,
    mask_of,
    on_grid_of,
    one_channel,
    ratio_scores,
    region_scores,
    thresholded,
)
from voxlate.scoring.tables import Row

Inside = NDArray[np.bool_] | None
Origin = Literal["low", "zero"]


@dataclass(frozen=True)
class Item:
    """One synthesis to score: its case, its modality, and where its files lie."""

    case: CaseFiles
    modality: str
    synthesis: Path
    std: Path | None


@dataclass(frozen=True)
class How:
    """What was decided before scoring."""

    out: Path
    mask: str | Path | None
    trivial: Trivial | None
    padding: metrics.Padding
    ssim_from: Origin
    regions: tuple[Region, ...]
    pool: Pool | None
    lpips: Lpips | None = None


@dataclass(frozen=True)
class Truth:
    """The true image of one item, on the scale that is scored, and what parts of it count."""

    volume: Volume
    values: NDArray[np.float32]
    scale: Range
    body: Inside
    inside: Inside
    frame: Inside
    regions: tuple[tuple[Region, NDArray[np.bool_]], ...]


def score_item(item: Item, scale: Range, how: How) -> list[Row]:
    truth = _truth(item, scale, how)
    synthesis = on_grid_of(truth.volume, item.synthesis, item.modality)
    head = (item.case.case, item.case.patient, item.modality)
    if how.pool:
        how.pool.add(item.modality, "truth", *head[:2], slices_of(truth.values, scale, truth.inside))
    scored = _scores(item, "synthesis", synthesis, truth, how)
    if item.std is not None:
        std = canonical(on_grid_of(truth.volume, item.std, item.modality)).data[0]
        error = np.abs(brought(synthesis, scale, truth.body) - truth.values)
        scored |= _uncertainty(std / scale.gain(synthesis.data[0], truth.body), error, truth.inside)
    rows = [Row(*head, "synthesis", scored)]
    for name, answer in _trivial_answers(item, truth.volume, how.trivial, how.out):
        volume = Volume(answer[None], truth.volume.affine, truth.volume.unit, item.modality)
        rows.append(Row(*head, name, _scores(item, name, volume, truth, how)))
    return rows


def _truth(item: Item, scale: Range, how: How) -> Truth:
    volume = one_channel(read_volume(item.case.files[item.modality], item.modality))
    body = foreground(volume) if scale.own else None
    inside = mask_of(how.mask, volume, item.case)
    frame = body_of(volume) if how.regions and inside is None else inside
    regions = []
    if frame is not None:
        parts = [region for region in how.regions if region.over is None]
        regions = [(region, find_region(region, volume, scale, body, item.case, frame)) for region in parts]
    return Truth(volume, brought(volume, scale, body), scale, body, inside, frame, tuple(regions))


def _scores(item: Item, answer: str, volume: Volume, truth: Truth, how: How) -> dict[str, float]:
    """All scores of one answer; its slices go into the pool."""
    values = brought(volume, truth.scale, truth.body)
    slices = slices_of(values, truth.scale, truth.inside) if how.pool or how.lpips else None
    if how.pool and slices is not None:
        how.pool.add(item.modality, answer, item.case.case, item.case.patient, slices)
    scored = scores_of(truth.values, values, truth.scale, truth.inside, how.padding, how.ssim_from)
    if how.lpips and slices is not None:
        scored["lpips"] = float(how.lpips(slices_of(truth.values, truth.scale, truth.inside), slices).mean())
    voxel_ml = float(np.prod(truth.volume.grid.spacing_mm)) / 1000
    for region, inside in truth.regions:
        overlap = None
        if region.modality == item.modality and truth.frame is not None:
            overlap = region.select(thresholded(volume, truth.scale, truth.body), truth.frame)
        scored |= region_scores(region.name, inside, truth.values, values, overlap, voxel_ml)
    for ratio in how.regions:
        if ratio.over is not None:
            scored |= ratio_scores(ratio.name, ratio.over, scored)
    return scored


def scores_of(
    truth: NDArray[np.float32],
    other: NDArray[np.float32],
    scale: Range,
    inside: Inside,
    padding: metrics.Padding = "valid",
    ssim_from: Origin = "low",
) -> dict[str, float]:
    """All scores of one image [D, H, W] (canonical, brought to the range) against the truth."""
    width = scale.width
    mae, rmse = metrics.mae(truth, other, inside), metrics.rmse(truth, other, inside)
    origin = np.float32(scale.low if ssim_from == "low" else 0)
    a, b = truth - origin, other - origin
    deep = len(truth) >= 2 * metrics.RADIUS + 1
    return {
        "mae": mae,
        "mae_rel": mae / width,
        "rmse": rmse,
        "rmse_rel": rmse / width,
        "psnr": metrics.psnr(truth, other, width, inside),
        "ssim_2d": metrics.ssim(a, b, width, padding=padding, mask=inside),
        "ssim_3d": metrics.ssim(a, b, width, dimensions=3, padding=padding, mask=inside) if deep else math.nan,
        "nmi": metrics.nmi(truth, other, scale.low, scale.high, mask=inside),
        "gradient_strength": metrics.gradient_strength(truth, other, inside),
        "gradient_z": metrics.gradient_strength(truth, other, inside, along="slices"),
    }


def _uncertainty(std: NDArray[Any], error: NDArray[Any], inside: Inside) -> dict[str, float]:
    mean = float(np.mean(std if inside is None else std[inside], dtype=np.float64))
    return {"std": mean, "std_error_r": metrics.correlation(std, error, inside)}


def _trivial_answers(
    item: Item, truth: Volume, trivial: Trivial | None, out: Path
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    if trivial is None:
        return
    inputs = inputs_of(out, item.case) or {k: v for k, v in item.case.files.items() if k != item.modality}
    sources = {
        name: one_channel(read_volume(path, name))
        for name, path in inputs.items()
        if (name, item.modality) in trivial.tables and is_there(path)
    }
    yield from answers(trivial, item.modality, sources, truth.grid).items()


def inputs_of(out: Path, case: CaseFiles) -> dict[str, Path]:
    """The scans a synthesis was made from: as its provenance says, else as the cohort has them."""
    stated = provenance_of(out, case.case).get("inputs", {})
    named = {name: Path(entry["path"] if isinstance(entry, dict) else entry) for name, entry in stated.items()}
    return {name: path if is_there(path) else case.files.get(name, path) for name, path in named.items()}


def provenance_of(out: Path, case: str = "") -> dict[str, Any]:
    """What was written beside a case's synthesis, or else beside all of them."""
    for path in (out / case / "provenance.json", out / "provenance.json"):
        if path.is_file():
            found = read_json(path)
            return found if isinstance(found, dict) else {}
    return {}
