"""Additional scopes of the same scores, by name: the whole image, both images masked, single slices, crops."""

import hashlib
import math
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from voxlate.batches.slice_filter import SliceFilter, filter_slices
from voxlate.cases.layout import CANONICAL, reorder_axes
from voxlate.options.evaluate import CROP
from voxlate.scoring.distances import RADIOLOGICAL
from voxlate.scoring.metrics import OF_PICTURES, SCOPED, ImagePair, Score
from voxlate.system.arrays import AnyArray, Bool, Float32
from voxlate.system.config import fill
from voxlate.system.errors import BadInput

MaskArray = Bool
Area = Literal["", "whole", "both_masked"]
Pictures = Literal["", "slices", "crops"]

# of a slice's longer side: beyond it, a crop shows its own border and little else
LARGEST_CROP = 2
SMALLEST_CROP = 11  # SSIM's window
MASK = "mask"  # the name of the evaluation's own mask in a slice filter


@dataclass(frozen=True)
class Scope:
    """The scope of a score: `area`, the voxels that count; `pictures`, the parts whose scores are averaged over a case.

    area: "" is that of the other scores; "whole" is every voxel; "both_masked" is every voxel after truth and image were
    set to the low end of the range outside the mask. pictures: "" scores the case as a whole.
    """

    area: Area
    pictures: Pictures

    @property
    def name(self) -> str:
        return ".".join(filter(None, (self.area, self.pictures)))

    def rule(self, mask: str | None, cut: "Cut") -> str:
        """A sentence for the caption and metrics.json."""
        where = (
            "every voxel" if self.area == "whole" or mask is None else f"voxels in the mask {mask}"
        )
        if self.area == "both_masked":
            where = (
                f"both images at the low end of the range outside the mask {mask}, then every voxel"
            )
        if not self.pictures:
            return where
        picture = self.pictures.removesuffix("s")
        kept = "without the mask" if mask is not None else "where the truth has one value only"
        parts = [
            f"mean of each axial {picture}'s own score",
            where,
            f"{self.pictures} {kept} do not count",
        ]
        if cut.slices is not None:
            parts.append(f"nor do slices without {_filter_text(cut.slices)}")
        if self.pictures == "crops":
            parts.append(
                f"one crop of {cut.size}×{cut.size} pixels a slice, its place drawn by seed {cut.seed} and the truth's voxels; a shorter side is extended by the low end of the range"
            )
        return "; ".join(parts)


EVERY = (Scope(area, pictures) for area in get_args(Area) for pictures in get_args(Pictures))
SCOPES = {scope.name: scope for scope in EVERY if scope.name}


@dataclass(frozen=True)
class Cut:
    """A filter of slices (None: all slices with a foreground), and the side (pixels) and seed of crops."""

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
    """The facts of a canonical truth [D, H, W] that scopes need: its values, and the voxels and slices that count.

    values: in the truth's unit; inside: voxels of the mask that the image covers; covered: voxels that the image covers;
    None stands for all. image_of: gives another image of the case that the slice filter names.
    """

    values: Float32
    inside: MaskArray | None
    covered: MaskArray | None
    masked: bool
    cut: Cut
    image_of: Callable[[str], AnyArray]

    @cached_property
    def slices(self) -> MaskArray:
        """The slices with a foreground (see `_counts`) that pass the filter, [D]."""
        parts = [None] * len(self.values) if self.inside is None else list(self.inside)
        kept = np.array([_counts(*pair, self.masked) for pair in zip(self.values, parts)])
        if (chosen := self.cut.slices) is not None:
            kept &= filter_slices({name: self.image_of(name) for name in chosen.above}, chosen)
        return kept

    @cached_property
    def content(self) -> str:
        """A digest of the truth's voxels, so that crops do not depend on names or order."""
        return hashlib.sha256(np.ascontiguousarray(self.values).tobytes()).hexdigest()


def scopes_from(
    names: Iterable[str], mask: object, regions: Iterable[str] = ()
) -> tuple[Scope, ...]:
    """The scopes of these names, each once; raises BadInput for other names, or if a mask is absent."""
    scopes = []
    for name in dict.fromkeys(names):
        if name not in SCOPES:
            raise BadInput(
                f"--score: expected one of {', '.join(SCOPES)}, found {name!r}. Choose one of these."
            )
        if SCOPES[name].area == "both_masked" and mask is None:
            raise BadInput(
                f"--score {name}: expected a mask, found none. Add --mask body, brain, cohort or a file."
            )
        if name in regions:
            raise BadInput(
                f"--score {name}: expected no region of that name, found one. Rename the region."
            )
        scopes.append(SCOPES[name])
    return tuple(scopes)


def filter_from(given: SliceFilter | str, mask: object, scopes: Iterable[Scope]) -> SliceFilter:
    """A slice filter, from the text of a TOML table as in a recipe's data.slices, with or without braces.

    "mask" names the evaluation's mask. Raises BadInput for other texts, or if the mask or such a scope is absent.
    """
    if not any(scope.pictures for scope in scopes):
        raise BadInput(
            "--slices: expected a --score of slices or crops, found none. Add --score slices."
        )
    if isinstance(given, SliceFilter):
        return given
    braced = given.strip() if given.strip().startswith("{") else "{" + given + "}"
    try:
        table = tomllib.loads(f"slices = {braced}")["slices"]
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(
            f'--slices: expected a table such as above={{tof="mean",cta=0}}, pixels=200, overlap=0.3, found {given!r}. Write it like this.'
        ) from error
    chosen = fill(SliceFilter, table, "--slices", "Change it in --slices.")
    if MASK in chosen.above and mask is None:
        raise BadInput("--slices: expected a mask, because above names it, found none. Add --mask.")
    return chosen


def _counts(values: Float32, inside: MaskArray | None, masked: bool) -> bool:
    """Whether a slice or crop has a foreground: a pixel of the mask, or without a mask more than one value."""
    counted = values if inside is None else values[inside]
    return bool(counted.size) and (masked or bool(counted.min() != counted.max()))


def scope_scores(
    scope: Scope, pair: ImagePair, truth: CountedVoxels, functions: Mapping[str, Score]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The scores of an image in a scope by key, and those of each of its pictures; NaN if no picture counts.

    functions: scores by key, of which those that apply are computed. Pictures with a score that is not finite (the PSNR
    of equal images) are left out of its mean.
    """
    pair = _in_area(scope.area, pair, truth)
    known = {
        key: score
        for key, score in functions.items()
        if key in (OF_PICTURES if scope.pictures else SCOPED)
    }
    if not scope.pictures:
        return {f"{scope.name}.{key}": score(pair) for key, score in known.items()}, []
    pictures = _pictures(scope, pair, truth)
    rows = [
        place | {key: score(picture) for key, score in known.items()} for place, picture in pictures
    ]
    return {f"{scope.name}.{key}": _mean([row[key] for row in rows]) for key in known}, rows


def _in_area(area: Area, pair: ImagePair, truth: CountedVoxels) -> ImagePair:
    if not area:
        return pair
    if area == "both_masked":
        assert truth.inside is not None
        low = np.float32(pair.scale.low)
        a = np.where(truth.inside, pair.truth, low)
        b = np.where(truth.inside, pair.synthesis, low)
        pair = replace(pair, truth=a, synthesis=b)
    return replace(pair, inside=truth.covered)


def _pictures(
    scope: Scope, pair: ImagePair, truth: CountedVoxels
) -> Iterator[tuple[dict[str, Any], ImagePair]]:
    """The slices or crops that count, in radiological orientation, with the place of their first pixels.

    Raises BadInput for crops that are far larger than the case's slices.
    """
    (height, width), cut = truth.values.shape[1:], truth.cut
    most = max(CROP, LARGEST_CROP * height, LARGEST_CROP * width)
    if scope.pictures == "crops" and cut.size > most:
        raise BadInput(
            f"--crop: expected at most {most} pixels a side for slices of {width}×{height}, found {cut.size}. Choose a smaller crop."
        )
    for number in map(int, np.flatnonzero(truth.slices)):
        row = column = 0
        box: tuple[slice, ...] = ()
        if scope.pictures == "crops":
            row, column = crop_place(
                cut, truth.content, number, _layer(truth.values, number).shape[1:]
            )
            box = (
                slice(None),
                slice(row, row + cut.size),
                slice(column, column + cut.size),
            )
            inside = None if truth.inside is None else _layer(truth.inside, number)[box]
            if not _counts(_layer(truth.values, number)[box], inside, truth.masked):
                continue
        a, b = (_layer(image, number)[box] for image in (pair.truth, pair.synthesis))
        within = None if pair.inside is None else _layer(pair.inside, number)[box]
        if scope.pictures == "crops":
            a, b = (_extended(image, cut.size, pair.scale.low) for image in (a, b))
            within = None if within is None else _extended(within, cut.size, False)
        place = {"scope": scope.name, "slice": number, "row": row, "column": column}
        yield (
            place,
            replace(pair, truth=a, synthesis=b, inside=within, axes=RADIOLOGICAL),
        )


def _layer(values: AnyArray, number: int) -> AnyArray:
    """One slice [1, H, W] in radiological orientation; its lower right corner is that of the slices in paper 001."""
    return reorder_axes(values[number : number + 1], CANONICAL, RADIOLOGICAL)


def crop_place(cut: Cut, content: str, number: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """First row and column of the crop of a slice [H, W], drawn uniformly.

    They depend on the seed, the truth's content and the slice's number alone.
    """
    drawn = hashlib.sha256(f"{cut.seed} {content} {number}".encode()).digest()
    height, width = shape
    row, column = (int.from_bytes(part) for part in (drawn[:8], drawn[8:16]))
    rows = max(height - cut.size, 0) + 1
    columns = max(width - cut.size, 0) + 1
    return row % rows, column % columns


def _extended(crop: AnyArray, size: int, value: float) -> AnyArray:
    """A crop [1, H, W], extended to `size` by rows and columns of one value at the end."""
    return np.pad(
        crop,
        [(0, 0), *((0, size - length) for length in crop.shape[1:])],
        constant_values=value,
    )


def _mean(values: list[float]) -> float:
    """The mean of the finite values, or of all values if none is finite."""
    kept = [value for value in values if math.isfinite(value)] or values
    return float(np.mean(kept)) if kept else math.nan


def _filter_text(chosen: SliceFilter) -> str:
    limits = {
        name: "its mean" if limit == "mean" else f"{limit:g}"
        for name, limit in chosen.above.items()
    }
    above = " and ".join(f"{name} > {limit}" for name, limit in limits.items())
    overlap = f", Dice {chosen.overlap:g}" if chosen.overlap else ""
    return f"{chosen.pixels} pixels of {above}{' each' if len(limits) > 1 else ''}{overlap}"


def check_pictures(scopes: Iterable[Scope], rows: Iterable[Mapping[str, Any]], cut: Cut) -> None:
    """Raise BadInput if a scope has no picture in any case; rows: all pictures."""
    pictured = {row["scope"] for row in rows}
    for scope in scopes:
        if scope.pictures and scope.name not in pictured:
            rule = "" if cut.slices is None else f" with {_filter_text(cut.slices)}"
            raise BadInput(
                f"--score {scope.name}: expected {scope.pictures} that show something{rule} in at least one case, found none. Change --slices, or check the mask."
            )
