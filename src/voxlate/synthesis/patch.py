"""Patches of a prepared case in network units: the one function that reads scans for training and for synthesis."""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np

from voxlate.base.array_types import Bool, Float32
from voxlate.base.items import BACKGROUND, stable_id
from voxlate.scans.cases.case import FOREGROUND_OF, MASK, CaseHeader, PreparedCase, Role, lay_out
from voxlate.scans.images.grid import slice_margin, through_plane
from voxlate.scans.images.intensity import IntensityMap
from voxlate.scans.images.mask import dilate
from voxlate.scans.images.tiling import Triple
from voxlate.synthesis.facts import DataFacts

Box = tuple[slice, slice, slice]
RIM_MM = 2.0  # around a body's mask, and at least a voxel: what little of its skin the mask lacks


class Patch:
    """A patch of a case in the axes of the settings.

    inside, place: the part of it that is in the volume, in its own indices and in the volume's; item: what data.physics
    draws of the case for the patch, None where the case has no maps to draw from.
    """

    def __init__(
        self,
        case: PreparedCase,
        data: DataFacts,
        intensity: Mapping[str, IntensityMap],
        start: Triple,
        size: Triple | None,
        seed: int | None,
    ) -> None:
        self.case = lay_out(case, data.axes)
        self.data = data
        self.intensity = intensity
        self.start = start
        self.size = size or data.patch
        self.inside, self.place = overlap(start, self.size, readable(self.case.header, data.frame))
        if seed is None:
            seed = stable_id("physics", case.header.case, *start)
        drawn = case.contrasts
        self.item = None if drawn is None else drawn.item(self.case, seed)

    def sources(self) -> tuple[Float32, Float32]:
        """The sources [channels, D, H, W], and the mask [D, H, W], 1 inside."""
        case = self.case
        data = self.data
        size = self.size
        by_name = {name: self.modality(name, "source", data.steps) for name in data.source}
        source = [by_name[name][data.steps.index(step)] for name, step in data.channels]
        mask = np.ones(size, np.float32)
        if MASK in case.arrays:
            mask[:] = 0
            mask[self.inside] = self._body(self.place)
        # The body of the slices themselves, not of their neighbours, is raised to the least value of data.lift.
        least = np.float32(BACKGROUND + data.lift * (1 - BACKGROUND))
        for channel, (name, step) in zip(source, data.channels):
            if data.lift and step == 0 and name in case.header.visible:
                np.maximum(channel, least, out=channel, where=mask > 0)
        return np.stack(source), mask

    @property
    def present(self) -> Bool:
        """Whether each source channel shows something."""
        visible = self.case.header.visible
        return np.array([name in visible for name, _ in self.data.channels])

    def modality(self, name: str, role: Role, steps: Sequence[int] = (0,)) -> np.ndarray:
        """A modality in network units at each of `steps` slices away: float32 [steps, D, H, W]; background outside.

        In a frame, a source is background in the air around the body, too, whose noise says nothing about the patient.
        """
        case = self.case
        item = self.item
        out = np.full((len(steps), *self.size), BACKGROUND, np.float32)
        images: Iterable[np.ndarray] = ()
        if name not in case.header.units:
            return out
        if item is None:
            images = (self._scale(name, step) for step in steps)
        elif name in item.drawn.names:
            if any(steps):  # the thickness of an item takes a draw
                steps = self._apart(steps, item.slice_mm)
            images = item.read(name, self.intensity[name], self.place, steps, role)
        else:
            remains = item.remainder(self.place)
            slice_mm = item.slice_mm
            steps = self._apart(steps, slice_mm)
            stored = (self._scale(name, step, slice_mm) for step in steps)
            images = (np.where(remains, image, np.float32(BACKGROUND)) for image in stored)
        # a brain's mask or a user's says nothing about air
        framed = self.data.frame is not None and case.header.mask_from.startswith(FOREGROUND_OF)
        for plane, image, step in zip(out, images, steps):
            if framed and role == "source":
                image = np.where(self._near_body(step), image, np.float32(BACKGROUND))
            plane[self.inside] = image
        return out

    def _apart(self, steps: Sequence[int], slice_mm: float) -> Sequence[int]:
        """How many stored slices neighbours of a thick one are away: scans of thick slices have no others between."""
        apart = max(1, round(slice_mm / self.case.header.spacing_mm[0]))
        return [step * apart for step in steps]

    def _body(self, place: Box) -> Bool:
        """Where some source shows the body in a part of the case."""
        inside = self.case.inside(self.case.arrays[MASK][place], self.data.source)
        return inside if self.item is None else self.item.body(place, inside)

    def _near_body(self, step: int) -> Bool:
        """Where some source shows the body or its rim, `step` slices away."""
        header = self.case.header
        depth, rows, columns = self.place
        numbers = _repeat_ends(depth.start + step, depth.stop + step, header.shape[0])
        deep, high, wide = (min(side, RIM_MM) for side in header.spacing_mm)
        sides = deep, high, wide
        grown = []
        for place, side in zip((slice(numbers.min(), numbers.max() + 1), rows, columns), sides):
            reach = int(RIM_MM / side + 1e-6)
            grown.append(slice(max(0, place.start - reach), place.stop + reach))
        near = dilate(self._body(cast(Box, tuple(grown))), RIM_MM, sides)
        z, y, x = (of.start for of in grown)
        inner = near[:, rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        return inner[numbers - z]

    def _scale(self, name: str, step: int, slice_mm: float = 0.0) -> np.ndarray:
        """A stored modality in network units, `step` slices away; slice_mm: means over slices of this thickness."""
        header = self.case.header
        depth, rows, columns = self.place
        length = header.shape[0]
        spacing_mm = header.spacing_mm[0]
        reach = slice_margin(slice_mm, spacing_mm)
        first = depth.start + step - reach
        end = depth.stop + step + reach
        inside = first >= 0 and end <= length
        slices = slice(first, end) if inside else _repeat_ends(first, end, length)
        values = np.asarray(self.case.arrays[name][slices, rows, columns])
        if self.item is not None:
            values = self.item.stored(name, (slices, rows, columns), values)
        if values.dtype == np.float16:
            values = values.astype(np.float32)
        values = through_plane(values, slice_mm, spacing_mm)
        spec = self.intensity[name]
        statistics = header.statistics[name]
        if not spec.slicewise:
            return spec.scale(statistics).forward(values)
        numbers = _repeat_ends(first + reach, end - reach, length)
        scaled = [spec.scale(statistics, int(z)).forward(part) for z, part in zip(numbers, values)]
        return np.stack(scaled) if scaled else values.astype(np.float32)


def _repeat_ends(first: int, end: int, length: int) -> np.ndarray:
    """Indices of slices, where the outermost ones of a volume stand for those beyond it."""
    return np.clip(np.arange(first, end), 0, length - 1)


def readable(header: CaseHeader, frame_mm: float | None) -> Sequence[tuple[int, int]]:
    """First and end along D, H, W of what is read of a case: all, or in slices the mask's box and a margin."""
    whole = [(0, length) for length in header.shape]
    if frame_mm is None:
        return whole
    margins = [round(frame_mm / side) for side in header.spacing_mm]
    within = [
        (max(0, first - margin), min(end + margin, length))
        for (first, end), margin, length in zip(header.mask_box, margins, header.shape)
    ]
    return [whole[0], *within[1:]]


def overlap(start: Triple, size: Triple, ends: Sequence[tuple[int, int]]) -> tuple[Box, Box]:
    """The part of a patch between ends (along D, H, W) in the volume, in the patch's own indices and in the volume's."""
    in_patch = []
    in_volume = []
    for first, length, (least, most) in zip(start, size, ends):
        begin = min(max(0, least - first), length)
        end = max(begin, min(length, most - first))
        in_patch.append(slice(begin, end))
        in_volume.append(slice(first + begin, first + end))
    return cast(Box, tuple(in_patch)), cast(Box, tuple(in_volume))
