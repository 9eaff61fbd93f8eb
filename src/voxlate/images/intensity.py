"""Invertible maps between physical units and the [-1, 1] of networks."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field

from voxlate.config import settings
from voxlate.errors import BadInput

Array = TypeVar("Array", np.ndarray, Any)  # numpy arrays and torch tensors share what is used here

NARROWEST = 1e-37  # a range below this is a constant: its inverse would overflow float32


@dataclass(frozen=True)
class Scale:
    """The affine map that takes low to -1 and high to 1, in the volume's unit."""

    low: float
    high: float

    def forward(self, x: Array) -> Array:
        """Network units of physical values; what lies beyond low and high is clipped, a constant (low = high) is -1."""
        y = _floating(x) - self.low
        y *= 2 / (self.high - self.low) if self.high - self.low > NARROWEST else 0.0
        y -= 1
        return y.clip(-1, 1)

    def inverse(self, y: Array) -> Array:
        """Physical values of network units; not clipped, so that a prediction beyond the range stays visible."""
        x = _floating(y) + 1
        x *= (self.high - self.low) / 2
        x += self.low
        return x

    def clipped_share(self, x: Array) -> float:
        """The share of values, 0 to 1, that forward clips."""
        beyond = (x < self.low) | (x > self.high)
        return float(beyond.sum()) / max(1, int(np.prod(beyond.shape)))


def _floating(x: Array) -> Array:
    """Integers as float32 (numpy would go to float64), floats as they are."""
    if isinstance(x, np.ndarray):
        return x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float32)
    return x if x.is_floating_point() else x.float()


def _chosen(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The values inside the mask; all of them where there is no mask or it is empty (a slice beside the body)."""
    values = np.asarray(values)
    if mask is None or not mask.any():
        return values
    return values[np.broadcast_to(mask, values.shape)]


@settings
class Window:
    """A fixed range in the volume's unit, the same for every volume: for Hounsfield units and maps."""

    low: Annotated[float, Field(description="value that becomes -1, in the volume's unit", allow_inf_nan=False)]
    high: Annotated[float, Field(description="value that becomes 1, in the volume's unit", allow_inf_nan=False)]
    kind: Literal["window"] = "window"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise BadInput(f"intensity window: expected low < high, found low = {self.low}, high = {self.high}.")

    def fit(self, values: np.ndarray, mask: np.ndarray | None = None) -> Scale:
        return Scale(self.low, self.high)


@settings
class Percentile:
    """The range between two percentiles of each volume: for MR, whose unit is arbitrary."""

    low: Annotated[float, Field(description="percentile that becomes -1", ge=0, le=100)] = 0.5
    high: Annotated[float, Field(description="percentile that becomes 1", ge=0, le=100)] = 99.5
    floor: Annotated[
        float | None, Field(description="value that becomes -1 in place of the low percentile, such as 0 for air")
    ] = None
    inside: Annotated[
        Literal["foreground", "all"], Field(description="whether the percentiles are of the mask or of all voxels")
    ] = "foreground"
    kind: Literal["percentile"] = "percentile"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise BadInput(f"intensity percentile: expected low < high, found low = {self.low}, high = {self.high}.")

    def fit(self, values: np.ndarray, mask: np.ndarray | None = None) -> Scale:
        low, high = np.percentile(_chosen(values, mask if self.inside == "foreground" else None), [self.low, self.high])
        return Scale(float(low) if self.floor is None else self.floor, float(high))


@settings
class ZScore:
    """Mean ± clip standard deviations of each volume, inside the mask, spread over -1 to 1."""

    clip: Annotated[float, Field(description="standard deviations from the mean that become -1 and 1", gt=0)] = 5.0
    kind: Literal["zscore"] = "zscore"

    def fit(self, values: np.ndarray, mask: np.ndarray | None = None) -> Scale:
        chosen = _chosen(values, mask)
        mean, reach = chosen.mean(dtype=np.float64), self.clip * chosen.std(dtype=np.float64)
        return Scale(float(mean - reach), float(mean + reach))


@settings
class MinMax:
    """The full range of each slice or of each volume."""

    per: Annotated[Literal["slice", "volume"], Field(description="what has a range of its own")] = "slice"
    kind: Literal["minmax"] = "minmax"

    def fit(self, values: np.ndarray, mask: np.ndarray | None = None) -> Scale:
        return Scale(float(np.min(values)), float(np.max(values)))


Intensity = Annotated[Window | Percentile | ZScore | MinMax, Field(discriminator="kind")]
