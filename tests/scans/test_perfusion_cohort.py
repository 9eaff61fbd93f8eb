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


def passage() -> np.ndarray:
    """CT perfusion [T, D, H, W] each second, an artery highest in frame PEAK; frame k is k HU brighter in one corner."""
    frames = np.repeat(head()[None], 30, axis=0)
    since = np.clip(np.arange(30) - PEAK + 6, 0, None) / 6
    frames[:, 1:3, 6:8, 5:7] += (160 * since**3 * np.exp(3 * (1 - since)))[:, None, None, None]
    frames[:, 0, 4, 4] += np.arange(30)
    return frames.round()


def write(path: Path, values: np.ndarray) -> None:
    """[D, H, W] or [T, D, H, W] as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values.T.astype(np.int16), AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


def stored(cohort: Cohort, name: str) -> np.ndarray:
    """The voxels as in the files, where x grows to Left."""
    return cohort.case("sub-stroke0001").volume(name).data[0][:, :, ::-1]


def isles24(root: Path) -> None:
    """A case of ISLES'24 with all that lies around what is wanted."""
    subject = "sub-stroke0001"
    folder, name = f"{subject}/ses-01", f"{subject}_ses-01"
    for kind in ("ncct", "cta", "ctp"):
        write(
            root / f"raw_data/{folder}/{name}_{kind}.nii.gz", head()[: 4 if kind == "ncct" else 2]
        )
    write(root / f"raw_data/{folder}/perfusion-maps/{name}_tmax.nii.gz", head()[:2])
    aligned = {"cta": head() + 1, "lvo-msk": head() * 0, "cow-msk": head() * 0, "ctp": passage()}
    aligned |= {
        f"perfusion-maps/{kind}": (head() > 0) * k
        for k, kind in enumerate(("tmax", "mtt", "cbf", "cbv"), 2)
    }
    for place, values in aligned.items():
        *maps, kind = place.split("/")
        file = Path(*maps, f"{name}_space-ncct_{kind}.nii.gz")
        write(root / "derivatives" / folder / file, values)
    later = root / f"derivatives/{subject}/ses-02"
    write(later / f"{subject}_ses-02_space-ncct_lesion-msk.nii.gz", head() > 0)
    write(later / f"{subject}_ses-02_space-ncct_adc.nii.gz", head())
    write(later / f"{subject}_ses-02_lesion-msk.nii", head()[:2])


def test_isles24_becomes_maps_ncct_cta_and_a_labelled_pseudo_multiphase_cta(tmp_path, out):
    isles24(tmp_path / "ISLES24")
    prepared(tmp_path / "ISLES24", out, preset="isles24", fixed="ncct")
    cohort = open_cohort(out)
    assert cohort.units == {
        **dict.fromkeys(("cta", *PHASES, "ncct"), "HU"),
        **{"cbf": "ml/100g/min", "cbv": "ml/100g", "mtt": "s", "tmax": "s"},
    }
    header = cohort.header("sub-stroke0001")
    assert header.labels == ["lesion"]
    after = ("arterial peak", "peak + 8 s", "peak + 16 s")
    for name, number, words in zip(PHASES, (9, 17, 25), after, strict=True):
        assert header.origins[name].note == f"pseudo: CTP frame {number + 1} of 30, {words}"
        assert_array_equal(stored(cohort, name), passage()[number])
    assert header.origins["cta"].note == ""
    assert_array_equal(stored(cohort, "cta"), head() + 1)


@every_row("text", ['files = {cta2 = "{case}/ctp#pique"}', ""])
def test_a_preset_that_cannot_work_is_refused(tmp_path, text):
    write(tmp_path / "a/ctp.nii.gz", passage())
    (tmp_path / "own.toml").write_text('title = "x"\nsource = "y"\n' + text)
    with refuses():
        prepared(tmp_path, tmp_path / "out", preset=tmp_path / "own.toml")
