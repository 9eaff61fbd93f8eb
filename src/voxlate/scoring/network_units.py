"""Network units: scores of network outputs and targets on the range 0 to 255, as some papers state them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from voxlate.images.grid import Volume
from voxlate.images.intensity import Intensity, IntensityMap, Scale
from voxlate.images.mask import foreground
from voxlate.images.ranges import Range
from voxlate.images.statistics import intensity_statistics
from voxlate.system.config import adapter
from voxlate.system.errors import BadInput

TOP = 255.0
RULE = "network units: the truth by its own statistics, the image by the training's typical scale; clipped"
RANGE = Range(0.0, TOP, "of 255", RULE)

Conversion = Callable[[Volume], Volume]


@dataclass(frozen=True)
class Units:
    """The conversions of a truth, an image and an image's standard deviation to the scored units."""

    truth: Conversion
    synthesis: Conversion
    spread: Conversion


def _same(volume: Volume) -> Volume:
    return volume


OWN = Units(_same, _same, _same)


def network_units(provenance: Mapping[str, Any], modality: str, where: object) -> Units:
    """The units that a case's provenance states for a modality; raises BadInput if it states none.

    The truth is scaled by its own statistics, as a target in training; the image by the typical scale of the training,
    which gives the network's output.
    """
    try:
        stated = provenance["network_units"][modality]
        scaled_by: IntensityMap = adapter(Intensity).validate_python(stated["map"])
        typical = Scale(float(stated["low"]), float(stated["high"]))
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise BadInput(
            f"{where}: expected provenance that states the network's units of {modality} for --units network, found none. Synthesise again, or score in the image's own units."
        ) from error
    gain = np.float32(TOP / (typical.high - typical.low))
    return Units(
        truth=lambda volume: _on_255(
            volume,
            scaled_by.scale(intensity_statistics(volume.data[0], foreground(volume))),
        ),
        synthesis=lambda volume: _on_255(volume, typical),
        spread=lambda volume: replace(volume, data=volume.data * gain),
    )


def _on_255(volume: Volume, scale: Scale) -> Volume:
    values = (scale.forward(volume.data) + 1) * (TOP / 2)
    return replace(volume, data=values.astype(np.float32), unit=RANGE.unit)


def stated_units(
    maps: Mapping[str, IntensityMap], scales: Mapping[str, tuple[float, float]]
) -> dict[str, Any]:
    """The entry of provenance for each modality."""
    stated: dict[str, Any] = {}
    for name, (low, high) in scales.items():
        stated[name] = {"map": vars(maps[name]), "low": low, "high": high}
    return stated
