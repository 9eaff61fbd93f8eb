"""Uploads and results belong to their owner alone."""

import os
import stat
import sys

import pytest


@pytest.fixture
def open_umask():
    """A umask that lets everybody read, also while the server ends."""
    former = os.umask(0)
    yield
    os.umask(former)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permissions of this kind")
def test_uploads_and_results_are_for_their_owner_alone_whatever_the_umask(
    open_umask, at_work, run, cohort, tmp_path
):
    folder = tmp_path / "data" / "jobs"
    folder.mkdir(parents=True)
    folder.chmod(0o755)  # which is closed at the start
    made = at_work(run)
    content = (cohort / "case1" / "t1.nii.gz").read_bytes()
    place, _ = made.checked(**{"inner/t1.nii.gz": content})
    address, _ = made.synthesised(place)
    assert made.get(f"{address}/images/t2.nii.gz").status_code == 200
    found = [folder, *folder.rglob("*")]
    assert {path.name for path in found} >= {"inner", "t1.nii.gz", "out", "t2.nii.gz", "job.json"}
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in found}
    assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in found}
