"""A tiny starter, which is installed for one test."""

import pytest

from starter_pack import pack
from voxlate.starters import names


@pytest.fixture
def install(run, tmp_path, monkeypatch):
    """Packs a training of seconds as the only installed starter; gives its folder."""
    monkeypatch.setattr(names, "FOLDER", tmp_path / "installed")

    def write(**options):
        folder = tmp_path / "installed" / "tiny"
        stated = {
            "trained_on": "synthetic heads only",
            "accepts": {"t1": ["t1", "t1w", "pd"]},
            "stripped": False,
            "spacing_mm": (1.0, 2.0),
            "limits": ["It was trained for seconds."],
        }
        pack(run, folder, **(stated | options))
        return folder

    return write


@pytest.fixture
def starter(install):
    """The folder of the only installed starter."""
    return install()
