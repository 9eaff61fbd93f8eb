"""prepare, synth, evaluate and calibrate give the same files by one process, by workers and by Ray."""

import shutil

import pytest

from rows import slow
from voxlate.base.files import read_json
from voxlate.scans.cases.prepared import open_cohort

MEASURED = ("seconds_per_slice", "checksum")


def without_times(values):
    """Values of JSON without those that are measured, at any depth, and without tables of scores."""
    if not isinstance(values, dict):
        return values
    kept = {key: without_times(value) for key, value in values.items() if key not in MEASURED}
    return kept | {"tables": None} if "tables" in kept else kept


def contents(folder):
    """The bytes of each file by its path, and of JSON its values without what is measured."""
    found = dict[str, object]()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            found[name] = without_times(read_json(path))
        elif path.name == "scores.csv":
            lines = path.read_text().splitlines()
            found[name] = [line for line in lines if ",seconds_per_slice," not in line]
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def test_prepared_cohorts_are_the_same_by_workers(voxlate, cohort, tmp_path):
    for name, options in (("one", []), ("local", ["--executor", "local", "--workers", 2])):
        voxlate("prepare", cohort, "--out", tmp_path / name, *options).done()
    assert contents(tmp_path / "one") == contents(tmp_path / "local")


def times_in(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_prepare_lists_bad_cases_after_the_others_and_resumes(voxlate, cohort, out):
    whole = {cohort / case / "t2.nii.gz": b"" for case in ("case2", "case4")}
    for scan in whole:
        whole[scan] = scan.read_bytes()
        scan.write_bytes(b"no scan")
    options = ("prepare", cohort, "--out", out, "--executor", "local", "--workers", 2)
    answer = voxlate(*options)
    assert answer.code == 3
    assert all(str(scan) in answer.err for scan in whole)
    assert len(open_cohort(out).cases) == 4
    made = times_in(out / "cases")
    for scan, content in whole.items():
        scan.write_bytes(content)
    voxlate(*options).done()
    now = times_in(out / "cases")
    assert (len(made), len(now)) == (4, 6)
    assert made.items() <= now.items()


@pytest.fixture
def heads(small_head, tmp_path):
    """Four heads that no training saw; the scan of the third one is damaged."""
    for number in range(4):
        small_head(tmp_path / "heads" / f"new{number}", 50 + number)
    (tmp_path / "heads" / "new2" / "t1.nii.gz").write_bytes(b"no scan")
    return tmp_path / "heads"


@pytest.fixture
def made_by(voxlate, diffusion, heads, tmp_path, quick_widths):
    """The files of a synthesis, its scores and a calibration by the options of an executor."""

    def make(name, *options):
        folder = tmp_path / name
        run = shutil.copytree(diffusion, folder / "run")
        out = folder / "out"
        synthesised = voxlate("synth", run, heads, "--out", out, "--samples", 2, "-v", *options)
        assert synthesised.refusal.count("left out") == 1
        scoring = ("evaluate", out, "--truth", heads, "--features", "texture")
        assert "not scored: new2" in voxlate(*scoring, *options).refusal
        assert "new2: left out" in voxlate("calibrate", run, heads, *options).done().err
        return contents(folder)

    return make


@slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_images_scores_and_intervals_have_the_same_bits_by_workers(
    made_by, executor, request, monkeypatch
):
    options = ["--executor", executor, "--workers", 2]
    if executor == "ray":
        monkeypatch.setenv("RAY_ADDRESS", request.getfixturevalue("ray_address"))
    alone = made_by("alone")
    images = [name for name in alone if name.endswith(".nii.gz")]
    assert len(images) == 6  # t2 and its spread of three heads
    assert made_by("by_workers", *options) == alone
