"""Further scopes of scores, by name: every voxel, random crops of slices as paper 001 scores them, and challenges."""

import hashlib
import math
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from voxlate.base.array_types import AnyArray, Float32
from voxlate.base.config import fill
from voxlate.base.errors import BadInput
from voxlate.evaluation.scoring.evaluators import RULES
from voxlate.evaluation.scoring.metrics import OF_PICTURES, RADIOLOGICAL, ImagePair, Score
from voxlate.scans.cases.case import CANONICAL, reorder_axes
from voxlate.scans.images.ranges import WHOLE_MASK
from voxlate.training.batches.slice_filter import SliceFilter, filter_slices

CROPS = "crops"
MASK = "mask"  # the name of the evaluation's own mask in a slice filter
SCOPES = {
    WHOLE_MASK: "every voxel",
    CROPS: "mean over one random crop of each axial slice that shows something",
    **RULES,
}


@dataclass(frozen=True)
class Crops:
    """The side of crops in pixels, the seed of their places, and the slices that are cut (None: all that show something)."""

    size: int
    seed: int = 0
    slices: SliceFilter | None = None

    def rule(self) -> str:
        """A sentence for the caption and metrics.json."""
        chosen = "" if self.slices is None else f"; slices with {_filter_text(self.slices)}"
        return f"{SCOPES[CROPS]}{chosen}; {self.size}×{self.size} pixels, placed by seed {self.seed} and the truth's voxels"


def scopes_from(names: Iterable[str], regions: Collection[str]) -> tuple[str, ...]:
    """The names of scopes, each once; raises BadInput for others, and for those of regions."""
    for name in names:
        if name not in SCOPES:
            raise BadInput(
                f"--scopes: expected one of {', '.join(SCOPES)}, found {name!r}. Choose one of these."
            )
        if name in regions:
            raise BadInput(
                f"--scopes {name}: expected no region of that name, found one. Rename the region."
            )
    return tuple(dict.fromkeys(names))


def filter_from(given: SliceFilter | str, mask: object, scopes: Collection[str]) -> SliceFilter:
    """A slice filter, from the text of a TOML table as in a recipe's data.slices, with or without braces.

    "mask" names the evaluation's mask. Raises BadInput for other texts, and where the mask or the scope of crops is absent.
    """
    if CROPS not in scopes:
        raise BadInput(
            "--slices: expected --scopes crops with it, found none. Add --scopes crops, or drop --slices."
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


def crop_scores(
    crops: Crops,
    pair: ImagePair,
    truth: Float32,
    masked: bool,
    image_of: Callable[[str], AnyArray],
    functions: Mapping[str, Score],
) -> dict[str, float]:
    """The mean scores of an image over its crops by key; NaN where no crop counts.

    pair: on the scored range; masked: whether the evaluation has a mask; others: see `cut_crops`. A score that is not
    finite (the PSNR of equal images) is left out of its mean.
    """
    pictures = [*cut_crops(crops, pair, truth, masked, image_of)]
    means = {}
    for key in OF_PICTURES:
        if key in functions:
            values = [functions[key](picture) for picture in pictures]
            finite = [value for value in values if math.isfinite(value)] or values
            means[f"{CROPS}.{key}"] = float(np.mean(finite)) if finite else math.nan
    return means


def cut_crops(
    crops: Crops,
    pair: ImagePair,
    truth: Float32,
    masked: bool,
    image_of: Callable[[str], AnyArray],
) -> Iterator[ImagePair]:
    """The crops that show something, of the slices that do and pass the filter, in radiological orientation.

    truth: [D, H, W] canonical, in its own unit; image_of: gives another image of the case that the slice filter names.
    """
    values, a, b = (_turn(image) for image in (truth, pair.truth, pair.synthesis))
    inside = None if pair.inside is None else _turn(pair.inside)

    def shows_something(*box: slice) -> bool:
        """Whether a part has a pixel of the mask, or without a mask more than one value."""
        shown = values[box] if inside is None else values[box][inside[box]]
        return bool(shown.size) and (masked or bool(shown.min() != shown.max()))

    kept = np.array([shows_something(slice(k, k + 1)) for k in range(len(values))])
    if crops.slices is not None:
        named = {name: image_of(name) for name in crops.slices.above}
        kept &= filter_slices(named, crops.slices)
    # a digest of the truth's voxels, so that crops do not depend on names or order
    content = hashlib.sha256(np.ascontiguousarray(truth).tobytes()).hexdigest()
    for number in np.flatnonzero(kept).tolist():
        row, column = crop_place(crops, content, number, values.shape[1:])
        rows, columns = slice(row, row + crops.size), slice(column, column + crops.size)
        box = (slice(number, number + 1), rows, columns)
        if shows_something(*box):
            yield replace(
                pair,
                truth=_cut(a, box, pair.scale.low),
                synthesis=_cut(b, box, pair.scale.low),
                inside=None if inside is None else _cut(inside, box, False),
                axes=RADIOLOGICAL,
            )


def _cut(image: AnyArray, box: tuple[slice, ...], edge: float) -> AnyArray:
    """A crop [1, H, W]; one that ends outside the slice is extended by rows and columns of one value."""
    part = image[box]
    ends = [(0, side.stop - side.start - length) for side, length in zip(box, part.shape)]
    return np.pad(part, ends, constant_values=edge)


def _turn(values: AnyArray) -> AnyArray:
    """A volume in radiological orientation; the lower right corner of its slices is that of the slices in paper 001."""
    return reorder_axes(values, CANONICAL, RADIOLOGICAL)


def crop_place(crops: Crops, content: str, number: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """First row and column of the crop of a slice [H, W], drawn uniformly.

    They depend on the seed, the truth's content and the slice's number alone.
    """
    digest = hashlib.sha256(f"{crops.seed} {content} {number}".encode()).digest()
    row, column = (
        int.from_bytes(part) % (max(length - crops.size, 0) + 1)
        for part, length in zip((digest[:8], digest[8:16]), shape)
    )
    return row, column


def _filter_text(chosen: SliceFilter) -> str:
    limits = [
        f"{name} > {'its mean' if limit == 'mean' else f'{limit:g}'}"
        for name, limit in chosen.above.items()
    ]
    overlap = f", Dice {chosen.overlap:g}" if chosen.overlap else ""
    return f"{chosen.pixels} pixels of {' and '.join(limits)}{overlap}"
