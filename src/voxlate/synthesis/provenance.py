"""The result of a synthesis: images with their intervals and provenance, and their folder: which files voxlate wrote, and whether they are as written."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Required

import nibabel as nib
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from voxlate.base.errors import BadInput, system_refusal
from voxlate.base.files import HIGH, LOW, STD, UNCALIBRATED, read_json, relative_to, write_json
from voxlate.base.messages import Grade, Message, read_messages
from voxlate.base.records import (
    Count,
    FileName,
    Name,
    NotNegative,
    Number,
    Place,
    Positive,
    Record,
    Several,
    Share,
    Text,
    Widening,
)
from voxlate.base.statistics import fixed_text
from voxlate.scans.cases.align import Align
from voxlate.scans.cases.case import MASK, Axes
from voxlate.scans.formats.io import content_hash, has_content, is_synthetic, write_volume
from voxlate.scans.formats.nifti import DESCRIPTION, description_of
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import IntensityMap
from voxlate.scans.images.register import RegistrationMethod
from voxlate.synthesis.calibration import Bound

Provenance = Mapping[str, Any]
Table = dict[str, Any]
# All cases of one synthesis share these entries.
SHARED_KEYS = ("model", "seed", "synth", "units", "axes", "range")
MOST_CASES = 12  # whose bounds are printed

# This key of a provenance states that the case was used for the calibration.
USED_FOR_CALIBRATION = "taught_calibration"
OF_TRAINING = "The training saw this scan, or one almost like it, as of the same patient: what its image scores is not what a new patient's would."
OTHER_PATIENT = "It has the name of a training case and other voxels: it counts as another patient."


class _Input(TypedDict, total=False):
    sha256: Text
    path: Place


class _Prepared(TypedDict, total=False):
    """The keys of a case's preparation that are read, and the frame of the image."""

    spacing_mm: tuple[Positive, Positive, Positive] | None
    resample: bool
    register: RegistrationMethod | None
    align: Align | None
    on_grid_of: Name


class _Synth(TypedDict, total=False):
    samples: Several
    steps: Several
    sampler: Text
    precision: Text
    windows: Table | None


class _Units(TypedDict):
    map: Table
    low: Number
    high: Number


class StatedCalibration(TypedDict, total=False):
    """What a provenance states on a calibration."""

    sha256: Text
    patients: Required[Several]
    coverage: Required[Share]
    confidence: Required[Share]
    bound: Required[Bound]
    widened: dict[Name, Widening]
    held: dict[Name, dict[Name, Share]]


class _Keys(TypedDict, total=False):
    """The checked keys of a provenance; other keys are passed on."""

    run: Place
    runs: list[Place]
    case: Name
    inputs: dict[Name, _Input]
    prepared: _Prepared
    range: dict[Name, tuple[Number, Number]]
    cases: list[Name]
    failed: dict[Text, Text]
    warnings: list[Message]
    split: Text
    axes: Axes
    images: dict[FileName, Text]
    synth: _Synth
    seed: Count
    units: dict[Name, Text]
    network_units: dict[Name, _Units]
    network_calls: NotNegative
    seconds_per_slice: NotNegative
    calibration: StatedCalibration
    bounds: dict[Name, dict[Name, NotNegative]]
    expected: dict[Name, dict[Name, NotNegative]]
    measured: dict[Name, list[Text]]
    bound: dict[Name, NotNegative]
    taught_calibration: bool


def state_units(
    maps: Mapping[str, IntensityMap], scales: Mapping[str, tuple[float, float]]
) -> Table:
    """The entry of provenance for each modality."""
    return {
        name: {"map": vars(maps[name]), "low": low, "high": high}
        for name, (low, high) in scales.items()
    }


def read_provenance(path: Path) -> Table:
    """The provenance.json of images; raises BadInput if its form is not that of `synth`."""
    record = Record(
        path,
        "the provenance of a synthesis",
        "Synthesise the image again, or remove this file.",
    )
    content: Table = read_json(path)
    record.check_version(content, "voxlate")
    record.fill(_Keys, content, others=None)
    return content


def run_folders(provenance: Provenance) -> list[Path]:
    """Possible folders of a synthesis's run; its provenance names the folder, or a weights file in it."""
    if "run" not in provenance:
        return []
    run = Path(provenance["run"])
    return [run, run.parent]


def source_paths(provenance: Provenance) -> dict[str, Path]:
    """The source files that a provenance names, by modality, without the mask."""
    inputs = provenance.get("inputs", {})
    return {
        name: Path(scan["path"]) for name, scan in inputs.items() if name != MASK and "path" in scan
    }


def common_settings(provenance: Provenance) -> Table:
    """The settings of a synthesis without those of its case; images that are scored together must agree in them."""
    return {key: provenance.get(key) for key in SHARED_KEYS}


def difference(first: Provenance, second: Provenance) -> str:
    """The first difference between the settings of two syntheses; "" if they are equal."""
    for key in SHARED_KEYS:
        a, b = first.get(key), second.get(key)
        if a != b and isinstance(a, dict) and isinstance(b, dict):
            names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
            key, a, b = f"{key}.{names[0]}", a.get(names[0]), b.get(names[0])
        if a != b:
            return f"{key}: {a} and {b}"
    return ""


def provenance_of(out: Path, case: str = "") -> Table:
    """The provenance of a case's synthesis, or else that of the whole folder, with absolute paths."""
    folder = out / case
    if not (folder / "provenance.json").is_file():
        folder = out
    path = folder / "provenance.json"
    if not path.is_file():
        return {}
    stated = read_provenance(path)
    # its file states paths relative to its own folder
    inputs = {
        name: {**scan, "path": os.path.normpath(folder / scan["path"])} if "path" in scan else scan
        for name, scan in stated.get("inputs", {}).items()
    }
    run = {"run": os.path.normpath(folder / stated["run"])} if "run" in stated else {}
    return {**stated, "inputs": inputs, **run}


SHARED_SECONDS = 60.0  # that one of several processes waits for another to write shared files
OTHERS = ("cohort.json", "weights.safetensors")  # files of the folders that prepare and train write
# Every provenance of a synthesis has one of these keys.
OF_SYNTHESIS = {"images", "cases", "synth"}
# Of the formats in which images may be written.
ENDINGS = ".nii.gz", ".nii", ".nrrd", ".mha"
STATES = "states"  # the folder of states, in that of a case
WRITERS = 2  # files that are written at a time


def write_images(folder: Path, images: Mapping[str, Volume], provenance: Provenance) -> None:
    """Write images by the name of their file, and FOLDER/provenance.json; earlier images that are unchanged are removed.

    The provenance is written last, so that a folder with one is complete. Raises BadInput where a scan has the name of
    an image.
    """
    check_free(folder, images)
    for name, content in _hashes_of(folder).items():
        if name not in images and has_content(folder / name, content):
            (folder / name).unlink()
    (folder / "provenance.json").unlink(missing_ok=True)
    grades = [said.grade for said in read_messages(provenance)]

    def write(name: str) -> None:
        """Write one image."""
        write_volume(folder / name, images[name], description_of(name, grades))

    if sys.platform == "emscripten":  # a browser has no threads
        for name in images:
            write(name)
    else:
        with ThreadPoolExecutor(WRITERS) as pool:  # zlib compresses outside Python's lock
            for _ in pool.map(write, images):
                pass
    listed = {name: content_hash(folder / name) for name in images}
    write_json(folder / "provenance.json", {**provenance, "images": listed})


def check_scans(folder: Path, inputs: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise BadInput where the images in a folder are of other scans: of other content, and from elsewhere.

    inputs: the entry of the provenance. A scan that was corrected in its place is the same one.
    """
    stated = provenance_of(folder).get("inputs")
    if stated is None or _contents(stated) == _contents(inputs):
        return
    earlier = {scan.get("path", "memory") for scan in stated.values()}
    places = {os.path.normpath(folder / scan.get("path", "")) for scan in inputs.values()}
    if earlier.isdisjoint(places):
        raise BadInput(
            f"{folder}: expected no image of another scan, found that of {' and '.join(sorted(earlier))}. Choose another folder, or remove this one."
        )


def _contents(inputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What tells the scans of a provenance apart, wherever they are."""
    return {name: {**scan, "path": ""} for name, scan in inputs.items()}


def read_synthesis(provenance: Path) -> dict[str, Any]:
    """The content of the provenance.json of a synthesis; {} where it belongs to a run or to another tool."""
    stated = read_json(provenance)
    if not isinstance(stated, dict) or not OF_SYNTHESIS & stated.keys():
        return {}
    return read_provenance(provenance)


def check_folder(folder: Path) -> None:
    """Raise BadInput where a folder is a run or a prepared cohort, or its provenance.json is not of a synthesis."""
    path = folder / "provenance.json"
    others = [name for name in OTHERS if (folder / name).is_file()]
    if path.is_file() and not read_synthesis(path):
        others.append(path.name)
    if others:
        raise BadInput(
            f"{folder}: expected a new folder, one of scans, or one that voxlate synth wrote, found {others[0]} of something else. Choose another folder."
        )


def check_free(folder: Path, names: Iterable[str]) -> None:
    """Raise BadInput where a file has one of these names and voxlate did not write it: scans are not replaced."""
    check_folder(folder)
    listed = _hashes_of(folder)
    for name in names:
        path = folder / name
        if name not in listed and path.is_file() and not is_synthetic(path):
            raise BadInput(
                f"{path}: expected no file of this name that voxlate did not write, found one: is it the scan itself? Choose another folder."
            )


def is_unchanged(folder: Path, ending: str = "") -> bool:
    """Whether the provenance lists images, all unchanged since they were written, and with this ending."""
    listed = _hashes_of(folder)
    return bool(listed) and all(
        name.endswith(ending) and has_content(folder / name, content)
        for name, content in listed.items()
    )


def _hashes_of(folder: Path) -> dict[str, str]:
    """The hashes of the images that a folder's provenance lists, by file name."""
    return provenance_of(folder).get("images", {})


def place_from(path: Path, folder: Path) -> str:
    """A path relative to a folder: provenance has no absolute path, and remains valid if both are moved."""
    return relative_to(folder, path.resolve() if path.exists() else path.absolute())


def bounds_of(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """By case and modality, the bound that synth wrote: of the MAE inside the body."""
    return {
        folder.name: bounds for folder in folders if (bounds := provenance_of(folder).get("bounds"))
    }


def bound_lines(folders: Sequence[Path]) -> Iterator[str]:
    """The bound of the error of each case and modality, of many cases the first; none without a calibration."""
    for folder in folders[:MOST_CASES]:
        stated = provenance_of(folder)
        for name, of in stated.get("bounds", {}).items():
            bound = fixed_text(of["mae"], of["mae"], fits=True)
            chance = 1 - stated["calibration"]["coverage"]
            yield f"{folder.name}: MAE of {name} inside the body, exceeded with a probability of {chance:.0%} at most: {bound} {stated['units'][name]}."


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
        images = {f"{name}{ending}": volume for name, volume in self.files.items()}
        write_images(folder, images, self.provenance)
