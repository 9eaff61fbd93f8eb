"""Features of a voxel that predict how large the error of an image is there, and the small networks that predict it by them.

evaluation/intervals/width_training.py trains the networks, which compute in NumPy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from voxlate.base.array_types import Float32
from voxlate.scans.images.slice_filters import blur, gradient

Array = Float32

NARROW, WIDE = 1.0, 3.0  # standard deviation of blurs, in pixels
FAR = 12  # pixels from the background, beyond which the distance no longer matters
LEAST_SD = 1e-3  # of the network's range of 2: smaller standard deviations count as this one
BACKGROUND_BELOW = -0.98  # network units
NARROWEST = 1e-3  # of the network's range of 2: no interval is narrower before it is scaled
VOXELS_AT_ONCE = 1 << 17  # voxels of a slab, whose features fit into a CPU's cache
# In one prediction of widths, whose hidden layers fit into a CPU's cache.
VOXELS_OF_WIDTHS = 1 << 13
LEAST_DIVISOR = 1e-4  # divisor of features and errors
LARGEST = 1e4  # size of a value: networks with such weights predict finite values


def voxel_features(
    image: Array,
    sources: Sequence[Array],
    sd: Array | None = None,
) -> Array:
    """Features [D, H, W, F] of an image, of its sources, and of its samples' standard deviation, in network units.

    All but one are computed within a slice, because slices are thicker than pixels, and there may be only one.
    """
    return np.concatenate([part for _, part in features_in_slabs(image, sources, sd)])


def features_in_slabs(
    image: Array,
    sources: Sequence[Array],
    sd: Array | None,
) -> Iterator[tuple[slice, Array]]:
    """The same features a few slices at a time, because those of a whole volume are larger than all its images."""
    planes_at_once = max(1, VOXELS_AT_ONCE // max(1, image[0].size))
    for start in range(0, len(image), planes_at_once):
        planes = slice(start, min(start + planes_at_once, len(image)))
        first = max(start - 1, 0)
        difference = _difference_to_neighbours(image[first : planes.stop + 1])[start - first :]
        part = image[planes]
        features = [*_image_features(part), difference[: len(part)], _distance_to_background(part)]
        for source in sources:
            features += _image_features(source[planes])
        if sd is not None:
            of_part = sd[planes]
            for smoothed in (of_part, blur(of_part, NARROW), blur(of_part, WIDE)):
                features.append(np.log(np.maximum(smoothed, LEAST_SD)))
        yield planes, np.moveaxis(np.stack(features).astype(np.float32, copy=False), 0, -1)


def _image_features(image: Array) -> list[Array]:
    """Value, blurs, gradients at two scales, and the range of the neighbourhood."""
    narrow = blur(image, NARROW)
    wide = blur(image, WIDE)
    span = _largest(image) + _largest(-image)
    return [image, narrow, wide, gradient(narrow), gradient(wide), span]


def _largest(image: Array) -> Array:
    """The largest value of 3 x 3 pixels around each pixel of slices."""
    return ndimage.maximum_filter(image, (1, 3, 3), mode="nearest")


def _difference_to_neighbours(image: Array) -> Array:
    """The mean absolute difference between a slice and those below and above; 0 for a single slice."""
    padded = np.pad(image, ((1, 1), (0, 0), (0, 0)), mode="edge")
    return (np.abs(padded[2:] - image) + np.abs(padded[:-2] - image)) / 2


def _distance_to_background(image: Array) -> Array:
    """The distance to the nearest pixel of background within the slice, at most FAR, divided by FAR."""
    shown = np.pad(image > BACKGROUND_BELOW, ((0, 0), (1, 1), (1, 1)))
    away = np.stack([ndimage.distance_transform_edt(plane) for plane in shown])
    return (np.minimum(away, FAR) / FAR)[:, 1:-1, 1:-1].astype(np.float32)


@dataclass(frozen=True)
class WidthSettings:
    """The training of a network of widths: its hidden layers, outputs and steps; least: is added to each width."""

    hidden: tuple[int, ...]
    outputs: int
    steps: int
    least: float


SETTINGS: dict[str, WidthSettings] = {
    "learned": WidthSettings((48, 48), outputs=2, steps=1600, least=NARROWEST),
    "difficulty": WidthSettings((32,), outputs=1, steps=800, least=0.02),
}


@dataclass(frozen=True)
class Widths:
    """A network of widths.

    arrays: by the names that torch gives them: "0.weight" [outputs, inputs], "0.bias", "2.weight", …; `centre` and
    `spread` of the features [F]; `unit` of its outputs, and what is added to them, `least`.
    """

    arrays: Mapping[str, np.ndarray]

    def predict(self, features: Float32) -> Float32:
        """How far the truth may be below and above the image, [2, …] in network units; features: [..., F]."""
        flat = features.reshape(-1, features.shape[-1])
        starts = range(0, len(flat), VOXELS_OF_WIDTHS)
        parts = [self._widths(flat[start : start + VOXELS_OF_WIDTHS]) for start in starts]
        widths = np.concatenate(parts).T
        both = np.broadcast_to(widths, (2, widths.shape[1]))
        return both.reshape(2, *features.shape[:-1])

    def _widths(self, features: Float32) -> Float32:
        """The outputs [N, 1 or 2] for features [N, F]."""
        arrays = self.arrays
        hidden = (features - arrays["centre"]) / arrays["spread"]
        layers = sorted(int(name.split(".")[0]) for name in arrays if name.endswith(".weight"))
        for layer in layers:
            hidden = hidden @ arrays[f"{layer}.weight"].T + arrays[f"{layer}.bias"]
            if layer != layers[-1]:
                hidden = hidden / (1 + np.exp(-hidden))  # SiLU
        positive = np.logaddexp(np.float32(0), hidden)  # softplus
        return np.asarray(positive * arrays["unit"] + arrays["least"], np.float32)
