"""The truth of one image in the scored unit and on its own grid, and the image, moved and converted to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from voxlate.base.array_types import Bool, Float32
from voxlate.base.config import adapter
from voxlate.base.errors import BadInput
from voxlate.evaluation.evaluation_options import EvaluateOptions
from voxlate.evaluation.scoring.distances import Features
from voxlate.evaluation.scoring.metrics import mean_inside
from voxlate.evaluation.scoring.scored_images import Item
from voxlate.evaluation.scoring.scored_regions import find_region, mask_of, read_canonical
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.images.grid import Grid, Volume, resample, same_grid
from voxlate.scans.images.intensity import Intensity, IntensityMap, Scale, intensity_statistics
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.ranges import NETWORK_RANGE, Range, as_grey
from voxlate.scans.images.regions import Region
from voxlate.scans.images.register import Transform, apply_transform, itk, read_transform

Conversion = Callable[[Volume], Volume]


def _same(volume: Volume) -> Volume:
    return volume


@dataclass(frozen=True)
class Units:
    """The conversions of a truth, an image and an image's standard deviation to the scored units; note: on them."""

    truth: Conversion = _same
    synthesis: Conversion = _same
    spread: Conversion = _same
    note: str = ""


OWN = Units()


def network_units(provenance: Mapping[str, Any], modality: str, where: object) -> Units:
    """The units that a case's provenance states for a modality; raises BadInput if it states none.

    The truth is scaled by its own statistics, as a target in training; the image by the typical scale of the training,
    which gives the network's output.
    """
    try:
        entry = provenance["network_units"][modality]
        scaled_by: IntensityMap = adapter(Intensity).validate_python(entry["map"])
        typical = Scale(float(entry["low"]), float(entry["high"]))
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise BadInput(
            f"{where}: expected provenance that states the network's units of {modality} for --units network, found none. Synthesise again, or score in the image's own units."
        ) from error

    def on_255(volume: Volume, scale: Scale) -> Volume:
        """A volume whose scale ends at 0 and 255."""
        values = (scale.forward(volume.data) + 1) * (NETWORK_RANGE.high / 2)
        return replace(volume, data=values.astype(np.float32), unit=NETWORK_RANGE.unit)

    def of_truth(volume: Volume) -> Volume:
        """A truth, scaled by its own statistics."""
        statistics = intensity_statistics(volume.data[0], foreground(volume))
        return on_255(volume, scaled_by.scale(statistics))

    gain = NETWORK_RANGE.high / (typical.high - typical.low)
    return Units(of_truth, lambda volume: on_255(volume, typical), _times(gain))


def _times(gain: float) -> Conversion:
    return lambda volume: replace(volume, data=volume.data * np.float32(gain))


def shows_a_window(provenance: Mapping[str, Any], modality: str, truth_unit: str) -> bool:
    """Whether an image is in HU and its truth is a picture."""
    return truth_unit == "grey" and provenance.get("units", {}).get(modality) == "HU"


def picture_units(window_hu: tuple[float, float], scale: Range) -> Units:
    """The conversions of an image in HU to the grey values of a picture; the truth stays as it is.

    window_hu: the values that are black and white.
    """
    low, high = window_hu

    def to_grey(volume: Volume) -> Volume:
        """A volume in HU, clipped to the window, as grey values; a baseline of pictures has them already."""
        if volume.unit == "grey":
            return volume
        return as_grey(volume, window_hu, scale.low, scale.high)

    note = f"its HU are compared with a picture, whose black to white are taken as {low:g} to {high:g} HU"
    return Units(synthesis=to_grey, spread=_times(scale.width / (high - low)), note=note)


@dataclass(frozen=True)
class Alignment:
    """The mapping of a case's synthesised images to the grid of a truth; transform: from the truth's points to theirs."""

    grid: Grid
    transform: Transform | None = None
    note: str = ""

    def keeps(self, grid: Grid) -> bool:
        """Whether an image on `grid` has the voxels of the truth."""
        return self.transform is None and same_grid(grid, self.grid)

    def apply(self, volume: Volume, order: Literal[0, 1] = 1, fill: float | None = None) -> Volume:
        """The volume on the truth's grid, interpolated if it has another grid (see `resample`)."""
        if self.keeps(volume.grid):
            return volume
        if self.transform is None:
            return resample(volume, self.grid, order, fill)
        return apply_transform(volume, self.grid, self.transform, order, fill)

    def coverage(self, grid: Grid) -> Bool | None:
        """The truth's voxels in the field of view of an image on `grid`: bool [D, H, W]; None stands for all."""
        if self.keeps(grid):
            return None
        box = Volume(np.ones((1, *grid.shape), np.float32), grid.affine, "", "")
        covered: Bool = self.apply(box, order=0, fill=0.0).data[0] > 0
        return None if covered.all() else covered


def find_alignment(
    truth: Volume,
    image: Grid,
    provenance: Mapping[str, Any],
    cohort: Path | None,
    case: str,
    frame: str | None,
) -> Alignment:
    """The alignment of images on the grid `image` with the truth.

    provenance: that of the synthesis, whose "prepared" states whether scans were registered, and the frame of the image
    (`frame`: that of another scan); cohort: the prepared cohort with the transforms to the frame of its fixed scan.
    Raises BadInput if the transform of a registered scan on another grid is absent, or if the truth's transform cannot
    be inverted.
    """
    prepared = provenance.get("prepared", {})
    method = prepared.get("register")
    frame = frame or prepared.get("on_grid_of")
    apart = not same_grid(image, truth.grid)
    by_headers = Alignment(
        truth.grid,
        note="resampled linearly to the truth's grid by the headers" if apart else "",
    )
    if method is None:
        return by_headers
    to_truth = _transform(cohort, case, truth.modality)
    to_image = "" if frame is None else _transform(cohort, case, frame)
    if to_truth is None or to_image is None:
        if not apart:
            return Alignment(
                truth.grid,
                note="aligned by the headers, without the registration of prepare",
            )
        lost = truth.modality if to_truth is None else frame
        raise BadInput(
            f"{truth.origin}: expected the transform by which prepare registered {lost} ({method}), because the image is on another grid ({image}), found none. Pass --prepared with the prepared cohort."
        )
    if to_truth == to_image:
        return by_headers
    note = "moved back to the truth's grid by the registration of prepare, interpolated linearly"
    return Alignment(truth.grid, _between(to_truth, to_image, method), note)


def check_prepared(cohort: Path) -> None:
    """Raise BadInput if a folder is no prepared cohort."""
    if not (cohort / "transforms").is_dir() and not (cohort / "cohort.json").is_file():
        raise BadInput(
            f"--prepared: expected a prepared cohort, found none in {cohort}. Check the path."
        )


def _transform(cohort: Path | None, case: str, modality: str) -> Path | Literal[""] | None:
    """The transform file from the cohort's frame to a scan's; None if it is unknown.

    "" if the scan was not moved, because it is fixed or nothing was gained.
    """
    if cohort is None:
        return None
    file = next((cohort / "transforms" / case).glob(f"{modality}.*"), None)
    if file is not None or not (cohort / "cohort.json").is_file():
        return file
    registered = [entry.registered for entry in open_cohort(cohort).cases if entry.case == case]
    not_moved = any(modality not in scans or scans[modality].kept == "none" for scans in registered)
    return "" if not_moved else None


def _between(to_truth: Path | Literal[""], to_image: Path | Literal[""], method: str) -> Transform:
    """The transform from the truth's points to the image's, through the cohort's frame."""
    steps = [read_transform(to_image)] if to_image else []
    back = read_transform(to_truth) if to_truth else None
    try:
        steps += [back.GetInverse()] if back is not None else []
    except RuntimeError as error:
        raise BadInput(
            f"{to_truth}: expected a rigid transform, which can be inverted to score on the truth's own grid, found a {method} one. Score prepared truths, or prepare with --register rigid."
        ) from error
    return itk.CompositeTransform(steps)  # the last one is applied first


@dataclass(frozen=True)
class Rules:
    """What an evaluation scores of the images of a modality, and how, by its checked options.

    features: of slices in the layout `axes`, for distances; scale: the scored range; mask: the voxels that count;
    standard: names of regions that nobody asked for.
    """

    asked: EvaluateOptions
    regions: tuple[Region, ...]
    features: Features | None
    axes: str
    scale: Range
    mask: Path | str
    standard: tuple[str, ...]

    @property
    def asked_regions(self) -> list[Region]:
        """The regions that the user asked for."""
        return [region for region in self.regions if region.name not in self.standard]


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth of one image on the scored range, and the voxels that count; grid: that of the scored image."""

    item: Item
    rules: Rules
    units: Units
    grid: Grid

    @property
    def scale(self) -> Range:
        """The scored range."""
        return self.rules.scale

    @cached_property
    def scan(self) -> Volume:
        """The truth as it was scanned, in canonical orientation."""
        return read_canonical(self.item.case.files[self.item.modality], self.item.modality)

    @cached_property
    def volume(self) -> Volume:
        """The truth in the scored unit."""
        return self.units.truth(self.scan)

    @cached_property
    def values(self) -> Float32:
        """The truth's values [D, H, W] on the scored range."""
        return self.on_range(self.volume)

    def on_range(self, image: Volume) -> Float32:
        """Values on the scored range of an image that is in the scored unit and on the truth's grid."""
        return self.scale.normalise(image.data[0], self.body)

    @cached_property
    def shown(self) -> float:
        """The share of the voxels to be scored that are inside the image."""
        return 1.0 if self.coverage is None else mean_inside(self.coverage, self.mask)

    @cached_property
    def alignment(self) -> Alignment:
        """The alignment of the image with the truth."""
        return self.alignment_from(self.grid)

    def alignment_from(self, grid: Grid, frame: str | None = None) -> Alignment:
        """The alignment of an image on a grid, in the frame of a scan (default: that of the scored image)."""
        item = self.item
        return find_alignment(
            self.volume, grid, item.provenance, item.prepared, item.case.case, frame
        )

    def read(self, path: Path, name: str) -> Volume:
        """Another scan of the case on the truth's grid; raises BadInput if the transform of its registration is lost."""
        scan = read_canonical(path, name)
        return self.alignment_from(scan.grid, name).apply(scan)

    @cached_property
    def mask(self) -> Bool | None:
        """The voxels of the evaluation's mask; None stands for all."""
        return mask_of(self.rules.mask, self.scan, self.item.case)

    @cached_property
    def coverage(self) -> Bool | None:
        """The voxels that the image covers; None stands for all."""
        return self.alignment.coverage(self.grid)

    @cached_property
    def inside(self) -> Bool | None:
        """The voxels that count: those of the mask that the image covers; None stands for all."""
        if self.coverage is None:
            return self.mask
        inside = self.coverage if self.mask is None else self.coverage & self.mask
        if not inside.any():
            raise BadInput(
                f"{self.item.synthesis}: expected it to overlap {self.volume.origin} in space, found nothing of it there. Check that both are of one patient and one frame, or pass --prepared."
            )
        return inside

    @cached_property
    def outline(self) -> Bool:
        """The foreground of the truth."""
        return foreground(self.scan)

    @property
    def body(self) -> Bool | None:
        """The foreground in which an image's own peak is measured, if images are divided by it."""
        return self.outline if self.scale.own else None

    @property
    def frame(self) -> Bool:
        """The voxels that limit regions and intervals."""
        return self.outline if self.inside is None else self.inside

    @cached_property
    def regions(self) -> list[tuple[Region, Bool]]:
        """The voxels of each named region, without tissues that nobody asked for and the truth lacks."""
        where = (self.volume, self.scale, self.body, self.item.case, self.frame)
        parts = [(region, find_region(region, *where)) for region in self.rules.regions]
        return [
            (one, part) for one, part in parts if one.name not in self.rules.standard or part.any()
        ]
