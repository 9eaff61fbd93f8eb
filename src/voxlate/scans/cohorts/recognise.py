"""The layout of a cohort that its own names state, where no option does."""

import os
import re
from itertools import islice
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.scans.cohorts.case_files import modality_name
from voxlate.scans.cohorts.presets import Preset, load_preset
from voxlate.scans.formats.io import read_volume
from voxlate.scans.options.layout import presets

MOST_NAMES = 2000  # paths that are compared with those of public data sets
MOST_LABELS = 256  # values in a label map; an image has more, or fractions, or values below zero
AIR_HU = -200  # what a CT reaches


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
    if (root / "dataset.json").is_file() and any(root.glob("images*")):
        return _nnunet(root)
    return None


def _nnunet(root: Path) -> Preset:
    """nnU-Net's raw data sets: imagesTr/CASE_0000.nii.gz, its channels named by dataset.json, labelsTr/CASE.nii.gz."""
    stated = read_json(root / "dataset.json")
    channels = None
    if isinstance(stated, dict):
        channels = stated.get("channel_names") or stated.get("modality")
    if not isinstance(channels, dict) or not channels:
        raise BadInput(
            f"{root}/dataset.json: expected channel_names, as nnU-Net writes them, found none. Add them, or pass --pattern 'images{{split}}/{{case}}_{{modality}}'."
        )
    aliases = load_preset("bids").aliases
    files = {}
    for number, channel in channels.items():
        name = modality_name(re.sub(r"[^\w-]+", "_", str(channel)).strip("_"), aliases)
        files[name] = [f"images{{split}}/{{case}}_{int(number):04d}"]
    target = _kind_of_labels(root)
    files["target" if target in files else target] = ["labels{split}/{case}"]
    return Preset(files=files)


def _kind_of_labels(root: Path) -> str:
    """What nnU-Net's labels are by the values of one: 'seg', or an image to synthesise."""
    first = next(iter(sorted(root.glob("labels*/*.*"))), None)
    try:
        values = read_volume(first).data if first else None
    except BadInput:  # which prepare reports
        values = None
    if values is None:
        return "seg"
    least = values.min()
    if least < AIR_HU:
        return "ct"
    whole = least >= 0 and values.max() < MOST_LABELS and (values == values.round()).all()
    return "seg" if whole else "target"
