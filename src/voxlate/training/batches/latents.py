"""The moments of the training slices' latents, so that a frozen autoencoder need not encode every slice in every epoch."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voxlate.base.records import write_tensors
from voxlate.scans.cases.case import PreparedCase, lay_out, map_arrays
from voxlate.scans.cases.prepared import Cohort
from voxlate.training.batches.augment import AugmentSettings
from voxlate.training.batches.data_settings import DataSettings, usable_cases
from voxlate.training.batches.patches import IntensityMaps, even_start, read_pair

Encode = Callable[
    [Tensor], Tensor
]  # [B, 1, D, H, W] in network units to [B, 2 L, D, h, w], mean and log variance


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


def cache_moments(
    cohort: Cohort,
    data: DataSettings,
    intensity: IntensityMaps,
    encode: Encode,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Encode every modality of the training cases into a folder, one file a case.

    data: settings for which `uncacheable` is ""; an absent modality's moments are those of background. progress: called
    with the cases done and all cases.
    """
    known = usable_cases(cohort, data, "train")
    for number, name in enumerate(known):
        moments = _moments(lay_out(cohort.case(name), data.axes), data, intensity, encode)
        write_tensors(folder / f"{name}.safetensors", moments, {})
        progress(number + 1, len(known))


@torch.no_grad()
def _moments(
    case: PreparedCase,
    data: DataSettings,
    intensity: IntensityMaps,
    encode: Encode,
) -> dict[str, Tensor]:
    """[2 L, D, h, w] of each modality, float32."""
    x = even_start(case.header.shape[2], data.patch[2]) if data.centred else 0
    size = (case.header.shape[0], *data.patch[1:])
    pair = read_pair(case, data, intensity, (0, 0, x), size)
    assert pair.target is not None
    names = [*data.source, *data.target]
    images = dict(zip(names, torch.cat([pair.source, pair.target], dim=1)[0]))
    moments = {name: encode(image[None, None])[0] for name, image in images.items()}
    return {name: values.float().cpu().contiguous() for name, values in moments.items()}


def read_moments(folder: Path, case: str, slices: slice, names: Sequence[str]) -> Tensor:
    """The moments of some slices of some modalities, [M, 2 L, D, h, w]."""
    moments = map_arrays(folder / f"{case}.safetensors")
    return torch.from_numpy(np.stack([moments[name][:, slices] for name in names]))
