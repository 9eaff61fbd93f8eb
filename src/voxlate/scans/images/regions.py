"""Named parts of an image by rules: thresholds of its values, tissues of a CT, label maps."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from voxlate.base.array_types import Bool, Float32
from voxlate.base.errors import BadInput
from voxlate.scans.cohorts.case_files import LABELS
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.ranges import Range, range_for
from voxlate.scans.images.units import unit_of

NAME = re.compile(r"[\w-]+")
NUMBER = r"[-+]?\d+(?:\.\d*)?"
# LOW < MODALITY < VALUE
RULE = re.compile(rf"(?:({NUMBER})\s*<\s*)?([\w-]+)\s*(<|>|==?)\s*({NUMBER})\s*")
# Tissues of CT by ranges of Hounsfield units, from the first value to below the second.
# Sources: air, lung, fat, soft tissue and bone by the borders of the materials of Schneider, Bortfeld and Schlegel 2000
# (Phys. Med. Biol. 45:459, table 6); cortical from trabecular bone at 600 HU by Aamodt et al. 1999 (J. Bone Joint Surg. Br.
# 81:143). A voxel that holds two materials counts as the one between them: the rim of air as lung, for example. Contrast
# agent counts as bone.
TISSUES_HU: dict[str, tuple[float, float]] = {
    "air": (-inf, -950.0),
    "lung": (-950.0, -120.0),
    "fat": (-120.0, -22.0),
    "soft_tissue": (-22.0, 120.0),
    "trabecular": (120.0, 600.0),
    "cortical": (600.0, inf),
    "bone": (120.0, inf),  # trabecular and cortical
}
# The values that separate tissues, bone as its two parts.
BORDERS_HU = sorted({low for low, _ in TISSUES_HU.values() if isfinite(low)})
TISSUES = "tissues"  # the name that stands for a region of each tissue
BODY = "body"  # the region of all voxels of the body


@dataclass(frozen=True)
class Region:
    """A named part of each case: a modality or label map of the truth between two values, or a mask file.

    low, high: in the modality's unit, in shares of the image's own peak if the unit is arbitrary, or labels; tissue: of
    the tissues of CT, of which a body may lack some, and which are no structures with pieces.
    """

    name: str
    text: str
    modality: str | None = None
    low: float = -inf
    high: float = inf
    path: str | None = None
    tissue: bool = False

    def select(self, values: Float32, frame: Bool) -> Bool:
        """The part of `frame` with values between low and high; values, frame: [D, H, W], canonical."""
        return (values > self.low) & (values < self.high) & frame

    def rule(self, ranges: Mapping[str, Range], within: str) -> str:
        """The rule for the caption, such as `cta > 150 HU within body`."""
        if self.modality is None or self.modality in LABELS:
            return f"{self.text} within {within}"
        known = ranges.get(self.modality) or range_for(unit_of(self.modality))
        return f"{self.text} {known.unit} within {within}"


def regions_from(texts: Mapping[str, str] | None) -> tuple[Region, ...]:
    """Regions by name: "cta>150", "ct<-300", "150<cta<600", "seg=4", or a mask file ("masks/{case}.nii.gz").

    {"tissues": "ct"} is a region of each tissue by the values of a CT. Raises BadInput for other texts.
    """
    regions = list[Region]()
    for name, text in (texts or {}).items():
        if name == TISSUES and NAME.fullmatch(str(text)) and unit_of(text) == "HU":
            regions += tissue_regions(text)
        else:
            regions.append(_region(name, str(text)))
    names = [region.name for region in regions]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInput(
            f"region {twice[0]}: expected another name beside {TISSUES}, which has a region of that name, found it again. Rename it."
        )
    return tuple(regions)


def tissue_regions(modality: str) -> list[Region]:
    """A region of each tissue by the values of a CT."""
    regions = []
    for name, (low, high) in TISSUES_HU.items():
        above = f"{low:g} ≤ " if isfinite(low) else ""
        below = f" < {high:g}" if isfinite(high) else ""
        # `select` leaves out its lower end, which belongs to the tissue.
        first = float(np.nextafter(np.float32(low), np.float32(-inf)))
        regions.append(
            Region(name, f"{above}{modality}{below}", modality, first, high, tissue=True)
        )
    return regions


def _region(name: str, text: str) -> Region:
    rule = RULE.fullmatch(text.strip())
    if rule is None and text and not {*text} & {*"<>"} and NAME.fullmatch(name) and name != TISSUES:
        return Region(name, text, path=text)
    if rule is not None and NAME.fullmatch(name):
        below, modality, sign, number = rule.groups()
        value = float(number)
        if not below:
            ends = {"<": (-inf, value), ">": (value, inf)}
            low, high = ends.get(sign, (value - 0.5, value + 0.5))
            return Region(name, f"{modality} {sign[:1]} {value:g}", modality, low, high)
        if sign == "<" and float(below) < value:
            return Region(name, f"{below} < {modality} < {number}", modality, float(below), value)
    raise BadInput(
        f"region {name}: expected a name of letters, digits, _ and -, and MODALITY>NUMBER, MODALITY<NUMBER, LOW<MODALITY<HIGH, LABELS=NUMBER or a mask file, or {TISSUES}=MODALITY of a CT, found {text!r}. Write it as lesion=tmax>6."
    )


def scale_to_peak(volume: Volume, scale: Range, body: Bool | None) -> Float32:
    """The values for a threshold, [D, H, W], not clipped; in arbitrary units they are shares of the peak."""
    return scale.normalise(volume.data[0], body) if scale.own else volume.data[0]


def region_masks(
    rules: Mapping[str, str],
    image: Volume,
    labels: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Bool]:
    """The masks [D, H, W] of the body and of regions in an image; those of label maps only where labels has them.

    Thresholds of images without a unit are shares of their peak, as in evaluate.
    """
    body = foreground(image)
    masks = {BODY: body}
    for region in regions_from(rules):
        values = (labels or {}).get(str(region.modality))
        if region.modality == image.modality:
            values = scale_to_peak(image, range_for(image.unit), body)
        if values is not None:
            masks[region.name] = region.select(values.astype(np.float32, copy=False), body)
    return masks
