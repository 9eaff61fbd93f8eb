"""Scores of what networks give and are given, on 0 to 255, as papers count that compare just these."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from voxlate.config import adapter
from voxlate.errors import BadInput
from voxlate.images.grid import Volume
from voxlate.images.intensity import Intensity, IntensityMap, Scale
from voxlate.images.mask import foreground
from voxlate.images.ranges import Range
from voxlate.images.statistics import intensity_statistics

TOP = 255.0
RULE = "network units: the truth by its own statistics, the image by the training's typical scale; clipped"
RANGE = Range(0.0, TOP, "of 255", RULE)

Conversion = Callable[[Volume], Volume]


@dataclass(frozen=True)
class Units:
    """How a truth, an image without one, and an image's standard deviation come to the units that are scored."""

    truth: Conversion
    synthesis: Conversion
    spread: Conversion


def _same(volume: Volume) -> Volume:
    return volume


OWN = Units(_same, _same, _same)


def network_units(provenance: Mapping[str, Any], modality: str, where: object) -> Units:
    """The units that a case's provenance states for a modality; raises BadInput where it states none.

    A truth then is as the network's target was in training, scaled by its own statistics, and an image as the network
    gave it, by the training's typical scale.
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
        truth=lambda one: _on_255(one, scaled_by.scale(intensity_statistics(one.data[0], foreground(one)))),
        synthesis=lambda one: _on_255(one, typical),
        spread=lambda one: replace(one, data=one.data * gain),
    )


def _on_255(volume: Volume, scale: Scale) -> Volume:
    return replace(
        volume,
        data=((scale.forward(volume.data) + 1) * (TOP / 2)).astype(np.float32),
        unit=RANGE.unit,
    )


def stated_units(maps: Mapping[str, IntensityMap], scales: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """What provenance states of them, by modality."""
    return {name: {"map": vars(maps[name]), "low": low, "high": high} for name, (low, high) in scales.items()}
