"""Frames of a DICOM series that shows its slices several times in one folder, and of enhanced objects."""

import re
from datetime import datetime, timedelta

import numpy as np
import pytest

from refusals import refuses
from rows import every_row, slow
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats.dicom import list_series
from voxlate.scans.formats.io import read_volume

pydicom = pytest.importorskip("pydicom")
from pydicom.uid import RLELossless  # noqa: E402 - needs pydicom

import dicom_slices  # noqa: E402
from dicom_slices import item  # noqa: E402

DEPTH, ROWS, COLUMNS, COUNT = 2, 8, 9, 18
PEAK = 6


def dynamic():
    """HU [T, D, H, W]: tissue with a level for each slice, and an artery that is highest in frame PEAK."""
    frames = np.full((COUNT, DEPTH, ROWS, COLUMNS), 40.0) + np.arange(DEPTH)[:, None, None]
    since = np.clip(np.arange(COUNT) - PEAK + 4, 0, None) / 4
    frames[:, 1, 3:5, 4:6] += (200 * since**3 * np.exp(3 * (1 - since)))[:, None, None]
    return frames.round()


def save(path, values, z, uid="1.2.3", **tags):
    stated = {
        "SOPInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": uid,
        "SeriesNumber": 4,
        "PixelSpacing": [2.0, 2.0],
        "ImagePositionPatient": [-9, -8, z],
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024",
    }
    dicom_slices.save(dicom_slices.image((values + 1024).astype(np.int16), **stated | tags), path)


def clock(seconds):
    start = datetime(2020, 1, 1, 23, 59, 50)  # the day changes on the way
    return (start + timedelta(seconds=seconds)).strftime("%H%M%S.%f")


def times():
    """A frame each 2 s, and each 4 s from 16 s on, as perfusion protocols do."""
    return np.concatenate([np.arange(9) * 2.0, 16 + np.arange(1, COUNT - 8) * 4.0])


def write(folder, tag="AcquisitionTime", jitter=0.0, leave_out=-1):
    """The series with one tag that tells its times apart, in files whose names do not."""
    frames = dynamic()
    names = np.random.default_rng(0).permutation(COUNT * DEPTH)
    for k, name in enumerate(names):
        t, z = divmod(k, DEPTH)
        value = t + 1
        if tag.endswith("Time"):
            value = clock(times()[t] + 0.1 * z)  # slices of one frame come after one another
        if tag == "InstanceNumber":
            value = k + 1
        if k != leave_out:
            stated = {tag: value} if tag else {}
            height = 5.0 * z + jitter * (-1) ** t
            save(folder / f"{name:03d}.dcm", frames[t, z], height, **stated)
    return folder


@slow
@every_row(
    "tag",
    ["ContentTime", "TemporalPositionIdentifier", "DiffusionBValue", "InstanceNumber"],
)
def test_the_images_of_each_place_are_frames_in_their_order_in_time(tmp_path, tag):
    folder = write(tmp_path / "a", tag, jitter=0.02)
    for frame, number, note in (
        ("frame=5", 4, "frame 5 of 18"),
        ("peak", PEAK, "pseudo: CTP frame 7 of 18, arterial peak"),
    ):
        volume = read_volume(f"{folder}#{frame}", "cta1")
        np.testing.assert_array_equal(volume.data[0], dynamic()[number])
        assert (volume.unit, volume.note) == ("HU", note)


def test_unequal_steps_in_time_are_heeded_and_the_series_key_may_stand_before_the_frame(
    tmp_path,
):
    folder = write(tmp_path / "a")
    save(folder / "localiser.dcm", dynamic()[0, 0], 90.0, uid="9.9")
    (key,) = [one.path for one in list_series(folder) if one.images > 1]
    # the peak is at 12 s, the frames after it at 14, 16, 20, 24 and 28 s
    for after, said in (
        ("16s", "frame 12 of 18, peak + 16 s"),
        ("11s", "frame 11 of 18, peak + 11 s (nearest: +12.0 s)"),
        ("10s", "frame 10 of 18, peak + 10 s (nearest: +8.0 s)"),
    ):
        assert read_volume(f"{key}#peak+{after}").note == f"pseudo: CTP {said}"
    np.testing.assert_array_equal(read_volume(f"{key}#peak+8s").data[0], dynamic()[9])
    np.testing.assert_array_equal(read_volume(f"{key}#peak+8s@2s").data[0], dynamic()[10])
    with refuses("expected one DICOM series, found 2"):
        read_volume(f"{folder}#peak")


@slow
@every_row(
    "frame, how, words",
    [
        ("#peak", {"leave_out": 20}, "found 17 at that of"),
        ("#frame=1", {"tag": ""}, "separates the images at one place"),
        ("#peak+8s", {"tag": "AcquisitionNumber"}, "times of its frames in the header, found none"),
        ("", {}, "AcquisitionTime.*#frame=1 to #frame=18"),
    ],
)
def test_a_frame_that_a_series_cannot_give_gets_one_sentence(tmp_path, frame, how, words):
    folder = write(tmp_path / "a", **how)
    with refuses(words):
        read_volume(f"{folder}{frame}")


@slow
def test_unitobrain_becomes_maps_a_first_frame_and_a_pseudo_multiphase_cta(tmp_path):
    root = tmp_path / "DeepHealth_IEEE"
    name = "MOL-001_Registered_Filtered_3mm_20HU"
    write(root / name)
    for other in ("MOL-001", "MOL-001_Registered"):
        save(root / other / "1.dcm", dynamic()[0, 0], 0.0)
    for k, kind in enumerate(("CBF", "CBV", "MTT", "TTP", "Delay")):
        for z in range(DEPTH):
            file = root / f"{name}_Maps/NLR_{kind}/NLR_{kind}{z}.dcm"
            save(file, np.full((ROWS, COLUMNS), k + 1), 5.0 * z, uid=f"7.{k}")
    (case,) = find_cohort(root, preset="unitobrain").cases
    assert case.case == "MOL-001"
    scans = {name: read_volume(file, name) for name, file in case.files.items()}
    assert {name: scan.note for name, scan in scans.items()} == {
        **dict.fromkeys(("cbf", "cbv", "mtt", "ttp"), ""),
        "ncct": "frame 1 of 18",
        "cta1": "pseudo: CTP frame 7 of 18, arterial peak",
        "cta2": "pseudo: CTP frame 10 of 18, peak + 8 s",
        "cta3": "pseudo: CTP frame 12 of 18, peak + 16 s",
    }
    assert scans["ttp"].unit == "s"
    np.testing.assert_array_equal(scans["cta1"].data[0], dynamic()[PEAK])


ORDER = [2, 0, 3, 1]  # the place of each frame: frames need not follow each other in space
SLOPES = [1.0, 3.0, 2.0, 4.0]  # of each place; they neither rise nor fall alone


def group(z, slope, **content):
    """The functional groups of a frame at a height of z mm whose values are multiplied by a slope."""
    return item(
        PlanePositionSequence=[item(ImagePositionPatient=[-10.0, 5.0, z])],
        PixelValueTransformationSequence=[
            item(RescaleSlope=slope, RescaleIntercept=-1024.0, RescaleType="US")
        ],
        FrameContentSequence=[item(**{"StackID": "1"} | content)],
    )


def write_object(file, groups, pixels):
    """An enhanced object of axial frames whose pixels are 0.5 mm high and 0.8 mm wide."""
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.8], SliceThickness=3.0)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
    )
    header = dicom_slices.image(
        pixels.astype("<u2"),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        SeriesInstanceUID="1.2.3",
        BitsStored=12,
        HighBit=11,
        NumberOfFrames=len(groups),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=groups,
    )
    del header.ImageOrientationPatient
    return dicom_slices.save(header, file)


def stored(count):
    return np.random.default_rng(5).integers(0, 4096, (count, 3, 4))


@pytest.mark.parametrize("packed", [False, True])
def test_frames_are_ordered_by_place_and_each_is_scaled_by_its_own_slope(tmp_path, packed):
    pixels = stored(4)
    groups = [group(3.0 * place, SLOPES[place]) for place in ORDER]
    file = write_object(tmp_path / "a.dcm", groups, pixels)
    if packed:
        header = pydicom.dcmread(file)
        header.compress(RLELossless)
        header.save_as(file)
    volume = read_volume(file)
    for frame, place in enumerate(ORDER):
        expected = pixels[frame] * SLOPES[place] - 1024
        np.testing.assert_array_equal(volume.data[0, place], expected)
    np.testing.assert_allclose(volume.affine @ [3, 2, 3, 1], [10 - 2.4, -5 - 1.0, 9, 1])
    assert (volume.unit, volume.guesses) == ("HU", ())


def test_two_stacks_of_one_object_are_listed_and_each_is_read_by_its_path(tmp_path):
    groups = [group(3.0 * (k // 2), 1.0) for k in range(6)]
    for k, one in enumerate(groups[1::2]):
        one.FrameContentSequence[0].StackID = "2"
        one.PlaneOrientationSequence = [item(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])]
        one.PlanePositionSequence[0].ImagePositionPatient = [-10.0, 5.0 + 3.0 * k, 40.0]
    pixels = stored(6)
    write_object(tmp_path / "a.dcm", groups, pixels)
    with refuses("#.*#") as caught:
        read_volume(tmp_path)
    paths = re.findall(r"\S+#[0-9a-f]{8}", str(caught.value))
    axial, coronal = [read_volume(tmp_path.parent / path) for path in paths]
    np.testing.assert_array_equal(axial.data[0], pixels[::2] - 1024.0)
    np.testing.assert_array_equal(coronal.data[0], pixels[1::2] - 1024.0)
    np.testing.assert_allclose(coronal.affine @ [0, 0, 2, 1], [10, -11, 40, 1])


TIMES = ["20200101000001.5+0100", "20191231235959.5+0100", "20200101000000+0100"]


@every_row(
    "content, number, words",
    [
        ([{"TemporalPositionIndex": time} for time in (1, 2, 3)], 2, "TemporalPosition.*#frame=1"),
        (
            [{"FrameAcquisitionDateTime": time, "StackID": None} for time in TIMES],
            1,
            "AcquisitionDateTime",
        ),
    ],
)
def test_the_times_of_one_object_are_frames_of_a_dynamic_scan(tmp_path, content, number, words):
    pixels = stored(6)
    groups = [group(3.0 * (k % 2), 1.0, **content[k // 2]) for k in range(6)]
    file = write_object(tmp_path / "a.dcm", groups, pixels)
    with refuses(words):
        read_volume(file)
    second = read_volume(f"{tmp_path}#frame={number}")
    np.testing.assert_array_equal(second.data[0], pixels[2:4] - 1024.0)


def test_an_object_that_claims_more_frames_than_it_holds_is_refused(tmp_path):
    groups = [group(3.0 * k, 1.0) for k in range(4)]
    file = write_object(tmp_path / "a.dcm", groups, stored(2))
    with refuses("a.dcm"):
        read_volume(file)
