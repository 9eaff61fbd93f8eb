"""Batches of a prepared cohort, each a pure function of the seed and the step."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator
from torch.utils.data import Dataset

from voxlate.base.errors import BadInput
from voxlate.base.items import stable_id
from voxlate.scans.cases.case import MASK, CaseHeader, lay_out
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.images.tiling import Triple, centre_on
from voxlate.science.batch import Batch, collate
from voxlate.training.batches.augment import augment
from voxlate.training.batches.data_settings import DataSettings, select_slices, usable_cases
from voxlate.training.batches.latents import read_moments
from voxlate.training.batches.patches import (
    IntensityMaps,
    even_start,
    mask_share,
    read_pair,
    starts_of,
)

Places = Sequence[tuple[str, Triple]]  # case and start of patches

TRIES = 8  # random places in the plane; where none has enough foreground, the best of them is taken


@dataclass(eq=False)
class Batches(Dataset[Batch]):
    """Training batches by step number.

    Items are drawn without replacement, epoch by epoch, over all processes together: item number
    (step * world + rank) * batch + i alone decides its case, its place and its augmentation. Hence
    workers, restarts and resumption give bit-identical batches. An epoch has an item for each slice (in thicker
    patches, for each patch depth) with enough foreground.
    unpaired: each item's target and target_mask are those of an item of another patient, drawn with replacement (with
    data.apart, from the cases that have the targets).
    moments: a folder that latents.cache_moments filled for these settings; batches then carry them as well.
    """

    cohort: Cohort
    data: DataSettings
    intensity: IntensityMaps
    _: KW_ONLY
    seed: int = 0
    batch: int = 1
    steps: int = 1
    rank: int = 0
    world: int = 1
    unpaired: bool = False
    moments: Path | None = None

    def __post_init__(self) -> None:
        data = self.data
        self.starts = _starts(self.cohort, data, usable_cases(self.cohort, data, "train"))
        self.items = _items(self.starts, data.patch[0])
        self.patients = {case: self.cohort.header(case).patient for case in self.starts}
        self.unpaired_targets = self  # the batches from which targets of other patients are drawn
        if self.unpaired and data.apart:  # targets are of cases that have them, with their own mask
            autoencoded = replace(data, source=data.target, stack=0)
            self.unpaired_targets = replace(self, data=autoencoded, unpaired=False, moments=None)
        others = set(self.unpaired_targets.patients.values())
        if self.unpaired and len(others) < 2 and others <= set(self.patients.values()):
            raise BadInput(
                f"{self.cohort.folder}: expected two patients or more in the split train, for unpaired scans, found one. Prepare more cases, or choose a method that learns from pairs."
            )

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < self.steps:
            raise IndexError(step)
        first = (step * self.world + self.rank) * self.batch
        numbers = range(first, first + self.batch)
        items = [self._item(number) for number in numbers]
        seeds = [stable_id("physics", self.seed, number) for number in numbers]
        generators = [_generator("item", self.seed, number) for number in numbers]
        batch = self._batch(items, generators, seeds)
        if not self.unpaired:
            return batch
        generators = [_generator("stranger", self.seed, number) for number in numbers]
        drawn = [self._other_patient(item, generator) for item, generator in zip(items, generators)]
        seeds = [stable_id("physics of another patient", self.seed, number) for number in numbers]
        others = self.unpaired_targets._batch(drawn, generators, seeds)
        return replace(
            batch,
            target=others.target,
            target_mask=others.mask,
            target_present=others.target_present,
            target_moments=others.target_moments,
        )

    def _batch(
        self, items: Sequence[int], generators: Sequence[Generator], seeds: Sequence[int]
    ) -> Batch:
        """The items with their augmentation; seeds: of what data.physics draws for each."""
        places = [self._place(item, generator) for item, generator in zip(items, generators)]
        plain = read_batch(self.cohort, self.data, self.intensity, places, self.moments, seeds)
        spacing_mm = torch.tensor(
            [self.cohort.header(case, self.data.axes).spacing_mm for case, _ in places]
        )
        changed = augment(plain, self.data.augment, generators, spacing_mm, self.data.axes)
        return replace(changed, weight=self.data.weight(changed.labels))

    def _item(self, number: int) -> int:
        epoch, place = divmod(number, len(self.items))
        return _order(self.seed, epoch, len(self.items))[place]

    def _other_patient(self, item: int, generator: Generator) -> int:
        """Any item of another patient, all equally likely."""
        patient = self.patients[self.items[item][0]]
        batches = self.unpaired_targets
        while True:
            other = _below(len(batches.items), generator)
            case, _ = batches.items[other]
            if batches.patients[case] != patient:
                return other

    def _place(self, item: int, generator: Generator) -> tuple[str, Triple]:
        """Draw the first voxel of a patch: along D that of the item, in the plane around the mask."""
        data, (case, fixed) = self.data, self.items[item]
        header = self.cohort.header(case, data.axes)
        starts = self.starts[case]
        z = starts[_below(len(starts), generator)] if fixed is None else fixed
        axes = _choices(header, data)
        sides = zip(header.mask_box[1:], data.patch[1:])
        holds_body = all(end - first <= length for (first, end), length in sides)
        whole = data.frame is not None and holds_body
        one = whole or data.foreground == 0 or all(len(axis) == 1 for axis in axes)
        best = (z, 0, 0)
        best_share = -1.0
        for _ in range(TRIES):
            y, x = (axis[_below(len(axis), generator)] for axis in axes)
            place = (z, y, x)
            if one:
                return case, place
            share = mask_share(self.cohort.case(case), data, place)
            if share > best_share:
                best, best_share = place, share
            if share >= data.foreground:
                break
        return case, best


@dataclass(eq=False)
class Planes(Dataset[Batch]):
    """Training batches of one plane at a time, by step number (see Batches).

    Of three batches in a row one is of each plane, in an order that the seed and their number decide: an order that is
    always the same would give a method of several turns one plane a turn.
    """

    planes: Sequence[Batches]

    def __len__(self) -> int:
        return self.planes[0].steps

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < len(self):
            raise IndexError(step)
        round_, place = divmod(step, len(self.planes))
        order = _order(self.planes[0].seed, round_, len(self.planes))
        return self.planes[order[place]][round_]

    @property
    def items(self) -> list[tuple[str, int | None]]:
        """The items of all planes."""
        return [item for batches in self.planes for item in batches.items]


def training_batches(
    cohort: Cohort,
    data: DataSettings,
    intensity: IntensityMaps,
    seed: int = 0,
    **options: Any,
) -> Batches | Planes:
    """The training batches of the settings; options: other fields of Batches."""
    first, *others = data.by_plane
    batches = [Batches(cohort, first, intensity, seed=seed, **options)]
    for other in others:
        own = stable_id("plane", seed, other.axes)
        batches.append(Batches(cohort, other, intensity, seed=own, **options))
    return Planes(batches) if others else batches[0]


def validation_batches(
    cohort: Cohort,
    data: DataSettings,
    intensity: IntensityMaps,
    split: str = "val",
    batch: int = 8,
    limit: int | None = None,
) -> Iterator[Batch]:
    """The validation patches, in a fixed order: all slices with enough foreground (or patches end to end), centred.

    limit: at most so many items, evenly spaced over all of them.
    """
    yield from batches_of(cohort, data, intensity, even_places(cohort, data, split, limit), batch)


def even_places(
    cohort: Cohort,
    data: DataSettings,
    split: str,
    limit: int | None,
) -> Places:
    """Case and start of each patch of `validation_batches`, in their order."""
    places = list[tuple[str, Triple]]()
    for case, starts in whole_cases(cohort, data, split).items():
        places += [(case, start) for start in starts]
    count = len(places)
    if limit is None or limit >= count:
        return places
    return [places[(2 * i + 1) * count // (2 * limit)] for i in range(limit)]


def whole_cases(cohort: Cohort, data: DataSettings, split: str) -> dict[str, list[Triple]]:
    """The starts of each case's patches in a split: end to end along D, centred in the plane."""
    cases = usable_cases(cohort, data, split)
    places = {}
    for case, starts in _starts(cohort, data, cases).items():
        header = cohort.header(case, data.axes)
        _, height, width = header.shape
        y = max(0, even_start(height, data.patch[1]))
        x = even_start(width, data.patch[2])
        if not data.centred:  # a short axis is padded at its end
            x = max(0, x)
        if data.frame is not None:
            y, x = map(centre_on, header.mask_box[1:], data.patch[1:])
        places[case] = [(z, y, x) for z in starts[:: data.patch[0]]]
    return places


def batches_of(
    cohort: Cohort,
    data: DataSettings,
    intensity: IntensityMaps,
    places: Places,
    batch: int,
) -> Iterator[Batch]:
    """The patches at these places without augmentation, in batches."""
    for first in range(0, len(places), batch):
        yield read_batch(cohort, data, intensity, places[first : first + batch])


def read_batch(
    cohort: Cohort,
    data: DataSettings,
    intensity: IntensityMaps,
    places: Places,
    moments: Path | None = None,
    seeds: Sequence[int] | None = None,
) -> Batch:
    """The patches at these places with their targets and labels, and the moments of their latents where given.

    seeds: of what data.physics draws for each (default: a fixed one for each place).
    """
    pairs = list[Batch]()
    for (case, start), seed in zip(places, seeds or repeat(None)):
        pair = read_pair(cohort.case(case), data, intensity, start, seed=seed)
        if moments is not None:
            slices = slice(start[0], start[0] + data.patch[0])
            source, target = (
                read_moments(moments, case, slices, names)[None]
                for names in (data.source, data.target)
            )
            pair = replace(pair, source_moments=source, target_moments=target)
        pairs.append(pair)
    return collate(pairs)


def _starts(cohort: Cohort, data: DataSettings, cases: list[str]) -> dict[str, list[int]]:
    """The starts of each case's patches along D; raises BadInput where no case has any."""
    kept = select_slices(cohort, data.slices, cases) if data.slices is not None else {}
    starts = {}
    for case in cases:
        along = starts_of(_header(cohort, case, data.axes), data, kept.get(case))
        if along:
            starts[case] = along
    if starts:
        return starts
    if data.slices is not None and not any(slices.any() for slices in kept.values()):
        raise BadInput(
            f"{cohort.folder}: expected slices that pass data.slices (overlap {data.slices.overlap:g}, {data.slices.pixels} pixels), found none in {len(cases)} cases. Lower them, change data.slices.above, or prepare with --register if the scans are not aligned."
        )
    raise BadInput(
        f"{cohort.folder}: expected patches of {data.patch} voxels with at least {data.foreground:.0%} foreground, found none in any case. Lower data.foreground."
    )


def _header(cohort: Cohort, case: str, axes: str) -> CaseHeader:
    """The header of a case with these axes, with the area of the mask in each slice."""
    header = cohort.header(case, axes)
    if axes[0] in "SI":
        return header
    # a header on disk has the areas of axial slices, which are not those of another plane
    mask = lay_out(cohort.case(case), axes).arrays[MASK]
    return replace(header, mask_area=np.count_nonzero(mask, axis=(1, 2)).tolist())


def _items(starts: Mapping[str, list[int]], depth: int) -> list[tuple[str, int | None]]:
    """An item for each slice, by case and start; thick patches are drawn anywhere, as often as they fit."""
    items = list[tuple[str, int | None]]()
    for case, along in starts.items():
        if depth == 1:
            items += [(case, start) for start in along]
        else:
            items += [(case, None)] * max(1, round(len(along) / depth))
    return items


def _choices(header: CaseHeader, data: DataSettings) -> list[range]:
    """Starts along H and W: inside the volume, the patch's centre inside the mask's box; 0 if the patch is longer.

    In a frame: around the middle of the mask's box, by up to the margin; anywhere in a box that is larger. Centred
    columns have one start.
    """
    starts = list[range]()
    sides = zip(header.shape, data.patch, header.mask_box, header.spacing_mm)
    for length, patch, box, side in list(sides)[1:]:
        first, last = (
            min(max(place - patch // 2, 0), max(length - patch, 0))
            for place in (box[0], box[1] - 1)
        )
        if data.frame is not None:
            margin, spare = round(data.frame / side), patch - (box[1] - box[0])
            reach = min(margin, spare // 2) if spare >= 0 else (1 - spare) // 2 + margin
            first, last = centre_on(box, patch) - reach, centre_on(box, patch) + reach
        elif data.centred and starts:
            first = last = even_start(length, patch)
        starts.append(range(first, last + 1))
    return starts


def _below(high: int, generator: Generator) -> int:
    return int(torch.randint(high, (1,), generator=generator))


def _generator(*key: str | int) -> Generator:
    return Generator().manual_seed(stable_id(*key))


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> Sequence[int]:
    """The order of the items in an epoch."""
    return tuple(torch.randperm(count, generator=_generator("epoch", seed, epoch)).tolist())
