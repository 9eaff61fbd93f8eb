"""Frames of a DICOM series that shows its slices several times in one folder."""

from pathlib import Path

import numpy as np
import pytest

from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.checks.prepare import prepare
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats.dicom import list_series
from voxlate.scans.formats.io import read_volume

pytest.importorskip("pydicom")
import dicom_slices

DEPTH, ROWS, COLUMNS, COUNT = 2, 8, 9, 18
PEAK = 6


def dynamic() -> np.ndarray:
    """HU [T, D, H, W]: tissue with a level for each slice, and an artery that is highest in frame PEAK."""
    frames = np.full((COUNT, DEPTH, ROWS, COLUMNS), 40.0) + np.arange(DEPTH)[:, None, None]
    since = np.clip(np.arange(COUNT) - PEAK + 4, 0, None) / 4
    frames[:, 1, 3:5, 4:6] += (200 * since**3 * np.exp(3 * (1 - since)))[:, None, None]
    return frames.round()


def save(path: Path, values: np.ndarray, z: float, uid: str = "1.2.3", **tags: object) -> None:
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


def clock(seconds: float) -> str:
    whole = 23 * 3600 + 59 * 60 + 50 + seconds  # the day changes on the way
    return f"{int(whole // 3600) % 24:02d}{int(whole % 3600 // 60):02d}{whole % 60:09.6f}"


def times() -> np.ndarray:
    """A frame each 2 s, and each 4 s from 16 s on, as perfusion protocols do."""
    return np.concatenate([np.arange(9) * 2.0, 16 + np.arange(1, COUNT - 8) * 4.0])


def write(
    folder: Path, tag: str = "AcquisitionTime", jitter: float = 0.0, leave_out: int = -1
) -> Path:
    """The series with one tag that tells its times apart, in files whose names do not."""
    frames = dynamic()
    names = np.random.default_rng(0).permutation(COUNT * DEPTH)
    for k, name in enumerate(names):
        t, z = divmod(k, DEPTH)
        moment = times()[t] + 0.1 * z  # slices of one frame come after one another
        value = (
            clock(moment) if tag.endswith("Time") else t + 1 if tag != "InstanceNumber" else k + 1
        )
        if k != leave_out:
            save(
                folder / f"{name:03d}.dcm",
                frames[t, z],
                5.0 * z + jitter * (-1) ** t,
                **({tag: value} if tag else {}),
            )
    return folder


@pytest.mark.slow
@every_row(
    "tag",
    [
        "AcquisitionTime",
        "ContentTime",
        "TemporalPositionIdentifier",
        "AcquisitionNumber",
        "InstanceNumber",
    ],
)
def test_the_images_of_each_place_are_frames_in_their_order_in_time(tmp_path, tag):
    folder = write(tmp_path / "a", tag, jitter=0.02)
    volume = read_volume(f"{folder}#frame=5", "cta1")
    np.testing.assert_array_equal(volume.data[0], dynamic()[4])
    assert (volume.unit, volume.note) == ("HU", "frame 5 of 18")
    peak = read_volume(f"{folder}#peak")
    np.testing.assert_array_equal(peak.data[0], dynamic()[PEAK])
    assert peak.note == "pseudo: CTP frame 7 of 18, arterial peak"


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
    with pytest.raises(BadInput, match="expected one DICOM series, found 2"):
        read_volume(f"{folder}#peak")


BAD = {
    "#peak": ({"leave_out": 20}, "expected as many images at every place, found 17 at that of"),
    "#frame=1": (
        {"tag": ""},
        "expected an acquisition time or number that separates the images at one place",
    ),
    "#peak+8s": (
        {"tag": "AcquisitionNumber"},
        r"expected the times of its frames in the header, found none",
    ),
    "": ({}, r"several echoes or times.*#frame=1 or #peak"),
}


@pytest.mark.slow
@every_row("frame", BAD)
def test_a_frame_that_a_series_cannot_give_gets_one_sentence(tmp_path, frame):
    how, sentence = BAD[frame]
    folder = write(tmp_path / "a", **how)
    with pytest.raises(BadInput, match=sentence) as error:
        read_volume(f"{folder}{frame}")
    assert str(error.value).startswith(str(folder))


@pytest.mark.slow
def test_unitobrain_becomes_maps_a_first_frame_and_a_pseudo_multiphase_cta(tmp_path):
    root = tmp_path / "DeepHealth_IEEE"
    name = "MOL-001_Registered_Filtered_3mm_20HU"
    write(root / name)
    for other in ("MOL-001", "MOL-001_Registered"):
        save(root / other / "1.dcm", dynamic()[0, 0], 0.0)
    for k, kind in enumerate(("CBF", "CBV", "MTT", "TTP", "Delay")):
        for z in range(DEPTH):
            save(
                root / f"{name}_Maps/NLR_{kind}/NLR_{kind}{z}.dcm",
                dynamic()[0, z] * 0 + k + 1,
                5.0 * z,
                uid=f"7.{k}",
            )
    (case,) = find_cohort(root, preset="unitobrain").cases
    assert case.case == "MOL-001"
    cohort = prepare(
        root, tmp_path / "out", preset="unitobrain", fixed="ncct", workers=1, audit=False
    )
    assert cohort.modalities == ("cbf", "cbv", "cta1", "cta2", "cta3", "mtt", "ncct", "ttp")
    assert cohort.units["ttp"] == "s"
    notes = {
        key: origin.note for key, origin in cohort.header("MOL-001").origins.items() if origin.note
    }
    assert notes["ncct"] == "frame 1 of 18"
    assert notes["cta1"] == "pseudo: CTP frame 7 of 18, arterial peak"
    assert notes["cta2"] == "pseudo: CTP frame 10 of 18, peak + 8 s"
    assert notes["cta3"] == "pseudo: CTP frame 12 of 18, peak + 16 s"
    np.testing.assert_array_equal(
        cohort.case("MOL-001").volume("cta1").data[0][:, ::-1, ::-1], dynamic()[PEAK]
    )
