"""DICOM: the series in a folder, and a series or a segmentation as frames on one grid."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput, first_of
from voxlate.base.groups import grouped
from voxlate.base.messages import message
from voxlate.base.optional import optional_package
from voxlate.scans.formats.dicom_file import (
    PER_FRAME,
    SHARED,
    Image,
    by_text,
    images_in,
    kind_of,
    looks_like_dicom,
    no_warnings,
    open_object,
    read_header,
    read_slice,
)
from voxlate.scans.formats.dicom_stack import (
    TAGS_OF_SLICES,
    TILT_DEGREES,
    Stack,
    check_images,
    check_kinds,
    find_scale,
    frames_of,
    stack_of,
    tilt_of,
    upright,
)
from voxlate.scans.formats.dynamic import is_frame, read_frame
from voxlate.scans.formats.format import DynamicScan, Format, check_volume, errors_as
from voxlate.scans.images.grid import LPS_TO_RAS, Volume, check_affine, resample, same_grid

MOST_LISTED = 8
ENDINGS = (".dcm", ".ima", ".dcm.gz", ".ima.gz")
CLEARLY_HU = -500.0  # no other scale of a CT goes so far below 0; air is -1000
AIR_HU = -1000.0
LEAST_HU = -1024.0  # of twelve bits; what is lower is padding around a round field of view
NO_SCALE = "neither RescaleSlope nor RescaleIntercept"
# Segmentation Storage and Label Map Segmentation Storage
SEGMENTATIONS = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}
KEY = ("SeriesInstanceUID", "SeriesNumber", "Modality", "SeriesDescription")
MOVED_MM = 0.5  # of a frame on a moving table against the first
# the tags that describe a series, by the fields of SeriesInfo
DESCRIBING = {
    "modality": "Modality",
    "description": "SeriesDescription",
    "protocol": "ProtocolName",
    "image_type": "ImageType",
    "body_part": "BodyPartExamined",
    "number": "SeriesNumber",
    "uid": "SeriesInstanceUID",
    "study": "StudyInstanceUID",
}
# the tags that are read; whole headers, with private tags, would fill the memory for long series
TAGS = [
    *TAGS_OF_SLICES,
    *DESCRIBING.values(),
    "StackID",
    "SOPClassUID",
    "SOPInstanceUID",
    "PatientName",
    "NumberOfFrames",
    SHARED,
    PER_FRAME,
]


@dataclass(frozen=True)
class SeriesInfo:
    """A series as the first of its headers describes it."""

    folder: Path
    key: str
    modality: str
    description: str
    protocol: str
    image_type: str
    body_part: str = ""
    number: str = ""
    uid: str = field(default="", repr=False)  # identifies the patient's record: for comparison only
    study: str = field(default="", repr=False)
    images: int = 0
    directions: frozenset[str] = frozenset()

    @property
    def path(self) -> Path:
        """'FOLDER#key', which names this series alone."""
        return Path(f"{self.folder}#{self.key}")

    def __str__(self) -> str:
        return f'{self.modality} "{self.description}", {self.images} images: {self.path.name}'


def is_dicom_folder(folder: Path) -> bool:
    """Whether a folder holds DICOM files: a name ends with .dcm or .ima, or the first file has the DICM mark."""
    entries = [entry for entry in entries_in(folder) if not entry.is_dir()]
    if any(entry.name.lower().endswith(ENDINGS) for entry in entries):
        return True
    first = next((entry for entry in entries if entry.is_file()), None)
    return first is not None and looks_like_dicom(first)


def folder_and_key(path: Path) -> tuple[Path, str]:
    """The folder and the key of a path 'FOLDER#key' that names one of its series; the path and '' for any other."""
    folder, mark, key = str(path).rpartition("#")
    is_key = mark and re.fullmatch("[0-9a-f]{8}", key)
    if not is_key or path.exists() or not Path(folder).is_dir():
        return path, ""
    return Path(folder), key


def entries_in(place: Path) -> list[Path]:
    """All entries of a folder except hidden ones and folders without a suffix; of a file, the file itself.

    Links that lead nowhere, pipes and folders named '0007.dcm' are among them: each may stand where a slice was.
    """
    if not place.is_dir():
        return [place]
    visible = (entry for entry in place.iterdir() if not entry.name.startswith("."))
    return sorted(entry for entry in visible if not entry.is_dir() or _suffix_of_images(entry))


def _suffix_of_images(file: Path) -> str:
    """The suffix of a file, '' where it is a number: 'IM.0001' and 'IM.0002' are images of one series."""
    suffix = Path(file.name.lower().removesuffix(".gz")).suffix
    return "" if suffix[1:].isdigit() else suffix


def _read_images(place: Path) -> Iterator[Image]:
    """Every image below a place; files that are clearly something else are skipped.

    Raises BadInput for an entry that is named like the images or has the mark of DICOM, and cannot be read as an image:
    if it were skipped, the volume would lack a slice and nobody would notice.
    """
    optional_package("pydicom", "dicom", place, "pydicom to read DICOM files")
    suffixes = {*ENDINGS[:2]}
    unreadable = {}
    for file in entries_in(place):
        try:
            header = read_header(file, TAGS)
        except BadInput as error:
            unreadable[file] = error
            continue
        if header is not None:
            suffixes.add(_suffix_of_images(file))
            yield from images_in(header, file)
    for file, fault in unreadable.items():
        is_named_so = _suffix_of_images(file) in suffixes
        if file == place or is_named_so or (file.is_file() and looks_like_dicom(file)):
            raise fault


def images_of(path: Path) -> list[Image]:
    """The images in a folder, of one file, or of the series that 'FOLDER#key' names.

    Raises BadInput for damaged files, a file that is no image, and a key that no series has.
    """
    place, key = folder_and_key(path)
    with no_warnings():
        images = [*_read_images(place)]
        series = _images_by_key(images) if key else {"": images}
        if key not in series:
            raise BadInput(
                f"{path}: expected a series of that key, found only {_describe(_infos(series))}. Name another."
            )
        return series[key]


def holds_image(folder: Path) -> bool:
    """Whether a folder of DICOM objects has an image; one that cannot be read counts, so that its reader says so."""
    with no_warnings():
        try:
            return next(_read_images(folder), None) is not None
        except BadInput:
            return True


def list_series(folder: Path) -> list[SeriesInfo]:
    """The image series in a folder, by one pass over its headers; contours, reports and notes are skipped."""
    with no_warnings():
        return _infos(_images_by_key([*_read_images(folder)]))


def _images_by_key(images: Sequence[Image]) -> dict[str, list[Image]]:
    """The images of each series by its key.

    Series are joined where their images have one number and direction and together are one even stack: scanners and
    anonymisers change UID or description image by image.
    """
    keys = {image: _key(image) for image in images}
    forms = grouped(((image.text("SeriesNumber"), _direction(image)), image) for image in images)
    for alike in forms.values():
        joined = {keys[image] for image in alike}
        if len(joined) > 1 and len(alike) > 2:  # of two images, no steps can be compared
            with suppress(BadInput):  # of images that are no even stack
                stack_of(alike, Path())
                keys |= dict.fromkeys(alike, min(joined))
    return grouped((key, image) for image, key in keys.items())


def _key(image: Image) -> str:
    """Eight digits for a series. The UID itself would identify the patient's record in our files."""
    lines = [*map(image.text, KEY)]
    stack = image.text("StackID")  # each stack of an enhanced object is a volume
    if stack not in ("", "1"):
        lines.append(stack)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]


def _infos(series: Mapping[str, Sequence[Image]]) -> list[SeriesInfo]:
    """Series by their keys, each as its first header describes it."""
    infos = []
    for key, images in series.items():
        first = images[0]
        texts: dict[str, Any] = {name: first.text(tag) for name, tag in DESCRIBING.items()}
        directions = frozenset(map(_direction, images)) - {""}
        infos.append(
            SeriesInfo(first.file.parent, key, **texts, images=len(images), directions=directions)
        )
    return sorted(infos, key=lambda one: (one.modality, one.description, one.key))


def _direction(image: Image) -> str:
    """The direction of an image as a text; "" of a header that states none that can be read."""
    with suppress(BadInput):
        numbers = image.numbers("ImageOrientationPatient")
        return " ".join(f"{round(number, 1) + 0.0}" for number in numbers)
    return ""


def _describe(series: list[SeriesInfo]) -> str:
    """Series as a part of a sentence: their descriptions, and the paths that name them."""
    return f"{len(series)} ({first_of(series, MOST_LISTED, '; ')})" if series else "no image"


def read_series(path: Path, part: str) -> Volume:
    """The only series in a folder, the one that 'FOLDER#key' names, or one file; part: names a frame of it."""
    with no_warnings():
        return read_frame(path, part, open_series)


def open_series(path: Path) -> DynamicScan:
    """The frames of a series; a segmentation has one, the map of its segments' numbers.

    A series that shows each place several times has as many frames. Raises BadInput for several series, missing slices,
    colour, damaged files, and scales that headers do not state.
    """
    images = images_of(path)
    infos = _infos(_images_by_key(images))
    if len(infos) != 1:
        raise BadInput(
            f"{path}: expected one DICOM series, found {_describe(infos)}. Name one of them by such a path, put it in its own folder, or choose the series of a cohort by tags (--preset FILE.toml: docs/guides/dicom.md)."
        )
    (info,) = infos
    if by_text(images, "SOPClassUID").keys() <= SEGMENTATIONS:
        return _open_segmentation(images[0], path)
    said = check_images(images, path)
    is_scaled, not_hu = find_scale(images)
    frames, apart, times = frames_of(images, path)
    stacks = [stack_of(frame, path) for frame in frames]
    grid = stacks[0].grid
    for number, stack in enumerate(stacks, start=1):
        if not same_grid(stack.grid, grid, MOVED_MM):
            raise BadInput(
                f"{path}: expected all frames on one grid ({grid}), found frame {number} elsewhere. Export each grid as a series of its own."
            )
    shown = upright(grid) if tilt_of(grid) > TILT_DEGREES else grid
    check_volume(shown.shape, path)

    def read(numbers: Iterable[int]) -> Iterator[Volume]:
        """Frames, counted from 0."""
        return (_read_stack(stacks[number], info, said, is_scaled, not_hu) for number in numbers)

    return DynamicScan(shown, len(frames), times, read, f", told apart by {apart}")


def _read_stack(
    stack: Stack, info: SeriesInfo, of_series: list[str], is_scaled: bool, not_hu: str
) -> Volume:
    """The slices of a stack as one image, upright where a gantry tilt shears its grid."""
    check_kinds(stack.images)
    data = np.zeros(stack.grid.shape, np.float32)
    for k, image in enumerate(stack.images):
        data[k] = read_slice(image, data[k].shape)
    modality = info.modality.lower()
    is_ct = modality == "ct"
    said = [*of_series, stack.guess]
    lowest = float(data.min())
    if is_scaled and is_ct and lowest < LEAST_HU:
        padded = data < LEAST_HU
        fill = float(data.min(where=~padded, initial=AIR_HU))
        data[padded] = fill
        said.append(
            f"{padded.mean():.0%} of its voxels are padding (below {LEAST_HU:g} HU, as low as {lowest:g}), and were set to {fill:g}."
        )
    if not is_scaled:
        if lowest > CLEARLY_HU:
            not_hu = not_hu or f"{NO_SCALE}, and no value below {CLEARLY_HU:g}"
        elif is_ct:
            said.append(f"It states {NO_SCALE}; its values are taken as Hounsfield units.")
    tilt = tilt_of(stack.grid)
    if tilt > TILT_DEGREES:
        said.append(
            f"Its gantry was tilted by {tilt:.1f} degrees; its slices are resampled to an upright grid."
        )
    guesses = [message("guess", sentence) for sentence in said if sentence]
    slopes = [image.number("RescaleSlope") or 1.0 for image in stack.images]
    first, last = slopes[0], slopes[-1]
    if first != last and slopes == sorted(slopes, reverse=first > last):
        text = f"Its RescaleSlope drifts along the slices, from {first:g} to {last:g}. Look whether tissue keeps its brightness."
        guesses.append(message("guess", text, grade="caution"))
    volume = Volume(
        data[None],
        stack.grid.affine,
        "",
        modality,
        guesses=tuple(guesses),
        body_part=info.body_part,
        not_hu=not_hu,
        kind=kind_of(info.image_type, info.description),
    )
    return resample(volume, upright(stack.grid)) if tilt > TILT_DEGREES else volume


def _open_segmentation(image: Image, path: Path) -> DynamicScan:
    """The numbers of an object's segments as a map, 0 in the slices that it leaves out, as most writers do with empty ones.

    Raises BadInput where slices have no even steps, and where segments overlap.
    """
    highdicom = optional_package("highdicom", "dicom", path, "highdicom to read segmentations")
    data = open_object(image.file)
    with errors_as(
        f"{path}: expected a whole segmentation of segments on even slices that do not overlap, found another ({data.file_meta.TransferSyntaxUID.name})",
        "Save it as NIfTI.",
    ):
        segmentation = highdicom.seg.Segmentation.from_dataset(data)
        geometry = segmentation.get_volume_geometry()
        check_volume(geometry.spatial_shape, path)
        stored = segmentation.get_volume(dtype=np.float32, combine_segments=True)
        listed = [
            f"{number} {segmentation.get_segment_description(number).segment_label}"
            for number in segmentation.segment_numbers
        ]
    # highdicom orders slices against the normal of their planes, series are read along it;
    # its axes are slices, rows and columns
    stored = stored.flip_spatial(0)
    affine = check_affine(LPS_TO_RAS @ stored.affine[:, [2, 1, 0, 3]], path)
    said = message("guess", f"Its values are the numbers of segments: {first_of(listed)}.")
    data = np.ascontiguousarray(stored.array)[None]
    volume = Volume(data, affine, "", "seg", guesses=(said,))
    return DynamicScan(volume.grid, 1, None, lambda _: iter([volume]))


DICOM = Format(
    read_series,
    named_endings=ENDINGS,
    is_part=is_frame,
)  # a folder without an ending holds a series too
