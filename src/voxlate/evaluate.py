"""Score a folder of syntheses against the truth, beside the trivial answers, and say how each number was made."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlate import __version__, metrics
from voxlate.data.cohort import CaseFiles, find_cases
from voxlate.errors import BadInput
from voxlate.files import read_json
from voxlate.images.grid import canonical, return_to, same_grid
from voxlate.images.mask import brain, foreground
from voxlate.images.volume import Volume, read_volume
from voxlate.ranges import Range, range_for
from voxlate.scores import Choices, Row, Scores
from voxlate.trivial import Trivial, answers

SUFFIXES = (".nii.gz", ".nii", ".mha", ".tif", ".tiff", ".png")
Progress = Callable[[int, int, str], None]
Inside = NDArray[np.bool_] | None


@dataclass(frozen=True)
class Item:
    """One synthesis to score: its case, its modality, and where its files lie."""

    case: CaseFiles
    modality: str
    synthesis: Path
    std: Path | None


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
    seed: int = 0,
    progress: Progress | None = None,
) -> Scores:
    """Score OUT/<case>/<modality> against the same case of the cohort `truth`; write metrics.csv and metrics.json.

    mask: None for the whole image, "body" or "brain" (found in the truth), "cohort" (the cohort's own mask files),
    or a file (`{case}` in its path stands for the case). value_range: (low, high), for all or by modality.
    trivial: the trivial answers, or their file; by default those of the run that OUT's provenance names.
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
    trivial = _trivial(trivial, out)
    rows: list[Row] = []
    for number, item in enumerate(items):
        if progress:
            progress(number, len(items), item.case.case)
        rows += _score_item(item, ranges[item.modality], mask, trivial, padding, out)
    if progress:
        progress(len(items), len(items), "")
    choices = Choices(
        truth=str(truth),
        mask="whole image" if mask is None else str(mask),
        padding=padding,
        split=split,
        seed=seed,
        ranges=ranges,
        trivial_cases=trivial.cases if trivial else None,
        without_truth=tuple(without),
        files={f"{item.case.case}/{item.modality}": str(item.case.files[item.modality]) for item in items},
        sources={item.case.case: {k: str(v) for k, v in _inputs(out, item.case).items()} for item in items},
        version=__version__,
    )
    scores = Scores(rows=tuple(rows), choices=choices)
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
    named = _provenance(out, mine[0].case.case).get("range", {}).get(modality)
    if named is not None:
        return range_for(first.unit, given=named, source="the recipe's window")
    pictures = (read_volume(item.case.files[modality], modality) for item in mine if first.unit == "grey")
    return range_for(first.unit, max((float(picture.data.max()) for picture in pictures), default=0.0))


def _provenance(out: Path, case: str = "") -> dict[str, Any]:
    """What was written beside a case's synthesis, or else beside all of them."""
    for path in (out / case / "provenance.json", out / "provenance.json"):
        if path.is_file():
            found = read_json(path)
            return found if isinstance(found, dict) else {}
    return {}


def _trivial(given: Trivial | Path | str | None, out: Path) -> Trivial | None:
    if isinstance(given, Trivial):
        return given
    if given is not None:
        return Trivial.load(given)
    run = _provenance(out).get("run")  # the run's folder, or a weights file in it
    places = [Path(run), Path(run).parent] if isinstance(run, str) else []
    stored = [place / "trivial.safetensors" for place in places if (place / "trivial.safetensors").is_file()]
    return Trivial.load(stored[0]) if stored else None


def _inputs(out: Path, case: CaseFiles) -> dict[str, Path]:
    """The scans a synthesis was made from: as its provenance says, else as the cohort has them."""
    stated = _provenance(out, case.case).get("inputs", {})
    named = {name: Path(entry["path"] if isinstance(entry, dict) else entry) for name, entry in stated.items()}
    return {name: path if path.exists() else case.files.get(name, path) for name, path in named.items()}


def _score_item(
    item: Item, scale: Range, mask: str | Path | None, trivial: Trivial | None, padding: metrics.Padding, out: Path
) -> list[Row]:
    truth = _one_channel(read_volume(item.case.files[item.modality], item.modality))
    synthesis = _on_grid_of(truth, item.synthesis, item.modality)
    inside = _mask(mask, truth, item.case)
    region = foreground(truth) if scale.own else None
    reference = _brought(truth, scale, region)
    head = (item.case.case, item.case.patient, item.modality)
    ours = _brought(synthesis, scale, region)
    scored = scores_of(reference, ours, scale, inside, padding)
    if item.std is not None:
        std = canonical(_on_grid_of(truth, item.std, item.modality)).data[0] / scale.gain(synthesis.data[0], region)
        scored |= _uncertainty(std, np.abs(ours - reference), inside)
    rows = [Row(*head, "synthesis", scored)]
    for name, answer in _trivial_answers(item, truth, trivial, out):
        brought = _brought(Volume(answer[None], truth.affine, truth.unit, item.modality), scale, region)
        rows.append(Row(*head, name, scores_of(reference, brought, scale, inside, padding)))
    return rows


def scores_of(
    truth: NDArray[np.float32], other: NDArray[np.float32], scale: Range, inside: Inside, padding: metrics.Padding
) -> dict[str, float]:
    """All scores of one image [D, H, W] (canonical, brought to the range) against the truth."""
    width = scale.width
    mae, rmse = metrics.mae(truth, other, inside), metrics.rmse(truth, other, inside)
    a, b = truth - np.float32(scale.low), other - np.float32(scale.low)
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
    }


def _uncertainty(std: NDArray[Any], error: NDArray[Any], inside: Inside) -> dict[str, float]:
    mean = float(np.mean(std if inside is None else std[inside], dtype=np.float64))
    return {"std": mean, "std_error_r": metrics.correlation(std, error, inside)}


def _trivial_answers(
    item: Item, truth: Volume, trivial: Trivial | None, out: Path
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    if trivial is None:
        return
    inputs = _inputs(out, item.case) or {k: v for k, v in item.case.files.items() if k != item.modality}
    sources = {
        name: _one_channel(read_volume(path, name))
        for name, path in inputs.items()
        if (name, item.modality) in trivial.tables and path.exists()
    }
    yield from answers(trivial, item.modality, sources, truth.grid).items()


def _mask(mask: str | Path | None, truth: Volume, case: CaseFiles) -> Inside:
    """The region that counts, [D, H, W] in canonical orientation."""
    if mask is None:
        return None
    if mask in ("body", "brain"):
        found = foreground(truth) if mask == "body" else brain(truth)
        region = Volume(found[None].astype(np.float32), truth.affine, "", "mask", truth.origin)
    else:
        if mask == "cohort" and case.mask is None:
            raise BadInput(
                f"{case.case}: expected a mask file in the cohort, found none. Pass --mask body, brain or a file."
            )
        path = case.mask if mask == "cohort" else Path(str(mask).replace("{case}", case.case))
        assert path is not None
        region = _on_grid_of(truth, path, "mask")
    inside: NDArray[np.bool_] = canonical(region).data[0] > 0.5
    if not inside.any():
        raise BadInput(f"{case.case}: expected a mask with voxels inside, found an empty one. Choose another --mask.")
    return inside


def _brought(volume: Volume, scale: Range, region: Inside) -> NDArray[np.float32]:
    """Canonical [D, H, W] values on the scored scale: slices are then axial and rows run the same way in all files."""
    values = Volume(scale.bring(volume.data[0], region)[None], volume.affine, scale.unit, volume.modality)
    return np.ascontiguousarray(canonical(values).data[0])


def _on_grid_of(truth: Volume, path: Path, modality: str) -> Volume:
    volume = _one_channel(read_volume(path, modality))
    if same_grid(volume.grid, truth.grid):
        return volume
    if same_grid(canonical(volume).grid, canonical(truth).grid):  # flips and permutes are undone exactly
        return return_to(volume, truth.grid)
    raise BadInput(
        f"{path}: expected the grid of {truth.origin} ({truth.grid}), found {volume.grid}. "
        "Score images as `voxlate synth` wrote them, on the grid of the truth."
    )


def _one_channel(volume: Volume) -> Volume:
    if volume.data.shape[0] == 1:
        return volume
    raise BadInput(
        f"{volume.origin}: expected one value a voxel, found {volume.data.shape[0]} channels. Split the file first."
    )
