"""The layout of a cohort that its own names state, where no option does."""

import os
import re
from itertools import islice
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.scans.cohorts.presets import Preset, load_preset
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.units import plain_modality
from voxlate.scans.options.layout import presets

MOST_NAMES = 2000  # paths that are compared with those of public data sets
MOST_LABELS = 256  # values in a label map; an image has more, or fractions, or values below zero
CT_REACHES_HU = -200  # what a CT reaches


def recognise(root: Path) -> Preset | None:
    """The layout that a folder's own files state: that of a public data set, BIDS, or nnU-Net's."""
    if (root / "dataset_description.json").is_file():
        return load_preset("bids")
    walk = ((place, name) for place, _, names in os.walk(root) for name in sorted(names))
    paths = [
        (Path(place) / name).relative_to(root).as_posix()
        for place, name in islice(walk, MOST_NAMES)
    ]
    for name in presets():
        preset = load_preset(name)
        if preset.known_by and any(re.search(preset.known_by, path) for path in paths):
            return preset
    data_sets = [path.parent for path in (*root.glob("imagesTr"), *root.glob("*/imagesTr"))]
    return _nnunet(*data_sets) if len(data_sets) == 1 else None


def _nnunet(root: Path) -> Preset:
    """nnU-Net's raw data sets: imagesTr/CASE_0000.nii.gz, its channels named by dataset.json, labelsTr/CASE.nii.gz.

    In those of the Medical Segmentation Decathlon and MONAI, imagesTr/CASE.nii.gz holds all channels.
    """
    file = root / "dataset.json"
    stated = read_json(file) if file.is_file() else None
    channels = None
    if isinstance(stated, dict):
        channels = stated.get("channel_names") or stated.get("modality")
    stems, labelled = (
        {file.name.partition(".")[0] for file in root.glob(f"{folder}/*")}
        for folder in ("imagesTr", "labelsTr")
    )
    numbers = sorted({stem[-4:] for stem in stems if re.search(r"_\d{4}$", stem)})
    title = "nnU-Net"
    is_numbered = "0000" in numbers and not stems & labelled
    if not isinstance(channels, dict) or not channels:
        kind = "ct" if _kind_of(root, "imagesTr") == "ct" else "image"
        channels = {number: number for number in numbers} if is_numbered else {"0": kind}
        title += f", whose channels nothing names ({', '.join(channels.values())})"
    elif len(numbers) == len(channels):
        is_numbered = True
    files, frames = {}, {}
    for number, channel in channels.items():
        name = plain_modality(re.sub(r"[^\w-]+", "_", f"{channel}").strip("_").lower())
        mark = f"_{int(number):04d}" if is_numbered else ""
        if not is_numbered and len(channels) > 1:
            frames[name] = f"channels#frame={int(number) + 1}"
            name = "channels"
        files[name] = [f"**/images{{split}}/{{case}}{mark}"]
    target = _kind_of(root, "labels*")
    files["target" if target in files else target] = ["**/labels{split}/{case}"]
    return Preset(title=title, files=files, frames=frames)


def _kind_of(root: Path, folder: str) -> str:
    """What the files of a folder are by the values of one: 'ct', 'seg', or 'target', an image to synthesise."""
    first = next(iter(sorted(root.glob(f"{folder}/*.*"))), None)
    try:
        values = read_volume(first).data if first else None
    except BadInput:  # which prepare reports
        values = None
    if values is None:
        return "seg"
    least = values.min()
    if least < CT_REACHES_HU:
        return "ct"
    whole = least >= 0 and values.max() < MOST_LABELS and (values == values.round()).all()
    return "seg" if whole else "target"
