"""What a training reads of a prepared cohort: which modalities and patches, of which cases, slices and scans."""

import dataclasses
import json
from dataclasses import field, replace
from itertools import chain, combinations, product
from pathlib import Path
from typing import Annotated, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from voxlate.base.config import Provided, setting, settings
from voxlate.base.errors import BadInput, first_of
from voxlate.scans.cases.case import CANONICAL, PROTONS, Axes, ContrastSettings, axis_of, open_case
from voxlate.scans.cases.prepared import Cohort, case_path
from voxlate.scans.formats.format import KeptByFile
from voxlate.synthesis.facts import DataFacts, SyntheticHeads
from voxlate.training.batches.augment import AugmentSettings

IN_PLANE = (1, 2)  # axes of a volume


@settings
class SliceFilter:
    """Slices to keep: where the bright parts of the named modalities overlap and are large enough."""

    above: Annotated[
        dict[str, float | Literal["mean"]],
        setting(
            "modality = value in its unit above which it is bright, or 'mean', its volume's",
            min_length=1,
        ),
    ]
    overlap: Annotated[
        float,
        setting("least Dice overlap of the bright parts, for each pair of modalities", ge=0, le=1),
    ] = 0.0
    pixels: Annotated[int, setting("least pixels of each bright part", ge=0)] = 0

    def __post_init__(self) -> None:
        if self.overlap > 0 and len(self.above) < 2:
            raise BadInput(
                f"data.slices.above: expected two modalities or more for an overlap, found {', '.join(self.above)}. Name another one, or leave out data.slices.overlap."
            )


@settings
class DataSettings:
    """Which modalities are read, and in which patches."""

    source: Annotated[list[str], setting("input modalities of the model", min_length=1)]
    target: Annotated[list[str], setting("modalities that the model synthesises", min_length=1)]
    patch: Annotated[
        tuple[int, int, int],
        setting("size of a patch in voxels, D, H, W; a slice has D = 1"),
    ] = (1, 256, 256)
    axes: Annotated[
        Axes,
        setting(
            "directions in which slices, rows and columns grow; SLP are slices of arrays stored as LPS, [:, :, k], as paper 001 reads them: rows to the left, columns to the back"
        ),
    ] = CANONICAL
    stack: Annotated[
        int, setting("neighbouring slices on each side as more source channels", ge=0)
    ] = 0
    planes: Annotated[
        Literal["", "all"],
        setting(
            "'all': slices of all three planes, not of that of data.axes alone; a training takes a batch of each in turn, and a synthesised volume is the mean of three (in HU half the mean and half the median), at 3 times the cost; for patches of one slice of nearly cubic voxels"
        ),
    ] = ""
    foreground: Annotated[
        float,
        setting(
            "least share of a patch that the body must cover; emptier ones are skipped", ge=0, lt=1
        ),
    ] = 0.0
    lift: Annotated[
        float,
        setting(
            "least value of a source inside the body, as a share of its range, so that tissue as dark as the surroundings is told from them",
            ge=0,
            lt=1,
        ),
    ] = 0.0
    slices: Annotated[
        SliceFilter | None,
        setting("keep only slices whose bright parts overlap; unset: all"),
    ] = None
    frame: Annotated[
        float | None,
        setting(
            "margin in mm around the body's box, outside of which nothing is read: the air of a file changes no image; patches lie around the middle of the box; unset: all is read",
            ge=0,
        ),
    ] = None
    centred: Annotated[
        bool,
        setting(
            "whether columns are cropped or padded by the same number on the left and on the right, so that the mid-plane stays in the middle column"
        ),
    ] = False
    allow_missing: Annotated[
        bool,
        setting("keep cases with some source and some target (channels of others are background)"),
    ] = False
    apart: Annotated[
        bool,
        setting(
            "take cases with sources or with targets alone, too: for a method that needs no pairs"
        ),
    ] = False
    labels: Annotated[
        list[str], setting("label maps that are read in addition: of lesions, say")
    ] = field(default_factory=list)
    weigh: Annotated[
        dict[str, Annotated[float, Field(gt=0)]],
        setting(
            "how often voxels that a label map marks count in training's loss: { lesion = 10 }, or of one value { 'seg=13' = 5 }; where several do, their product"
        ),
    ] = field(default_factory=dict)
    physics: Annotated[
        Annotated[ContrastSettings, Provided("data.physics")] | None,
        setting(
            "draw MR modalities from a phantom's tissue-parameter maps, a sequence for each item; unset: scans as they are"
        ),
    ] = None
    level: Annotated[
        bool,
        setting(
            "whether training and validation move the grey level of soft tissue in each patient's targets to that of the median training patient: for pictures of CT, of which each may show another window"
        ),
    ] = False
    augment: Annotated[AugmentSettings, setting("random changes in training")] = field(
        default_factory=AugmentSettings
    )

    @property
    def channels(self) -> list[tuple[str, int]]:
        """Modality and slice offset of each source channel: the slice itself, then below, above, two below, …"""
        return [(name, step) for step, name in product(self.steps, self.source)]

    @property
    def steps(self) -> list[int]:
        """The slice offsets of the source channels, the nearest first."""
        return sorted(range(-self.stack, self.stack + 1), key=abs)

    @property
    def modalities(self) -> list[str]:
        """The sources and targets, each once."""
        return list(dict.fromkeys([*self.source, *self.target]))

    @property
    def source_names(self) -> tuple[str, ...]:
        """A name for each source channel: "t1", and with `stack` "t1[-1]", "t1[+1]", …"""
        return tuple(f"{name}[{step:+d}]" if step else name for name, step in self.channels)

    @property
    def by_plane(self) -> tuple["DataSettings", ...]:
        """The settings of each plane: that of data.axes, and with `planes` those whose slices grow along its rows and columns."""
        if not self.planes:
            return (self,)
        d, h, w = self.axes
        layouts = (self.axes, f"{h}{d}{w}", f"{w}{d}{h}")
        # recipes have axes whose slices grow upward alone, so that these layouts are not of the type Axes
        return tuple(replace(self, axes=cast(Axes, axes), planes="") for axes in layouts)

    @property
    def facts(self) -> DataFacts:
        """Which scans are read, and how, as a synthesis knows it."""
        names = {field.name for field in dataclasses.fields(DataFacts)} - {"planes", "heads"}
        planes: list[str] = [plane.axes for plane in self.by_plane] if self.planes else []
        heads = None if self.physics is None else SyntheticHeads(self.physics.stripped)
        own = {name: getattr(self, name) for name in names}
        return DataFacts(planes=planes, heads=heads, **own)

    @property
    def axis_lr(self) -> int:
        """The axis, from the end, that grows to the left or right."""
        return axis_of(self.axes, "LR")

    def weight(self, labels: Tensor | None) -> Tensor | None:
        """How often voxels count in the loss, [B, 1, D, H, W], by label maps [B, K, D, H, W]; None: all once."""
        if labels is None or not self.weigh:
            return None
        weight = torch.ones_like(labels[:, :1])
        for key, times in self.weigh.items():
            name, _, value = key.partition("=")
            values = labels[:, self.labels.index(name)][:, None]
            marked = values == float(value) if value else values > 0
            weight = torch.where(marked, times * weight, weight)
        return weight

    def __post_init__(self) -> None:
        moving = self.augment.off_centre
        plane = [key for key in ("slices", "centred", "apart") if getattr(self, key)]
        no_left = self.centred and self.axis_lr != -1
        thick = self.planes and self.patch[0] > 1
        no_pairs = self.level and (self.apart or {*self.source} & {*self.target})
        once = "each modality once"
        for key, wrong, expected in (
            ("patch", min(self.patch) < 1, "three sizes of at least 1 voxel"),
            ("source", len({*self.source}) < len(self.source), once),
            ("target", len({*self.target}) < len(self.target), once),
            ("axes", no_left, "columns to the right or left (…R or …L) with data.centred"),
            ("frame", self.centred and self.frame is not None, "none with data.centred"),
            ("augment", self.centred and moving, f"none of {moving} with data.centred"),
            ("level", no_pairs, "pairs of sources and other modalities"),
            ("planes", thick, "one plane of patches of several slices"),
            ("planes", self.planes and plane, f"one plane with data.{', data.'.join(plane)}"),
        ):
            if wrong:
                raise BadInput(
                    f"data.{key}: expected {expected}, found {getattr(self, key)!s:.60}. Change one."
                )
        for key, times in self.weigh.items():
            name, equals, value = key.partition("=")
            known = name in self.labels and (not equals or value.isdecimal())
            if not known:
                raise BadInput(
                    f"data.weigh: expected a label map of data.labels ({', '.join(self.labels) or 'none'}) or NAME=NUMBER, found {key!r} = {times:g}. Change it, or add --set 'data.labels=[\"{name}\"]'."
                )


def usable_cases(cohort: Cohort, data: DataSettings, split: str) -> list[str]:
    """The cases of a split that have the modalities of the settings.

    With data.apart, the sources suffice. Raises BadInput where the cohort has no case with some modality, or the split
    no usable case.
    """
    _check_names(cohort, data)
    lacking = missing_modalities(cohort, data, split)
    usable = [case for case in cohort.splits[split] if case not in lacking]
    if not usable:
        wanted, without = ", ".join(data.modalities), first_of(list(lacking))
        raise BadInput(
            f"{cohort.folder}: expected a case with {wanted} in the split {split}, found none: each of its {len(lacking)} cases lacks one ({without or 'none'}). Prepare the cohort with other shares, or choose other modalities."
        )
    return usable


def _check_names(cohort: Cohort, data: DataSettings) -> None:
    """Raise BadInput where the cohort has no case with some modality or label map of the settings."""
    labels = set(chain.from_iterable(case.labels for case in cohort.cases))
    advice = "Choose a recipe for these (voxlate recipes), or change data.source and data.target."
    if data.physics is None and PROTONS in cohort.modalities:
        advice = "Draw them from the tissue-parameter maps with a [data.physics] table."
    for what, wanted, known, what_to_do in (
        ("label maps", data.labels, sorted(labels), "Change data.labels."),
        ("modalities", data.modalities, cohort.modalities, advice),
    ):
        if unknown := [name for name in wanted if name not in known]:
            raise BadInput(
                f"{cohort.folder}: expected the recipe's {what} {', '.join(wanted)}, found {', '.join(known) or 'none'} in the cohort (no {', '.join(unknown)}). {what_to_do}"
            )


def intensity_key(name: str) -> str:
    """The change of a recipe that gives a modality an intensity map."""
    return f"--set 'intensity.{name}={{kind=\"percentile\"}}'"


def missing_modalities(cohort: Cohort, data: DataSettings, split: str) -> dict[str, list[str]]:
    """The cases of a split that the settings cannot use, with the modalities that each lacks."""
    lacking = {}
    sides = [data.source] if data.apart else [data.source, data.target]
    for entry in cohort.cases:
        if entry.split != split:
            continue
        absent = dict[str, None]()
        for names in sides:
            if not (data.allow_missing and {*names} & {*entry.present}):
                absent |= dict.fromkeys(name for name in names if name not in entry.present)
        if absent:
            lacking[entry.case] = list(absent)
    return lacking


def training_cases(cohort: Cohort, data: DataSettings) -> list[str]:
    """The cases that a training uses: the usable ones; with data.apart all, since each side has cases of its own."""
    return cohort.splits["train"] if data.apart else usable_cases(cohort, data, "train")


def select_slices(cohort: Cohort, chosen: SliceFilter, cases: list[str]) -> dict[str, np.ndarray]:
    """Which slices of each case pass a filter, bool [D]; each process reads a case once."""
    rule = json.dumps(dataclasses.asdict(chosen))
    return {case: _selected(case_path(cohort.folder, case), rule) for case in cases}


def _select(path: Path, rule: str) -> np.ndarray:
    """The slices of a case file that a rule keeps.

    Constant slices are left out, and modalities that the case lacks are ignored.
    """
    case, chosen = open_case(path), SliceFilter(**json.loads(rule))
    kept = np.ones(case.header.shape[0], bool)
    bright = dict[str, np.ndarray]()
    area = dict[str, np.ndarray]()
    for name, limit in chosen.above.items():
        if name not in case.header.units:
            continue
        image = case.arrays[name]
        kept &= image.min(IN_PLANE) != image.max(IN_PLANE)
        bright[name] = image > (float(image.mean(dtype=np.float64)) if limit == "mean" else limit)
        area[name] = bright[name].sum(IN_PLANE)
        kept &= area[name] >= chosen.pixels
    for a, b in combinations(bright, 2):
        both = (bright[a] & bright[b]).sum(IN_PLANE)
        kept &= 2 * both >= chosen.overlap * (area[a] + area[b])
    return kept


_selected = KeptByFile(_select)
