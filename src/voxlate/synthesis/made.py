"""What a synthesis gives: images of a case with what is known of their errors, and their files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image as Picture

from voxlate.data.grades import grade_of
from voxlate.files import HIGH, LOW, STD, UNCALIBRATED, UNFAMILIAR
from voxlate.images.grid import canonical
from voxlate.images.intensity import Scale
from voxlate.images.pictures import (
    Plane,
    labelled_sheet,
    palette,
    pixel_mm,
    plane_of,
    shades,
    square_pixels,
    with_lines,
)
from voxlate.images.volume import SYNTHETIC, SYNTHETIC_SCAN, Volume, write_volume
from voxlate.synthesis.peaks import Peak
from voxlate.synthesis.written import write_images
from voxlate.trust.calibration import Image

TILE = 320  # pixels a side of a slice that is shown
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
OF_MAPS = {  # what a header says of a map, by the end of its name
    LOW: "lower end of intervals",
    HIGH: "upper end of intervals",
    STD: "spread, not calibrated",
    UNCALIBRATED: "spread, not calibrated",
    UNFAMILIAR: "how unlike known scans",
}


def _said(file: str) -> str:
    """What the header of a file says of it; the description has 80 characters."""
    name = file.partition(".")[0]
    return next((f"{SYNTHETIC}: {what}" for end, what in OF_MAPS.items() if name.endswith(end)), SYNTHETIC_SCAN)


@dataclass(frozen=True)
class Made:
    """An image [D, H, W] on the network's grid: in physical units, and with its spread in network units.

    scale: from network units to physical ones; peak: how its bright end was corrected.
    """

    values: np.ndarray
    image: Image
    scale: Scale
    peak: Peak | None = None

    @property
    def half(self) -> float:
        """What 1 of network units is in physical ones."""
        return (self.scale.high - self.scale.low) / 2

    @property
    def physical_sd(self) -> np.ndarray | None:
        return None if self.image.sd is None else self.image.sd * np.float32(self.half)

    def stretched(self, peak: Peak) -> "Made":
        """The image with its bright end moved, and its spread with it."""
        scale, spread = self.scale, self.physical_sd
        values = peak.stretch(self.values)
        moved = self.image.each(lambda one: scale.of(peak.stretch(scale.inverse(one))))
        sd: np.ndarray | None = None if spread is None else peak.stretch_sd(spread, self.values) / np.float32(self.half)
        return Made(values, Image(scale.of(values), sd, moved.low, moved.high), scale, peak)


@dataclass(frozen=True)
class Synthesised:
    """Mean of the samples for each modality, its standard deviation where samples > 1, and how it was made.

    mark: what file names begin with, where scans may bear the same names. low, high: between which values the truth
    lies, where the run is calibrated; unfamiliar: how unlike known scans the given ones are (1: as the last of them).
    """

    volumes: dict[str, Volume]
    std: dict[str, Volume]
    provenance: dict[str, Any]
    mark: str = ""
    low: dict[str, Volume] = field(default_factory=dict)
    high: dict[str, Volume] = field(default_factory=dict)
    unfamiliar: dict[str, Volume] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, Volume]:
        """All images by the name of their file, without its suffix."""
        spread = STD if self.low else UNCALIBRATED  # without intervals nobody knows what it is worth
        found = dict(self.volumes)
        for suffix, maps in ((spread, self.std), (LOW, self.low), (HIGH, self.high), (UNFAMILIAR, self.unfamiliar)):
            found |= {f"{name}{suffix}": one for name, one in maps.items()}
        return {f"{self.mark}{name}": one for name, one in found.items()}

    def __repr__(self) -> str:
        images = ", ".join(f"{name} {one.grid} in {one.unit}" for name, one in self.volumes.items())
        maps = [name for name, found in (("standard deviation", self.std), ("intervals", self.low)) if found]
        text = f"Synthesised({images}{', with ' if maps else ''}{' and '.join(maps)})"
        return "\n".join([text, *(f"  {one}" for one in self.warnings)])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was found of the scans and the images, a sentence each; `voxlate.data.grades.grade_of` grades one."""
        return tuple(self.provenance.get("warnings", ()))

    @property
    def bounds(self) -> dict[str, dict[str, float]]:
        """What the errors of this case exceed seldom, by modality: "mae" inside the body, means of regions.

        Empty where the run is not calibrated, and where the scans are out of its distribution.
        """
        found: dict[str, dict[str, float]] = self.provenance.get("bounds", {})
        return found

    @property
    def volume(self) -> Volume:
        """The image of a model that makes one modality."""
        (volume,) = self.volumes.values()
        return volume

    def to_nifti(self, modality: str | None = None) -> nib.nifti1.Nifti1Image:
        """An image as nibabel's, indexed [x, y, z]; modality: which one, where there are several."""
        volume = self.volume if modality is None else self.volumes[modality]
        return nib.nifti1.Nifti1Image(volume.data[0].T, volume.affine)

    def save(self, folder: Path | str) -> list[Path]:
        """Write FOLDER/<modality>.nii.gz, the maps of it and provenance.json; gives the images' paths.

        The maps: <modality>_low, _high and _unfamiliar, where the run is calibrated, and <modality>_std of several
        samples (_std_uncalibrated where it is not).
        """
        self.write(Path(folder))
        return [Path(folder) / f"{name}.nii.gz" for name in self.files]

    def write(self, folder: Path, suffixes: Sequence[str] = (".nii.gz",)) -> list[str]:
        """Write each image with each suffix, and provenance.json, which lists them; gives what is removed for them."""
        files = {f"{name}{suffix}": volume for name, volume in self.files.items() for suffix in suffixes}
        images = {name: partial(write_volume, volume=one, what=_said(name)) for name, one in files.items()}
        return write_images(folder, images, self.provenance)

    def show(self, tile: int = TILE) -> Picture.Image:
        """The middle axial, coronal and sagittal slice of each image and of its spread, named, in one picture.

        Notebooks draw it by themselves; warnings lie below. tile: pixels a side of each slice.
        """
        rows = []
        for name, volume in self.volumes.items():
            low, high = np.percentile(volume.data, (0.5, 99.5))
            text = f"{self.mark}{name}, {low:.4g} to {high:.4g} {volume.unit}"
            rows.append((text, _three_planes(volume, low, high, "gray")))
            if name in self.std:
                spread = self.std[name]
                most = float(np.percentile(spread.data, 99.5))
                text = f"{self.mark}{name}: standard deviation of the samples, 0 to {most:.4g} {volume.unit}"
                rows.append((text, _three_planes(spread, 0, most, "inferno")))
        sheet = labelled_sheet(rows, PLANES, tile)
        return with_lines(sheet, [one for one in self.warnings if grade_of(one) != "note"])

    def _repr_png_(self) -> bytes:
        return self.show()._repr_png_() or b""


def _three_planes(volume: Volume, low: float, high: float, colours: str) -> list[np.ndarray]:
    """The middle slices of a volume in its three planes as pictures [H, W, 3], with square pixels."""
    turned = canonical(volume)
    found = []
    for axis, plane in enumerate(PLANES):
        middle = plane_of(turned.data[0], plane, turned.data.shape[1 + axis] // 2)
        image = square_pixels(shades(middle, low, max(high, low + 1e-6)), pixel_mm(turned.grid.spacing_mm, plane))
        found.append(palette(colours)[image])
    return found
