"""A calibration: what held-out patients show about the errors of a run's images, and the intervals of a new image."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from voxlate.formats.io import content_hash, is_there
from voxlate.scoring.metrics import LEVELS as PERCENTS
from voxlate.system.arrays import Bool, Float32
from voxlate.system.errors import BadInput
from voxlate.system.records import (
    MOST,
    Count,
    Name,
    NotNegative,
    Number,
    Positive,
    Share,
    ShortDigest,
    Text,
)
from voxlate.trust.conformal import WIDEST, Bound
from voxlate.trust.features import number_of_features, voxel_features
from voxlate.trust.out_of_distribution import ReferencePatches, number_of_patch_features
from voxlate.trust.widths import NARROWEST, SETTINGS, Widths

Array = Float32
IntervalMethod = Literal["learned", "difficulty", "quantiles", "sd", "constant"]

INTERVAL_METHODS: dict[IntervalMethod, str] = {
    "learned": "learned distances below and above",
    "difficulty": "learned mean size of the error, on both sides",
    "quantiles": "quantiles of the samples, widened",
    "sd": "standard deviation of the samples, times a factor",
    "constant": "the same everywhere",
}
SAMPLE_METHODS: tuple[IntervalMethod, ...] = ("quantiles", "sd")
LEVELS = tuple(percent / 100 for percent in PERCENTS)  # of the calibration curve
CoverageLevel = Annotated[float, Field(ge=0.5, lt=1)]
Scaling = Annotated[float, Field(ge=0, le=WIDEST)]
BODY = "body"
MEMORY = (
    ".memory"  # the beginning of the names of the reference patches' tensors, as of no modality
)


@dataclass(frozen=True)
class Prediction:
    """An image [D, H, W] in network units; of several samples also their standard deviation and two outer quantiles."""

    values: Array
    sd: Array | None = None
    low: Array | None = None
    high: Array | None = None

    def each(self, change: Callable[[Array], Array]) -> "Prediction":
        """The prediction after the same change of all its arrays."""
        return Prediction(
            change(self.values),
            None if self.sd is None else change(self.sd),
            None if self.low is None else change(self.low),
            None if self.high is None else change(self.high),
        )


@dataclass(frozen=True)
class Comparison:
    """The results of a method of intervals on the held-out patients, by cross-validation.

    width: mean in network units, inside the body; coverage by region: mean over patients, and its 95 % interval; least:
    the lowest coverage of the body in a patient.
    """

    scale: Scaling
    width: NotNegative
    coverage: dict[Name, tuple[Share, float, float]]
    least: Share


@dataclass(frozen=True)
class Target:
    """The intervals of a target: their method (`way`, as files call it), their scale for each coverage, and bounds.

    regions: rules by name; bounds: by region the largest ratio of a case's mean error to the mean half width, with
    `mae` for the body, inf for too few patients; ends: the limits of the truth, in network units.
    """

    way: IntervalMethod
    scales: dict[CoverageLevel, Scaling]
    compared: dict[IntervalMethod, Comparison]
    regions: dict[Name, Text]
    bounds: dict[Name, Annotated[float, Field(ge=0)]]
    ends: tuple[Number, Number]


@dataclass(frozen=True)
class Header:
    """The content of a calibration without its networks and reference patches.

    weights: hash of the weights file; synth: the synthesis options of the images; confidence: with which the share
    outside is below 1 - coverage, as `bound` counts; cases: content hashes of each case's files; split: of the cases;
    units, halves: of each target, with the size of one network unit in physical units.
    """

    weights: ShortDigest
    synth: dict[str, Any]
    coverage: CoverageLevel
    confidence: CoverageLevel
    bound: Bound
    patients: Annotated[int, Field(ge=2, le=MOST)]
    cases: dict[Name, dict[Text, Text]]
    split: Text | None
    seed: Count
    targets: dict[Name, Target]
    units: dict[Name, Text]
    halves: dict[Name, Positive]
    made_by: dict[Text, Text] = field(default_factory=dict)


@dataclass(frozen=True)
class Calibration:
    """A header, the networks of targets with a learned method, reference patches, and the hash of the file."""

    header: Header
    widths: Mapping[str, Widths]
    references: ReferencePatches
    hash: str = ""

    @property
    def stated(self) -> dict[str, Any]:
        """The entry of a provenance."""
        header = self.header
        return {
            "sha256": self.hash,
            "patients": header.patients,
            "coverage": header.coverage,
            "confidence": header.confidence,
            "bound": header.bound,
            "way": {name: INTERVAL_METHODS[target.way] for name, target in header.targets.items()},
            "levels": {
                name: relative_widths(target, header.coverage)
                for name, target in header.targets.items()
            },
        }

    @property
    def outer(self) -> float | None:
        """The share of samples outside the quantiles that the intervals need; None where they need no quantiles."""
        methods = [target.way for target in self.header.targets.values()]
        return 1 - self.header.coverage if "quantiles" in methods else None

    def learned_from(self, files: Mapping[str, str | Path]) -> bool:
        """Whether these scans, by their content, are those of a patient of the calibration."""
        paths = {name: Path(path) for name, path in files.items()}
        contents = {name: content_hash(path) for name, path in paths.items() if is_there(path)}
        if not contents:
            return False
        return any(contents.items() <= case.items() for case in self.header.cases.values())

    def check(
        self,
        units: Mapping[str, str],
        targets: Collection[str],
        sources: int,
        where: object,
    ) -> None:
        """Raise BadInput unless the calibration is of images of these targets from so many sources."""
        header = self.header
        features = number_of_features(sources, header.synth.get("samples", 1) != 1)
        patch_features = number_of_patch_features(sources)
        same = (
            header.targets.keys() == set(targets)
            and header.units == {name: units[name] for name in targets}
            and all(len(network.centre) == features for network in self.widths.values())
            and len(self.references.centre) == patch_features
        )
        if not same:
            raise BadInput(
                f"{where}: expected a calibration of {' and '.join(targets)} made of {sources} scans, found one of other images. Remove it, and calibrate again."
            )

    def interval(
        self,
        name: str,
        prediction: Prediction,
        sources: Sequence[Array],
    ) -> tuple[Array, Array]:
        """The prediction intervals [D, H, W] of a target's voxels in network units; they contain the image."""
        target = self.header.targets[name]
        below, above = distances(target.way, prediction, sources, self.widths.get(name))
        scale = np.float32(target.scales[self.header.coverage])
        return interval(prediction.values, scale * below, scale * above, target.ends)

    def bounds(
        self,
        name: str,
        low: Array,
        high: Array,
        regions: Mapping[str, Bool],
    ) -> dict[str, float]:
        """Upper bounds of the errors of a case in network units: of `mae`, and of the means of regions.

        regions: their masks in the image, [D, H, W]; empty regions have no bound.
        """
        half = (high - low) / 2
        bounds = {}
        for key, factor in self.header.targets[name].bounds.items():
            inside = regions.get(BODY if key == "mae" else key)
            if inside is not None and inside.any() and math.isfinite(factor):
                bounds[key] = float(half[inside].mean()) * factor
        return bounds


def relative_widths(target: Target, coverage: float) -> dict[str, float]:
    """The widths of intervals of other levels, relative to that of the coverage."""
    own = target.scales[coverage]
    return {
        f"{level:g}": round(scale / own, 5) for level, scale in target.scales.items() if own > 0
    }


def distances(
    method: IntervalMethod, prediction: Prediction, sources: Sequence[Array], widths: Widths | None
) -> tuple[Array, Array]:
    """The distances from an image to the ends of its intervals, below and above, before they are scaled."""
    values = prediction.values
    if method in SETTINGS:
        assert widths is not None
        return widths.predict(voxel_features(values, sources, prediction.sd))
    if method == "sd":
        assert prediction.sd is not None
        distance = prediction.sd + NARROWEST
        return distance, distance
    if method == "quantiles":
        assert prediction.low is not None
        assert prediction.high is not None
        below = np.maximum(values - prediction.low, 0)
        above = np.maximum(prediction.high - values, 0)
        return below + NARROWEST, above + NARROWEST
    ones = np.ones_like(values)
    return ones, ones


def interval(
    image: Array,
    below: Array,
    above: Array,
    ends: tuple[float, float],
) -> tuple[Array, Array]:
    """Intervals by their distances below and above an image, limited by the ends but for the image itself."""
    low = np.minimum(image, np.maximum(image - below, ends[0]))
    high = np.maximum(image, np.minimum(image + above, ends[1]))
    return low, high


def calibration_path(run: Path, answer: str, samples: int) -> Path:
    """RUN/calibration.<answer>.<samples>.safetensors."""
    return run / f"calibration.{answer}.{samples}.safetensors"
