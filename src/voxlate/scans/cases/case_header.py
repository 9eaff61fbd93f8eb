"""The header of a prepared case: what is known of the case without reading its voxels."""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from voxlate.base.errors import BadInput
from voxlate.base.messages import Message
from voxlate.base.records import (
    Count,
    Digest,
    Length,
    Name,
    NotNegative,
    Number,
    Positive,
    Record,
    Several,
    Text,
    close,
)
from voxlate.scans.cases.align import Registered
from voxlate.scans.formats.io import holds_slices, is_picture
from voxlate.scans.images.grid import Grid, Volume, check_affine
from voxlate.scans.images.misalignment import Misalignment
from voxlate.scans.images.units import MAY_BE_ZERO
from voxlate.scans.images.volume_statistics import PERCENTILES, Statistics

Sides = tuple[Length, Length, Length]
Row = Annotated[list[Number], Field(min_length=4, max_length=4)]
Affine = Annotated[list[Row], Field(min_length=4, max_length=4)]
Unit = Annotated[Text, Field(max_length=100)]

MOST_VOXELS = 1 << 40  # of a scan: a product of three lengths may not overflow
BRAIN_OF = "brain of "  # how the source of a mask begins that is no file
FOREGROUND_OF = "foreground of "


@dataclass(frozen=True)
class Origin:
    """The grid that a modality had in its file, and the file's name; note, guesses, codes, body_part: as those of Volume."""

    file: Text
    shape: Sides
    affine: Affine
    note: Text = ""
    guesses: tuple[Message, ...] = ()
    codes: tuple[Count, Count] = (1, 1)
    body_part: Text = ""

    @classmethod
    def of(cls, scan: Volume) -> "Origin":
        """The origin of a scan as it was read."""
        file, affine = Path(scan.origin).name, scan.affine.tolist()
        known = (scan.note, scan.guesses, scan.codes, scan.body_part)
        return cls(file, scan.grid.shape, affine, *known)

    @property
    def grid(self) -> Grid:
        """The grid of the file."""
        return Grid(self.shape, np.array(self.affine), self.codes)

    @property
    def states_spacing(self) -> bool:
        """Whether the file states the size of its voxels, which pictures do not, nor array files without `mm`."""
        name, _, part = self.file.partition("#")
        return not is_picture(Path(self.file)) and (not holds_slices(name) or "mm=" in part)


@dataclass(frozen=True)
class CaseHeader:
    """Everything but the voxels of a prepared case.

    affine: 4x4, (x, y, z) voxel to RAS mm; units: of the modalities, in the order of the mask's bits; mask_area:
    voxels of the mask in each slice; mask_box: first and last + 1 along D, H, W; inputs: digest of the input files and
    the preparation; misaligned: the distance of scans from the fixed one, where it was estimated; voxels: digest of
    each array (modality, mask, label map) by its name; numbers, pictures: the fingerprint of
    each scan, and the numbers of the mask, as checks measured them; checksum: of the header; inputs,
    voxels and checksum are empty in memory.
    """

    case: Name
    patient: Name
    shape: Sides
    spacing_mm: tuple[Positive, Positive, Positive]
    affine: Affine
    units: dict[Name, Unit]
    origins: dict[Name, Origin]
    labels: list[Name]
    statistics: dict[Name, Statistics]
    mask_from: Text
    mask_area: list[Count]
    mask_box: Annotated[list[tuple[Count, Several]], Field(min_length=3, max_length=3)]
    mask_ml: NotNegative
    inputs: Text = ""
    voxels: dict[Name, Digest] = field(default_factory=dict)
    numbers: dict[Name, dict[Name, Number]] = field(default_factory=dict)
    pictures: dict[Name, Text] = field(default_factory=dict)
    registered: dict[Name, Registered] = field(default_factory=dict)
    misaligned: dict[Name, Misalignment] = field(default_factory=dict)
    checksum: Text = ""

    @property
    def grid(self) -> Grid:
        """The grid of the case."""
        return Grid(self.shape, np.array(self.affine))

    @property
    def visible(self) -> list[str]:
        """The modalities that show something: a blank scan counts as missing, a map of zeros of, say, flow does not."""
        return [
            name
            for name in self.units
            if name in MAY_BE_ZERO or name not in self.statistics or not self.statistics[name].blank
        ]

    @property
    def has_mask_file(self) -> bool:
        """Whether the mask comes from a file, not from a brain or foreground that was found in the scans."""
        return bool(self.mask_from) and not self.mask_from.startswith((BRAIN_OF, FOREGROUND_OF))

    def check(self, record: Record) -> None:
        """Raise BadInput unless the parts of the header describe the same scans, and readers can compute with them."""
        names = self.units.keys()
        depth, height, width = self.shape
        of_scans = self.registered.keys() | self.misaligned.keys() | self.pictures.keys()
        ends = zip(self.mask_box, self.shape)
        for is_sound, found in (
            (bool(names), "no modality"),
            (depth * height * width <= MOST_VOXELS, f"a scan of {self.shape} voxels"),
            (self.origins.keys() == names, "origins of other modalities"),
            (self.statistics.keys() == names, "statistics of other modalities"),
            (of_scans <= names, "alignments or pictures of other modalities"),
            (len(set(self.labels)) == len(self.labels), "a label map twice"),
            (len(self.mask_area) == depth, "a mask of another number of slices"),
            (max(self.mask_area, default=0) <= height * width, "a mask of another size"),
            (all(first < end <= n for (first, end), n in ends), "another box of its mask"),
        ):
            record.check(is_sound, found)
        for affine in (self.affine, *(origin.affine for origin in self.origins.values())):
            record.check(affine[3] == [0, 0, 0, 1], "an affine that is none")
            try:
                check_affine(np.array(affine), record.path)
            except BadInput as error:
                raise record.wrong("an affine that gives voxels no place of their own") from error
        for name, statistics in self.statistics.items():
            lengths = {len(statistics.slice_low), len(statistics.slice_high)}
            record.check(lengths == {depth}, f"the slices of another {name}")
            for part in (statistics.all, statistics.foreground):
                points = part.percentiles
                is_rising = all(a <= b or close(a, b) for a, b in pairwise(points))
                is_sound = is_rising and len(points) == len(PERCENTILES)
                record.check(is_sound, f"percentiles of {name} that are none")
        for name, apart in self.misaligned.items():
            numbers = (apart.median_mm, apart.p95_mm, apart.translation_mm, apart.rotation_deg)
            is_sound = numbers.count(None) in (0, len(numbers))
            record.check(is_sound, f"a part of the misalignment of {name}")
