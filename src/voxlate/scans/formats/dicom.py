"""DICOM: the series in a folder, and a series or a segmentation as frames on one grid."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput, first_of
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, message
from voxlate.base.optional import optional_package
from voxlate.scans.formats.dicom_file import (
    GREY,
    PER_FRAME,
    SHARED,
    VALUE_TAGS,
    Image,
    fill_padding,
    find_meaning,
    images_in,
    kind_of,
    looks_like_dicom,
    no_warnings,
    open_object,
    read_header,
    read_slice,
)
from voxlate.scans.formats.dicom_stack import (
    IDENTITY,
    ORDERS,
    PLACE,
    SIZE,
    STATED,
    THICKNESS,
    TILT_DEGREES,
    Stack,
    check_agreement,
    check_patient,
    frames_of,
    stack_of,
    thickness_mm,
    tilt_of,
    upright,
)
from voxlate.scans.formats.format import (
    DynamicScan,
    Format,
    Stored,
    check_volume,
    errors_as,
)
from voxlate.scans.images.grid import LPS_TO_RAS, Grid, Volume, check_affine, resample, same_grid

MOST_LISTED = 8
AS_NIFTI = "Save it as NIfTI."
ENDINGS = (".dcm", ".ima", ".dcm.gz", ".ima.gz")
OTHER_FILES = ("version", "lockfile", "readme", "license", "notice", "changes")
CLEARLY_HU = -500.0  # no other scale of a CT goes so far below 0; air is -1000
NO_SCALE = "neither RescaleSlope nor RescaleIntercept"
IMAGES_STATED = ("ImagesInAcquisition", "NumberOfSlices")
# Segmentation Storage and Label Map Segmentation Storage
SEGMENTATIONS = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}
KEY = ("SeriesInstanceUID", "SeriesNumber", "Modality", "SeriesDescription")
# what the images of one stack share
FORM = ("SeriesNumber", "Modality", "Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")
FEWEST_IMAGES = 3  # images whose steps can be compared
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
    *PLACE,
    *SIZE,
    *THICKNESS,
    *VALUE_TAGS,
    *DESCRIBING.values(),
    *ORDERS,
    *IDENTITY,
    *(name for name, _ in STATED),
    *IMAGES_STATED,
    "StackID",
    "SOPClassUID",
    "SOPInstanceUID",
    "PatientPosition",
    "NumberOfFrames",
    "GantryDetectorTilt",
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
    suffixes = {".dcm", ".ima"}
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
        is_named_so = _suffix_of_images(file) in suffixes and file.stem.lower() not in OTHER_FILES
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
                f"{path}: expected a series of that key, found only {describe_series(_infos(series))}. Name another."
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

    Series are joined where their images have one form and together are one even stack: scanners and anonymisers change
    UID or description image by image.
    """
    keys = {image: _key(image) for image in images}
    alike = defaultdict[tuple[str, ...], list[Image]](list)
    for image in images:
        with suppress(BadInput):  # which is raised when the series is read
            alike[tuple(map(image.text, FORM))].append(image)
    for form in alike.values():
        joined = {keys[image] for image in form}
        if len(joined) > 1 and _is_stack(form):
            keys |= dict.fromkeys(form, min(joined))
    return grouped((key, image) for image, key in keys.items())


def _key(image: Image) -> str:
    """Eight digits for a series. The UID itself would identify the patient's record in our files."""
    lines = [*map(image.text, KEY)]
    stack = image.text("StackID")  # each stack of an enhanced object is a volume
    if stack not in ("", "1"):
        lines.append(stack)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]


def _is_stack(images: list[Image]) -> bool:
    """Whether images of one form are one even stack."""
    try:
        frames, *_ = frames_of(images, Path())
        stack_of(images, Path())
    except BadInput:
        return False
    return len(frames) == 1 and len(images) >= FEWEST_IMAGES


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


def describe_series(series: list[SeriesInfo]) -> str:
    """Series as a part of a sentence: their descriptions, and the paths that name them."""
    return f"{len(series)} ({first_of(series, MOST_LISTED, '; ')})"


def open_series(path: Path) -> DynamicScan:
    """The frames of the only series in a folder, of the one that 'FOLDER#key' names, or of one file.

    A series that shows each place several times has as many frames, those of a segmentation are its segments. Raises
    BadInput for several series, missing slices, colour, damaged files, and scales that headers do not state.
    """
    with no_warnings():
        images = images_of(path)
        if not images:
            raise BadInput(
                f"{path}: expected a DICOM series, found no DICOM image here. Name the folder of its files; 'voxlate manifest FOLDER' lists the series of a cohort."
            )
        info, *others = _infos(_images_by_key(images))
        if others:
            raise BadInput(
                f"{path}: expected one DICOM series, found {describe_series([info, *others])}. Name one of them by such a path, put it in its own folder, or choose the series of a cohort by tags (--preset FILE.toml: docs/guides/dicom.md)."
            )
        if {str(image.header.get("SOPClassUID", "")) for image in images} <= SEGMENTATIONS:
            return _open_segments(images[0], path)
        check_patient(images, path)
        _check_images(images, path)
        frames, apart, times = frames_of(images, path)
        scaling = find_meaning(images)
        stacks = [stack_of(frame, path, numbered=len(frames) == 1) for frame in frames]
    grid = stacks[0].grid
    for number, stack in enumerate(stacks, start=1):
        if not same_grid(stack.grid, grid, MOVED_MM):
            raise BadInput(
                f"{path}: expected all frames on one grid ({grid}), found frame {number} elsewhere. Export each grid as a series of its own."
            )
    shown = upright(grid) if tilt_of(grid) > TILT_DEGREES else grid
    for shape in (grid.shape, shown.shape):
        check_volume(shape, path)
    kind = kind_of(info.image_type, info.description)

    def read(number: int) -> Stored:
        """A frame, counted from 0."""
        with no_warnings():
            agreeing = check_agreement(stacks[number].images, path)
            stored = _read_stack(stacks[number], info.modality.lower(), *scaling)
        guesses = (*agreeing, *stored.guesses)
        return replace(stored, guesses=guesses, kind=kind, body_part=info.body_part)

    return DynamicScan(shown, len(frames), times, read, f", told apart by {apart}")


def _read_stack(stack: Stack, modality: str, scaled: bool, not_hu: str) -> Stored:
    """The slices of a stack as one image, upright where a gantry tilt shears its grid."""
    data, padded = (np.zeros(stack.grid.shape, kind) for kind in (np.float32, bool))
    for k, image in enumerate(stack.images):
        data[k], padded[k] = read_slice(image, data[k].shape)
    filled = fill_padding(data, padded, scaled and modality == "ct")
    guesses: tuple[str | Message, ...] = (*stack.guesses, *filled)
    as_hu = ""
    if not not_hu and not scaled:
        lowest = float(data.min())
        as_hu = (
            f"It states {NO_SCALE}; its values, from {lowest:g} on, are taken as Hounsfield units."
        )
        if lowest > CLEARLY_HU:
            not_hu, as_hu = f"{NO_SCALE}, and no value below {CLEARLY_HU:g}", ""
    affine = stack.grid.affine
    tilt = tilt_of(stack.grid)
    if tilt > TILT_DEGREES:
        text = f"Its gantry was tilted by {tilt:.1f} degrees; its slices are resampled to an upright grid."
        said = message("guess", text, grade="note")
        if modality == "mr":
            text += " No gantry of an MR tilts: look whether the head is sheared."
            said = message("guess", text, grade="caution")
        straight = resample(Volume(data[None], affine, "", ""), upright(stack.grid))
        data, affine, guesses = straight.data[0], straight.affine, (*guesses, said)
    return Stored(data, affine, "", modality, "", guesses, not_hu=not_hu, as_hu=as_hu)


def _check_images(images: Sequence[Image], path: Path) -> None:
    """Raise BadInput for images that are no slices of grey values with a place, or fewer than they state."""
    for image in images:
        kind = image.text("PhotometricInterpretation") or "no kind of pixels"
        frames, *_ = image.numbers("NumberOfFrames") or (1,)
        missing = [tag for tag in PLACE if not image.text(tag)]
        advice = "Convert it with dcm2niix to NIfTI."
        if kind not in GREY:
            found = kind
            advice = "Save it as grey values, not in colour, or move it elsewhere."
        elif "MOSAIC" in image.text("ImageType"):
            found = "the slices of a volume side by side (a Siemens mosaic)"
        elif frames > 1:
            found = f"{frames:g} frames without groups of attributes"
        elif missing:
            found = f"no {missing[0]}"
        else:
            check_volume((1, *(int(image.numbers(tag, 1)[0]) for tag in SIZE)), image)
            continue
        raise BadInput(
            f"{image}: expected one slice of grey values ({' or '.join(GREY)}) with its place in the patient, found {found}. {advice}"
        )
    for tag in IMAGES_STATED:
        stated = {image.number(tag) or 0 for image in images}
        if len(stated) == 1 and len(images) < max(stated):
            raise BadInput(
                f"{path}: expected the {max(stated):g} images that their headers state ({tag}), found {len(images)}. Copy the missing ones, or convert what there is with dcm2niix."
            )


def _open_segments(image: Image, path: Path) -> DynamicScan:
    """The segments of an object as frames, and their numbers as a map where there are several.

    Slices that it leaves out, as most writers do with empty ones, are 0. Raises BadInput where slices have no even steps.
    """
    highdicom = optional_package("highdicom", "dicom", path, "highdicom to read segmentations")
    data = open_object(image.file)
    syntax = data.file_meta.TransferSyntaxUID.name
    with errors_as(f"{path}: expected a whole segmentation, found {syntax}", AS_NIFTI):
        segmentation = highdicom.seg.Segmentation.from_dataset(data)
        numbers = list(segmentation.segment_numbers)
        listed = [
            f"{number} {segmentation.get_segment_description(number).segment_label}"
            for number in numbers
        ]
        geometry = segmentation.get_volume_geometry()
    if geometry is None:
        raise BadInput(
            f"{path}: expected segments on slices at even steps, found others. {AS_NIFTI}"
        )
    shape = geometry.spatial_shape
    check_volume(shape, path)
    # highdicom orders slices against the normal of their planes, series are read along it;
    # its axes are slices, rows and columns
    affine = check_affine(LPS_TO_RAS @ geometry.flip_spatial(0).affine[:, [2, 1, 0, 3]], path)
    if shape[0] == 1:  # highdicom takes 1 mm
        affine[:3, 2] *= thickness_mm(image) or 1.0

    def read(chosen: list[int], said: str) -> Stored:
        """Some segments: one with its values, several as a map of their numbers."""
        with errors_as(
            f"{path}: expected whole segments that do not overlap, found others among {first_of(listed)} ({syntax})",
            f"Name one of them: {path.name}#frame=1 to #frame={len(listed)}.",
        ):
            volume = segmentation.get_volume(
                dtype=np.float32, segment_numbers=chosen, combine_segments=len(chosen) > 1
            )
        data = np.ascontiguousarray(volume.flip_spatial(0).array.reshape(shape))
        return Stored(data, affine, "", "seg", guesses=(said,))

    said = f"Its values are the numbers of segments: {first_of(listed)}."
    return DynamicScan(
        Grid(shape, affine),
        len(listed),
        None,
        lambda k: read([numbers[k]], f"It is the segment {listed[k]}."),
        whole=(lambda: read(numbers, said)) if len(listed) > 1 else None,
    )


DICOM = Format(
    open_series,
    named_endings=ENDINGS,
    recognises=looks_like_dicom,
)  # a folder without an ending holds a series too
