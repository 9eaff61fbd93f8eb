"""The authors' own arrays: paper 000's .npy and paper 001's .npz; stacks in HDF5."""

import shutil
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from preparing import prepare
from refusals import refuses
from rows import every_row, slow
from voxlate.base.errors import BadInput
from voxlate.scans.cases.case import lay_out, open_case
from voxlate.scans.cases.prepared import case_path
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats.io import content_hash, read_volume

SIZE = (24, 20)
MCTA = "mCTA/p07.npy"
IDS = [f"p{k:02d}" for k in range(46)]
TRAIN, TEST = IDS[:40], IDS[40:]
ROWS, COLUMNS = np.meshgrid(np.linspace(-1, 1, SIZE[0]), np.linspace(-1, 1, SIZE[1]), indexing="ij")
HEAD = (ROWS / 0.9) ** 2 + (COLUMNS / 0.7) ** 2 < 1  # rows run from front to back: deeper than wide


def values(seed, low, high):
    return np.random.default_rng(seed).uniform(low, high, SIZE).astype(np.float32)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def write_000(root, train, test):
    """{Tmax,mCTA,mask}/ID.npy, the lists beside them, and patients.txt: each ID is its own patient."""
    for k, name in enumerate([*train, *test]):
        phases = [HEAD * values(4 * k + c, 100 * c, 100 * c + 50) for c in range(4)]
        save(root / "mCTA" / f"{name}.npy", np.stack(phases, axis=-1))
        save(root / "Tmax" / f"{name}.npy", (HEAD * values(1000 + k, 1, 20)).astype(np.float64))
        save(root / "mask" / f"{name}.npy", HEAD.astype(np.uint8))
    (root / "train_list.txt").write_text("\n".join(train) + "\n")
    (root / "test_list.txt").write_text("\r\n".join(test) + "\r\n")
    (root / "patients.txt").write_text("\n".join([*train, *test]))
    return root


@pytest.fixture(scope="module")
def written_000(tmp_path_factory):
    """A data set of all patients, which no test changes."""
    return write_000(tmp_path_factory.mktemp("written_000") / "dataset", TRAIN, TEST)


@pytest.fixture
def arrays_000(written_000, tmp_path):
    """`written_000`, which a test may change."""
    shutil.copytree(written_000.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "dataset"


@pytest.fixture
def few_000(tmp_path):
    """A data set of four patients, which is prepared quickly."""
    return write_000(tmp_path / "few" / "dataset", TRAIN[5:8], TEST[:1])


@pytest.fixture
def arrays_001(tmp_path):
    """Four slices of each of four patients, whose ids are not the names."""
    root = tmp_path / "slices"
    root.mkdir()
    for k in range(16):
        np.savez_compressed(
            root / f"s{k:02d}.npz", src=values(k, -1, 3), tgt=values(100 + k, -900, 900)
        )
    (root / "patients.txt").write_text("".join(f"s{k:02d} sub{k // 4}\n" for k in range(16)))
    return root


@pytest.fixture
def arrays_002(tmp_path):
    """Twelve slices of MR and CT of four patients, in a stack each, and the table of them."""
    root = tmp_path / "stacks"
    root.mkdir()
    for name, low, high in (("mr", 0, 500), ("ct", -1000, 900)):
        with h5py.File(root / f"{name}.h5", "w") as file:
            file["data"] = np.stack([values(k, low, high) for k in range(12)])
    rows = [f"{k:02},pelvis{k // 3},mr.h5#slice={k},ct.h5#slice={k}" for k in range(12)]
    (root / "cases.csv").write_text("\n".join(["case,patient,t2,ct", *rows]))
    return root


def prepared(root, out, preset, **options):
    return prepare(root, out, preset=preset, audit=False, workers=1, **options)


def case_in(cohort, name):
    return open_case(case_path(cohort.folder, name))


def as_seen(case, name):
    """A slice whose rows run to the back and columns to the left; canonical ones run to the front and the right."""
    return case.volume(name).data[0, 0][::-1, ::-1]


def test_channels_of_paper_000_become_four_scans_with_the_map_and_the_file_s_mask(
    few_000, tmp_path
):
    cohort = prepared(few_000, tmp_path / "out", "mrdpm")
    assert any("channels of mCTA are plain CT" in message.text for message in cohort.warnings)
    assert cohort.provenance["split_by"] == "lists"
    assert cohort.modalities == ("cta1", "cta2", "cta3", "ncct", "tmax")
    assert cohort.units == {"ncct": "HU", "cta1": "HU", "cta2": "HU", "cta3": "HU", "tmax": "s"}
    case, stored = case_in(cohort, "p07"), np.load(few_000 / "mCTA" / "p07.npy")
    for channel, name in enumerate(("ncct", "cta1", "cta2", "cta3")):
        np.testing.assert_array_equal(as_seen(case, name), stored[..., channel])
    np.testing.assert_array_equal(case.mask()[0][::-1, ::-1], HEAD)
    assert case.header.spacing_mm == pytest.approx((1, 0.625, 0.625))
    assert case.header.mask_from == "p07.npy#axes=PL,mm=0.625"
    assert case.header.origins["cta2"].file == "p07.npy#channel=2,axes=PL,mm=0.625"


def test_the_lists_of_paper_000_are_its_splits_ten_items_are_held_back_and_other_files_are_said(
    arrays_000,
):
    save(arrays_000 / "Tmax" / "z.npy", np.ones(SIZE))
    found = find_cohort(arrays_000, preset="mrdpm")
    (unlisted,) = found.unclaimed
    assert unlisted.endswith("'z'")
    splits = {case.case: case.split for case in found.cases}
    assert [name for name, split in splits.items() if split == "test"] == TEST
    held_back = {name for name, split in splits.items() if split == "val"}
    assert len(held_back) == 10
    assert held_back <= set(TRAIN)
    assert splits.keys() == {*IDS}
    assert find_cohort(arrays_000, preset="mrdpm").cases == found.cases


def test_items_are_held_back_by_whole_patients_and_no_patient_is_in_two_splits(
    arrays_000, tmp_path
):
    owners = tmp_path / "owners.txt"
    owners.write_text("".join(f"{name}\tpat{k // 4}\n" for k, name in enumerate(IDS)))
    cases = find_cohort(arrays_000, preset="mrdpm", patients=owners).cases
    held = Counter(one.patient for one in cases if one.split == "val")
    assert [*held.values()] == [4, 4, 4]  # the fewest patients that make ten
    owners.write_text("\n".join(f"{name} pat{k % 45}" for k, name in enumerate(IDS)))
    with refuses():
        find_cohort(arrays_000, preset="mrdpm", patients=owners)


def test_a_preset_of_one_s_own_says_the_spacing_and_how_slices_lie(arrays_001, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('base = "xmodality"\narrays = { part = "axes=LP,mm=0.9x0.8x2.5" }\n')
    cohort = prepared(arrays_001, tmp_path / "out", own)
    header = case_in(cohort, "s04").header
    # rows run to the left: along columns of a canonical slice
    assert header.spacing_mm == pytest.approx((2.5, 0.8, 0.9))
    assert header.shape == (1, SIZE[1], SIZE[0])
    assert not any("spacing is" in one.text for one in cohort.warnings)


def test_networks_of_paper_001_see_its_slices_as_they_are_stored(arrays_001, tmp_path):
    cohort = prepared(arrays_001, tmp_path / "out", "xmodality")
    stored = np.load(arrays_001 / "s05.npz")
    case = lay_out(case_in(cohort, "s05"), "SLP")  # data.axes of its recipes
    for name, key in (("tof", "src"), ("cta", "tgt")):
        np.testing.assert_array_equal(case.volume(name).data[0, 0], stored[key])
    assert cohort.units == {"cta": "HU", "tof": "a.u."}
    assert case.header.patient == "sub1"


def test_slices_of_stacks_are_paired_by_a_table_and_split_by_patient(arrays_002, tmp_path):
    cohort = prepared(arrays_002, tmp_path / "out", None, shares=(2, 1, 1))
    assert [len(cases) for cases in cohort.splits.values()] == [6, 3, 3]
    assert {one.patient for one in cohort.cases} == {f"pelvis{k}" for k in range(4)}
    case = case_in(cohort, "10")
    assert case.header.patient == "pelvis3"
    np.testing.assert_array_equal(as_seen(case, "t2"), values(10, 0, 500))
    np.testing.assert_array_equal(as_seen(case, "ct"), values(10, -1000, 900))


PRESETS = {"arrays_000": "mrdpm", "arrays_001": "xmodality"}


@slow
@pytest.mark.parametrize("fixture", PRESETS)
def test_without_a_list_of_patients_prepare_and_evaluate_ask_for_one_and_synth_need_not(
    fixture, request, voxlate, tmp_path
):
    root, preset = request.getfixturevalue(fixture), PRESETS[fixture]
    (root / "patients.txt").unlink()
    for arguments in (
        ("prepare", root, "--out", tmp_path / "out"),
        ("evaluate", tmp_path, "--truth", root),
    ):
        assert "--patients FILE" in voxlate(*arguments, "--preset", preset).refusal
    assert not (tmp_path / "out").exists()
    assert len(find_cohort(root, preset=preset).cases) > 0


def test_of_a_stack_only_the_slices_that_are_named_are_read(arrays_002, monkeypatch):
    asked = []
    original = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset, "__getitem__", lambda self, key: asked.append(key) or original(self, key)
    )
    cases = find_cohort(arrays_002).cases
    assert not asked
    read_volume(cases[3].files["ct"])
    assert asked == [(3,)]


def test_the_hash_of_a_slice_goes_by_its_file_and_by_what_the_path_says(arrays_002):
    stack = arrays_002 / "mr.h5"
    names = [f"{stack}#slice={k},{rest}" for k in (3, 4) for rest in ("mm=1", "mm=2")]
    before = [content_hash(Path(name)) for name in names]
    assert len(set(before)) == 4
    with h5py.File(stack, "r+") as file:
        file["data"][0] = 7
    assert not set(before) & {content_hash(Path(name)) for name in names}


DAMAGED = [  # a file of paper 000, what stands in it, and what is named
    ("test_list.txt", "p08\np07\n", "train_list.txt, line 3: .*p07"),
    ("test_list.txt", "\n\n", "test_list.txt"),
    (MCTA, np.full((*SIZE, 4), np.nan, np.float32), "480 NaN"),
    (MCTA, np.zeros((*SIZE, 3), np.float32), "channel 0 to 2"),
    ("Tmax/p07.npy", np.ones((25, 20), np.float32), "p07.npy.*20×25×1"),
    ("mask/p07.npy", np.ones(SIZE[::-1], np.uint8), "mask/p07.npy.*24×20×1"),
]


@every_row("file, content, words", DAMAGED)
def test_damaged_or_mismatched_files_of_paper_000_are_named(tmp_path, file, content, words):
    root = write_000(tmp_path / "few" / "dataset", TRAIN[5:8], TEST[:1])
    if isinstance(content, str):
        (root / file).write_text(content)
    else:
        save(root / file, content)
    with refuses(words):
        raise BadInput(*prepared(root, tmp_path / "out", "mrdpm").provenance["unread"])


@every_row(
    "fixture, file, text, words",
    [
        ("arrays_001", "patients.txt", "s00 a\ns01 a b\n", "line 2"),
        ("arrays_001", "patients.txt", "s00 a\n", "s01 .15 of 16"),
        ("arrays_001", "own.toml", 'base = "no"', "the base of"),
        ("arrays_001", "own.toml", 'base = "xmodality"\nfiles = {tof = 3}', "files.tof"),
    ],
)
def test_a_list_or_a_preset_that_cannot_be_meant_is_named(fixture, file, text, words, request):
    root = request.getfixturevalue(fixture)
    kept = (root / file).read_bytes() if (root / file).exists() else None
    (root / file).write_text(text)
    with refuses(words):
        find_cohort(root, preset=root / file if file == "own.toml" else PRESETS[fixture])
    if kept is not None:
        (root / file).write_bytes(kept)


@every_row("part", ["mm=0", "mm=1x1", "mm=1.2.3", "axes=LR", "frame=1"])
def test_what_stands_after_the_mark_is_checked(part, arrays_000):
    with refuses():
        read_volume(f"{arrays_000}/mCTA/p00.npy#channel=0,{part}")
