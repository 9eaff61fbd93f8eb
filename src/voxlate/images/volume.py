"""Volumes: voxels with affine and unit, read from files and written to them."""

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from voxlate.errors import BadInput
from voxlate.files import whole_file
from voxlate.images import arrays, dicom, dynamic, formats, nifti, rire
from voxlate.images.dynamic import without_frame
from voxlate.images.grid import Grid, check_affine, oriented

HOUNSFIELD = ("ct", "ncct", "cect", "cta", "ctv")
UNITS: dict[str, str] = {
    **dict.fromkeys(HOUNSFIELD, "HU"),
    "cbf": "ml/100g/min",
    "cbv": "ml/100g",
    **dict.fromkeys(("tmax", "mtt", "ttp", "tmip"), "s"),
    **dict.fromkeys(("t1", "t1c", "t1n", "t1ce", "t2", "t2w", "t2f", "flair", "pd", "swi", "tof", "mra", "mr"), "a.u."),
}

SYNTHETIC = "; a synthetic image"  # in the description of a header, which has 80 characters
SYNTHETIC_SCAN = f"{SYNTHETIC}, see provenance.json"
PICTURES = (".png", ".tif", ".tiff")
FAMILIES = {
    **dict.fromkeys((".nii", ".nii.gz", ".mgz", ".mgh", ".hdr", ".img"), "nifti"),
    **dict.fromkeys(PICTURES, "picture"),
    **dict.fromkeys((".mha", ".mhd", ".nrrd"), "itk"),
    **dict.fromkeys(dicom.SUFFIXES, "dicom"),
    **dict.fromkeys(arrays.ARRAYS, "array"),
    rire.SUFFIX: "rire",
}
PARTNERS = {  # files of one image; *: the name without its suffix
    ".hdr": ("*.img",),
    ".img": ("*.hdr",),
    ".mhd": ("*.raw", "*.zraw"),
    rire.SUFFIX: (rire.VOXELS,),
}


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels in physical units with their place.

    data: [C, D, H, W] float32; affine: 4x4, maps voxel indices (x, y, z) = (W, H, D) to RAS millimetres; unit: one of
    UNITS' values or "grey" (2-D pictures, values as stored); origin: the file it came from, for messages; note: how
    it was taken from there (which frame, say); guesses: a sentence on each thing that the file does not state and that
    was taken to be so.
    """

    data: np.ndarray
    affine: np.ndarray
    unit: str
    modality: str
    origin: str = ""
    note: str = ""
    guesses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.data.ndim != 4 or self.data.dtype != np.float32:
            raise ValueError(f"a volume is [C, D, H, W] float32, got {self.data.shape} {self.data.dtype}")

    @property
    def grid(self) -> Grid:
        _, depth, height, width = self.data.shape
        return Grid((depth, height, width), self.affine)


def unit_of(modality: str) -> str:
    """The unit of a modality by its name ("cta2" and "cta_venous" are known by "cta"); "a.u." where unknown."""
    name = modality.lower()
    start = re.match(r"[a-z]*", name)
    return UNITS.get(name) or UNITS.get(start.group() if start else "", "a.u.")


def suffix_of(path: Path) -> str:
    """The suffix in lower case, ".nii.gz" in one piece."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def read_volume(path: Path | str, modality: str = "", allow_nan: bool = False) -> Volume:
    """Read a NIfTI, FreeSurfer, MetaImage, NRRD, PNG, TIFF or RIRE file, or a DICOM series: a folder, or 'FOLDER#key'.

    '#frame=12', '#peak' or '#peak+8s' after a NIfTI file or a DICOM series takes one frame of several (see dynamic.py).
    .npy, .npz and HDF5 files hold slices, named by '#channel=0', '#array=src' or '#slice=12' (see arrays.py).
    Raises BadInput for every file that is not one real, finite 3-D volume; `allow_nan` lets NaN and infinity pass.
    """
    path = Path(path)
    readers = {"dicom": dicom.read_series, "nifti": nifti.read_nifti, "itk": formats.read_itk, "rire": rire.read_rire}
    kind, (whole, part) = family(path), without_frame(path)
    if kind == "array":
        stored = arrays.read_array(whole, part)
    else:
        stored = dynamic.read_frame(path) if part else readers.get(kind, formats.read_picture)(path)
    if not allow_nan:
        _check_finite(stored.data, path)
    modality = modality or stored.modality
    unit = stored.unit or unit_of(modality)
    if unit == "HU" and stored.not_hu:
        raise BadInput(
            f"{path}: expected Hounsfield units, found {stored.not_hu}. Get the series again as the scanner made it, "
            "or name it by what else it shows (cbf=PATH)."
        )
    guesses = (*stored.guesses, stored.as_hu) if unit == "HU" and stored.as_hu else stored.guesses
    return Volume(stored.data[None], stored.affine, unit, modality, str(path), stored.note, guesses)


def is_there(path: Path) -> bool:
    """Whether a file, a folder, or the place of a series' or a frame's path exists."""
    return dicom.without_key(without_frame(path)[0])[0].exists()


def files_of(path: Path) -> list[Path]:
    """The files behind a path: itself and its partner, all in a folder, or those of the series 'FOLDER#key' names."""
    path = without_frame(path)[0]
    place, key = dicom.without_key(path)
    if key:
        return list(dicom.headers_of(path))
    partners = [place.with_name(name.replace("*", place.stem)) for name in PARTNERS.get(place.suffix.lower(), ())]
    return [*dicom.entries_in(place), *(one for one in partners if one.is_file())]


def content_hash(path: Path) -> str:
    """16 hexadecimal digits of what all files behind a path hold, whatever they are called, and of its frame."""
    hashes = sorted(
        _sha256(file, file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else f"no file: {file.name}"
        for file in files_of(path)
    )
    return hashlib.sha256(" ".join([*hashes, without_frame(path)[1]]).encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=4096)
def _sha256(file: Path, size: int, mtime_ns: int) -> str:
    """Once for the frames that come from one large file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def family(path: Path) -> str:
    """The file format of a path, by which its reader is chosen; raises BadInput for none and for unknown ones."""
    path = without_frame(path)[0]
    if dicom.without_key(path)[0].is_dir():
        return "dicom"
    if not path.exists():
        raise BadInput(f"{path}: expected an image file or a DICOM folder, found nothing there. {_hint(path)}")
    if path.stat().st_size == 0:
        raise BadInput(f"{path}: expected an image, found an empty file. Copy or download it again.")
    suffix = suffix_of(path)
    if found := FAMILIES.get(suffix) or ("dicom" if dicom.looks_like_dicom(path) else ""):
        return found
    known = ", ".join(FAMILIES)
    raise BadInput(f"{path}: expected an image ({known} or a DICOM folder), found '{suffix or path.name}'. Convert it.")


def _hint(path: Path) -> str:
    """Advice where a path does not exist."""
    whole, mark, _ = str(path).rpartition("#")
    if mark and is_there(Path(whole)):
        return "After '#' goes a series' key, frame=N, peak or peak+8s; of arrays channel=N, slice=N or array=NAME."
    return "Check the path."


def _check_finite(data: np.ndarray, path: Path) -> None:
    """Neither read nor written: NaN spreads through every sum, and viewers show it as black."""
    if np.isfinite(data).all():
        return
    raise BadInput(
        f"{path}: expected finite voxels, found {np.isnan(data).sum()} NaN and {np.isinf(data).sum()} infinite ones of "
        f"{data.size}. Replace them, by the background value for instance, and save the file again."
    )


def write_volume(path: Path | str, volume: Volume, what: str = "") -> None:
    """Write a volume of one channel by the suffix of `path`; the file appears whole or not at all.

    .nii, .nii.gz: int16 where lossless, else float32. .png, .tif, .tiff (one slice): grey values rounded, turned so
    that columns grow to Left and rows to Posterior, as they are read. what: for a NIfTI's description.
    Raises BadInput for other suffixes.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in (".nii", ".nii.gz", *PICTURES):
        raise BadInput(f"{path}: expected .nii, .nii.gz, .png, .tif or .tiff to write, found '{suffix}'. Rename it.")
    if len(volume.data) != 1:
        raise ValueError(f"{path}: a file holds one channel, got {len(volume.data)}")
    check_affine(volume.affine, path)
    _check_finite(volume.data, path)
    if suffix in PICTURES:
        volume = oriented(volume, "LPS")
        if volume.grid.shape[0] != 1:
            raise BadInput(f"{path}: expected one slice for a picture, found {volume.grid}. Write .nii.gz instead.")
    with whole_file(path) as temporary:
        if suffix in PICTURES:
            formats.write_picture(temporary, volume.data[0, 0])
        else:
            nifti.write_nifti(temporary, volume.data[0], volume.affine, what)


def says_synthetic(path: Path) -> bool:
    """Whether a NIfTI file says that voxlate made it: so does one of a run that was killed before its provenance."""
    try:
        return SYNTHETIC.encode() in nib.nifti1.load(path).header["descrip"].item()
    except (OSError, nib.filebasedimages.ImageFileError):
        return False
