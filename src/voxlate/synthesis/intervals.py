"""Intervals and error bounds of a case's images by a calibration, and the grid on which images are written."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from voxlate.base.array_types import Bool
from voxlate.base.errors import plural
from voxlate.base.items import BACKGROUND
from voxlate.base.messages import Message, message
from voxlate.scans.cases.case import PreparedCase
from voxlate.scans.images.grid import Grid, Volume, orient, return_to
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.regions import region_masks
from voxlate.synthesis.brightness import SynthesisedImage
from voxlate.synthesis.calibration import Calibration
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.out_of_distribution import Patches, patches_of

# At voxels and slices of 4 mm and more, 8 to 24 % of the brain's upper fifth became bone, with the whole interval in it.
THICK_MM, CROWN, SOFT_HU = 3.9, 0.25, np.float32(0)


@dataclass(frozen=True)
class OutputGrid:
    """The grid on which the images of a case are written: that of the first source's file, or of the fixed scan's.

    affine: of the network's grid; file: the grid of the file; axes: the layout of slices for the network; units: of
    modalities. Where nothing was resampled both grids have the same voxels, and every step between them is exact.
    """

    affine: np.ndarray
    file: Grid
    axes: str
    units: Mapping[str, str]

    def write(self, values: np.ndarray, modality: str, order: Literal[0, 1] = 1) -> Volume:
        """Values [D, H, W] on the network's grid as a volume on the file's grid."""
        return return_to(self._own(values, modality), self.file, order)

    def reorient(self, volume: Volume) -> Volume:
        """A volume on the file's grid in the network's layout of slices."""
        return orient(volume, self.axes[::-1])

    def resample(self, values: np.ndarray) -> np.ndarray:
        """Values [D, H, W] on the network's grid, resampled to the file's voxels, in the network's layout."""
        return self.volume(values, "").data[0]

    def volume(self, values: np.ndarray, modality: str) -> Volume:
        """Values [D, H, W] on the network's grid as a volume on the file's voxels, in the network's layout."""
        return self.reorient(return_to(self._own(values, modality), self.file))

    def _own(self, values: np.ndarray, modality: str) -> Volume:
        """Values [D, H, W] on the network's grid as a volume on it; "" for values of no modality."""
        unit = self.units.get(modality, "")
        return Volume(values[None].astype(np.float32, copy=False), self.affine, unit, modality)


def find_output_grid(facts: ModelFacts, prepared: PreparedCase) -> OutputGrid:
    """The grid on which the images of a prepared case are written."""
    origins = prepared.header.origins
    # where scans were registered, the image is in the frame of the fixed scan
    registered = prepared.header.registered.values()
    fixed = [registration.to for registration in registered if registration.kept != "none"]
    first = origins[fixed[0]] if fixed else next(iter(origins.values()))
    return OutputGrid(np.array(prepared.header.affine), first.grid, facts.data.axes, facts.units)


def sources_of(facts: ModelFacts, prepared: PreparedCase) -> list[np.ndarray]:
    """The sources [D, H, W] of a case in network units; a missing source is background."""
    sources = []
    shown = facts.visible_sources(prepared)
    for name in facts.data.source:
        if name in shown:
            scale = facts.intensity[name].scale(prepared.header.statistics[name])
            sources.append(scale.forward(prepared.arrays[name][:].astype(np.float32)))
        else:
            sources.append(np.full(prepared.header.shape, BACKGROUND, np.float32))
    return sources


def patches_in(facts: ModelFacts, prepared: PreparedCase, sources: Sequence[np.ndarray]) -> Patches:
    """The patches of a case's scans, for the comparison with a calibration's; sources: in network units."""
    body = np.logical_or.reduce(
        [foreground(prepared.volume(name)) for name in facts.visible_sources(prepared)]
    )
    return patches_of(sources, body, prepared.header.spacing_mm)


def fills_crown(facts: ModelFacts, prepared: PreparedCase, target: str) -> bool:
    """Whether slices are too thick for a starter of whole heads to tell the crown's bone from its brain."""
    heads = facts.data.heads
    whole = facts.starter is not None and heads is not None and heads.stripped < 1
    return whole and facts.units.get(target) == "HU" and prepared.header.spacing_mm[0] >= THICK_MM


def _crown(prepared: PreparedCase, output_grid: OutputGrid, volume: Volume) -> Bool:
    """The planes of a volume in the upper part of a head whose slices grow upward, [D, 1, 1]."""
    first, end = prepared.header.mask_box[0]
    moved = np.linalg.inv(output_grid.affine) @ volume.affine
    slices = moved[2, 2] * np.arange(volume.data.shape[1]) + moved[2, 3]
    return np.asarray(slices >= end - CROWN * (end - first))[:, None, None]


@dataclass(frozen=True)
class CaseIntervals:
    """Prediction intervals and errors of a case's images, in physical units; all empty without a calibration.

    bounds: of the errors, and expected: mean errors by region that the intervals let expect, both by modality.
    """

    low: dict[str, Volume] = field(default_factory=dict)
    high: dict[str, Volume] = field(default_factory=dict)
    bounds: dict[str, dict[str, float]] = field(default_factory=dict)
    expected: dict[str, dict[str, float]] = field(default_factory=dict)


def case_intervals(
    calibration: Calibration | None,
    facts: ModelFacts,
    prepared: PreparedCase,
    images: Mapping[str, SynthesisedImage],
    output_grid: OutputGrid,
) -> CaseIntervals:
    """The intervals and bounds of the images of a case."""
    found = CaseIntervals()
    if calibration is None:
        return found
    sources = [output_grid.resample(source) for source in sources_of(facts, prepared)]
    for name, image in images.items():
        prediction = image.prediction.map(output_grid.resample)
        volume = output_grid.volume(image.values, name)
        ends = calibration.interval(name, prediction, sources)
        low, high = (image.scale.inverse(end) for end in ends)
        if fills_crown(facts, prepared, name):
            np.minimum(low, SOFT_HU, out=low, where=_crown(prepared, output_grid, volume))
        for maps, end in ((found.low, low), (found.high, high)):
            maps[name] = return_to(replace(volume, data=end[None]), output_grid.file)
        parts = region_masks(calibration.header.targets[name].regions, volume)
        found.expected[name] = calibration.expected(name, (high - low) / 2, parts)
        bounds = calibration.bounds(name, *ends, parts)
        found.bounds[name] = {key: round(of * image.scale.half, 4) for key, of in bounds.items()}
    return found


def notes_on_starter(
    starter: Mapping[str, Any],
    calibration: Calibration | None,
    can_have: bool,
    targets: Collection[str] = (),
) -> Iterator[Message]:
    """Messages on a starter, and on what its intervals rest.

    can_have: whether a calibration would give intervals; targets: that are synthesised.
    """
    name = f"starter:{starter['name']}"
    limits = starter.get("target_limits", {})
    if said := [limits[target] for target in targets if target in limits]:
        yield message("target-limits", " ".join(said))
    trained = f"Synthesised by {name}, which was trained on {starter['trained_on']}. Lesions may be missing from the image, or look healthy."
    fit = f"Fit intervals on real cases with all its scans: voxlate calibrate {name} COHORT --out CALIBRATED."
    if calibration is None:
        how = fit if can_have else "Cases that lack several of its scans can have none."
        yield message("starter", f"{trained} It has no intervals for such images. {how}")
        return
    yield message("starter", trained)
    if calibration.header.widened is not None:
        heads = plural(calibration.header.patients, "synthetic head")
        text = f"Its intervals were fitted on {heads} and are no guarantee for a patient. {fit}"
        yield message("synthetic-intervals", text)
