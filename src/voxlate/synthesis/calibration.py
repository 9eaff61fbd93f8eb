"""A calibration: what held-out patients show about the errors of a run's images, and the intervals of a new image.

Features of a voxel predict by small networks, which compute in NumPy, how large the error is there;
evaluation/intervals/width_training.py trains them.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import Field
from scipy import ndimage

from voxlate.base.array_types import Bool, Float32
from voxlate.base.errors import plural
from voxlate.base.messages import Message
from voxlate.base.records import (
    MOST_NUMBER,
    Count,
    Name,
    NotNegative,
    Number,
    Positive,
    Several,
    Share,
    ShortDigest,
    Text,
    Widening,
)
from voxlate.scans.formats.io import content_hash, is_there
from voxlate.scans.images.regions import BODY
from voxlate.synthesis.facts import ModelFacts

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
            for smoothed in (of_part, _blur(of_part, NARROW), _blur(of_part, WIDE)):
                features.append(np.log(np.maximum(smoothed, LEAST_SD)))
        yield planes, np.moveaxis(np.stack(features).astype(np.float32, copy=False), 0, -1)


def _image_features(image: Array) -> list[Array]:
    """Value, blurs, gradients at two scales, and the range of the neighbourhood."""
    narrow = _blur(image, NARROW)
    wide = _blur(image, WIDE)
    span = _largest(image) + _largest(-image)
    return [image, narrow, wide, _gradient(narrow), _gradient(wide), span]


def _blur(image: Array, width: float) -> Array:
    """Each slice of [D, H, W] blurred; width: standard deviation in pixels. Slices may be thick, and there may be only one."""
    return ndimage.gaussian_filter(image, (0, width, width), truncate=3, mode="nearest")


def _gradient(image: Array) -> Array:
    """The size of the gradient within slices of [D, H, W]."""
    down, across = np.gradient(image, axis=(1, 2))
    return np.hypot(down, across)


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


Answer = Literal["mean", "sample"]
IntervalMethod = Literal["learned", "difficulty"]
Bound = Literal["none", "normal", "any"]

BLEND = 0.04  # of the range of 2: how far beside a border of groups factors change, 60 HU of 3000
WIDEST = 1e4  # the largest factor by which an interval is widened

COVERAGE_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of the calibration curve
CoverageLevel = Annotated[float, Field(ge=0.5, lt=1)]
FEWEST_VOXELS = 100  # of a region of which an expected error is stated
Scaling = Annotated[float, Field(ge=0, le=WIDEST)]


@dataclass(frozen=True)
class Prediction:
    """An image [D, H, W] in network units, the standard deviation of several samples, and states of the last one."""

    values: Array
    sd: Array | None = None
    states: tuple[Array, ...] = ()

    def map(self, change: Callable[[Array], Array]) -> "Prediction":
        """The prediction after the same change of its arrays."""
        sd = None if self.sd is None else change(self.sd)
        return Prediction(change(self.values), sd, tuple(map(change, self.states)))


def with_spread(prediction: Prediction) -> Prediction:
    """The prediction with a standard deviation of 0 where it has none, which tells networks of widths that it is of one plane."""
    if prediction.sd is not None:
        return prediction
    return replace(prediction, sd=np.zeros_like(prediction.values))


@dataclass(frozen=True)
class MethodResult:
    """The results of intervals on the held-out patients, by cross-validation.

    width: mean in network units, inside the body; coverage by region: mean over patients, and its 95 % interval; least:
    the lowest coverage of the body in a patient.
    """

    scale: Scaling
    width: NotNegative
    coverage: dict[Name, tuple[Share, float, float]]
    least: Share


@dataclass(frozen=True)
class Target:
    """The intervals of a target: their method, and the scale of their distances for each coverage.

    method: `learned` quantiles of the error, or the root of its mean size, `difficulty`; compared: the results of this
    method, in version 0.7 of others, too; regions: the rule of each region by its name; bounds: as `mae` an upper bound of
    the ratio of a case's mean error to its mean half width, inf where there are too few patients for one. ends: the
    smallest and the largest value of a truth, in network units. borders: the image values in network units that
    separate the groups of voxels (tissues), ascending; factors: the factor of each group's distances. shifted: whether
    the part of an interval beyond an end is added on its other side (see `interval`).
    """

    method: IntervalMethod
    scales: dict[CoverageLevel, Scaling]
    compared: dict[Name, MethodResult]
    regions: dict[Name, Text]
    bounds: dict[Name, Annotated[float, Field(ge=0)]]
    ends: tuple[Number, Number]
    borders: tuple[Number, ...] = ()
    factors: tuple[Scaling, ...] = (1.0,)
    shifted: bool = False


@dataclass(frozen=True)
class Header:
    """The content of a calibration without its networks.

    weights: hash of the weights file; synth: the synthesis options of the images; confidence: with which the share
    outside is below 1 - coverage, as `bound` counts; cases: content hashes of each case's files; split: of the cases;
    units, halves: of each target, with the size of one network unit in physical units; widened: by target, where
    `patients` counts synthetic heads instead; planes: the numbers of planes in which cases were read, of a model of
    several planes.
    """

    weights: ShortDigest
    synth: dict[str, Any]
    coverage: CoverageLevel
    confidence: CoverageLevel
    bound: Bound
    patients: Annotated[int, Field(ge=2, le=MOST_NUMBER)]
    cases: dict[Name, dict[Text, Text]]
    split: Text | None
    seed: Count
    targets: dict[Name, Target]
    units: dict[Name, Text]
    halves: dict[Name, Positive]
    made_by: dict[Text, Text] = field(default_factory=dict)
    widened: dict[Name, Widening] | None = None
    planes: tuple[Several, ...] = ()

    def factor(self, target: str) -> float:
        """The factor by which all intervals of a target are widened; 1 for those of patients."""
        widened = None if self.widened is None else self.widened[target]
        return 1.0 if widened is None or widened.get("soft") else widened["factor"]


@dataclass(frozen=True)
class Calibration:
    """A header, the networks of the targets, and the hash of the file."""

    header: Header
    widths: Mapping[str, Widths]
    hash: str = ""

    @property
    def entry(self) -> dict[str, Any]:
        """The entry of a provenance."""
        header = self.header
        widened = {} if header.widened is None else {"widened": header.widened}
        return {
            "sha256": self.hash,
            **widened,
            "held": {name: coverage_by_tissue(target) for name, target in header.targets.items()},
            "patients": header.patients,
            "coverage": header.coverage,
            "confidence": header.confidence,
            "bound": header.bound,
        }

    def find(self, facts: ModelFacts) -> "Calibration":
        """Itself: an exported model's was checked when it was exported."""
        return self

    def messages(self, facts: ModelFacts) -> list[Message]:
        """No message."""
        return []

    def has_case(self, files: Mapping[str, str | Path]) -> bool:
        """Whether these scans, by their content, are those of a case of the calibration."""
        paths = {name: Path(path) for name, path in files.items()}
        contents = {name: content_hash(path) for name, path in paths.items() if is_there(path)}
        cases = self.header.cases.values() if contents else ()
        return any(contents.items() <= case.items() for case in cases)

    def interval(
        self, name: str, prediction: Prediction, sources: Sequence[Array]
    ) -> tuple[Array, Array]:
        """The ends of the intervals [D, H, W] of a target's voxels in network units; the image lies between them."""
        target = self.header.targets[name]
        shown = with_spread(prediction) if self.header.planes else prediction
        distances = np.empty((2, *shown.values.shape), np.float32)
        for planes, features in features_in_slabs(shown.values, sources, shown.sd):
            distances[:, planes] = self.widths[name].predict(features)
        scale = np.float32(target.scales[self.header.coverage] * self.header.factor(name))
        scales = scale * group_factors(prediction.values, target.borders, target.factors)
        return interval(prediction.values, scales * distances, target.ends, target.shifted)

    def mae_bound(self, name: str, low: Array, high: Array, body: Bool) -> float:
        """An upper bound of a case's mean absolute error in the body [D, H, W] of its image, in network units; inf for none."""
        factor = self.header.targets[name].bounds.get("mae", math.inf)
        return float(((high - low) / 2)[body].mean()) * factor if body.any() else math.inf

    def expected(self, name: str, half: Array, regions: Mapping[str, Bool]) -> dict[str, float]:
        """The mean errors in regions that the intervals of an image let expect, in the unit of their half widths [D, H, W].

        regions: their masks; {} where the calibration has too few levels of coverage.
        """
        scales = self.header.targets[name].scales
        own = scales[self.header.coverage]
        factor = mean_error({level: round(of / own, 5) for level, of in scales.items() if own > 0})
        return {
            key: float(f"{factor * half[inside].mean():.2g}")
            for key, inside in regions.items()
            if factor and inside.sum() >= FEWEST_VOXELS
        }


@runtime_checkable  # as checks of options need it
class Calibrations(Protocol):
    """Where the calibration of a model's images is looked for."""

    def find(self, facts: ModelFacts) -> Calibration | None:
        """The calibration of images by these facts; raises BadInput where it belongs to other images."""
        ...

    def messages(self, facts: ModelFacts) -> list[Message]:
        """A message where there is only one of other images."""
        ...


def coverage_by_tissue(target: Target) -> dict[str, float]:
    """The mean coverage of the tissues that the truths of a calibration show, by name; none in an exported model."""
    compared = target.compared.get(target.method)
    shown = {} if compared is None else compared.coverage
    return {name: round(shares[0], 3) for name, shares in shown.items() if name != BODY}


def group_factors(image: Array, borders: Sequence[float], factors: Sequence[float]) -> Array:
    """The factor of each voxel's group, by the image's values […]; one factor more than borders.

    Around a border it goes from one to the other, so that roundings of an image do not move its intervals.
    """
    if not borders:
        return np.full(image.shape, factors[0], np.float32)
    reach = min([BLEND, *(np.diff(borders) / 2)])
    ends = [border + side for border in borders for side in (-reach, reach)]
    of_ends = [factor for pair in pairwise(factors) for factor in pair]
    return np.interp(image, ends, of_ends).astype(np.float32)


def interval(
    image: Array, distances: Array, ends: tuple[float, float], shifted: bool = False
) -> tuple[Array, Array]:
    """Intervals by their distances [2, …] below and above an image […], limited by the ends but for the image itself.

    shifted: each distance is longer by what an end cuts off the other one. The width of intervals of equal distances then
    grows with them up to the whole range, wherever the image is in it.
    """
    below, above = distances
    if shifted:
        rooms = np.stack([image - ends[0], ends[1] - image]).clip(0)
        below, above = distances + (distances - rooms).clip(0)[::-1]
    low = np.minimum(image, np.maximum(image - below, ends[0]))
    high = np.maximum(image, np.minimum(image + above, ends[1]))
    return low, high


def mean_error(widths: Mapping[float, float]) -> float:
    """The mean absolute error in half widths of an interval, by the relative widths of several levels of coverage.

    It is the integral of the error's quantiles, which are these widths: linear between the levels, and exponential beyond
    the highest. 0 for fewer than two levels.
    """
    if len(widths) < 2:
        return 0.0
    levels, quantiles = np.array([(0.0, 0.0), *sorted(widths.items())]).T
    before, last = quantiles[-2:]
    low, high = levels[-2:]
    fall = (last - before) / np.log((1 - low) / (1 - high))  # the mean of an exponential tail
    inside = np.diff(levels) @ (quantiles[1:] + quantiles[:-1]) / 2
    return float(inside + (1 - high) * (last + fall))


def describe_fit(calibration: Mapping[str, Any]) -> str:
    """A clause on the patients or synthetic heads of a calibration, with the coverage of each tissue and where it was measured.

    calibration: its entry in a provenance.
    """
    held: Mapping[str, Mapping[str, float]] = calibration.get("held", {})
    shares = [
        f"{share:.0%} of {tissue.replace('_', ' ')}"
        for of_target in held.values()
        for tissue, share in of_target.items()
    ]
    widened: Mapping[str, Mapping[str, Any]] = calibration.get("widened", {})
    heads = plural(calibration["patients"], "synthetic head" if widened else "held-out patient")
    where = f", where they contain {', '.join(shares)}" if shares else ""
    measured = [f"; measured on {by['heads']} real heads" for by in widened.values()]
    return f"fitted on {heads}{where}{''.join(measured[:1])}"
