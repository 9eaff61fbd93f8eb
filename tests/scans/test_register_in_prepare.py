"""Registration as a step of prepare; how well it registers is tested with the images."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from voxlate.checks.prepare import prepare
from voxlate.scans.cases.case import prepare_case
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images import register as module
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
    root = tmp_path / "in/a"
    save(root / "ct.nii.gz", values)
    save(root / "tof.nii.gz", 1000 - values, origin_mm=tuple(SHIFT_RAS))
    save(root / "seg.nii.gz", values > 600)
    save(root / "lesion.nii.gz", values > 800, origin_mm=tuple(SHIFT_RAS))
    return tmp_path / "in"


def known_step(monkeypatch: pytest.MonkeyPatch, ras: np.ndarray = SHIFT_RAS) -> None:
    shift = itk.TranslationTransform(3, (ras * [-1, -1, 1]).tolist())
    monkeypatch.setitem(module._STAGES, "rigid", (("rigid", lambda pair, start: shift),))


to_ct = partial(prepare, fixed="ct", workers=1, audit=False)
registered = partial(to_ct, register="rigid")


def test_scans_and_labels_come_to_one_grid_and_the_transform_is_kept(pair, monkeypatch, out):
    known_step(monkeypatch)
    cohort = registered(pair, out)
    case = cohort.case("a")
    ct, tof = (case.volume(name).data[0] for name in ("ct", "tof"))
    assert np.allclose(tof, 1000 - ct, atol=1e-3)
    assert np.array_equal(case.arrays["label.seg"][:], ct > 600)
    # drawn on the tof, moved with it
    assert np.array_equal(case.arrays["label.lesion"][:], ct > 800)
    kept = cohort.header("a").registered["tof"]
    assert cohort.cases[0].registered == {"tof": kept}
    assert (kept.to, kept.asked, kept.kept) == ("ct", "rigid", "rigid")
    assert kept.after.mutual_information > 1.5 > 1.1 > kept.before.mutual_information
    assert cohort.warnings == ()
    # any tool that reads ITK files gets the same scan from the user's own files
    read = itk.ReadTransform(str(out / kept.transform))
    moving, fixed = (
        itk.ReadImage(str(pair / f"a/{name}.nii.gz"), itk.sitkFloat32) for name in ("tof", "ct")
    )
    resampled = itk.Resample(moving, fixed, read, itk.sitkLinear, 0.0)
    assert np.allclose(itk.GetArrayFromImage(resampled), tof, atol=1e-3)


@pytest.mark.slow
def test_beyond_the_moving_scan_nothing_is_masked(pair, monkeypatch, out):
    # the three topmost slices of the ct lie beyond the tof
    known_step(monkeypatch, np.add(SHIFT_RAS, [0, 0, 3]))
    monkeypatch.setattr(module.CoarsePair, "compare", similarities_are(1.1, 1.2))
    cohort = registered(pair, out)
    mask, tof = cohort.case("a").mask(), cohort.case("a").volume("tof").data[0]
    assert not mask[9:].any()
    assert mask[2:9].any()
    assert tof[9:].max() == tof.min()
    assert cohort.header("a").mask_from == "foreground of ct, tof, where all were scanned"


def similarities_are(*similarities: float):
    values = iter(similarities)
    return lambda pair, transform: module.Similarity(next(values), 0.5, 1.0)


@pytest.mark.slow
def test_a_registration_that_does_harm_is_undone_and_similarities_are(pair, tmp_path, monkeypatch):
    known_step(monkeypatch)
    monkeypatch.setattr(module.CoarsePair, "compare", similarities_are(1.2, 1.1))
    cohort = registered(pair, tmp_path / "out")
    by_header = to_ct(pair, tmp_path / "header", resample=True)
    mine, theirs = (one.case("a").volume("tof").data for one in (cohort, by_header))
    assert np.array_equal(mine, theirs)
    warning = cohort.warnings[0]  # another one says that the fixture's tof has the values of a CT
    assert str(warning).startswith("a: tof: rigid registration did not make it more similar to ct")
    assert not (tmp_path / "out/transforms").exists()


@pytest.mark.slow
def test_prepared_again_nothing_is_done_and_otherwise_transforms_are_removed(
    pair, monkeypatch, out
):
    known_step(monkeypatch)
    first = registered(pair, out)
    monkeypatch.setitem(module._STAGES, "rigid", None)  # would fail if it registered again
    assert registered(pair, out) == first
    assert (out / "transforms/a/tof.tfm").is_file()
    (out / "cohort.json").unlink()  # unfinished, so that other options may take over
    to_ct(pair, out, resample=True)
    assert not (out / "transforms/a").exists()


@pytest.mark.slow
def test_synthesis_registers_as_prepare_did(pair, monkeypatch, out):
    """The scans as they were given, one of them in a frame of its own: the network sees what training saw."""
    known_step(monkeypatch)
    cohort = registered(pair, out)
    maps = {"ct": Percentile(), "tof": Percentile()}
    scans = {name: read_volume(pair / f"a/{name}.nii.gz", name) for name in ("ct", "tof")}
    case = prepare_case("a", scans, cohort.preparation)
    data = DataSettings(source=["ct", "tof"], target=["ct"], patch=(12, 14, 16))
    mine, theirs = (read_pair(one, data, maps, (0, 0, 0)) for one in (case, cohort.case("a")))
    assert torch.equal(mine.source, theirs.source)
    assert torch.equal(mine.mask, theirs.mask)
    assert case.header.registered == cohort.header("a").registered
