"""The header of a prepared case: what is known of the case without reading its voxels."""

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from pydantic import Field

from voxlate.cases.align import Registered
from voxlate.images.grid import Grid
from voxlate.images.misalignment import Misalignment
from voxlate.images.statistics import Statistics
from voxlate.system.records import (
    Count,
    Digest,
    Length,
    Name,
    NotNegative,
    Number,
    Positive,
    Several,
    Text,
)

Sides = tuple[Length, Length, Length]
Row = Annotated[list[Number], Field(min_length=4, max_length=4)]
Affine = Annotated[list[Row], Field(min_length=4, max_length=4)]
Unit = Annotated[Text, Field(max_length=100)]

BRAIN_OF = "brain of "  # how the source of a mask begins that is no file
FOREGROUND_OF = "foreground of "


@dataclass(frozen=True)
class Origin:
    """The grid that a modality had in its file, and the file's name; note, guesses, codes: as those of Volume."""

    file: Text
    shape: Sides
    affine: Affine
    note: Text = ""
    guesses: tuple[Text, ...] = ()
    codes: tuple[Count, Count] = (1, 1)

    @property
    def grid(self) -> Grid:
        """The grid of the file."""
        return Grid(self.shape, np.array(self.affine), self.codes)


@dataclass(frozen=True)
class CaseHeader:
    """Everything but the voxels of a prepared case.

    affine: 4x4, (x, y, z) voxel to RAS mm; units: of the modalities, in the order of the mask's bits; mask_area:
    voxels of the mask in each slice; mask_box: first and last + 1 along D, H, W; inputs: digest of the input files and
    the preparation; misaligned: the distance of scans from the fixed one, where it was estimated; voxels: digest of
    each array (modality, mask, label map) by its name; signatures: of scans, to recognise
    changed copies; checksum: of the header; inputs, voxels and checksum are empty in memory.
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
    signatures: dict[Name, Text] = field(default_factory=dict)
    registered: dict[Name, Registered] = field(default_factory=dict)
    misaligned: dict[Name, Misalignment] = field(default_factory=dict)
    checksum: Text = ""

    @property
    def grid(self) -> Grid:
        """The grid of the case."""
        return Grid(self.shape, np.array(self.affine))

    @property
    def visible(self) -> list[str]:
        """The modalities that show something: a blank scan counts as missing."""
        return [
            name
            for name in self.units
            if name not in self.statistics or not self.statistics[name].blank
        ]

    @property
    def has_mask_file(self) -> bool:
        """Whether the mask comes from a file, not from a brain or foreground that was found in the scans."""
        return bool(self.mask_from) and not self.mask_from.startswith((BRAIN_OF, FOREGROUND_OF))
