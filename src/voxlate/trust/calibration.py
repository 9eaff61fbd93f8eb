"""What held-back patients taught about a run's images: a file in the run, and what it says of a new image."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from voxlate.errors import BadInput
from voxlate.images.io import content_hash, is_there
from voxlate.records import MOST, Count, Name, NotNegative, Number, Positive, Share, ShortDigest, Text
from voxlate.scoring.metrics import LEVELS as PERCENTS
from voxlate.trust.conformal import WIDEST, Bound
from voxlate.trust.features import number_of_features, voxel_features
from voxlate.trust.out_of_distribution import ReferencePatches, number_of_patch_features
from voxlate.trust.widths import LESSONS, NARROWEST, Widths

Array = NDArray[np.float32]
Way = Literal["learned", "difficulty", "quantiles", "sd", "constant"]

WAYS: dict[Way, str] = {
    "learned": "learned distances below and above",
    "difficulty": "learned mean size of the error, on both sides",
    "quantiles": "quantiles of the samples, widened",
    "sd": "standard deviation of the samples, times a factor",
    "constant": "the same everywhere",
}
OF_SAMPLES: tuple[Way, ...] = ("quantiles", "sd")
LEVELS = tuple(percent / 100 for percent in PERCENTS)  # of the calibration curve
CoverageLevel = Annotated[float, Field(ge=0.5, lt=1)]
Scaling = Annotated[float, Field(ge=0, le=WIDEST)]
BODY = "body"
MEMORY = ".memory"  # before the names of its tensors, as no modality begins


@dataclass(frozen=True)
class Prediction:
    """An image [D, H, W] in network units; of several samples their standard deviation and two outer quantiles, too."""

    values: Array
    sd: Array | None = None
    low: Array | None = None
    high: Array | None = None

    def each(self, change: Callable[[Array], Array]) -> "Prediction":
        """The same change of all that is there."""
        others = (None if one is None else change(one) for one in (self.sd, self.low, self.high))
        return Prediction(change(self.values), *others)


@dataclass(frozen=True)
class Compared:
    """How a way of intervals did on the held-back patients, each left out of what was fitted.

    width: mean in network units, inside the body; coverage by region: mean over patients, and its 95 % interval; least:
    the body's coverage of the patient who has least.
    """

    scale: Scaling
    width: NotNegative
    coverage: dict[Name, tuple[Share, float, float]]
    least: Share


@dataclass(frozen=True)
class Target:
    """Of a target: the way its intervals are made, how they are scaled for each level of coverage, and bounds.

    regions: rules by name; bounds: by region how often its mean half width the mean error of a case may be, at most;
    `mae` that of the body. inf: too few patients. ends: beyond which no truth can lie, in network units.
    """

    way: Way
    scales: dict[CoverageLevel, Scaling]
    compared: dict[Way, Compared]
    regions: dict[Name, Text]
    bounds: dict[Name, Annotated[float, Field(ge=0)]]
    ends: tuple[Number, Number]


@dataclass(frozen=True)
class Header:
    """What a calibration holds in addition to its networks.

    units, halves: of each target, with half the width of its scale: what 1 of network units is in physical ones.
    weights: hash of those that it is of; synth: how the images were drawn; cases: content of each one's files; splits:
    which split they were of; confidence: with which the share outside is below 1 - coverage, as `bound` counts.
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
    """A header, the networks of targets whose way is learned, what known scans show, and the hash of its file."""

    header: Header
    widths: Mapping[str, Widths]
    memory: ReferencePatches
    hash: str = ""

    @property
    def stated(self) -> dict[str, Any]:
        """What a provenance says of it."""
        header = self.header
        return {
            "sha256": self.hash,
            **{key: getattr(header, key) for key in ("patients", "coverage", "confidence", "bound")},
            "way": {name: WAYS[one.way] for name, one in header.targets.items()},
            "levels": {name: relative(one, header.coverage) for name, one in header.targets.items()},
        }

    @property
    def outer(self) -> float | None:
        """The share of samples outside the quantiles that intervals are made of; None where they need none."""
        quantiles = any(one.way == "quantiles" for one in self.header.targets.values())
        return 1 - self.header.coverage if quantiles else None

    def learned_from(self, files: Mapping[str, str | Path]) -> bool:
        """Whether these scans are those of a patient that it was learned from, by their content."""
        given = {name: content_hash(Path(path)) for name, path in files.items() if is_there(Path(path))}
        return bool(given) and any(given.items() <= known.items() for known in self.header.cases.values())

    def check(self, units: Mapping[str, str], targets: Collection[str], sources: int, where: object) -> None:
        """Raise BadInput unless it is of images of these targets, made of so many sources."""
        header, sampled = self.header, self.header.synth.get("samples", 1) != 1
        features, patches = number_of_features(sources, sampled), number_of_patch_features(sources)
        same = header.targets.keys() == set(targets) and header.units == {name: units[name] for name in targets}
        same &= all(len(one.centre) == features for one in self.widths.values()) and len(self.memory.centre) == patches
        if not same:
            raise BadInput(
                f"{where}: expected a calibration of {' and '.join(targets)} made of {sources} scans, found one of "
                "other images. Remove it, and calibrate again."
            )

    def interval(self, name: str, prediction: Prediction, sources: Sequence[Array]) -> tuple[Array, Array]:
        """Between which values [D, H, W] the truth of a target's voxels lies, in network units; they hold the image."""
        target = self.header.targets[name]
        below, above = distances(target.way, prediction, sources, self.widths.get(name))
        scale = np.float32(target.scales[self.header.coverage])
        return interval(prediction.values, scale * below, scale * above, target.ends)

    def bounds(self, name: str, low: Array, high: Array, parts: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
        """What the errors of a case are at most, in network units: `mae`, and the errors of regions' means.

        parts: where regions lie in the made image, [D, H, W]; those that are empty have none.
        """
        half, found = (high - low) / 2, {}
        for key, factor in self.header.targets[name].bounds.items():
            inside = parts.get(BODY if key == "mae" else key)
            if inside is not None and inside.any() and math.isfinite(factor):
                found[key] = float(half[inside].mean()) * factor
        return found


def relative(target: Target, coverage: float) -> dict[str, float]:
    """How wide intervals of other levels are, over that of the coverage."""
    own = target.scales[coverage]
    return {f"{level:g}": round(scale / own, 5) for level, scale in target.scales.items() if own > 0}


def distances(way: Way, prediction: Prediction, sources: Sequence[Array], widths: Widths | None) -> tuple[Array, Array]:
    """How far truth may lie below and above an image, before it is scaled."""
    if way in LESSONS:
        assert widths is not None
        return widths.predict(voxel_features(prediction.values, sources, prediction.sd))
    if way == "sd":
        assert prediction.sd is not None
        return prediction.sd + NARROWEST, prediction.sd + NARROWEST
    if way == "quantiles":
        assert prediction.low is not None
        assert prediction.high is not None
        return np.maximum(prediction.values - prediction.low, 0) + NARROWEST, np.maximum(
            prediction.high - prediction.values, 0
        ) + NARROWEST
    return np.ones_like(prediction.values), np.ones_like(prediction.values)


def interval(made: Array, below: Array, above: Array, ends: tuple[float, float]) -> tuple[Array, Array]:
    """From so far below an image to so far above it, not beyond the ends, but for the image itself."""
    return np.minimum(made, np.maximum(made - below, ends[0])), np.maximum(made, np.minimum(made + above, ends[1]))


def calibration_path(run: Path, answer: str, samples: int) -> Path:
    """RUN/calibration.<answer>.<samples>.safetensors."""
    return run / f"calibration.{answer}.{samples}.safetensors"
