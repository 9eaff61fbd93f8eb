"""The patches of a prepared cohort, slices or blocks, the one function that reads them in network units, and their latents.

The moments of the training slices' latents are kept, so that a frozen autoencoder need not encode every slice in every epoch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voxlate.base.errors import BadInput
from voxlate.base.items import stable_id
from voxlate.base.records import write_tensors
from voxlate.scans.cases.case import LABEL, MASK, PreparedCase, lay_out, map_arrays
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.images.intensity import IntensityMap
from voxlate.scans.images.tiling import Triple, centre_on
from voxlate.science.batch import Batch, collate
from voxlate.synthesis.patch import Patch, overlap, readable
from voxlate.training.batches.augment import AugmentSettings
from voxlate.training.batches.data_settings import DataSettings, select_slices, usable_cases
from voxlate.training.batches.levels import find_levels, to_one_level

IntensityMaps = Mapping[str, IntensityMap]  # by modality
Places = Sequence[tuple[str, Triple]]  # case and start of patches
# [B, 1, D, H, W] in network units to [B, 2 L, D, h, w], mean and log variance
Encode = Callable[[Tensor], Tensor]

NO_LABEL = -1  # in place of a label map that a case lacks


@dataclass(eq=False)
class Patches:
    """The patches of the cases of a split that the settings can use; raises BadInput if there is none.

    With data.level, targets of every split have the level of the median training patient, which images of new patients
    have as well.
    """

    cohort: Cohort
    data: DataSettings
    intensity: IntensityMaps
    split: str = "train"

    def __post_init__(self) -> None:
        cohort, data = self.cohort, self.data
        cases = usable_cases(cohort, data, self.split)
        kept = {} if data.slices is None else select_slices(cohort, data.slices, cases)
        starts = {case: self._starts(case, kept.get(case)) for case in cases}
        self.starts = {case: along for case, along in starts.items() if along}
        if not self.starts:
            raise BadInput(
                f"{cohort.folder}: expected patches of {data.patch} voxels with at least {data.foreground:.0%} foreground (in slices that pass data.slices, if it is set), found none in {len(cases)} cases. Lower data.foreground or the limits of data.slices, or prepare with --register if the scans are not aligned."
            )

        self.levels = self._find_levels() if data.level else {}

    def _find_levels(self) -> dict[str, Tensor]:
        """The levels of the cases (see find_levels); that of a patient is over all cases of the patient."""
        cohort, data = self.cohort, self.data
        training = [*map(cohort.header, usable_cases(cohort, data, "train"))]
        patients = {cohort.header(case).patient for case in self.starts}
        cases = [entry.case for entry in cohort.cases if entry.patient in patients]
        return find_levels(training, [*map(cohort.header, cases)], data.target, self.intensity)

    def _starts(self, case: str, kept: np.ndarray | None) -> list[int]:
        """Starts along D whose slab holds enough mask, and kept slices only; a volume thinner than the patch has one."""
        data, header = self.data, self.cohort.header(case, self.data.axes)
        area = header.mask_area
        if data.axes[0] not in "SI":  # a header has the areas of axial slices
            area = np.count_nonzero(self._mask(case), axis=(1, 2)).tolist()
        depth, height, width = (min(a, b) for a, b in zip(header.shape, data.patch))
        # divided by the patch's own area: a narrow patch can be full of body in a slice that is mostly air
        enough = _sums(area, depth) / (depth * height * width) >= data.foreground
        if kept is not None:
            enough &= _sums(kept, depth) == depth
        return np.flatnonzero(enough).tolist()

    def _mask(self, case: str) -> np.ndarray:
        return lay_out(self.cohort.case(case), self.data.axes).arrays[MASK]

    def mask_share(self, case: str, start: Triple) -> float:
        """The share of a patch that the mask covers, whatever modality shows it."""
        data = self.data
        ends = readable(self.cohort.header(case, data.axes), data.frame)
        _, place = overlap(start, data.patch, ends)
        return float((self._mask(case)[place] != 0).sum()) / float(np.prod(data.patch))

    def even_places(self, limit: int | None = None) -> Places:
        """Case and start of patches in a fixed order: end to end along D, centred in the plane.

        limit: at most so many patches, evenly spaced over all of them.
        """
        data, places = self.data, list[tuple[str, Triple]]()
        for case, starts in self.starts.items():
            header = self.cohort.header(case, data.axes)
            _, height, width = header.shape
            y = max(0, even_start(height, data.patch[1]))
            x = even_start(width, data.patch[2])
            if not data.centred:  # a short axis is padded at its end
                x = max(0, x)
            if data.frame is not None:
                y, x = map(centre_on, header.mask_box[1:], data.patch[1:])
            places += [(case, (z, y, x)) for z in starts[:: data.patch[0]]]
        count = len(places)
        if limit is None or limit >= count:
            return places
        return [places[(2 * i + 1) * count // (2 * limit)] for i in range(limit)]

    def in_batches(self, places: Places, batch: int) -> Iterator[Batch]:
        """The patches at these places without augmentation, in batches."""
        for first in range(0, len(places), batch):
            yield self.read(places[first : first + batch])

    def read(
        self, places: Places, seeds: Sequence[int] | None = None, moments: Path | None = None
    ) -> Batch:
        """The patches at these places with their targets and labels.

        seeds: of what data.physics draws for each (default: a fixed one for each place); moments: a folder with those of
        their latents.
        """
        data, pairs = self.data, list[Batch]()
        for (case, start), seed in zip(places, seeds or repeat(None)):
            pair = read_pair(self.cohort.case(case), data, self.intensity, start, seed=seed)
            if moments is not None:
                known = map_arrays(moments / f"{case}.safetensors")
                source, target = (
                    np.stack(
                        [known[name][:, start[0] : start[0] + data.patch[0]] for name in names]
                    )
                    for names in (data.source, data.target)
                )
                pair = replace(
                    pair,
                    source_moments=torch.from_numpy(source)[None],
                    target_moments=torch.from_numpy(target)[None],
                )
            pairs.append(pair)
        batch = collate(pairs)
        if not self.levels:
            return batch
        assert batch.target is not None
        levels = torch.stack([self.levels[case] for case, _ in places])
        return replace(batch, target=to_one_level(batch.target, levels))


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
    z, y, x = patch.start
    case = patch.case.header.case
    return Batch(
        source=torch.from_numpy(source)[None],
        mask=torch.from_numpy(mask)[None, None],
        present=torch.from_numpy(patch.present)[None],
        item=torch.tensor([[stable_id(case, z + d, y, x) for d in range(patch.size[0])]]),
        source_names=data.source_names,
        target_names=tuple(data.target),
    )


def can_cache(cohort: Cohort, data: DataSettings) -> bool:
    """Whether an item's slices are the same whole slices in every epoch."""
    if data.stack or data.level or data.physics is not None or data.augment != AugmentSettings():
        return False
    depth, *plane = data.patch
    for case in usable_cases(cohort, data, "train"):
        slices, *sides = cohort.header(case, data.axes).shape
        if slices < depth or any(side > patch for side, patch in zip(sides, plane)):
            return False
    return True


@torch.no_grad()
def cache_moments(
    cohort: Cohort,
    data: DataSettings,
    intensity: IntensityMaps,
    encode: Encode,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Encode every modality of the training cases into a folder, one file a case of [2 L, D, h, w] each.

    data: settings that `can_cache`; an absent modality's moments are those of background. progress: called with the
    cases done and all cases.
    """
    known = usable_cases(cohort, data, "train")
    for done, name in enumerate(known, start=1):
        depth, _, width = cohort.header(name, data.axes).shape
        x = even_start(width, data.patch[2]) if data.centred else 0
        size = (depth, *data.patch[1:])
        pair = read_pair(cohort.case(name), data, intensity, (0, 0, x), size)
        assert pair.target is not None
        moments = dict[str, Tensor]()
        for names, images in ((data.source, pair.source), (data.target, pair.target)):
            for modality, image in zip(names, images[0]):
                moments[modality] = encode(image[None, None])[0].float().cpu().contiguous()
        write_tensors(folder / f"{name}.safetensors", moments, {})
        progress(done, len(known))
