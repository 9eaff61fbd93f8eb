"""The cohort of the RIRE project by its presets: made-up MetaImage files in its layout."""

import numpy as np
import pytest

from voxlate.scans.cohorts.find import find_cohort

itk = pytest.importorskip("SimpleITK", reason="MetaImage needs the extra 'registration'")

SHAPE = (4, 6, 5)  # slices, rows, columns


def write(folder, values):
    folder.mkdir(parents=True)
    image = itk.GetImageFromArray(values.astype(np.int16))
    image.SetSpacing((1.25, 1.25, 4.0))
    itk.WriteImage(image, folder / "scan.mhd")


def head(seed=0):
    values = np.random.default_rng(seed).integers(300, 500, SHAPE)
    values[:, 0] = values[:, -1] = 0
    return values


def cohort(root):
    for number, patient in enumerate(("patient_001", "patient_002", "patient_103", "training_001")):
        for name in ("mr_T1", "ct", "mr_T2")[: 2 if patient == "patient_103" else 3]:
            write(root / patient / name, head(number))
    for name in ("mr_T1_rectified", "mr_T2_rectified"):
        write(root / "patient_001" / name, head(9))
    return root


def test_the_preset_pairs_scans_by_patient_and_leaves_out_and_says_who_lacks_one(tmp_path):
    found = find_cohort(cohort(tmp_path), preset="rire", modalities=["t1", "t2"])
    assert [one.case for one in found.cases] == ["patient_001", "patient_002"]
    assert found.cases[0].files["t1"] == tmp_path / "patient_001/mr_T1/scan.mhd"
    skipped, lacking = found.unclaimed
    assert "training_001" in skipped  # RIRE's example, none of the 17 pairs of paper 004
    assert "patient_103" in lacking
    # whose T1 can be used
    assert "patient_103" in [one.case for one in find_cohort(tmp_path, preset="rire").cases]
