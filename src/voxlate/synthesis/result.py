"""The result of a synthesis: the images of a case with their intervals and provenance, and their files."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib

from voxlate.base.errors import BadInput, known_name, system_refusal
from voxlate.base.files import HIGH, LOW, STD, UNCALIBRATED
from voxlate.base.messages import Grade, Message, read_messages
from voxlate.scans.formats.io import write_volume
from voxlate.scans.formats.nifti import DESCRIPTION, description_of
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.provenance import ENDINGS, check_scans, write_images

STATES = "states"  # the folder of states, in that of a case


@dataclass(frozen=True)
class Synthesised:
    """The images of a case by modality with their maps and provenance, as `Model.synthesise` returns them.

    Args:
        volumes: the images [1, D, H, W], means of the samples, in physical units on the grid of the scan.
        std: standard deviation of several samples; empty for one.
        provenance: model, options, seed, inputs, warnings and error bounds.
        mark: the beginning of file names, where scans may have the same names.
        low: lower ends of the prediction intervals, where the run is calibrated.
        high: upper ends of the prediction intervals, where the run is calibrated.
        states: of the last sample, numbered from noise to image.

    Example:
        >>> import voxlate
        >>> result = voxlate.load("RUN").synthesise({"t1": "COHORT/case0/t1.nii.gz"})
        >>> result.volume.unit, result.to_nifti().shape  # [x, y, z]
        ('a.u.', (20, 24, 6))
        >>> [path.name for path in result.save("NEW")]
        ['t2.nii.gz']
    """

    volumes: dict[str, Volume]
    std: dict[str, Volume]
    provenance: dict[str, Any]
    mark: str = ""
    low: dict[str, Volume] = field(default_factory=dict)
    high: dict[str, Volume] = field(default_factory=dict)
    states: dict[str, Volume] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, Volume]:
        """All images and maps by the name of their file, without its suffix."""
        files = dict(self.volumes)
        maps = {
            # the name states whether there are intervals, too
            STD if self.low else UNCALIBRATED: self.std,
            LOW: self.low,
            HIGH: self.high,
        }
        for suffix, volumes in maps.items():
            files |= {f"{name}{suffix}": volume for name, volume in volumes.items()}
        return {f"{self.mark}{name}": volume for name, volume in files.items()}

    def __repr__(self) -> str:
        images = (f"{name} {volume.grid} in {volume.unit}" for name, volume in self.volumes.items())
        notes = (f"  {note}" for note in self.warnings)
        return "\n".join([f"Synthesised({', '.join(images)})", *notes])

    @property
    def warnings(self) -> tuple[Message, ...]:
        """Messages on the scans and the images, each with its code and grade."""
        return tuple(read_messages(self.provenance))

    @property
    def grades(self) -> list[Grade]:
        """The grades of the warnings."""
        return [said.grade for said in self.warnings]

    @property
    def bounds(self) -> dict[str, dict[str, float]]:
        """Upper bounds of the errors of this case, by modality: "mae" inside the body.

        Empty where the run is not calibrated, and where the scans are graded "do not trust".
        """
        return self.provenance.get("bounds", {})

    @property
    def volume(self) -> Volume:
        """The image of a model with one target modality; raises BadInput where there are several."""
        if len(self.volumes) > 1:
            raise BadInput(
                f"volume: expected a result with one image, found {', '.join(self.volumes)}. Take volumes[NAME]."
            )
        return next(iter(self.volumes.values()))

    def to_nifti(self, modality: str | None = None) -> nib.nifti1.Nifti1Image:
        """An image of nibabel, indexed [x, y, z]; modality: may be left out where there is only one."""
        volume = self.volume if modality is None else self.volumes[modality]
        image = nib.nifti1.Nifti1Image(volume.data[0].T, volume.affine)
        image.header["descrip"] = f"{DESCRIPTION}{description_of('', self.grades)}"
        return image

    def save(self, folder: Path | str, ending: str = ENDINGS[0]) -> list[Path]:
        """Write FOLDER/<modality>.nii.gz, its maps and provenance.json; returns the paths of the images and maps.

        ending: one of ENDINGS.
        The maps are <modality>_low and _high where the run is calibrated, and <modality>_std of several
        samples or planes (_std_uncalibrated where the run is not calibrated). Raises BadInput where the folder has images
        of other scans.
        """
        if not isinstance(folder, Path | str):
            raise BadInput(f"folder: expected a path, found {folder!r}. Change it.")
        known_name("ending", "the ending of a format", f"{ending}", ENDINGS)
        folder = Path(folder)
        try:
            check_scans(folder, self.provenance["inputs"])
            self.write(folder, ending)
        except OSError as error:
            raise system_refusal(error) from error
        return [folder / f"{name}{ending}" for name in self.files]

    def write(self, folder: Path, ending: str = ENDINGS[0]) -> None:
        """Write each image and map, and provenance.json with their names; states into FOLDER/states."""
        for name, state in self.states.items():
            file = f"{name}{ending}"
            write_volume(folder / STATES / file, state, description_of(file, self.grades))
        images = {}
        for name, volume in self.files.items():
            description = description_of(f"{name}{ending}", self.grades)
            images[f"{name}{ending}"] = partial(
                write_volume, volume=volume, description=description
            )
        write_images(folder, images, self.provenance)
