"""Registration as a step of prepare; how well it registers is tested with the images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from voxlate.base.errors import BadInput
from voxlate.checks.prepare import prepare
from voxlate.scans.cases.case import prepare_case
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images import register as module
from voxlate.scans.images.grid import canonical
from voxlate.scans.images.intensity import Percentile
from voxlate.training.batches.patches import DataSettings, read_pair

itk = pytest.importorskip("SimpleITK", reason="registration needs the extra 'registration'")

SHIFT_RAS = np.array([4.0, -3.0, 2.0])  # where the moving scan lies, seen from the fixed one


@pytest.fixture
def pair(tmp_path, save) -> Path:
    """One patient: ct, and a tof whose frame is off by SHIFT_RAS; a label map drawn on each."""
    draw = np.random.default_rng(0)
    values = np.zeros((12, 14, 16))
    values[2:10, 3:11, 3:13] = draw.integers(300, 900, (8, 8, 10))
    root = tmp_path / "in" / "a"
    save(root / "ct.nii.gz", values)
    save(root / "tof.nii.gz", 1000 - values, origin_mm=tuple(SHIFT_RAS))
    save(root / "seg.nii.gz", values > 600)
    save(root / "lesion.nii.gz", values > 800, origin_mm=tuple(SHIFT_RAS))
    return tmp_path / "in"


def known_step(monkeypatch: pytest.MonkeyPatch, ras: np.ndarray) -> None:
    shift = itk.TranslationTransform(3, (ras * [-1, -1, 1]).tolist())
    monkeypatch.setitem(module._STAGES, "rigid", (("rigid", lambda pair, start: shift),))


def test_scans_and_labels_come_to_one_grid_and_the_transform_is_kept(pair, tmp_path, monkeypatch):
    known_step(monkeypatch, SHIFT_RAS)
    cohort = prepare(pair, tmp_path / "out", register="rigid", fixed="ct", workers=1, audit=False)
    ct, tof = (cohort.case("a").volume(name).data[0] for name in ("ct", "tof"))
    assert np.allclose(tof, 1000 - ct, atol=1e-3)
    assert np.array_equal(cohort.case("a").arrays["label.seg"][:], ct > 600)
    assert np.array_equal(
        cohort.case("a").arrays["label.lesion"][:], ct > 800
    )  # drawn on the tof, moved with it
    kept = cohort.header("a").registered["tof"]
    assert cohort.cases[0].registered == {"tof": kept}
    assert (kept.to, kept.asked, kept.kept) == ("ct", "rigid", "rigid")
    assert kept.after.mutual_information > 1.5 > 1.1 > kept.before.mutual_information
    assert cohort.warnings == ()
    # any tool that reads ITK files gets the same scan from the user's own files
    read = itk.ReadTransform(str(tmp_path / "out" / kept.transform))
    moving, fixed = (
        itk.ReadImage(str(pair / "a" / f"{name}.nii.gz"), itk.sitkFloat32) for name in ("tof", "ct")
    )
    assert np.allclose(
        itk.GetArrayFromImage(itk.Resample(moving, fixed, read, itk.sitkLinear, 0.0)),
        tof,
        atol=1e-3,
    )


@pytest.mark.slow
def test_the_fixed_scan_chooses_the_grid_also_without_registration(pair, tmp_path):
    cohort = prepare(pair, tmp_path / "out", resample=True, fixed="tof", workers=1, audit=False)
    tof = canonical(read_volume(pair / "a" / "tof.nii.gz"))
    assert np.array_equal(cohort.header("a").affine, tof.affine)
    assert np.array_equal(cohort.case("a").volume("tof").data, tof.data)
    with pytest.raises(
        BadInput,
        match="case a: expected the modality mr, to whose grid the others are resampled, found ct, tof",
    ):
        prepare(pair, tmp_path / "other", resample=True, fixed="mr", workers=1, audit=False)


@pytest.mark.slow
def test_beyond_the_moving_scan_nothing_is_masked(pair, tmp_path, monkeypatch):
    known_step(
        monkeypatch, SHIFT_RAS + np.array([0, 0, 3])
    )  # the three topmost slices of the ct lie beyond the tof
    monkeypatch.setattr(module.CoarsePair, "compare", similarities_are(1.1, 1.2))
    cohort = prepare(pair, tmp_path / "out", register="rigid", fixed="ct", workers=1, audit=False)
    assert not cohort.case("a").mask()[9:].any()
    assert cohort.case("a").mask()[2:9].any()
    assert (
        cohort.case("a").volume("tof").data[0, 9:].max()
        == cohort.case("a").volume("tof").data.min()
    )
    assert cohort.header("a").mask_from == "foreground of ct, tof, where all were scanned"


def similarities_are(*similarities: float):
    values = iter(similarities)
    return lambda pair, transform: module.Similarity(next(values), 0.5, 1.0)


@pytest.mark.slow
def test_a_registration_that_does_harm_is_undone_and_similarities_are(pair, tmp_path, monkeypatch):
    known_step(monkeypatch, SHIFT_RAS)
    monkeypatch.setattr(module.CoarsePair, "compare", similarities_are(1.2, 1.1))
    cohort = prepare(pair, tmp_path / "out", register="rigid", fixed="ct", workers=1, audit=False)
    by_header = prepare(
        pair, tmp_path / "header", resample=True, fixed="ct", workers=1, audit=False
    )
    assert np.array_equal(
        cohort.case("a").volume("tof").data, by_header.case("a").volume("tof").data
    )
    warning = cohort.warnings[0]  # another one says that the fixture's tof has the values of a CT
    assert str(warning).startswith(
        "a: tof: rigid registration did not make it more similar to ct, resampled by its header"
    )
    assert not (tmp_path / "out" / "transforms").exists()


@pytest.mark.slow
def test_prepared_again_nothing_is_done_and_otherwise_transforms_are_removed(
    pair, tmp_path, monkeypatch
):
    known_step(monkeypatch, SHIFT_RAS)
    out = tmp_path / "out"
    first = prepare(pair, out, register="rigid", fixed="ct", workers=1, audit=False)
    monkeypatch.setitem(module._STAGES, "rigid", None)  # would fail if it registered again
    assert prepare(pair, out, register="rigid", fixed="ct", workers=1, audit=False) == first
    assert (out / "transforms" / "a" / "tof.tfm").is_file()
    (out / "cohort.json").unlink()  # unfinished, so that other options may take over
    prepare(pair, out, resample=True, fixed="ct", workers=1, audit=False)
    assert not (out / "transforms" / "a").exists()


@pytest.mark.slow
def test_synthesis_registers_as_prepare_did(pair, tmp_path, monkeypatch):
    """The scans as they were given, one of them in a frame of its own: the network sees what training saw."""
    known_step(monkeypatch, SHIFT_RAS)
    cohort = prepare(pair, tmp_path / "out", register="rigid", fixed="ct", workers=1, audit=False)
    maps = {"ct": Percentile(), "tof": Percentile()}
    scans = {name: read_volume(pair / "a" / f"{name}.nii.gz", name) for name in ("ct", "tof")}
    case = prepare_case("a", scans, cohort.preparation)
    data = DataSettings(source=["ct", "tof"], target=["ct"], patch=(12, 14, 16))
    mine, theirs = (read_pair(one, data, maps, (0, 0, 0)) for one in (case, cohort.case("a")))
    assert torch.equal(mine.source, theirs.source)
    assert torch.equal(mine.mask, theirs.mask)
    assert case.header.registered == cohort.header("a").registered
