"""What a synthesis gives: images of a case with what is known of their errors, and their files."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image as Picture

from voxlate.data.grades import grade_of
from voxlate.errors import BadInput
from voxlate.files import HIGH, LOW, STD, UNCALIBRATED, UNFAMILIAR, read_json, write_json
from voxlate.images.formats.nifti import SYNTHETIC, SYNTHETIC_SCAN, is_synthetic
from voxlate.images.grid import Volume, canonical
from voxlate.images.intensity import Scale
from voxlate.images.io import content_hash, write_volume
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
from voxlate.scoring.provenance import provenance_of, read_provenance
from voxlate.synthesis.brightness import Peak
from voxlate.trust.calibration import Prediction

Writer = Callable[[Path], object]

OTHERS = ("cohort.json", "weights.safetensors")  # of folders that prepare and train write
OF_SYNTHESIS = {"images", "cases", "synth"}  # keys of ours, one of which every provenance of a synthesis has
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
class SynthesisedImage:
    """An image [D, H, W] on the network's grid: in physical units, and with its spread in network units.

    scale: from network units to physical ones; peak: how its bright end was corrected.
    """

    values: np.ndarray
    image: Prediction
    scale: Scale
    peak: Peak | None = None

    @property
    def half(self) -> float:
        """What 1 of network units is in physical ones."""
        return (self.scale.high - self.scale.low) / 2

    @property
    def physical_sd(self) -> np.ndarray | None:
        return None if self.image.sd is None else self.image.sd * np.float32(self.half)

    def stretched(self, peak: Peak) -> "SynthesisedImage":
        """The image with its bright end moved, and its spread with it."""
        scale, spread = self.scale, self.physical_sd
        values = peak.stretch(self.values)
        moved = self.image.each(lambda one: scale.of(peak.stretch(scale.inverse(one))))
        sd: np.ndarray | None = None if spread is None else peak.stretch_sd(spread, self.values) / np.float32(self.half)
        return SynthesisedImage(values, Prediction(scale.of(values), sd, moved.low, moved.high), scale, peak)


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
        images = {name: partial(write_volume, volume=one, description=_said(name)) for name, one in files.items()}
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


def write_images(folder: Path, images: Mapping[str, Writer], provenance: Mapping[str, Any]) -> list[str]:
    """Write images, by name of their file, and FOLDER/provenance.json; gives the earlier ones, which are removed.

    The provenance comes last: a folder that has one is whole. Raises BadInput where a scan has the name of an image.
    """
    check_free(folder, images)
    removed = remove_images(folder, keep=images)
    for name, write in images.items():
        write(folder / name)
    listed = {name: content_hash(folder / name) for name in images}
    write_json(folder / "provenance.json", {**provenance, "images": listed})
    return removed


def remove_images(folder: Path, keep: Collection[str] = ()) -> list[str]:
    """Remove the provenance of a folder and the images that it lists, where they are still as they were written."""
    removed = [name for name, content in _listed(folder).items() if name not in keep and _is(folder / name, content)]
    for name in removed:
        (folder / name).unlink()
    (folder / "provenance.json").unlink(missing_ok=True)
    return removed


def stated_synthesis(provenance: Path) -> dict[str, Any]:
    """What a provenance.json says of a synthesis; {} where it is of a run or of another tool."""
    stated = read_json(provenance)
    return read_provenance(provenance) if isinstance(stated, dict) and OF_SYNTHESIS & stated.keys() else {}


def check_folder(folder: Path) -> None:
    """Raise BadInput where a folder is a run or a prepared cohort, or its provenance.json is not of a synthesis."""
    path = folder / "provenance.json"
    foreign = [path.name] if path.is_file() and not stated_synthesis(path) else []
    if others := [name for name in OTHERS if (folder / name).is_file()] + foreign:
        raise BadInput(
            f"{folder}: expected a new folder, one of scans, or one that voxlate synth wrote, found {others[0]} of "
            "something else. Choose another folder."
        )


def check_free(folder: Path, names: Iterable[str]) -> None:
    """Raise BadInput where a file of one of these names is there that voxlate did not write: scans are not replaced."""
    check_folder(folder)
    listed = _listed(folder)
    for path in (folder / name for name in names if name not in listed):
        if path.is_file() and not is_synthetic(path.with_name(f"{path.name.split('.')[0]}.nii.gz")):
            raise BadInput(
                f"{path}: expected no file of this name that voxlate did not write, found one: is it the scan itself? "
                "Choose another --out."
            )


def is_unchanged(folder: Path) -> bool:
    """Whether the provenance lists images, and all of them are there as they were written."""
    listed = _listed(folder)
    return bool(listed) and all(_is(folder / name, content) for name, content in listed.items())


def _listed(folder: Path) -> dict[str, str]:
    listed: dict[str, str] = provenance_of(folder).get("images", {})
    return listed


def _is(path: Path, content: str) -> bool:
    return path.is_file() and content_hash(path) == content
