"""A cache of the latents' moments, so that a frozen autoencoder need not encode every slice in every epoch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voxlate.base.errors import BadInput
from voxlate.base.records import Record, Shape, checksum, write_tensors
from voxlate.scans.cases.case import PreparedCase, lay_out, map_arrays
from voxlate.scans.cases.prepared import Cohort
from voxlate.training.batches.augment import AugmentSettings
from voxlate.training.batches.data_settings import DataSettings, usable_cases
from voxlate.training.batches.patches import IntensityMaps, even_start, read_pair

Encode = Callable[
    [Tensor], Tensor
]  # [B, 1, D, H, W] in network units to [B, 2 L, D, h, w], mean and log variance


def uncacheable(cohort: Cohort, data: DataSettings) -> str:
    """Why an item's slices are not the same whole slices in every epoch; "" where they are."""
    if data.stack > 0:
        return f"data.stack = {data.stack}"
    if data.physics is not None:
        return "data.physics"
    if data.augment != AugmentSettings():
        return "data.augment"
    for case in usable_cases(cohort, data, "train"):
        depth, *plane = cohort.header(case, data.axes).shape
        if any(length > patch for length, patch in zip(plane, data.patch[1:])):
            return f"{case} larger than data.patch {data.patch}"
        if depth < data.patch[0]:
            return f"{case} of fewer slices than data.patch {data.patch}"
    return ""


def cache_moments(
    cohort: Cohort,
    data: DataSettings,
    intensity: IntensityMaps,
    encode: Encode,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Encode every modality of the training cases once: one file a case, whole or absent; the same call again resumes.

    data: settings for which `uncacheable` is ""; folder: named by all that the moments depend on in addition to the
    case's own file (the encoder's weights, say). An absent modality's moments are those of background. progress: called
    with the cases done and all cases.
    """
    known = usable_cases(cohort, data, "train")
    names = data.modalities
    with torch.no_grad():
        _, channels, _, *size = encode(torch.zeros(1, 1, *data.patch)).shape
    for number, name in enumerate(known):
        case = lay_out(cohort.case(name), data.axes)
        path = folder / f"{name}.safetensors"
        stamp = f"{case.header.inputs} {folder.name}"
        lengths = (channels, case.header.shape[0], *size)
        if not path.is_file() or _stamp(path, names, lengths) != stamp:
            moments = _moments(case, data, intensity, encode)
            write_tensors(path, moments, {"made_of": f"{stamp} {moments_checksum(moments)}"})
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
    path = folder / f"{case}.safetensors"
    try:
        moments = map_arrays(path)
    except FileNotFoundError as error:
        raise BadInput(
            f"{path}: expected the cached latents of {case}, found none. Cache them again."
        ) from error
    return torch.from_numpy(np.stack([moments[name][:, slices] for name in names]))


def _stamp(path: Path, names: Sequence[str], lengths: Sequence[int]) -> str:
    """The stamp of a case's moments [2 L, D, h, w]; "" where the file does not hold them and must be written again."""
    try:
        with Record(path, "cached latents", "They are computed again.").tensors("pt") as file:
            tensors = file.read(dict.fromkeys(names, Shape(lengths)))
            stamp, _, digest = file.text("made_of").rpartition(" ")
            return stamp if digest == moments_checksum(tensors) else ""
    except BadInput:
        return ""


def moments_checksum(moments: Mapping[str, Tensor]) -> str:
    """The checksum of a file of moments."""
    return checksum("", moments, lambda name, _: name)
