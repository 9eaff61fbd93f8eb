"""Batches of a prepared cohort, each a pure function of the seed and the step."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Generator
from torch.utils.data import Dataset

from voxlate.batch import Batch, stable_id
from voxlate.data.augment import augment
from voxlate.data.case import CaseHeader
from voxlate.data.latents import check_cacheable, read_moments
from voxlate.data.layout import laid_out_header
from voxlate.data.patches import (
    DataSettings,
    Patch,
    Span,
    Targets,
    centred_start,
    even_start,
    mask_share,
    read_patch,
    read_targets,
    span_of,
    usable_cases,
)
from voxlate.data.prepared import Cohort, open_cohort
from voxlate.data.slice_filter import kept_slices
from voxlate.errors import BadInput
from voxlate.images.intensity import IntensityMap
from voxlate.images.tiling import Triple

__all__ = ["Batches", "Cohort", "DataSettings", "open_cohort", "validation_batches"]

T = TypeVar("T")
TRIES = 8  # random places in the plane that are tried for enough foreground before the best of them is taken


class Batches(Dataset[Batch]):
    """Training batches by step number.

    Items are drawn without replacement, epoch by epoch, over all processes together: item number
    (step * world + rank) * batch + i alone decides its case, its place and its augmentation. Hence
    workers, restarts and resumption give bit-identical batches. An epoch has an item for each slice (in thicker
    patches, for each patch depth) with enough foreground. lacking: cases left out, with the modalities they lack.
    unpaired: each item's target and target_mask are those of an item of another patient, drawn with replacement (where
    they may lie apart, of one that has the targets).
    moments: a folder that latents.cache_moments filled for these settings; batches then carry them as well.
    """

    def __init__(
        self,
        cohort: Cohort,
        data: DataSettings,
        intensity: Mapping[str, IntensityMap],
        *,
        split: str = "train",
        seed: int = 0,
        batch: int = 1,
        steps: int = 1,
        rank: int = 0,
        world: int = 1,
        unpaired: bool = False,
        moments: Path | None = None,
    ) -> None:
        self.cohort, self.data, self.intensity = cohort, data, dict(intensity)
        self.seed, self.batch, self.steps, self.rank, self.world = seed, batch, steps, rank, world
        cases, self.lacking = usable_cases(cohort, data, split)
        self.spans = _spans(cohort, data, cases)
        self.items = _items(self.spans, data.patch[0])
        self.moments = moments
        if moments is not None:
            check_cacheable(cohort, data, cases)
        self.unpaired, self.patients = unpaired, [cohort.header(span.case).patient for span in self.spans]
        self.strangers = self
        if unpaired and data.apart:  # targets are of cases that have them, with their own mask
            own = replace(data, source=data.target, stack=0)
            self.strangers = Batches(cohort, own, intensity, split=split, seed=seed, batch=batch, steps=steps)
        if unpaired and len(others := set(self.strangers.patients)) < 2 and others <= set(self.patients):
            raise BadInput(
                f"{cohort.folder}: expected two patients or more in the split {split}, to take scans of them unpaired, "
                "found one. Prepare more cases, or choose a method that learns from pairs."
            )

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < self.steps:
            raise IndexError(step)
        first = (step * self.world + self.rank) * self.batch
        numbers = range(first, first + self.batch)
        items = [self._item(number) for number in numbers]
        batch = self._batch(items, [_generator("item", self.seed, number) for number in numbers])
        if not self.unpaired:
            return batch
        # this word seeds the pairs: another one would give other pairs than in earlier trainings
        generators = [_generator("stranger", self.seed, number) for number in numbers]
        strangers = [self._other_patient(item, one) for item, one in zip(items, generators)]
        others = self.strangers._batch(strangers, generators)
        return replace(
            batch,
            target=others.target,
            target_mask=others.mask,
            target_present=others.target_present,
            target_moments=others.target_moments,
        )

    def _batch(self, items: Sequence[int], generators: Sequence[Generator]) -> Batch:
        places = [self._place(item, generator) for item, generator in zip(items, generators)]
        plain = read_batch(self.cohort, self.data, self.intensity, places, self.moments)
        headers = [laid_out_header(self.cohort.header(case), self.data.axes) for case, _ in places]
        spacing_mm = torch.tensor([header.spacing_mm for header in headers])
        changed = augment(plain, self.data.augment, generators, spacing_mm, self.data.axes)
        return replace(changed, weight=self.data.weight(changed.labels))

    def _item(self, number: int) -> int:
        epoch, place = divmod(number, len(self.items))
        return _order(self.seed, epoch, len(self.items))[place]

    def _other_patient(self, item: int, generator: Generator) -> int:
        """Any item of another patient, all equally likely."""
        own, there = self.patients[self.items[item][0]], self.strangers
        while there.patients[there.items[other := _below(len(there.items), generator)][0]] == own:
            pass
        return other

    def _place(self, item: int, generator: Generator) -> tuple[str, Triple]:
        span, fixed = self.items[item]
        header = laid_out_header(self.cohort.header(self.spans[span].case), self.data.axes)
        return header.case, self._start(header, self.spans[span], fixed, generator)

    def _start(self, header: CaseHeader, span: Span, fixed: int | None, generator: Generator) -> Triple:
        """Draw where a patch begins: along D as the item says, in the plane around the mask."""
        z = span.starts[_below(len(span.starts), generator)] if fixed is None else fixed
        axes = [_choices(header.shape[k], self.data.patch[k], header.mask_box[k]) for k in (1, 2)]
        if self.data.centred:
            x = even_start(header.shape[2], self.data.patch[2])
            axes[1] = range(x, x + 1)
        tries = 1 if all(len(one) == 1 for one in axes) or self.data.foreground == 0 else TRIES
        best, best_share = (z, 0, 0), -1.0
        for _ in range(tries):
            y, x = (one[_below(len(one), generator)] for one in axes)
            if tries == 1:
                return z, y, x
            share = mask_share(self.cohort.case(header.case), self.data, (z, y, x))
            if share > best_share:
                best, best_share = (z, y, x), share
            if share >= self.data.foreground:
                break
        return best


def validation_batches(
    cohort: Cohort,
    data: DataSettings,
    intensity: Mapping[str, IntensityMap],
    split: str = "val",
    batch: int = 8,
    limit: int | None = None,
) -> Iterator[Batch]:
    """The same patches every time: all slices with enough foreground (or patches end to end), centred, not augmented.

    limit: at most so many items, evenly spaced over all of them.
    """
    places = [(case, start) for case, starts in whole_cases(cohort, data, split).items() for start in starts]
    yield from batches_of(cohort, data, intensity, places if limit is None else evenly_spaced(places, limit), batch)


def whole_cases(cohort: Cohort, data: DataSettings, split: str) -> dict[str, list[Triple]]:
    """For each case of a split, where its patches start: end to end along D, centred in the plane."""
    cases, _ = usable_cases(cohort, data, split)
    found: dict[str, list[Triple]] = {}
    for span in _spans(cohort, data, cases):
        header = laid_out_header(cohort.header(span.case), data.axes)
        y, x = (centred_start(header.shape[k], data.patch[k]) for k in (1, 2))
        x = even_start(header.shape[2], data.patch[2]) if data.centred else x
        found[span.case] = [(z, y, x) for z in span.starts[:: data.patch[0]]]
    return found


def evenly_spaced(items: Sequence[T], limit: int) -> Sequence[T]:
    """At most `limit` of the items, evenly spaced over all of them."""
    if limit >= len(items):
        return items
    return [items[(2 * i + 1) * len(items) // (2 * limit)] for i in range(limit)]


def batches_of(
    cohort: Cohort,
    data: DataSettings,
    intensity: Mapping[str, IntensityMap],
    places: Sequence[tuple[str, Triple]],
    batch: int,
) -> Iterator[Batch]:
    """The patches at these places without augmentation, in batches."""
    for first in range(0, len(places), batch):
        yield read_batch(cohort, data, intensity, places[first : first + batch])


def read_batch(
    cohort: Cohort,
    data: DataSettings,
    intensity: Mapping[str, IntensityMap],
    places: Sequence[tuple[str, Triple]],
    moments: Path | None = None,
) -> Batch:
    """The patches at these places with their targets and labels, and the moments of their latents where given."""
    cases = [cohort.case(case) for case, _ in places]
    patches = [read_patch(case, data, intensity, start) for case, (_, start) in zip(cases, places)]
    targets = [read_targets(case, data, intensity, start) for case, (_, start) in zip(cases, places)]
    batch = collate(data, patches, targets)
    if moments is None:
        return batch
    of_sources, of_targets = (
        torch.stack(
            [read_moments(moments, case, slice(start[0], start[0] + data.patch[0]), names) for case, start in places]
        )
        for names in (data.source, data.target)
    )
    return replace(batch, source_moments=of_sources, target_moments=of_targets)


def collate(data: DataSettings, patches: Sequence[Patch], targets: Sequence[Targets] = ()) -> Batch:
    """Stack patches to a batch; without truths, to one for inference."""
    return Batch(
        source=torch.stack([patch.source for patch in patches]),
        mask=torch.stack([patch.mask for patch in patches]),
        present=torch.stack([patch.present for patch in patches]),
        item=torch.stack([patch.items for patch in patches]),
        target=torch.stack([one.target for one in targets]) if targets else None,
        target_present=torch.stack([one.present for one in targets]) if targets else None,
        labels=torch.stack([one.labels for one in targets]) if targets and data.labels else None,
        source_names=data.source_names,
        target_names=tuple(data.target),
    )


def _spans(cohort: Cohort, data: DataSettings, cases: list[str]) -> list[Span]:
    kept = kept_slices(cohort, data.slices, cases) if data.slices is not None else {}
    headers = {case: laid_out_header(cohort.header(case), data.axes) for case in cases}
    spans = [span for case in cases if (span := span_of(headers[case], data, kept.get(case))).starts]
    if spans:
        return spans
    if data.slices is not None and not any(one.any() for one in kept.values()):
        raise BadInput(
            f"{cohort.folder}: expected slices that pass data.slices (overlap {data.slices.overlap:g}, "
            f"{data.slices.pixels} pixels), found none in {len(cases)} cases. "
            "Lower them, change data.slices.above, or prepare with --register if the scans do not lie on each other."
        )
    raise BadInput(
        f"{cohort.folder}: expected patches of {data.patch} voxels with at least {data.foreground:.0%} foreground, "
        "found none in any case. Lower data.foreground."
    )


def _items(spans: list[Span], depth: int) -> list[tuple[int, int | None]]:
    """An item for each slice, by its start; thick patches are drawn anywhere, as often as they fit."""
    if depth == 1:
        return [(k, start) for k, span in enumerate(spans) for start in span.starts]
    return [(k, None) for k, span in enumerate(spans) for _ in range(max(1, round(len(span.starts) / depth)))]


def _choices(length: int, patch: int, box: tuple[int, int]) -> range:
    """Starts along an axis: inside the volume, the patch's centre inside the mask's box; 0 if it is longer."""
    if patch >= length:
        return range(1)
    first = min(max(box[0] - patch // 2, 0), length - patch)
    last = min(max(box[1] - 1 - patch // 2, 0), length - patch)
    return range(first, last + 1)


def _below(high: int, generator: Generator) -> int:
    return int(torch.randint(high, (1,), generator=generator))


def _generator(*key: str | int) -> Generator:
    return Generator().manual_seed(stable_id(*key))


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    """The order of the items in an epoch."""
    return tuple(torch.randperm(count, generator=_generator("epoch", seed, epoch)).tolist())
