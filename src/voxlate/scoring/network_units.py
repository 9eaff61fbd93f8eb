"""Scores of what networks give and are given, on 0 to 255, as papers count that compare just these."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from voxlate.config import adapter
from voxlate.errors import BadInput
from voxlate.images.intensity import Intensity, IntensityMap, Scale
from voxlate.images.mask import foreground
from voxlate.images.ranges import Range
from voxlate.images.statistics import intensity_statistics
from voxlate.images.volume import Volume

TOP = 255.0
RULE = "network units: the truth by its own statistics, the image by the training's typical scale; clipped"
RANGE = Range(0.0, TOP, "of 255", RULE)


@dataclass(frozen=True)
class NetworkUnits:
    """How a model's recipe scales one modality: each volume by `map`, an image without a truth by `typical`."""

    map: IntensityMap
    typical: Scale

    def truth(self, volume: Volume) -> Volume:
        """The truth on [0, 255], as the network's target was in training; values [1, D, H, W]."""
        statistics = intensity_statistics(volume.data[0], foreground(volume))
        return _on_255(volume, self.map.scale(statistics))

    def synthesis(self, volume: Volume) -> Volume:
        """The image on [0, 255], as the network gave it."""
        return _on_255(volume, self.typical)

    def spread(self, volume: Volume) -> Volume:
        """A standard deviation in the same units."""
        return replace(volume, data=volume.data * np.float32(TOP / (self.typical.high - self.typical.low)))

    def naive(self, volume: Volume, scale: Range) -> Volume:
        """A naive baseline, which is on the range that it was learned in."""
        return replace(volume, data=((volume.data - scale.low) * (TOP / scale.width)).astype(np.float32))


def _on_255(volume: Volume, scale: Scale) -> Volume:
    return replace(volume, data=((scale.forward(volume.data) + 1) * (TOP / 2)).astype(np.float32), unit=RANGE.unit)


def network_units(provenance: Mapping[str, Any], modality: str, where: object) -> NetworkUnits:
    """The units that a case's provenance states for a modality; raises BadInput where it states none."""
    try:
        stated = provenance["network_units"][modality]
        scaled_by: IntensityMap = adapter(Intensity).validate_python(stated["map"])
        return NetworkUnits(scaled_by, Scale(float(stated["low"]), float(stated["high"])))
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise BadInput(
            f"{where}: expected provenance that states the network's units of {modality} for --units network, found "
            "none. Synthesise again, or score in the image's own units."
        ) from error


def stated_units(maps: Mapping[str, IntensityMap], scales: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """What provenance states of them, by modality."""
    return {name: {"map": vars(maps[name]), "low": low, "high": high} for name, (low, high) in scales.items()}
