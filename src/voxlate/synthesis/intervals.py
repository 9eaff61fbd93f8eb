"""Intervals, error bounds and the background of a case's images, and the grid on which they are written.

What is outside of the body of all sources becomes background, whatever the network predicts. Networks invent a signal in slices
without a body, which training leaves out, and a frame at the border of slices, where the padding of convolutions decides. A voxel
is outside where its slice shows no body, or where it is farther than NEAR_MM from the outlines of the body in all sources: nearer
to it, only the network may show scalp and skin, but no bone, which intervals of air inside the body contain. Where the background
of all sources is exactly 0, as around a stripped brain, each such voxel outside the outlines is outside.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from voxlate.base.array_types import Bool
from voxlate.base.errors import plural
from voxlate.base.items import BACKGROUND
from voxlate.base.messages import Message, message
from voxlate.scans.cases.case import PreparedCase
from voxlate.scans.images.grid import Grid, Volume, orient, return_to
from voxlate.scans.images.intensity import IntensityMap, Scale
from voxlate.scans.images.mask import dilate, find_tissue
from voxlate.scans.images.regions import BODY, region_masks
from voxlate.synthesis.calibration import Calibration
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.sampling import SynthesisedImage
from voxlate.synthesis.scan_checks import KnownScans

CROWN, SOFT_HU = 0.25, np.float32(0)  # what fills_crown makes bone of


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

    def write(self, values: np.ndarray, modality: str = "", order: Literal[0, 1] = 1) -> Volume:
        """Values [D, H, W] on the network's grid as a volume on the file's grid; "" for values of no modality."""
        unit = self.units.get(modality, "")
        own = Volume(values[None].astype(np.float32, copy=False), self.affine, unit, modality)
        return return_to(own, self.file, order)

    def reorient(self, volume: Volume) -> Volume:
        """A volume on the file's grid in the network's layout of slices."""
        return orient(volume, self.axes[::-1])

    def resample(self, values: np.ndarray) -> np.ndarray:
        """Values [D, H, W] on the network's grid, resampled to the file's voxels, in the network's layout."""
        return self.reorient(self.write(values)).data[0]


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


def _crown(prepared: PreparedCase, output_grid: OutputGrid, volume: Volume) -> Bool:
    """The planes of a volume in the upper part of a head whose slices grow upward, [D, 1, 1]."""
    first, end = prepared.header.mask_box[0]
    moved = np.linalg.inv(output_grid.affine) @ volume.affine
    slices = moved[2, 2] * np.arange(volume.data.shape[1]) + moved[2, 3]
    return np.asarray(slices >= end - CROWN * (end - first))[:, None, None]


def case_intervals(
    calibration: Calibration | None,
    facts: ModelFacts,
    prepared: PreparedCase,
    images: Mapping[str, SynthesisedImage],
    output_grid: OutputGrid,
) -> tuple[dict[str, tuple[Volume, Volume]], dict[str, dict[str, dict[str, float]]]]:
    """The ends of the intervals of a case's images in physical units, and what a provenance states of its errors.

    Errors: "bounds" of the mean absolute error, and "expected" mean errors by region that the intervals let expect, both by
    modality. All is empty without a calibration.
    """
    found: dict[str, tuple[Volume, Volume]] = {}
    errors: dict[str, dict[str, dict[str, float]]] = {"bounds": {}, "expected": {}}
    if calibration is None:
        return found, errors
    sources = [output_grid.resample(source) for source in sources_of(facts, prepared)]
    for name, image in images.items():
        prediction = image.prediction.map(output_grid.resample)
        volume = output_grid.reorient(output_grid.write(image.values, name))
        ends = calibration.interval(name, prediction, sources)
        low, high = (image.scale.inverse(end) for end in ends)
        if facts.fills_crown(prepared, name):
            np.minimum(low, SOFT_HU, out=low, where=_crown(prepared, output_grid, volume))
        lower, upper = (
            return_to(replace(volume, data=end[None]), output_grid.file) for end in (low, high)
        )
        found[name] = lower, upper
        parts = region_masks(calibration.header.targets[name].regions, volume)
        errors["expected"][name] = calibration.expected(name, (high - low) / 2, parts)
        bound = calibration.mae_bound(name, *ends, parts[BODY])
        if math.isfinite(bound):
            errors["bounds"][name] = {"mae": round(bound * image.scale.half, 4)}
    return found, errors


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


# Share of an output voxel in the background, from which it counts as background.
INSIDE_SHARE = 1 - 1e-4
AIR_HU = -1000.0
NEAR_MM = 5.0
SKIN_HU = 200.0  # at most
# Of a target's body that no source of the training showed: a head to a stripped brain.
MOST_BEYOND = 0.1


@dataclass(frozen=True)
class Outside:
    """The voxels [D, H, W] that are outside of the body of all sources, and the slices [D] without a body.

    beside: the voxels near the body that are neither; is_zero: whether the background of all sources is exactly 0.
    """

    voxels: Bool
    beside: Bool
    slices: Bool
    is_zero: bool

    def of(self, beyond: float, by_slice: bool) -> Bool:
        """The voxels of an image that become background.

        beyond: the share of the target's body that no source of the training showed; by_slice: only whole slices, because
        a network that works inside a mask makes background outside of it itself.
        """
        if by_slice or beyond > MOST_BEYOND:
            return np.broadcast_to(self.slices[:, None, None], self.voxels.shape)
        return self.voxels

    def value(self, scale: Scale, spec: IntensityMap, unit: str, trained: float | None) -> float:
        """The background of an image in its unit: that of the training, else air in HU or the lowest; within the image's range."""
        begins_above = spec.window is None and spec.floor is None and scale.low > 0
        if self.is_zero and begins_above:
            return 0.0  # in network units 0 and the darkest value of the body are -1
        lowest = AIR_HU if unit == "HU" else scale.low
        return float(np.clip(lowest if trained is None else trained, scale.low, scale.high))


@dataclass(frozen=True)
class Background:
    """The voxels [D, H, W] of each image that become background, and the value of the background in its unit.

    beside: the voxels beside the body, where a CT shows skin at most.
    """

    voxels: Mapping[str, Bool]
    beside: Bool
    values: Mapping[str, float]

    def fill(self, name: str, image: SynthesisedImage) -> SynthesisedImage:
        """An image with background in its voxels, and a standard deviation of 0."""
        voxels = self.voxels[name]
        prediction = image.prediction
        if prediction.sd is not None:
            prediction = replace(prediction, sd=np.where(voxels, np.float32(0), prediction.sd))
        values = np.where(voxels, image.values.dtype.type(self.values[name]), image.values)
        return replace(image, values=values, prediction=prediction)

    def close(
        self, image: Volume, low: Volume, high: Volume, output_grid: OutputGrid
    ) -> tuple[Volume, Volume]:
        """The ends of an image's intervals on the file's voxels: both are the background in its voxels, and beside the body at most skin.

        Where the file has other slices, and a voxel is partly in one without a body, the ends are moved to contain the image.
        """
        share, beside = (
            output_grid.write(voxels.astype(np.float32)).data
            for voxels in (self.voxels[image.modality], self.beside)
        )
        values = image.data
        ends = []
        for end, limit in ((low, np.minimum), (high, np.maximum)):
            data = np.where(share > 0, limit(end.data, values), end.data)
            ends.append(np.where(share > INSIDE_SHARE, values, data))
        if image.unit == "HU":
            skin = np.maximum(values, np.minimum(ends[1], SKIN_HU))
            ends[1] = np.where(beside > 0.5, skin, ends[1])
        return replace(low, data=ends[0]), replace(high, data=ends[1])


def find_outside(prepared: PreparedCase, names: Sequence[str]) -> Outside:
    """What is outside of the body of all of these scans of a case, which are its sources."""
    volumes = [prepared.volume(name) for name in names]
    outlines = [prepared.outline(name) for name in names]
    tissues = [find_tissue(volume) for volume in volumes]
    # a CT shows the table, which a synthesised CT shows as well
    tables = [tissue for volume, (tissue, _) in zip(volumes, tissues) if volume.unit == "HU"]
    body = _any_of([*outlines, *tables])
    if not body.any():  # as in a scan of a small part
        body = _any_of([tissue for tissue, _ in tissues])
    has_body = np.asarray(body.any(axis=(1, 2)))
    kept = dilate(body, NEAR_MM, volumes[0].grid.spacing_mm) & has_body[:, None, None]
    is_zero = all(is_constant for _, is_constant in tissues)
    if is_zero:
        signal = _any_of([volume.data[0] for volume in volumes])
        kept = body | kept & signal
    return Outside(~kept, kept & ~body, ~has_body, is_zero)


def background_of_case(
    facts: ModelFacts,
    outside: Outside,
    known: KnownScans | None,
    images: Mapping[str, SynthesisedImage],
) -> Background:
    """The background of a case; images: as the network makes them."""
    trained, beyond = ({}, {}) if known is None else (known.backgrounds, known.beyond)
    if facts.imported:  # what the targets of a published training show is not known
        beyond = dict.fromkeys(images, 1.0)
    voxels = {}
    values = {}
    for name, image in images.items():
        voxels[name] = outside.of(beyond.get(name, 0), facts.ignores_outside)
        usual = trained.get(name)
        if image.peak is not None and usual is not None:
            usual = float(image.peak.stretch(np.array([usual]))[0])
        values[name] = outside.value(image.scale, facts.intensity[name], facts.units[name], usual)
    return Background(voxels, outside.beside, values)


def _any_of(images: Sequence[np.ndarray]) -> Bool:
    """Where some image is not 0."""
    return np.logical_or.reduce([image != 0 for image in images])
