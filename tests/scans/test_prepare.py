import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from preparing import prepare
from refusals import refuses
from rows import every_row
from voxlate.base.errors import CannotWrite
from voxlate.base.files import LOCK, lock, read_json
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import (
    OPEN_FILES,
    compact,
    open_case,
    prepare_case,
)
from voxlate.scans.cases.prepared import Cohort, open_cohort, write_cohort
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, canonical
from voxlate.scans.images.mask import foreground

prepare_serially = partial(prepare, workers=1)


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """The files of cases, and when each was written."""
    files = {path.name: path.stat() for path in (out / "cases").iterdir()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in files.items()}


@pytest.fixture
def put(save, tmp_path) -> Callable[..., Path]:
    """Write a scan of the cohort that `prepare_here` prepares, by case and modality."""
    return lambda name, *voxels, **more: save(tmp_path / f"in/{name}.nii.gz", *voxels, **more)


@pytest.fixture
def prepare_here(tmp_path, out) -> Callable[..., Cohort]:
    return partial(prepare_serially, tmp_path / "in", out)


@pytest.fixture(scope="module")
def by_default(patients, tmp_path_factory) -> Path:
    """The six patients, prepared without options."""
    return prepare_serially(patients, tmp_path_factory.mktemp("by_default") / "out").folder


@pytest.fixture
def copied(by_default, tmp_path) -> Path:
    """`by_default`, which a test may change."""
    return shutil.copytree(by_default, tmp_path / "out")


def test_voxels_affine_labels_and_given_masks_come_through_unchanged(patients, six):
    original, seg = (read_volume(patients / f"case0/{name}.nii.gz") for name in ("t1", "seg"))
    case = six.case("case0")
    volume = case.volume("t1")
    assert np.array_equal(volume.data, original.data)
    assert np.array_equal(volume.affine, original.affine)
    assert (volume.unit, volume.modality) == ("a.u.", "t1")
    assert np.array_equal(case.arrays["label.seg"][:], seg.data[0])
    assert six.modalities == ("t1", "t2")
    header = six.header("case1")
    assert six.case("case1").mask().sum() == 3 * 3 * 6
    assert header.mask_area == [0, 18, 18, 18]
    assert header.mask_box == [(1, 4), (2, 5), (1, 7)]
    assert header.mask_ml == pytest.approx(0.054)
    # scaled by what it shows itself, mask or not
    t1 = canonical(read_volume(patients / "case1/t1.nii.gz"))
    mean = t1.data[0][foreground(t1)].mean()
    assert header.statistics["t1"].foreground.mean == pytest.approx(mean)


def test_volumes_are_reoriented_to_ras_and_the_files_own_grid_is_remembered(put, prepare_here):
    values, lps = np.arange(24).reshape(2, 3, 4), np.diag([-2.0, -1.0, 3.0, 1.0])
    for name in ("t1", "mask"):
        put(f"a/{name}", values, affine=lps)
    cohort = prepare_here()
    assert "grey-mask" in [said.code for said in cohort.warnings]
    assert np.array_equal(cohort.case("a").volume("t1").data[0], values[:, ::-1, ::-1])
    header = cohort.header("a")
    assert header.affine == [[2, 0, 0, -6], [0, 1, 0, -2], [0, 0, 3, 0], [0, 0, 0, 1]]
    assert header.spacing_mm == (3, 1, 2)
    own = header.origins["t1"]
    assert (own.affine, own.shape) == (lps.tolist(), values.shape)


@every_row(
    "values, dtype",
    [
        ([-32768, 0, 32767], "int16"),
        ([0.5, 1, 2], "float32"),
        ([0, 1, 32768], "float32"),
        ([-0.0, 7, 8], "int16"),
    ],
)
def test_int16_is_used_only_where_it_loses_nothing(values, dtype):
    array = np.array(values, dtype=np.float32)
    assert compact(array).dtype == dtype
    assert np.array_equal(compact(array).astype(np.float32), array)


def test_the_mask_has_a_bit_for_each_of_64_modalities():
    rows, columns = np.mgrid[-16:16, -16:16]
    scans = {}
    for k in range(64):
        part = (np.hypot(rows, columns) < 10) & (rows < min(k, 8) - 2)
        data = np.repeat(500.0 * part[None, None], 8, axis=1).astype(np.float32)
        scans[f"mr{k:02}"] = Volume(data, np.eye(4), "a.u.", f"mr{k}", f"mr{k}.nii.gz")
    case = prepare_case("case0", scans, Preparation())
    assert case.arrays["mask"][:].dtype == np.uint64
    for name in ("mr00", "mr04", "mr63"):
        assert np.array_equal(case.mask([name]), foreground(scans[name]))
    assert np.array_equal(case.mask(["mr00", "mr04"]), case.mask(["mr04"]))
    assert np.array_equal(case.mask(), case.mask(["mr63"]))


def test_records_of_another_version_are_refused(patients, copied):
    value = read_json(copied / "cohort.json") | {"version": 1}
    (copied / "cohort.json").write_text(json.dumps(value))  # without a checksum
    for again in (partial(open_cohort, copied), partial(prepare_serially, patients, copied)):
        with refuses():
            again()


def test_unequal_grids_are_refused_unless_they_may_be_resampled(put, prepare_here, out):
    field = [1, 10, 100]
    put("a/ct", np.tensordot(field, np.mgrid[:8, :8, :8], 1))
    # every second voxel of the same linear field, shifted by half of a fine voxel
    coarse = np.mgrid[:4, :4, :4] * 2 + 0.5
    put("a/t1", np.tensordot(field, coarse, 1), (2, 2, 2), (0.5, 0.5, 0.5))
    put("a/mask", np.ones((8, 8, 8)))
    with refuses(r"found 4×4×4, 2\.00×2\.00×2\.00 mm"):
        prepare_here()
    assert not list(out.rglob("*.*"))
    cohort = prepare_here(resample=True)
    ct, t1 = (cohort.case("a").volume(name).data[0] for name in ("ct", "t1"))
    assert np.allclose(t1[1:-1, 1:-1, 1:-1], ct[1:-1, 1:-1, 1:-1], atol=1e-3)
    assert cohort.header("a").origins["t1"].shape == (4, 4, 4)


ALIKE, SHIFTED, _ = np.mgrid[:8, :8, :8]
UNFIT = [  # scans of each case, options of prepare, and what its refusal says
    ({"t1": ALIKE, "mask": np.ones((8, 8, 9))}, {}, "mask"),
    ({"ct": ALIKE, "t1": (SHIFTED, (1, 1, 1), (3, 0, 0))}, {}, r"3\.00 mm"),
    (
        {"ct": ALIKE, "t1": (SHIFTED, (1, 1, 1), (900, 0, 0))},
        {"resample": True},
        "expected it to overlap",
    ),
    ({"ct": ALIKE, "t1": np.ones((8, 8, 9))}, {}, "4 that cannot"),
    ({"ct": ALIKE}, {"matrix": (6, 4), "spacing_mm": (1, 1, 1)}, "matrix"),
    ({"ct": ALIKE}, {"matrix": (0, 4)}, "matrix"),
    ({"ct": ALIKE}, {"spacing_mm": (2, -1, 1)}, "spacing"),
]


@every_row("scans, options, words", UNFIT)
def test_scans_that_fit_no_grid_are_refused_with_the_number_of_cases(
    scans, options, words, save, tmp_path
):
    for case in "abcd":
        for name, values in scans.items():
            given = values if isinstance(values, tuple) else (values,)
            save(tmp_path / f"in/{case}/{name}.nii.gz", *given)
    with refuses(words):
        prepare_serially(tmp_path / "in", tmp_path / "out", **options)


@every_row(
    "options, shapes",
    [
        ({"matrix": (6, 4)}, [(4, 6, 4), (3, 6, 4)]),
        ({"spacing_mm": (2, 2, 2)}, [(8, 4, 4), (3, 9, 6)]),
    ],
)
def test_cases_are_resized_to_a_matrix_or_to_a_spacing(save, tmp_path, options, shapes):
    ramp = np.ones((4, 8, 8)) * np.arange(8)
    save(tmp_path / "in/a/t1.nii.gz", ramp, (4, 1, 1))
    save(tmp_path / "in/a/mask.nii.gz", np.ones(ramp.shape), (4, 1, 1))
    save(tmp_path / "in/b/t1.nii.gz", np.ones((3, 6, 12)) * np.arange(12), (2, 3, 1))
    cohort = prepare_serially(tmp_path / "in", tmp_path / "out", **options)
    assert [case.shape for case in cohort.cases] == shapes
    sides_mm = [np.multiply(case.shape, case.spacing_mm) for case in cohort.cases]
    assert np.allclose(sides_mm, [(16, 8, 8), (6, 18, 12)])
    assert np.allclose(cohort.case("a").volume("t1").data[0], [0.5, 2.5, 4.5, 6.5], atol=1e-4)
    assert cohort.header("a").mask_ml == pytest.approx(4 * 8 * 8 * 4 / 1000)
    assert cohort.preparation.matrix == options.get("matrix")


def test_cases_with_nan_are_left_out_and_refused_where_they_are_half(cohort_folder, save, out):
    prepared = partial(prepare_serially, cohort_folder, out, modalities=["t1", "t2"])
    spoilt = cohort_folder / "case0/t1.nii.gz"
    blank = nib.Nifti1Image(np.full((8, 6, 4), np.nan), np.eye(4))
    nib.save(blank, spoilt)
    few = prepared()
    assert {case.case for case in few.cases} == {f"case{number}" for number in range(1, 6)}
    assert few.provenance["failed"] == ["case0"]
    assert not (out / "cases/case0.safetensors").exists()
    for number in range(3):
        nib.save(blank, cohort_folder / f"case{number}/t2.nii.gz")
    with refuses():
        prepared()


def test_one_modality_in_two_units_is_refused(put, prepare_here, tmp_path):
    put("a/ct", np.mgrid[:1, :8, :8][1])
    (tmp_path / "in/b").mkdir()
    Image.fromarray(np.mgrid[:8, :8][0].astype(np.uint8)).save(tmp_path / "in/b/ct.png")
    with refuses():
        prepare_here()


def test_prepared_again_nothing_is_rewritten_but_what_changed(cohort_folder, save, out):
    again = partial(prepare_serially, cohort_folder, out)
    first = again()
    before, text = stamps(out), (out / "cohort.json").read_text()
    assert again() == first
    assert stamps(out) == before
    assert (out / "cohort.json").read_text() == text
    save(cohort_folder / "case2/t1.nii.gz", np.ones((4, 6, 8)) * 3)
    cohort = again()
    assert [name for name, stamp in stamps(out).items() if stamp != before[name]] == [
        "case2.safetensors"
    ]
    assert (cohort.case("case2").volume("t1").data == 3).all()


@every_row(
    "options, found",
    [
        ({"spacing_mm": (2, 2, 2)}, "spacing_mm"),
        ({"exclude": "case1"}, "cases.*, exclude"),
        ({"modalities": "t1,t2"}, "modalities"),
        ({"manifest": "other.csv"}, "cases.*, manifest"),
        ({"seed": 7}, "split_by"),
    ],
)
def test_a_whole_cohort_prepared_in_another_way_is_kept(
    patients, copied, tmp_path, options, found, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before, text = stamps(copied), (copied / "cohort.json").read_text()
    Path("other.csv").write_text("case\ncase1\ncase2\n")
    with refuses(rf"\(differs in: {found}"):
        prepare_serially(patients, copied, **options)
    assert stamps(copied) == before
    assert (copied / "cohort.json").read_text() == text


def test_a_manifest_changed_since_is_no_reason_to_lose_cases_or_splits(cohort_folder, out):
    table = cohort_folder / "cases.csv"
    table.write_text("case,split\ncase1,train\ncase2,val\n")
    cohort = prepare_serially(cohort_folder, out)
    assert cohort.splits == {"train": ["case1"], "val": ["case2"], "test": []}
    assert cohort.provenance["split_by"] == "manifest"
    for other in ("case2,test\n", ""):
        table.write_text("case,split\ncase1,train\n" + other)
        with refuses():
            prepare_serially(cohort_folder, out)


def test_a_manifest_named_from_another_folder_is_the_same(
    cohort_folder, tmp_path, monkeypatch, out
):
    (tmp_path / "mine.csv").write_text("case\ncase1\ncase2\n")
    prepare_serially(cohort_folder, out, manifest=tmp_path / "mine.csv")
    text = (out / "cohort.json").read_text()
    monkeypatch.chdir(tmp_path)
    prepare_serially(cohort_folder, out, manifest="mine.csv")
    assert (out / "cohort.json").read_text() == text


def test_an_unfinished_preparation_may_go_on_with_other_options(patients, copied):
    (copied / "cohort.json").unlink()
    cohort = prepare_serially(patients, copied, spacing_mm=(2, 2, 2))
    assert {one.spacing_mm for one in cohort.cases} == {(2, 2, 2)}


@every_row("what", ["notes.txt", "cohort.json"])
def test_a_folder_that_holds_something_else_is_refused(patients, tmp_path, what):
    (tmp_path / "cases").mkdir()
    (tmp_path / what).write_text('{"format": "other"}')
    with refuses():
        prepare_serially(patients, tmp_path)
    assert (tmp_path / what).read_text() == '{"format": "other"}'


def test_what_is_not_prepared_or_damaged_is_refused(patients, copied):
    with refuses():
        open_cohort(patients)
    cohort = open_cohort(copied)
    (copied / "cases/case0.safetensors").write_bytes(b"damaged")
    with refuses():
        cohort.header("case0")
    write_cohort(cohort)
    assert open_cohort(copied) == cohort


def test_a_flipped_bit_in_a_prepared_case_is_refused(by_default, tmp_path):
    path = tmp_path / "case0.safetensors"
    whole = (by_default / "cases/case0.safetensors").read_bytes()
    draw = np.random.default_rng(0)
    for place in draw.integers(8, len(whole), 30):
        spoiled = bytearray(whole)
        spoiled[place] ^= 1 << draw.integers(8)
        path.write_bytes(spoiled)
        os.utime(path, ns=(int(place),) * 2)  # a file changed twice within a tick of the clock
        with refuses():
            open_case(path)


def test_a_folder_that_another_process_writes_is_refused(cohort_folder, tmp_path, out):
    with lock(out), refuses():
        prepare_serially(cohort_folder, out)
    assert prepare_serially(cohort_folder, out).splits
    (tmp_path / LOCK).symlink_to(tmp_path / LOCK)  # which no system can open
    with pytest.raises(CannotWrite), lock(tmp_path):
        pass


@pytest.fixture
def two_grids(put, tmp_path) -> Path:
    """Two cases with a flair in thick slices, and another scan in thin ones."""
    draw = np.random.default_rng(0)
    for case in ("a", "b"):
        put(f"{case}/flair", draw.integers(1, 900, (4, 24, 24)), (6, 1, 1))
        put(f"{case}/t1", draw.integers(1, 900, (24, 24, 24)))
    return tmp_path / "in"


def test_resample_takes_the_finest_grid(two_grids, tmp_path):
    finest = prepare_serially(two_grids, tmp_path / "finest", resample=True, audit=False)
    assert finest.provenance["fixed"] == "t1"
    assert [one.shape for one in finest.cases] == [(24, 24, 24)] * 2


def test_opened_cases_hold_fewer_files_than_a_process_may_open(prepared, tmp_path):
    one, here = min((prepared / "cases").iterdir()), Path("/proc/self/fd")
    if not here.is_dir():
        pytest.skip("this system does not list a process's open files")
    before = len(list(here.iterdir()))
    for number in range(OPEN_FILES + 9):
        assert open_case(shutil.copy(one, tmp_path / f"{number}.safetensors")).header
    assert len(list(here.iterdir())) - before <= OPEN_FILES
