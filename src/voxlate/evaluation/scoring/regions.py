"""The mask of all scores, and named regions with scores of their own."""

import itertools
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from voxlate.base.arrays import Bool, Float32
from voxlate.base.errors import BadInput
from voxlate.base.similarity import RADIUS, dice
from voxlate.evaluation.lesion_counts import count_lesions
from voxlate.evaluation.scoring.metrics import ImagePair, mae, mae_z, psnr, ssim
from voxlate.evaluation.surfaces import surface_distances
from voxlate.evaluation.tissues import TISSUES_HU
from voxlate.scans.cohorts.case_files import LABELS, CaseFiles
from voxlate.scans.cohorts.leakage import sentences_on_shared_masks
from voxlate.scans.formats.io import is_there, read_volume
from voxlate.scans.images.grid import Volume, canonical, same_grid
from voxlate.scans.images.mask import box_around, brain, clearest, foreground
from voxlate.scans.images.ranges import Range, range_for
from voxlate.scans.images.units import unit_of

NUMBER = r"[-+]?\d+(?:\.\d*)?"
# LOW < MODALITY < VALUE %
RULE = re.compile(rf"(?:({NUMBER})\s*<\s*)?([\w-]+)\s*(<|>|==?)\s*({NUMBER})\s*(%)?")
NAMED = (None, "body", "brain", "cohort")  # masks that are no files
RATIO = re.compile(r"([\w-]+)\s*/\s*([\w-]+)")
TISSUES = "tissues"  # the name that stands for a region of each tissue


@dataclass(frozen=True)
class Region:
    """A named part of each case: a modality or label map of the truth between two values, or a mask file.

    low, high: in the modality's unit, in shares of the image's own peak if the unit is arbitrary, or labels; mirrored:
    in shares of the other hemisphere's mean; over: this region is the ratio of the volumes of these two regions; tissue:
    of the tissues of CT, of which a body may lack some, and which are no structures with pieces.
    """

    name: str
    text: str
    modality: str | None = None
    low: float = -math.inf
    high: float = math.inf
    path: str | None = None
    mirrored: bool = False
    over: tuple[str, str] | None = None
    tissue: bool = False

    def select(self, values: Float32, frame: Bool) -> Bool:
        """The part of `frame` with values between low and high; values, frame: [D, H, W], canonical."""
        if self.mirrored:
            values = shares_of_other_side(values, frame)
        return (values > self.low) & (values < self.high) & frame

    def rule(self, ranges: Mapping[str, Range], within: str) -> str:
        """The rule for the caption, such as `cta > 150 HU within body`."""
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

    "cbf<30%" compares with the mean of the other hemisphere; "lesion/core", the names of two regions, is a mismatch
    ratio; {"tissues": "ct"} is a region of each tissue by the values of a CT. Raises BadInput for other texts.
    """
    given = {name: str(text) for name, text in (texts or {}).items()}
    tissues = _tissues_of(given.pop(TISSUES), given) if TISSUES in given else ()
    pairs: dict[str, tuple[str, str]] = {}
    for name, text in given.items():
        match = RATIO.fullmatch(text.strip())
        if match and {match[1], match[2]} <= given.keys():  # other texts with a slash are paths
            pairs[name] = (match[1], match[2])
    # A ratio of ratios is none.
    ratios = {name: pair for name, pair in pairs.items() if not pairs.keys() & pair}
    plain = [_region(name, text) for name, text in given.items() if name not in ratios]
    over = [Region(name, given[name], over=pair) for name, pair in ratios.items()]
    return (*tissues, *plain, *over)


def _tissues_of(modality: str, others: Collection[str]) -> list[Region]:
    """A region of each tissue by the values of a CT; others: the names of the other regions."""
    if not re.fullmatch(r"[\w-]+", modality) or unit_of(modality) != "HU":
        raise BadInput(
            f"region {TISSUES}: expected a modality in HU, such as {TISSUES}=ct, found {modality!r}. Name the CT, or write thresholds of your own."
        )
    if taken := TISSUES_HU.keys() & others:
        raise BadInput(
            f"region {min(taken)}: expected another name beside {TISSUES}, which has a region of that name, found {min(taken)}. Rename it."
        )
    regions = []
    for name, (low, high) in TISSUES_HU.items():
        above = f"{low:g} ≤ " if math.isfinite(low) else ""
        below = f" < {high:g}" if math.isfinite(high) else ""
        # `select` leaves out its lower end, which belongs to the tissue.
        first = float(np.nextafter(np.float32(low), np.float32(-math.inf)))
        regions.append(
            Region(name, f"{above}{modality}{below}", modality, first, high, tissue=True)
        )
    return regions


def _region(name: str, text: str) -> Region:
    if not re.fullmatch(r"[\w-]+", name):
        raise BadInput(
            f"region: expected a name of letters, digits, _ and -, found {name!r}. Write it as vessels=cta>150."
        )
    rule = RULE.fullmatch(text.strip())
    if rule is None and not set(text) & set("<>"):
        if not text:
            raise BadInput(
                f"region {name}: expected a threshold or a mask file, found nothing. Write {name}=cta>150."
            )
        return Region(name, text, path=text)
    below, modality, sign, number, percent = rule.groups() if rule else ("", "", "", "0", "")
    value = float(number)
    said = f"{modality} {sign[:1]} {value:g}"
    if percent and sign == "<" and not below:
        return Region(name, f"{said} %", modality, 0.0, value / 100, mirrored=True)
    if below and sign == "<" and not percent and float(below) < value:
        return Region(name, f"{below} < {modality} < {number}", modality, float(below), value)
    if rule and not below and not percent:
        ends = {"<": (-math.inf, value), ">": (value, math.inf)}
        low, high = ends.get(sign, (value - 0.5, value + 0.5))
        return Region(name, said, modality, low, high)
    raise BadInput(
        f"region {name}: expected MODALITY>NUMBER, MODALITY<NUMBER, LOW<MODALITY<HIGH, LABELS=NUMBER or a mask file, found {text!r}. Write it as {name}=cta>150."
    )


def find_region(
    region: Region,
    truth: Volume,
    scale: Range,
    body: Bool | None,
    case: CaseFiles,
    frame: Bool,
) -> Bool:
    """The voxels of the region in one case, [D, H, W] canonical, within `frame`; there may be none.

    scale: the scored range of the truth; body: the truth's foreground, if the range is that of the image's own peak.
    """
    if region.path is not None:
        path = _file_of(region.path, case.case)
        inside: Bool = on_grid_of(truth, path, "mask").data[0] > 0.5
        return inside & frame
    assert region.modality is not None
    if region.modality == truth.modality:
        return region.select(scale_to_peak(truth, scale, body), frame)
    if region.modality in case.labels:
        return region.select(on_grid_of(truth, case.labels[region.modality], "seg").data[0], frame)
    if region.modality not in case.files:
        known = ", ".join(sorted({**case.files, **case.labels}))
        raise BadInput(
            f"region {region.name}: expected a modality or label map of {case.case} ({known}), found {region.modality}. Choose one of these."
        )
    other = on_grid_of(truth, case.files[region.modality], region.modality)
    return region.select(scale_to_peak(other, range_for(other.unit), foreground(other)), frame)


def shares_of_other_side(values: Float32, frame: Bool) -> Float32:
    """Values over the mean of the other half of the frame: [D, H, W], canonical, so W runs from left to right.

    The halves meet in the middle of the frame's box. Only values above 0 count, because fluid is not perfused. A half
    becomes NaN if the other half has no such value. Source of the threshold: Campbell et al. 2011 (Stroke 42), relative
    CBF of a core.
    """
    shares = np.full(values.shape, np.nan, np.float32)
    columns = np.flatnonzero(frame.any(axis=(0, 1)))
    if not len(columns):
        return shares
    first = int(columns[0])
    last = int(columns[-1]) + 1
    left = slice(0, (first + last) // 2)
    right = slice((first + last + 1) // 2, None)
    middle = slice(left.stop, right.start)  # an odd width has a column of no side
    perfused = frame & (values > 0)
    for here, others in ((left, (right,)), (right, (left,)), (middle, (left, right))):
        known = np.concatenate([values[..., other][perfused[..., other]] for other in others])
        if len(known):
            shares[..., here] = values[..., here] / np.mean(known, dtype=np.float64)
    return shares


def scale_to_peak(volume: Volume, scale: Range, body: Bool | None) -> Float32:
    """The values for a threshold, [D, H, W], not clipped; in arbitrary units they are shares of the peak."""
    return scale.normalise(volume.data[0], body) if scale.own else volume.data[0]


def region_scores(
    region: Region,
    inside: Bool,
    pair: ImagePair,
    overlap: Bool | None,
    spacing_mm: Sequence[float],
) -> dict[str, float]:
    """The scores of a region in one image; inside, overlap: [D, H, W], the region in the truth and in the synthesis.

    MAE, both means and the volume (ml). With `overlap` also the Dice, its volume, the error of the volume and, of a region
    with one threshold, the distance of both surfaces. Of all but tissues also PSNR, SSIM, MAE of slices' differences, and
    counts of lesions.
    """
    truth, other = pair.truth, pair.synthesis
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    count = float(inside.sum())
    scores = {"voxels": count, "truth_volume": voxel_ml * count}
    scores |= dict.fromkeys(("mean", "truth_mean", "mae"), math.nan)
    if count:
        scores["mean"] = float(np.mean(other[inside], dtype=np.float64))
        scores["truth_mean"] = float(np.mean(truth[inside], dtype=np.float64))
        scores["mae"] = mae(truth, other, inside)
    if overlap is not None:
        scores["dice"] = dice(inside, overlap)
        scores["volume"] = voxel_ml * float(overlap.sum())
        scores["volume_error"] = abs(scores["volume"] - scores["truth_volume"])
        # Between two thresholds lies a shell around other tissues, whose surfaces say little.
        if math.isinf(region.high - region.low):
            distances = surface_distances(inside, overlap, spacing_mm)
            scores |= zip(("surface", "surface_95"), distances)
    if not region.tissue:
        scores |= _structure_scores(inside, pair) | count_lesions(inside, truth, other, overlap)
    return {f"{region.name}.{key}": value for key, value in scores.items()}


def _structure_scores(inside: Bool, pair: ImagePair) -> dict[str, float]:
    """PSNR, SSIM, and MAE of slices' differences in a region; NaN if it is empty."""
    if not inside.any():
        return dict.fromkeys(("psnr", "mae_z", "ssim_3d"), math.nan)
    width = pair.scale.width
    box = tuple(slice(max(0, first - RADIUS), end + RADIUS) for first, end in box_around(inside))
    a, b = (image[box] - np.float32(pair.scale.low) for image in (pair.truth, pair.synthesis))
    return {
        "psnr": psnr(pair.truth, pair.synthesis, width, inside),
        "mae_z": mae_z(a, b, inside[box]),
        "ssim_3d": ssim(a, b, width, dimensions=3, mask=inside[box]),
    }


def ratio_scores(name: str, over: tuple[str, str], scored: Mapping[str, float]) -> dict[str, float]:
    """The ratio of the volumes of two regions in image and truth, and the error; NaN if the second is empty.

    A region that is not defined by the image (another modality, a label map, a file) has the truth's volume.
    """
    of_truth = [scored[f"{part}.truth_volume"] for part in over]
    of_image = [scored.get(f"{part}.volume", volume) for part, volume in zip(over, of_truth)]
    ratio, truth = (top / bottom if bottom else math.nan for top, bottom in (of_image, of_truth))
    return {
        f"{name}.ratio": ratio,
        f"{name}.truth_ratio": truth,
        f"{name}.ratio_error": abs(ratio - truth),
    }


def mask_of(mask: str | Path | None, truth: Volume, case: CaseFiles) -> Bool | None:
    """The voxels that count, [D, H, W]; None stands for the whole image; truth: canonical."""
    if mask is None:
        return None
    if mask == "body":
        inside = foreground(truth)
    elif mask == "brain":
        inside = _brain_of(truth, case)
    else:
        if mask == "cohort" and case.mask is None:
            raise BadInput(
                f"{case.case}: expected a mask file in the cohort, found none. Pass --mask body, brain or a file."
            )
        check_mask(mask, case.case)
        path = case.mask if mask == "cohort" else _file_of(mask, case.case)
        assert path is not None
        inside = on_grid_of(truth, path, "mask").data[0] > 0.5
    if not inside.any():
        raise BadInput(
            f"{case.case}: expected a mask with voxels inside, found an empty one. Choose another --mask."
        )
    return inside


def check_mask(mask: str | Path | None, case: str) -> None:
    """Raise BadInput for a mask that is neither the name of one nor a file of this case."""
    if mask not in NAMED and not is_there(path := _file_of(mask, case)):
        raise BadInput(
            f"--mask: expected body, brain, cohort (its mask files) or a file, found {mask!s}, and no such file for {case} ({path}). Choose one of these."
        )


def _file_of(place: object, case: str) -> Path:
    return Path(str(place).replace("{case}", case))


def masks_of_several(
    mask: str | Path | None, regions: Iterable[Region], cases: Iterable[CaseFiles]
) -> list[str]:
    """A sentence for each mask file of the evaluation or a region that is used for several patients."""
    places: list[object] = [region.path for region in regions if region.path is not None]
    if mask not in NAMED:
        places.append(mask)
    files = []
    for place, case in itertools.product(places, cases):
        files.append((case.patient, _file_of(place, case.case)))
    if mask == "cohort":
        files += [(case.patient, case.mask) for case in cases if case.mask is not None]
    return sentences_on_shared_masks(files)


def _brain_of(truth: Volume, case: CaseFiles) -> Bool:
    """The brain in the truth, or in the case's CT if the truth is a map of perfusion."""
    units = {truth.modality: truth.unit, **{name: unit_of(name) for name in case.files}}
    name = clearest(units)
    if truth.unit in ("HU", "a.u.", "grey") or units[name] != "HU":
        return brain(truth)
    return brain(on_grid_of(truth, case.files[name], name))


def on_grid_of(truth: Volume, path: Path, modality: str) -> Volume:
    """The image of `path`, canonical; raises BadInput if its grid is not that of the truth."""
    volume = read_canonical(path, modality)
    if same_grid(volume.grid, truth.grid):
        return volume
    raise BadInput(
        f"{path}: expected the grid of {truth.origin} ({truth.grid}), found {volume.grid}. Score images as `voxlate synth` wrote them, on the grid of the truth."
    )


def read_canonical(path: Path, modality: str) -> Volume:
    """A scan in canonical orientation, in which slices are axial and rows have the same direction in all files."""
    turned = canonical(read_volume(path, modality))
    return replace(turned, data=np.ascontiguousarray(turned.data))
