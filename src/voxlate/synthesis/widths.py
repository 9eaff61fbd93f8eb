"""Features of a voxel that predict how large the error of an image is there, and the small networks that predict it by them.

evaluation/intervals/width_training.py trains the networks, which compute in NumPy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from voxlate.base.array_types import Float32
from voxlate.base.records import Shape
from voxlate.scans.images.slice_filters import blur, gradient

Array = Float32

NARROW, WIDE = 1.0, 3.0  # standard deviation of blurs, in pixels
FAR = 12  # pixels from the background, beyond which the distance no longer matters
LEAST_SD = 1e-3  # of the network's range of 2: smaller standard deviations count as this one
BACKGROUND_BELOW = -0.98  # network units
DISTANCES = (np.sqrt(np.arange(FAR**2 + 1)) / FAR).astype(np.float32)  # by their squares
NARROWEST = 1e-3  # of the network's range of 2: no interval is narrower before it is scaled
VOXELS_AT_ONCE = 1 << 17  # voxels of a slab, whose features fit into a CPU's cache
# In one prediction of widths, whose hidden layers fit into a CPU's cache.
VOXELS_OF_WIDTHS = 1 << 13
LEAST_DIVISOR = 1e-4  # divisor of features and errors
LARGEST = 1e4  # size of a value: networks with such weights predict finite values
LOWEST = {
    "spread": LEAST_DIVISOR / 2,
    "unit": LEAST_DIVISOR / 2,
    "least": 0.0,
}  # of the values of these arrays


def voxel_features(
    image: Array,
    sources: Sequence[Array],
    sd: Array | None = None,
) -> Array:
    """Features [D, H, W, F] of an image, of its sources, and of its samples' standard deviation, in network units.

    All but one are computed within a slice, because slices are thicker than pixels, and there may be only one.
    """
    return _features(image, _difference_to_neighbours(image), sources, sd)


def _features(image: Array, difference: Array, sources: Sequence[Array], sd: Array | None) -> Array:
    """The features of slices; difference: to their neighbours."""
    features = [*_image_features(image), difference, _distance_to_background(image)]
    for source in sources:
        features += _image_features(source)
    if sd is not None:
        for smoothed in (sd, blur(sd, NARROW), blur(sd, WIDE)):
            features.append(np.log(np.maximum(smoothed, LEAST_SD)))
    return np.moveaxis(np.stack(features).astype(np.float32, copy=False), 0, -1)


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
        difference = _difference_to_neighbours(image[first : planes.stop + 1])
        yield (
            planes,
            _features(
                image[planes],
                difference[start - first : planes.stop - first],
                [source[planes] for source in sources],
                None if sd is None else sd[planes],
            ),
        )


def _image_features(image: Array) -> list[Array]:
    """Value, blurs, gradients at two scales, and the range of the neighbourhood."""
    narrow = blur(image, NARROW)
    wide = blur(image, WIDE)
    span = _largest(image) + _largest(-image)
    return [image, narrow, wide, gradient(narrow), gradient(wide), span]


def _largest(image: Array) -> Array:
    """The largest value of 3 x 3 pixels around each pixel of slices."""
    for axis in 1, 2:
        chosen = np.copy(image)
        lines = np.moveaxis(chosen, axis, 0)
        before = np.moveaxis(image, axis, 0)
        np.maximum(lines[1:], before[:-1], out=lines[1:])
        np.maximum(lines[:-1], before[1:], out=lines[:-1])
        image = chosen
    return image


def _difference_to_neighbours(image: Array) -> Array:
    """The mean absolute difference between a slice and those below and above; 0 for a single slice."""
    padded = np.pad(image, ((1, 1), (0, 0), (0, 0)), mode="edge")
    return (np.abs(padded[2:] - image) + np.abs(padded[:-2] - image)) / 2


def _distance_to_background(image: Array) -> Array:
    """The distance to the nearest pixel of background within the slice, at most FAR, divided by FAR."""
    # Squares of whole pixels: along H to the nearest background, then along W to the nearest of those.
    shown = np.pad(image > BACKGROUND_BELOW, ((0, 0), (1, 1), (1, 1)))
    squares = np.where(shown, np.uint16(FAR**2), np.uint16(0))
    for axis in 1, 2:
        squares = _least_sum(squares, axis)
    return DISTANCES[squares[:, 1:-1, 1:-1]]


def _least_sum(squares: np.ndarray, axis: int) -> np.ndarray:
    """The least sum of a pixel's value along an axis and the squared distance to it, up to FAR pixels away."""
    least = np.copy(squares)
    lines = np.moveaxis(least, axis, 0)
    before = np.moveaxis(squares, axis, 0)
    for away in range(1, FAR):
        farther = before + np.uint16(away**2)
        np.minimum(lines[away:], farther[:-away], out=lines[away:])
        np.minimum(lines[:-away], farther[away:], out=lines[:-away])
    return least


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

    @property
    def features(self) -> int:
        """The number of features of a voxel."""
        return len(self.arrays["centre"])

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


def widths_shapes(method: str, features: int) -> dict[str, Shape]:
    """The shapes of the arrays of a network of widths with so many features."""
    settings = SETTINGS[method]
    lengths: dict[str, tuple[int, ...]] = {"centre": (features,), "spread": (features,)}
    lengths |= {"unit": (), "least": ()}
    sizes = (features, *settings.hidden, settings.outputs)
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        layer = 2 * number  # an activation stands between two layers
        lengths |= {f"{layer}.weight": (outputs, inputs), f"{layer}.bias": (outputs,)}
    return {
        name: Shape(shape, low=LOWEST.get(name, -LARGEST), high=LARGEST)
        for name, shape in lengths.items()
    }
