"""Files and what reading them gives: voxels and messages, or one sentence that names the file and the cause."""

import csv
import gzip
import re
import struct
import zlib

import h5py
import nibabel as nib
import numpy as np
import pytest
import scipy.io
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image

from refusals import refuses
from rows import every_row
from voxlate.scans.formats.io import read_volume

pydicom = pytest.importorskip("pydicom")
from dicom_slices import item  # noqa: E402 - needs pydicom
from made_series import (  # noqa: E402
    ALL,
    MAGNITUDE,
    NO_RESCALE,
    PHASE,
    ROW_WAY,
    STORED,
    K,
    each,
    overwrite_tag,
    place,
    some,
    table,
    write,
    write_slice,
    write_with,
)

VOXELS = np.random.default_rng(3).integers(0, 400, (4, 5, 6)).astype(np.int16)
NOISE = np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32)
AFFINE = np.diag([-1.2, 1.1, 3.0, 1.0])
HU = 2.0 * STORED - 1024
PARTS = [f"1.{k}" for k in range(5)]
RAW = VOXELS.T.tobytes()  # x grows fastest
NRRD = "NRRD0005\ntype: short\ndimension: 3\nsizes: 4 5 6\nspace: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,2)\nendian: little\n"
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nElementSpacing = 1 1 2\nDimSize = 4 5 6\nElementType = MET_SHORT\nElementDataFile = "


def put(path, content):
    path.write_bytes(content)
    return path


def cut(path, keep):
    return put(path, path.read_bytes()[: int(keep * path.stat().st_size)])


def nifti(path, *fields, kind=nib.Nifti1Image, voxels=VOXELS):
    """A file whose header has other bytes at some places; fields: (place, type, value)."""
    image = kind(voxels, None, dtype=voxels.dtype)
    image.set_qform(AFFINE, 1)
    raw = bytearray(image.to_bytes())
    for start, form, value in fields:
        struct.pack_into(form, raw, start, value)
    return put(path, raw)


def packed(path, times):
    content = nifti(path.with_name("b")).read_bytes()
    for _ in range(times):
        content = gzip.compress(content)
    return put(path, content)


def picture(path, pixels, **options):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)
    return path


def tiff(path, pixels, **options):
    tifffile.imwrite(path, pixels, **options)
    return path


def beside(folder, name, header, voxels=b""):
    """A header of MetaImage or NRRD whose voxels may be in a.bin."""
    put(folder / "a.bin", RAW)
    return put(folder / name, header.encode() + voxels)


def hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def npy(path, array):
    np.save(path, array)
    return path


def mat(path, **arrays):
    scipy.io.savemat(path, arrays)
    return path


def gzipped(folder, ending):
    for file in [*write(folder).iterdir()]:
        put(file.with_suffix(ending), gzip.compress(file.read_bytes()))
        if ending != ".dcm":
            file.unlink()
    return folder


def bare(folder, implicit):
    """The series in files without the mark of DICOM and without an ending."""
    for file in [*write(folder).iterdir()]:
        if implicit is None:  # the meta information, but not what is before it
            put(folder / file.stem, file.read_bytes()[132:])
        else:
            data = pydicom.Dataset(pydicom.dcmread(file))
            pydicom.dcmwrite(folder / file.stem, data, implicit_vr=implicit, little_endian=True)
        file.unlink()
    return folder


def with_neighbours(folder):
    """The series beside what is no image of it."""
    structures = item(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3", SOPInstanceUID="1.2.8")
    structures.Modality = "RS"
    structures.file_meta = pydicom.dataset.FileMetaDataset()
    structures.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    write(folder)
    structures.save_as(folder / "rs.dcm", enforce_file_format=True)
    for name in ("DICOMDIR", ".hidden", "readme.txt"):
        put(folder / name, b"something")
    for name in ("1.2.840.113", "masks", "run.feat", ".hidden.dcm"):
        (folder / name).mkdir()
    for name in ("notes.txt", ".lost.dcm"):
        (folder / name).symlink_to("gone")
    return folder


def plainly_hounsfield(folder):
    for k in ALL:
        pixels = (STORED[k] - 1000).astype(np.int16)
        write_slice(folder, str(k), k, PixelData=pixels.tobytes(), **NO_RESCALE)
    return folder


SYNTAXES = {
    "": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.8.1",
    "runs": "1.2.840.10008.1.2.5",
    "xl": "1.2.840.10008.1.2.4.110",
}


def segmentation(folder, masks, packed=""):
    """A DICOM SEG of masks [segment, D, H, W] on the series, without empty slices; packed: how its frames are."""
    highdicom = pytest.importorskip("highdicom")
    series = write(folder / "series", *each("InstanceNumber", *ALL), SliceThickness=2.5, **EMPTY)
    sources = sorted(map(pydicom.dcmread, series.iterdir()), key=lambda one: one.InstanceNumber)
    code = highdicom.sr.CodedConcept("1", "99T", "t")
    segments = [
        highdicom.seg.SegmentDescription(k + 1, f"s{k + 1}", code, code, "MANUAL")
        for k in range(len(masks))
    ]
    pixels = np.moveaxis(masks, 0, -1)
    stated = ["1.2.9", 1, "1.2.9.1", 1, "maker", "model", "1", "1"]
    dataset = highdicom.seg.Segmentation(sources, pixels, "BINARY", segments, *stated)
    if packed:
        bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
        frames = bits[: dataset.NumberOfFrames * 12].reshape(-1, 12)
        bytes_of = [row.tobytes() for row in np.packbits(frames, axis=1, bitorder="little")]
        head = struct.pack("<16I", 1, 64, *[0] * 14) + b"\1"  # of two bytes as they are
        pack = {"deflated": lambda f: zlib.compress(f, wbits=-15)}.get(packed, lambda f: head + f)
        dataset.PixelData = pydicom.encaps.encapsulate([*map(pack, bytes_of)])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = SYNTAXES[packed]
    body = pydicom.filebase.DicomBytesIO()  # pydicom does not write all of these
    body.is_little_endian, body.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(body, dataset)
    with (folder / "a.dcm").open("wb") as file:
        file.write(bytes(128) + b"DICM")
        pydicom.filewriter.write_file_meta_info(file, dataset.file_meta)
        file.write(body.getvalue())
    return folder / "a.dcm"


EMPTY = {
    "StudyDate": "",
    "StudyTime": "",
    "StudyID": "",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
}
MASKS = np.random.default_rng(1).integers(0, 2, (2, 5, 3, 4)).astype(np.uint8)
MASKS[1] &= 1 - MASKS[0]
MASKS[:, :, 0, 0] = np.array([1, 0])[:, None]
MASKS[:, :, 2, 3] = np.array([0, 1])[:, None]
GAP, EVEN = MASKS.copy(), MASKS[:1].copy()
GAP[:, 2] = EVEN[:, 1::2] = 0
STACK = np.random.default_rng(2).random((5, 6, 7)).astype(np.float32)


def later(make):
    """A function that is called once a row has a folder for it."""
    return lambda *given, **options: lambda folder: make(folder, *given, **options)


def inside(name, make):
    """As later, of a function that writes a file of this name; part: what of it is read."""

    def write_later(*given, part="", **options):
        return lambda folder: f"{make(folder / name, *given, **options)}{part}"

    return write_later


def by_name(table):
    """The rows of a table, each after the name of the modality that it stands under."""
    return [(name, *row) for name, rows in table.items() for row in rows]


def with_tag(folder, name, text, kind=b"DS"):
    return overwrite_tag(write(folder, RescaleType="HU"), name, kind, text)


of, more, tag, header = map(later, (write, write_with, with_tag, beside))
seg = later(segmentation)
h5, matlab, nii = inside("a.h5", hdf5), inside("a.mat", mat), inside("a.nii", nifti)
array, arrays = inside("a.npy", npy), inside("a.npz", npz)
png, tif = inside("a.png", picture), inside("a.tif", tiff)
plain, zipped = inside("a.nii", put), inside("a.nii.gz", put)
SERIES = None  # the values of the made-up series in HU
READ = {  # what is written, its name, its voxels, and how many messages it gets
    "": [
        (write, SERIES, 0),
        (of(PhotometricInterpretation="MONOCHROME1"), SERIES, 0),
        (of(RealWorldValueMappingSequence=[item(RealWorldValueSlope=9.0)]), SERIES, 0),
        (with_neighbours, SERIES, 0),
        *((lambda d, kind=kind: bare(d, kind), SERIES, 0) for kind in (True, False, None)),
        (lambda d: gzipped(d, ".dcm.gz"), SERIES, 0),
        (lambda d: gzipped(d, ".dcm"), SERIES, 0),
        (lambda d: overwrite_tag(write(d), "PixelSpacing", b"UT", b"0.5\\0.8"), SERIES, 0),
        (plainly_hounsfield, STORED - 1000, 1),
        (of(Modality="MR", **NO_RESCALE), STORED, 0),
        # what differs in a series is said, by the first tag of slice 2
        (of(Modality="MR", PhotometricInterpretation="MONOCHROME1"), SERIES, 1),
        (of(*each("FrameOfReferenceUID", *PARTS)), SERIES, 1),
        (of(*each("SeriesInstanceUID", *PARTS)), SERIES, 1),
        (of(*each("SeriesDescription", *"aaabb")), SERIES, 1),
        (of(*some([2], PatientID="")), SERIES, 1),
        (of(*({"SeriesInstanceUID": p, "SeriesDescription": p} for p in PARTS)), SERIES, 2),
        (of(*each("RescaleSlope", *"12345"), Modality="MR"), STORED * (K + 1) - 1024, 1),
        # other formats
        (nii((108, "<f", 0.0)), VOXELS.T, 0),  # voxels in the header
        (nii((76, "<f", -2.0)), VOXELS.T, 0),  # a mirrored stack
        (nii(voxels=VOXELS * np.int32(200_000)), VOXELS.T * 2e5, 0),
        (
            header("a.nrrd", f"{NRRD}encoding: gzip\nline skip: 1\n\nnote\n", gzip.compress(RAW)),
            VOXELS.T,
            0,
        ),
        (header("a.nhdr", f"{NRRD}encoding: raw\ndata file: a.bin\n"), VOXELS.T, 0),
        (lambda d: picture(d / "a.bmp", VOXELS[0] % 200), VOXELS[:1] % 200, 0),
        (lambda d: picture(d / "a.jpg", np.full((8, 9), 77)), np.full((1, 8, 9), 77), 0),
        (png(np.stack([VOXELS[0] % 200] * 3, -1)), VOXELS[:1] % 200, 0),
        (
            tif(VOXELS.astype(np.uint16), photometric="minisblack"),
            VOXELS,
            1,
        ),
        *(
            (
                tif((VOXELS[0] % 200).astype(most), photometric="miniswhite"),
                float(np.iinfo(most).max) - VOXELS[:1] % 200,
                1,
            )
            for most in (np.uint8, np.uint16)
        ),
        # arrays
        (h5(reconstruction_rss=STACK, kspace=STACK * 1j), STACK, 1),
        (h5(**{"x/y": STACK, "z": STACK}, part="#array=x/y"), STACK, 1),
        (matlab(im=STACK.T), STACK.transpose(0, 2, 1), 1),
        (arrays(a=STACK, part="#slices=0,mm=1x1x2"), STACK, 0),
        (array(STACK, part="#slices=0,slice=1"), STACK[1:2], 0),
    ],
    "pet": [
        (of(*each("RescaleSlope", *"32123"), Modality="PT"), STORED * (abs(K - 2) + 1) - 1024, 0),
    ],
    "seg": [
        (seg(MASKS[:1]), MASKS[0], 1),
        (seg(GAP), GAP[0] + 2 * GAP[1], 1),
        (seg(EVEN), EVEN[0], 1),
        (seg(MASKS[:1], "deflated"), MASKS[0], 1),
        (seg(GAP, "runs"), GAP[0] + 2 * GAP[1], 1),
    ],
}


@every_row("name, make, values, messages", by_name(READ))
def test_a_file_is_read_with_its_voxels_and_messages(tmp_path, make, name, values, messages, capfd):
    volume = read_volume(make(tmp_path), name)
    if values is SERIES:
        values = HU
    assert_array_equal(volume.data[0], np.float32(values))
    assert len(volume.guesses) == messages
    assert capfd.readouterr() == ("", "")


def test_a_matlab_file_of_either_version_has_the_same_axes(tmp_path):
    mat(tmp_path / "a.mat", im=STACK)
    hdf5(tmp_path / "b.h5", im=STACK.T)  # as MATLAB stores it
    (tmp_path / "b.mat").write_bytes(b"MATLAB 7.3".ljust(512) + (tmp_path / "b.h5").read_bytes())
    a, b = (read_volume(tmp_path / f"{name}.mat").data for name in "ab")
    assert_array_equal(a, b)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


def link(path, target):
    path.symlink_to(target)
    return path


def with_entry(folder, spoil):
    spoil(write(folder) / "9x.dcm")
    return folder


LOCALISER = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
REFUSED = {  # what is written, its name, and what the sentence names
    "": [
        # files of a series
        (lambda d: (write(d) / "6.dcm").unlink() or d, "5.00 mm"),
        (
            lambda d: write(
                d, *({"ImagePositionPatient": place(k, 0.7 * (k % 4) * ROW_WAY)} for k in ALL)
            ),
            "2.dcm",
        ),
        (lambda d: put(write(d) / "9.dcm", b"lost" * 99).parent, "9.dcm"),
        (lambda d: with_entry(d, lambda file: file.symlink_to("lost.dcm")), "9x.dcm"),
        (lambda d: with_entry(d, lambda file: file.mkdir()), "9x.dcm"),
        (lambda d: with_entry(d, lambda file: put(file, LFS)), "git lfs pull"),
        (lambda d: link(d / "0.dcm", "/lost/0.dcm").parent, "0.dcm"),
        (more("x", 0, SeriesInstanceUID="1.2.9"), r"#[0-9a-f]{8}"),
        (more("x", 2), "stored twice"),
        (more("x", 9, **LOCALISER), "x.dcm"),
        (more("x", 9, ImagePositionPatient=None), "ImagePositionPatient"),
        (of(ImagesInAcquisition=7), "ImagesInAcquisition"),
        # tags of its slices
        (of(*some([0], ImageType=["ORIGINAL", "PRIMARY", "MOSAIC"])), "mosaic"),
        (of(PixelSpacing=[0, 0.8]), "PixelSpacing"),
        (of(ImageOrientationPatient=[1, 0, 0, 0.3, 0.954, 0]), "right angles"),
        (of(*some([2], ImageType=PHASE), ImageType=MAGNITUDE), "ImageType.*6.dcm"),
        (of(HighBit=16), "3.dcm"),
        *(
            (lambda d, tag=tag: write(d, *some([2], **{tag: "19500102"})), f"{tag}.*6.dcm")
            for tag in ("PatientID", "PatientBirthDate", "StudyInstanceUID")
        ),
        # values
        (of(PhotometricInterpretation="PALETTE COLOR"), "PALETTE COLOR"),
        (of(*some([4], PerFrameFunctionalGroupsSequence=[item(), item()])), "9.dcm"),
        (of(ModalityLUTSequence=table(range(500)), **NO_RESCALE), "LUTSequence"),
        (of(*some([2], RescaleType="Z_EFF")), "Z_EFF"),
        # texts of tags
        (tag("PixelSpacing", b"0,5\\0,8"), r"6.dcm.*PixelSpacing.*0,5"),
        (tag("ImagePositionPatient", b"1,5\\2\\3"), "ImagePositionPatient.*1,5"),
        (tag("RescaleIntercept", b"-1,024"), "RescaleIntercept.*-1,024"),
        (tag("PixelSpacing", b"0.5", b"UT"), "2 numbers in PixelSpacing"),
        (seg(MASKS[:1], "xl"), "JPEG XL|4\\.110"),
        # of another patient at the same place
        (more("x", 2, PatientID="P2"), "PatientID.*x.dcm"),
        # segmentations and pointers
        (zipped(LFS), "Git LFS"),
        (plain(b"/annex/objects/MD5E-s1--0.nii\n"), "git-annex"),
        (lambda d: link(d / "a.nii", ".git/annex/objects/x/MD5E-s1--0"), "datalad get"),
        # other formats
        (lambda d: d / "none.nii.gz", ""),
        (plain(b""), "empty"),
        (lambda d: cut(put(d / "a.nii.gz", gzip.compress(RAW)), 0.6), ""),
        (lambda d: cut(nifti(d / "a.nii", voxels=NOISE), 0.6), "9×9×9"),
        (nii((42, "<h", 30000)), "cut short"),
        (nii(voxels=np.zeros((2, 2, 2, 20), np.int16)), "#frame=1"),
        (nii(voxels=NOISE.astype(np.complex64)), "complex64"),
        (nii(voxels=np.full((2, 2, 2), 1e30)), "1e"),
        (nii((108, "<f", 100.0)), "a.nii"),
        (nii((123, "B", 3)), "micron"),
        (lambda d: packed(d / "a.nii", 1), "compressed"),
        (lambda d: packed(d / "a.nii.gz", 2), ""),
        (header("a.nrrd", f"{NRRD}encoding: bzip2\n\n"), "compressed"),
        (header("a.mhd", f"{META}b.raw\n"), "b.raw"),
        (header("a.mhd", f"{META}../a.bin\n"), r"\.\./a\.bin"),
        (header("a.mha", f"{META}LOCAL\n", RAW[:-9]), ""),
        (header("a.mha", f"{META}LOCAL\n".replace("DimSize", "Size"), RAW), ""),
        (png(np.arange(192).reshape(8, 8, 3)), "colour"),
        # arrays
        (array(STACK), r"5×6×7.*#slices=0"),
        (lambda d: cut(npy(d / "a.npy", STACK[0]), 0.6), "damage"),
        (array(np.array([{"a": 1}])), "objects"),
        (h5(a=STACK, b=STACK), "#array=a"),
        (h5(a=STACK, part="#slice=5"), "0 to 4"),
        (h5(a=h5py.ExternalLink("b.h5", "a")), "a.h5"),
    ],
    "t1": [
        (of(*some([3], RescaleSlope="-2")), "-2"),
        (of(*some([2], **NO_RESCALE)), "6.dcm"),
        (of(ModalityLUTSequence=table([1, 2])), "LUTSequence"),
    ],
    "ct": [
        (of(**NO_RESCALE), "neither"),
    ],
    "seg": [
        (seg(np.ones_like(MASKS)), "overlap"),
    ],
}
RAW_ERRORS = re.compile("Error|could not convert|invalid literal|NoneType|np[.]|all available")


@every_row("name, make, words", by_name(REFUSED))
def test_a_file_that_is_not_read_is_refused_in_one_sentence_that_names_it_and_the_cause(
    tmp_path, make, name, words, capfd
):
    path = make(tmp_path)
    with refuses(words or None) as caught:
        read_volume(path, name)
    sentence = str(caught.value)
    assert str(tmp_path) in sentence.partition(": expected ")[0]
    assert "\n" not in sentence
    assert not RAW_ERRORS.search(sentence)
    assert not {"P2", "Doe^Jane"} & set(sentence.split())
    assert capfd.readouterr().out == ""


# sound files in another sense than ours: colour, several frames, no place in a patient, complex, not finite, singular
NOT_OURS = {
    *("dicom_big_endian_us.dcm", "dicom_nm_jpeg2000.dcm", "dicom_rgb_odd_length.dcm"),
    *("dicom_rtdose_multiframe_u32.dcm", "nifti_4d.nii", "nifti2.nii.gz", "freesurfer.mgz"),
    *("nifti_complex64.nii.gz", "nifti_sform_all_zero.nii", "nifti_nan_inf.nii.gz"),
    "nifti_multiecho_tiny_values.nii",
}


def test_every_odd_file_loads_as_its_table_says_or_is_refused(shared):
    folder = shared / "data/odd"
    with open(folder / "expected.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 15
    for row in rows:
        path = folder / row["file"]
        if not row["voxels_load"].startswith("yes") or path.name in NOT_OURS:
            with refuses(f"^{re.escape(str(path))}: expected [^\n]*$"):
                read_volume(path)
            continue
        volume = read_volume(path)
        # DICOM arrays are listed as rows × columns, NIfTI ones as x × y
        sizes = [1, *map(int, row["expected_shape"].split("x"))][-3:]
        assert sorted(volume.grid.shape) == sorted(sizes)
        low, high = (float(value) for value in row["value_range"].split(".."))
        # the list has values before the rescale intercept
        shift = -1024 if path.name == "dicom_ct_small_ok.dcm" else 0
        assert (volume.data.min(), volume.data.max()) == (low + shift, high + shift), path.name
