"""Batches of a prepared cohort, each a pure function of the seed and the step."""

import functools
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator
from torch.utils.data import Dataset

from voxlate.base.errors import BadInput
from voxlate.base.items import stable_id
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.images.tiling import Triple, centre_on
from voxlate.science.batch import Batch
from voxlate.training.batches.augment import augment
from voxlate.training.batches.data_settings import DataSettings
from voxlate.training.batches.patches import IntensityMaps, Patches, even_start

TRIES = 8  # random places in the plane; where none has enough foreground, the best of them is taken


@dataclass(eq=False)
class Batches(Patches, Dataset[Batch]):
    """Training batches by step number.

    Items are drawn without replacement, epoch by epoch, over all processes together: item number
    (step * world + rank) * batch + i alone decides its case, its place and its augmentation. Hence
    workers, restarts and resumption give bit-identical batches. An epoch has an item for each slice (in thicker
    patches, for each patch depth) with enough foreground.
    unpaired: each item's target and target_mask are those of an item of another patient, drawn with replacement (with
    data.apart, from the cases that have the targets).
    moments: a folder that patches.cache_moments filled for these settings; batches then carry them as well.
    """

    _: KW_ONLY
    seed: int = 0
    batch: int = 1
    rank: int = 0
    world: int = 1
    unpaired: bool = False
    moments: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        data = self.data
        # An item for each slice, by case and start; thick patches are drawn anywhere, as often as they fit.
        self.items = list[tuple[str, int | None]]()
        for case, along in self.starts.items():
            if data.patch[0] == 1:
                self.items += [(case, start) for start in along]
            else:
                self.items += [(case, None)] * max(1, round(len(along) / data.patch[0]))
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

    def __getitem__(self, step: int) -> Batch:
        first = (step * self.world + self.rank) * self.batch
        numbers = range(first, first + self.batch)
        items = [self._item(number) for number in numbers]
        generators = [_generator("item", self.seed, number) for number in numbers]
        batch = self._batch("physics", numbers, items, generators)
        if not self.unpaired:
            return batch
        generators = [_generator("stranger", self.seed, number) for number in numbers]
        drawn = [self._other_patient(item, generator) for item, generator in zip(items, generators)]
        key = "physics of another patient"
        others = self.unpaired_targets._batch(key, numbers, drawn, generators)
        return replace(
            batch,
            target=others.target,
            target_mask=others.mask,
            target_present=others.target_present,
            target_moments=others.target_moments,
        )

    def _batch(
        self, key: str, numbers: range, items: Sequence[int], generators: Sequence[Generator]
    ) -> Batch:
        """The items with their augmentation; key: to what data.physics draws for each."""
        data = self.data
        places = [self._place(item, generator) for item, generator in zip(items, generators)]
        seeds = [stable_id(key, self.seed, number) for number in numbers]
        plain = self.read(places, seeds, self.moments)
        headers = [self.cohort.header(case, data.axes) for case, _ in places]
        spacing_mm = torch.tensor([header.spacing_mm for header in headers])
        changed = augment(plain, data.augment, generators, spacing_mm, data.axes)
        return replace(changed, weight=data.weight(changed.labels))

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
        starts = self.starts[case]
        z = starts[_below(len(starts), generator)] if fixed is None else fixed
        axes = self._choices(case)
        box = self.cohort.header(case, data.axes).mask_box[1:]
        holds_body = all(end - first <= side for (first, end), side in zip(box, data.patch[1:]))
        whole = data.frame is not None and holds_body
        one = whole or data.foreground == 0 or all(len(axis) == 1 for axis in axes)
        best, best_share = (z, 0, 0), -1.0
        for _ in range(TRIES):
            y, x = (axis[_below(len(axis), generator)] for axis in axes)
            place = (z, y, x)
            if one:
                return case, place
            share = self.mask_share(case, place)
            if share > best_share:
                best, best_share = place, share
            if share >= data.foreground:
                break
        return case, best

    def _choices(self, case: str) -> list[range]:
        """Starts along H and W: inside the volume, the patch's centre inside the mask's box; 0 if the patch is longer.

        In a frame: around the middle of the mask's box, by up to the margin; anywhere in a box that is larger. Centred
        columns have one start.
        """
        starts, data = list[range](), self.data
        header = self.cohort.header(case, data.axes)
        for axis in (1, 2):
            length, patch, box = header.shape[axis], data.patch[axis], header.mask_box[axis]
            first, last = (
                min(max(place - patch // 2, 0), max(length - patch, 0))
                for place in (box[0], box[1] - 1)
            )
            if data.frame is not None:
                margin, spare = (
                    round(data.frame / header.spacing_mm[axis]),
                    patch - (box[1] - box[0]),
                )
                reach = min(margin, spare // 2) if spare >= 0 else (1 - spare) // 2 + margin
                first, last = centre_on(box, patch) - reach, centre_on(box, patch) + reach
            elif data.centred and axis == 2:
                first = last = even_start(length, patch)
            starts.append(range(first, last + 1))
        return starts


@dataclass(eq=False)
class Planes(Dataset[Batch]):
    """Training batches of one plane at a time, by step number (see Batches).

    Of three batches in a row one is of each plane, in an order that the seed and their number decide: an order that is
    always the same would give a method of several turns one plane a turn.
    """

    planes: Sequence[Batches]

    def __getitem__(self, step: int) -> Batch:
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


def _below(high: int, generator: Generator) -> int:
    return int(torch.randint(high, (1,), generator=generator))


def _generator(*key: str | int) -> Generator:
    return Generator().manual_seed(stable_id(*key))


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> Sequence[int]:
    """The order of the items in an epoch."""
    return tuple(torch.randperm(count, generator=_generator("epoch", seed, epoch)).tolist())
