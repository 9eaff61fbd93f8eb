"""The items of a prepared cohort, slices or patches, and the one function that reads them in network units."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from voxlate.base.items import stable_id
from voxlate.scans.cases.case import (
    LABEL,
    MASK,
    CaseHeader,
    PreparedCase,
    lay_out,
)
from voxlate.scans.images.intensity import IntensityMap
from voxlate.scans.images.tiling import Triple
from voxlate.science.batch import Batch
from voxlate.synthesis.patch import Patch, overlap, readable
from voxlate.training.batches.data_settings import DataSettings

IntensityMaps = Mapping[str, IntensityMap]  # by modality

NO_LABEL = -1  # in place of a label map that a case lacks


def starts_of(header: CaseHeader, data: DataSettings, kept: np.ndarray | None) -> list[int]:
    """Starts along D whose slab holds enough mask, and kept slices only; a volume thinner than the patch has one."""
    depth, height, width = (min(a, b) for a, b in zip(header.shape, data.patch))
    # divided by the patch's own area: a narrow patch can be full of body in a slice that is mostly air
    enough = _sums(header.mask_area, depth) / (depth * height * width) >= data.foreground
    if kept is not None:
        enough &= _sums(kept, depth) == depth
    return np.flatnonzero(enough).tolist()


def _sums(values: Sequence[int] | np.ndarray, width: int) -> np.ndarray:
    """The sum of each run of `width` neighbours."""
    total = np.cumsum([0, *values])
    return total[width:] - total[: len(total) - width]


def even_start(length: int, patch: int) -> int:
    """The start that centres a patch on an axis, below 0 where the patch is the longer one.

    Where length and patch are not both even or both odd, the middle of the axis is half a voxel above the patch's.
    """
    return (length - patch) // 2


def read_pair(
    case: PreparedCase,
    data: DataSettings,
    intensity: IntensityMaps,
    start: Triple,
    size: Triple | None = None,
    seed: int | None = None,
) -> Batch:
    """Read a patch at `start` (D, H, W; it may be partly outside, where background is filled in).

    All axes are those of data.axes. size: of the patch (default: of the settings). Source channels: the modalities in
    order, then with `stack` the same for the slice below, above, two below, …; beyond the first and last slice, that
    slice is repeated. Mask: as far as the case's source modalities show it. An absent target is background, an absent
    label map NO_LABEL. seed: of what data.physics draws (default: a fixed one for each place).
    """
    patch = Patch(case, data.facts, intensity, start, size, seed)
    case = patch.case
    labels = np.full((len(data.labels), *patch.size), NO_LABEL, np.float32)
    for name, out in zip(data.labels, labels):
        if name in case.header.labels:
            out[:] = 0
            out[patch.inside] = case.arrays[LABEL + name][patch.place]
    target = [patch.modality(name, "target")[0] for name in data.target]
    return replace(
        batch_of(patch, data),
        target=torch.from_numpy(np.stack(target))[None],
        target_present=torch.tensor([[name in case.header.visible for name in data.target]]),
        labels=torch.from_numpy(labels)[None] if data.labels else None,
    )


def batch_of(patch: Patch, data: DataSettings) -> Batch:
    """The sources and the mask of a patch."""
    source, mask = patch.sources()
    header = patch.case.header
    z, y, x = patch.start
    return Batch(
        source=torch.from_numpy(source)[None],
        mask=torch.from_numpy(mask)[None, None],
        present=torch.from_numpy(patch.present)[None],
        item=torch.tensor([[stable_id(header.case, z + d, y, x) for d in range(patch.size[0])]]),
        source_names=data.source_names,
        target_names=tuple(data.target),
    )


def mask_share(case: PreparedCase, data: DataSettings, start: Triple) -> float:
    """The share of a patch at `start` that the mask covers, whatever modality shows it."""
    case = lay_out(case, data.axes)
    _, place = overlap(start, data.patch, readable(case.header, data.frame))
    return float((case.arrays[MASK][place] != 0).sum()) / float(np.prod(data.patch))
