"""What a synthesis needs to know of a model, as plain data: every run and every exported model holds these facts."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from voxlate.base.records import Count, Name, NotNegative, Number, Positive, Several, Share, Text
from voxlate.base.streams import SliceNoise
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import CANONICAL, PreparedCase, axis_of
from voxlate.scans.images.intensity import Intensity, Scale
from voxlate.scans.images.tiling import AnySlices

# Largest slice thickness, in training slices or pixels, at which a starter reads three planes.
CUBIC = 1.5
# At voxels and slices of 4 mm and more, 8 to 24 % of the brain's upper fifth became bone, with the whole interval in it.
THICK_MM = 3.9


@dataclass(frozen=True)
class SyntheticHeads:
    """The synthetic heads that a network was trained on: the share without a skull."""

    stripped: Share


@dataclass(frozen=True)
class DataFacts:
    """Which scans are read, and how, by the names of a recipe's data; steps, channels: of source channels.

    planes: the layouts whose images are averaged, the first of which is `axes`; none for one plane. heads: None for
    scans. frame: the margin in mm around the body's box, outside of which nothing is read; None: all is.
    """

    source: list[Name]
    target: list[Name]
    patch: tuple[int, int, int]
    axes: Name
    planes: list[Name]
    stack: int
    steps: list[int]
    channels: list[tuple[Name, int]]
    foreground: float
    lift: float
    centred: bool
    allow_missing: bool
    heads: SyntheticHeads | None = None
    frame: NotNegative | None = None

    @property
    def by_plane(self) -> tuple["DataFacts", ...]:
        """The data of each plane."""
        if not self.planes:
            return (self,)
        return tuple(replace(self, axes=axes, planes=[]) for axes in self.planes)

    @property
    def axis_lr(self) -> int:
        """The axis, from the end, that grows to the left or right."""
        return axis_of(self.axes, "LR")

    @property
    def sees_single_slices(self) -> bool:
        """Whether the network sees axial slices without their neighbours."""
        return self.patch[0] == 1 and self.stack == 0 and self.axes == CANONICAL


@dataclass(frozen=True)
class SynthFacts:
    """How patches are sampled and joined, by the names of a recipe's synth table; in_windows: of slices, in the network."""

    samples: Several
    sharpness: Share
    batch: Several
    exact: bool
    overlap: float
    slices: AnySlices
    noise: SliceNoise
    peaks: bool
    peak_shares: dict[Name, float]
    in_windows: bool = False
    keep_states: Count = 0


@dataclass(frozen=True)
class ModelFacts:
    """All that the images of a model depend on beside its network, and what its messages state.

    options: the keys of synth that decide the images, as provenance states them; completes: the missing ones of a
    case's modalities are synthesised; is_stochastic, shows_doubt, makes_targets, trained_steps: of the method; multiple:
    of which height and width are best. units, target_scales (the ends of network units in physical units) and what
    follows: of the training. accepts: for modalities, the names of scans that they stand for. was_calibrated: before an
    adaptation; worse: verdicts on targets that are worse than a naive baseline. seen_voxels, splits (by case) and of_fold stay on the machine of the training.
    """

    title: Text
    weights_hash: Text
    steps: Count
    data: DataFacts
    intensity: dict[Name, Intensity]
    synth: SynthFacts
    options: dict[str, Any]
    completes: bool
    is_stochastic: bool
    shows_doubt: bool
    makes_targets: bool
    trained_steps: list[int]
    needs_mask: bool
    ignores_outside: bool
    multiple: Several
    units: dict[Name, Text]
    target_scales: dict[Name, tuple[Number, Number]]
    target_widths: dict[Name, tuple[NotNegative, NotNegative]]
    preparation: Preparation
    training_ranges: dict[Name, dict[Text, list[Number]]]
    training_spacing_mm: tuple[Positive, Positive, Positive] | None
    training_ml: NotNegative
    bound: dict[Name, NotNegative]
    accepts: dict[Name, list[Name]]
    starter: dict[Text, Any] | None
    imported: bool
    was_calibrated: bool
    worse: dict[Name, Text] = field(default_factory=dict)
    seen_voxels: list[Text] = field(default_factory=list)
    splits: dict[Name, Text] = field(default_factory=dict)
    of_fold: bool = False

    @property
    def answer(self) -> Literal["mean", "sample"]:
        """Whether an image is a prediction of the mean, or made of samples."""
        return "sample" if self.is_stochastic else "mean"

    @property
    def scales(self) -> dict[str, Scale]:
        """From network units to physical units, by target."""
        return {name: Scale(*self.target_scales[name]) for name in self.data.target}

    def targets_for(self, scans: Collection[str]) -> list[str]:
        """The modalities to synthesise for a case with these scans: the targets; of a completion, the missing ones."""
        return [name for name in self.data.target if not (self.completes and name in scans)]

    def visible_sources(self, prepared: PreparedCase) -> list[str]:
        """The sources that a case has, and that show something."""
        return [name for name in self.data.source if name in prepared.header.visible]

    def fills_crown(self, prepared: PreparedCase, target: str) -> bool:
        """Whether slices are too thick for a starter of whole heads to tell the crown's bone from its brain."""
        heads = self.data.heads
        whole = self.starter is not None and heads is not None and heads.stripped < 1
        return (
            whole and self.units.get(target) == "HU" and prepared.header.spacing_mm[0] >= THICK_MM
        )
