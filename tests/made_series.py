"""A made-up DICOM series of five oblique slices, and the ways in which its tags may be unusual."""

import numpy as np
import pydicom

from dicom_slices import image, item, save

TILT = np.radians(20)
ROW_WAY = np.array([np.cos(TILT), np.sin(TILT), 0.0])
COLUMN_WAY = np.array([0.0, 0.0, -1.0])  # coronal: rows go down the patient
NORMAL = np.cross(ROW_WAY, COLUMN_WAY)
FIRST = np.array([-100.0, 40.0, 70.0])
K, ROW, COLUMN = np.indices((5, 3, 4))
STORED = 100 * K + 10 * ROW + COLUMN
NO_RESCALE = {"RescaleSlope": None, "RescaleIntercept": None}
MAGNITUDE, PHASE = (["ORIGINAL", "PRIMARY", kind, "ND"] for kind in "MP")
ALL = range(5)


def place(k, beside=(0, 0, 0), step=2.5):
    """The position of slice k, as far beside the line of the others as that says."""
    return [f"{v:.8f}" for v in FIRST + step * k * NORMAL + beside]


def write_slice(folder, name, k, **changes):
    """Slice k of a CT of 3×4 pixels whose value is 100k + 10·row + column; tags that are None are absent."""
    tags = {
        "SOPInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": "1.2.3",
        "SeriesNumber": 4,
        "PatientID": "P1",
        "PatientName": "Doe^Jane",
        "PatientBirthDate": "19500101",
        "PatientSex": "F",
        "StudyInstanceUID": "1.2",
        "FrameOfReferenceUID": "1.3",
        "PixelSpacing": [0.5, 0.8],  # between rows, between columns
        "ImageOrientationPatient": [f"{v:.10f}" for v in (*ROW_WAY, *COLUMN_WAY)],
        "ImagePositionPatient": place(k),
        "RescaleSlope": "2",
        "RescaleIntercept": "-1024",
    } | changes
    pixels = (100 * k + 10 * np.arange(3)[:, None] + np.arange(4)).astype(np.int16)
    stated = {key: value for key, value in tags.items() if value is not None}
    return save(image(pixels, **stated), folder / f"{name}.dcm")


def write(folder, *values, **tags):
    """The series, its files not in the order of places (slice 2 is 6.dcm); values: further tags of each slice."""
    for k, own in enumerate(values or [{}] * 5):
        write_slice(folder, str((k * 7 + 3) % 11), k, **tags | own)
    return folder


def write_with(folder, name, k, **tags):
    """The series, and one slice more, or in the place of another."""
    write(folder)
    write_slice(folder, name, k, **tags)
    return folder


def write_spaced(folder, step=3.0, count=6, number=1, spacing=None, thickness=None):
    """Slices `step` mm apart; number: what InstanceNumber counts by (0: none is written)."""
    for k in range(count):
        named = {"InstanceNumber": 7 + number * k} if number else {}
        named |= {"SpacingBetweenSlices": spacing, "SliceThickness": thickness}
        write_slice(folder, str(k), k, ImagePositionPatient=place(k, step=step), **named)
    return folder


def some(numbers, **tags):
    """Tags that the slices of these numbers have alone."""
    return [tags if k in numbers else {} for k in range(5)]


def each(name, *values):
    """A tag with its value in each slice."""
    return [{name: value} for value in values]


def table(values, first=0):
    """A lookup table for stored values from `first` on."""
    one = item(LUTDescriptor=[len(values), first, 16], ModalityLUTType="US")
    one.add_new("LUTData", "US", list(values))
    return [one]


def overwrite_tag(folder, name, kind, text):
    """Give a tag of one file another type and text, as it would be stored."""
    file = folder / "6.dcm"
    header = pydicom.dcmread(file)
    whole = file.read_bytes()
    tag = pydicom.tag.Tag(name)
    start = whole.index(tag.group.to_bytes(2, "little") + tag.elem.to_bytes(2, "little"))
    length = int.from_bytes(whole[start + 6 : start + 8], "little")
    assert header[tag].VR not in ("OB", "OW", "SQ", "UN")
    text += b" " * (len(text) % 2)
    long = kind in (b"UT", b"UN", b"SQ")
    size = bytes(2 * long) + len(text).to_bytes(4 if long else 2, "little")
    rest = whole[start + 8 + length :]
    file.write_bytes(whole[: start + 4] + kind + size + text + rest)
    return folder
