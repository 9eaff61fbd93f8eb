"""The moments of the training slices' latents, so that a frozen autoencoder need not encode every slice in every epoch."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from voxlate.base.records import write_tensors
from voxlate.scans.cases.prepared import Cohort
from voxlate.training.batches.augment import AugmentSettings
from voxlate.training.batches.data_settings import DataSettings, usable_cases
from voxlate.training.batches.patches import IntensityMaps, even_start, read_pair

# [B, 1, D, H, W] in network units to [B, 2 L, D, h, w], mean and log variance
Encode = Callable[[Tensor], Tensor]


def can_cache(cohort: Cohort, data: DataSettings) -> bool:
    """Whether an item's slices are the same whole slices in every epoch."""
    if data.stack or data.physics is not None or data.augment != AugmentSettings():
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
