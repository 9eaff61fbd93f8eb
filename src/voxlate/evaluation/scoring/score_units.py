"""The units of scores other than those of the images: network units, and grey values of pictures that show a window."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from voxlate.base.config import adapter
from voxlate.base.errors import BadInput
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import Intensity, IntensityMap, Scale, intensity_statistics
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.ranges import NETWORK_RANGE, Range, as_grey

Conversion = Callable[[Volume], Volume]


def _same(volume: Volume) -> Volume:
    return volume


@dataclass(frozen=True)
class Units:
    """The conversions of a truth, an image and an image's standard deviation to the scored units."""

    truth: Conversion = _same
    synthesis: Conversion = _same
    spread: Conversion = _same


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

    return Units(synthesis=to_grey, spread=_times(scale.width / (high - low)))
