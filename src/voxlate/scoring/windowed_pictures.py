"""Scores of a synthesised CT in HU against pictures of CT slices, which show a window of HU as grey values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from voxlate.images.grid import Volume
from voxlate.images.ranges import Range
from voxlate.scoring.network_units import Units
from voxlate.system.errors import BadInput

# The usual window of the brain, of width 80 and level 40: Osborn 2012, "Osborn's Brain".
BRAIN_HU = (0.0, 80.0)


def window_of(given: Sequence[float] | None) -> tuple[float, float]:
    """The window of the pictures, by default that of the brain; raises BadInput if its ends are swapped."""
    low, high = given or BRAIN_HU
    if not -math.inf < low < high < math.inf:
        raise BadInput(
            f"--window: expected the HU of black below those of white, both finite, found {low:g} {high:g}. Change them."
        )
    return low, high


def shows_a_window(provenance: Mapping[str, Any], modality: str, truth_unit: str) -> bool:
    """Whether an image is in HU and its truth is a picture."""
    return truth_unit == "grey" and provenance.get("units", {}).get(modality) == "HU"


def picture_units(window_hu: tuple[float, float], scale: Range) -> Units:
    """The conversions of an image in HU to the grey values of a picture; the truth stays as it is.

    window_hu: the values that are black and white.
    """
    low, high = window_hu
    gain = np.float32(scale.width / (high - low))

    def to_grey(volume: Volume) -> Volume:
        values = (np.clip(volume.data, low, high) - low) * gain + scale.low
        return replace(volume, data=values.astype(np.float32), unit="grey")

    return Units(
        truth=lambda volume: volume,
        synthesis=to_grey,
        spread=lambda volume: replace(volume, data=volume.data * gain),
    )


def assumption(window_hu: tuple[float, float], is_given: bool, modality: str) -> str:
    """The sentence on the window of the pictures."""
    low, high = window_hu
    hint = (
        "as given by --window"
        if is_given
        else "a window of the brain; pass --window if it is another one"
    )
    return f"pictures of {modality} show {low:g} to {high:g} HU as black to white ({hint}), and synthesised HU are clipped to it"
