"""The trivial answers that a model must beat, from the training cases only: mean image, copy, intensity table."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.ndimage import zoom

from voxlate.data.prepared import Cohort
from voxlate.errors import BadInput
from voxlate.files import whole_file
from voxlate.images.grid import Grid, canonical, return_to
from voxlate.images.mask import foreground
from voxlate.images.ranges import Range, range_for, ranges_from_json, ranges_to_json
from voxlate.images.volume import Volume

BINS = 1024  # one a level for 8 bit pictures, 4 HU for CT
MEAN_VOXELS = 1 << 22  # a mean of many heads is smooth: 16 MiB hold it however large the scans are

MOST_CASES = 200  # a mean and a table of more cases are the same to three digits

Region = NDArray[np.bool_] | None
Case = tuple[Mapping[str, Volume], Region]


@dataclass(frozen=True)
class Trivial:
    """What the training cases say without a model.

    ranges: of every modality; means: [D, H, W] of each target, canonical; tables: (source, target) -> [BINS],
    the target's mean value where the source lies in that bin of its range; cases: how many it was fitted to.
    """

    ranges: dict[str, Range]
    means: dict[str, NDArray[np.float32]]
    tables: dict[tuple[str, str], NDArray[np.float32]]
    cases: int

    def save(self, path: Path | str) -> None:
        tensors = {f"mean:{name}": mean for name, mean in self.means.items()}
        tensors |= {f"table:{source}:{target}": table for (source, target), table in self.tables.items()}
        header = {"ranges": json.dumps(ranges_to_json(self.ranges)), "cases": str(self.cases)}
        with whole_file(path) as temporary:
            save_file(tensors, temporary, metadata=header)

    @classmethod
    def load(cls, path: Path | str) -> "Trivial":
        """Raises BadInput where the file is absent or holds something else."""
        try:
            with safe_open(path, framework="numpy") as file:
                header = file.metadata()
                ranges = ranges_from_json(json.loads(header["ranges"]))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                cases = int(header["cases"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"{path}: expected the trivial answers of a training, found none that can be read ({error}). "
                "Train again, or score without them."
            ) from error
        means = {key.split(":")[1]: value for key, value in tensors.items() if key.startswith("mean:")}
        tables = {_pair_of(key): value for key, value in tensors.items() if key.startswith("table:")}
        return cls(ranges, means, tables, cases)


def fit(cases: Iterable[Case], sources: Sequence[str], targets: Sequence[str], ranges: Mapping[str, Range]) -> Trivial:
    """Learn the trivial answers from training cases, one at a time.

    cases: canonical volumes by modality and their foreground (None: found in each), of one grid within a case; a
    case takes part where it has what is asked.
    Targets of several sizes are stretched to the first one's box for the mean image.
    Raises BadInput where no case has a target.
    """
    means: dict[str, _Mean] = {name: _Mean() for name in targets}
    pairs = [(source, target) for source in sources for target in targets if source != target]
    tables = {pair: _Table() for pair in pairs}
    count = 0
    for volumes, region in cases:
        count += 1
        there = {*sources, *targets} & volumes.keys()
        brought = {name: _bring(volumes[name], ranges[name], region) for name in there}
        for name in means.keys() & brought.keys():
            means[name].add(brought[name])
        for source, target in pairs:
            if source in brought and target in brought:
                tables[source, target].add(_bins(brought[source], ranges[source]), brought[target])
    empty = [name for name in targets if not means[name].count]
    if empty or not count:
        raise BadInput(
            f"trivial answers: expected training cases with {', '.join(empty or targets)}, found none. "
            "Check the cohort's split and the names of its modalities."
        )
    return Trivial(
        {name: ranges[name] for name in {*sources, *targets}},
        {name: mean.result() for name, mean in means.items()},
        {pair: table.result() for pair, table in tables.items() if table.counts.any()},
        count,
    )


def fit_cohort(
    cohort: Cohort,
    sources: Sequence[str],
    targets: Sequence[str],
    windows: Mapping[str, Sequence[float]] | None = None,
) -> Trivial:
    """Learn the trivial answers from the training cases of a prepared cohort (at most MOST_CASES, evenly chosen).

    windows: (low, high) of modalities whose range the recipe fixes.
    """
    wanted = {*sources, *targets}
    training = [one for one in cohort.cases if one.split == "train" and wanted & set(one.present)]
    chosen = training[:: -(-len(training) // MOST_CASES) or 1]
    fixed = windows or {}
    ranges = {
        name: range_for(cohort.units[name], _largest(cohort, name), fixed.get(name), "the recipe's window")
        for name in wanted & cohort.units.keys()
    }
    cases = (
        ({name: cohort.volume(one.case, name) for name in wanted & set(one.present)}, cohort.mask(one.case))
        for one in chosen
    )
    return fit(cases, sources, targets, ranges)


def _largest(cohort: Cohort, modality: str) -> float:
    """The largest value of a modality over all cases, from their headers."""
    cases = [one.case for one in cohort.cases if modality in one.present]
    return max(cohort.header(case).statistics[modality].all.at(100) for case in cases)


def answers(trivial: Trivial, target: str, sources: Mapping[str, Volume], grid: Grid) -> dict[str, NDArray[np.float32]]:
    """Trivial answers for one case on `grid` [D, H, W], in the unit of the target's range.

    sources: the case's scans (brought to `grid` where they lie on another); each has its own copy and table.
    """
    result = {}
    if target in trivial.means:
        blank = canonical(Volume(np.zeros((1, *grid.shape), np.float32), grid.affine, "", target))
        mean = _stretch(trivial.means[target], blank.data.shape[1:])
        result["mean image"] = return_to(Volume(mean[None], blank.affine, "", target), grid).data[0]
    to = trivial.ranges.get(target)
    several = len([pair for pair in trivial.tables if pair[1] == target]) > 1
    for name, source in sources.items():
        if to is None or name == target or name not in trivial.ranges:
            continue
        scale = trivial.ranges[name]
        brought = _bring(return_to(source, grid), scale)
        result[f"copy of {name}"] = to.low + (brought - scale.low) * np.float32(to.width / scale.width)
        if (name, target) in trivial.tables:
            result["intensity table" + (f" of {name}" if several else "")] = trivial.tables[name, target][
                _bins(brought, scale)
            ]
    return result


class _Mean:
    """Running mean of images, stretched to the box of the first."""

    def __init__(self) -> None:
        self.total: NDArray[np.float64] | None = None
        self.count = 0

    def add(self, image: NDArray[np.float32]) -> None:
        if self.total is None:
            shrink = min(1.0, (MEAN_VOXELS / image.size) ** (1 / 3))
            self.total = np.zeros([max(1, round(size * shrink)) for size in image.shape])
        self.total += _stretch(image, self.total.shape)
        self.count += 1

    def result(self) -> NDArray[np.float32]:
        assert self.total is not None
        return (self.total / self.count).astype(np.float32)


class _Table:
    """Running sums of the target in each bin of the source."""

    def __init__(self) -> None:
        self.sums, self.counts = np.zeros(BINS), np.zeros(BINS)

    def add(self, bins: NDArray[np.intp], target: NDArray[np.float32]) -> None:
        self.sums += np.bincount(bins.ravel(), target.ravel(), BINS)
        self.counts += np.bincount(bins.ravel(), minlength=BINS)

    def result(self) -> NDArray[np.float32]:
        seen = np.flatnonzero(self.counts)  # bins that no training voxel fell in take a value between their neighbours'
        return np.interp(np.arange(BINS), seen, self.sums[seen] / self.counts[seen]).astype(np.float32)


def _pair_of(key: str) -> tuple[str, str]:
    _, source, target = key.split(":")
    return source, target


def _bring(volume: Volume, scale: Range, region: Region = None) -> NDArray[np.float32]:
    """Values on the scored scale; the foreground is looked for only where it matters and is not given."""
    if scale.own and region is None:
        region = foreground(volume)
    return scale.normalise(volume.data[0], region)


def _bins(values: NDArray[np.float32], scale: Range) -> NDArray[np.intp]:
    bins: NDArray[np.intp] = np.clip((values - scale.low) * (BINS / scale.width), 0, BINS - 1).astype(np.intp)
    return bins


def _stretch(image: NDArray[Any], shape: Sequence[int]) -> NDArray[np.float32]:
    if image.shape == tuple(shape):
        return image.astype(np.float32)
    factors = [new / old for new, old in zip(shape, image.shape)]
    stretched: NDArray[np.float32] = zoom(image.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True)
    return stretched
