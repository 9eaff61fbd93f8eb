"""The naive baselines that a model must beat, from the training cases only.

These are the mean image, copies of the sources and intensity tables; for several sources also their mean and a
least-squares map.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from voxlate.base.arrays import AnyArray, Bool, Float32, Float64
from voxlate.base.errors import BadInput
from voxlate.base.files import CHECKSUM
from voxlate.base.records import (
    Name,
    Number,
    Record,
    Several,
    Shape,
    Text,
    checksum,
    write_tensors,
)
from voxlate.scans.cases.case import PreparedCase
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.images.grid import Grid, Volume, canonical, return_to
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.ranges import Range, floor_and_peak, range_for

BINS = 1024  # of an intensity table: four for each level of 8 bit pictures, 4 HU for CT
MEAN_VOXELS = 1 << 22  # a mean of many heads is smooth: 16 MiB hold it however large the scans are
MOST_CASES = 200  # a mean and a table of more cases are the same to three digits

# Scans, and where each shows the body; None where that is unknown.
Case = tuple[Mapping[str, Volume], Mapping[str, Bool] | None]


@dataclass(frozen=True)
class _Header:
    """The header of a file of baselines."""

    ranges: dict[Name, Range]
    cases: Several
    fixed: Text = ""
    align: bool = False
    typical: dict[Name, tuple[Number, Number]] = field(default_factory=dict)


@dataclass(frozen=True)
class Baselines(_Header):
    """The naive baselines, learned from the training cases.

    ranges: of every modality; cases: the number of training cases; fixed: the modality whose grid the means fill ("":
    the target's own); align: turned to its midline; typical: of targets in shares of each image's own peak, the values in
    their unit that 0 and 1 stand for, the training's medians. means: [D, H, W] of each target, canonical; tables:
    (source, target) -> [BINS], the target's mean value where the source is in that bin of its range; products:
    [M + 1, M + 1], mean products of all modalities (by name) and 1 over foregrounds, which hold the least-squares map
    from any of them to another.
    """

    means: dict[str, Float32] = field(default_factory=dict)
    tables: dict[tuple[str, str], Float32] = field(default_factory=dict)
    products: Float64 | None = None

    def save(self, path: Path | str) -> None:
        """Write the baselines as a safetensors file."""
        stated = dict(vars(self))
        means, tables, products = (stated.pop(name) for name in ("means", "tables", "products"))
        tensors: dict[str, AnyArray] = {f"mean:{name}": mean for name, mean in means.items()}
        tensors |= {":".join(("table", *pair)): table for pair, table in tables.items()}
        if products is not None:
            tensors["products"] = products
        texts = {key: json.dumps(value, default=vars) for key, value in stated.items()}
        write_tensors(path, tensors, {**texts, CHECKSUM: baselines_checksum(texts, tensors)})

    @classmethod
    def load(cls, path: Path | str) -> "Baselines":
        """Raises BadInput where the file is absent, was changed, or holds something else."""
        record = Record(
            path, "the naive baselines of a training", "Train again, or score without them."
        )
        with record.tensors() as file:
            texts = dict(file.metadata)
            digest = file.text(CHECKSUM)
            del texts[CHECKSUM]
            stated = record.fill(_Header, {key: record.table(text) for key, text in texts.items()})
            tensors = file.read(_shapes(record, stated, list(file.shapes)))
        record.check_checksum(digest, baselines_checksum(texts, tensors))
        means = {}
        tables = {}
        for key, values in tensors.items():
            kind, *names = key.split(":")
            if kind == "mean":
                means[names[0]] = values
            elif kind == "table":
                tables[names[0], names[1]] = values
        return cls(**vars(stated), means=means, tables=tables, products=tensors.get("products"))

    def in_own_unit(self, image: Volume) -> Volume:
        """A baseline's image in the unit of its modality's scans."""
        name = image.modality
        low, high = self.typical.get(name, (0.0, 1.0))
        data = image.data * np.float32(high - low) + np.float32(low)
        return replace(image, data=data, unit=self.ranges[name].unit)

    def mean_image(self, target: str, box: Grid) -> Volume:
        """The mean of the training targets, stretched to fill a case's grid [D, H, W]."""
        zeros = np.zeros((1, *box.shape), np.float32)
        blank = canonical(Volume(zeros, box.affine, "", target))
        mean = _stretch(self.means[target], blank.data.shape[1:])
        return return_to(Volume(mean[None], blank.affine, "", target), box)

    def images(self, target: str, sources: Mapping[str, Volume], grid: Grid) -> dict[str, Float32]:
        """Copies and tables of one case on `grid` [D, H, W], in the unit of the target's range.

        sources: the case's scans (resampled to `grid` where they have another); each has its own copy and table.
        """
        scans = {name: return_to(one, grid) for name, one in sources.items() if name in self.ranges}
        on_range = {name: _to_range(one, self.ranges[name]) for name, one in scans.items()}
        return self.images_of_values(target, on_range)

    def images_of_values(self, target: str, sources: Mapping[str, Float32]) -> dict[str, Float32]:
        """As `images`, of sources [D, H, W] that are on their scored ranges."""
        if target not in self.ranges:
            return {}
        result = {}
        others = dict[str, Float32]()
        to = self.ranges[target]
        several = len([pair for pair in self.tables if pair[1] == target]) > 1
        for name, values in sources.items():
            if name == target or name not in self.ranges:
                continue
            scale = self.ranges[name]
            others[name] = to.low + (values - scale.low) * np.float32(to.width / scale.width)
            result[f"copy of {name}"] = others[name]
            if (name, target) in self.tables:
                label = "intensity table" + (f" of {name}" if several else "")
                result[label] = self.tables[name, target][_bins(values, scale)]
        if len(others) > 1:
            result["mean of the sources"] = np.mean(list(others.values()), axis=0, dtype=np.float32)
            if self.products is not None:
                result["least squares"] = self._least_squares(self.products, target, others)
        return result

    def _least_squares(
        self, products: Float64, target: str, others: Mapping[str, Float32]
    ) -> Float32:
        """The best linear map of the sources over foregrounds; the low end where no source shows anything."""
        to = self.ranges[target]
        names = sorted(self.ranges)
        at = [*(names.index(name) for name in others), len(names)]
        of_target = products[at, names.index(target)]
        weights = np.linalg.lstsq(products[np.ix_(at, at)], of_target, rcond=1e-9)[0]
        shares = [(values - to.low) / to.width for values in others.values()]
        fitted = weights[-1] + sum(weight * share for weight, share in zip(weights, shares))
        empty = np.all([share <= 0 for share in shares], axis=0)
        return np.where(empty, to.low, to.low + fitted * to.width).astype(np.float32)


def _shapes(record: Record, stated: _Header, names: Sequence[str]) -> dict[str, Shape]:
    """The shapes of a file's arrays: means of some modalities, tables between them, mean products of all."""
    targets = [name.partition(":")[2] for name in names if name.startswith("mean:")]
    ranges = stated.ranges
    record.check(bool(targets), "no mean image")
    record.check(ranges.keys() >= {*targets}, "a mean image of which it has no range")
    own = {name for name in targets if ranges[name].own}
    record.check(stated.typical.keys() == own, "typical values of other targets")
    shapes = {f"mean:{name}": Shape((None, None, None)) for name in targets}
    for source, target in product(ranges, targets):
        name = f"table:{source}:{target}"
        if name in names and source != target:
            shapes[name] = Shape((BINS,))
    if "products" in names and len(ranges) > 2:
        shapes["products"] = Shape((len(ranges) + 1,) * 2, ("F64",))
    return shapes


def baselines_checksum(texts: Mapping[str, str], tensors: Mapping[str, AnyArray]) -> str:
    """The checksum of a file of baselines."""
    ordered = json.dumps(texts, sort_keys=True)
    return checksum(
        ordered, tensors, lambda name, values: repr((name, values.shape, values.dtype.str))
    )


def fit(
    cases: Iterable[Case],
    sources: Sequence[str],
    targets: Sequence[str],
    ranges: Mapping[str, Range],
) -> Baselines:
    """Learn the naive baselines from training cases, one at a time.

    cases: canonical volumes by modality and the foreground of each (None: it is found), of one grid within a case; a
    case counts for the targets and sources that it has.
    Targets of several sizes are stretched to the first one's box for the mean image.
    Raises BadInput where no case has a target.
    """
    sums = Sums({name: ranges[name] for name in (*sources, *targets)}, sources, targets)
    for volumes, outlines in cases:
        sums.add(volumes, outlines or {})
    empty = [name for name in targets if name not in sums.totals]
    if empty:
        raise BadInput(
            f"naive baselines: expected training cases with {', '.join(empty)}, found none. Check the cohort's split and the names of its modalities."
        )
    return sums.baselines()


class Sums:
    """Sums over the cases that were added: of targets, of tables' bins, and of products of shares."""

    def __init__(
        self, ranges: dict[str, Range], sources: Sequence[str], targets: Sequence[str]
    ) -> None:
        self.ranges, self.targets = ranges, targets
        self.cases = self.voxels = 0
        self.totals = dict[str, Float64]()
        self.images = Counter[str]()
        pairs = [pair for pair in product(sources, targets) if pair[0] != pair[1]]
        self.tables = {pair: np.zeros((2, BINS)) for pair in pairs}
        self.ends = defaultdict[str, list[tuple[float, float]]](list)
        self.products = np.zeros((len(ranges) + 1,) * 2)

    def add(self, volumes: Mapping[str, Volume], outlines: Mapping[str, Bool]) -> None:
        """Add one case; outlines: the foregrounds of its scans, as `images` finds them, as far as they are known."""
        ranges = self.ranges
        self.cases += 1
        values = {}
        for name in ranges.keys() & volumes.keys():
            values[name] = _to_range(volumes[name], ranges[name], outlines.get(name))
        for name in values.keys() & {*self.targets}:
            if ranges[name].own:
                inside = outlines[name] if name in outlines else foreground(volumes[name])
                self.ends[name].append(floor_and_peak(volumes[name].data[0], inside))
            if name not in self.totals:
                size = values[name].shape
                shrink = min(1.0, (MEAN_VOXELS / values[name].size) ** (1 / 3))
                self.totals[name] = np.zeros([max(1, round(n * shrink)) for n in size])
            self.totals[name] += _stretch(values[name], self.totals[name].shape)
            self.images[name] += 1
        if len(values) == len(ranges) > 2:
            shares = _shares(values, ranges, [*outlines.values()])
            self.products += shares @ shares.T
            self.voxels += shares.shape[1]
        for (source, target), table in self.tables.items():
            if source in values and target in values:
                bins = _bins(values[source], ranges[source]).ravel()
                table[0] += np.bincount(bins, values[target].ravel(), BINS)
                table[1] += np.bincount(bins, minlength=BINS)

    def baselines(self) -> Baselines:
        """The baselines of the cases that were added; bins without a training voxel are interpolated."""
        means = {
            name: (self.totals[name] / self.images[name]).astype(np.float32)
            for name in self.targets
            if name in self.totals
        }
        tables = {}
        for pair, (sums, counts) in self.tables.items():
            filled = np.flatnonzero(counts)
            if filled.size:
                values = np.interp(np.arange(BINS), filled, sums[filled] / counts[filled])
                tables[pair] = values.astype(np.float32)
        typical = {}
        for name, ends in self.ends.items():
            low, high = np.median(ends, axis=0).tolist()
            typical[name] = low, high
        products = self.products / self.voxels if self.voxels else None
        return Baselines(
            self.ranges,
            self.cases,
            typical=typical,
            means=means,
            tables=tables,
            products=products,
        )


def fit_cohort(
    cohort: Cohort,
    sources: Sequence[str],
    targets: Sequence[str],
    windows: Mapping[str, Sequence[float]] | None = None,
) -> Baselines:
    """Learn the naive baselines from the training cases of a prepared cohort (at most MOST_CASES, evenly chosen).

    windows: (low, high) of modalities whose range the recipe fixes.
    """
    wanted = {*sources, *targets}
    training = [
        case for case in cohort.cases if case.split == "train" and wanted & set(case.present)
    ]
    chosen = training[:: -(-len(training) // MOST_CASES) or 1]
    ranges = {}
    for name in wanted & cohort.units.keys():
        having = [cohort.header(entry.case) for entry in cohort.cases if name in entry.present]
        largest = max(header.statistics[name].all.at(100) for header in having)
        window = (windows or {}).get(name)
        ranges[name] = range_for(cohort.units[name], largest, window, "the recipe's window")

    def read(case: PreparedCase) -> Case:
        """The wanted scans of a case, and where each shows the body."""
        names = wanted & {*case.header.visible}
        outlines = {name: case.mask([name]) for name in names}
        return {name: case.volume(name) for name in names}, outlines

    how = cohort.preparation
    moved = how.resample or how.register is not None or how.align is not None
    learned = fit((read(cohort.case(entry.case)) for entry in chosen), sources, targets, ranges)
    fixed = how.fixed if moved and how.fixed else ""
    return replace(learned, fixed=fixed, align=how.align is not None)


def _to_range(volume: Volume, scale: Range, body: Bool | None = None) -> Float32:
    """Values on the scored range; the foreground is computed only where it is needed and not given."""
    if scale.own and body is None:
        body = foreground(volume)
    return scale.normalise(volume.data[0], body)


def _shares(
    values: Mapping[str, Float32], ranges: Mapping[str, Range], outlines: Sequence[Bool]
) -> Float64:
    """Values as shares of their ranges, by name, and a row of 1: [M + 1, voxels that some modality shows]."""
    shares = [
        (values[name].astype(np.float64) - scale.low) / scale.width
        for name, scale in sorted(ranges.items())
    ]
    inside = np.any(outlines or [share > 0 for share in shares], axis=0)
    rows = [share[inside] for share in shares]
    return np.stack([*rows, np.ones_like(rows[0])])


def _bins(values: Float32, scale: Range) -> NDArray[np.intp]:
    scaled = (values - scale.low) * (BINS / scale.width)
    return np.clip(scaled, 0, BINS - 1).astype(np.intp)


def _stretch(image: AnyArray, shape: Sequence[int]) -> Float32:
    image = image.astype(np.float32)
    if image.shape == tuple(shape):
        return image
    factors = [new / old for new, old in zip(shape, image.shape)]
    return zoom(
        image,
        factors,
        order=1,
        mode="nearest",
        grid_mode=True,
    )
