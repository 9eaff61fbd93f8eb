"""Batches of a prepared cohort: each is a pure function of the seed and the step, whatever worker makes it."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Generator
from torch.utils.data import Dataset

from voxlate.batch import Batch, stable_id
from voxlate.data.augment import augment
from voxlate.data.patches import (
    DataSettings,
    Piece,
    Place,
    Span,
    centred_start,
    check_intensity,
    even_start,
    read_box,
    read_piece,
    span_of,
    usable_cases,
)
from voxlate.data.prepared import MASK, CaseHeader, Cohort, open_cohort
from voxlate.data.slice_filter import kept_slices
from voxlate.errors import BadInput
from voxlate.images.intensity import Intensity

__all__ = ["Batches", "Cohort", "DataSettings", "open_cohort", "validation_batches"]

T = TypeVar("T")
TRIES = 8  # places in the plane that are looked at for enough foreground before the best of them is taken


class Batches(Dataset[Batch]):
    """Training batches by step number.

    Items are drawn without replacement, epoch by epoch, over all processes together: item number
    (step * world + rank) * batch + i decides the piece, its place and its augmentation, and nothing else does. Hence
    workers, restarts and resumption give bit-identical batches. One draw of an item for each slice (or, in thicker
    patches, for each patch depth) that holds enough foreground. lacking: cases left out, by missing modality.
    unpaired: each item's target and target_mask are those of an item of another patient, drawn with replacement.
    """

    def __init__(
        self,
        cohort: Cohort,
        data: DataSettings,
        intensity: Mapping[str, Intensity],
        *,
        split: str = "train",
        seed: int = 0,
        batch: int = 1,
        steps: int = 1,
        rank: int = 0,
        world: int = 1,
        unpaired: bool = False,
    ) -> None:
        check_intensity(data, intensity)
        self.cohort, self.data, self.intensity = cohort, data, dict(intensity)
        self.seed, self.batch, self.steps, self.rank, self.world = seed, batch, steps, rank, world
        cases, self.lacking = usable_cases(cohort, data, split)
        self.spans = _spans(cohort, data, cases)
        self.items = _items(self.spans, data.patch[0])
        self.unpaired, self.patients = unpaired, [cohort.header(span.case).patient for span in self.spans]
        if unpaired and len(set(self.patients)) < 2:
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
        generators = [_generator("stranger", self.seed, number) for number in numbers]
        others = self._batch([self._stranger(item, one) for item, one in zip(items, generators)], generators)
        return replace(batch, target=others.target, target_mask=others.mask)

    def _batch(self, items: Sequence[int], generators: Sequence[Generator]) -> Batch:
        pieces = [self._piece(item, generator) for item, generator in zip(items, generators)]
        plain = collate(pieces)
        assert plain.target is not None
        spacing_mm = torch.tensor([piece.spacing_mm for piece in pieces])
        source, target, mask = augment(
            plain.source, plain.target, plain.mask, self.data.augment, generators, spacing_mm
        )
        return Batch(source=source, target=target, mask=mask, present=plain.present, item=plain.item)

    def _item(self, number: int) -> int:
        epoch, place = divmod(number, len(self.items))
        return _order(self.seed, epoch, len(self.items))[place]

    def _stranger(self, item: int, generator: Generator) -> int:
        """Any item of another patient, all alike likely."""
        own = self.patients[self.items[item][0]]
        while self.patients[self.items[other := _below(len(self.items), generator)][0]] == own:
            pass
        return other

    def _piece(self, item: int, generator: Generator) -> Piece:
        span, fixed = self.items[item]
        header = self.cohort.header(self.spans[span].case)
        start = self._start(header, self.spans[span], fixed, generator)
        return read_piece(self.cohort, self.data, self.intensity, header.case, start)

    def _start(self, header: CaseHeader, span: Span, fixed: int | None, generator: Generator) -> Place:
        """Draw where a piece begins: along D as the item says, in the plane around the mask."""
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
            mask = read_box(self.cohort.path(header.case), MASK, (z, y, x), self.data.patch, header.shape, 0)
            share = float(mask.mean())
            if share > best_share:
                best, best_share = (z, y, x), share
            if share >= self.data.foreground:
                break
        return best


def validation_batches(
    cohort: Cohort,
    data: DataSettings,
    intensity: Mapping[str, Intensity],
    split: str = "val",
    batch: int = 8,
    limit: int | None = None,
) -> Iterator[Batch]:
    """The same pieces each time: every slice with enough foreground (or patches end to end), centred, not augmented.

    limit: at most so many items, evenly spaced over all of them.
    """
    check_intensity(data, intensity)
    places = [(case, start) for case, starts in whole_cases(cohort, data, split).items() for start in starts]
    yield from batches_of(cohort, data, intensity, places if limit is None else spread(places, limit), batch)


def whole_cases(cohort: Cohort, data: DataSettings, split: str) -> dict[str, list[Place]]:
    """For each case of a split, where its pieces start: end to end along D, centred in the plane."""
    cases, _ = usable_cases(cohort, data, split)
    found: dict[str, list[Place]] = {}
    for span in _spans(cohort, data, cases):
        header = cohort.header(span.case)
        y, x = (centred_start(header.shape[k], data.patch[k]) for k in (1, 2))
        x = even_start(header.shape[2], data.patch[2]) if data.centred else x
        found[span.case] = [(z, y, x) for z in span.starts[:: data.patch[0]]]
    return found


def spread(items: Sequence[T], limit: int) -> Sequence[T]:
    """At most `limit` of the items, evenly spaced over all of them."""
    if limit >= len(items):
        return items
    return [items[(2 * i + 1) * len(items) // (2 * limit)] for i in range(limit)]


def batches_of(
    cohort: Cohort,
    data: DataSettings,
    intensity: Mapping[str, Intensity],
    places: Sequence[tuple[str, Place]],
    batch: int,
) -> Iterator[Batch]:
    """The pieces at these places, as they are, a few at a time."""
    for first in range(0, len(places), batch):
        chosen = places[first : first + batch]
        yield collate([read_piece(cohort, data, intensity, case, start) for case, start in chosen])


def collate(pieces: Sequence[Piece]) -> Batch:
    """Stack pieces to a batch."""
    return Batch(
        source=torch.stack([piece.source for piece in pieces]),
        target=torch.stack([piece.target for piece in pieces]),
        mask=torch.stack([piece.mask for piece in pieces]),
        present=torch.stack([piece.present for piece in pieces]),
        item=torch.tensor([piece.item for piece in pieces]),
    )


def _spans(cohort: Cohort, data: DataSettings, cases: list[str]) -> list[Span]:
    kept = kept_slices(cohort, data.slices, cases) if data.slices is not None else {}
    spans = [span for case in cases if (span := span_of(cohort.header(case), data, kept.get(case))).starts]
    if spans:
        return spans
    if data.slices is not None and not any(one.any() for one in kept.values()):
        raise BadInput(
            f"{cohort.folder}: expected slices that pass data.slices (overlap {data.slices.overlap:g}, "
            f"{data.slices.pixels} pixels), found none in {len(cases)} cases. "
            "Lower them, change data.slices.above, or prepare with --register if the scans do not lie on each other."
        )
    raise BadInput(
        f"{cohort.folder}: expected pieces of {data.patch} voxels with at least {data.foreground:.0%} foreground, "
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
