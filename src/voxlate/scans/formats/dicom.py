"""DICOM: the series in a folder, a series as a volume, and the frames of a dynamic series."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput, first_of
from voxlate.base.messages import message
from voxlate.base.optional import optional_package
from voxlate.scans.formats.dicom_geometry import (
    DIRECTION,
    PLACE,
    SIZE,
    THICKNESS,
    TILT_DEGREES,
    Stack,
    stack_of,
    tilt_of,
    upright,
)
from voxlate.scans.formats.dicom_headers import (
    PER_FRAME,
    SHARED,
    Headers,
    Image,
    images_in,
    kind_of,
    looks_like_dicom,
    no_warnings,
    number_of,
    numbers_of,
    read_header,
    text_of,
)
from voxlate.scans.formats.dicom_pixels import (
    GREY,
    PADDING,
    VALUE_TAGS,
    fill_padding,
    find_meaning,
    read_slice,
)
from voxlate.scans.formats.dicom_segments import is_segmentation, read_labels, segments_of
from voxlate.scans.formats.dicom_volumes import (
    AGREEING,
    ORDERS,
    STATED,
    check_agreement,
    check_single_volume,
    find_copies,
    order_in_time,
    series_keys,
)
from voxlate.scans.formats.format import DynamicScan, Format, Stored, check_volume, errors_as
from voxlate.scans.images.grid import Grid, Volume, resample, same_grid

MOST_LISTED = 8
ENDINGS = (".dcm", ".ima", ".dcm.gz", ".ima.gz")
OTHER_FILES = ("version", "lockfile", "readme", "license", "notice", "changes")
CLEARLY_HU = -500.0  # no other scale of a CT goes so far below 0; air is -1000
NO_SCALE = "neither RescaleSlope nor RescaleIntercept"
IMAGES_STATED = ("ImagesInAcquisition", "NumberOfSlices")
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
    *AGREEING,
    *(name for name, _ in STATED),
    *PADDING,
    *IMAGES_STATED,
    "StackID",
    "SOPClassUID",
    "SOPInstanceUID",
    "PatientPosition",
    "NumberOfFrames",
    "SamplesPerPixel",
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


def headers_of(path: Path) -> Headers:
    """The headers of the images in a folder, of one file, or of the series that 'FOLDER#key' names.

    Raises BadInput for damaged files, a file that is no image, and a key that no series has.
    """
    place, key = folder_and_key(path)
    with no_warnings():
        headers = dict(_read_headers(place))
        if not key:
            return headers
        keys = series_keys(headers)
        chosen = {image: header for image, header in headers.items() if keys[image] == key}
        if not chosen:
            others = describe_series(_describe(headers))
            raise BadInput(
                f"{path}: expected a series of that key, found only {others}. Name another."
            )
        return chosen


def holds_image(folder: Path) -> bool:
    """Whether a folder of DICOM objects has an image; one that cannot be read counts, so that its reader says so."""
    with no_warnings():
        try:
            return next(_read_headers(folder), None) is not None
        except BadInput:
            return True


def list_series(folder: Path) -> list[SeriesInfo]:
    """The image series in a folder, by one pass over its headers; contours, reports and notes are skipped."""
    with no_warnings():
        return _describe(dict(_read_headers(folder)))


def _describe(headers: Headers) -> list[SeriesInfo]:
    """The series to which images belong, each as its first header describes it."""
    images_by_key = defaultdict[str, list[Image]](list)
    for image, key in series_keys(headers).items():
        images_by_key[key].append(image)
    series = []
    for key, images in images_by_key.items():
        first = images[0]
        texts: dict[str, Any] = {
            name: text_of(headers[first], tag, first) for name, tag in DESCRIBING.items()
        }
        directions = frozenset(_direction(headers[image]) for image in images) - {""}
        series.append(
            SeriesInfo(first.file.parent, key, **texts, images=len(images), directions=directions)
        )
    return sorted(series, key=lambda one: (one.modality, one.description, one.key))


def _direction(header: Any) -> str:
    """The direction of an image as a text; "" of a header that states none that can be read."""
    try:
        numbers = numbers_of(header, DIRECTION, "")
    except BadInput:
        return ""
    return " ".join(f"{round(number, 1) + 0.0}" for number in numbers)


def describe_series(series: list[SeriesInfo]) -> str:
    """Series as a part of a sentence: their descriptions, and the paths that name them."""
    return f"{len(series)} ({first_of(series, MOST_LISTED, '; ')})"


def _read_headers(place: Path) -> Iterator[tuple[Image, Any]]:
    """Every image below a place with its header; files that are clearly something else are skipped.

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


def _suffix_of_images(file: Path) -> str:
    """The suffix of a file, '' where it is a number: 'IM.0001' and 'IM.0002' are images of one series."""
    suffix = Path(file.name.lower().removesuffix(".gz")).suffix
    return "" if suffix[1:].isdigit() else suffix


def entries_in(place: Path) -> list[Path]:
    """All entries of a folder except hidden ones and folders without a suffix; of a file, the file itself.

    Links that lead nowhere, pipes and folders named '0007.dcm' are among them: each may stand where a slice was.
    """
    if not place.is_dir():
        return [place]
    visible = (entry for entry in place.iterdir() if not entry.name.startswith("."))
    return sorted(entry for entry in visible if not entry.is_dir() or _suffix_of_images(entry))


def read_series(path: Path) -> Stored:
    """The only series in a folder, the one that 'FOLDER#key' names, or one file; rescaled slice by slice.

    Raises BadInput for several series or volumes, missing slices, colour, damaged files, and scales
    that the headers do not state.
    """
    with no_warnings():
        headers, series = _only_series(path)
        if is_segmentation(headers):
            return read_labels(headers, path)
        _check_images(headers, path)
        copies = find_copies(headers)
        for copy in copies:
            del headers[copy]
        check_single_volume(headers, path)
        meaning = find_meaning(headers)
        stack = _agreeing_stack(headers, path)
        stored = _straighten(_read_stack(stack, path, *meaning), path)
    guesses = stored.guesses
    if copies:
        note = f"{len(copies)} images repeat another at the same place exactly and are left out (the first: {copies[0].name})."
        guesses = (note, *guesses)
    kind = kind_of(series.image_type, series.description)
    return replace(stored, kind=kind, body_part=series.body_part, guesses=guesses)


def _agreeing_stack(headers: Headers, path: Path, numbered: bool = True) -> Stack:
    """The stack with what is to be said of its tags; raises BadInput where they contradict each other."""
    stack = stack_of(headers, path, numbered)
    return replace(stack, guesses=(*check_agreement(stack.headers, path), *stack.guesses))


def _straighten(stored: Stored, path: Path) -> Stored:
    """The image, resampled within its planes where a gantry tilt shears its grid."""
    grid = Grid(stored.data.shape, stored.affine)
    tilt = tilt_of(grid)
    if tilt <= TILT_DEGREES:
        return stored
    target = upright(grid)
    check_volume(target.shape, path)
    sheared = Volume(stored.data[None], grid.affine, stored.unit, stored.modality)
    text = f"Its gantry was tilted by {tilt:.1f} degrees; its slices are resampled to an upright grid ({target})."
    said = message("guess", text, grade="note")
    if stored.modality == "mr":
        text += " No gantry of an MR tilts: look whether the head is sheared."
        said = message("guess", text, grade="caution")
    return replace(
        stored,
        data=resample(sheared, target).data[0],
        affine=target.affine,
        guesses=(*stored.guesses, said),
    )


def _read_stack(stack: Stack, path: Path, scaled: bool, not_hu: str) -> Stored:
    shape = stack.grid.shape
    first, header = next(iter(stack.headers.items()))
    check_volume(shape, path)
    read_slice(first, header, shape[1:])  # before memory is allocated for all slices
    data = np.empty(shape, np.float32)
    for plane, (image, header) in zip(data, stack.headers.items(), strict=True):
        plane[:] = read_slice(image, header, plane.shape)
    with errors_as(
        f"{first}: expected a sound PixelPaddingValue, found a bad one", "Get it again."
    ):
        padded = fill_padding(data, stack.headers.values(), scaled and stack.modality == "ct")
    as_hu = ""
    if not not_hu and not scaled:
        lowest = float(data.min())
        as_hu = (
            f"It states {NO_SCALE}; its values, from {lowest:g} on, are taken as Hounsfield units."
        )
        if lowest > CLEARLY_HU:
            not_hu, as_hu = f"{NO_SCALE}, and no value below {CLEARLY_HU:g}", ""
    return Stored(
        data,
        stack.grid.affine,
        "",
        stack.modality,
        guesses=stack.guesses + padded,
        not_hu=not_hu,
        as_hu=as_hu,
    )


def read_frames(path: Path) -> DynamicScan:
    """The frames of a series with several images at each place: the k-th images of all places are frame k.

    The frames of a segmentation are its segments. Raises BadInput as `read_series` does, where places have unequal
    numbers of images, and where no tag orders them.
    """
    with no_warnings():
        headers, _ = _only_series(path)
        if is_segmentation(headers):
            return segments_of(headers, path)
        _check_images(headers, path)
        places, moments = order_in_time(headers, path)
        rows = list(zip(*places, strict=True))
        meaning = find_meaning(headers)
        frames = [
            _agreeing_stack({image: headers[image] for image in row}, path, numbered=False)
            for row in rows
        ]
    grid = frames[0].grid
    tilt = tilt_of(grid)
    if tilt > TILT_DEGREES:
        raise BadInput(
            f"{path}: expected slices stacked along their normal, found them sheared by {tilt:.1f} degrees (gantry tilt), which is resampled for a series of one frame only. Convert the series with dcm2niix."
        )
    for number, frame in enumerate(frames, start=1):
        if not same_grid(frame.grid, grid, tolerance_mm=0.5):  # of a moving table
            raise BadInput(
                f"{path}: expected all frames on one grid ({grid}), found frame {number} elsewhere. Export each grid as a series of its own."
            )
    times = None
    if moments is not None:
        means = np.array([[moments[image] for image in row] for row in rows]).mean(axis=1)
        times = means - means[0]
    every = [item for frame in frames for item in frame.headers.items()]
    return DynamicScan(
        grid,
        len(frames),
        times,
        lambda: (read_slice(image, header, grid.shape[1:]) for image, header in every),
        lambda k: _read_stack(frames[k], path, *meaning),
    )


def _only_series(path: Path) -> tuple[Headers, SeriesInfo]:
    """The headers of the only series at a path, and what it is."""
    headers = headers_of(path)
    if not headers:
        raise BadInput(
            f"{path}: expected a DICOM series, found no DICOM image here. Name the folder of its files; 'voxlate prepare FOLDER --dry-run' lists the series of a cohort."
        )
    series = _describe(headers)
    if len(series) > 1:
        raise BadInput(
            f"{path}: expected one DICOM series, found {describe_series(series)}. Name one of them by such a path, put it in its own folder, or choose the series of a cohort by tags (--preset FILE.toml: docs/guides/dicom.md)."
        )
    return headers, series[0]


def _check_images(headers: Headers, path: Path) -> None:
    """Raise BadInput for images that are no slices of grey values with a place, or fewer than they state."""
    for image, header in headers.items():
        _check_image(header, image)
    for name in IMAGES_STATED:
        stated = {number_of(header, name) or 0 for header in headers.values()}
        if len(stated) == 1 and len(headers) < max(stated):
            raise BadInput(
                f"{path}: expected the {max(stated):g} images that their headers state ({name}), found {len(headers)}. Copy the missing ones, or convert what there is with dcm2niix."
            )


def _check_image(header: Any, image: Image) -> None:
    kind = text_of(header, "PhotometricInterpretation", image) or "no PhotometricInterpretation"
    samples, *_ = numbers_of(header, "SamplesPerPixel", image) or (1,)
    frames, *_ = numbers_of(header, "NumberOfFrames", image) or (1,)
    missing = [name for name in PLACE if not text_of(header, name, image)]
    if samples != 1 or kind not in GREY:
        raise BadInput(
            f"{image}: expected grey values ({' or '.join(GREY)}), found {kind} with {samples:g} samples a pixel. Save it as grey values, not in colour, or move it elsewhere."
        )
    if "MOSAIC" in text_of(header, "ImageType", image):
        raise BadInput(
            f"{image}: expected one slice in an image, found the slices of a volume side by side (a Siemens mosaic). Convert the series with dcm2niix to NIfTI."
        )
    if frames > 1:
        raise BadInput(
            f"{image}: expected one slice a file or an enhanced object, found {frames:g} frames. Convert it with dcm2niix to NIfTI."
        )
    if missing:
        raise BadInput(
            f"{image}: expected the image's place in the patient, found no {missing[0]}. Convert it to NIfTI or PNG."
        )
    sizes = (int(numbers_of(header, name, image, 1)[0]) for name in SIZE)
    check_volume((1, *sizes), image)


DICOM = Format(
    "DICOM",
    read_series,
    named_endings=ENDINGS,
    read_frames=read_frames,
    recognises=looks_like_dicom,
)  # a folder without an ending holds a series too
