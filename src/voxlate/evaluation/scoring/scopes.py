"""Further scopes of scores, by name: every voxel, axial slices one by one, and random crops as paper 001 scores them."""

import hashlib
import math
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from voxlate.base.array_types import AnyArray, Bool, Float32
from voxlate.base.config import fill
from voxlate.base.errors import BadInput
from voxlate.evaluation.evaluate_options import CROP
from voxlate.evaluation.scoring.evaluators import RULES, Evaluator
from voxlate.evaluation.scoring.metrics import (
    OF_PICTURES,
    RADIOLOGICAL,
    SCOPED,
    ImagePair,
    Score,
)
from voxlate.scans.cases.case import CANONICAL, reorder_axes
from voxlate.scans.images.ranges import WHOLE_MASK
from voxlate.training.batches.slice_filter import SliceFilter, filter_slices

SLICES, CROPS = "slices", "crops"
MASKED = "masked_slices"  # paper 000: both images at the low end outside the mask, then every voxel
SMALLEST_CROP = 11  # SSIM's window
MASK = "mask"  # the name of the evaluation's own mask in a slice filter


@dataclass(frozen=True)
class Scope:
    """A scope: of every voxel (whole), or the mean over the scores of single pictures of a case (slices, crops)."""

    name: str

    @property
    def pictures(self) -> bool:
        """Whether its scores are means over pictures."""
        return self.name != WHOLE_MASK

    def rule(self, cut: "Cut") -> str:
        """A sentence for the caption and metrics.json."""
        if not self.pictures:
            return "every voxel"
        parts = [f"mean over axial {self.name.replace('_', ' ')} that show something"]
        if self.name == MASKED:
            parts.append(
                "both images at the low end of the range outside the mask, then every voxel"
            )
        if cut.slices is not None:
            parts.append(f"slices with {_filter_text(cut.slices)}")
        if self.name == CROPS:
            parts.append(
                f"one crop of {cut.size}×{cut.size} pixels a slice, placed by seed {cut.seed} and the truth's voxels"
            )
        return "; ".join(parts)


SCOPES: dict[str, Scope | Evaluator] = {
    name: Scope(name) for name in (WHOLE_MASK, SLICES, CROPS, MASKED)
} | {name: Evaluator(name, rule) for name, rule in RULES.items()}


@dataclass(frozen=True)
class Cut:
    """A filter of slices (None: all slices that show something), and the side (pixels) and seed of crops."""

    slices: SliceFilter | None = None
    size: int = CROP
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < SMALLEST_CROP:
            raise BadInput(
                f"--crop: expected at least {SMALLEST_CROP} pixels, the window of SSIM, found {self.size}. Choose a larger crop."
            )


@dataclass(frozen=True, eq=False)
class CountedVoxels:
    """The voxels of a canonical truth [D, H, W] of which pictures are cut.

    values: in the truth's unit; inside: voxels of the mask that the image covers; covered: voxels that the image covers;
    None stands for all. masked: whether the evaluation has a mask; image_of: gives another image of the case that the
    slice filter names.
    """

    values: Float32
    inside: Bool | None
    covered: Bool | None
    masked: bool
    cut: Cut
    image_of: Callable[[str], AnyArray]

    def shows_something(self, *place: slice) -> bool:
        """Whether a slice or crop has a pixel of the mask, or without a mask more than one value."""
        values = self.values[place]
        if self.inside is not None:
            values = values[self.inside[place]]
        return bool(values.size) and (self.masked or bool(values.min() != values.max()))

    @cached_property
    def slices(self) -> list[int]:
        """The slices that show something and pass the filter."""
        kept = np.array([self.shows_something(slice(k, k + 1)) for k in range(len(self.values))])
        if (chosen := self.cut.slices) is not None:
            kept &= filter_slices({name: self.image_of(name) for name in chosen.above}, chosen)
        return np.flatnonzero(kept).tolist()

    @cached_property
    def content(self) -> str:
        """A digest of the truth's voxels, so that crops do not depend on names or order."""
        return hashlib.sha256(np.ascontiguousarray(self.values).tobytes()).hexdigest()


def scopes_from(
    names: Iterable[str], mask: object, regions: Collection[str]
) -> tuple[Scope | Evaluator, ...]:
    """The scopes of these names, each once; raises BadInput for other names, those of regions, and without a mask."""
    for name in names:
        if name not in SCOPES:
            raise BadInput(
                f"--scopes: expected one of {', '.join(SCOPES)}, found {name!r}. Choose one of these."
            )
        if name == MASKED and mask in (None, WHOLE_MASK):
            raise BadInput(
                f"--scopes {name}: expected a mask, found none. Add --mask body, brain, cohort or a file."
            )
        if name in regions:
            raise BadInput(
                f"--scopes {name}: expected no region of that name, found one. Rename the region."
            )
    return tuple(SCOPES[name] for name in dict.fromkeys(names))


def filter_from(
    given: SliceFilter | str, mask: object, scopes: Iterable[Scope | Evaluator]
) -> SliceFilter:
    """A slice filter, from the text of a TOML table as in a recipe's data.slices, with or without braces.

    "mask" names the evaluation's mask. Raises BadInput for other texts, or if the mask or such a scope is absent.
    """
    if not any(scope.pictures for scope in scopes):
        raise BadInput(
            "--slices: expected a --scopes of slices or crops, found none. Add --scopes slices."
        )
    if isinstance(given, SliceFilter):
        return given
    braced = given if given.strip().startswith("{") else "{" + given + "}"
    try:
        table = tomllib.loads(f"slices = {braced.strip()}")["slices"]
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(
            f'--slices: expected a table such as above={{tof="mean",cta=0}}, pixels=200, overlap=0.3, found {given!r}. Write it like this.'
        ) from error
    chosen = fill(SliceFilter, table, "--slices", "Change it in --slices.")
    if MASK in chosen.above and mask is None:
        raise BadInput("--slices: expected a mask, because above names it, found none. Add --mask.")
    return chosen


def score_scope(
    scope: Scope,
    pair: ImagePair,
    truth: CountedVoxels,
    functions: Mapping[str, Score],
    pictures: list[dict[str, Any]],
) -> dict[str, float]:
    """The scores of an image in a scope by key; NaN if no picture counts.

    functions: scores by key, of which those that apply are computed; pictures: the place and the scores of each picture
    are added here. Pictures with a score that is not finite (the PSNR of equal images) are left out of its mean.
    """
    keys = [key for key in functions if key in (OF_PICTURES if scope.pictures else SCOPED)]
    if not scope.pictures:
        everywhere = replace(pair, inside=truth.covered)
        return {f"{scope.name}.{key}": functions[key](everywhere) for key in keys}
    shown = [
        place | {key: functions[key](picture) for key in keys}
        for place, picture in _pictures(scope, pair, truth)
    ]
    pictures += shown
    return {f"{scope.name}.{key}": _mean([one[key] for one in shown]) for key in keys}


def _pictures(
    scope: Scope, pair: ImagePair, truth: CountedVoxels
) -> Iterator[tuple[dict[str, Any], ImagePair]]:
    """The slices or crops that count, in radiological orientation, with the place of their first pixels."""
    cut = truth.cut
    inside = None if truth.inside is None else _turn(truth.inside)
    turned = replace(truth, values=_turn(truth.values), inside=inside)
    a, b = (_turn(image) for image in (pair.truth, pair.synthesis))
    within = None if pair.inside is None else _turn(pair.inside)
    low = pair.scale.low
    if scope.name == MASKED and inside is not None:
        a, b = (np.where(inside, image, np.float32(low)) for image in (a, b))
        within = None if truth.covered is None else _turn(truth.covered)
    for number in truth.slices:
        row = column = 0
        box: tuple[slice, ...] = (slice(number, number + 1),)
        if scope.name == CROPS:
            row, column = crop_place(cut, truth.content, number, turned.values.shape[1:])
            box += (slice(row, row + cut.size), slice(column, column + cut.size))
            if not turned.shows_something(*box):
                continue
        place = {"scope": scope.name, "slice": number, "row": row, "column": column}
        picture = replace(
            pair,
            truth=_cut(a, box, low),
            synthesis=_cut(b, box, low),
            inside=None if within is None else _cut(within, box, False),
            axes=RADIOLOGICAL,
        )
        yield place, picture


def _cut(image: AnyArray, box: tuple[slice, ...], edge: float) -> AnyArray:
    """A slice or crop [1, H, W]; a crop that ends outside the slice is extended by rows and columns of one value."""
    part = image[box]
    if len(box) == 1:
        return part
    ends = [(0, side.stop - side.start - length) for side, length in zip(box, part.shape)]
    return np.pad(part, ends, constant_values=edge)


def _turn(values: AnyArray) -> AnyArray:
    """A volume in radiological orientation; the lower right corner of its slices is that of the slices in paper 001."""
    return reorder_axes(values, CANONICAL, RADIOLOGICAL)


def crop_place(cut: Cut, content: str, number: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """First row and column of the crop of a slice [H, W], drawn uniformly.

    They depend on the seed, the truth's content and the slice's number alone.
    """
    digest = hashlib.sha256(f"{cut.seed} {content} {number}".encode()).digest()
    row, column = (
        int.from_bytes(part) % (max(length - cut.size, 0) + 1)
        for part, length in zip((digest[:8], digest[8:16]), shape)
    )
    return row, column


def _mean(values: list[float]) -> float:
    """The mean of the finite values, or of all values if none is finite."""
    kept = [value for value in values if math.isfinite(value)] or values
    return float(np.mean(kept)) if kept else math.nan


def _filter_text(chosen: SliceFilter) -> str:
    limits = [
        f"{name} > {'its mean' if limit == 'mean' else f'{limit:g}'}"
        for name, limit in chosen.above.items()
    ]
    overlap = f", Dice {chosen.overlap:g}" if chosen.overlap else ""
    return f"{chosen.pixels} pixels of {' and '.join(limits)}{overlap}"


def check_pictures(
    scopes: Iterable[Scope | Evaluator], rows: Iterable[Mapping[str, Any]], cut: Cut
) -> None:
    """Raise BadInput if a scope has no picture in any case; rows: all pictures."""
    pictured = {row["scope"] for row in rows}
    for scope in scopes:
        if scope.pictures and scope.name not in pictured:
            rule = "" if cut.slices is None else f" with {_filter_text(cut.slices)}"
            raise BadInput(
                f"--scopes {scope.name}: expected {scope.name} that show something{rule} in at least one case, found none. Change --slices, or check the mask."
            )
