"""The CTs in HU that are converted: those of a synthesis with the ends of their intervals, or one image file."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.files import HIGH, LOW, safe_name
from voxlate.base.messages import message
from voxlate.evaluation.scoring.scored_images import images_in, is_map
from voxlate.scans.formats.dicom import is_dicom_folder
from voxlate.scans.formats.io import is_synthetic, is_there, read_volume, without_ending
from voxlate.scans.formats.nifti import DISTRUSTED
from voxlate.scans.images.grid import Volume, same_grid
from voxlate.scans.images.units import unit_of
from voxlate.synthesis.provenance import provenance_of

AIR_BELOW_HU = -500.0  # every CT of a patient has air below, around the body or in it
FAT_HU = -200.0  # and tissue above
BONE_HU = (150.0, 900.0)  # more voxels of a head or trunk are in it
RAISED_HU = (950.0, 1150.0)  # than here, where soft tissue is after 1000 or 1024 were added
PADDING_HU = 50.0  # above the least value; noise of air reaches further
DRAWN = 10  # values; tissue of a scanner has noise
ROUNDING_HU = 1.0  # of images that are stored in whole numbers
ENDS = {"": "", "low": LOW, "high": HIGH}


@dataclass(frozen=True)
class CtFiles:
    """A CT of a case: its file (""), and those of its interval ("low", "high"), which may be absent.

    folder: that of its provenance, or None; others: names of further CTs in its folder, which are not read.
    """

    case: str
    files: Mapping[str, Path]
    folder: Path | None
    others: tuple[str, ...] = ()

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """The provenance in its folder; without one, what its file says of trust."""
        if self.folder is not None:
            return provenance_of(self.folder)
        said = message("marked", "The description in the CT's file says DO NOT TRUST.")
        return {"warnings": [said.table]} if is_synthetic(self.files[""], DISTRUSTED) else {}


def read_ct(path: Path) -> Volume:
    """An image that is named as a CT; raises BadInput for values that cannot be HU, or are HU with an offset."""
    volume = read_volume(path, "ct")
    least, most = float(volume.data.min()), float(volume.data.max())
    if least > AIR_BELOW_HU or most < FAT_HU:
        raise BadInput(
            f"{path}: expected a CT in HU, with air below {AIR_BELOW_HU:g} and tissue above {FAT_HU:g}, found values from {least:g} to {most:g}. Convert it, or name the CT."
        )
    bone, raised = (
        volume.data[(volume.data > low) & (volume.data < high)]
        for low, high in (BONE_HU, RAISED_HU)
    )
    if len(raised) > len(bone) and len(np.unique(raised)) > DRAWN:  # drawn bone may be of one value
        # padding below air hides an offset from the least value, but is beside air
        hu = volume.data[0]
        padding = hu <= hu.min() + PADDING_HU
        neighbours = np.roll(padding, 1, axis=-1) | np.roll(padding, -1, axis=-1)
        if np.median(hu[neighbours & ~padding]) > FAT_HU:
            raise BadInput(
                f"{path}: expected a CT in HU, with soft tissue at about 40, found {len(raised)} voxels from {RAISED_HU[0]:g} to {RAISED_HU[1]:g} and {len(bone)} of less dense bone, as in a CT to which 1000 or 1024 was added. Subtract it."
            )
    return volume


def find_cts(out: Path) -> list[CtFiles]:
    """The CTs of a folder that synth wrote, of one case's folder, or one image; raises BadInput where there is none."""
    if not is_there(out):
        raise BadInput(
            f"{out}: expected a folder that synth wrote, or a CT, found nothing. Check the path."
        )
    if not out.is_dir() or is_dicom_folder(out):
        case = safe_name(without_ending(out.name), out)
        stated = provenance_of(out.parent).get("images", {})
        return [CtFiles(case, {"": out}, out.parent if out.name in stated else None)]
    folders = sorted(path for path in out.iterdir() if path.is_dir())
    synthesised = [folder for folder in folders if (folder / "provenance.json").is_file()]
    cts = []
    for folder in synthesised or [*folders, out]:
        images = images_in(folder)
        names = [name for name in images if not is_map(name, images) and unit_of(name) == "HU"]
        if not names:
            continue
        name, *others = names
        files = {
            end: images[name + ending] for end, ending in ENDS.items() if name + ending in images
        }
        if len(files) == 2:  # one end alone is no interval
            files = {"": images[name]}
        described_by = folder if provenance_of(folder) else None
        cts.append(CtFiles(folder.name, files, described_by, tuple(others)))
    if not cts:
        raise BadInput(
            f"{out}: expected a synthesised CT in HU, found none. Name the --out of synth, or a CT."
        )
    return cts


def check_ends(volumes: Mapping[str, Volume], case: str) -> None:
    """Raise BadInput unless the ends of an interval are on the grid of their CT, one below and one above it."""
    first = volumes[""]
    for end, volume in volumes.items():
        if not same_grid(first.grid, volume.grid):
            raise BadInput(
                f"{case}: expected the {end} end of the interval on the grid of its CT ({first.grid}), found {volume.grid}. Synthesise it again."
            )
        sign = {"low": 1, "high": -1}.get(end, 0)
        beyond = sign * (volume.data - first.data) > ROUNDING_HU
        if beyond.any():
            raise BadInput(
                f"{case}: expected the {end} end of the interval on its side of the CT, found it on the other in {int(beyond.sum())} voxels. Synthesise it again."
            )
