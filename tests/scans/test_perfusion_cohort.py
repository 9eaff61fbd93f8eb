"""Public perfusion sets by their presets: made-up files in their layouts, and each case's pseudo-multiphase CTA."""

from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.testing import assert_array_equal

from preparing import prepare
from refusals import refuses
from rows import every_row
from voxlate.scans.cases.prepared import Cohort, open_cohort

AFFINE = np.diag([-2.0, 2.0, 5.0, 1.0])
SHAPE = (4, 16, 20)  # D, H, W
PEAK = 9  # of the artery, in frames
PHASES = ("cta1", "cta2", "cta3")
prepared = partial(prepare, workers=1, audit=False)


def head() -> np.ndarray:
    values = np.full(SHAPE, -1000.0)
    values[:, 3:13, 3:17] = 40.0
    return values


def passage(count: int = 30, step: float = 1.0) -> np.ndarray:
    """CT perfusion [T, D, H, W], an artery highest in frame PEAK; frame k is k HU brighter in one corner."""
    frames = np.repeat(head()[None], count, axis=0)
    since = np.clip((np.arange(count) - PEAK) * step + 6, 0, None) / 6
    frames[:, 1:3, 6:8, 5:7] += (160 * since**3 * np.exp(3 * (1 - since)))[:, None, None, None]
    frames[:, 0, 4, 4] += np.arange(count)
    return frames.round()


def write(path: Path, values: np.ndarray, step: float | None = 1.0) -> None:
    """[D, H, W] or [T, D, H, W] as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = values.T.astype(np.int16)
    image = nib.Nifti1Image(voxels, AFFINE)
    image.header.set_xyzt_units("mm", "sec" if step else None)
    if values.ndim == 4 and step:
        image.header["pixdim"][4] = step
    nib.save(image, path)


def stored(cohort: Cohort, case: str, name: str) -> np.ndarray:
    """The voxels as in the files, where x grows to Left."""
    return cohort.case(case).volume(name).data[0][:, :, ::-1]


def isles24(
    root: Path, subject: str, session: str, raw: str = "rawdata", step: float = 1.0
) -> None:
    """A case of ISLES'24 with all that lies around what is wanted."""
    folder, name = f"{subject}/{session}1", f"{subject}_{session}1"
    for kind in ("ncct", "cta", "ctp"):
        write(root / raw / folder / f"{name}_{kind}.nii.gz", head()[: 4 if kind == "ncct" else 2])
    write(root / raw / folder / f"perfusion-maps/{name}_tmax.nii.gz", head()[:2])
    aligned = {"cta": head() + 1, "lvo-msk": head() * 0, "cow-msk": head() * 0}
    aligned |= {kind: (head() > 0) * k for k, kind in enumerate(("tmax", "mtt", "cbf", "cbv"), 2)}
    there = root / "derivatives" / folder
    write(there / f"{name}_space-ncct_ctp.nii.gz", passage(step=step), step)
    for kind, values in aligned.items():
        place = there if "-" in kind or kind == "cta" else there / "perfusion-maps"
        write(place / f"{name}_space-ncct_{kind}.nii.gz", values)
    later = root / "derivatives" / subject / f"{session}2"
    write(later / f"{subject}_{session}2_space-ncct_lesion-msk.nii.gz", head() > 0)
    write(later / f"{subject}_{session}2_space-ncct_adc.nii.gz", head())


def test_isles24_in_both_spellings_becomes_maps_ncct_cta_and_a_labelled_pseudo_multiphase_cta(
    tmp_path, out
):
    root = tmp_path / "ISLES24"
    isles24(root, "sub-stroke0001", "ses-0", raw="raw_data")
    isles24(root, "sub-strokecase0007", "ses-000", step=2.0)
    stray = root / "derivatives/sub-stroke0001/ses-02/sub-stroke0001_ses-02_lesion-msk.nii"
    write(stray, head()[:2])
    prepared(root, out, preset="isles24", fixed="ncct")
    cohort = open_cohort(out)
    assert cohort.units == {
        **dict.fromkeys(("cta", *PHASES, "ncct"), "HU"),
        **{"cbf": "ml/100g/min", "cbv": "ml/100g", "mtt": "s", "tmax": "s"},
    }
    for case, step, numbers in (
        ("sub-stroke0001", 1.0, (9, 17, 25)),
        ("sub-strokecase0007", 2.0, (9, 13, 17)),
    ):
        header = cohort.header(case)
        assert header.labels == ["lesion"]
        after = ("arterial peak", "peak + 8 s", "peak + 16 s")
        for name, number, words in zip(PHASES, numbers, after, strict=True):
            assert header.origins[name].note == f"pseudo: CTP frame {number + 1} of 30, {words}"
            frame = passage(step=step)[number]
            assert_array_equal(stored(cohort, case, name), frame)
        assert header.origins["cta"].note == ""
        assert_array_equal(stored(cohort, case, "cta"), head() + 1)


@every_row("text", ['files = {cta2 = "{case}/ctp#pique"}', ""])
def test_a_preset_that_cannot_work_is_refused(tmp_path, text):
    write(tmp_path / "a/ctp.nii.gz", passage())
    (tmp_path / "own.toml").write_text('title = "x"\nsource = "y"\n' + text)
    with refuses():
        prepared(tmp_path, tmp_path / "out", preset=tmp_path / "own.toml")
