"""A truth, its image and a source in few cells, by which truths are compared with the other truths of a cohort."""

from dataclasses import dataclass

import numpy as np

from voxlate.base.arrays import Float32
from voxlate.base.slabs import least_and_most, spread_values
from voxlate.scans.images.grid import Grid, Volume
from voxlate.scans.images.matching import block_means

MOST_CELLS = 40  # along the longest side of a volume
MOST_FLAT_CELLS = 64  # along the longest side of a picture
FEWEST_SLICES = 8  # below, cases are pictures or a few slices
SAMPLES = 1_000_000
OTHER_SIZE = 20.0  # times: the field of view of a scan of the same region is less than this apart


@dataclass(frozen=True, eq=False)
class Sketch:
    """A truth, its image and a source in few cells [D, H, W] of one grid, with what the truth's voxels show.

    image, source: NaN where they do not cover the truth; empty where there are none. cell_mm: [3]; times: [1], by how much
    the truth's field of view is longer than that of the image; ends: [4], the lowest and the highest value of the truth,
    and the share of its voxels at each.
    """

    truth: Float32
    image: Float32
    source: Float32
    cell_mm: Float32
    times: Float32
    ends: Float32

    @property
    def has_other_size(self) -> bool:
        """Whether the field of view of the truth is too large or too small for that of its image, as in micrometres."""
        return _is_other(float(self.times[0]))

    @property
    def shows_nothing(self) -> bool:
        """Whether nothing of the truth can be scored: it has another size, or the same value everywhere."""
        return self.has_other_size or bool(self.ends[0] == self.ends[1])

    @property
    def flat_slices(self) -> int:
        """The number of slices of a picture; 0 for volumes. Pictures are compared with those of as many slices."""
        slices = len(self.truth)
        return slices if slices < FEWEST_SLICES else 0


@dataclass(frozen=True)
class SketchedTruth:
    """The sketch of one truth: its patient, its unit, and that of its image; other: the case from whose scan the image was made, if not its own."""

    patient: str
    unit: str
    image_unit: str
    sketch: Sketch
    other: str = ""


def sketch_of(
    truth: Volume,
    image: Float32 | None,
    source: Float32 | None,
    image_grid: Grid,
) -> Sketch:
    """The sketch of a truth.

    image, source: [D, H, W] on the truth's grid, NaN where they do not count; image_grid: the grid that the image has of
    its own.
    """
    values = truth.data[0]
    spacing_mm = np.array(truth.grid.spacing_mm)
    most = MOST_CELLS if len(values) > 1 else MOST_FLAT_CELLS
    cell_mm = float((spacing_mm * values.shape).max()) / most
    blocks = (
        np.minimum(np.maximum(np.rint(cell_mm / spacing_mm), 1), values.shape).astype(int).tolist()
    )
    nothing = np.zeros((0, 0, 0), np.float32)
    low, high = (float(end) for end in least_and_most(values))
    sample = spread_values(values, max(1, values.size // SAMPLES))
    ends = [low, high, float((sample == low).mean()), float((sample == high).mean())]
    return Sketch(
        block_means(values, blocks),
        nothing if image is None else block_means(image, blocks),
        nothing if source is None else block_means(source, blocks),
        (spacing_mm * blocks).astype(np.float32),
        np.array([_relative_size(truth.grid, image_grid)], np.float32),
        np.array(ends, np.float32),
    )


def has_other_size(truth: Grid, image: Grid) -> bool:
    """Whether the field of view of a truth is too large or too small for that of its image, as in micrometres."""
    return _is_other(_relative_size(truth, image))


def _is_other(times: float) -> bool:
    return not 1 / OTHER_SIZE < times < OTHER_SIZE


def _relative_size(truth: Grid, image: Grid) -> float:
    """How many times as long as that of its image the field of view of a truth is."""

    def length(grid: Grid) -> float:
        """The geometric mean of the sides of a slice, in mm."""
        _, height, width = np.array(grid.shape) * grid.spacing_mm
        return float(np.sqrt(height * width))

    return length(truth) / length(image)
