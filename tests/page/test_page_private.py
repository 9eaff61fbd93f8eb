"""Uploads and results belong to their owner alone, and a check ends in time."""

import os
import stat
import sys

import pytest
from paging import Here
from test_page_jobs import jobs, script, waiting, worked
from test_page_results import finished, synthesised

__all__ = ["jobs"]  # a fixture


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permissions of this kind")
def test_uploads_and_results_are_for_their_owner_alone_whatever_the_umask(page, run, cohort):
    former = os.umask(0)
    try:
        made = page({"run": str(run)}, start=Here)
        content = (cohort / "case1" / "t1.nii.gz").read_bytes()
        place = made.upload(**{"inner/t1.nii.gz": content}).headers["location"]
        finished(made, place)
        address, _ = synthesised(made, place, "run")
    finally:
        os.umask(former)
    assert made.client.get(f"{address}/images/t2.nii.gz").status_code == 200
    found = [made.jobs.root, *made.jobs.root.rglob("*")]
    assert {path.name for path in found} >= {"inner", "t1.nii.gz", "out", "t2.nii.gz", "job.json"}
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in found}
    open_to_others = {
        path: oct(mode)
        for path, mode in modes.items()
        if mode != (0o700 if path.is_dir() else 0o600)
    }
    assert open_to_others == {}


def test_a_folder_of_jobs_that_others_may_enter_is_closed_at_the_start(page, tmp_path):
    folder = tmp_path / "data" / "jobs"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    page()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_job_that_takes_longer_than_its_limit_fails_with_one_sentence(jobs, monkeypatch):
    (name,) = waiting(jobs)
    monkeypatch.setattr("test_page_jobs.Worker", _hasty)
    worked(jobs, script("import time; time.sleep(60)"), lambda: jobs.read(name).has_ended)
    assert jobs.read(name).state == "failed"
    assert jobs.read(name).why.startswith("synthesise: expected an end within 0.005 minutes")


def _hasty(jobs, kinds, start):
    from voxlate.page.workers import Worker

    return Worker(jobs, kinds, start, longest_seconds=0.3)


def test_the_page_says_how_long_a_check_may_take(page, cohort):
    made = page(check_minutes=3.0)
    place = made.upload(cohort / "case1" / "t1.nii.gz").headers["location"]
    assert "A check takes at most 3 minutes." in made.client.get(place).text
