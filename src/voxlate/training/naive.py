"""The naive baselines that a model must beat, from the training cases only.

These are the mean image, copies of the sources and intensity tables; for several sources also their mean and a
least-squares map.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from voxlate.base.array_types import AnyArray, Bool, Float32, Float64
from voxlate.base.errors import BadInput
from voxlate.base.files import CHECKSUM
from voxlate.base.records import Record, checksum, write_tensors
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
class Baselines:
    """The naive baselines, learned from the training cases.

    ranges: of every modality; cases: the number of training cases; fixed: the modality whose grid the means fill ("":
    the target's own); align: turned to its midline; typical: of targets in shares of each image's own peak, the values in
    their unit that 0 and 1 stand for, the training's medians. means: [D, H, W] of each target, canonical; tables:
    (source, target) -> [BINS], the target's mean value where the source is in that bin of its range; products:
    [M + 1, M + 1], mean products of all modalities (by name) and 1 over foregrounds, which hold the least-squares map
    from any of them to another.
    """

    ranges: Mapping[str, Range]
    cases: int
    fixed: str = ""
    align: bool = False
    typical: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    means: dict[str, Float32] = field(default_factory=dict)
    tables: dict[tuple[str, str], Float32] = field(default_factory=dict)
    products: Float64 | None = None

    def save(self, path: Path | str) -> None:
        """Write the baselines as a safetensors file."""
        tensors: dict[str, AnyArray] = {f"mean:{name}": mean for name, mean in self.means.items()}
        for (source, target), table in self.tables.items():
            tensors[f"table:{source}:{target}"] = table
        if self.products is not None:
            tensors["products"] = self.products
        stated = ("ranges", "cases", "fixed", "align", "typical")
        texts = {key: json.dumps(getattr(self, key), default=vars) for key in stated}
        write_tensors(path, tensors, {**texts, CHECKSUM: baselines_checksum(texts, tensors)})

    @classmethod
    def load(cls, path: Path | str) -> "Baselines":
        """Raises BadInput where the file is absent, was changed, or holds something else."""
        record = Record(
            path, "the naive baselines of a training", "Train again, or score without them."
        )
        with record.tensors() as file:
            digest = file.text(CHECKSUM)
            texts = {key: text for key, text in file.metadata.items() if key != CHECKSUM}
            tensors = file.arrays
        record.check_checksum(digest, baselines_checksum(texts, tensors))
        stated = {key: json.loads(text) for key, text in texts.items()}
        stated["ranges"] = {name: Range(**one) for name, one in stated["ranges"].items()}
        stated["typical"] = {name: tuple(ends) for name, ends in stated["typical"].items()}
        learned = cls(**stated, products=tensors.pop("products", None))
        for key, values in tensors.items():
            kind, *names = key.split(":")
            if kind == "mean":
                learned.means[names[0]] = values
            else:
                learned.tables[names[0], names[1]] = values
        return learned

    def in_own_unit(self, image: Volume) -> Volume:
        """A baseline's image in the unit of its modality's scans."""
        name = image.modality
        low, high = self.typical.get(name, (0.0, 1.0))
        data = image.data * np.float32(high - low) + np.float32(low)
        return replace(image, data=data, unit=self.ranges[name].unit)

    def mean_image(self, target: str, box: Grid) -> Volume:
        """The mean of the training targets, stretched to fill a case's grid [D, H, W]."""
        blank = canonical(Volume(np.zeros((1, *box.shape), np.float32), box.affine, "", target))
        mean = _stretch(self.means[target], blank.data.shape[1:])
        return return_to(Volume(mean[None], blank.affine, "", target), box)

    def images(self, target: str, sources: Mapping[str, Volume], grid: Grid) -> dict[str, Float32]:
        """Copies and tables of one case on `grid` [D, H, W], in the unit of the target's range.

        sources: the case's scans (resampled to `grid` where they have another); each has its own copy and table.
        """
        result = dict[str, Float32]()
        copies = dict[str, Float32]()
        to = self.ranges.get(target)
        several = sum(made == target for _, made in self.tables) > 1
        for name in sources:
            scale = self.ranges.get(name)
            if to is None or scale is None or name == target:
                continue
            scan = return_to(sources[name], grid)
            values = scale.normalise(scan.data[0], foreground(scan) if scale.own else None)
            copies[name] = to.low + (values - scale.low) * np.float32(to.width / scale.width)
            result[f"copy of {name}"] = copies[name]
            if (name, target) in self.tables:
                label = "intensity table" + (f" of {name}" if several else "")
                result[label] = self.tables[name, target][_bins(values, scale)]
        if len(copies) > 1:
            result["mean of the sources"] = np.mean(list(copies.values()), axis=0, dtype=np.float32)
            if self.products is not None:
                result["least squares"] = self._least_squares(self.products, target, copies)
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


def baselines_checksum(texts: Mapping[str, str], tensors: Mapping[str, AnyArray]) -> str:
    """The checksum of a file of baselines."""
    return checksum(
        json.dumps(texts, sort_keys=True),
        tensors,
        lambda name, values: repr((name, values.shape, values.dtype.str)),
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
    scales = {name: ranges[name] for name in (*sources, *targets)}
    count = voxels = 0
    totals, images = dict[str, Float64](), Counter[str]()
    pairs = [pair for pair in product(sources, targets) if pair[0] != pair[1]]
    sums = {pair: np.zeros((2, BINS)) for pair in pairs}
    ends = defaultdict[str, list[tuple[float, float]]](list)
    products = np.zeros((len(scales) + 1,) * 2)
    for volumes, outlines in cases:
        count += 1
        known, values = outlines or {}, dict[str, Float32]()
        for name in scales.keys() & volumes.keys():
            volume, scale = volumes[name], scales[name]
            inside = known.get(name)
            if scale.own and inside is None:
                inside = foreground(volume)
            values[name] = image = scale.normalise(volume.data[0], inside)
            if name not in targets:
                continue
            if scale.own:
                ends[name].append(floor_and_peak(volume.data[0], inside))
            shrink = min(1.0, (MEAN_VOXELS / image.size) ** (1 / 3))
            shape = [max(1, round(length * shrink)) for length in image.shape]
            total = totals.setdefault(name, np.zeros(shape))
            total += _stretch(image, total.shape)
            images[name] += 1
        if len(values) == len(scales) > 2:
            shares = _shares(values, scales, [*known.values()])
            products += shares @ shares.T
            voxels += shares.shape[1]
        for source, target in pairs:
            if source in values and target in values:
                bins = _bins(values[source], scales[source]).ravel()
                weighted = np.bincount(bins, values[target].ravel(), BINS)
                sums[source, target] += weighted, np.bincount(bins, None, BINS)
    if empty := [name for name in targets if name not in totals]:
        raise BadInput(
            f"naive baselines: expected training cases with {', '.join(empty)}, found none. Check the cohort's split and the names of its modalities."
        )
    tables = {}
    for pair, (total, counts) in sums.items():
        filled = np.flatnonzero(counts)
        if filled.size:  # bins without a training voxel are interpolated
            line = np.interp(np.arange(BINS), filled, total[filled] / counts[filled])
            tables[pair] = line.astype(np.float32)
    return Baselines(
        scales,
        count,
        typical={name: tuple(np.median(pairs, axis=0).tolist()) for name, pairs in ends.items()},
        means={name: (totals[name] / images[name]).astype(np.float32) for name in targets},
        tables=tables,
        products=products / voxels if voxels else None,
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

    def read() -> Iterator[Case]:
        """The wanted scans of the cases, and where each shows the body."""
        for entry in chosen:
            case = cohort.case(entry.case)
            names = wanted & {*case.header.visible}
            outlines = {name: case.mask([name]) for name in names}
            yield {name: case.volume(name) for name in names}, outlines

    how = cohort.preparation
    moved = how.resample or how.register is not None or how.align is not None
    learned = fit(read(), sources, targets, ranges)
    return replace(learned, fixed=(moved and how.fixed) or "", align=how.align is not None)


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
    return zoom(image, factors, order=1, mode="nearest", grid_mode=True)
