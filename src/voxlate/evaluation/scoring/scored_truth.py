"""The truth of one image in the scored unit and on its own grid, and the image, moved and converted to it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from voxlate.base.array_types import Bool, Float32
from voxlate.base.config import from_plain
from voxlate.base.errors import BadInput
from voxlate.checks.check_table import mask_numbers, refuse_misplaced
from voxlate.evaluation.evaluation_options import EvaluateOptions
from voxlate.evaluation.scoring.metrics import mean_inside
from voxlate.evaluation.scoring.scored_images import Item
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.formats.io import is_there, read_volume
from voxlate.scans.images.grid import Grid, Volume, canonical, resample, same_grid
from voxlate.scans.images.intensity import Intensity, IntensityMap, Scale, intensity_statistics
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.ranges import (
    WHOLE_MASK,
    Ends,
    Range,
    as_grey,
    picture_window,
    range_for,
)
from voxlate.scans.images.regions import Region, scale_to_peak
from voxlate.scans.images.register import Transform, apply_transform, itk, read_transform


def _network_map(item: Item) -> tuple[IntensityMap, Scale]:
    """How the training scaled a truth, and its typical scale, which gives the network's output; raises BadInput if it is not stated."""
    entry = item.provenance.get("network_units", {}).get(item.modality)
    if entry is None:
        raise BadInput(
            f"{item.case.case}: expected provenance that states the network's units of {item.modality} for --units network, found none. Synthesise again, or score in the image's own units."
        )
    scaled_by: IntensityMap = from_plain(Intensity, entry["map"])
    return scaled_by, Scale(entry["low"], entry["high"])


def shows_a_window(provenance: Mapping[str, Any], modality: str, truth_unit: str) -> bool:
    """Whether an image is in HU and its truth is a picture."""
    return truth_unit == "grey" and provenance.get("units", {}).get(modality) == "HU"


@dataclass(frozen=True)
class Alignment:
    """The mapping of a case's synthesised images to the grid of a truth; transform: from the truth's points to theirs."""

    grid: Grid
    transform: Transform | None = None
    note: str = ""

    def apply(self, volume: Volume, order: Literal[0, 1] = 1, fill: float | None = None) -> Volume:
        """The volume on the truth's grid, interpolated if it has another grid (see `resample`)."""
        if self.transform is not None:
            return apply_transform(volume, self.grid, self.transform, order, fill)
        if same_grid(volume.grid, self.grid):
            return volume
        return resample(volume, self.grid, order, fill)

    def coverage(self, grid: Grid) -> Bool | None:
        """The truth's voxels in the field of view of an image on `grid`: bool [D, H, W]; None stands for all."""
        box = Volume(np.ones((1, *grid.shape), np.float32), grid.affine, "", "")
        covered: Bool = self.apply(box, order=0, fill=0.0).data[0] > 0
        return None if covered.all() else covered


def find_alignment(truth: Volume, image: Grid, item: Item, frame: str | None) -> Alignment:
    """The alignment of images on the grid `image`, in the frame of a scan (None: that of the synthesis), with a truth.

    Raises BadInput if the transform of a registered scan on another grid is absent, or if the truth's cannot be inverted.
    """
    stated = item.provenance.get("prepared", {})
    method = stated.get("register")
    frame = frame or stated.get("on_grid_of")
    apart = not same_grid(image, truth.grid)
    if method is not None:
        to_truth = _transform(item, truth.modality)
        to_image = _transform(item, frame) if frame else ""
        if to_truth is None or to_image is None:
            if apart:
                raise BadInput(
                    f"{truth.origin}: expected the transforms by which prepare registered it ({method}), because the image is on another grid ({image}), found none. Pass --prepared with the prepared cohort."
                )
        elif to_truth != to_image:
            note = "moved back to the truth's grid by the registration of prepare, interpolated linearly"
            return Alignment(truth.grid, _between(to_truth, to_image, method), note)
    note = "resampled linearly to the truth's grid by the headers" if apart else ""
    return Alignment(truth.grid, note=note)


def _transform(item: Item, modality: str) -> Path | Literal[""] | None:
    """The file of the transform from the cohort's frame to a scan's; None if it is unknown.

    "" if the scan was not moved, because it is fixed or nothing was gained.
    """
    if (cohort := item.prepared) is None:
        return None
    case = item.case.case
    file = next((cohort / "transforms" / case).glob(f"{modality}.*"), None)
    if file is not None or not (cohort / "cohort.json").is_file():
        return file
    registered = [entry.registered for entry in open_cohort(cohort).cases if entry.case == case]
    not_moved = any(modality not in scans or scans[modality].kept == "none" for scans in registered)
    return "" if not_moved else None


def _between(to_truth: Path | Literal[""], to_image: Path | Literal[""], method: str) -> Transform:
    """The transform from the truth's points to the image's, through the cohort's frame."""
    steps = [read_transform(to_image)] if to_image else []
    try:
        steps += [read_transform(to_truth).GetInverse()] if to_truth else []
    except RuntimeError as error:
        raise BadInput(
            f"{to_truth}: expected a rigid transform, which can be inverted to score on the truth's own grid, found a {method} one. Score prepared truths, or prepare with --register rigid."
        ) from error
    return itk.CompositeTransform(steps)  # the last one is applied first


@dataclass(frozen=True)
class Rules:
    """What an evaluation scores of the images of a modality, and how, by its checked options.

    axes: the layout of slices for distances; scale: the scored range; mask: the voxels that count; standard: names of
    regions that nobody asked for.
    """

    asked: EvaluateOptions
    regions: tuple[Region, ...]
    axes: str
    scale: Range
    mask: Path | str
    standard: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth of one image, as it is stored, on the scored range, and the voxels that count."""

    item: Item
    rules: Rules
    stored: Volume

    @cached_property
    def scan(self) -> Volume:
        """The truth as it was scanned, in canonical orientation."""
        return read_canonical(self.item.case.files[self.item.modality], self.item.modality)

    @cached_property
    def windowed(self) -> bool:
        """Whether the image is in HU and the truth a picture."""
        return shows_a_window(self.item.provenance, self.item.modality, self.scan.unit)

    @cached_property
    def picture_window(self) -> Ends:
        """The HU that black and white of a picture show: as its prepared cohort states them, or else as assumed of the image."""
        name, cohort = self.item.modality, self.item.prepared
        stated = {} if cohort is None else open_cohort(cohort).windows
        return stated.get(name) or picture_window(replace(self.stored, unit="HU"))

    @cached_property
    def window(self) -> Scale | None:
        """The values of the image that stand for the ends of the scored range; None where it is scored in its own unit.

        Of a picture's truth, those that pictures have; in network units, the typical ones of the training.
        """
        if self.rules.asked.units == "own":
            return Scale(*self.picture_window) if self.windowed else None
        if self.windowed:
            raise BadInput(
                f"--units network: expected a truth in HU, as the image is, found the picture {self.scan.origin}. Drop --units."
            )
        return _network_map(self.item)[1]

    def convert(self, volume: Volume, window: Scale | None) -> Volume:
        """A volume in the scored unit; a baseline of pictures is in it already."""
        if window is None or volume.unit == "grey":
            return volume
        scale = self.rules.scale
        if self.windowed:
            return as_grey(volume, (window.low, window.high), scale.low, scale.high)
        values = (window.forward(volume.data) + 1) * (scale.high / 2)
        return replace(volume, data=values.astype(np.float32), unit=scale.unit)

    @property
    def gain(self) -> float:
        """By how much the conversion of an image multiplies its differences."""
        window = self.window
        return 1.0 if window is None else self.rules.scale.width / (window.high - window.low)

    @cached_property
    def volume(self) -> Volume:
        """The truth in the scored unit; in network units it is scaled by its own statistics, as a target in training."""
        if self.rules.asked.units == "own":
            return self.scan
        scaled_by, _ = _network_map(self.item)
        statistics = intensity_statistics(self.scan.data[0], self.outline)
        return self.convert(self.scan, scaled_by.scale(statistics))

    @cached_property
    def values(self) -> Float32:
        """The truth's values [D, H, W] on the scored range."""
        return self.on_range(self.volume)

    @cached_property
    def synthesis(self) -> Volume:
        """The image in the scored unit on the truth's grid."""
        return self.alignment.apply(self.convert(self.stored, self.window))

    def on_range(self, image: Volume, main: Volume | None = None) -> Float32:
        """Values on the scored range of an image in the scored unit and on the truth's grid; main: of which it is a map."""
        values = None if main is None else main.data[0]
        return self.rules.scale.normalise(image.data[0], self.body, values)

    def read(self, path: Path, name: str) -> Volume:
        """Another scan of the case on the truth's grid; raises BadInput if the transform of its registration is lost."""
        scan = read_canonical(path, name)
        return self.alignment_from(scan.grid, name).apply(scan)

    @cached_property
    def alignment(self) -> Alignment:
        """The alignment of the image with the truth."""
        return self.alignment_from(self.stored.grid)

    def alignment_from(self, grid: Grid, frame: str | None = None) -> Alignment:
        """The alignment of an image on a grid, in the frame of a scan (default: that of the scored image)."""
        return find_alignment(self.scan, grid, self.item, frame)

    @cached_property
    def mask(self) -> Bool | None:
        """The voxels of the evaluation's mask; None stands for all."""
        return mask_of(self.rules.mask, self.scan, self.item.case)

    @cached_property
    def coverage(self) -> Bool | None:
        """The voxels that the image covers; None stands for all."""
        return self.alignment.coverage(self.stored.grid)

    @cached_property
    def shown(self) -> float:
        """The share of the voxels to be scored that are inside the image."""
        return 1.0 if self.coverage is None else mean_inside(self.coverage, self.mask)

    @cached_property
    def inside(self) -> Bool | None:
        """The voxels that count: those of the mask that the image covers; None stands for all."""
        if self.coverage is None:
            return self.mask
        inside = self.coverage if self.mask is None else self.coverage & self.mask
        if not inside.any():
            raise BadInput(
                f"{self.item.synthesis}: expected it to overlap {self.scan.origin} in space, found nothing of it there. Check that both are of one patient and one frame, or pass --prepared."
            )
        return inside

    @cached_property
    def outline(self) -> Bool:
        """The foreground of the truth."""
        return foreground(self.scan)

    @property
    def body(self) -> Bool | None:
        """The foreground in which an image's own peak is measured, if images are divided by it."""
        return self.outline if self.rules.scale.own else None

    @property
    def frame(self) -> Bool:
        """The voxels that limit regions and intervals."""
        return self.outline if self.inside is None else self.inside

    def select(self, region: Region, image: Volume) -> Bool:
        """The voxels of a region by the values of the truth, or of an image on its grid."""
        return region.select(scale_to_peak(image, self.rules.scale, self.body), self.frame)

    @cached_property
    def regions(self) -> list[tuple[Region, Bool]]:
        """The voxels of each named region, without tissues that nobody asked for and the truth lacks."""
        found = []
        for region in self.rules.regions:
            if region.modality == self.item.modality:
                part = self.select(region, self.volume)
            else:
                part = find_region(region, self.volume, self.item.case, self.frame)
            if part.any() or region.name not in self.rules.standard:
                found.append((region, part))
        return found


def find_region(region: Region, truth: Volume, case: CaseFiles, frame: Bool) -> Bool:
    """The voxels in `frame` of a region by a mask file, a label map or another scan of the case, [D, H, W] canonical."""
    if region.path is not None:
        mask = on_grid_of(truth, _file_of(region.path, case.case), "mask")
        inside: Bool = mask.data[0] > 0.5
        return inside & frame
    modality = str(region.modality)
    if modality in case.labels:
        return region.select(on_grid_of(truth, case.labels[modality], "seg").data[0], frame)
    if modality not in case.files:
        known = ", ".join(sorted({**case.files, **case.labels}))
        raise BadInput(
            f"region {region.name}: expected a modality or label map of {case.case} ({known}), found {modality}. Choose one of these."
        )
    other = on_grid_of(truth, case.files[modality], modality)
    values = scale_to_peak(other, range_for(other.unit), foreground(other))
    return region.select(values, frame)


def mask_of(mask: str | Path, truth: Volume, case: CaseFiles) -> Bool | None:
    """The voxels that count, [D, H, W]; None stands for the whole image; truth: canonical."""
    if mask == WHOLE_MASK:
        return None
    inside = body = foreground(truth)
    if mask != "body":
        path = case.mask if mask == "cohort" else _file_of(mask, case.case)
        if path is None or not is_there(path):
            raise BadInput(
                f"--mask: expected body, whole, cohort (its mask files) or a file, found {mask!s}, and no such file for {case.case}. Choose one of these."
            )
        given = on_grid_of(truth, path, "mask")
        inside = given.data[0] > 0.5
        # a file of the user's may be of any part
        refuse_misplaced(path, mask_numbers(given, inside, [body]), mask == "cohort")
    if not inside.any():
        raise BadInput(
            f"{case.case}: expected a mask with voxels inside, found an empty one. Choose another --mask."
        )
    return inside


def _file_of(place: object, case: str) -> Path:
    return Path(str(place).replace("{case}", case))


def on_grid_of(truth: Volume, path: Path, modality: str) -> Volume:
    """The image of `path`, canonical; raises BadInput if its grid is not that of the truth."""
    volume = read_canonical(path, modality)
    if same_grid(volume.grid, truth.grid):
        return volume
    raise BadInput(
        f"{path}: expected the grid of {truth.origin} ({truth.grid}), found {volume.grid}. Bring it to this grid."
    )


def read_canonical(path: Path, modality: str) -> Volume:
    """A scan in canonical orientation, in which slices are axial and rows have the same direction in all files."""
    turned = canonical(read_volume(path, modality))
    return replace(turned, data=np.ascontiguousarray(turned.data))
