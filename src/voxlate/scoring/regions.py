"""The mask of all scores, and named regions that are scored separately."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxlate.data.find import CaseFiles
from voxlate.data.leakage import shared_masks
from voxlate.data.presets import LABELS
from voxlate.errors import BadInput
from voxlate.images.grid import Volume, canonical, same_grid
from voxlate.images.io import is_there, read_volume
from voxlate.images.mask import bounding_box, brain, clearest, foreground
from voxlate.images.ranges import Range, range_for
from voxlate.images.similarity import RADIUS, dice
from voxlate.images.units import unit_of
from voxlate.scoring.lesion_counts import ledger
from voxlate.scoring.metrics import ImagePair, mae, mae_z, psnr, ssim

MaskArray = NDArray[np.bool_]
NUMBER = r"[-+]?\d+(?:\.\d*)?"
# LOW < MODALITY < VALUE %
RULE = re.compile(rf"(?:({NUMBER})\s*<\s*)?([\w-]+)\s*(<|>|==?)\s*({NUMBER})\s*(%)?")
RATIO = re.compile(r"([\w-]+)\s*/\s*([\w-]+)")


@dataclass(frozen=True)
class Region:
    """A named part of each case: where a modality or label map of the truth lies between two values, or a mask file.

    low, high: in the modality's unit, in shares of the image's own peak where that is arbitrary; plain in label maps.
    mirrored: in shares of the other hemisphere's mean instead. over: the ratio of the volumes of two other regions.
    """

    name: str
    text: str
    modality: str | None = None
    low: float = -math.inf
    high: float = math.inf
    path: str | None = None
    mirrored: bool = False
    over: tuple[str, str] | None = None

    def select(self, values: NDArray[np.float32], frame: MaskArray) -> MaskArray:
        """The part of `frame` whose values lie between low and high; values, frame: [D, H, W], canonical."""
        if self.mirrored:
            values = shares_of_other_side(values, frame)
        chosen: MaskArray = (values > self.low) & (values < self.high) & frame
        return chosen

    def rule(self, ranges: Mapping[str, Range], within: str) -> str:
        """In words, for the caption: `cta > 150 HU within body`."""
        if self.over is not None:
            return f"volume of {self.over[0]} / volume of {self.over[1]}"
        if self.mirrored:
            return f"{self.text} of the other hemisphere's mean, where above 0, within {within}"
        if self.modality is None or self.modality in LABELS:
            return f"{self.text} within {within}"
        known = ranges.get(self.modality) or range_for(unit_of(self.modality))
        return f"{self.text} {known.unit} within {within}"


def regions_from(texts: Mapping[str, str] | None) -> tuple[Region, ...]:
    """Regions by name: "cta>150", "ct<-300", "150<cta<600", "seg=4", or a mask file ("masks/{case}.nii.gz").

    "cbf<30%" compares with the mean of the other hemisphere; "lesion/core", two names of others, is a mismatch ratio.
    Raises BadInput for a text that is none of these.
    """
    given = {name: str(text) for name, text in (texts or {}).items()}
    slashed = {name: found.groups() for name, text in given.items() if (found := RATIO.fullmatch(text.strip()))}
    # others are paths
    named = {name: pair for name, pair in slashed.items() if set(pair) <= given.keys()}
    ratios = {name: pair for name, pair in named.items() if not set(pair) & named.keys()}
    plain = tuple(_region(name, text) for name, text in given.items() if name not in ratios)
    return plain + tuple(Region(name, given[name], over=(top, bottom)) for name, (top, bottom) in ratios.items())


def _region(name: str, text: str) -> Region:
    if not re.fullmatch(r"[\w-]+", name):
        raise BadInput(
            f"region: expected a name of letters, digits, _ and -, found {name!r}. Write it as vessels=cta>150."
        )
    found = RULE.fullmatch(text.strip())
    if found is None and "<" not in text and ">" not in text:
        if not text:
            raise BadInput(f"region {name}: expected a threshold or a mask file, found nothing. Write {name}=cta>150.")
        return Region(name, text, path=text)
    below, modality, sign, number, percent = found.groups() if found else ("", "", "", "0", "")
    value = float(number)
    match (bool(below), sign, bool(percent)):
        case (False, "=" | "==", False):
            return Region(name, f"{modality} = {value:g}", modality, value - 0.5, value + 0.5)
        case (False, "<", True):
            return Region(name, f"{modality} < {value:g} %", modality, 0.0, value / 100, mirrored=True)
        case (False, "<", False):
            return Region(name, f"{modality} < {value:g}", modality, high=value)
        case (False, ">", False):
            return Region(name, f"{modality} > {value:g}", modality, low=value)
        case (True, "<", False) if float(below) < value:
            return Region(name, f"{below} < {modality} < {number}", modality, float(below), value)
    raise BadInput(
        f"region {name}: expected MODALITY>NUMBER, MODALITY<NUMBER, LOW<MODALITY<HIGH, LABELS=NUMBER or a mask file, found {text!r}. Write it as {name}=cta>150."
    )


def find_region(
    region: Region,
    truth: Volume,
    scale: Range,
    body: MaskArray | None,
    case: CaseFiles,
    frame: MaskArray,
) -> MaskArray:
    """Where the region lies in one case, [D, H, W] canonical, within `frame`. May be empty.

    scale: the range that the truth is scored on; body: the truth's foreground, where that range is its own.
    """
    if region.path is not None:
        path = _file_of(region.path, case)
        found: MaskArray = on_grid_of(truth, path, "mask").data[0] > 0.5
        return found & frame
    assert region.modality is not None
    if region.modality == truth.modality:
        return region.select(thresholded(truth, scale, body), frame)
    if region.modality in case.labels:
        return region.select(on_grid_of(truth, case.labels[region.modality], "seg").data[0], frame)
    if region.modality not in case.files:
        known = ", ".join(sorted({**case.files, **case.labels}))
        raise BadInput(
            f"region {region.name}: expected a modality or label map of {case.case} ({known}), found {region.modality}. Choose one of these."
        )
    other = on_grid_of(truth, case.files[region.modality], region.modality)
    own = range_for(other.unit)
    return region.select(thresholded(other, own, foreground(other) if own.own else None), frame)


def shares_of_other_side(values: NDArray[np.float32], frame: MaskArray) -> NDArray[np.float32]:
    """Values over the mean of the other half of the frame: [D, H, W], canonical, so that W runs from left to right.

    The halves meet in the middle of the frame's box. Only values above 0 count: fluid is not perfused. A half whose
    other half has none becomes NaN. Source of the threshold: Campbell et al. 2011 (Stroke 42), relative CBF of a core.
    """
    shares = np.full(values.shape, np.nan, np.float32)
    columns = np.flatnonzero(frame.any(axis=(0, 1)))
    if not len(columns):
        return shares
    first = int(columns[0])
    last = int(columns[-1]) + 1
    left = slice(0, (first + last) // 2)
    right = slice((first + last + 1) // 2, None)
    middle = slice(left.stop, right.start)  # of an odd width: a column of no side
    perfused = frame & (values > 0)
    for here, others in ((left, (right,)), (right, (left,)), (middle, (left, right))):
        known = np.concatenate([values[..., other][perfused[..., other]] for other in others])
        if len(known):
            shares[..., here] = values[..., here] / np.mean(known, dtype=np.float64)
    return shares


def thresholded(volume: Volume, scale: Range, body: MaskArray | None) -> NDArray[np.float32]:
    """Values that a threshold applies to, [D, H, W]: not clipped; in arbitrary units shares of the peak."""
    return scale.normalise(volume.data[0], body) if scale.own else volume.data[0]


def region_scores(
    name: str,
    inside: MaskArray,
    pair: ImagePair,
    overlap: MaskArray | None,
    voxel_ml: float,
) -> dict[str, float]:
    """MAE (of slices' differences, too), PSNR, SSIM, both means, volume (ml) and the fate of pieces inside a region.

    Where `overlap`, the same region of the other image, is known also their Dice, its volume and the volume's error.
    """
    truth = pair.truth
    other = pair.synthesis
    width = pair.scale.width
    found = {"voxels": float(inside.sum()), "truth_volume": voxel_ml * float(inside.sum())}
    found |= dict.fromkeys(("mean", "truth_mean", "mae", "mae_z", "psnr", "ssim_3d"), math.nan)
    if inside.any():
        box = tuple(slice(max(0, first - RADIUS), end + RADIUS) for first, end in bounding_box(inside))
        a, b = (one[box] - np.float32(pair.scale.low) for one in (truth, other))
        found["mean"] = float(np.mean(other[inside], dtype=np.float64))
        found["truth_mean"] = float(np.mean(truth[inside], dtype=np.float64))
        found["mae"], found["psnr"] = (
            mae(truth, other, inside),
            psnr(truth, other, width, inside),
        )
        found["mae_z"] = mae_z(a, b, inside[box])
        found["ssim_3d"] = ssim(a, b, width, dimensions=3, mask=inside[box])
    if overlap is not None:
        found |= {"dice": dice(inside, overlap), "volume": voxel_ml * float(overlap.sum())}
        found["volume_error"] = abs(found["volume"] - found["truth_volume"])
    found |= ledger(inside, truth, other, overlap)
    return {f"{name}.{key}": value for key, value in found.items()}


def ratio_scores(name: str, over: tuple[str, str], scored: Mapping[str, float]) -> dict[str, float]:
    """The volumes of two regions divided, in the image and in the truth, and the error; NaN where the lower is empty.

    A region that is not found in the image itself (another modality, a label map, a file) has the truth's volume.
    """
    of_truth = [scored[f"{part}.truth_volume"] for part in over]
    of_image = [scored.get(f"{part}.volume", scored[f"{part}.truth_volume"]) for part in over]
    ratio, truth = (top / bottom if bottom else math.nan for top, bottom in (of_image, of_truth))
    return {
        f"{name}.ratio": ratio,
        f"{name}.truth_ratio": truth,
        f"{name}.ratio_error": abs(ratio - truth),
    }


def mask_of(mask: str | Path | None, truth: Volume, case: CaseFiles) -> MaskArray | None:
    """The voxels that count, [D, H, W]; None for the whole image. truth: canonical."""
    if mask is None:
        return None
    if mask in ("body", "brain"):
        inside = foreground(truth) if mask == "body" else _brain_of(truth, case)
    else:
        if mask == "cohort" and case.mask is None:
            raise BadInput(
                f"{case.case}: expected a mask file in the cohort, found none. Pass --mask body, brain or a file."
            )
        path = case.mask if mask == "cohort" else _file_of(str(mask), case)
        assert path is not None
        if not is_there(path):
            raise BadInput(
                f"--mask: expected body, brain, cohort (its mask files) or a file, found {mask!s}, and no such file for {case.case} ({path}). Choose one of these."
            )
        inside = on_grid_of(truth, path, "mask").data[0] > 0.5
    if not inside.any():
        raise BadInput(f"{case.case}: expected a mask with voxels inside, found an empty one. Choose another --mask.")
    return inside


def _file_of(text: str, case: CaseFiles) -> Path:
    return Path(text.replace("{case}", case.case))


def masks_of_several(mask: str | Path | None, regions: Iterable[Region], cases: Sequence[CaseFiles]) -> list[str]:
    """A sentence for each mask file, of the evaluation or of a region, that is used for several patients."""
    texts = [region.path for region in regions if region.path is not None]
    if mask not in (None, "body", "brain", "cohort"):
        texts.append(str(mask))
    files = [(one.patient, _file_of(text, one)) for text in texts for one in cases]
    own = [(one.patient, one.mask) for one in cases if one.mask is not None] if mask == "cohort" else []
    return shared_masks([*files, *own])


def _brain_of(truth: Volume, case: CaseFiles) -> MaskArray:
    """The brain in the truth; where that is a map (of flow, of time), in the case's CT."""
    units = {truth.modality: truth.unit, **{name: unit_of(name) for name in case.files}}
    name = clearest(units)
    if truth.unit in ("HU", "a.u.", "grey") or units[name] != "HU":
        return brain(truth)
    return brain(on_grid_of(truth, case.files[name], name))


def on_grid_of(truth: Volume, path: Path, modality: str) -> Volume:
    """The image of `path`, canonical; raises BadInput where its grid is not the truth's."""
    volume = read_canonical(path, modality)
    if same_grid(volume.grid, truth.grid):
        return volume
    raise BadInput(
        f"{path}: expected the grid of {truth.origin} ({truth.grid}), found {volume.grid}. Score images as `voxlate synth` wrote them, on the grid of the truth."
    )


def read_canonical(path: Path, modality: str) -> Volume:
    """A scan in canonical orientation: slices are then axial and rows run the same way in all files."""
    turned = canonical(read_volume(path, modality))
    return replace(turned, data=np.ascontiguousarray(turned.data))
