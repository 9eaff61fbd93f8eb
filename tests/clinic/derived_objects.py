"""A made-up source series, a volume on its grid, and every kind of DICOM object that is derived from them."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom

from dicom_slices import write_series
from voxlate.clinic.dicom_images import Quantity, write_derived, write_map
from voxlate.clinic.dicom_out import write_report
from voxlate.clinic.dicom_series import Origin
from voxlate.scans.images.grid import LPS_TO_RAS, Volume

ORIGIN = Origin("MR to CT", "0.7.0", ("weights=0123456789abcdef", "seed=0"))
SHAPE = (4, 6, 5)  # z, y, x
SPACING = (0.7, 0.9, 3.0)  # of columns, rows and slices
ORDERS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
HEADING = ("ERROR", "99VOXLATE", "Expected error")
SENTENCES = [(HEADING, "At most 40 HU."), (HEADING, "Grid 5×6×4 – read “as is”.")]


def _write_cbf(volume: Volume, like: Path, out: Path, origin: Origin) -> list[Path]:
    return write_map(volume, Quantity("cbf", "ml/100g/min"), like, out, origin)


WRITE = {"series": write_derived, "map": _write_cbf}


def turned(angle: float) -> np.ndarray:
    """Directions (LPS) of columns, rows and slices, turned around two axes."""
    cosine, sine = np.cos(angle), np.sin(angle)
    about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    about_z = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return about_x @ about_z


def write_source(folder: Path, angle: float = 0.0, tilt: float = 0.0) -> np.ndarray:
    """An oblique MR series with pixels that are not square; files in another order than slices. Its affine (RAS)."""
    directions = turned(angle)
    lps = np.eye(4)
    lps[:3, :3] = directions * SPACING
    lps[:3, 2] += np.tan(tilt) * SPACING[2] * directions[:, 1]
    lps[:3, 3] = (-31.25, 12.5, 40.0)
    affine = LPS_TO_RAS @ lps
    write_series(
        Volume(np.zeros((1, *SHAPE), np.float32), affine, "", "mr"),
        folder,
        Modality="MR",
        SeriesNumber=3,
        PatientID="ID7",
        StudyID="1",
        PatientPosition="HFS",
        AccessionNumber="A1",
        EchoTime=90,
    )
    for level in range(SHAPE[0]):
        (folder / f"{level:04d}.dcm").rename(folder / f"{(level * 3 + 1) % 7}.dcm")
    return affine


def numbered(affine: np.ndarray, shape: tuple[int, ...] = SHAPE, unit: str = "HU") -> Volume:
    """A volume whose voxels all differ."""
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Volume((data - (40 if unit == "HU" else 0))[None], affine, unit, "ct")


def reordered(volume: Volume, order: tuple[int, ...], flips: tuple[int, ...]) -> Volume:
    """The same image with its array in another order of axes."""
    data, affine = np.transpose(volume.data[0]), volume.affine.copy()
    for axis, flip in enumerate(flips):
        if flip < 0:
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:3, axis] *= -1
            data = np.flip(data, axis)
    data, affine = np.transpose(data, order), affine[:, [*order, 3]]
    return Volume(np.ascontiguousarray(np.transpose(data))[None], affine, volume.unit, "ct")


def headers(files) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(file) for file in files]


def frames_of(datasets) -> Iterator[tuple[np.ndarray, list[str]]]:
    """The place (LPS) of each slice or frame, and the SOP instance UIDs of the source slices that it names."""
    for one in datasets:
        for frame in getattr(one, "PerFrameFunctionalGroupsSequence", [one]):
            place, derivation = frame, frame
            if frame is not one:
                place = frame.PlanePositionSequence[0]
                derivation = next(iter(frame.get("DerivationImageSequence", [])), {})
            references = derivation.get("SourceImageSequence", [])
            uids = [reference.ReferencedSOPInstanceUID for reference in references]
            yield np.array(place.ImagePositionPatient, float), uids


def objects(like: Path, affine: np.ndarray, to: Path) -> dict[str, list[pydicom.Dataset]]:
    """The files of each kind of object, by kind."""
    volume = numbered(affine)
    found = {kind: write(volume, like, to / kind, ORIGIN) for kind, write in WRITE.items()}
    images = [files[0] for files in found.values()]
    found["report"] = write_report(SENTENCES, images, like, to / "report", ORIGIN)
    return {kind: headers(files) for kind, files in found.items()}
