"""The items of a prepared cohort, slices or patches, and the one function that reads them in network units."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from itertools import chain, product
from typing import Annotated, Literal, cast

import numpy as np
import torch
from torch import Tensor

from voxlate.base.config import Provided, setting, settings
from voxlate.base.errors import BadInput
from voxlate.base.items import stable_id
from voxlate.scans.cases.case import (
    CANONICAL,
    LABEL,
    MASK,
    PROTONS,
    Axes,
    CaseHeader,
    ContrastSettings,
    PreparedCase,
    axis_of,
    lay_out,
)
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.images.intensity import IntensityMap
from voxlate.scans.images.tiling import Triple
from voxlate.science.batch import Batch
from voxlate.synthesis.patch import Patch, overlap, readable
from voxlate.training.batches.augment import AugmentSettings
from voxlate.training.batches.slice_filter import SliceFilter

IntensityMaps = Mapping[str, IntensityMap]  # by modality

COMPLETE_GAPS = "; a completion learns from cases with gaps by --set task.incomplete=true --set data.allow_missing=true"
FILLED = 0.6  # share of a patch that the largest slice fills, below which a message states it
NO_LABEL = -1  # in place of a label map that a case lacks


@settings
class DataSettings:
    """Which modalities are read, and in which patches."""

    source: Annotated[list[str], setting("input modalities of the model", min_length=1)]
    target: Annotated[list[str], setting("modalities that the model synthesises", min_length=1)]
    any_source: Annotated[
        tuple[str, ...],
        setting(
            "MR scans that stand for the one source: a case is trained on once with each that it has, and synthesised from the one that is given"
        ),
    ] = ()
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
        dict[str, float],
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
        names, moving = self.any_source, self.augment.off_centre
        once = "each modality once"
        one_plane = [
            key for key in ("slices", "centred", "apart") if getattr(self, key) not in (None, False)
        ]
        for key, wrong, expected, found in (
            ("patch", min(self.patch) < 1, "three sizes of at least 1 voxel", self.patch),
            ("source", len({*self.source}) < len(self.source), once, self.source),
            ("target", len({*self.target}) < len(self.target), once, self.target),
            (
                "axes",
                self.centred and self.axis_lr != -1,
                "columns from right to left or back (…R or …L) with data.centred",
                self.axes,
            ),
            (
                "frame",
                self.centred and self.frame is not None,
                "none with data.centred, whose patches lie around the middle of slices",
                self.frame,
            ),
            (
                "augment",
                self.centred and moving,
                "no changes with data.centred that move the mid-plane away from the middle",
                moving,
            ),
            ("any_source", len({*names}) < len(names), once, [*names]),
            (
                "any_source",
                names and (len(self.source) > 1 or self.apart or self.slices is not None),
                "pairs with one source, for which they stand, without data.slices",
                f"{self.source}{', data.apart' if self.apart else ''}",
            ),
            (
                "any_source",
                {*names} & {*self.source, *self.target},
                "names other than those of data.source and data.target",
                [*names],
            ),
            (
                "planes",
                self.planes and (self.patch[0] > 1 or one_plane),
                "pairs of single slices, which all planes have",
                f"data.{one_plane[0]}" if one_plane else f"data.patch = {self.patch}",
            ),
        ):
            if wrong:
                raise BadInput(f"data.{key}: expected {expected}, found {found}. Change one.")
        for key, times in self.weigh.items():
            name, equals, value = key.partition("=")
            if (
                name not in self.labels
                or (equals and not value.isdecimal())
                or not 0 < times < math.inf
            ):
                raise BadInput(
                    f"data.weigh: expected a label map of data.labels ({', '.join(self.labels) or 'none'}) or NAME=NUMBER, and a factor above 0, found {key!r} = {times:g}. Change it, or add --set 'data.labels=[\"{name}\"]'."
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
        first = "".join(
            f" ({case} has no {', no '.join(names)})" for case, names in list(lacking.items())[:1]
        )
        gaps = "" if data.allow_missing or data.source != data.target else COMPLETE_GAPS
        wanted = ", ".join(data.modalities)
        raise BadInput(
            f"{cohort.folder}: expected a case with {wanted} in the split {split}, found none among its {len(lacking)} cases{first}. Prepare the cohort with other shares, or choose other modalities{gaps}."
        )
    return usable


def _check_names(cohort: Cohort, data: DataSettings) -> None:
    """Raise BadInput where the cohort has no case with some modality or label map of the settings."""
    labels = set(chain.from_iterable(case.labels for case in cohort.cases))
    for name in data.labels:
        if name not in labels:
            raise BadInput(
                f"{cohort.folder}: expected the label map {name}, found {', '.join(sorted(labels)) or 'none'} in the cohort. Change data.labels."
            )
    wanted = data.modalities
    unknown = ", ".join(name for name in wanted if name not in cohort.modalities)
    if not unknown:
        return
    found = ", ".join(cohort.modalities)
    expected = f"{cohort.folder}: expected the recipe's modalities {', '.join(wanted)}, found"
    if data.physics is None and PROTONS in cohort.modalities:
        raise BadInput(
            f"{expected} tissue-parameter maps ({found}) and no {unknown}. Draw them from the maps with a [data.physics] table."
        )
    raise BadInput(
        f"{expected} {found} in the cohort (no {unknown}). Choose a recipe for these (voxlate recipes --cohort {cohort.folder}), or add {_keys_for(cohort, data)}."
    )


def intensity_key(name: str) -> str:
    """The change of a recipe that gives a modality an intensity map."""
    return f"--set 'intensity.{name}={{kind=\"percentile\"}}'"


def _keys_for(cohort: Cohort, data: DataSettings) -> str:
    """All changes of a recipe that fit it to the modalities of a cohort, the spare ones in their order."""
    spare = [name for name in cohort.modalities if name not in data.modalities]
    keys, added = list[str](), list[str]()
    for side in ("source", "target"):
        names = list(getattr(data, side))
        for place, name in enumerate(names):
            if name not in cohort.modalities:
                names[place] = spare.pop(0) if spare else "NAME"
                added.append(names[place])
        if names != list(getattr(data, side)):
            listed = ", ".join(f'"{name}"' for name in names)
            keys.append(f"--set 'data.{side}=[{listed}]'")
    return " ".join([*keys, *map(intensity_key, dict.fromkeys(added))])


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


def starts_of(header: CaseHeader, data: DataSettings, kept: np.ndarray | None) -> list[int]:
    """Starts along D whose slab holds enough mask, and kept slices only; a volume thinner than the patch has one."""
    depth, height, width = (min(a, b) for a, b in zip(header.shape, data.patch))
    # divided by the patch's own area: a narrow patch can be full of body in a slice that is mostly air
    enough = _sums(header.mask_area, depth) / (depth * height * width) >= data.foreground
    if kept is not None:
        enough &= _sums(kept, depth) == depth
    return np.flatnonzero(enough).tolist()


def note_on_cut(cohort: Cohort, data: DataSettings) -> str:
    """A sentence on the case of whose mask a patch shows least in the plane; "" where patches hold every mask."""
    cases = usable_cases(cohort, data, "train")
    shares = {case: _share_of_mask(cohort.header(case, data.axes), data) for case in cases}
    cut = [case for case in cases if shares[case] < 1]
    if not cut:
        return ""
    worst = min(cut, key=shares.__getitem__)
    height, width = np.ptp(cohort.header(worst, data.axes).mask_box[1:], axis=1)
    return f"{cohort.folder}: in training the network sees {data.patch[1]}×{data.patch[2]} voxels of a slice at a time, and the body (the mask) is larger in {len(cut)} of {len(cases)} cases: of {worst} ({height}×{width}) it sees at most {shares[worst]:.0%} at once. To show it whole, set data.patch, or prepare with a wider --spacing-mm."


def _share_of_mask(header: CaseHeader, data: DataSettings) -> float:
    """The largest share of the mask's box in the plane that a patch holds."""
    (top, bottom), (first, end) = header.mask_box[1:]
    rows, columns = data.patch[1:]
    shown = min(columns, end - first)
    if data.centred:  # there is one place along this axis
        start = even_start(header.shape[2], columns)
        shown = max(0, min(end, start + columns) - max(first, start))
    return min(rows / (bottom - top), 1.0) * shown / (end - first)


def note_on_padding(cohort: Cohort, data: DataSettings) -> str:
    """A sentence where patches reach far beyond every slice, and mostly hold filled-in background; else ""."""
    cases = usable_cases(cohort, data, "train")
    shapes = [cohort.header(case, data.axes).shape for case in cases]
    height, width = np.max(shapes, axis=0)[1:].tolist()
    rows, columns = data.patch[1:]
    share = min(1.0, height / rows) * min(1.0, width / columns)
    if share > FILLED or data.frame is not None:
        return ""
    return f"{cohort.folder}: patches of {rows}×{columns} voxels reach beyond the largest slice ({height}×{width}): {1 - share:.0%} of them is filled in, which costs time and quality. Set the patch to [{data.patch[0]}, {height}, {width}]."


def _sums(values: Sequence[int] | np.ndarray, width: int) -> np.ndarray:
    """The sum of each run of `width` neighbours."""
    total = np.cumsum([0, *values])
    return total[width:] - total[: len(total) - width]


def even_start(length: int, patch: int) -> int:
    """The start that centres a patch on an axis, below 0 where the patch is the longer one.

    Where length and patch are not both even or both odd, the middle of the axis is half a voxel above the patch's.
    """
    return (length - patch) // 2


def read_pair(
    case: PreparedCase,
    data: DataSettings,
    intensity: IntensityMaps,
    start: Triple,
    size: Triple | None = None,
    seed: int | None = None,
) -> Batch:
    """Read a patch at `start` (D, H, W; it may be partly outside, where background is filled in).

    All axes are those of data.axes. size: of the patch (default: of the settings). Source channels: the modalities in
    order, then with `stack` the same for the slice below, above, two below, …; beyond the first and last slice, that
    slice is repeated. Mask: as far as the case's source modalities show it. An absent target is background, an absent
    label map NO_LABEL. seed: of what data.physics draws (default: a fixed one for each place).
    """
    patch = Patch(case, data, intensity, start, size, seed)
    case = patch.case
    labels = np.full((len(data.labels), *patch.size), NO_LABEL, np.float32)
    for name, out in zip(data.labels, labels):
        if name in case.header.labels:
            out[:] = 0
            out[patch.inside] = case.arrays[LABEL + name][patch.place]
    target = [patch.modality(name, "target")[0] for name in data.target]
    return replace(
        batch_of(patch, data),
        target=torch.from_numpy(np.stack(target))[None],
        target_present=torch.tensor([[name in case.header.visible for name in data.target]]),
        labels=torch.from_numpy(labels)[None] if data.labels else None,
    )


def batch_of(patch: Patch, data: DataSettings) -> Batch:
    """The sources and the mask of a patch."""
    source, mask = patch.sources()
    header = patch.case.header
    z, y, x = patch.start
    return Batch(
        source=torch.from_numpy(source)[None],
        mask=torch.from_numpy(mask)[None, None],
        present=torch.from_numpy(patch.present)[None],
        item=torch.tensor([[stable_id(header.case, z + d, y, x) for d in range(patch.size[0])]]),
        source_names=data.source_names,
        target_names=tuple(data.target),
    )


def mask_share(case: PreparedCase, data: DataSettings, start: Triple) -> float:
    """The share of a patch at `start` that the mask covers, whatever modality shows it."""
    case = lay_out(case, data.axes)
    _, place = overlap(start, data.patch, readable(case.header, data.frame))
    return float((case.arrays[MASK][place] != 0).sum()) / float(np.prod(data.patch))
