"""Frames of dynamic scans: their numbers, the arterial peak of a made-up bolus, and what cannot be had."""

from pathlib import Path

import nibabel as nib
import numpy as np

from refusals import refuses
from rows import every_row
from voxlate.scans.formats.dynamic import peak_frame
from voxlate.scans.formats.io import read_volume

AFFINE = np.array([[-2.0, 0, 0, 20], [0, 2, 0, -30], [0, 0, 5, 7], [0, 0, 0, 1]])


def gamma_variate(seconds, arrival, peak):
    """A bolus that arrives at `arrival` and is at its height, 1, at `peak` (Madsen 1992, eq. 3, with alpha = 3)."""
    since = np.clip((seconds - arrival) / (peak - arrival), 0, None)
    return since**3 * np.exp(3 * (1 - since))


def bolus(count=45, step=1.0, noise=0.0, seed=0, vein=250.0):
    """CT perfusion in HU, [T, D, H, W]: tissue, bone, small arteries (peak at 18 s) and a large, brighter vein later."""
    frames = np.full((count, 6, 32, 32), 35.0)
    for part, height, arrival, peak in (
        (np.s_[:, :, 2:30, 2:30], 4, 10, 24),
        (np.s_[:, 2:5, 10:12, 10:12], 120, 11, 18),
        (np.s_[:, 1:6, 27:29, 14:17], vein, 18, 25),
    ):
        curve = gamma_variate(np.arange(count) * step, arrival, peak)
        frames[part] += height * curve[:, None, None, None]
    frames[:, :, :2] = 1000.0  # bone, which does not enhance
    return frames + np.random.default_rng(seed).normal(size=frames.shape) * noise


def stored(path, frames, step=1.0, unit="sec"):
    """frames [T, D, H, W] (or [T, 1, D, H, W]) as NIfTI x, y, z, t (or x, y, z, 1, t), int16 with a slope of 2."""
    image = nib.Nifti1Image(np.rint(frames.T / 2).astype(np.int16), AFFINE)
    image.header.set_xyzt_units("mm", unit)
    if step is not None:
        image.header["pixdim"][4] = step
    image.header.set_slope_inter(2, 0)
    nib.save(image, path)
    return path


@every_row(
    "step, most, how",
    [
        (0.5, 0.5, {"noise": 8.0}),
        (1.5, 0.75, {}),
        (3.0, 3.0, {"noise": 8.0}),
        # an early artery of few voxels is not outvoted by tissue
        (1.0, 1, {"noise": 6.0, "vein": 0.0}),
        (1.0, 1, {"noise": 6.0, "vein": 0.0, "seed": 1}),
    ],
)
def test_the_peak_of_a_gamma_variate_bolus_is_found_among_bone_a_brighter_vein_and_noise(
    step, most, how
):
    frames = bolus(count=int(60 / step), step=step, **how)
    assert abs(peak_frame(frames) * step - 18) <= most


def test_a_vein_of_many_more_voxels_and_a_skull_that_moves_early_do_not_count_as_arteries():
    frames = bolus(count=25, step=2.0, noise=6.0)
    later = 280 * gamma_variate(np.arange(25) * 2.0, 16, 25)
    frames[:, :, 20:25, 20:25] += later[:, None, None, None]  # 150 voxels, arteries 12
    frames[4:, :, 2] += 250  # of bone, which lies there from now on
    assert abs(peak_frame(frames) * 2 - 18) <= 2


def test_a_single_bright_frame_a_late_step_and_voxels_that_are_not_finite_are_no_bolus():
    frames = bolus()
    frames[5, :, 15:25, 15:25] += 3000  # a frame gone wrong
    frames[30:, :, 20:24, 4:8] += 900  # the head has moved
    frames[:, 0, 3, 3] = np.nan
    frames[7, 0, 4, 4] = np.inf
    assert peak_frame(frames) == 18
    with refuses("found nothing"):
        peak_frame(np.nan * frames)


@every_row("name", ["ctp.nii", "ctp.nii.gz"])
def test_a_frame_is_read_by_its_number_from_one_as_if_it_were_a_file_of_its_own(tmp_path, name):
    frames = np.random.default_rng(0).integers(-500, 500, (4, 3, 5, 7)) * 2.0
    path = stored(tmp_path / name, frames[:, None] if name.endswith("gz") else frames)
    for k in range(4):
        volume = read_volume(Path(f"{path}#frame={k + 1}"), "cta1")
        np.testing.assert_array_equal(volume.data[0], frames[k])
        np.testing.assert_array_equal(volume.affine, AFFINE)
        assert (volume.unit, volume.note) == ("HU", f"frame {k + 1} of 4")


@every_row("step, unit", [(1.5, "sec"), (1500.0, "msec")])
def test_the_time_after_the_peak_goes_by_the_header_or_by_what_the_path_says(tmp_path, step, unit):
    frames = bolus(count=40, step=1.5)
    path = stored(tmp_path / "ctp.nii.gz", frames, step, unit)
    for frame, number, note in (
        ("peak", 12, "pseudo: CTP frame 13 of 40, arterial peak"),
        ("peak+8s", 17, "pseudo: CTP frame 18 of 40, peak + 8 s (nearest: +7.5 s)"),
        ("peak+16.5s", 23, "pseudo: CTP frame 24 of 40, peak + 16.5 s"),
        ("peak-6s", 8, "pseudo: CTP frame 9 of 40, peak - 6 s"),
        ("peak+8s@1s", 20, "pseudo: CTP frame 21 of 40, peak + 8 s"),
    ):
        volume = read_volume(f"{path}#{frame}", "cta2")
        np.testing.assert_allclose(volume.data[0], frames[number], atol=1.01)
        assert volume.note == note


@every_row(
    "frames, frame, words",
    [
        (bolus(count=30), "#peak+16s", r"peak at 18\.0 s \(frame 19"),
        (bolus(), "#peak-30s", r"found the peak at 18\.0 s"),
        (bolus()[:1], "#peak", "found one volume"),
        (bolus(), "#frame=46", "from 1 to 45, found #frame=46"),
        (bolus(), "#frame=0", "from 1 to 45, found #frame=0"),
        (bolus() * 0, "#peak", "expected a bolus of contrast in 45 frames"),
        (bolus(count=5), "#peak", "at least 6 frames"),
        (50 * np.random.default_rng(1).normal(size=(40, 8, 24, 24)), "#peak", "found nothing"),
        (bolus()[:13], "#peak", "found nothing"),  # it ends before the peak
        (bolus(), "#peek", "found nothing there"),
        (bolus(), "", "found 45 frames .*a.nii#frame=1 to #frame=45, or #peak"),
    ],
)
def test_an_unavailable_frame_is_refused_in_one_sentence(tmp_path, frames, frame, words):
    path = stored(tmp_path / "a.nii", frames)
    with refuses(words):
        read_volume(f"{path}{frame}")


def test_a_scan_without_times_or_all_of_its_frames_is_refused(tmp_path):
    path = stored(tmp_path / "a.nii", bolus(), step=None, unit=None)
    with refuses("times of its frames in the header, found none"):
        read_volume(f"{path}#peak+8s")
    path.write_bytes(path.read_bytes()[:-5000])
    with refuses("cut short"):
        read_volume(f"{path}#peak")
