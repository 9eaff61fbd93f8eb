"""A cache of the latents' moments, so that a frozen autoencoder need not encode every slice in every epoch."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from voxlate.data.augment import AugmentSettings
from voxlate.data.case import OPEN_FILES, PreparedCase
from voxlate.data.layout import laid_out, laid_out_header
from voxlate.data.patches import DataSettings, even_start, read_patch, read_targets
from voxlate.data.prepared import Cohort
from voxlate.errors import BadInput
from voxlate.files import whole_file
from voxlate.images.intensity import IntensityMap

FOLDER = "latents"  # of a prepared cohort
Encode = Callable[[Tensor], Tensor]  # [B, 1, 1, H, W] in network units to [B, 2 L, 1, h, w], mean and log variance


def check_cacheable(cohort: Cohort, data: DataSettings, cases: Sequence[str]) -> None:
    """Raise BadInput where an item is not always the same whole slice."""
    headers = {case: laid_out_header(cohort.header(case), data.axes) for case in cases}
    large = [case for case in cases if any(n > p for n, p in zip(headers[case].shape[1:], data.patch[1:]))]
    found = {
        f"data.patch of {data.patch[0]} slices": data.patch[0] > 1,
        f"data.stack = {data.stack}": data.stack > 0,
        "data.augment": data.augment != AugmentSettings(),
        f"{large[0] if large else ''} larger than data.patch {data.patch}": bool(large),
    }
    if wrong := [name for name, there in found.items() if there]:
        raise BadInput(
            f"{cohort.folder}: expected whole slices without augmentation for cached latents, found {wrong[0]}. "
            "Change it, or do not cache latents."
        )


def cache_moments(
    cohort: Cohort,
    data: DataSettings,
    intensity: Mapping[str, IntensityMap],
    encode: Encode,
    digest: str,
    batch: int = 8,
) -> Path:
    """Encode every slice of every modality once; gives the folder, one file a case, each whole or absent.

    digest: of all that the moments depend on in addition to the case's own file (the encoder's weights, say); it
    names the folder, and the same call again resumes. An absent modality's moments are those of background.
    """
    known = [one.case for one in cohort.cases if set(one.present) & {*data.source, *data.target}]
    check_cacheable(cohort, data, known)
    folder = cohort.folder / FOLDER / digest
    for name in known:
        case = laid_out(cohort.case(name), data.axes)
        path = folder / f"{name}.safetensors"
        stamp = case.header.inputs
        if path.exists() and _stamp(path) == stamp:
            continue
        with whole_file(path) as temporary:
            save_file(_moments(case, data, intensity, encode, batch), temporary, metadata={"inputs": stamp})
    return folder


@torch.no_grad()
def _moments(
    case: PreparedCase, data: DataSettings, intensity: Mapping[str, IntensityMap], encode: Encode, batch: int
) -> dict[str, Tensor]:
    """[2 L, D, h, w] of each modality."""
    names = list(dict.fromkeys([*data.source, *data.target]))
    x = even_start(case.header.shape[2], data.patch[2]) if data.centred else 0
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for first in range(0, case.header.shape[0], batch):
        places = [(z, 0, x) for z in range(first, min(first + batch, case.header.shape[0]))]
        sources = torch.stack([read_patch(case, data, intensity, place).source for place in places])
        targets = torch.stack([read_targets(case, data, intensity, place).target for place in places])
        images = dict(zip([*data.target, *data.source], [*targets.split(1, dim=1), *sources.split(1, dim=1)]))
        for name in names:
            parts[name].append(encode(images[name])[:, :, 0].float().cpu())
    return {name: torch.cat(slices).movedim(0, 1).contiguous() for name, slices in parts.items()}


def read_moments(folder: Path, case: str, z: int, names: Sequence[str]) -> Tensor:
    """The moments of a slice of some modalities, [M, 2 L, 1, h, w]."""
    path = folder / f"{case}.safetensors"
    try:
        file = _opened(path, path.stat().st_mtime_ns)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: expected the cached latents of {case}, found none. Cache them again.") from error
    return torch.stack([file.get_slice(name)[:, z : z + 1] for name in names])


def _stamp(path: Path) -> str:
    with safe_open(path, framework="pt") as file:
        return str((file.metadata() or {}).get("inputs"))


@functools.lru_cache(maxsize=OPEN_FILES)
def _opened(path: Path, mtime_ns: int) -> Any:
    return safe_open(path, framework="pt")
