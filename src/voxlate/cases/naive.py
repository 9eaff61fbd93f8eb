"""The naive baselines that a model must beat, from the training cases only.

These are the mean image, copies of the sources and intensity tables; for several sources also their mean and a
least-squares map.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from voxlate.cases.prepared import Cohort
from voxlate.images.grid import Grid, Volume, canonical, return_to
from voxlate.images.mask import foreground
from voxlate.images.ranges import Range, floor_and_peak, range_for
from voxlate.system.arrays import AnyArray, Bool, Float32, Float64
from voxlate.system.errors import BadInput
from voxlate.system.files import CHECKSUM
from voxlate.system.records import (
    FLOATS,
    LARGEST,
    Name,
    Number,
    Record,
    Several,
    Shape,
    Text,
    checksum,
    close,
    write_tensors,
)

BINS = 1024  # of an intensity table: four for each level of 8 bit pictures, 4 HU for CT
MEAN_VOXELS = 1 << 22  # a mean of many heads is smooth: 16 MiB hold it however large the scans are
MOST_PEAKS = 1e6  # times a scan's own peak: no voxel's mean is larger
MOST_CASES = 200  # a mean and a table of more cases are the same to three digits

Body = Bool | None
Case = tuple[Mapping[str, Volume], Body]


@dataclass(frozen=True)
class Baselines:
    """The naive baselines, learned from the training cases.

    ranges: of every modality; means: [D, H, W] of each target, canonical; tables: (source, target) -> [BINS],
    the target's mean value where the source is in that bin of its range; cases: the number of training cases.
    products: [M + 1, M + 1], mean products of all modalities (by name) and 1 over foregrounds, which hold the
    least-squares map from any of them to another. fixed: the modality whose grid the means fill ("": the target's own);
    align: turned to its midline. typical: of targets in shares of each image's own peak, the values in their unit that
    0 and 1 stand for, the training's medians.
    """

    ranges: dict[str, Range]
    means: dict[str, Float32]
    tables: dict[tuple[str, str], Float32]
    cases: int
    products: Float64 | None = None
    fixed: str = ""
    align: bool = False
    typical: dict[str, tuple[float, float]] = field(default_factory=dict)

    def save(self, path: Path | str) -> None:
        tensors: dict[str, AnyArray] = {f"mean:{name}": mean for name, mean in self.means.items()}
        tensors |= {
            f"table:{source}:{target}": table for (source, target), table in self.tables.items()
        }
        if self.products is not None:
            tensors["products"] = self.products
        stated = {name: getattr(self, name) for name in ("cases", "fixed", "align", "typical")}
        stated["ranges"] = {name: vars(value) for name, value in self.ranges.items()}
        texts = {key: json.dumps(value) for key, value in stated.items()}
        write_tensors(path, tensors, {**texts, CHECKSUM: baselines_checksum(texts, tensors)})

    @classmethod
    def load(cls, path: Path | str) -> "Baselines":
        """Raises BadInput where the file is absent, was changed, or holds something else."""
        record = Record(
            path,
            "the naive baselines of a training",
            "Train again, or score without them.",
        )
        with record.tensors() as file:
            texts = dict(file.metadata)
            digest = texts.pop(CHECKSUM, None)  # version 0.6 wrote none
            stated = record.fill(_Stated, {key: record.table(text) for key, text in texts.items()})
            tensors = file.read(_shapes(record, stated, list(file.shapes)))
        if digest is not None:
            record.check_checksum(digest, baselines_checksum(texts, tensors))
        keyed = {tuple(key.split(":")): value for key, value in tensors.items()}
        baselines = cls(
            ranges=stated.ranges,
            means={key[1]: value for key, value in keyed.items() if key[0] == "mean"},
            tables={(key[1], key[2]): value for key, value in keyed.items() if key[0] == "table"},
            cases=stated.cases,
            products=keyed.get(("products",)),
            fixed=stated.fixed,
            align=stated.align,
            typical=stated.typical,
        )
        _check(record, baselines)
        return baselines

    def in_own_unit(self, image: Volume) -> Volume:
        """A baseline's image in the unit of its modality's scans."""
        if not self.ranges[image.modality].own:
            return image
        low, high = self.typical[image.modality]
        return replace(image, data=image.data * np.float32(high - low) + np.float32(low))

    def mean_image(self, target: str, box: Grid) -> Volume:
        """The mean of the training targets, stretched to fill a case's grid [D, H, W]."""
        zeros = np.zeros((1, *box.shape), np.float32)
        blank = canonical(Volume(zeros, box.affine, "", target))
        mean = _stretch(self.means[target], blank.data.shape[1:])
        return return_to(Volume(mean[None], blank.affine, "", target), box)

    def images(
        self,
        target: str,
        sources: Mapping[str, Volume],
        grid: Grid,
    ) -> dict[str, Float32]:
        """Copies and tables of one case on `grid` [D, H, W], in the unit of the target's range.

        sources: the case's scans (resampled to `grid` where they have another); each has its own copy and table.
        """
        result = {}
        others = dict[str, Float32]()
        to = self.ranges.get(target)
        several = len([pair for pair in self.tables if pair[1] == target]) > 1
        for name, source in sources.items():
            if to is None or name == target or name not in self.ranges:
                continue
            scale = self.ranges[name]
            values = _to_range(return_to(source, grid), scale)
            others[name] = to.low + (values - scale.low) * np.float32(to.width / scale.width)
            result[f"copy of {name}"] = others[name]
            if (name, target) in self.tables:
                label = "intensity table" + (f" of {name}" if several else "")
                result[label] = self.tables[name, target][_bins(values, scale)]
        if to is not None and len(others) > 1:
            result["mean of the sources"] = np.mean(list(others.values()), axis=0, dtype=np.float32)
            if self.products is not None:
                result["least squares"] = self._least_squares(target, others, to)
        return result

    def _least_squares(
        self,
        target: str,
        others: Mapping[str, Float32],
        to: Range,
    ) -> Float32:
        """The best linear map of the sources over foregrounds; the low end where no source shows anything."""
        assert self.products is not None
        names = sorted(self.ranges)
        at = [*(names.index(name) for name in others), len(names)]
        of_target = self.products[at, names.index(target)]
        weights = np.linalg.lstsq(self.products[np.ix_(at, at)], of_target, rcond=1e-9)[0]
        shares = [(values - to.low) / to.width for values in others.values()]
        fitted = weights[-1] + sum(weight * share for weight, share in zip(weights, shares))
        empty = np.all([share <= 0 for share in shares], axis=0)
        return np.where(empty, to.low, to.low + fitted * to.width).astype(np.float32)


@dataclass(frozen=True)
class _Stated:
    """The header of a file of baselines."""

    ranges: dict[Name, Range]
    cases: Several
    fixed: Text = ""  # version 0.6.0 wrote ranges and cases alone
    align: bool = False
    typical: dict[Name, tuple[Number, Number]] = field(default_factory=dict)


def _shapes(record: Record, stated: _Stated, names: Sequence[str]) -> dict[str, Shape]:
    """The shapes of a file's arrays: means of some modalities, tables between them, mean products of all."""
    targets = [name.partition(":")[2] for name in names if name.startswith("mean:")]
    shapes = dict[str, Shape]()
    record.check(bool(targets), "no mean image")
    for name in targets:
        record.check(name in stated.ranges, f"a mean image of '{name}', of which it has no range")
        shapes[f"mean:{name}"] = Shape((None, None, None), FLOATS, *_ends(stated.ranges[name]))
    for target in targets:
        for source in stated.ranges.keys() - {target}:
            name = f"table:{source}:{target}"
            if name in names:
                shapes[name] = Shape((BINS,), FLOATS, *_ends(stated.ranges[target]))
    if "products" in names and len(stated.ranges) > 2:
        shapes["products"] = Shape((len(stated.ranges) + 1,) * 2, ("F64",))
    return shapes


def _ends(scale: Range) -> tuple[float, float]:
    """The least and largest value of images on a range, with a margin for rounding in float32."""
    if scale.own:
        return -MOST_PEAKS, MOST_PEAKS
    margin = 1e-5 * max(abs(scale.low), abs(scale.high))
    return scale.low - margin, scale.high + margin


def _check(record: Record, found: Baselines) -> None:
    """Raise BadInput unless the parts of a file agree with each other."""
    own = {name for name in found.means if found.ranges[name].own}
    record.check(
        found.typical.keys() == own, f"typical values of {', '.join(found.typical) or 'no target'}"
    )
    for name, (low, high) in found.typical.items():
        record.check(low < high, f"typical values of {name} from {low:g} to {high:g}")
    for name, mean in found.means.items():
        record.check(mean.size <= 2 * MEAN_VOXELS, f"a mean image of {name} of {mean.size} voxels")
    for name, scale in found.ranges.items():
        largest = max(abs(scale.low), abs(scale.high))
        record.check(largest <= LARGEST, f"a range of {name} from {scale.low:g} to {scale.high:g}")
    if found.products is not None:
        symmetric = np.array_equal(found.products, found.products.T)
        sound = symmetric and close(float(found.products[-1, -1]), 1)
        record.check(sound, "mean products that are none")


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

    cases: canonical volumes by modality and their foreground (None: found in each), of one grid within a case; a
    case counts for the targets and sources that it has.
    Targets of several sizes are stretched to the first one's box for the mean image.
    Raises BadInput where no case has a target.
    """
    totals: dict[str, Float64] = {}
    images = dict.fromkeys(targets, 0)
    pairs = [(source, target) for source in sources for target in targets if source != target]
    sums = {pair: np.zeros((2, BINS)) for pair in pairs}
    count = 0
    names = sorted({*sources, *targets})
    ends: dict[str, list[tuple[float, float]]] = {name: [] for name in targets if ranges[name].own}
    products = np.zeros((len(names) + 1, len(names) + 1))
    voxels = 0
    for volumes, body in cases:
        count += 1
        present = {*sources, *targets} & volumes.keys()
        values = {name: _to_range(volumes[name], ranges[name], body) for name in present}
        for name in ends.keys() & present:
            inside = foreground(volumes[name]) if body is None else body
            ends[name].append(floor_and_peak(volumes[name].data[0], inside))
        for name in images.keys() & values.keys():
            if name not in totals:
                totals[name] = np.zeros(_box_of_mean(values[name]))
            totals[name] += _stretch(values[name], totals[name].shape)
            images[name] += 1
        if len(values) == len(names) > 2:
            shares = _shares(values, ranges, body)
            products = products + shares @ shares.T
            voxels = voxels + shares.shape[1]
        for (source, target), table in sums.items():
            if source in values and target in values:
                bins = _bins(values[source], ranges[source]).ravel()
                table += (
                    np.bincount(bins, values[target].ravel(), BINS),
                    np.bincount(bins, minlength=BINS),
                )
    empty = [name for name in targets if not images[name]]
    if empty:
        raise BadInput(
            f"naive baselines: expected training cases with {', '.join(empty)}, found none. Check the cohort's split and the names of its modalities."
        )
    return Baselines(
        {name: ranges[name] for name in dict.fromkeys([*sources, *targets])},
        {name: (total / images[name]).astype(np.float32) for name, total in totals.items()},
        {pair: _means_of_bins(*table) for pair, table in sums.items() if table[1].any()},
        count,
        products / voxels if voxels else None,
        typical={name: _median_ends(own) for name, own in ends.items()},
    )


def _median_ends(ends: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return median(low for low, _ in ends), median(high for _, high in ends)


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
    fixed = windows or {}
    ranges = {
        name: range_for(
            cohort.units[name], _largest(cohort, name), fixed.get(name), "the recipe's window"
        )
        for name in wanted & cohort.units.keys()
    }
    cases = (
        ({name: case.volume(name) for name in wanted & set(case.header.visible)}, case.mask())
        for case in (cohort.case(one.case) for one in chosen)
    )
    how = cohort.preparation
    moved = how.resample or how.register is not None or how.align is not None
    learned = fit(cases, sources, targets, ranges)
    return replace(
        learned,
        fixed=how.fixed if moved and how.fixed else "",
        align=how.align is not None,
    )


def _largest(cohort: Cohort, modality: str) -> float:
    """The largest value of a modality over all cases, from their headers."""
    cases = [entry.case for entry in cohort.cases if modality in entry.present]
    return max(cohort.header(case).statistics[modality].all.at(100) for case in cases)


def _box_of_mean(image: Float32) -> list[int]:
    shrink = min(1.0, (MEAN_VOXELS / image.size) ** (1 / 3))
    return [max(1, round(size * shrink)) for size in image.shape]


def _means_of_bins(sums: Float64, counts: Float64) -> Float32:
    """The mean of each bin; bins without a training voxel are interpolated from their neighbours."""
    filled = np.flatnonzero(counts)
    return np.interp(np.arange(BINS), filled, sums[filled] / counts[filled]).astype(np.float32)


def _to_range(volume: Volume, scale: Range, body: Body = None) -> Float32:
    """Values on the scored range; the foreground is computed only where it is needed and not given."""
    if scale.own and body is None:
        body = foreground(volume)
    return scale.normalise(volume.data[0], body)


def _shares(
    values: Mapping[str, Float32],
    ranges: Mapping[str, Range],
    body: Body,
) -> Float64:
    """Values as shares of their ranges, by name, and a row of 1: [M + 1, voxels that some modality shows]."""
    shares = dict[str, Float64]()
    for name, scale in ranges.items():
        if name in values:
            shares[name] = (values[name].astype(np.float64) - scale.low) / scale.width
    inside = np.any([share > 0 for share in shares.values()], axis=0) if body is None else body
    rows = [shares[name][inside] for name in sorted(shares)]
    return np.stack([*rows, np.ones_like(rows[0])])


def _bins(values: Float32, scale: Range) -> NDArray[np.intp]:
    scaled = (values - scale.low) * (BINS / scale.width)
    return np.clip(scaled, 0, BINS - 1).astype(np.intp)


def _stretch(image: AnyArray, shape: Sequence[int]) -> Float32:
    if image.shape == tuple(shape):
        return image.astype(np.float32)
    factors = [new / old for new, old in zip(shape, image.shape)]
    return zoom(
        image.astype(np.float32),
        factors,
        order=1,
        mode="nearest",
        grid_mode=True,
    )
