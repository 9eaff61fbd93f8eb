"""What part of an image counts: the mask of all scores, and named regions that are scored by themselves."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxlate import metrics
from voxlate.data.cohort import CaseFiles
from voxlate.data.layout import LABELS
from voxlate.errors import BadInput
from voxlate.images.grid import canonical, return_to, same_grid
from voxlate.images.mask import brain, foreground
from voxlate.images.volume import Volume, read_volume, unit_of
from voxlate.ranges import Range, range_for

Inside = NDArray[np.bool_]
NUMBER = r"([-+]?\d+(?:\.\d*)?)"
ABOVE_OR_BELOW = re.compile(rf"([\w-]+)\s*([<>])\s*{NUMBER}")
LABEL = re.compile(rf"([\w-]+)\s*={{1,2}}\s*{NUMBER}")
BETWEEN = re.compile(rf"{NUMBER}\s*<\s*([\w-]+)\s*<\s*{NUMBER}")


@dataclass(frozen=True)
class Region:
    """A named part of each case: where a modality or label map of the truth lies between two values, or a mask file.

    low, high: in the modality's unit, in shares of the image's own peak where that is arbitrary; plain in label maps.
    """

    name: str
    text: str
    modality: str | None = None
    low: float = -math.inf
    high: float = math.inf
    path: str | None = None

    def select(self, values: NDArray[np.float32]) -> Inside:
        chosen: Inside = (values > self.low) & (values < self.high)
        return chosen

    def rule(self, ranges: Mapping[str, Range], within: str) -> str:
        """In words, for the caption: cta > 150 HU within body."""
        if self.modality is None or self.modality in LABELS:
            return f"{self.text} within {within}"
        known = ranges.get(self.modality) or range_for(unit_of(self.modality))
        return f"{self.text} {known.unit} within {within}"


def regions_from(texts: Mapping[str, str] | None) -> tuple[Region, ...]:
    """Regions by name: "cta>150", "ct<-300", "150<cta<600", "seg=4", or a mask file ("masks/{case}.nii.gz").

    Raises BadInput for a text that is none of these.
    """
    return tuple(_region(name, str(text)) for name, text in (texts or {}).items())


def _region(name: str, text: str) -> Region:
    if not re.fullmatch(r"[\w-]+", name):
        raise BadInput(
            f"region: expected a name of letters, digits, _ and -, found {name!r}. Write it as vessels=cta>150."
        )
    if found := LABEL.fullmatch(text.strip()):
        value = float(found[2])
        return Region(name, f"{found[1]} = {value:g}", found[1], value - 0.5, value + 0.5)
    if "<" not in text and ">" not in text:
        if not text:
            raise BadInput(f"region {name}: expected a threshold or a mask file, found nothing. Write {name}=cta>150.")
        return Region(name, text, path=text)
    if found := ABOVE_OR_BELOW.fullmatch(text.strip()):
        modality, sign, value = found[1], found[2], float(found[3])
        ends = (value, math.inf) if sign == ">" else (-math.inf, value)
        return Region(name, f"{modality} {sign} {value:g}", modality, *ends)
    if (found := BETWEEN.fullmatch(text.strip())) and float(found[1]) < float(found[3]):
        return Region(name, f"{found[1]} < {found[2]} < {found[3]}", found[2], float(found[1]), float(found[3]))
    raise BadInput(
        f"region {name}: expected MODALITY>NUMBER, MODALITY<NUMBER, LOW<MODALITY<HIGH, LABELS=NUMBER or a mask file, "
        f"found {text!r}. "
        f"Write it as {name}=cta>150."
    )


def find_region(
    region: Region, truth: Volume, scale: Range, body: Inside | None, case: CaseFiles, frame: Inside
) -> Inside:
    """Where the region lies in one case, [D, H, W] canonical, within `frame`. May be empty.

    scale: the range that the truth is scored on; body: the truth's foreground, where that range is its own.
    """
    if region.path is not None:
        path = Path(region.path.replace("{case}", case.case))
        found: Inside = canonical(on_grid_of(truth, path, "mask")).data[0] > 0.5
        return found & frame
    assert region.modality is not None
    if region.modality == truth.modality:
        return region.select(thresholded(truth, scale, body)) & frame
    if region.modality in case.labels:
        return region.select(canonical(on_grid_of(truth, case.labels[region.modality], "seg")).data[0]) & frame
    if region.modality not in case.files:
        known = ", ".join(sorted({**case.files, **case.labels}))
        raise BadInput(
            f"region {region.name}: expected a modality or label map of {case.case} ({known}), "
            f"found {region.modality}. Choose one of these."
        )
    other = on_grid_of(truth, case.files[region.modality], region.modality)
    own = range_for(other.unit)
    return region.select(thresholded(other, own, foreground(other) if own.own else None)) & frame


def thresholded(volume: Volume, scale: Range, body: Inside | None) -> NDArray[np.float32]:
    """Values that a threshold meets, [D, H, W] canonical: not clipped; shares of the own peak in arbitrary units."""
    if not scale.own:
        return canonical(volume).data[0]
    return brought(volume, scale, body)


def region_scores(
    name: str,
    inside: Inside,
    truth: NDArray[np.float32],
    other: NDArray[np.float32],
    overlap: Inside | None,
) -> dict[str, float]:
    """MAE, both means and size inside a region, and Dice with `overlap`, where the other image passes the threshold."""
    found = {f"{name}.voxels": float(inside.sum())}
    for key, image in (("mean", other), ("truth_mean", truth)):
        found[f"{name}.{key}"] = float(np.mean(image[inside], dtype=np.float64)) if inside.any() else math.nan
    found[f"{name}.mae"] = metrics.mae(truth, other, inside) if inside.any() else math.nan
    if overlap is not None:
        found[f"{name}.dice"] = metrics.dice(inside, overlap)
    return found


def mask_of(mask: str | Path | None, truth: Volume, case: CaseFiles) -> Inside | None:
    """The region that counts, [D, H, W] in canonical orientation; None for the whole image."""
    if mask is None:
        return None
    if mask in ("body", "brain"):
        inside = body_of(truth) if mask == "body" else _canonical(brain(truth), truth)
    else:
        if mask == "cohort" and case.mask is None:
            raise BadInput(
                f"{case.case}: expected a mask file in the cohort, found none. Pass --mask body, brain or a file."
            )
        path = case.mask if mask == "cohort" else Path(str(mask).replace("{case}", case.case))
        assert path is not None
        inside = canonical(on_grid_of(truth, path, "mask")).data[0] > 0.5
    if not inside.any():
        raise BadInput(f"{case.case}: expected a mask with voxels inside, found an empty one. Choose another --mask.")
    return inside


def body_of(truth: Volume) -> Inside:
    """The foreground of the truth, [D, H, W] in canonical orientation."""
    return _canonical(foreground(truth), truth)


def _canonical(found: Inside, truth: Volume) -> Inside:
    """A mask found on the truth's own grid, in canonical orientation."""
    volume = Volume(found[None].astype(np.float32), truth.affine, "", "mask", truth.origin)
    inside: Inside = canonical(volume).data[0] > 0.5
    return inside


def brought(volume: Volume, scale: Range, region: Inside | None) -> NDArray[np.float32]:
    """Canonical [D, H, W] values on the scored scale: slices are then axial and rows run the same way in all files."""
    values = Volume(scale.bring(volume.data[0], region)[None], volume.affine, scale.unit, volume.modality)
    return np.ascontiguousarray(canonical(values).data[0])


def on_grid_of(truth: Volume, path: Path, modality: str) -> Volume:
    """The image of `path` on the truth's own grid, where the two differ by flips and permutes at most."""
    volume = one_channel(read_volume(path, modality))
    if same_grid(volume.grid, truth.grid):
        return volume
    if same_grid(canonical(volume).grid, canonical(truth).grid):  # flips and permutes are undone exactly
        return return_to(volume, truth.grid)
    raise BadInput(
        f"{path}: expected the grid of {truth.origin} ({truth.grid}), found {volume.grid}. "
        "Score images as `voxlate synth` wrote them, on the grid of the truth."
    )


def one_channel(volume: Volume) -> Volume:
    if volume.data.shape[0] == 1:
        return volume
    raise BadInput(
        f"{volume.origin}: expected one value a voxel, found {volume.data.shape[0]} channels. Split the file first."
    )
