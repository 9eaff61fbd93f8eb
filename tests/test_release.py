"""The checklist of a release finds what it looks for; the builds themselves are `make release`."""

import json
import re
import sys
from pathlib import Path

import pytest

import release
from rows import every_row

ROOT = Path(__file__).parents[1]


def test_no_installed_dependency_has_a_licence_that_is_not_allowed(tmp_path):
    release.licences_are_allowed(tmp_path)
    found = json.loads((tmp_path / "licences.json").read_text())
    assert {"torch", "numpy", "nibabel", "markupsafe"} <= set(found)  # the last one of jinja2
    assert "voxlate" not in found


def test_a_version_is_not_released_without_its_kept_files(tmp_path, monkeypatch):
    assert release.files_of_this_version_are_kept(tmp_path).startswith("0.7.tar.xz, ")
    monkeypatch.setattr(release, "_project", lambda: {"version": "0.99.0"})
    with pytest.raises(AssertionError, match=r"0\.99\.tar\.xz: expected files of this version"):
        release.files_of_this_version_are_kept(tmp_path)


@every_row(
    "licence",
    ["AGPL-3.0-only", "GNU Affero General Public License v3", "EUPL-1.2", "CC-BY-NC-4.0"],
)
def test_a_dependency_whose_licence_is_not_allowed_is_named(tmp_path, monkeypatch, licence):
    monkeypatch.setattr(
        release, "licence_of", lambda name: licence if name == "scipy" else "BSD-3-Clause"
    )
    with pytest.raises(AssertionError, match=re.escape(f"{{'scipy': '{licence}'}}")):
        release.licences_are_allowed(tmp_path)


def test_citation_and_changelog_have_the_version_of_the_package(tmp_path):
    import voxlate

    assert release.versions_agree(tmp_path) == voxlate.__version__


def test_a_point_that_fails_is_printed_and_ends_the_checklist_with_status_1(
    tmp_path, monkeypatch, capsys
):
    def fails(_):
        raise AssertionError("the builds differ")

    monkeypatch.setattr(release, "POINTS", (release.versions_agree, fails))
    monkeypatch.setattr(sys, "argv", ["release.py", "--out", str(tmp_path)])
    assert release.main() == 1
    assert "FAILED  fails: the builds differ" in capsys.readouterr().out


def test_the_container_runs_without_root():
    lines = (ROOT / "release" / "Containerfile").read_text().splitlines()
    users = [line for line in lines if line.startswith("USER ")]
    assert users == ["USER voxlate"]
    assert lines.index("USER voxlate") < lines.index('ENTRYPOINT ["voxlate"]')
