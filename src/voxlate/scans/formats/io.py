"""Reading and writing volumes of any file format; FORMATS is the registry of formats.

A path may end with '#' and the part of a file or folder that is meant: the key of a DICOM series ('FOLDER#1a2b3c4d'),
a frame ('FILE#frame=12', see dynamic.py), or a slice of an array file ('FILE.npy#channel=0').
"""

import hashlib
import zlib
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.files import sha256_of, whole_file
from voxlate.base.messages import message
from voxlate.base.records import LARGEST
from voxlate.scans.formats.array_files import ARRAY, PICTURE
from voxlate.scans.formats.dicom import DICOM, entries_in, folder_and_key, images_of
from voxlate.scans.formats.dicom_file import looks_like_dicom
from voxlate.scans.formats.format import Format, KeptByFile, check_fetched
from voxlate.scans.formats.itk import ITK
from voxlate.scans.formats.nifti import NIFTI, SYNTHETIC, read_start
from voxlate.scans.images.grid import Volume, check_affine
from voxlate.scans.images.units import HOUNSFIELD, MR, unit_of

WHITE = 250  # the least largest value of a windowed CT of 8 bits
# Where a folder holds an image in several formats, the first of them is read: pictures, which lose most, come last.
FORMATS: tuple[Format, ...] = (NIFTI, ITK, PICTURE, DICOM, ARRAY)


def scan_endings() -> tuple[str, ...]:
    """The endings of files that count as scans wherever a cohort's folder holds them."""
    return tuple(chain.from_iterable(kind.endings for kind in FORMATS))


def endings_by_name() -> tuple[str, ...]:
    """The endings of files that are read only where a path or a pattern names them."""
    return tuple(chain.from_iterable(kind.named_endings for kind in FORMATS))


def without_ending(path: str) -> str:
    """A path without the ending of a scan's file; any other path as it is."""
    endings = (*scan_endings(), *endings_by_name())
    known = (ending for ending in endings if path.lower().endswith(ending))
    return path[: len(path) - len(next(known, ""))]


def format_by_ending(name: str) -> Format | None:
    """The format of a file's name; None for an ending that no format has."""
    lower = name.lower()
    return next((kind for kind in FORMATS if lower.endswith(kind.all_endings)), None)


def format_of(path: Path) -> Format:
    """The format of the file or DICOM folder behind a path; raises BadInput where it is absent, empty or unknown."""
    file, _ = file_and_part(path)
    if location_of(file).is_dir():
        return DICOM
    check_fetched(file)
    if not file.is_file() or file.stat().st_size == 0:
        found = "an empty file" if file.is_file() else "nothing there"
        raise BadInput(
            f"{file}: expected an image file or a DICOM folder, found {found}. Check the path; after '#' goes a series' key, frame=N, peak or peak+8s, and of arrays channel=N, slice=N or array=NAME."
        )
    by_ending = format_by_ending(file.name)
    if by_ending is not None:
        return by_ending
    if looks_like_dicom(file):
        return DICOM
    known = ", ".join(scan_endings() + endings_by_name())
    found = file.suffix.lower() or file.name
    raise BadInput(
        f"{file}: expected an image ({known} or a DICOM folder), found '{found}'. Convert it, or unpack it."
    )


def file_and_part(path: Path) -> tuple[Path, str]:
    """The file or series behind a path, and the frame or slice of it that the path names; '' where it names none."""
    whole, mark, part = str(path).rpartition("#")
    if not mark or path.exists() or not folder_and_key(Path(whole))[0].exists():
        return path, ""
    is_part = (format_by_ending(whole) or DICOM).is_part
    return (Path(whole), part) if is_part is not None and is_part(part) else (path, "")


def location_of(path: Path) -> Path:
    """The file or folder on disk behind a path, without the part or the series that the path names."""
    return folder_and_key(file_and_part(path)[0])[0]


def is_there(path: Path) -> bool:
    """Whether the file or folder on disk behind a path exists."""
    return location_of(path).exists()


def holds_slices(path: Path | str) -> bool:
    """Whether a file's name is one of an array file, which holds many slices."""
    return format_by_ending(Path(path).name) is ARRAY


def is_picture(path: Path) -> bool:
    """Whether a file's name is one of a picture, which holds one slice of grey values."""
    return format_by_ending(file_and_part(path)[0].name) is PICTURE


def read_volume(path: Path | str, modality: str = "", allow_nan: bool = False) -> Volume:
    """Read an image file of any format, a DICOM series (a folder, or 'FOLDER#key'), or the part that a path names.

    allow_nan: NaN and infinite voxels are read as they are. Raises BadInput for every file that is not one real, finite
    3-D volume.
    """
    path = Path(path)
    stored = format_of(path).read(*file_and_part(path))
    if not allow_nan:
        _check_finite(stored.data, path)
    modality = modality or stored.modality
    unit = stored.unit or unit_of(modality)
    guesses = [*stored.guesses]
    if stored.modality.lower() == "ct" and modality.lower() in MR:
        raise BadInput(
            f"{path}: expected an MR scan as {modality}, found a CT series (DICOM's Modality is CT). Name the MR series, or name this one ct."
        )
    if unit == "HU" and stored.not_hu:
        raise BadInput(
            f"{path}: expected Hounsfield units, found {stored.not_hu}. Get the series again as the scanner made it, or name it by what else it shows (cbf=PATH)."
        )
    if stored.kind and modality.lower() in (*MR, *HOUNSFIELD):
        text = f"By its tags the series is no ordinary scan ({stored.kind}): among others it would be left out. Take another one."
        guesses.append(message("taken-as", text, grade="caution"))
    if unit == "HU" and not stored.unit and _is_window(stored.data):
        unit = "grey"
        text = "It is read as grey values of a window, not as Hounsfield units: all are whole numbers from 0 to 255. Its images will have such values, too."
        guesses.append(message("grey-ct", text, grade="caution"))
    return replace(stored, unit=unit, modality=modality, origin=str(path), guesses=tuple(guesses))


def _is_window(data: np.ndarray) -> bool:
    """Whether the values of a CT are the 8 bits of a picture, whose bone is white."""
    low, high = data.min(initial=0), data.max(initial=0)
    return bool(low == 0 and WHITE <= high <= 255 and np.all(data == np.rint(data)))


def write_volume(path: Path | str, volume: Volume, description: str = "") -> None:
    """Write a volume of one channel in the format of the path's ending; the file appears whole or not at all.

    description: of the image. Raises BadInput for endings that are not written.
    """
    path = Path(path)
    kind = next(
        (kind for kind in FORMATS if path.name.lower().endswith(kind.written_endings)), None
    )
    if kind is None or kind.write is None:
        endings = chain.from_iterable(kind.written_endings for kind in FORMATS)
        raise BadInput(
            f"{path}: expected a file name that ends with {' or '.join(endings)}, found '{path.suffix.lower()}'. Rename it."
        )
    check_affine(volume.affine, path)
    _check_finite(volume.data, path)
    with whole_file(path) as temporary:
        kind.write(temporary, volume, description)


def is_synthetic(path: Path) -> bool:
    """Whether a file states that voxlate synthesised the image, even where the provenance was not written."""
    try:
        return path.is_file() and SYNTHETIC.encode() in read_start(path)
    except (OSError, EOFError, zlib.error):  # of damaged data
        return False


def _check_finite(data: np.ndarray, path: Path) -> None:
    """Raise BadInput for NaN and infinity: NaN spreads through every sum, and viewers show it as black.

    Values whose squares are infinite are refused as well.
    """
    if data.min(initial=0) >= -LARGEST and data.max(initial=0) <= LARGEST:  # NaN is neither
        return
    bad, high = data.size - np.isfinite(data).sum(), np.abs(data).max(initial=0)
    raise BadInput(
        f"{path}: expected finite voxels below {LARGEST:g}, found {bad} NaN or infinite ones of {data.size}, and values up to {high:.2g}. Replace them, or repeat the step that wrote the file."
    )


def files_of(path: Path) -> list[Path]:
    """All files of the image behind a path: a file and its partners, all in a folder, or those of one series."""
    file, _ = file_and_part(path)
    location, key = folder_and_key(file)
    if key:
        return list(dict.fromkeys(image.file for image in images_of(file)))
    by_ending = format_by_ending(location.name)
    patterns = by_ending.partners.get(location.suffix.lower(), ()) if by_ending else ()
    partners = [location.with_name(pattern.replace("*", location.stem)) for pattern in patterns]
    return [*entries_in(location), *(partner for partner in partners if partner.is_file())]


def content_hash(path: Path) -> str:
    """16 hexadecimal digits of the content of all files behind a path, whatever their names, and of its part."""
    hashes = sorted(
        _sha256(file) if file.is_file() else f"no file: {file.name}" for file in files_of(path)
    )
    text = " ".join([*hashes, file_and_part(path)[1]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def has_content(path: Path, content: str) -> bool:
    """Whether a file is there, and has the content of this hash."""
    return path.is_file() and content_hash(path) == content


_sha256 = KeptByFile(sha256_of, 4096)  # computed once for all frames of a file
