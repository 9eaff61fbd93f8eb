"""Statistics of a volume's intensities, and the invertible maps between physical units and the [-1, 1] of networks that they decide."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field

from voxlate.base.config import Importable, setting, settings
from voxlate.base.errors import BadInput
from voxlate.base.records import NotNegative, Number

Array = TypeVar("Array", np.ndarray, Any)  # numpy arrays and torch tensors share what is used here

NARROWEST = 1e-37  # a range below this is a constant: its inverse would overflow float32


# The tails are dense because intensity maps are stated there; others are interpolated linearly between these.
PERCENTILES = (
    *(0, 0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 25, 50),
    *(75, 90, 95, 97, 98, 99, 99.5, 99.8, 99.9, 99.95, 100),
)

SIGNED = 0.02  # of the range: values so far below 0 are no rounding
CONSTANT = 0.5  # of the first percentile that the lower quartile reaches in air below 0; noise around 0 reaches 0.3


@dataclass(frozen=True)
class Distribution:
    """How a set of voxels is distributed: mean, standard deviation and the values at PERCENTILES."""

    mean: Number
    sd: NotNegative
    percentiles: tuple[Number, ...]

    def at(self, percentile: float) -> float:
        """The value at a percentile (0 to 100), exact at PERCENTILES and interpolated between them."""
        if percentile in PERCENTILES:  # without numpy, because reading asks for each patch anew
            return float(self.percentiles[PERCENTILES.index(percentile)])
        return float(np.interp(percentile, PERCENTILES, self.percentiles))


@dataclass(frozen=True)
class Statistics:
    """Of a volume: its foreground, all of it, and the extremes of each slice along D."""

    foreground: Distribution
    all: Distribution
    slice_low: tuple[Number, ...]
    slice_high: tuple[Number, ...]

    @property
    def blank(self) -> bool:
        """Whether every voxel has the same value."""
        return self.all.at(0) == self.all.at(100)

    @property
    def is_signed(self) -> bool:
        """Whether its mean was subtracted: much of the body, or air without its noise, is below 0."""
        at = self.all.at
        limit = -SIGNED * (at(99.9) - at(0.1))
        air = min(limit, CONSTANT * at(1))
        return self.foreground.at(25) < limit or at(25) < air


def intensity_statistics(values: np.ndarray, mask: np.ndarray | None = None) -> Statistics:
    """Statistics of a volume; values, mask: [D, H, W]. Without a mask, or with an empty one, all is foreground."""
    everything = distribution(values)
    has_mask = mask is not None and mask.any()
    return Statistics(
        foreground=distribution(values, mask) if has_mask else everything,
        all=everything,
        slice_low=tuple(values.min(axis=(1, 2)).astype(float).tolist()),
        slice_high=tuple(values.max(axis=(1, 2)).astype(float).tolist()),
    )


def distribution(values: np.ndarray, mask: np.ndarray | None = None) -> Distribution:
    """The distribution of an array of any shape, or of its values inside a mask, which must not be empty."""
    inside = values.flatten() if mask is None else values[mask > 0]
    mean, sd = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
    percentiles = np.percentile(inside, PERCENTILES, overwrite_input=True).astype(float).tolist()
    return Distribution(float(mean), float(sd), tuple(percentiles))


@dataclass(frozen=True)
class Scale:
    """The affine map that takes low to -1 and high to 1, in the volume's unit.

    Args:
        low: value that becomes -1.
        high: value that becomes 1.

    Example:
        >>> import numpy as np
        >>> from voxlate.scans.images.intensity import Scale
        >>> scale = Scale(-1000.0, 1000.0)
        >>> scale.forward(np.array([500.0, 3000.0]))
        array([0.5, 1. ])
    """

    low: float
    high: float

    @property
    def half(self) -> float:
        """The size of one network unit in physical units."""
        return (self.high - self.low) / 2

    def forward(self, x: Array) -> Array:
        """Network units of physical values; values beyond low and high are clipped, a constant (low = high) is -1."""
        y = self.of(x)
        return np.clip(y, -1, 1, out=y) if isinstance(y, np.ndarray) else y.clip(-1, 1)

    def of(self, x: Array) -> Array:
        """As `forward`, not clipped."""
        y = _as_floats(x) - self.low
        y *= 2 / (self.high - self.low) if self.high - self.low > NARROWEST else 0.0
        y -= 1
        return y

    def inverse(self, y: Array) -> Array:
        """Physical values of network units; not clipped, so that a prediction beyond the range stays visible."""
        x = _as_floats(y) + 1
        x *= self.half
        x += self.low
        return x


def _as_floats(x: Array) -> Array:
    """Integers as float32 (numpy would go to float64), floats as they are."""
    if isinstance(x, np.ndarray | np.generic):
        return x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float32)
    return x if x.is_floating_point() else x.float()


class IntensityMap(ABC):
    """How the scale of a modality is chosen: the settings compute it, so that users may add maps of their own.

    Example:
        >>> from voxlate.base.config import settings
        >>> from voxlate.scans.images.intensity import IntensityMap, Scale
        >>> @settings
        ... class ToMedian(IntensityMap):
        ...     def scale(self, statistics, slice_index=None):
        ...         return Scale(0.0, 2 * statistics.foreground.at(50))
        >>> ToMedian().slicewise
        False
    """

    floor: float | None = None
    """The value that becomes -1 in every volume, such as 0 for air; None where each volume has its own."""

    @property
    def upper_percentile(self) -> float | None:
        """The percentile of a volume's foreground that becomes 1; None where the upper end is no percentile."""
        return None

    @property
    def slicewise(self) -> bool:
        """Whether each slice has a scale of its own."""
        return False

    @property
    def window(self) -> tuple[float, float] | None:
        """Low and high where they are the same for every volume."""
        return None

    @abstractmethod
    def scale(self, statistics: Statistics, slice_index: int | None = None) -> Scale:
        """The scale of a volume with these statistics.

        slice_index: along D, for maps that work slice by slice; without it these take the whole volume.
        """


def _check_order(kind: str, low: float, high: float) -> None:
    if not low < high:
        raise BadInput(
            f"intensity {kind}: expected low < high, found low = {low}, high = {high}. Swap or change them."
        )


@settings
class Window(IntensityMap):
    """A fixed range in the volume's unit, the same for every volume: for Hounsfield units and maps."""

    low: Annotated[
        float, setting("value that becomes -1, in the volume's unit", allow_inf_nan=False)
    ]
    high: Annotated[
        float, setting("value that becomes 1, in the volume's unit", allow_inf_nan=False)
    ]
    kind: Literal["window"] = "window"

    def __post_init__(self) -> None:
        _check_order("window", self.low, self.high)

    @property
    def window(self) -> tuple[float, float]:
        """Low and high."""
        return self.low, self.high

    def scale(self, statistics: Statistics | None, slice_index: int | None = None) -> Scale:
        """The scale of the window, which needs no statistics."""
        return Scale(self.low, self.high)


@settings
class Percentile(IntensityMap):
    """The range between two percentiles of each volume: for MR, whose unit is arbitrary."""

    low: Annotated[float, setting("percentile that becomes -1", ge=0, le=100)] = 0.5
    high: Annotated[float, setting("percentile that becomes 1", ge=0, le=100)] = 99.5
    floor: Annotated[
        float | None,
        setting("value that becomes -1 in place of the low percentile, such as 0 for air"),
    ] = None
    inside: Annotated[
        Literal["foreground", "all"],
        setting("whether the percentiles are of the mask or of all voxels"),
    ] = "foreground"
    kind: Literal["percentile"] = "percentile"

    def __post_init__(self) -> None:
        _check_order("percentile", self.low, self.high)

    @property
    def upper_percentile(self) -> float:
        """The percentile that becomes 1."""
        return self.high

    def scale(self, statistics: Statistics, slice_index: int | None = None) -> Scale:
        """The scale between the percentiles of a volume."""
        inside = statistics.foreground if self.inside == "foreground" else statistics.all
        low = inside.at(self.low) if self.floor is None else self.floor
        return Scale(low, inside.at(self.high))


@settings
class MinMax(IntensityMap):
    """The full range of each slice or of each volume."""

    per: Annotated[Literal["slice", "volume"], setting("what has a range of its own")] = "slice"
    kind: Literal["minmax"] = "minmax"

    @property
    def slicewise(self) -> bool:
        """Whether each slice has a scale of its own."""
        return self.per == "slice"

    def scale(self, statistics: Statistics, slice_index: int | None = None) -> Scale:
        """The scale between the extremes of a slice or a volume."""
        if self.slicewise and slice_index is not None:
            return Scale(statistics.slice_low[slice_index], statistics.slice_high[slice_index])
        return Scale(statistics.all.at(0), statistics.all.at(100))


Intensity = Annotated[Window | Percentile | MinMax, Field(discriminator="kind"), Importable()]


def typical_scale(spec: IntensityMap, cases: Sequence[Statistics]) -> Scale:
    """The map from a synthesis to physical units, for which the truth's own statistics cannot be known.

    For a window it is the window itself. Otherwise it is the median over training cases of each case's low and high
    end: MR units are arbitrary, so no better scale exists for a patient whose target was never scanned.
    """
    scales = [spec.scale(case) for case in cases]
    low, high = np.median([(scale.low, scale.high) for scale in scales], axis=0).tolist()
    return Scale(low, high)
